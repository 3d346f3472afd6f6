//! The table of all metrics: name, kind, labels, help, and the field that counts them.
//!
//! Names and labels are part of the public API. They follow the naming practices of prometheus.io:
//! prefix `vbstore_`, base units in the name, and `_total` for counters only. Every value of a
//! label is declared, either here or with its group.

use crate::counter::Counter;
use crate::db_snapshots::{DbSnapshotHolder, DbSnapshots};
use crate::groups::{
    ByDurability, BySource, Failures, Operations, Reads, Refusals, Rollbacks, Slices, StreamEnds,
};
use crate::histogram::{BYTES_BOUNDS, Histogram, ITEMS_BOUNDS};
use crate::snapshot::MetricsSnapshot;
use crate::table::metrics;
use std::sync::Arc;
use std::time::Duration;

pub use crate::metric::{Label, Metric, MetricKind};

/// Bucket bounds for waits for a worker, in microseconds. Only the order of magnitude matters, and
/// few bounds keep a scrape within its budget of 500 series.
const QUEUE_WAIT_BOUNDS: &[u64] = &[
    100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 60_000_000,
];

const fn label(name: &'static str, values: &'static [&'static str]) -> Label {
    Label { name, values }
}

const HOLDER: Label = label("holder", &DbSnapshotHolder::NAMES);
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
    /// Metrics of the collectors themselves.
    COLLECTOR:
    COLLECTOR_SECONDS = Gauge "collector_seconds" [PART] "Duration of this scrape of the part.";
    COLLECTOR_ERRORS = Counter "collector_errors_total" [PART] "Scrapes of the part in which some or all values were missing.";
}

