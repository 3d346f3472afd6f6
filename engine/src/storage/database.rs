//! An open RocksDB database with the column families of a store.
//!
//! All families are created with the store and never dropped, so the crate's single-threaded mode
//! is enough. It looks up a family without a lock, and nothing changes the table of families while
//! the store is open.

use super::ends::{KEYS_END, SEQNOS_END};
use super::error_map::map;
use super::options::{self, FamilyOptions, SUPERSEDED, SharedMemory, key_family, seqno_family};
use super::statistics::Statistics;
use crate::error::{Error, Result};
use rocksdb::{ColumnFamily, DBWithThreadMode, FlushOptions, SingleThreaded};
use std::sync::Arc;
use vbstore_core::{Clock, VbId};
use vbstore_metrics::{ClockFn, DbSnapshots};

pub(super) type Db = DBWithThreadMode<SingleThreaded>;

/// An open RocksDB database with the families of a store. All its methods may be called from any
/// thread.
pub(crate) struct Storage {
    pub(super) db: Db,
    pub(super) names: Vec<FamilyNames>,
    pub(super) shared: SharedMemory,
    /// `None` if the database was opened for an inspection or a recovery, not for an engine.
    pub(super) statistics: Option<Statistics>,
    pub(super) db_snapshots: Arc<DbSnapshots>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) clock_fn: ClockFn,
}

pub(super) struct FamilyNames {
    pub(super) seqno: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("vbuckets", &self.names.len())
            .finish_non_exhaustive()
    }
}

impl Storage {
    pub(super) fn new(
        db: Db,
        options: &FamilyOptions,
        vbuckets: u16,
        db_snapshots: Arc<DbSnapshots>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let names = (0..vbuckets)
            .map(VbId::new)
            .map(|vb| FamilyNames {
                seqno: seqno_family(vb),
                key: key_family(vb),
            })
            .collect();
        let for_guards = Arc::clone(&clock);
        let clock_fn: ClockFn = Arc::new(move || for_guards.monotonic());
        Self {
            db,
            names,
            shared: options.shared_memory(),
            statistics: None,
            db_snapshots,
            clock,
            clock_fn,
        }
    }

    pub(super) fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| Error::corrupt_file(name, "the column family is missing"))
    }

    pub(super) fn seqno_family(&self, vb: VbId) -> Result<&ColumnFamily> {
        self.family(self.names(vb)?.seqno.as_str())
    }

    pub(super) fn key_family(&self, vb: VbId) -> Result<&ColumnFamily> {
        self.family(self.names(vb)?.key.as_str())
    }

    fn names(&self, vb: VbId) -> Result<&FamilyNames> {
        self.names.get(vb.index()).ok_or_else(|| {
            let (number, count, last) = (vb.get(), self.names.len(), self.names.len() - 1);
            let detail = format!("no vBucket {number}: the store has {count} (0 to {last})");
            Error::invalid("vb", detail)
        })
    }

    /// Syncs the log: everything written before this call survives a power cut. Returns a sequence
    /// number up to which the sync covers everything.
    pub(crate) fn sync(&self) -> Result<u64> {
        let covered = self.rocks_sequence();
        // ORDER: read the sequence number first. The sync may not cover writes after it.
        self.db
            .flush_wal(true)
            .map_err(|e| map(&e, "sync the log"))?;
        Ok(covered)
    }

    /// Returns the sequence number of the last write.
    pub(crate) fn rocks_sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// Flushes the memtables of these vBuckets to files. Blocks until that is done.
    pub(crate) fn rocks_flush(&self, vbuckets: impl Iterator<Item = VbId>) -> Result<()> {
        let mut families = Vec::new();
        for vb in vbuckets {
            families.push(self.seqno_family(vb)?);
            families.push(self.key_family(vb)?);
        }
        self.flush_families(&families)
    }

    /// Like [`Self::rocks_flush`], for the two families that belong to no vBucket.
    pub(crate) fn rocks_flush_records(&self) -> Result<()> {
        self.flush_families(&[self.family(options::DEFAULT)?, self.family(SUPERSEDED)?])
    }

    fn flush_families(&self, families: &[&ColumnFamily]) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(families, &options)
            .map_err(|e| map(&e, "flush column families"))
    }

    /// Removes the files of a deleted vBucket without reading them, except those of level 0. The
    /// caller holds the lead, and has written nothing of the vBucket after the deletion.
    pub(crate) fn remove_files(&self, vb: VbId) -> Result<()> {
        let begin: &[u8] = &[];
        let remove = |family, end| {
            self.db
                .delete_file_in_range_cf(family, begin, end)
                .map_err(|e| map(&e, "remove the files of a vBucket"))
        };
        remove(self.seqno_family(vb)?, SEQNOS_END.as_slice())?;
        remove(self.key_family(vb)?, KEYS_END.as_slice())
    }

    /// Compacts both families of a vBucket. Blocks until the compaction is done.
    pub(crate) fn compact(&self, vb: VbId) -> Result<()> {
        const ERRORS: &str = "rocksdb.background-errors";
        self.rocks_flush(std::iter::once(vb))?;
        let before = self.property(ERRORS)?;
        for family in [self.seqno_family(vb)?, self.key_family(vb)?] {
            self.db
                .compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        // The crate's call reports no error, but RocksDB counts background errors. The count covers
        // all families, so an error may come from another vBucket.
        if self.property(ERRORS)? == before {
            Ok(())
        } else {
            let failed = "a RocksDB background job failed; the next write reports why";
            Err(Error::io("compact", std::io::Error::other(failed)))
        }
    }

    /// Disables automatic compactions in all vBuckets. For tests.
    #[cfg(feature = "testing")]
    pub(crate) fn stop_compactions(&self) -> Result<()> {
        for name in self.names.iter().flat_map(|n| [&n.seqno, &n.key]) {
            self.db
                .set_options_cf(self.family(name)?, &[("disable_auto_compactions", "true")])
                .map_err(|e| map(&e, "disable compactions"))?;
        }
        Ok(())
    }

    /// Stops RocksDB's background work, and waits for running jobs.
    pub(crate) fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }
}
