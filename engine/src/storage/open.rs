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
    /// Creates the database in an empty directory, then opens it again. Reopening saves file
    /// descriptors, because a new family keeps its directory open: 2,060 for 1,024 vBuckets,
    /// against 28 after reopening (measured).
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
            .map_err(|e| map(&e, "create the database"))?;
        drop(db);
        Self::open(path, options, vbuckets, db_snapshots, clock)
    }

    /// Opens an existing database. RocksDB's log is recovered as far as it can be read. A missing
    /// family or file is an error.
    pub(crate) fn open(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        db_snapshots: Arc<DbSnapshots>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut database_options = options.database();
        Statistics::enable(&mut database_options);
        let db = Db::open_cf_descriptors(&database_options, path, options.families())
            .map_err(|e| map(&e, "open the database"))?;
        let statistics = Some(Statistics::of(database_options));
        Ok(Self {
            statistics,
            ..Self::new(db, options, vbuckets, db_snapshots, clock)
        })
    }

    /// Opens an existing database after an unclean stop, to recover its log and to begin the new
    /// branches. Automatic compactions are disabled. Otherwise a compaction could meet a corrupt
    /// block and make RocksDB refuse the branches after the recovery has changed the files.
    pub(crate) fn open_to_recover(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let db = Db::open_cf_descriptors(&options.database(), path, options.quiet_families())
            .map_err(|e| map(&e, "open the database to recover it"))?;
        Ok(Self::new(db, options, vbuckets, Arc::default(), clock))
    }

    /// Opens an existing database for an inspection. Nothing is written, and RocksDB's log is
    /// recovered into memory only. With [`OpenScope::Records`] only the family of the state records
    /// is opened, which is cheap for any number of vBuckets.
    ///
    /// The options must be the same as for every other open. With
    /// `track_and_verify_wals_in_manifest` RocksDB records its log files in the MANIFEST. A
    /// read-only open without that option then dereferences a null pointer (seen in 11.8.1).
    pub(crate) fn open_read_only(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        scope: OpenScope,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let families = options.families().take(match scope {
            OpenScope::Records => 1,
            OpenScope::Everything => usize::MAX,
        });
        let db = Db::open_cf_descriptors_read_only(&options.database(), path, families, false)
            .map_err(|e| map(&e, "open the database read-only"))?;
        // Counts db snapshots separately: they do not belong to the engine that opens next.
        Ok(Self::new(db, options, vbuckets, Arc::default(), clock))
    }

    /// Opens an existing database for an engine that only reads: like [`Self::open_read_only`] with
    /// all families, and with statistics.
    pub(crate) fn open_to_read(
        path: &Path,
        options: &FamilyOptions,
        vbuckets: u16,
        db_snapshots: Arc<DbSnapshots>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut database_options = options.database();
        Statistics::enable(&mut database_options);
        let families = options.families();
        let db = Db::open_cf_descriptors_read_only(&database_options, path, families, false)
            .map_err(|e| map(&e, "open the database read-only"))?;
        let statistics = Some(Statistics::of(database_options));
        Ok(Self {
            statistics,
            ..Self::new(db, options, vbuckets, db_snapshots, clock)
        })
    }
}

/// How much of a database is opened for an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenScope {
    /// The family of the vBuckets' state records and failover logs.
    Records,
    /// All families.
    Everything,
}
