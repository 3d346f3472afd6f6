//! Recovers a store after an unclean stop, and begins the branches of a copy.

use super::request::OpenRequest;
use super::states::load;
use crate::commit::reserved_at;
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::storage::{FamilyOptions, Storage};
use crate::store_dir::{StoreDir, WitnessFile};
use std::sync::Arc;

/// The records that must be written before the store is opened for use.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecoveryNeeds {
    /// The last stop was unclean. The stop is counted, which makes a branch due in every vBucket: a
    /// consumer may have seen changes above the recovered high seqno that are lost.
    pub(super) is_unclean: bool,
    /// Every vBucket begins a new branch now.
    pub(super) begins_branches: bool,
}

/// Lets RocksDB recover its log. Then records an unclean stop, and begins new branches if they are
/// needed now.
///
/// RocksDB is opened without compactions here. A compaction that hits a corrupt block would make
/// the open fail after files have been changed.
///
/// # Errors
/// [`Error::DataLoss`] if less is recovered than was synced and the loss is not accepted;
/// [`Error::Corruption`], [`Error::DiskFull`], [`Error::Io`].
pub(super) fn recover(
    request: &OpenRequest,
    store_dir: &StoreDir,
    vbuckets: u16,
    options: &FamilyOptions,
    witness: &mut WitnessFile,
    needs: RecoveryNeeds,
) -> Result<()> {
    let clock = Arc::clone(&request.clock);
    let storage = Storage::open_to_recover(&store_dir.db(), options, vbuckets, clock)?;
    let expected = witness.newest().rocks_sequence;
    let found = storage.rocks_sequence();
    if found < expected && !request.accept_data_loss {
        return Err(Error::DataLoss { expected, found });
    }
    let mut loaded = load(&storage, vbuckets)?;
    request.failpoints.pass(place::OPEN_BRANCH)?;
    let store = &mut loaded.store;
    // Never lowered: CAS values below the reservation may have been used before the stop.
    store.cas_reserved = store.cas_reserved.max(reserved_at(&*request.clock));
    if needs.is_unclean {
        store.unclean_stops += 1;
        let stops = store.unclean_stops;
        tracing::info!(stops, "unclean stop: new branches are due");
    }
    let sequence = if needs.begins_branches {
        loaded.begin_branches(&storage)?
    } else {
        loaded.write_store(&storage)?
    };
    // ORDER: recorded after the branches are synced. From here on a copy counts as a store of its
    // own. If the open is interrupted before this, the next one must detect the copy again.
    witness.note_files(store_dir.files_digest()?.while_opening());
    witness.record(sequence, 0)?;
    witness.sync()
}
