//! Internals for benches and tests, with the feature `testing`: RocksDB's options, and actions that
//! the engine itself takes only under pressure. Not part of the public interface, and may change.
//!
//! Cargo unifies the features of a workspace, so the program `vbstore` is built with this too when
//! it is built beside the tests. That is harmless: only benches and tests call these functions, and
//! the feature only adds code that they use.

pub use crate::storage::{FamilyOptions, ReadHeld, StorageConfig, key_family, seqno_family};

use crate::commit::Purger;
use crate::{Engine, ReaderGuard, Result};
use std::time::Duration;
use vbstore_core::record::VbState;
use vbstore_core::vbucket::Admission;
use vbstore_core::{
    ConsumerActivity, FailoverLog, FilterDigest, Position, Seqno, VbCell, VbId, VbUuid,
};

/// Stops the compaction of all column families until the store is opened again.
///
/// # Errors
/// If the engine is closed, or RocksDB fails.
pub fn stop_compactions(engine: &Engine) -> Result<()> {
    engine.services().gate.acquire()?.stop_compactions()
}

/// Opens one db snapshot and calls `work` with a function that reads slices through it. The engine
/// itself never keeps a db snapshot open between slices. A bench measures what that would cost.
///
/// # Errors
/// If the engine is closed.
pub fn with_held_view<R>(engine: &Engine, work: impl FnOnce(&mut ReadHeld<'_>) -> R) -> Result<R> {
    Ok(engine.services().gate.acquire()?.with_held_view(work))
}

/// Registers a reader with a vBucket that belongs to no store, for tests of code that keeps a
/// guard.
///
/// # Errors
/// If the C library has no memory for the handler that detects forks.
///
/// # Panics
/// If a new vBucket refuses a stream from the beginning.
pub fn reader_of_no_store(vb: VbId) -> Result<ReaderGuard> {
    let uuid = VbUuid::from_random(1);
    let cell = VbCell::new(vb, VbState::new(uuid), FailoverLog::new(uuid, 0));
    let (position, filter) = (Position::default(), FilterDigest::of(b"", false));
    let activity = ConsumerActivity::new(Duration::ZERO);
    let Ok(Admission::Admitted { reader, .. }) =
        cell.admit(&position, filter, Seqno::MAX, &activity)
    else {
        panic!("a stream from the beginning is refused");
    };
    ReaderGuard::new(reader)
}

/// Returns the number of vBuckets in which a writer waits for a branch to begin.
#[must_use]
pub fn waiting_for_branch(engine: &Engine) -> usize {
    engine.services().writes.branches.waiting()
}

/// Removes tombstones up to `upto` for good, even if a stream still needs them. Returns how many.
///
/// # Errors
/// The errors of a flush.
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

/// Frees the memory of all changes that are persisted and that every stream has read. With
/// `drops_cursors`, frees all persisted changes, and drops the cursors of streams that have not
/// read them.
///
/// # Errors
/// The errors of a flush.
pub fn forget_memory(engine: &Engine, drops_cursors: bool) -> Result<()> {
    let services = engine.services();
    services.committer.with_lead(|lead| {
        services.recovery.forget(lead, drops_cursors);
        Ok(())
    })
}
