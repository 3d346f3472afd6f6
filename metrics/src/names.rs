//! Every metric there is: name, kind, labels and meaning, and the field that counts it. Names are API.
//!
//! Conventions: prefix `vbstore_`, base units in the name, `_total` for counters and for nothing
//! else, every value of a label written down, here or with its group. Source: the naming practices of
//! prometheus.io.

use crate::counter::Counter;
use crate::db_snapshots::{DbSnapshots, Holder};
use crate::groups::{
    ByDurability, BySource, Failures, Operations, Reads, Refusals, Rollbacks, Slices, StreamEnds,
};
use crate::histogram::{BYTES_BOUNDS, Histogram, ITEMS_BOUNDS};
use crate::snapshot::MetricsSnapshot;
use crate::table::metrics;
use std::sync::Arc;
use std::time::Duration;

pub use crate::metric::{Kind, Label, Metric};

/// Upper bounds of waits for a worker that are counted apart, in microseconds. Few: their order of
/// magnitude is what matters, and one scrape is to have at most 500 series.
const QUEUE_WAIT_BOUNDS: &[u64] = &[
    100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000,
];

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const HOLDER: Label = label("holder", &Holder::NAMES);
const KIND: Label = label("kind", &["persistence", "stream"]);
const CHECKPOINT: Label = label("state", &["open", "sealed"]);
const HEALTH: Label = label("state", &["open", "degraded", "failed", "read_only"]);
const TASK: Label = label("state", &["pending", "ready", "running", "snoozed"]);
const STREAM: Label = label("state", &["backfilling", "in_memory", "paused"]);
const LEVEL: Label = label("level", &["0", "1", "2", "3", "4", "5", "6"]);
const DROPPED: Label = label("reason", &["newer", "obsolete", "range_deletion", "filter"]);
const PART: Label = label("part", &["engine", "rocksdb", "streams", "vbuckets"]);
const VERSION: Label = label("version", &[]);
const ROCKSDB: Label = label("rocksdb", &[]);
const VB: Label = label("vb", &[]);

metrics! {
    /// What a collector says of itself.
    COLLECTOR:
    COLLECTOR_SECONDS = Gauge "collector_seconds" [PART] "How long this scrape of the part took.";
    COLLECTOR_ERRORS = Counter "collector_errors_total" [PART] "Scrapes of the part that failed, wholly or in part.";
}

