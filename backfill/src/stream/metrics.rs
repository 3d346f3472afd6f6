//! The metrics of one stream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vbstore_core::Seqno;

/// The metrics of one stream, readable from any thread.
///
/// Written by the worker that runs its backfill, or by its consumer's reader. After a pause, a
/// backfill that the stream no longer waits for may still run beside its successor. Such a backfill
/// writes nothing here.
#[derive(Debug, Default)]
pub(crate) struct StreamMetrics {
    /// The seqno up to which it has read.
    pub(crate) read_seqno: AtomicU64,
    /// The end of its newest snapshot marker.
    pub(crate) announced_seqno: AtomicU64,
    pub(crate) slices: AtomicU64,
    pub(crate) shared_slices: AtomicU64,
    pub(crate) items_from_disk: AtomicU64,
    pub(crate) items_from_memory: AtomicU64,
    pub(crate) cursor_drops: AtomicU64,
    /// Number of times its buffered batches were dropped for other consumers.
    pub(crate) pauses: AtomicU64,
    pub(crate) is_diverging: AtomicBool,
    pub(crate) is_stalled: AtomicBool,
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn set(counter: &AtomicU64, seqno: Seqno) {
    counter.store(seqno.get(), Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
