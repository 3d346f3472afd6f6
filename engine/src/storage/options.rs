//! RocksDB's options, per family.
//!
//! Numbers in comments were measured on 2 cores with RocksDB 11.8.1; see
//! docs/measurements.md, "RocksDB options". Options that are not set here have RocksDB's default.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BlockBasedTablePinningTier, Cache,
    ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, DataBlockIndexType, InfoLogger,
    LogLevel, Options, WriteBufferManager,
};
use vbstore_core::VbId;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The settings that the options depend on.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The number of vBuckets. Each has two families.
    pub vbuckets: u16,
    /// The size in bytes of the block cache that all families share.
    pub block_cache_bytes: usize,
    /// The limit in bytes of all memtables together. It is also the cap of the log.
    pub write_buffer_bytes: usize,
    /// The number of files that RocksDB keeps open.
    pub open_files_max: i32,
}

/// The name of the family of superseded entries.
pub(crate) const SUPERSEDED: &str = "superseded";
/// The name of RocksDB's default family, with the state records of the store and its vBuckets.
pub(crate) const DEFAULT: &str = "default";

/// Returns the name of the family that stores a vBucket's documents by seqno.
#[must_use]
pub fn seqno_family(vb: VbId) -> String {
    format!("{vb}.seqno")
}

/// Returns the name of the family that stores a vBucket's index entries by key.
#[must_use]
pub fn key_family(vb: VbId) -> String {
    format!("{vb}.key")
}

/// The options of one store. They hold its block cache and write buffer manager, so every open of
/// the store shares these.
#[derive(Clone)]
pub struct FamilyOptions {
    cache: Cache,
    buffers: WriteBufferManager,
    config: StorageConfig,
}

impl std::fmt::Debug for FamilyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FamilyOptions")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The memory that all families of a store share.
pub(crate) struct SharedMemory {
    pub(crate) cache: Cache,
    pub(crate) cache_bytes: usize,
    pub(crate) buffers: WriteBufferManager,
}

impl FamilyOptions {
    pub(crate) fn shared_memory(&self) -> SharedMemory {
        SharedMemory {
            cache: self.cache.clone(),
            cache_bytes: self.config.block_cache_bytes,
            buffers: self.buffers.clone(),
        }
    }

    /// Returns the options for one store.
    #[must_use]
    pub fn new(config: StorageConfig) -> Self {
        Self {
            cache: Cache::new_lru_cache(config.block_cache_bytes),
            // `false`: writes are never stalled. The cap of the log and RocksDB's own flushes bound
            // the memory.
            buffers: WriteBufferManager::new_write_buffer_manager(config.write_buffer_bytes, false),
            config,
        }
    }