metrics! {
    /// Metrics of the engine.
    ENGINE:
    /// Counters of one engine since it was opened. Durations are in microseconds.
    pub struct EngineMetrics {
        /// Open db snapshots. They add their metrics to a sample themselves.
        pub db_snapshots: Arc<DbSnapshots>,
        /// Syncs of RocksDB's log. Exported as the count of `sync_micros`.
        pub syncs: Counter,
    }
    BUILD_INFO = Gauge "build_info" [VERSION, ROCKSDB] "Always 1. The labels hold the versions.";
    HEALTH_STATE = Gauge "health" [HEALTH] "1 for the current health of the engine, 0 for the other states.";
    UPTIME = Gauge "open_seconds" [] "Time since the engine was opened.";
    VBUCKETS = Gauge "vbuckets" [] "Number of vBuckets of the store.";
    ITEMS = Gauge "items" [] "Documents on disk, including expired ones.";
    TOMBSTONES = Gauge "tombstones" [] "Tombstones on disk.";
    ITEM_BYTES = Gauge "item_bytes" [] "Bytes of keys and values of the documents on disk.";
    DB_SNAPSHOTS_OPEN = Gauge "db_snapshots_open" [HOLDER] "Db snapshots open now, by purpose.";
    DB_SNAPSHOT_OLDEST_AGE = Gauge "db_snapshot_oldest_age_seconds" [] "Age of the oldest open db snapshot, 0 if none is open.";
    DB_SNAPSHOTS_OPENED = Counter "db_snapshots_opened_total" [HOLDER] "Db snapshots opened.";
    DB_SNAPSHOTS_CLOSED = Counter "db_snapshots_closed_total" [HOLDER] "Db snapshots released. Opened minus closed is the number open.";
    DB_SNAPSHOT_HOLD = Histogram "db_snapshot_hold_seconds" [HOLDER] "Time from opening a db snapshot to releasing it.";
    DB_SNAPSHOT_OVER_LIMIT = Counter "db_snapshot_over_limit_total" [HOLDER] "Db snapshots held for longer than the limit of 100 ms. Each is logged.";
    CURSORS = Gauge "cursors" [KIND] "Registered cursors. Every vBucket has one persistence cursor.";
    CURSOR_MAX_LAG_ITEMS = Gauge "cursor_max_lag_items" [KIND] "Largest number of changes that a cursor has not read.";
    CURSOR_MAX_LAG_BYTES = Gauge "cursor_max_lag_bytes" [KIND] "Largest amount of memory of the changes that a cursor has not read.";
    CURSOR_MAX_LAG_SECONDS = Gauge "cursor_max_lag_seconds" [KIND] "Age of the oldest change that a cursor has not read, 0 if all are read.";
    CURSOR_BACKLOG_ITEMS = Gauge "cursor_backlog_items" [KIND] "Changes not read, summed over all cursors.";
    CURSOR_BACKLOG_BYTES = Gauge "cursor_backlog_bytes" [KIND] "Memory of the changes not read, summed over all cursors.";
    READERS = Gauge "readers" [] "Streams in progress: opened, and not yet ended, closed or dropped with their consumer.";
    READER_MAX_LAG_SEQNOS = Gauge "reader_max_lag_seqnos" [] "Largest number of seqnos between the position of a stream in progress and the high seqno of its vBucket.";
    READER_MAX_IDLE_SECONDS = Gauge "reader_max_idle_seconds" [] "Longest time for which a consumer has taken nothing although changes were ready. Updated every quarter of the stall limit.";
    CURSORS_DROPPED = Counter "cursors_dropped_total" [] "Stream cursors dropped to free memory."
        => cursors_dropped: Counter;
    CHECKPOINT_MEMORY = Gauge "checkpoint_memory_bytes" [] "Memory of all changes in checkpoints, plus the reservations of writes in progress.";
    CHECKPOINT_MEMORY_LIMIT = Gauge "checkpoint_memory_limit_bytes" [] "Memory quota of checkpoints. Writes wait when it is used up.";
    CHECKPOINTS = Gauge "checkpoints" [CHECKPOINT] "Checkpoints in memory.";
    CHECKPOINT_ITEMS = Gauge "checkpoint_items" [] "Changes in checkpoints.";
    CHECKPOINT_ITEMS_REPLACED = Counter "checkpoint_items_replaced_total" [] "Changes replaced in memory by a newer change of the same key before they were flushed."
        => replaced_items: Counter;
    CHECKPOINTS_FREED = Counter "checkpoints_freed_total" [] "Checkpoints freed from memory."
        => checkpoints_freed: Counter;
    CHECKPOINT_FREED_BYTES = Counter "checkpoint_freed_bytes_total" [] "Memory freed with these checkpoints."
        => freed_bytes: Counter;
    WRITES_REJECTED = Counter "writes_rejected_total" [Refusals::LABEL] "Writes refused, by reason. Writes whose condition failed do not count."
        => refusals: Refusals;
    OPS = Counter "ops_total" [Operations::LABEL] "Operations started. A batch counts once."
        => operations: Operations;
    READ_SECONDS = Histogram "read_seconds" [Reads::LABEL] "Duration of reads of a key (one read in 16 is timed), a page or a slice."
        => reads: Reads;
    WRITTEN_ITEMS = Counter "written_items_total" [] "Changes that were assigned a seqno."
        => written_items: Counter;
    DURABLE_WAIT = Histogram "durable_wait_seconds" [ByDurability::LABEL] "Time from the start of a write until it is as durable as requested, for writes that wait."
        => durable_wait: ByDurability;
    PERSIST_LAG_ITEMS = Gauge "persist_lag_items" [] "Changes that are not persisted, summed over all vBuckets.";
    PERSIST_MAX_LAG_SECONDS = Gauge "persist_max_lag_seconds" [] "Age of the oldest change that is not persisted, 0 if there is none.";
    SYNC_LAG_SEQNOS = Gauge "sync_lag_seqnos" [] "Seqnos that are persisted and not synced, summed over all vBuckets.";
    SYNC_MAX_LAG_SECONDS = Gauge "sync_max_lag_seconds" [] "Time for which some change has been persisted and not synced, 0 if there is none.";
    PERSIST_BATCHES = Counter "persist_batches_total" [] "Group commits: batches written to RocksDB."
        => flushes: Counter;
    PERSIST_ITEMS = Counter "persist_items_total" [] "Changes written by group commits."
        => flushed_items: Counter;
    PERSIST_BYTES = Counter "persist_bytes_total" [] "Bytes written by group commits."
        => flushed_bytes: Counter;
    PERSIST_BATCH_ITEMS = Histogram "persist_batch_items" [] "Changes in one group commit."
        => batch_items: Histogram = Histogram::new(ITEMS_BOUNDS);
    PERSIST_BATCH_BYTES = Histogram "persist_batch_bytes" [] "Bytes of one group commit."
        => batch_bytes: Histogram = Histogram::new(BYTES_BOUNDS);
    PERSIST_WRITE = Histogram "persist_write_seconds" [] "Duration of writing a batch without a sync."
        => write_micros: Histogram;
    PERSIST_SYNC = Histogram "persist_sync_seconds" [] "Duration of writing a batch with a sync, or of a sync alone."
        => sync_micros: Histogram;
    PERSIST_FAILURES = Counter "persist_failures_total" [Failures::LABEL] "Failed writes to disk: flushes, syncs, deletions of vBuckets, the witness."
        => flush_failures: Failures;
    PREVIOUS_LOOKUPS = Counter "previous_lookups_total" [] "Lookups on disk of the document that a change replaces."
        => previous_lookups: Counter;
    DISK_FREE_RATIO = Gauge "disk_free_ratio" [] "Free fraction of the file system that holds the store.";
}

