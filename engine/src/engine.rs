//! `Engine`, the handle of an open store.

use crate::config::{Config, Tuning};
use crate::error::Result;
use crate::handle::EngineHandle;
use crate::health::HealthState;
use crate::services::Services;
use crate::store_dir::data_files;
use crate::tasks::BackgroundTask;
use crate::vbucket::VBucket;
use std::fmt;
use std::sync::Arc;
use vbstore_core::{Clock, StoreUuid, VbId, VbUuid};
use vbstore_metrics::{EngineMetrics, MetricsSnapshot, Registration, Registry, Telemetry};

/// An open store. Cheap to clone: all clones, and all [`VBucket`]s made from them, share one
/// engine. Dropping the last of them closes it.
#[derive(Clone)]
pub struct Engine {
    handle: Arc<EngineHandle>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.store_uuid())
            .field("vbuckets", &self.vbuckets())
            .finish_non_exhaustive()
    }
}

/// The disk space that a store takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// All files in RocksDB's directory.
    pub total: u64,
    /// The files of RocksDB's log.
    pub log: u64,
    /// The data files of the current state.
    pub live_sst: u64,
    /// The data files that only an old view or a running read still needs.
    pub obsolete_sst: u64,
}

/// RocksDB's own count of its snapshots. At rest it agrees with the engine's count of db snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksSnapshots {
    /// The number of open snapshots.
    pub open: u64,
    /// When the oldest open snapshot was taken, in seconds since 1970; 0 if none is open.
    pub oldest_time: u64,
}

impl Engine {
    pub(crate) fn new(handle: Arc<EngineHandle>) -> Self {
        Self { handle }
    }

    pub(crate) fn handle(&self) -> &Arc<EngineHandle> {
        &self.handle
    }

    pub(crate) fn services(&self) -> &Services {
        &self.handle.services
    }

    /// Returns the handle of a vBucket.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the store has no vBucket of this number.
    pub fn vbucket(&self, vb: VbId) -> Result<VBucket> {
        let vb = self.services().vbs.get(vb)?;
        Ok(VBucket::new(Arc::clone(&self.handle), Arc::clone(vb)))
    }

    /// Returns the handle of the vBucket that a key belongs to. The hash of the key selects it, so
    /// similar keys, such as those with one prefix, are spread over all vBuckets.
    #[must_use]
    pub fn for_key(&self, key: impl AsRef<[u8]>) -> VBucket {
        let vb = self.services().vbs.of_key(key.as_ref());
        VBucket::new(Arc::clone(&self.handle), Arc::clone(vb))
    }

    /// Returns the number of vBuckets of the store.
    #[must_use]
    pub fn vbuckets(&self) -> u16 {
        self.services().vbs.count()
    }

    /// Returns the store's uuid, which was chosen when the store was created.
    #[must_use]
    pub fn store_uuid(&self) -> StoreUuid {
        self.services().store
    }

