//! RocksDB's tickers and histograms.
//!
//! The level of detail is RocksDB's default, which leaves out mutex timers. It must not be set:
//! `StatsLevel` in version 0.25 of the crate is off by one.

use rocksdb::Options;
use rocksdb::statistics::{Histogram, Ticker};

/// The statistics of an open database. RocksDB keeps them in the options it was opened with.
pub(super) struct Statistics(Options);

/// Counts since the database was opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RocksCounters {
    pub(crate) iterators_open: u64,
    pub(crate) stall_micros: u64,
    pub(crate) cache_hits: u64,
    pub(crate) cache_lookups: u64,
    pub(crate) bloom_useful: u64,
    pub(crate) log_syncs: u64,
    pub(crate) log_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) flushed_bytes: u64,
    pub(crate) compaction_read_bytes: u64,
    pub(crate) compaction_write_bytes: u64,
    pub(crate) seeks: u64,
    pub(crate) nexts: u64,
    pub(crate) reseeks: u64,
    pub(crate) skips: u64,
    pub(crate) dropped_newer: u64,
    pub(crate) dropped_obsolete: u64,
    pub(crate) dropped_by_range: u64,
    pub(crate) dropped_by_filter: u64,
    pub(crate) log_sync: Timing,
    pub(crate) flush: Timing,
    pub(crate) compaction: Timing,
    pub(crate) table_sync: Timing,
    pub(crate) manifest_sync: Timing,
}

/// The number of times that something was done, and the total time of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) count: u64,
    pub(crate) micros: u64,
}

impl Statistics {
    /// Enables statistics in options, before the database is opened with them.
    pub(super) fn enable(options: &mut Options) {
        options.enable_statistics();
    }

    /// Keeps the options that the database was opened with, through which its statistics are read.
    pub(super) fn of(options: Options) -> Self {
        Self(options)
    }

    pub(super) fn read(&self) -> RocksCounters {
        let ticker = |ticker| self.0.get_ticker_count(ticker);
        let timing = |histogram| {
            let data = self.0.get_histogram_data(histogram);
            Timing {
                count: data.count(),
                micros: data.sum(),
            }
        };
        // ORDER: read the deleted ones first, so that they never exceed the created ones.
        let deleted = ticker(Ticker::NoIteratorDeleted);
        let created = ticker(Ticker::NoIteratorCreated);
        let hits = ticker(Ticker::BlockCacheHit);
        RocksCounters {
            iterators_open: created.saturating_sub(deleted),
            stall_micros: ticker(Ticker::StallMicros),
            cache_hits: hits,
            cache_lookups: hits.saturating_add(ticker(Ticker::BlockCacheMiss)),
            bloom_useful: ticker(Ticker::BloomFilterUseful),
            log_syncs: ticker(Ticker::WalFileSynced),
            log_bytes: ticker(Ticker::WalFileBytes),
            written_bytes: ticker(Ticker::BytesWritten),
            read_bytes: ticker(Ticker::BytesRead),
            flushed_bytes: ticker(Ticker::FlushWriteBytes),
            compaction_read_bytes: ticker(Ticker::CompactReadBytes),
            compaction_write_bytes: ticker(Ticker::CompactWriteBytes),
            seeks: ticker(Ticker::NumberDbSeek),
            nexts: ticker(Ticker::NumberDbNext),
            reseeks: ticker(Ticker::NumberOfReseeksInIteration),
            skips: ticker(Ticker::NumberIterSkip),
            dropped_newer: ticker(Ticker::CompactionKeyDropNewerEntry),
            dropped_obsolete: ticker(Ticker::CompactionKeyDropObsolete),
            dropped_by_range: ticker(Ticker::CompactionKeyDropRangeDel),
            dropped_by_filter: ticker(Ticker::CompactionKeyDropUser),
            log_sync: timing(Histogram::WalFileSyncMicros),
            flush: timing(Histogram::FlushTime),
            compaction: timing(Histogram::CompactionTime),
            table_sync: timing(Histogram::TableSyncMicros),
            manifest_sync: timing(Histogram::ManifestFileSyncMicros),
        }
    }
}