impl EngineMetrics {
    /// Adds all metrics of the engine to `into`. `now` is the time of the engine's monotonic clock.
    pub fn sample(&self, now: Duration, into: &mut MetricsSnapshot) {
        self.db_snapshots.sample(now, into);
        self.sample_counted(into);
    }
}

metrics! {
    /// Metrics that RocksDB reports.
    ROCKS:
    ROCKS_SNAPSHOTS_OPEN = Gauge "rocksdb_snapshots_open" [] "Open snapshots as RocksDB counts them. Must equal the number that vbstore counts.";
    ROCKS_OLDEST_SNAPSHOT = Gauge "rocksdb_oldest_snapshot_timestamp_seconds" [] "Time at which RocksDB's oldest open snapshot was opened. Absent if none is open.";
    ROCKS_OLDEST_LAG = Gauge "rocksdb_oldest_snapshot_sequence_lag" [] "Writes since RocksDB's oldest open snapshot was opened. Absent if none is open.";
    ROCKS_SEQUENCE = Gauge "rocksdb_sequence" [] "RocksDB's last sequence number.";
    ROCKS_OBSOLETE_SST = Gauge "rocksdb_obsolete_sst_bytes" [] "Bytes of data files that only an old snapshot or a read in progress needs.";
    ROCKS_RUNNING_COMPACTIONS = Gauge "rocksdb_running_compactions" [] "Compactions running now.";
    ROCKS_RUNNING_FLUSHES = Gauge "rocksdb_running_flushes" [] "Flushes of memtables running now.";
    ROCKS_WRITE_STOPPED = Gauge "rocksdb_write_stopped" [] "1 if RocksDB has stopped writes, 0 otherwise.";
    ROCKS_DELAYED_RATE = Gauge "rocksdb_delayed_write_rate_bytes" [] "Rate to which RocksDB limits writes, in bytes per second. 0 if it does not.";
    ROCKS_BACKGROUND_ERRORS = Gauge "rocksdb_background_errors" [] "Errors of RocksDB's background jobs.";
    ROCKS_LIVE_VERSIONS = Gauge "rocksdb_live_versions_max" [] "Largest number of live versions of a column family. Above 1 for long, files are pinned.";
    ROCKS_LIVE_SST = Gauge "rocksdb_live_sst_bytes" [] "Bytes of the data files of the current version.";
    ROCKS_TOTAL_SST = Gauge "rocksdb_total_sst_bytes" [] "Bytes of all data files.";
    ROCKS_LIVE_DATA = Gauge "rocksdb_live_data_bytes" [] "RocksDB's estimate of the bytes of live data.";
    ROCKS_KEYS = Gauge "rocksdb_estimated_keys" [] "RocksDB's estimate of the number of keys in all families.";
    ROCKS_SST_FILES = Gauge "rocksdb_sst_files" [LEVEL] "Data files by level.";
    ROCKS_PENDING_COMPACTION = Gauge "rocksdb_pending_compaction_bytes" [] "RocksDB's estimate of the bytes that compactions have to rewrite.";
    ROCKS_IMMUTABLE_MEMTABLES = Gauge "rocksdb_immutable_memtables" [] "Memtables waiting to be flushed.";
    ROCKS_MEMTABLE_BYTES = Gauge "rocksdb_memtable_bytes" [] "Memory of all memtables.";
    ROCKS_READERS_BYTES = Gauge "rocksdb_table_readers_bytes" [] "Memory of table readers outside the block cache.";
    ROCKS_SUMS_AGE = Gauge "rocksdb_sums_age_seconds" [] "Age of the metrics that are summed over all families or files. They are cached for up to 15 s.";
    ROCKS_CACHE_BYTES = Gauge "rocksdb_block_cache_bytes" [] "Bytes in the block cache.";
    ROCKS_CACHE_PINNED = Gauge "rocksdb_block_cache_pinned_bytes" [] "Bytes in the block cache that are pinned.";
    ROCKS_CACHE_CAPACITY = Gauge "rocksdb_block_cache_capacity_bytes" [] "Capacity of the block cache.";
    ROCKS_BUFFER_BYTES = Gauge "rocksdb_write_buffer_bytes" [] "Memory of memtables as counted by RocksDB's write buffer manager.";
    ROCKS_BUFFER_LIMIT = Gauge "rocksdb_write_buffer_limit_bytes" [] "Limit at which the write buffer manager flushes memtables.";
    ROCKS_ITERATORS_OPEN = Gauge "rocksdb_iterators_open" [] "Iterators that are open.";
    ROCKS_STALLED = Counter "rocksdb_stall_seconds_total" [] "Time for which writes were slowed or stopped.";
    ROCKS_CACHE_LOOKUPS = Counter "rocksdb_block_cache_lookups_total" [] "Lookups in the block cache.";
    ROCKS_CACHE_HITS = Counter "rocksdb_block_cache_hits_total" [] "Lookups that found their block in the block cache.";
    ROCKS_BLOOM_USEFUL = Counter "rocksdb_bloom_useful_total" [] "Reads of a file avoided by a Bloom filter.";
    ROCKS_LOG_SYNCS = Counter "rocksdb_log_syncs_total" [] "Syncs of the log.";
    ROCKS_LOG_WRITTEN = Counter "rocksdb_log_written_bytes_total" [] "Bytes written to the log.";
    ROCKS_WRITTEN = Counter "rocksdb_written_bytes_total" [] "Bytes of written batches.";
    ROCKS_READ = Counter "rocksdb_read_bytes_total" [] "Bytes of values read by key.";
    ROCKS_FLUSHED = Counter "rocksdb_flushed_bytes_total" [] "Bytes of data files written from memtables.";
    ROCKS_COMPACTION_READ = Counter "rocksdb_compaction_read_bytes_total" [] "Bytes that compactions read.";
    ROCKS_COMPACTION_WRITTEN = Counter "rocksdb_compaction_written_bytes_total" [] "Bytes that compactions wrote.";
    ROCKS_SEEKS = Counter "rocksdb_seeks_total" [] "Seeks of iterators.";
    ROCKS_NEXTS = Counter "rocksdb_nexts_total" [] "Steps of iterators.";
    ROCKS_RESEEKS = Counter "rocksdb_reseeks_total" [] "Seeks that an iterator makes to skip many versions of one key. An early sign of a snapshot that is held too long.";
    ROCKS_SKIPS = Counter "rocksdb_iterator_skips_total" [] "Keys that iterators skipped, such as deleted ones.";
    ROCKS_KEYS_DROPPED = Counter "rocksdb_compaction_keys_dropped_total" [DROPPED] "Keys dropped by compactions, by reason.";
    ROCKS_LOG_SYNC = Summary "rocksdb_log_sync_seconds" [] "Duration of syncs of the log, as measured by RocksDB.";
    ROCKS_FLUSH = Summary "rocksdb_flush_seconds" [] "Duration of flushes of memtables.";
    ROCKS_COMPACTION = Summary "rocksdb_compaction_seconds" [] "Duration of compactions.";
    ROCKS_TABLE_SYNC = Summary "rocksdb_table_sync_seconds" [] "Duration of syncs of data files.";
    ROCKS_MANIFEST_SYNC = Summary "rocksdb_manifest_sync_seconds" [] "Duration of syncs of the MANIFEST.";
    ROCKS_LOG_BYTES = Gauge "rocksdb_log_bytes" [] "Bytes of RocksDB's log on disk.";
    ROCKS_DISK_BYTES = Gauge "rocksdb_disk_bytes" [] "Bytes of all files in RocksDB's directory.";
}

