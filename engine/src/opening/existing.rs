//! Opens an existing store to write.

use super::compare::{Comparison, LastStop, compare};
use super::recover::{RecoveryNeeds, recover};
use super::request::{OpenRequest, ReadyStore};
use super::resources::Resources;
use super::states::load;
use crate::error::{Error, Result};
use crate::services::OpenedStore;
use crate::storage::{FamilyOptions, Storage};
use crate::store_dir::{StoreDir, WitnessFile, data_files};
use std::sync::Arc;
use vbstore_core::StoreUuid;

/// Opens a complete store to write.
pub(super) fn open(
    request: OpenRequest,
    store_dir: StoreDir,
    store: StoreUuid,
    vbuckets: u16,
) -> Result<OpenedStore> {
    let resources = Resources::find(&request.config, vbuckets, "open")?;
    let options = FamilyOptions::new(resources.storage);
    let Comparison {
        witness,
        last_stop,
        is_copy,
        begins_branches,
    } = compare(&request, &store_dir, store, vbuckets, &options)?;
    // Replaced before the first record is written, because a copy made of hard links shares the old
    // file.
    let mut witness = witness.renew(&store_dir.witness())?;
    store_dir.sync()?;
    if !is_copy {
        // RocksDB replaces its CURRENT and MANIFEST before the next record of the witness, so this
        // record leaves them out. A copy is recorded as a store of its own only after its branches
        // have begun.
        let found = witness.newest();
        witness.note_files(store_dir.files_digest()?.while_opening());
        witness.record(found.rocks_sequence, found.clean_digest)?;
        witness.sync()?;
    }
    if last_stop == LastStop::Unclean || begins_branches {
        let needs = RecoveryNeeds {
            is_unclean: last_stop == LastStop::Unclean,
            begins_branches,
        };
        recover(
            &request,
            &store_dir,
            vbuckets,
            &options,
            &mut witness,
            needs,
        )?;
    }
    let expected = witness.newest().rocks_sequence;
    let snapshots = Arc::clone(&request.metrics.db_snapshots);
    let clock = Arc::clone(&request.clock);
    let storage = Storage::open(&store_dir.db(), &options, vbuckets, snapshots, clock)
        .inspect_err(|_| keep_clean(&store_dir, &mut witness))?;
    let found = storage.rocks_sequence();
    if found < expected {
        return Err(Error::DataLoss { expected, found });
    }
    let loaded = load(&storage, vbuckets)?;
    // RocksDB has changed the data files since the last close. The clean digest of 0 records that
    // the store is open.
    witness.note_files(store_dir.files_digest()?);
    witness.record(expected, 0)?;
    witness.sync()?;
    tracing::info!(%store, vbuckets, ?last_stop, "the store is open");
    Ok(request.into_opened(ReadyStore {
        store,
        write_buffer_bytes: resources.write_buffer_bytes,
        store_dir,
        storage,
        witness,
        loaded,
        has_branches_to_begin: false,
    }))
}

/// Keeps a cleanly closed store clean after a failed open, for example on a full disk. RocksDB may
/// have left new files, but the data did not change. So this records the digest of the files as
/// they are now.
fn keep_clean(store_dir: &StoreDir, witness: &mut WitnessFile) {
    let newest = witness.newest();
    if newest.clean_digest == 0 {
        return;
    }
    let kept = data_files(&store_dir.db()).and_then(|files| {
        if files.digest == newest.clean_digest {
            return Ok(());
        }
        witness.record(newest.rocks_sequence, files.digest)?;
        witness.sync()
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "the next open treats this store as not cleanly closed");
    }
}
