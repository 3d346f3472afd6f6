//! Opens an existing store to write.

use super::compare::{Compared, LastStop, compare};
use super::recover::{Recovery, recover};
use super::request::{Ready, Request};
use super::resources::Resources;
use super::states::load;
use crate::error::{Error, Result};
use crate::home::{Home, WitnessFile, data_files};
use crate::services::Opened;
use crate::storage::{FamilyOptions, Storage};
use std::sync::Arc;
use vbstore_core::StoreUuid;

/// Opens a complete store to write.
pub(super) fn open(
    request: Request,
    home: Home,
    store: StoreUuid,
    vbuckets: u16,
) -> Result<Opened> {
    let resources = Resources::find(&request.config, vbuckets, "open")?;
    let options = FamilyOptions::new(resources.storage);
    let Compared {
        witness,
        last_stop,
        is_copy,
        begins_branches,
    } = compare(&request, &home, store, vbuckets, &options)?;
    // Before anything is recorded, since a copy made of hard links shares the old file.
    let mut witness = witness.renew(&home.witness())?;
    home.sync()?;
    if !is_copy {
        // RocksDB replaces its CURRENT and MANIFEST before the next record can be made, so they are
        // left out of this one. A copy is recorded as a store of its own only after its branches
        // have begun.
        let found = witness.newest();
        witness.note_files(home.files_digest()?.while_opening());
        witness.record(found.rocks_sequence, found.clean_digest)?;
        witness.sync()?;
    }
    if last_stop == LastStop::Unclean || begins_branches {
        let what = Recovery {
            is_unclean: last_stop == LastStop::Unclean,
            begins_branches,
        };
        recover(&request, &home, vbuckets, &options, &mut witness, what)?;
    }
    let expected = witness.newest().rocks_sequence;
    let snapshots = Arc::clone(&request.metrics.db_snapshots);
    let clock = Arc::clone(&request.clock);
    let storage = Storage::open(&home.db(), &options, vbuckets, snapshots, clock)
        .inspect_err(|_| keep_clean(&home, &mut witness))?;
    let found = storage.rocks_sequence();
    if found < expected {
        return Err(Error::DataLoss { expected, found });
    }
    let loaded = load(&storage, vbuckets)?;
    // From here on the data files are not as the last close left them: the record is of an open
    // store.
    witness.note_files(home.files_digest()?);
    witness.record(expected, 0)?;
    witness.sync()?;
    tracing::info!(%store, vbuckets, ?last_stop, "the store is open");
    Ok(request.opened(Ready {
        store,
        write_buffer_bytes: resources.write_buffer_bytes,
        home,
        storage,
        witness,
        loaded,
        has_branches_to_begin: false,
    }))
}

/// Keeps a cleanly closed store clean after a failed open, for example on a full disk. RocksDB may
/// have left new files, but no change was made. So the digest of the files as they are now is
/// recorded.
fn keep_clean(home: &Home, witness: &mut WitnessFile) {
    let newest = witness.newest();
    if newest.clean_digest == 0 {
        return;
    }
    let kept = data_files(&home.db()).and_then(|files| {
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
