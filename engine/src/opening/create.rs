//! Creates a store.

use super::request::{OpenRequest, ReadyStore};
use super::resources::Resources;
use super::states::{LoadedRecords, LoadedVb};
use crate::commit::reserved_at;
use crate::error::Result;
use crate::failpoint::place;
use crate::services::OpenedStore;
use crate::storage::{FamilyOptions, Storage};
use crate::store_dir::{CreationPhase, StoreDir, StoreMarker, WitnessFile};
use std::sync::Arc;
use vbstore_core::record::{StoreState, VbState};
use vbstore_core::{FailoverLog, StoreUuid, VbId, VbUuid};

/// Creates a store in the directory. The marker says "creating" until everything is written and
/// synced. An interrupted creation starts again from nothing at the next open.
pub(super) fn create(
    request: OpenRequest,
    store_dir: StoreDir,
    vbuckets: u16,
) -> Result<OpenedStore> {
    let resources = Resources::find(&request.config, vbuckets, "create")?;
    let store = StoreUuid::new(rand::random());
    store_dir.put_marker(&StoreMarker {
        store,
        vbuckets,
        phase: CreationPhase::Creating,
    })?;
    store_dir.clear_for_creation()?;
    request.failpoints.pass(place::CREATE_DB)?;
    let options = FamilyOptions::new(resources.storage);
    let snapshots = Arc::clone(&request.metrics.db_snapshots);
    let clock = Arc::clone(&request.clock);
    let storage = Storage::create(&store_dir.db(), &options, vbuckets, snapshots, clock)?;

    let records = LoadedRecords {
        store: StoreState {
            unclean_stops: 0,
            cas_reserved: reserved_at(&*request.clock),
        },
        vbs: (0..vbuckets).map(VbId::new).map(make).collect(),
    };
    let sequence = records.write(&storage)?;
    let mut witness = WitnessFile::create(&store_dir.witness(), store)?;
    witness.record(sequence, 0)?;
    witness.sync()?;
    // ORDER: the names of the new files are durable before the marker says "ready".
    store_dir.sync()?;
    request.failpoints.pass(place::CREATE_READY)?;
    store_dir.put_marker(&StoreMarker {
        store,
        vbuckets,
        phase: CreationPhase::Ready,
    })?;
    // The marker is one of the files in the digest, so the digest is complete only now.
    witness.note_files(store_dir.files_digest()?);
    witness.record(sequence, 0)?;
    witness.sync()?;
    tracing::info!(%store, vbuckets, "the store is created");
    Ok(request.into_opened(ReadyStore {
        store,
        write_buffer_bytes: resources.write_buffer_bytes,
        store_dir,
        storage,
        witness,
        loaded: records,
        has_branches_to_begin: false,
    }))
}

/// Makes the first records of a vBucket, with a random uuid.
fn make(vb: VbId) -> LoadedVb {
    let uuid = VbUuid::from_random(rand::random());
    LoadedVb {
        vb,
        state: VbState::new(uuid),
        log: FailoverLog::new(uuid, 0),
    }
}