metrics! {
    /// Metrics of streams and backfills.
    // ORDER: ends are sampled before starts, so that a sample never has more ends than starts.
    STREAMS:
    /// Counters of all streams of an engine since `Streams::start`. Durations are in microseconds.
    pub struct StreamCounters {}
    BACKFILL_TASKS = Gauge "backfill_tasks" [TASK] "Backfills by state. None holds a db snapshot between slices. A snoozed one that waits for a sync holds its batch.";
    BACKFILL_TASKS_LIMIT = Gauge "backfill_tasks_limit" [] "Limit of backfills in progress.";
    BACKFILL_WORKERS = Gauge "backfill_workers" [] "Threads that read slices for streams.";
    BACKFILLS_ENDED = Counter "backfills_ended_total" [] "Backfills ended, for any reason."
        => backfills_ended: Counter;
    BACKFILLS_STARTED = Counter "backfills_started_total" [] "Backfills started."
        => backfills_started: Counter;
    BACKFILL_PANICS = Counter "backfill_panics_total" [] "Reads of a slice that panicked."
        => panics: Counter;
    BACKFILL_SLICES = Counter "backfill_slices_total" [Slices::LABEL] "Slices read, by why they ended."
        => slices: Slices;
    BACKFILL_SLICES_SHARED = Counter "backfill_slices_shared_total" [] "Slices that a stream reused from another stream."
        => slices_shared: Counter;
    BACKFILL_SLICE_SECONDS = Histogram "backfill_slice_seconds" [] "Duration of reading slices through one db snapshot, for one or several backfills, including waits for locks."
        => slice_micros: Histogram;
    BACKFILL_SLICE_ITEMS = Histogram "backfill_slice_items" [] "Changes in one slice."
        => slice_items: Histogram = Histogram::new(ITEMS_BOUNDS);
    BACKFILL_QUEUE_WAIT = Histogram "backfill_queue_wait_seconds" [] "Time that a runnable backfill waited for a slot or a worker."
        => queue_wait_micros: Histogram = Histogram::new(QUEUE_WAIT_BOUNDS);
    BACKFILL_SYNC_WAIT = Histogram "backfill_sync_wait_seconds" [] "Time from the end of a slice to its delivery, for slices that had to be synced first."
        => sync_wait_micros: Histogram;
    BACKFILL_FIRST_ITEM = Histogram "backfill_first_item_seconds" [] "Time from the start of a backfill to its first delivery."
        => first_item_micros: Histogram;
    BACKFILL_DURATION = Histogram "backfill_duration_seconds" [] "Time from the start of a backfill to its end, including waits."
        => duration_micros: Histogram;
    BACKFILL_BUFFER_BYTES = Gauge "backfill_buffer_bytes" [] "Bytes read and not yet taken, over all consumers.";
    BACKFILL_BUFFER_LIMIT = Gauge "backfill_buffer_limit_bytes" [] "Limit of the bytes read and not yet taken.";
    BACKFILL_REMAINING = Gauge "backfill_remaining_seqnos" [] "Seqnos between the positions of backfills and the synced seqnos of their vBuckets: an upper bound of the remaining work.";
    CONSUMERS = Gauge "consumers" [] "Registered consumers.";
    STREAMS_OPEN = Gauge "streams" [STREAM] "Open streams.";
    STREAMS_DIVERGING = Gauge "streams_diverging" [] "Streams that read more slowly than their vBucket is written.";
    STREAMS_STALLED = Gauge "streams_stalled" [] "Streams whose consumer has taken nothing for the stall limit.";
    STREAM_MAX_LAG_SEQNOS = Gauge "stream_max_lag_seqnos" [] "Largest number of seqnos between the position of a stream and the synced seqno of its vBucket.";
    STREAMS_CLOSED = Counter "streams_closed_total" [StreamEnds::LABEL] "Streams ended, dropped with their consumer, or refused, by reason."
        => closed: StreamEnds;
    STREAMS_OPENED = Counter "streams_opened_total" [] "Streams opened, including those that were refused."
        => opened: Counter;
    STREAM_ITEMS = Counter "stream_items_total" [BySource::LABEL] "Changes read for streams. Counts changes that were still buffered when their stream ended."
        => items: BySource;
    STREAM_BYTES = Counter "stream_bytes_total" [BySource::LABEL] "Bytes of keys and values of these changes. Counts values also for streams of keys only."
        => bytes: BySource;
    STREAM_FALLBACKS = Counter "stream_fallbacks_total" [] "Streams whose cursor was dropped and that returned to reading from disk."
        => cursor_drops: Counter;
    STREAM_PAUSES = Counter "stream_pauses_total" [] "Streams paused: their buffered batches were dropped, because the consumer took nothing while others were short of buffers."
        => pauses: Counter;
    ROLLBACKS = Counter "rollbacks_required_total" [Rollbacks::LABEL] "Requests answered with a rollback."
        => rollbacks: Rollbacks;
}

