//! RocksDB's metrics.

use crate::error::Result;
use crate::services::Services;
use crate::storage::{RocksCounters, RocksFamilyStats, Storage, Timing};
use crate::store_dir::data_files;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_core::u64_from;
use vbstore_metrics::names::Metric;
use vbstore_metrics::{MetricsSnapshot, SampleSource, names};

/// How long expensive values are cached: the properties of 2,050 families and the sizes of all
/// files.
const CACHED_FOR: Duration = Duration::from_secs(15);

pub(super) struct RocksSource {
    services: Arc<Services>,
    /// Held while the values are read, so that of two concurrent scrapes one reads and the other
    /// waits. A leaf: reading takes no other lock, and the gate is entered before.
    cached: Mutex<Option<CachedRocksStats>>,
}

/// The values that are cached between scrapes.
#[derive(Clone, Copy, Debug)]
struct CachedRocksStats {
    at: Duration,
    sums: RocksFamilyStats,
    /// The bytes of all files, and of the log's. Cached, because thousands of files may have to be
    /// examined for them.
    disk: u64,
    log: u64,
}

impl RocksSource {
    pub(super) fn new(services: Arc<Services>) -> Self {
        let cached = Mutex::new(LockRank::Leaf, None);
        Self { services, cached }
    }

    /// Returns the cached values. Reads them first if they are too old.
    fn cached(&self, storage: &Storage) -> Result<CachedRocksStats> {
        let mut cached = self.cached.lock();
        let now = self.services.clock.monotonic();
        let is_fresh = |cached: &CachedRocksStats| now.saturating_sub(cached.at) < CACHED_FOR;
        if let Some(cached) = (*cached).filter(is_fresh) {
            return Ok(cached);
        }
        let sums = storage.rocks_family_stats()?;
        let files = data_files(&self.services.store_dir.db())?;
        let fresh = CachedRocksStats {
            at: now,
            sums,
            disk: files.bytes,
            log: files.log_bytes,
        };
        *cached = Some(fresh);
        Ok(fresh)
    }

    pub(super) fn put(&self, into: &mut MetricsSnapshot) -> Result<()> {
        let storage = self.services.gate.acquire()?;
        let now = storage.rocks_stats()?;
        into.put(&names::ROCKS_SNAPSHOTS_OPEN, now.snapshots);
        if now.oldest_time > 0 {
            into.put(&names::ROCKS_OLDEST_SNAPSHOT, now.oldest_time);
            // The two sequence numbers are read one after the other.
            let lag = now.sequence.saturating_sub(now.oldest_sequence);
            into.put(&names::ROCKS_OLDEST_LAG, lag);
        }
        into.put(&names::ROCKS_SEQUENCE, now.sequence);
        into.put(&names::ROCKS_OBSOLETE_SST, now.obsolete_sst);
        into.put(&names::ROCKS_RUNNING_COMPACTIONS, now.running_compactions);
        into.put(&names::ROCKS_RUNNING_FLUSHES, now.running_flushes);
        into.put(&names::ROCKS_WRITE_STOPPED, now.is_write_stopped);
        into.put(&names::ROCKS_DELAYED_RATE, now.delayed_rate);
        into.put(&names::ROCKS_BACKGROUND_ERRORS, now.background_errors);
        into.put(&names::ROCKS_CACHE_BYTES, u64_from(now.cache));
        into.put(&names::ROCKS_CACHE_PINNED, u64_from(now.cache_pinned));
        into.put(&names::ROCKS_CACHE_CAPACITY, u64_from(now.cache_capacity));
        into.put(&names::ROCKS_BUFFER_BYTES, u64_from(now.buffers));
        into.put(&names::ROCKS_BUFFER_LIMIT, u64_from(now.buffers_limit));

        if let Some(counts) = storage.rocks_counters() {
            put_counts(into, &counts);
        }
        let cached = self.cached(&storage)?;
        put_sums(into, &cached.sums);
        into.put(&names::ROCKS_LOG_BYTES, cached.log);
        into.put(&names::ROCKS_DISK_BYTES, cached.disk);
        let age = self.services.clock.monotonic().saturating_sub(cached.at);
        into.put_float(&names::ROCKS_SUMS_AGE, age.as_secs_f64());
        Ok(())
    }
}

