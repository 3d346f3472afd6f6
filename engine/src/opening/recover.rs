//! Recovering after an unclean stop, and beginning the branches of a copy.

use super::request::Request;
use super::states::load;
use crate::commit::reserved_at;
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::home::{Home, WitnessFile};
use crate::storage::{FamilyOptions, Storage};
use std::sync::Arc;

/// What a store needs before it is opened to be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovery {
    /// The last stop was unclean. It is counted, and from then on a branch is due in every vBucket:
    /// something above its high seqno may have been seen by a consumer and be lost.
    pub(super) is_unclean: bool,
    /// Every vBucket begins a new branch now.
    pub(super) begins_branches: bool,
}

/// Lets RocksDB recover what is in its log, and writes what follows from the last stop, before the store
/// is opened to be used: RocksDB compacts nothing here, so that a block it cannot read does not refuse
/// the open once files have been changed.
pub(super) fn recover(
    request: &Request,
    home: &Home,
    vbuckets: u16,
    options: &FamilyOptions,
    witness: &mut WitnessFile,
    what: Recovery,
) -> Result<()> {
    let clock = Arc::clone(&request.clock);
    let storage = Storage::open_to_recover(&home.db(), options, vbuckets, clock)?;
    let expected = witness.newest().rocks_sequence;
    let found = storage.rocks_sequence();
    if found < expected && !request.accept_data_loss {
        return Err(Error::DataLoss { expected, found });
    }
    let mut loaded = load(&storage, vbuckets)?;
    request.failpoints.pass(place::OPEN_BRANCH)?;
    let store = &mut loaded.store;
    store.cas_reserved = store.cas_reserved.max(reserved_at(&*request.clock));
    if what.is_unclean {
        store.unclean_stops += 1;
        let stops = store.unclean_stops;
        tracing::info!(stops, "unclean stop: new branches are due");
    }
    let sequence = if what.begins_branches {
        loaded.begin_branches(&storage)?
    } else {
        loaded.write_store(&storage)?
    };
    // A copy whose branches have begun is a store of its own. ORDER: after they are synced, so that an
    // open that is cut short before notices it again.
    witness.note_files(home.files_digest()?.while_opening());
    witness.record(sequence, 0)?;
    witness.sync()
}