    /// Returns the options of the database as a whole.
    #[must_use]
    pub fn database(&self) -> Options {
        let mut options = Options::default();
        options.set_paranoid_checks(true);
        // Recovers the longest readable prefix of the log. The witness decides whether that is long
        // enough. TolerateCorruptedTailRecords would refuse some logs that a power cut can leave
        // without any fault of the disk.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_total_wal_size(bytes(self.config.write_buffer_bytes));
        options.set_write_buffer_manager(&self.buffers);
        options.set_max_background_jobs(i32::try_from(background_jobs()).unwrap_or(i32::MAX));
        options.set_max_open_files(self.config.open_files_max);
        // RocksDB does not check whether these threads can be started. If the system refuses one of
        // them, a number above 1 makes RocksDB hang or abort the process.
        options.set_max_file_opening_threads(1);
        options.set_skip_stats_update_on_db_open(true);
        options.set_bytes_per_sync(bytes(MIB));
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_is_fd_close_on_exec(true);
        // RocksDB's own log goes to `tracing`, and no LOG file is written. With 2,048 families it
        // grew by 20 MB in 25 s, and a read-only open would leave one behind.
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, forward_log));
        options
    }

    /// Returns every family of the store with its options. The family of the state records is
    /// first.
    pub fn families(&self) -> impl Iterator<Item = ColumnFamilyDescriptor> {
        self.families_with(|_| ())
    }

    /// Like [`Self::families`], with automatic compactions disabled.
    pub(crate) fn quiet_families(&self) -> impl Iterator<Item = ColumnFamilyDescriptor> {
        self.families_with(|options| options.set_disable_auto_compactions(true))
    }

    fn families_with(
        &self,
        change: fn(&mut Options),
    ) -> impl Iterator<Item = ColumnFamilyDescriptor> + use<> {
        let mut all = [
            self.default_family(),
            self.superseded(),
            self.seqno(),
            self.key(),
        ];
        all.iter_mut().for_each(change);
        let [default, superseded, seqno, key] = all;
        let shared = [
            ColumnFamilyDescriptor::new(DEFAULT, default),
            ColumnFamilyDescriptor::new(SUPERSEDED, superseded),
        ];
        let vbs = (0..self.config.vbuckets).map(VbId::new);
        shared.into_iter().chain(vbs.flat_map(move |vb| {
            [
                ColumnFamilyDescriptor::new(seqno_family(vb), seqno.clone()),
                ColumnFamilyDescriptor::new(key_family(vb), key.clone()),
            ]
        }))
    }

    fn table(&self) -> BlockBasedOptions {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.cache);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        // The filter of 2 million keys does not fit a small cache in one piece: a look-up took 416
        // us, against 12 us with partitions.
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(4 * KIB);
        table.set_top_level_index_pinning_tier(BlockBasedTablePinningTier::All);
        table
    }

    fn common(&self) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_manager(&self.buffers);
        options.set_arena_block_size(16 * KIB);
        // After a full disk RocksDB waits until this much space is free before it accepts writes
        // again.
        options.set_write_buffer_size(self.config.write_buffer_bytes.min(32 * MIB));
        options.set_max_write_buffer_number(3);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options
    }

    fn seqno(&self) -> Options {
        let mut table = self.table();
        table.set_block_size(16 * KIB);
        let mut options = self.common();
        // No bloom filter: a look-up by seqno always finds its document.
        options.set_block_based_table_factory(&table);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_target_file_size_base(bytes(64 * MIB));
        // Each overwrite leaves a deletion here. With this collector the first seek over them takes
        // 30 ms instead of 360, and a scan 450 ns a document instead of 1,150.
        options.add_compact_on_deletion_collector_factory(4_096, 2_048, 0.5);
        options
    }

    fn key(&self) -> Options {
        let mut table = self.table();
        table.set_block_size(4 * KIB);
        table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
        table.set_bloom_filter(10.0, false);
        let mut options = self.common();
        options.set_block_based_table_factory(&table);
        // The memtable's bloom filter takes a share of this size in every family that is written
        // to. With 32 MiB it would take 655 KB for each such vBucket.
        let share = self.config.write_buffer_bytes / usize::from(self.config.vbuckets.max(1));
        options.set_write_buffer_size(share.clamp(MIB, 16 * MIB));
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(0.02);
        options
    }

    fn superseded(&self) -> Options {
        let mut options = self.default_family();
        options.add_compact_on_deletion_collector_factory(4_096, 2_048, 0.5);
        options
    }

    fn default_family(&self) -> Options {
        let mut options = self.common();
        options.set_block_based_table_factory(&self.table());
        options.set_write_buffer_size(4 * MIB);
        options
    }
}

fn bytes(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// Returns the number of RocksDB's background jobs. RocksDB starts a thread for each when it opens.
pub(crate) fn background_jobs() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    cores.max(2)
}

fn forward_log(level: LogLevel, line: &str) {
    // RocksDB calls this from C++: a panic in a subscriber must not unwind into it.
    let forwarded = std::panic::catch_unwind(|| match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(target: "vbstore::rocksdb", "{line}"),
        LogLevel::Warn => tracing::warn!(target: "vbstore::rocksdb", "{line}"),
        _ => tracing::debug!(target: "vbstore::rocksdb", "{line}"),
    });
    drop(forwarded);
}
