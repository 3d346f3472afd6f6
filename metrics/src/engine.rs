//! What an engine counts.

use crate::counter::Counter;
use crate::db_snapshots::DbSnapshots;
use crate::histogram::{BYTES_BOUNDS, Histogram, ITEMS_BOUNDS};
use crate::names;
use crate::snapshot::MetricsSnapshot;
use std::sync::Arc;
use std::time::Duration;

/// What one engine counts. All counts are since the engine was opened.
#[derive(Debug)]
pub struct EngineMetrics {
    /// Open db snapshots.
    pub db_snapshots: Arc<DbSnapshots>,
    /// Operations begun.
    pub operations: Operations,
    /// How long reads took, in microseconds.
    pub reads: Reads,
    /// Changes given a seqno.
    pub written_items: Counter,
    /// Changes replaced before they were flushed.
    pub replaced_items: Counter,
    /// Writes refused.
    pub refusals: Refusals,
    /// From the beginning of a write to its durability, in microseconds.
    pub durable_wait: ByDurability,
    /// Flushes that wrote a batch.
    pub flushes: Counter,
    /// Changes written by them.
    pub flushed_items: Counter,
    /// Bytes of their batches.
    pub flushed_bytes: Counter,
    /// Changes in each.
    pub batch_items: Histogram,
    /// Bytes of each.
    pub batch_bytes: Histogram,
    /// Writing a batch without a sync, in microseconds.
    pub write_micros: Histogram,
    /// Flushes or syncs that failed.
    pub flush_failures: Failures,
    /// Syncs of RocksDB's log.
    pub syncs: Counter,
    /// Writes that synced, and syncs, in microseconds.
    pub sync_micros: Histogram,
    /// Look-ups of a previous seqno that had to go to disk.
    pub previous_lookups: Counter,
    /// Stream cursors dropped to give memory back.
    pub cursors_dropped: Counter,
    /// Checkpoints taken out of memory.
    pub checkpoints_freed: Counter,
    /// Their memory, in bytes.
    pub freed_bytes: Counter,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        Self {
            db_snapshots: Arc::default(),
            operations: Operations::default(),
            reads: Reads::default(),
            written_items: Counter::default(),
            replaced_items: Counter::default(),
            refusals: Refusals::default(),
            durable_wait: ByDurability::default(),
            flushes: Counter::default(),
            flushed_items: Counter::default(),
            flushed_bytes: Counter::default(),
            batch_items: Histogram::new(ITEMS_BOUNDS),
            batch_bytes: Histogram::new(BYTES_BOUNDS),
            write_micros: Histogram::latency(),
            flush_failures: Failures::default(),
            syncs: Counter::default(),
            sync_micros: Histogram::latency(),
            previous_lookups: Counter::default(),
            cursors_dropped: Counter::default(),
            checkpoints_freed: Counter::default(),
            freed_bytes: Counter::default(),
        }
    }
}

/// How long reads took, by kind.
#[derive(Debug)]
pub struct Reads {
    /// A key; one read in 16 is timed.
    pub get: Histogram,
    /// A page in key order.
    pub page: Histogram,
    /// A slice in seqno order, read by a caller.
    pub slice: Histogram,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            get: Histogram::latency(),
            page: Histogram::latency(),
            slice: Histogram::latency(),
        }
    }
}

/// Operations begun, by kind.
#[derive(Debug, Default)]
pub struct Operations {
    /// Reads of keys; of many at once each counts.
    pub gets: Counter,
    /// Writes; a batch is one.
    pub writes: Counter,
    /// Pages in key order.
    pub pages: Counter,
    /// Slices in seqno order, read by a caller.
    pub slices: Counter,
}

/// Writes refused for a reason that is not their condition.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Memory was at its quota for the time allowed.
    pub memory: Counter,
    /// The disk is full.
    pub disk_full: Counter,
    /// The engine has failed.
    pub failed: Counter,
    /// A key, value or batch is too large.
    pub too_large: Counter,
}

