//! For benches and tests, with the feature `testing`: the options RocksDB is opened with, and what
//! happens by itself only under pressure. Not part of the interface: no promise is kept about it.
//!
//! Cargo unifies the features of a workspace, so the program `vbstore` is built with this too when it
//! is built beside the tests. That is harmless: these are functions that nothing else calls, and no
//! code outside this module and the functions under it looks at the feature.

pub use crate::storage::{FamilyOptions, ReadHeld, StorageConfig, key_family, seqno_family};

use crate::commit::Purger;
use crate::{Engine, ReaderGuard, Result};
use std::time::Duration;
use vbstore_core::record::VbState;
use vbstore_core::vbucket::Admission;
use vbstore_core::{FailoverLog, FilterDigest, Position, Seqno, Taker, VbCell, VbId, VbUuid};

/// Lets no family be compacted any more until the store is opened again.
///
/// # Errors
/// When the engine is closed, or RocksDB refuses.
pub fn stop_compactions(engine: &Engine) -> Result<()> {
    engine.services().gate.lend()?.stop_compactions()
}

/// Opens one db snapshot and lends a function that reads slices through it, for as long as
/// `work` takes: what this engine never does otherwise, so that a bench can say what it costs.
///
/// # Errors
/// When the engine is closed.
pub fn with_held_view<R>(engine: &Engine, work: impl FnOnce(&mut ReadHeld<'_>) -> R) -> Result<R> {
    Ok(engine.services().gate.lend()?.with_held_view(work))
}

/// Registers a reader with a vBucket of no store: for what keeps such a guard.
///
/// # Errors
/// When the C library has no memory to watch for forks.
///
/// # Panics
/// When a new vBucket refuses a stream from the beginning.
pub fn reader_of_no_store(vb: VbId) -> Result<ReaderGuard> {
    let uuid = VbUuid::from_random(1);
    let cell = VbCell::new(vb, VbState::new(uuid), FailoverLog::new(uuid, 0));
    let (position, filter) = (Position::default(), FilterDigest::of(b"", false));
    let taker = Taker::new(Duration::ZERO);
    let Ok(Admission::Admitted { reader, .. }) = cell.admit(&position, filter, Seqno::MAX, &taker)
    else {
        panic!("a stream from the beginning is refused");
    };
    ReaderGuard::new(reader)
}

/// Returns in how many vBuckets a writer waits for its branch.
#[must_use]
pub fn waiting_for_branch(engine: &Engine) -> usize {
    engine.services().writes.branches.waiting()
}

/// Removes tombstones for good, even if a stream still needs them. Returns how many.
///
/// # Errors
/// As a flush.
pub fn purge_tombstones(engine: &Engine, vb: VbId, upto: Seqno) -> Result<u64> {
    let services = engine.services();
    let purger = Purger {
        committer: &services.committer,
        gate: &services.gate,
        health: &services.health,
        syncs: &services.syncs,
        clock: &*services.clock,
    };
    purger.purge(services.vbs.get(vb)?, upto)
}

/// Frees all memory of changes that are on disk and that every stream has read; if `drops_cursors`,
/// also what not, and drops the cursors of those who have not.
///
/// # Errors
/// As a flush.
pub fn forget_memory(engine: &Engine, drops_cursors: bool) -> Result<()> {
    let services = engine.services();
    services.committer.with_lead(|lead| {
        services.recovery.forget(lead, drops_cursors);
        Ok(())
    })
}
