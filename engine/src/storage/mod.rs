//! The only place that names RocksDB.
//!
//! Three faces: [`Batch`] and [`Storage::write`]; point reads ([`point`]); and a [`View`] lent to
//! one closure whose result owns everything ([`Storage::with_view`]). No type of a RocksDB snapshot
//! or iterator is visible outside this folder.
//!
//! All families are made when the store is created and never dropped, so the single-threaded mode
//! of the crate serves: a family is looked up without a lock, and nothing changes the table while
//! the store is open.

mod batch;
mod error_map;
mod figures;
mod open;
pub(crate) mod options;
mod point;
mod records;
mod scan;
mod statistics;
mod view;

pub(crate) use batch::Batch;
pub(crate) use figures::RocksSums;
pub(crate) use open::Reach;
pub(crate) use records::{Records, decode_document, decode_index_entry};
pub(crate) use scan::PageScan;
pub(crate) use statistics::{RocksCounts, Timing};

use crate::error::{Error, Result};
use error_map::map;
use options::{FamilyOptions, SUPERSEDED, SharedMemory, key_family, seqno_family};
use rocksdb::{ColumnFamily, DBWithThreadMode, FlushOptions, SingleThreaded, WriteOptions};
use statistics::Statistics;
use std::sync::Arc;
use vbstore_core::{Clock, VbId};
use vbstore_metrics::{ClockFn, DbSnapshots};

type Db = DBWithThreadMode<SingleThreaded>;

/// An open RocksDB with the families of a store.
pub(crate) struct Storage {
    db: Db,
    names: Vec<FamilyNames>,
    shared: SharedMemory,
    /// `None` if the database was opened only to look at it.
    statistics: Option<Statistics>,
    db_snapshots: Arc<DbSnapshots>,
    clock: Arc<dyn Clock>,
    clock_fn: ClockFn,
}

struct FamilyNames {
    seqno: String,
    key: String,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("vbuckets", &self.names.len())
            .finish_non_exhaustive()
    }
}

impl Storage {
    fn new(
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

    fn family(&self, name: &str) -> Result<&ColumnFamily> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| Error::corrupt_file(name, "no such column family"))
    }

    fn seqno_family(&self, vb: VbId) -> Result<&ColumnFamily> {
        self.family(self.names(vb)?.seqno.as_str())
    }

    fn key_family(&self, vb: VbId) -> Result<&ColumnFamily> {
        self.family(self.names(vb)?.key.as_str())
    }

    fn names(&self, vb: VbId) -> Result<&FamilyNames> {
        self.names
            .get(vb.index())
            .ok_or_else(|| Error::invalid("vb", format!("{vb} is not of this store")))
    }

    /// Writes a batch as one: all of it or nothing is in the log. With `sync` it is synced before
    /// any reader sees it. Returns RocksDB's sequence number after it. The batch is used up, also
    /// when it is refused.
    pub(crate) fn write(&self, batch: Batch<'_>, sync: bool) -> Result<u64> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db
            .write_opt(batch.into_inner(), &options)
            .map_err(|e| map(&e, "write"))?;
        Ok(self.rocks_sequence())
    }

    /// Syncs the log: everything written before this call survives a power cut.
    pub(crate) fn sync(&self) -> Result<u64> {
        let covered = self.rocks_sequence();
        self.db.flush_wal(true).map_err(|e| map(&e, "sync"))?;
        Ok(covered)
    }

    /// Returns the sequence number of the last write.
    pub(crate) fn rocks_sequence(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    /// Moves what the families of these vBuckets have in memory to files, and waits for it.
    pub(crate) fn rocks_flush(&self, vbuckets: impl Iterator<Item = VbId>) -> Result<()> {
        let mut families = Vec::new();
        for vb in vbuckets {
            families.push(self.seqno_family(vb)?);
            families.push(self.key_family(vb)?);
        }
        self.flush_families(&families)
    }

    /// The same for the two families that belong to no vBucket.
    pub(crate) fn rocks_flush_records(&self) -> Result<()> {
        self.flush_families(&[self.family(options::DEFAULT)?, self.family(SUPERSEDED)?])
    }

    fn flush_families(&self, families: &[&ColumnFamily]) -> Result<()> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(families, &options)
            .map_err(|e| map(&e, "flush families"))
    }

    /// Compacts both families of a vBucket; returns when it is done.
    pub(crate) fn compact(&self, vb: VbId) -> Result<()> {
        const ERRORS: &str = "rocksdb.background-errors";
        self.rocks_flush(std::iter::once(vb))?;
        let before = self.property(ERRORS)?;
        for family in [self.seqno_family(vb)?, self.key_family(vb)?] {
            self.db
                .compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
        // The crate's call returns nothing; RocksDB counts what its compactions fail with, those of
        // all families together.
        if self.property(ERRORS)? == before {
            Ok(())
        } else {
            let met = std::io::Error::other("RocksDB met an error; the next write names it");
            Err(Error::io("compact", met))
        }
    }

    /// Lets no family of a vBucket be compacted any more. For tests.
    pub(crate) fn stop_compactions(&self) -> Result<()> {
        for name in self.names.iter().flat_map(|n| [&n.seqno, &n.key]) {
            self.db
                .set_options_cf(self.family(name)?, &[("disable_auto_compactions", "true")])
                .map_err(|e| map(&e, "stop compactions"))?;
        }
        Ok(())
    }

    /// Stops RocksDB's background work and waits for what is running.
    pub(crate) fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }
}