metrics! {
    /// The engine's own tables.
    ENGINE:
    /// What one engine counts, since it was opened. Times are counted in microseconds.
    pub struct EngineMetrics {
        /// Db snapshots, which put their own metrics.
        pub db_snapshots: Arc<DbSnapshots>,
        /// Syncs of RocksDB's log; exported as the count of `sync_micros`.
        pub syncs: Counter,
    }
    BUILD_INFO = Gauge "build_info" [VERSION, ROCKSDB] "Always 1; the versions are in the labels.";
    HEALTH_STATE = Gauge "health" [HEALTH] "1 for the state the engine is in, 0 for the others.";
    UPTIME = Gauge "open_seconds" [] "For how long the engine has been open.";
    VBUCKETS = Gauge "vbuckets" [] "vBuckets of the store.";
    ITEMS = Gauge "items" [] "Documents on disk, expired ones included until they are swept.";
    TOMBSTONES = Gauge "tombstones" [] "Tombstones on disk.";
    ITEM_BYTES = Gauge "item_bytes" [] "Bytes of keys and values of the documents on disk.";
    DB_SNAPSHOTS_OPEN = Gauge "db_snapshots_open" [HOLDER] "Db snapshots open now, by who holds them.";
    DB_SNAPSHOT_OLDEST_AGE = Gauge "db_snapshot_oldest_age_seconds" [] "Age of the oldest open db snapshot, 0 if none is open.";
    DB_SNAPSHOTS_OPENED = Counter "db_snapshots_opened_total" [HOLDER] "Db snapshots opened.";
    DB_SNAPSHOTS_CLOSED = Counter "db_snapshots_closed_total" [HOLDER] "Db snapshots released; opened - closed = open.";
    DB_SNAPSHOT_HOLD = Histogram "db_snapshot_hold_seconds" [HOLDER] "From opening a db snapshot to releasing it.";
    DB_SNAPSHOT_OVER_LIMIT = Counter "db_snapshot_over_limit_total" [HOLDER] "Db snapshots held for longer than the limit, 100 ms; each is logged.";
    CURSORS = Gauge "cursors" [KIND] "Cursors registered; every vBucket has one of persistence.";
    CURSOR_MAX_LAG_ITEMS = Gauge "cursor_max_lag_items" [KIND] "Changes that the cursor furthest behind has not read.";
    CURSOR_MAX_LAG_BYTES = Gauge "cursor_max_lag_bytes" [KIND] "Memory of the changes that the cursor furthest behind has not read.";
    CURSOR_MAX_LAG_SECONDS = Gauge "cursor_max_lag_seconds" [KIND] "Age of the oldest change that a cursor has not read, 0 if all is read.";
    CURSOR_BACKLOG_ITEMS = Gauge "cursor_backlog_items" [KIND] "Changes not read, summed over cursors.";
    CURSOR_BACKLOG_BYTES = Gauge "cursor_backlog_bytes" [KIND] "Memory of the changes not read, summed over cursors.";
    READERS = Gauge "readers" [] "Streams in progress, from their opening until their end is taken, they are closed, or their consumers are gone.";
    READER_MAX_LAG_SEQNOS = Gauge "reader_max_lag_seqnos" [] "Seqnos between the lowest that a stream in progress has taken and the last assigned in its vBucket, at most.";
    READER_MAX_IDLE_SECONDS = Gauge "reader_max_idle_seconds" [] "For how long the consumer of a stream in progress has taken nothing although there was something to take, at most; noticed within a quarter of the stall limit.";
    CURSORS_DROPPED = Counter "cursors_dropped_total" [] "Stream cursors dropped to free memory."
        => cursors_dropped: Counter;
    CHECKPOINT_MEMORY = Gauge "checkpoint_memory_bytes" [] "Memory of all changes in checkpoints, and what writes under way have reserved.";
    CHECKPOINT_MEMORY_LIMIT = Gauge "checkpoint_memory_limit_bytes" [] "The quota: at it, writes wait.";
    CHECKPOINTS = Gauge "checkpoints" [CHECKPOINT] "Checkpoints in memory.";
    CHECKPOINT_ITEMS = Gauge "checkpoint_items" [] "Changes in checkpoints.";
    CHECKPOINT_ITEMS_REPLACED = Counter "checkpoint_items_replaced_total" [] "Changes replaced by a newer one of their key before they were flushed."
        => replaced_items: Counter;
    CHECKPOINTS_FREED = Counter "checkpoints_freed_total" [] "Checkpoints freed."
        => checkpoints_freed: Counter;
    CHECKPOINT_FREED_BYTES = Counter "checkpoint_freed_bytes_total" [] "Memory freed with checkpoints."
        => freed_bytes: Counter;
    WRITES_REJECTED = Counter "writes_rejected_total" [Refusals::LABEL] "Writes refused for a reason that is not their condition."
        => refusals: Refusals;
    OPS = Counter "ops_total" [Operations::LABEL] "Operations begun; a batch is one."
        => operations: Operations;
    READ_SECONDS = Histogram "read_seconds" [Reads::LABEL] "Reading a key (one in 16 is timed), a page, a slice."
        => reads: Reads;
    WRITTEN_ITEMS = Counter "written_items_total" [] "Changes given a seqno."
        => written_items: Counter;
    DURABLE_WAIT = Histogram "durable_wait_seconds" [ByDurability::LABEL] "From the beginning of a write to its durability, of writes that wait."
        => durable_wait: ByDurability;
    PERSIST_LAG_ITEMS = Gauge "persist_lag_items" [] "Changes that are not in RocksDB's log, over all vBuckets.";
    PERSIST_MAX_LAG_SECONDS = Gauge "persist_max_lag_seconds" [] "Age of the oldest of them, 0 if there is none.";
    SYNC_LAG_SEQNOS = Gauge "sync_lag_seqnos" [] "Seqnos persisted and not synced, over all vBuckets.";
    SYNC_MAX_LAG_SECONDS = Gauge "sync_max_lag_seconds" [] "Since when something has been persisted and not synced, 0 if nothing is.";
    PERSIST_BATCHES = Counter "persist_batches_total" [] "Batches written to RocksDB: group commits."
        => flushes: Counter;
    PERSIST_ITEMS = Counter "persist_items_total" [] "Changes written by them."
        => flushed_items: Counter;
    PERSIST_BYTES = Counter "persist_bytes_total" [] "Bytes of the batches."
        => flushed_bytes: Counter;
    PERSIST_BATCH_ITEMS = Histogram "persist_batch_items" [] "Changes in one batch."
        => batch_items: Histogram = Histogram::new(ITEMS_BOUNDS);
    PERSIST_BATCH_BYTES = Histogram "persist_batch_bytes" [] "Bytes of one batch."
        => batch_bytes: Histogram = Histogram::new(BYTES_BOUNDS);
    PERSIST_WRITE = Histogram "persist_write_seconds" [] "Writing a batch that is not synced with it."
        => write_micros: Histogram;
    PERSIST_SYNC = Histogram "persist_sync_seconds" [] "Writing a batch that is synced with it, or a sync."
        => sync_micros: Histogram;
    PERSIST_FAILURES = Counter "persist_failures_total" [Failures::LABEL] "Writes to disk that failed: flushes, syncs, deletions of vBuckets, the witness."
        => flush_failures: Failures;
    PREVIOUS_LOOKUPS = Counter "previous_lookups_total" [] "Look-ups on disk of what a change replaces."
        => previous_lookups: Counter;
    DISK_FREE_RATIO = Gauge "disk_free_ratio" [] "Free share of the file system that holds the store.";
}