metrics! {
    /// Metrics of single vBuckets, 9 series each. They have a registry and a path of their own.
    BY_VBUCKET:
    VB_HIGH_SEQNO = Gauge "vb_high_seqno" [VB] "Last seqno assigned.";
    VB_PERSISTED_SEQNO = Gauge "vb_persisted_seqno" [VB] "Persisted seqno: all changes up to it are in RocksDB's log.";
    VB_SYNCED_SEQNO = Gauge "vb_synced_seqno" [VB] "Synced seqno: all changes up to it are synced.";
    VB_PURGE_SEQNO = Gauge "vb_purge_seqno" [VB] "Purge seqno: highest seqno of a purged tombstone.";
    VB_ITEMS = Gauge "vb_items" [VB] "Documents on disk.";
    VB_TOMBSTONES = Gauge "vb_tombstones" [VB] "Tombstones on disk.";
    VB_CHECKPOINT_BYTES = Gauge "vb_checkpoint_bytes" [VB] "Memory of the changes in checkpoints.";
    VB_CURSORS = Gauge "vb_cursors" [VB] "Registered stream cursors.";
    VB_CURSOR_MAX_LAG_ITEMS = Gauge "vb_cursor_max_lag_items" [VB] "Largest number of changes that a stream cursor has not read.";
}

/// All tables of metrics.
pub const ALL: &[&[&Metric]] = &[COLLECTOR, ENGINE, ROCKS, STREAMS, BY_VBUCKET];

/// Returns the metric with this full name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    let mut all = ALL.iter().flat_map(|table| table.iter());
    all.find(|metric| metric.name == name).copied()
}