/// Waits by what was waited for.
#[derive(Debug)]
pub struct ByDurability {
    /// To be in memory.
    pub memory: Histogram,
    /// To be in RocksDB's log.
    pub logged: Histogram,
    /// To be synced.
    pub synced: Histogram,
}

impl Default for ByDurability {
    fn default() -> Self {
        Self {
            memory: Histogram::latency(),
            logged: Histogram::latency(),
            synced: Histogram::latency(),
        }
    }
}

/// Writes to disk that failed, by why.
#[derive(Debug, Default)]
pub struct Failures {
    /// No space.
    pub disk_full: Counter,
    /// Another error of the file system.
    pub io: Counter,
    /// Spoilt data.
    pub corruption: Counter,
    /// Anything else, a panic included.
    pub other: Counter,
}

impl Failures {
    /// Returns how many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        let all = [&self.disk_full, &self.io, &self.corruption, &self.other];
        all.iter().map(|counter| counter.get()).sum()
    }
}

impl EngineMetrics {
    /// Puts all that is counted into `into`. `now` is the engine's monotonic clock.
    pub fn sample(&self, now: Duration, into: &mut MetricsSnapshot) {
        self.db_snapshots.sample(now, into);
        let operations = &self.operations;
        into.put_by(&names::OPS, "get", operations.gets.get());
        into.put_by(&names::OPS, "write", operations.writes.get());
        into.put_by(&names::OPS, "page", operations.pages.get());
        into.put_by(&names::OPS, "slice", operations.slices.get());
        let reads = &self.reads;
        for (name, times) in [
            ("get", &reads.get),
            ("page", &reads.page),
            ("slice", &reads.slice),
        ] {
            let label = [("op", name.into())];
            into.put_histogram(&names::READ_SECONDS, &label, times, 1e-6);
        }
        into.put_counter(&names::WRITTEN_ITEMS, &self.written_items);
        into.put_counter(&names::CHECKPOINT_ITEMS_REPLACED, &self.replaced_items);
        let refusals = &self.refusals;
        let rejected = &names::WRITES_REJECTED;
        into.put_by(rejected, "memory", refusals.memory.get());
        into.put_by(rejected, "disk_full", refusals.disk_full.get());
        into.put_by(rejected, "failed", refusals.failed.get());
        into.put_by(rejected, "too_large", refusals.too_large.get());
        let waits = &self.durable_wait;
        for (name, waits) in [
            ("memory", &waits.memory),
            ("logged", &waits.logged),
            ("synced", &waits.synced),
        ] {
            let label = [("durability", name.into())];
            into.put_histogram(&names::DURABLE_WAIT, &label, waits, 1e-6);
        }
        into.put_counter(&names::PERSIST_BATCHES, &self.flushes);
        into.put_counter(&names::PERSIST_ITEMS, &self.flushed_items);
        into.put_counter(&names::PERSIST_BYTES, &self.flushed_bytes);
        into.put_histogram(&names::PERSIST_BATCH_ITEMS, &[], &self.batch_items, 1.0);
        into.put_histogram(&names::PERSIST_BATCH_BYTES, &[], &self.batch_bytes, 1.0);
        into.put_histogram(&names::PERSIST_WRITE, &[], &self.write_micros, 1e-6);
        into.put_histogram(&names::PERSIST_SYNC, &[], &self.sync_micros, 1e-6);
        let failures = &self.flush_failures;
        let failed = &names::PERSIST_FAILURES;
        into.put_by(failed, "disk_full", failures.disk_full.get());
        into.put_by(failed, "io", failures.io.get());
        into.put_by(failed, "corruption", failures.corruption.get());
        into.put_by(failed, "other", failures.other.get());
        into.put_counter(&names::PREVIOUS_LOOKUPS, &self.previous_lookups);
        into.put_counter(&names::CURSORS_DROPPED, &self.cursors_dropped);
        into.put_counter(&names::CHECKPOINTS_FREED, &self.checkpoints_freed);
        into.put_counter(&names::CHECKPOINT_FREED_BYTES, &self.freed_bytes);
    }
}
