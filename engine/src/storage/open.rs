//! Creating and opening the database.

use super::database::{Db, Storage};
use super::error_map::map;
use super::options::FamilyOptions;
use super::statistics::Statistics;
use crate::error::Result;
use std::path::Path;
use std::sync::Arc;
use vbstore_core::Clock;
use vbstore_metrics::DbSnapshots;

impl Storage {
    /// Creates the database in a directory that holds nothing, then opens it again: a family that
    /// was just made keeps its directory open (2,060 file descriptors for 1,024 vBuckets; 28 after
    /// opening again, measured).
    pub(crate) fn create(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        db_snapshots: Arc<DbSnapshots>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut create = options.database();
        create.create_if_missing(true);
        create.create_missing_column_families(true);
        create.set_error_if_exists(true);
        let db = Db::open_cf_descriptors(&create, path, options.families())
            .map_err(|e| map(&e, "create"))?;
        drop(db);
        Self::open(path, options, vbuckets, db_snapshots, clock)
    }

    /// Opens an existing database. Everything in RocksDB's log is recovered as far as it can be
    /// read; a missing family or file is an error.
    pub(crate) fn open(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        db_snapshots: Arc<DbSnapshots>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut of_database = options.database();
        Statistics::enable(&mut of_database);
        let db = Db::open_cf_descriptors(&of_database, path, options.families())
            .map_err(|e| map(&e, "open"))?;
        let statistics = Some(Statistics::of(of_database));
        Ok(Self {
            statistics,
            ..Self::new(db, options, vbuckets, db_snapshots, clock)
        })
    }

    /// Opens an existing database after an unclean stop, to recover what is in its log and to begin
    /// the new branches. RocksDB compacts nothing of its own accord meanwhile: a spoilt block that
    /// a compaction met would refuse the branches after the recovery has changed the files.
    pub(crate) fn open_to_recover(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let db = Db::open_cf_descriptors(&options.database(), path, options.quiet_families())
            .map_err(|e| map(&e, "open to recover"))?;
        Ok(Self::new(db, options, vbuckets, Arc::default(), clock))
    }

    /// Opens an existing database to look at it: nothing is written, what is in RocksDB's log is
    /// recovered into memory only. With [`Reach::Records`] only the family of the records is there,
    /// which costs little however many vBuckets there are.
    ///
    /// The options must be those of every other open: RocksDB notes in its MANIFEST which log files
    /// there are, and a read-only open without that option dereferences a null pointer (11.8.1,
    /// seen).
    pub(crate) fn open_read_only(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        reach: Reach,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let families = options.families().take(match reach {
            Reach::Records => 1,
            Reach::Everything => usize::MAX,
        });
        let db = Db::open_cf_descriptors_read_only(&options.database(), path, families, false)
            .map_err(|e| map(&e, "read-only open"))?;
        // Counted apart: the engine that opens next is not yet there to be measured.
        Ok(Self::new(db, options, vbuckets, Arc::default(), clock))
    }

    /// Opens an existing database to be used by an engine that only reads, as [`Self::open_read_only`]
    /// with all families.
    pub(crate) fn open_to_read(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        db_snapshots: Arc<DbSnapshots>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut of_database = options.database();
        Statistics::enable(&mut of_database);
        let families = options.families();
        let db = Db::open_cf_descriptors_read_only(&of_database, path, families, false)
            .map_err(|e| map(&e, "read-only open"))?;
        let statistics = Some(Statistics::of(of_database));
        Ok(Self {
            statistics,
            ..Self::new(db, options, vbuckets, db_snapshots, clock)
        })
    }
}

/// How much of a database is opened to look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The records of the vBuckets.
    Records,
    /// All families.
    Everything,
}
