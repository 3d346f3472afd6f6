//! RocksDB's options, per family.
//!
//! Sources of the figures: measurements on 2 cores with RocksDB 11.8.1, noted in
//! docs/measurements.md under "RocksDB options"; where none is named, RocksDB's default is kept.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BlockBasedTablePinningTier, Cache,
    ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, DataBlockIndexType, InfoLogger,
    LogLevel, Options, WriteBufferManager,
};
use vbstore_core::VbId;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What the options depend on.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// vBuckets: two families each.
    pub vbuckets: u16,
    /// Bytes of the block cache shared by all families.
    pub block_cache_bytes: usize,
    /// Bytes of all memtables together, and cap of the log.
    pub write_buffer_bytes: usize,
    /// Files RocksDB keeps open.
    pub open_files_max: i32,
}

/// The family of superseded entries.
pub(crate) const SUPERSEDED: &str = "superseded";
/// RocksDB's default family: engine and vBucket records.
pub(crate) const DEFAULT: &str = "default";

/// Returns the name of the family that holds a vBucket's documents by seqno.
#[must_use]
pub fn seqno_family(vb: VbId) -> String {
    format!("{vb}.seqno")
}

/// Returns the name of the family that holds a vBucket's index entries by key.
#[must_use]
pub fn key_family(vb: VbId) -> String {
    format!("{vb}.key")
}

/// Options shared by everything that opens the same store: they hold the cache and the write
/// buffer manager.
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

/// What all families of a store share.
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

    /// Returns the options of one store.
    #[must_use]
    pub fn new(config: StorageConfig) -> Self {
        Self {
            cache: Cache::new_lru_cache(config.block_cache_bytes),
            // Never stalls a write: the log's cap and RocksDB's own flushing bound the memory.
            buffers: WriteBufferManager::new_write_buffer_manager(config.write_buffer_bytes, false),
            config,
        }
    }

    /// Returns the options of the database.
    #[must_use]
    pub fn database(&self) -> Options {
        let mut options = Options::default();
        options.set_paranoid_checks(true);
        // The longest prefix that can be read is recovered; whether it is long enough is the
        // witness's to say. TolerateCorruptedTailRecords would refuse a legal power cut.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_total_wal_size(bytes(self.config.write_buffer_bytes));
        options.set_write_buffer_manager(&self.buffers);
        options.set_max_background_jobs(i32::try_from(background_jobs()).unwrap_or(i32::MAX));
        options.set_max_open_files(self.config.open_files_max);
        // RocksDB starts them without asking whether a thread can be had: where none can, more than one
        // hangs or aborts the process.
        options.set_max_file_opening_threads(1);
        options.set_skip_stats_update_on_db_open(true);
        options.set_bytes_per_sync(bytes(MIB));
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_is_fd_close_on_exec(true);
        // RocksDB's own log goes to `tracing`, so that no LOG file is written: 20 MB in 25 s with
        // 2,048 families, and a read-only open would leave one behind.
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, forward_log));
        options
    }

    /// Returns every family of the store, each with its options; that of the records comes first.
    pub fn families(&self) -> impl Iterator<Item = ColumnFamilyDescriptor> {
        self.families_with(|_| ())
    }

    /// The same with automatic compactions disabled.
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
        // A filter of 2 million keys does not fit a small cache in one piece: 416 us a look-up
        // against 12 with partitions.
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
        // After a full disk RocksDB waits for this much free space before it takes writes again.
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
        // No bloom filter: a look-up by seqno always hits.
        options.set_block_based_table_factory(&table);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_target_file_size_base(bytes(64 * MIB));
        // Each overwrite leaves a deletion here. With the collector the first seek over them falls
        // from 360 to 30 ms and a scan from 1,150 to 450 ns a document.
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
        // The memtable's bloom filter is a share of this and is paid for by every family that is
        // written to: with 32 MiB it would be 655 KB, and as much again for each vBucket.
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

/// Returns how many jobs RocksDB may run in the background: it starts a thread for each at the open.
pub(crate) fn background_jobs() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    cores.max(2)
}

fn forward_log(level: LogLevel, line: &str) {
    // Called by RocksDB through C: a subscriber that panics must not unwind into it.
    let forwarded = std::panic::catch_unwind(|| match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(target: "vbstore::rocksdb", "{line}"),
        LogLevel::Warn => tracing::warn!(target: "vbstore::rocksdb", "{line}"),
        _ => tracing::debug!(target: "vbstore::rocksdb", "{line}"),
    });
    drop(forwarded);
}
