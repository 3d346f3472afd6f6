//! The settings of an engine, with their defaults, bounds and costs.

use crate::durability::Durability;
use crate::error::{Error, Result};
use std::time::Duration;
use vbstore_core::ids::VBUCKETS_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The largest key that any configuration allows, in bytes.
pub const KEY_BYTES_LIMIT: u64 = 64 * KIB - 1;
/// The largest value that any configuration allows, in bytes.
pub const VALUE_BYTES_LIMIT: u64 = 20 * MIB;
/// The number of vBuckets of a new store whose configuration does not set one.
pub const VBUCKETS_DEFAULT: u16 = 64;
/// The shortest flush or sync interval.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The settings that are fixed while an engine is open, and the initial [`Tuning`].
#[derive(Clone, Debug)]
pub struct Config {
    /// The number of vBuckets, a power of two from 1 to 1,024. Fixed when the store is created.
    /// Default: `None`, which means 64 for a new store and the existing number for any other. More
    /// vBuckets are finer units to stream and to delete. Each costs two column families: 2 to 5 ms
    /// when the store is opened, and about 100 KB of memory.
    pub vbuckets: Option<u16>,
    /// The durability of a write that does not set one. Default: [`Durability::Synced`].
    pub durability: Durability,
    /// The longest key, in bytes, from 1 to 65,535. Default: 250, as in Couchbase Server. Longer
    /// keys make the index of the key family larger. A lower limit does not affect stored keys.
    pub key_bytes_max: u64,
    /// The longest value, in bytes, from 1 to 20 MiB. Default: 20 MiB. A lower limit bounds the
    /// memory that one write can take. It does not affect stored values.
    pub value_bytes_max: u64,
    /// The most changes in one batch, from 1 to 1,000,000. Default: 10,000. A batch is never split,
    /// so a large one delays the flush that it is part of.
    pub batch_items_max: u64,
    /// The most bytes of keys and values in one batch, from 1 to 256 MiB. Default: 32 MiB.
    pub batch_bytes_max: u64,
    /// The size of RocksDB's block cache (`block_cache`), in bytes, at least 1 MiB. Default: 256
    /// MiB. A larger cache saves disk reads if the data does not fit; a smaller one saves memory.
    pub block_cache_bytes: u64,
    /// RocksDB's memory for data that is not yet in files, over all families, and the size limit of
    /// its log, in bytes, at least 64 KiB (`write_buffer_manager`, `max_total_wal_size`). Default:
    /// `None`, which means max(256 MiB, families x 512 KiB). With less, RocksDB flushes families
    /// into files that are too small (measured: 4,469 files of about 8 KB, and a batch that waited
    /// 2.8 s).
    pub write_buffer_bytes: Option<u64>,
    /// The number of files that RocksDB keeps open (`max_open_files`), at least 16. Default:
    /// `None`, which means min(4,096, half the limit of file descriptors).
    pub open_files_max: Option<u32>,
    /// How long a close may take to flush RocksDB's memtables to files; may be 0. Default: 10 s.
    /// The next open recovers the rest from the log, and takes longer. The limit does not cover the
    /// waits before that: for running operations, and for the compaction of a deleted vBucket.
    pub close_timeout: Duration,
    /// The settings that can be changed while the engine is open.
    pub tuning: Tuning,
}

/// The settings that [`crate::Engine::set_tuning`] can change while an engine is open.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// The memory for recent changes, over all vBuckets, in bytes, at least 1 MiB. Default: 128
    /// MiB. A write that would exceed it waits up to [`Tuning::busy_timeout`], and then fails with
    /// [`Error::Busy`]. With more memory, streams can lag further before they must read the disk.
    pub memory_quota: u64,
    /// The percentage of the quota above which persisted changes are freed, from 2 to 100. Default:
    /// 85.
    pub memory_high_percent: u8,
    /// The percentage of the quota down to which they are freed, at least 1 and below
    /// `memory_high_percent`. Default: 70.
    pub memory_low_percent: u8,
    /// How long a write waits for room in the memory quota; may be 0. Default: 5 s. The write fails
    /// at once if waiting cannot help, because all the memory belongs to vBuckets that cannot be
    /// flushed.
    pub busy_timeout: Duration,
    /// How long a change may be in memory only, at least 1 ms. Default: 100 ms. A shorter interval
    /// bounds what a [`Durability::Memory`] write can lose, and makes batches smaller.
    pub flush_interval: Duration,
    /// How long a change may be unsynced, at least 1 ms. Default: 1 s. A shorter interval bounds
    /// what a [`Durability::Logged`] write can lose, and costs more syncs.
    pub sync_interval: Duration,
    /// The size at which a checkpoint is sealed, in bytes of memory, at least 4 KiB. Default: 2
    /// MiB.
    pub checkpoint_bytes_max: u64,
    /// The size of a flush, in bytes of memory, at least 64 KiB. Default: 16 MiB. A checkpoint is
    /// never split, so a flush can be larger by one checkpoint of each vBucket.
    pub flush_bytes_max: u64,
    /// The budget of a slice or page for which the caller gives none.
    pub slice_budget: SliceBudget,
}

