//! Recovering after an unclean stop.

use super::request::Request;
use super::states::{Loaded, load};
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::home::{Home, WitnessFile};
use crate::storage::{Batch, FamilyOptions, Storage};
use std::sync::Arc;
use vbstore_core::VbUuid;

/// Lets RocksDB recover what is in its log, and begins the new branches, before the store is
/// opened to be used.
pub(super) fn recover(
    request: &Request,
    home: &Home,
    vbuckets: u16,
    options: &FamilyOptions,
    witness: &mut WitnessFile,
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
    let sequence = begin_branches(&storage, &mut loaded)?;
    witness.record(sequence, 0)?;
    witness.sync()
}

/// After an unclean stop every vBucket begins a new branch at what was recovered: something above
/// it may have been seen by a consumer and be lost. Synced before the first write or stream.
fn begin_branches(storage: &Storage, loaded: &mut [Loaded]) -> Result<u64> {
    let mut batch = Batch::new(storage);
    for Loaded { vb, state, log } in loaded {
        state.uuid = VbUuid::from_random(rand::random());
        log.begin(state.uuid, state.high_seqno);
        batch.put_state(*vb, state)?;
        batch.put_failover_log(*vb, log)?;
        tracing::info!(vb = %vb, uuid = %state.uuid, seqno = %state.high_seqno, "new branch");
    }
    storage.write(batch, true)
}