impl EngineMetrics {
    /// Puts everything into `into`. `now` is the engine's monotonic clock.
    pub fn sample(&self, now: Duration, into: &mut MetricsSnapshot) {
        self.db_snapshots.sample(now, into);
        self.sample_counted(into);
    }
}

metrics! {
    /// What RocksDB says.
    ROCKS:
    ROCKS_SNAPSHOTS_OPEN = Gauge "rocksdb_snapshots_open" [] "RocksDB's own count of open snapshots: must agree with ours.";
    ROCKS_OLDEST_SNAPSHOT = Gauge "rocksdb_oldest_snapshot_timestamp_seconds" [] "When RocksDB's oldest open snapshot was opened; absent if none is.";
    ROCKS_OLDEST_LAG = Gauge "rocksdb_oldest_snapshot_sequence_lag" [] "Writes since RocksDB's oldest open snapshot was opened; absent if none is.";
    ROCKS_SEQUENCE = Gauge "rocksdb_sequence" [] "RocksDB's last sequence number.";
    ROCKS_OBSOLETE_SST = Gauge "rocksdb_obsolete_sst_bytes" [] "Data files that only an old view or a running read needs.";
    ROCKS_RUNNING_COMPACTIONS = Gauge "rocksdb_running_compactions" [] "Compactions running now.";
    ROCKS_RUNNING_FLUSHES = Gauge "rocksdb_running_flushes" [] "Flushes of memtables running now.";
    ROCKS_WRITE_STOPPED = Gauge "rocksdb_write_stopped" [] "1 if RocksDB takes no writes now.";
    ROCKS_DELAYED_RATE = Gauge "rocksdb_delayed_write_rate_bytes" [] "Bytes a second to which RocksDB slows writes, 0 if it does not.";
    ROCKS_BACKGROUND_ERRORS = Gauge "rocksdb_background_errors" [] "Errors that RocksDB counts in the background.";
    ROCKS_LIVE_VERSIONS = Gauge "rocksdb_live_versions_max" [] "Versions alive in the family that has most; more than 1 for long pins files.";
    ROCKS_LIVE_SST = Gauge "rocksdb_live_sst_bytes" [] "Data files of the present state.";
    ROCKS_TOTAL_SST = Gauge "rocksdb_total_sst_bytes" [] "All data files.";
    ROCKS_LIVE_DATA = Gauge "rocksdb_live_data_bytes" [] "RocksDB's estimate of what is not superseded.";
    ROCKS_KEYS = Gauge "rocksdb_estimated_keys" [] "RocksDB's estimate of its keys, all families.";
    ROCKS_SST_FILES = Gauge "rocksdb_sst_files" [LEVEL] "Data files by level.";
    ROCKS_PENDING_COMPACTION = Gauge "rocksdb_pending_compaction_bytes" [] "RocksDB's estimate of what compactions have to rewrite.";
    ROCKS_IMMUTABLE_MEMTABLES = Gauge "rocksdb_immutable_memtables" [] "Memtables that wait to be flushed.";
    ROCKS_MEMTABLE_BYTES = Gauge "rocksdb_memtable_bytes" [] "Memory of all memtables.";
    ROCKS_READERS_BYTES = Gauge "rocksdb_table_readers_bytes" [] "Memory of table readers outside the block cache.";
    ROCKS_SUMS_AGE = Gauge "rocksdb_sums_age_seconds" [] "Age of the figures summed over all families or files, which are kept for up to 15 s.";
    ROCKS_CACHE_BYTES = Gauge "rocksdb_block_cache_bytes" [] "Block cache in use.";
    ROCKS_CACHE_PINNED = Gauge "rocksdb_block_cache_pinned_bytes" [] "Block cache that cannot be released now.";
    ROCKS_CACHE_CAPACITY = Gauge "rocksdb_block_cache_capacity_bytes" [] "Size of the block cache.";
    ROCKS_BUFFER_BYTES = Gauge "rocksdb_write_buffer_bytes" [] "Memtables as RocksDB's write buffer manager counts them.";
    ROCKS_BUFFER_LIMIT = Gauge "rocksdb_write_buffer_limit_bytes" [] "From here on memtables are flushed.";
    ROCKS_ITERATORS_OPEN = Gauge "rocksdb_iterators_open" [] "Iterators created and not deleted.";
    ROCKS_STALLED = Counter "rocksdb_stall_seconds_total" [] "Time that writes were slowed or stopped.";
    ROCKS_CACHE_LOOKUPS = Counter "rocksdb_block_cache_lookups_total" [] "Blocks looked for in the block cache.";
    ROCKS_CACHE_HITS = Counter "rocksdb_block_cache_hits_total" [] "Blocks found there.";
    ROCKS_BLOOM_USEFUL = Counter "rocksdb_bloom_useful_total" [] "Reads of a file that a filter saved.";
    ROCKS_LOG_SYNCS = Counter "rocksdb_log_syncs_total" [] "Syncs of the log.";
    ROCKS_LOG_WRITTEN = Counter "rocksdb_log_written_bytes_total" [] "Bytes written to the log.";
    ROCKS_WRITTEN = Counter "rocksdb_written_bytes_total" [] "Bytes of batches written.";
    ROCKS_READ = Counter "rocksdb_read_bytes_total" [] "Bytes of values read by key.";
    ROCKS_FLUSHED = Counter "rocksdb_flushed_bytes_total" [] "Bytes of data files written from memtables.";
    ROCKS_COMPACTION_READ = Counter "rocksdb_compaction_read_bytes_total" [] "Bytes that compactions read.";
    ROCKS_COMPACTION_WRITTEN = Counter "rocksdb_compaction_written_bytes_total" [] "Bytes that compactions wrote.";
    ROCKS_SEEKS = Counter "rocksdb_seeks_total" [] "Seeks of iterators.";
    ROCKS_NEXTS = Counter "rocksdb_nexts_total" [] "Steps of iterators.";
    ROCKS_RESEEKS = Counter "rocksdb_reseeks_total" [] "Seeks within an iteration, over many versions of one key: an early sign of a held snapshot.";
    ROCKS_SKIPS = Counter "rocksdb_iterator_skips_total" [] "Keys that iterators stepped over unseen.";
    ROCKS_KEYS_DROPPED = Counter "rocksdb_compaction_keys_dropped_total" [DROPPED] "Keys that compactions left out, by why.";
    ROCKS_LOG_SYNC = Summary "rocksdb_log_sync_seconds" [] "Syncing the log, as RocksDB measures it.";
    ROCKS_FLUSH = Summary "rocksdb_flush_seconds" [] "Flushing a memtable.";
    ROCKS_COMPACTION = Summary "rocksdb_compaction_seconds" [] "A compaction.";
    ROCKS_TABLE_SYNC = Summary "rocksdb_table_sync_seconds" [] "Syncing a data file.";
    ROCKS_MANIFEST_SYNC = Summary "rocksdb_manifest_sync_seconds" [] "Syncing the MANIFEST.";
    ROCKS_LOG_BYTES = Gauge "rocksdb_log_bytes" [] "RocksDB's log on disk.";
    ROCKS_DISK_BYTES = Gauge "rocksdb_disk_bytes" [] "All files in RocksDB's directory.";
}

