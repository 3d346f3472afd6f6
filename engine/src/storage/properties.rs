//! Metrics that RocksDB reports: properties of the database, and sums over all families.

use super::database::Storage;
use super::error_map::map;
use super::options::{DEFAULT, SUPERSEDED};
use super::statistics::{RocksCounters, Statistics};
use crate::error::Result;

/// Properties of the whole database. Reading them takes microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RocksStats {
    pub(crate) snapshots: u64,
    pub(crate) oldest_time: u64,
    pub(crate) oldest_sequence: u64,
    pub(crate) sequence: u64,
    pub(crate) obsolete_sst: u64,
    pub(crate) running_compactions: u64,
    pub(crate) running_flushes: u64,
    pub(crate) is_write_stopped: u64,
    pub(crate) delayed_rate: u64,
    pub(crate) background_errors: u64,
    pub(crate) cache: usize,
    pub(crate) cache_pinned: usize,
    pub(crate) cache_capacity: usize,
    pub(crate) buffers: usize,
    pub(crate) buffers_limit: usize,
}

/// Sums over all families. Reading them takes milliseconds in a store with many vBuckets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RocksFamilyStats {
    pub(crate) live_sst: u64,
    pub(crate) total_sst: u64,
    pub(crate) live_data: u64,
    pub(crate) keys: u64,
    pub(crate) files: [u64; 7],
    pub(crate) pending_compaction: u64,
    pub(crate) immutable_memtables: u64,
    pub(crate) memtables: u64,
    pub(crate) readers: u64,
    pub(crate) live_versions_max: u64,
}

/// The properties of the file counts, by level. RocksDB has seven levels by default.
const FILES: [&str; 7] = [
    "rocksdb.num-files-at-level0",
    "rocksdb.num-files-at-level1",
    "rocksdb.num-files-at-level2",
    "rocksdb.num-files-at-level3",
    "rocksdb.num-files-at-level4",
    "rocksdb.num-files-at-level5",
    "rocksdb.num-files-at-level6",
];

impl Storage {
    /// Returns the properties of the whole database.
    pub(crate) fn rocks_stats(&self) -> Result<RocksStats> {
        let of = |name| Ok(self.property(name)?.unwrap_or(0));
        let shared = &self.shared;
        Ok(RocksStats {
            snapshots: of("rocksdb.num-snapshots")?,
            oldest_time: of("rocksdb.oldest-snapshot-time")?,
            oldest_sequence: of("rocksdb.oldest-snapshot-sequence")?,
            sequence: self.rocks_sequence(),
            obsolete_sst: of("rocksdb.obsolete-sst-files-size")?,
            running_compactions: of("rocksdb.num-running-compactions")?,
            running_flushes: of("rocksdb.num-running-flushes")?,
            is_write_stopped: of("rocksdb.is-write-stopped")?,
            delayed_rate: of("rocksdb.actual-delayed-write-rate")?,
            background_errors: of("rocksdb.background-errors")?,
            cache: shared.cache.get_usage(),
            cache_pinned: shared.cache.get_pinned_usage(),
            cache_capacity: shared.cache_bytes,
            buffers: shared.buffers.get_usage(),
            buffers_limit: shared.buffers.get_buffer_size(),
        })
    }

    /// Returns RocksDB's statistics; `None` if the database was not opened for an engine.
    pub(crate) fn rocks_counters(&self) -> Option<RocksCounters> {
        self.statistics.as_ref().map(Statistics::read)
    }

    /// Returns the sums over all families. Reads the properties of each family.
    pub(crate) fn rocks_family_stats(&self) -> Result<RocksFamilyStats> {
        let mut sums = RocksFamilyStats::default();
        for name in self.family_names() {
            let family = self.family(name)?;
            let of = |name: &str| -> Result<u64> {
                let value = self.db.property_int_value_cf(family, name);
                Ok(value
                    .map_err(|e| map(&e, "read a RocksDB property"))?
                    .unwrap_or(0))
            };
            let add = |sum: &mut u64, name: &str| -> Result<()> {
                *sum = sum.saturating_add(of(name)?);
                Ok(())
            };
            add(&mut sums.live_sst, "rocksdb.live-sst-files-size")?;
            add(&mut sums.total_sst, "rocksdb.total-sst-files-size")?;
            add(&mut sums.live_data, "rocksdb.estimate-live-data-size")?;
            add(&mut sums.keys, "rocksdb.estimate-num-keys")?;
            for (sum, name) in sums.files.iter_mut().zip(FILES) {
                add(sum, name)?;
            }
            add(
                &mut sums.pending_compaction,
                "rocksdb.estimate-pending-compaction-bytes",
            )?;
            add(
                &mut sums.immutable_memtables,
                "rocksdb.num-immutable-mem-table",
            )?;
            add(&mut sums.memtables, "rocksdb.size-all-mem-tables")?;
            add(&mut sums.readers, "rocksdb.estimate-table-readers-mem")?;
            let versions = of("rocksdb.num-live-versions")?;
            sums.live_versions_max = sums.live_versions_max.max(versions);
        }
        Ok(sums)
    }

    /// Returns the sum of an integer property over all families of the store.
    pub(crate) fn property_sum(&self, name: &'static str) -> Result<u64> {
        let mut sum: u64 = 0;
        for family in self.family_names() {
            let value = self.db.property_int_value_cf(self.family(family)?, name);
            let value = value
                .map_err(|e| map(&e, "read a RocksDB property"))?
                .unwrap_or(0);
            sum = sum.saturating_add(value);
        }
        Ok(sum)
    }

    /// Returns an integer property of the whole database, or `None` if RocksDB has none of that
    /// name.
    pub(crate) fn property(&self, name: &'static str) -> Result<Option<u64>> {
        self.db
            .property_int_value(name)
            .map_err(|e| map(&e, "read a RocksDB property"))
    }

    fn family_names(&self) -> impl Iterator<Item = &str> {
        let of_vbuckets = self
            .names
            .iter()
            .flat_map(|n| [n.seqno.as_str(), n.key.as_str()]);
        [DEFAULT, SUPERSEDED].into_iter().chain(of_vbuckets)
    }
}