    /// Returns the configuration that the engine was opened with. Settings that may have changed
    /// since are in [`Self::tuning`].
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.services().config
    }

    /// Returns a copy of the current tuning.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        (*self.services().tuning.get()).clone()
    }

    /// Replaces the tuning. New values apply from the next write, flush or slice.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field's name, and [`crate::Error::Forked`]. The tuning is
    /// not changed then.
    pub fn set_tuning(&self, tuning: Tuning) -> Result<()> {
        self.services().gate.check_process()?;
        tuning.validate()?;
        self.services().tuning.replace(tuning);
        self.services().signals.wake_all();
        Ok(())
    }

    /// Returns the clock given to [`crate::Builder::clock`], or the system's.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.services().clock)
    }

    /// Returns how much of the file system that holds the store is free, in percent; 100 if the
    /// file system does not report its size. Makes a system call.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Forked`].
    pub fn disk_free_percent(&self) -> Result<u8> {
        let (free, all) = self
            .services()
            .gate
            .check_process()
            .and_then(|()| self.services().store_dir.disk_blocks())?;
        let percent = u128::from(free)
            .saturating_mul(100)
            .checked_div(u128::from(all))
            .unwrap_or(100);
        Ok(u8::try_from(percent).unwrap_or(100))
    }

    /// Returns the counters that the engine adds to.
    #[must_use]
    pub fn metrics(&self) -> Arc<EngineMetrics> {
        Arc::clone(&self.services().metrics)
    }

    /// Returns all metrics of the engine as plain data: those that a registry gets, except the
    /// metrics of streams. The streams have a [`MetricsSnapshot`] of their own. Takes the lock of
    /// each vBucket for a moment, one after the other.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`], [`crate::Error::Forked`].
    pub fn metrics_snapshot(&self) -> Result<MetricsSnapshot> {
        self.services().gate.check_process()?;
        self.handle.samples.snapshot()
    }

    /// Returns where the metrics are registered: the registry given to
    /// [`crate::Builder::registry`], or a registry of this engine alone.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        self.handle.samples.telemetry()
    }

    /// Registers nine metrics for each vBucket, until the returned registration is dropped or the
    /// engine is closed. Use a separate registry and path for them: a thousand vBuckets make 9,000
    /// series.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the registry already has them.
    pub fn register_vbuckets(&self, registry: &Registry) -> Result<Arc<Registration>> {
        self.handle.samples.register_vbuckets(registry)
    }

    /// Registers the metrics of streams, until the returned registration is dropped or the engine
    /// is closed. Called by the crate `vbstore-backfill`.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the engine already has streams; [`crate::Error::Closed`].
    pub fn register_streams(&self) -> Result<Arc<Registration>> {
        // Acquired only to check that the engine is open and that this process is not a fork.
        drop(self.services().gate.acquire()?);
        self.handle.samples.register_streams()
    }

    /// Returns an error in a forked child process, which has no threads of the engine or of its
    /// streams. Takes no lock, and makes a system call. Called by the crate `vbstore-backfill`.
    ///
    /// # Errors
    /// [`crate::Error::Forked`].
    pub fn check_process(&self) -> Result<()> {
        self.services().gate.opener().check_id()
    }

    /// Returns whether the engine takes writes, and if not, why.
    #[must_use]
    pub fn health(&self) -> HealthState {
        self.services().health.state()
    }

    /// Returns the memory that changes in checkpoints take, in bytes, including the memory that
    /// running writes have reserved.
    #[must_use]
    pub fn checkpoint_memory(&self) -> u64 {
        self.services().memory.used()
    }

    /// Flushes and syncs every change made so far. Blocks until that is done. Does nothing in an
    /// engine that only reads ([`crate::Builder::read_only`]).
    ///
    /// # Errors
    /// [`crate::Error::DiskFull`], [`crate::Error::Failed`], [`crate::Error::VbFailed`],
    /// [`crate::Error::Closed`].
    pub fn flush(&self) -> Result<()> {
        drop(self.services().gate.acquire()?);
        self.services().committer.flush_all()
    }

    /// Compacts the data of a vBucket on disk, and blocks until that is done. Reads and writes go
    /// on meanwhile.
    ///
    /// # Errors
    /// - [`crate::Error::Invalid`] for an unknown vBucket.
    /// - [`crate::Error::ReadOnly`], [`crate::Error::DiskFull`], [`crate::Error::Closed`].
    /// - [`crate::Error::Failed`] if the store's directory was moved, replaced or removed. The
    ///   engine has failed then.
    /// - [`crate::Error::Io`] if RocksDB counted a background error during the compaction, in
    ///   whichever vBucket it was. RocksDB's call does not report errors, and the next write
    ///   returns the cause.
    pub fn compact(&self, vb: VbId) -> Result<()> {
        let services = self.services();
        let vb = services.vbs.get(vb)?;
        services.health.check_writable("a compaction")?;
        // Checked before the directory. A close releases the store's lock, so another process may
        // change the directory after it. That must not fail this engine.
        drop(services.gate.acquire()?);
        services
            .store_dir
            .check()
            .inspect_err(|error| services.health.note(error).run())?;
        services.gate.acquire()?.compact(vb.id())
    }

    /// Deletes everything in a vBucket and assigns it a new uuid. Its seqnos begin at 1 again. The
    /// deletion is durable when this returns. Changes that were not flushed are lost, and calls
    /// that wait for them fail with [`crate::Error::VbGone`].
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for an unknown vBucket; [`crate::Error::ReadOnly`];
    /// [`crate::Error::DiskFull`], [`crate::Error::Failed`], [`crate::Error::Closed`].
    pub fn delete_vbucket(&self, vb: VbId) -> Result<VbUuid> {
        let services = self.services();
        let vb = services.vbs.get(vb)?;
        services
            .health
            .check_writable("the deletion of a vBucket")?;
        services.deleter.delete(vb)
    }

    /// Returns the disk space that the store takes. Lists the directory and asks RocksDB for sums
    /// over all column families.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`].
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let storage = self.services().gate.acquire()?;
        let files = data_files(&self.services().store_dir.db())?;
        Ok(DiskUsage {
            total: files.bytes,
            log: files.log_bytes,
            live_sst: storage.property_sum("rocksdb.live-sst-files-size")?,
            obsolete_sst: storage
                .property("rocksdb.obsolete-sst-files-size")?
                .unwrap_or(0),
        })
    }

    /// Returns RocksDB's own count of its snapshots.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`].
    pub fn rocks_snapshots(&self) -> Result<RocksSnapshots> {
        let storage = self.services().gate.acquire()?;
        Ok(RocksSnapshots {
            open: storage.property("rocksdb.num-snapshots")?.unwrap_or(0),
            oldest_time: storage
                .property("rocksdb.oldest-snapshot-time")?
                .unwrap_or(0),
        })
    }

    /// Runs one step of a background task on the calling thread, for an engine built without
    /// threads ([`crate::Builder::background`]). Does nothing in an engine that only reads.
    ///
    /// # Errors
    /// The error of the step. The engine's health has recorded it already.
    pub fn step(&self, task: BackgroundTask) -> Result<()> {
        self.services().gate.check_process()?;
        if self.services().health.is_read_only() {
            return Ok(());
        }
        task.step(self.services()).map(drop)
    }

    /// Closes the engine: refuses new operations, waits for running ones, syncs every change,
    /// flushes RocksDB's memtables to files for up to [`Config::close_timeout`], and records a
    /// clean close. An engine that only reads leaves the directory unchanged. Other clones then
    /// fail with [`crate::Error::Closed`].
    ///
    /// Every call blocks until the store is closed and returns the same outcome, from any clone and
    /// any thread. Dropping the last handle also closes the engine.
    ///
    /// Wakers may close the engine or drop its last handle. So may a clock or a `tracing`
    /// subscriber that runs on another thread of the engine. There the close begins after that
    /// thread's current step.
    ///
    /// # Errors
    /// - The error of the last flush. The store is closed then, but not cleanly. Changes that were
    ///   not durable yet are lost. None of them was acknowledged as durable.
    /// - [`crate::Error::Busy`] on a thread that the close must wait for. The close follows by
    ///   itself.
    /// - [`crate::Error::Forked`].
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }
}