fn put_counts(into: &mut MetricsSnapshot, counts: &RocksCounters) {
    into.put(&names::ROCKS_ITERATORS_OPEN, counts.iterators_open);
    let stalled = Duration::from_micros(counts.stall_micros);
    into.put_float(&names::ROCKS_STALLED, stalled.as_secs_f64());
    into.put(&names::ROCKS_CACHE_LOOKUPS, counts.cache_lookups);
    into.put(&names::ROCKS_CACHE_HITS, counts.cache_hits);
    into.put(&names::ROCKS_BLOOM_USEFUL, counts.bloom_useful);
    into.put(&names::ROCKS_LOG_SYNCS, counts.log_syncs);
    into.put(&names::ROCKS_LOG_WRITTEN, counts.log_bytes);
    into.put(&names::ROCKS_WRITTEN, counts.written_bytes);
    into.put(&names::ROCKS_READ, counts.read_bytes);
    into.put(&names::ROCKS_FLUSHED, counts.flushed_bytes);
    into.put(&names::ROCKS_COMPACTION_READ, counts.compaction_read_bytes);
    into.put(
        &names::ROCKS_COMPACTION_WRITTEN,
        counts.compaction_write_bytes,
    );
    into.put(&names::ROCKS_SEEKS, counts.seeks);
    into.put(&names::ROCKS_NEXTS, counts.nexts);
    into.put(&names::ROCKS_RESEEKS, counts.reseeks);
    into.put(&names::ROCKS_SKIPS, counts.skips);
    let dropped = &names::ROCKS_KEYS_DROPPED;
    into.put_by(dropped, "newer", counts.dropped_newer);
    into.put_by(dropped, "obsolete", counts.dropped_obsolete);
    into.put_by(dropped, "range_deletion", counts.dropped_by_range);
    into.put_by(dropped, "filter", counts.dropped_by_filter);
    let mut put = |metric: &'static Metric, timing: Timing| {
        into.put_summary(metric, timing.micros, timing.count, 1e-6);
    };
    put(&names::ROCKS_LOG_SYNC, counts.log_sync);
    put(&names::ROCKS_FLUSH, counts.flush);
    put(&names::ROCKS_COMPACTION, counts.compaction);
    put(&names::ROCKS_TABLE_SYNC, counts.table_sync);
    put(&names::ROCKS_MANIFEST_SYNC, counts.manifest_sync);
}

fn put_sums(into: &mut MetricsSnapshot, sums: &RocksFamilyStats) {
    into.put(&names::ROCKS_LIVE_VERSIONS, sums.live_versions_max);
    into.put(&names::ROCKS_LIVE_SST, sums.live_sst);
    into.put(&names::ROCKS_TOTAL_SST, sums.total_sst);
    into.put(&names::ROCKS_LIVE_DATA, sums.live_data);
    into.put(&names::ROCKS_KEYS, sums.keys);
    for (level, files) in sums.files.into_iter().enumerate() {
        into.put_by(&names::ROCKS_SST_FILES, level.to_string(), files);
    }
    into.put(&names::ROCKS_PENDING_COMPACTION, sums.pending_compaction);
    into.put(&names::ROCKS_IMMUTABLE_MEMTABLES, sums.immutable_memtables);
    into.put(&names::ROCKS_MEMTABLE_BYTES, sums.memtables);
    into.put(&names::ROCKS_READERS_BYTES, sums.readers);
}

impl SampleSource for RocksSource {
    fn sample(
        &self,
        into: &mut MetricsSnapshot,
    ) -> std::result::Result<(), Box<dyn std::error::Error>> {
        Ok(self.put(into)?)
    }
}
