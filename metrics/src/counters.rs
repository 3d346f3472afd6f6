//! Plain counters.

use crate::db_snapshots::DbSnapshots;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one engine counts. All counts are since the engine was opened.
#[derive(Debug, Default)]
pub struct EngineMetrics {
    /// Open db snapshots.
    pub db_snapshots: Arc<DbSnapshots>,
    /// Flushes that wrote a batch.
    pub flushes: Counter,
    /// Changes written by them.
    pub flushed_items: Counter,
    /// vBuckets taking part, summed over flushes.
    pub flushed_vbuckets: Counter,
    /// Flushes or syncs that failed.
    pub flush_failures: Counter,
    /// Syncs of RocksDB's log.
    pub syncs: Counter,
    /// Time spent in writes that synced and in syncs, in microseconds.
    pub sync_micros: Counter,
    /// Look-ups of a previous seqno that had to go to disk.
    pub previous_lookups: Counter,
    /// Writes refused because the memory quota was reached.
    pub busy_refusals: Counter,
    /// Stream cursors dropped to give memory back.
    pub cursors_dropped: Counter,
    /// Checkpoints taken out of memory.
    pub checkpoints_freed: Counter,
}
