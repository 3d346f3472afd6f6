//! What one stream counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vbstore_core::Seqno;

/// The figures of one stream, read by anybody. Written by the worker that runs its backfill, or by its
/// consumer's reader. After a pause a backfill that is not awaited any more may still run beside the next
/// one: it writes none.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Up to where it has read.
    pub(crate) read_seqno: AtomicU64,
    /// The end it has announced.
    pub(crate) announced_seqno: AtomicU64,
    pub(crate) slices: AtomicU64,
    pub(crate) shared_slices: AtomicU64,
    pub(crate) items_from_disk: AtomicU64,
    pub(crate) items_from_memory: AtomicU64,
    pub(crate) cursor_drops: AtomicU64,
    /// Times that its buffered batches were dropped for other consumers.
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