/// The limits of a slice or page. It ends at the first one reached, but has at least one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceBudget {
    /// The most items, at least 1. Default: 4,096. With that size, opening a db snapshot and an
    /// iterator for each slice takes 0.9 to 1.1 of the time of one long scan, and each db snapshot
    /// is open for about 2 ms (measured).
    pub items_max: usize,
    /// The most bytes of keys and values, at least 1. Default: 4 MiB.
    pub bytes_max: usize,
    /// The longest duration; may be 0. Default: 10 ms. Checked at every row, delivered or skipped.
    pub duration_max: Duration,
}

impl Default for SliceBudget {
    fn default() -> Self {
        Self {
            items_max: 4_096,
            bytes_max: 4 << 20,
            duration_max: Duration::from_millis(10),
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            memory_quota: 128 * MIB,
            memory_high_percent: 85,
            memory_low_percent: 70,
            busy_timeout: Duration::from_secs(5),
            flush_interval: Duration::from_millis(100),
            sync_interval: Duration::from_secs(1),
            checkpoint_bytes_max: 2 * MIB,
            flush_bytes_max: 16 * MIB,
            slice_budget: SliceBudget::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vbuckets: None,
            durability: Durability::Synced,
            key_bytes_max: 250,
            value_bytes_max: VALUE_BYTES_LIMIT,
            batch_items_max: 10_000,
            batch_bytes_max: 32 * MIB,
            block_cache_bytes: 256 * MIB,
            write_buffer_bytes: None,
            open_files_max: None,
            close_timeout: Duration::from_secs(10),
            tuning: Tuning::default(),
        }
    }
}

fn check(field: &'static str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let detail = if max == u64::MAX {
        format!("{value} is below the minimum, {min}")
    } else {
        format!("{value} is not between {min} and {max}")
    };
    Err(Error::invalid(field, detail))
}

fn check_interval(field: &'static str, interval: Duration) -> Result<()> {
    if interval >= INTERVAL_MIN {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("{interval:?} is below the minimum, {INTERVAL_MIN:?}"),
    ))
}

impl Config {
    /// Checks that every field is within its bounds.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the name of the first field that is out of bounds.
    pub fn validate(&self) -> Result<()> {
        if let Some(vbuckets) = self.vbuckets {
            check("vbuckets", u64::from(vbuckets), 1, u64::from(VBUCKETS_MAX))?;
            if !vbuckets.is_power_of_two() {
                return Err(Error::invalid(
                    "vbuckets",
                    format!("{vbuckets} is not a power of two"),
                ));
            }
        }
        check("key_bytes_max", self.key_bytes_max, 1, KEY_BYTES_LIMIT)?;
        check(
            "value_bytes_max",
            self.value_bytes_max,
            1,
            VALUE_BYTES_LIMIT,
        )?;
        check("batch_items_max", self.batch_items_max, 1, 1_000_000)?;
        check("batch_bytes_max", self.batch_bytes_max, 1, 256 * MIB)?;
        check("block_cache_bytes", self.block_cache_bytes, MIB, u64::MAX)?;
        if let Some(bytes) = self.write_buffer_bytes {
            check("write_buffer_bytes", bytes, 64 * KIB, u64::MAX)?;
        }
        if let Some(files) = self.open_files_max {
            check("open_files_max", u64::from(files), 16, 1 << 30)?;
        }
        self.tuning.validate()
    }
}