metrics! {
    /// Streams and backfills.
    // ORDER: what ends is sampled before what begins: never more ended than begun.
    STREAMS:
    /// What all streams of an engine count, since they were started. Times are counted in microseconds.
    pub struct StreamCounters {}
    BACKFILL_TASKS = Gauge "backfill_tasks" [TASK] "Backfills by what they do. None holds a db snapshot; a snoozed one that waits for a sync holds its batch.";
    BACKFILL_TASKS_LIMIT = Gauge "backfill_tasks_limit" [] "Backfills that may be under way at once.";
    BACKFILL_WORKERS = Gauge "backfill_workers" [] "Threads that read slices.";
    BACKFILLS_ENDED = Counter "backfills_ended_total" [] "Backfills over, for whatever reason."
        => backfills_ended: Counter;
    BACKFILLS_STARTED = Counter "backfills_started_total" [] "Backfills begun."
        => backfills_started: Counter;
    BACKFILL_PANICS = Counter "backfill_panics_total" [] "Slices whose reading panicked."
        => panics: Counter;
    BACKFILL_SLICES = Counter "backfill_slices_total" [Slices::LABEL] "Slices read, by why they ended."
        => slices: Slices;
    BACKFILL_SLICES_SHARED = Counter "backfill_slices_shared_total" [] "Slices taken that were read for another stream."
        => slices_shared: Counter;
    BACKFILL_SLICE_SECONDS = Histogram "backfill_slice_seconds" [] "Reading slices through one db snapshot, for one backfill or several, with the wait for locks."
        => slice_micros: Histogram;
    BACKFILL_SLICE_ITEMS = Histogram "backfill_slice_items" [] "Changes in one slice that was read."
        => slice_items: Histogram = Histogram::new(ITEMS_BOUNDS);
    BACKFILL_QUEUE_WAIT = Histogram "backfill_queue_wait_seconds" [] "Time that a runnable backfill waited for a place or a worker."
        => queue_wait_micros: Histogram = Histogram::new(QUEUE_WAIT_BOUNDS);
    BACKFILL_SYNC_WAIT = Histogram "backfill_sync_wait_seconds" [] "From a slice's end to its hand-over, where it had to be synced first."
        => sync_wait_micros: Histogram;
    BACKFILL_FIRST_ITEM = Histogram "backfill_first_item_seconds" [] "From the beginning of a backfill to its first hand-over."
        => first_item_micros: Histogram;
    BACKFILL_DURATION = Histogram "backfill_duration_seconds" [] "From the beginning of a backfill to its end, waiting included."
        => duration_micros: Histogram;
    BACKFILL_BUFFER_BYTES = Gauge "backfill_buffer_bytes" [] "Read and not yet taken, over all consumers.";
    BACKFILL_BUFFER_LIMIT = Gauge "backfill_buffer_limit_bytes" [] "Bound of it.";
    BACKFILL_REMAINING = Gauge "backfill_remaining_seqnos" [] "Seqnos between where backfills are and the end of their vBuckets as it is synced: an upper bound of their work, unless they end earlier.";
    CONSUMERS = Gauge "consumers" [] "Consumers.";
    STREAMS_OPEN = Gauge "streams" [STREAM] "Open streams.";
    STREAMS_DIVERGING = Gauge "streams_diverging" [] "Streams whose end runs away faster than they read.";
    STREAMS_STALLED = Gauge "streams_stalled" [] "Streams whose consumer has taken nothing for the stall limit.";
    STREAM_MAX_LAG_SEQNOS = Gauge "stream_max_lag_seqnos" [] "Seqnos between what a consumer has taken and the synced end of its vBucket, at most.";
    STREAMS_CLOSED = Counter "streams_closed_total" [StreamEnds::LABEL] "Streams whose end was taken, whose consumer is gone, or that were refused, by reason."
        => closed: StreamEnds;
    STREAMS_OPENED = Counter "streams_opened_total" [] "Streams opened, those that were then refused included."
        => opened: Counter;
    STREAM_ITEMS = Counter "stream_items_total" [BySource::LABEL] "Changes read for streams; what is in a buffer when a stream ends is counted and never taken."
        => items: BySource;
    STREAM_BYTES = Counter "stream_bytes_total" [BySource::LABEL] "Bytes of keys and values of these changes; a consumer of keys alone is handed no values."
        => bytes: BySource;
    STREAM_FALLBACKS = Counter "stream_fallbacks_total" [] "Streams that found their cursor dropped and went back to the disk."
        => cursor_drops: Counter;
    STREAM_PAUSES = Counter "stream_pauses_total" [] "Streams whose buffered batches were dropped because their consumers took nothing while others were short of buffers."
        => pauses: Counter;
    ROLLBACKS = Counter "rollbacks_required_total" [Rollbacks::LABEL] "Requests answered with a rollback."
        => rollbacks: Rollbacks;
}

