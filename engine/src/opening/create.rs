//! Creating a store.

use super::request::Request;
use super::resources::Resources;
use super::states::Loaded;
use crate::error::Result;
use crate::failpoint::place;
use crate::home::{Home, Marker, Phase, WitnessFile};
use crate::services::Opened;
use crate::storage::{Batch, FamilyOptions, Storage};
use std::sync::Arc;
use vbstore_core::record::VbState;
use vbstore_core::{FailoverLog, StoreUuid, VbId, VbUuid};

/// Creates a store. The marker says "creating" until everything is there and synced; a creation
/// that was cut short begins again from nothing.
pub(super) fn create(request: Request, home: Home, vbuckets: u16) -> Result<Opened> {
    let resources = Resources::find(&request.config, vbuckets, "create")?;
    let store = StoreUuid::new(rand::random());
    home.put_marker(&Marker {
        store,
        vbuckets,
        phase: Phase::Creating,
    })?;
    home.clear_for_creation()?;
    request.failpoints.pass(place::CREATE_DB)?;
    let options = FamilyOptions::new(resources.storage);
    let snapshots = Arc::clone(&request.metrics.db_snapshots);
    let clock = Arc::clone(&request.clock);
    let storage = Storage::create(&home.db(), &options, vbuckets, snapshots, clock)?;

    let made: Vec<Loaded> = (0..vbuckets).map(VbId::new).map(make).collect();
    let sequence = write(&storage, &made)?;
    let mut witness = WitnessFile::create(&home.witness(), store)?;
    witness.record(sequence, 0)?;
    witness.sync()?;
    home.sync()?;
    request.failpoints.pass(place::CREATE_READY)?;
    home.put_marker(&Marker {
        store,
        vbuckets,
        phase: Phase::Ready,
    })?;
    tracing::info!(%store, vbuckets, "store created");
    Ok(Opened {
        store,
        config: request.config,
        clock: request.clock,
        metrics: request.metrics,
        failpoints: request.failpoints,
        wakers: request.wakers,
        write_buffer_bytes: resources.write_buffer_bytes,
        home,
        storage,
        witness,
        cells: made.into_iter().map(Loaded::into_cell).collect(),
    })
}

/// Makes the records of a new vBucket.
fn make(vb: VbId) -> Loaded {
    let uuid = VbUuid::from_random(rand::random());
    Loaded {
        vb,
        state: VbState::new(uuid),
        log: FailoverLog::new(uuid),
    }
}

/// Writes the records of new vBuckets, synced. Returns RocksDB's sequence number after them.
fn write(storage: &Storage, made: &[Loaded]) -> Result<u64> {
    let mut batch = Batch::new(storage);
    for Loaded { vb, state, log } in made {
        batch.put_state(*vb, state)?;
        batch.put_failover_log(*vb, log)?;
    }
    storage.write(batch, true)
}