impl Tuning {
    /// Checks that every field is within its bounds.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the name of the first field that is out of bounds.
    pub fn validate(&self) -> Result<()> {
        check("memory_quota", self.memory_quota, MIB, u64::MAX)?;
        check(
            "memory_high_percent",
            u64::from(self.memory_high_percent),
            2,
            100,
        )?;
        let (low, high) = (self.memory_low_percent, self.memory_high_percent);
        if !(1..high).contains(&low) {
            let max = high - 1;
            let detail = format!("{low} is not between 1 and {max}, below memory_high_percent");
            return Err(Error::invalid("memory_low_percent", detail));
        }
        check_interval("flush_interval", self.flush_interval)?;
        check_interval("sync_interval", self.sync_interval)?;
        check(
            "checkpoint_bytes_max",
            self.checkpoint_bytes_max,
            4 * KIB,
            u64::MAX,
        )?;
        check("flush_bytes_max", self.flush_bytes_max, 64 * KIB, u64::MAX)?;
        self.slice_budget.validate()
    }

    /// Returns the memory above which persisted changes are freed, in bytes.
    pub(crate) fn memory_high(&self) -> u64 {
        (self.memory_quota / 100).saturating_mul(u64::from(self.memory_high_percent))
    }

    /// Returns the memory down to which persisted changes are freed, in bytes.
    pub(crate) fn memory_low(&self) -> u64 {
        (self.memory_quota / 100).saturating_mul(u64::from(self.memory_low_percent))
    }
}

impl SliceBudget {
    /// Checks that every field is within its bounds.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the name of the first field that is out of bounds.
    pub fn validate(&self) -> Result<()> {
        let items = u64::try_from(self.items_max).unwrap_or(u64::MAX);
        check("slice_budget.items_max", items, 1, u64::MAX)?;
        let bytes = u64::try_from(self.bytes_max).unwrap_or(u64::MAX);
        check("slice_budget.bytes_max", bytes, 1, u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> &'static str {
        let mut config = Config::default();
        change(&mut config);
        match config.validate() {
            Err(Error::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn every_bound_names_its_field() {
        assert_eq!(refused(|c| c.vbuckets = Some(0)), "vbuckets");
        assert_eq!(refused(|c| c.vbuckets = Some(63)), "vbuckets");
        assert_eq!(refused(|c| c.vbuckets = Some(2_048)), "vbuckets");
        assert_eq!(refused(|c| c.key_bytes_max = 0), "key_bytes_max");
        assert_eq!(refused(|c| c.key_bytes_max = 65_536), "key_bytes_max");
        assert_eq!(
            refused(|c| c.value_bytes_max = 20 * MIB + 1),
            "value_bytes_max"
        );
        assert_eq!(refused(|c| c.batch_items_max = 0), "batch_items_max");
        assert_eq!(
            refused(|c| c.batch_bytes_max = 256 * MIB + 1),
            "batch_bytes_max"
        );
        assert_eq!(
            refused(|c| c.block_cache_bytes = MIB - 1),
            "block_cache_bytes"
        );
        assert_eq!(
            refused(|c| c.write_buffer_bytes = Some(1)),
            "write_buffer_bytes"
        );
        assert_eq!(refused(|c| c.open_files_max = Some(15)), "open_files_max");
        assert_eq!(refused(|c| c.tuning.memory_quota = MIB - 1), "memory_quota");
        assert_eq!(
            refused(|c| c.tuning.memory_high_percent = 101),
            "memory_high_percent"
        );
        assert_eq!(
            refused(|c| c.tuning.memory_low_percent = 85),
            "memory_low_percent"
        );
        assert_eq!(
            refused(|c| c.tuning.flush_interval = Duration::ZERO),
            "flush_interval"
        );
        assert_eq!(
            refused(|c| c.tuning.sync_interval = Duration::ZERO),
            "sync_interval"
        );
        assert_eq!(
            refused(|c| c.tuning.checkpoint_bytes_max = 1),
            "checkpoint_bytes_max"
        );
        assert_eq!(refused(|c| c.tuning.flush_bytes_max = 1), "flush_bytes_max");
        assert_eq!(
            refused(|c| c.tuning.slice_budget.items_max = 0),
            "slice_budget.items_max"
        );
        assert_eq!(
            refused(|c| c.tuning.slice_budget.bytes_max = 0),
            "slice_budget.bytes_max"
        );
    }
}