metrics! {
    /// Detail by vBucket, for a registry and a path of its own: 9 series for each.
    BY_VBUCKET:
    VB_HIGH_SEQNO = Gauge "vb_high_seqno" [VB] "The last seqno assigned.";
    VB_PERSISTED_SEQNO = Gauge "vb_persisted_seqno" [VB] "Everything up to it is in RocksDB's log.";
    VB_SYNCED_SEQNO = Gauge "vb_synced_seqno" [VB] "Everything up to it is synced.";
    VB_PURGE_SEQNO = Gauge "vb_purge_seqno" [VB] "The highest seqno of a tombstone removed for good.";
    VB_ITEMS = Gauge "vb_items" [VB] "Documents on disk.";
    VB_TOMBSTONES = Gauge "vb_tombstones" [VB] "Tombstones on disk.";
    VB_CHECKPOINT_BYTES = Gauge "vb_checkpoint_bytes" [VB] "Memory of its changes in checkpoints.";
    VB_CURSORS = Gauge "vb_cursors" [VB] "Its stream cursors.";
    VB_CURSOR_MAX_LAG_ITEMS = Gauge "vb_cursor_max_lag_items" [VB] "Changes that its cursor furthest behind has not read.";
}

/// All tables.
pub const ALL: &[&[&Metric]] = &[COLLECTOR, ENGINE, ROCKS, STREAMS, BY_VBUCKET];

/// Returns the metric of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    let mut all = ALL.iter().flat_map(|table| table.iter());
    all.find(|metric| metric.name == name).copied()
}
