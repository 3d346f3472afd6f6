//! What can be set, with defaults and bounds.

use crate::durability::Durability;
use crate::error::{Error, Result};
use std::time::Duration;
use vbstore_core::ids::VBUCKETS_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Largest key that any configuration allows, in bytes.
pub const KEY_BYTES_LIMIT: u64 = 64 * KIB - 1;
/// Largest value that any configuration allows, in bytes.
pub const VALUE_BYTES_LIMIT: u64 = 20 * MIB;
/// vBuckets of a new store if the configuration does not say.
pub const VBUCKETS_DEFAULT: u16 = 64;

/// What is fixed while an engine is open.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many vBuckets the store has; a power of two from 1 to 1,024. Default: `None`, which
    /// means 64 for a new store and whatever an existing one has. Fixed when the store is created.
    /// More give finer units to follow and delete; each costs two column families (2 to 5 ms at
    /// open, about 100 KB of memory).
    pub vbuckets: Option<u16>,
    /// The durability of a write that does not state one. Default: [`Durability::Synced`].
    pub durability: Durability,
    /// Longest key, in bytes, from 1 to 65,535. Default: 250, as in Couchbase Server. Raising it
    /// makes the key family's index larger; lowering it does not touch keys that are stored.
    pub key_bytes_max: u64,
    /// Longest value, in bytes, from 1 to 20 MiB. Default: 20 MiB. Lowering it bounds the memory
    /// that one write can take; it does not touch values that are stored.
    pub value_bytes_max: u64,
    /// Most changes in one batch, from 1 to 1,000,000. Default: 10,000. A batch is never split, so
    /// a large one holds up the flush it is in.
    pub batch_items_max: u64,
    /// Most bytes of keys and values in one batch, from 1 to 256 MiB. Default: 32 MiB.
    pub batch_bytes_max: u64,
    /// RocksDB's block cache, in bytes, from 1 MiB. Default: 256 MiB. Raising it saves disk reads
    /// of a data set larger than the cache; lowering it saves memory. RocksDB: `block_cache`.
    pub block_cache_bytes: u64,
    /// RocksDB's memory for data not yet in files, summed over all families, and the cap of its
    /// log, in bytes, from 64 KiB. Default: `None`, which means max(256 MiB, families x 512 KiB):
    /// with less, families are flushed in files too small to be worth it (measured: 4,469 files of
    /// about 8 KB, a batch that waited 2.8 s). RocksDB: `write_buffer_manager`,
    /// `max_total_wal_size`.
    pub write_buffer_bytes: Option<u64>,
    /// Files RocksDB keeps open, from 16. Default: `None`, which means min(4,096, half the limit
    /// of file descriptors). RocksDB: `max_open_files`.
    pub open_files_max: Option<u32>,
    /// How long closing may take to put everything into files, from 0. Default: 10 s. What is not
    /// done by then is recovered from the log by the next open, which then takes longer. Not counted is
    /// what runs when it begins and is finished first: operations, and the compaction of a deleted vBucket.
    pub close_timeout: Duration,
    /// What can be changed while the engine is open.
    pub tuning: Tuning,
}

/// What can be changed while an engine is open, with [`crate::Engine::set_tuning`].
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Memory for recent changes, summed over all vBuckets, in bytes, from 1 MiB. Default:
    /// 128 MiB. At the quota a write waits for [`Tuning::busy_timeout`] and is then refused.
    /// Raising it lets readers fall further behind before they have to read the disk.
    pub memory_quota: u64,
    /// Share of the quota, in percent, above which changes that are on disk are freed, from 2 to
    /// 100. Default: 85.
    pub memory_high_percent: u8,
    /// Share of the quota, in percent, down to which they are freed, from 1 and below the high
    /// mark. Default: 70.
    pub memory_low_percent: u8,
    /// How long a write waits at the memory quota, from 0. Default: 5 s. It is refused at once if waiting
    /// would free nothing, because all that takes memory is in vBuckets that cannot be flushed.
    pub busy_timeout: Duration,
    /// How long a change may stay in memory only, from 1 ms. Default: 100 ms. Lowering it bounds
    /// what a [`Durability::Memory`] write can lose, at the cost of smaller batches.
    pub flush_interval: Duration,
    /// How long a change may stay unsynced, from 1 ms. Default: 1 s. Lowering it bounds what a
    /// [`Durability::Logged`] write can lose, at the cost of more syncs.
    pub sync_interval: Duration,
    /// Size at which a checkpoint is sealed, in bytes of memory, from 4 KiB. Default: 2 MiB.
    pub checkpoint_bytes_max: u64,
    /// Size of a flush, in bytes of memory, from 64 KiB; a checkpoint is never split, so one flush
    /// can be larger by one checkpoint a vBucket. Default: 16 MiB.
    pub flush_bytes_max: u64,
    /// The budget of a slice or a page whose caller states none.
    pub slice_budget: SliceBudget,
}

/// Where a slice or a page ends, whichever comes first; at least one item always passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceBudget {
    /// Items, from 1. Default: 4,096: a db snapshot and an iterator for each cost 0.9 to 1.1 of
    /// one long scan, while each is held for about 2 ms (measured).
    pub items_max: usize,
    /// Bytes of keys and values, from 1. Default: 4 MiB.
    pub bytes_max: usize,
    /// Time, from 0. Default: 10 ms. Looked at on every row, delivered or skipped.
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
        format!("{value} is below {min}")
    } else {
        format!("{value} is not between {min} and {max}")
    };
    Err(Error::invalid(field, detail))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Config {
    /// Checks every field.
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
    /// Checks every field.
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
        let below_high = u64::from(self.memory_high_percent) - 1;
        check(
            "memory_low_percent",
            u64::from(self.memory_low_percent),
            1,
            below_high,
        )?;
        check(
            "flush_interval",
            micros(self.flush_interval),
            1_000,
            u64::MAX,
        )?;
        check("sync_interval", micros(self.sync_interval), 1_000, u64::MAX)?;
        check(
            "checkpoint_bytes_max",
            self.checkpoint_bytes_max,
            4 * KIB,
            u64::MAX,
        )?;
        check("flush_bytes_max", self.flush_bytes_max, 64 * KIB, u64::MAX)?;
        self.slice_budget.validate()
    }

    /// Returns the memory above which changes that are on disk are freed, in bytes.
    pub(crate) fn memory_high(&self) -> u64 {
        (self.memory_quota / 100).saturating_mul(u64::from(self.memory_high_percent))
    }

    /// Returns the memory down to which they are freed, in bytes.
    pub(crate) fn memory_low(&self) -> u64 {
        (self.memory_quota / 100).saturating_mul(u64::from(self.memory_low_percent))
    }
}

impl SliceBudget {
    /// Checks every field.
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
