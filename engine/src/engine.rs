//! The engine's handle.

use crate::config::{Config, Tuning};
use crate::error::Result;
use crate::handle::Handle;
use crate::health::HealthState;
use crate::home::data_files;
use crate::services::Services;
use crate::tasks::BackgroundTask;
use crate::vbucket::VBucket;
use std::fmt;
use std::sync::Arc;
use vbstore_core::{Clock, StoreUuid, VbId, VbUuid};
use vbstore_metrics::{EngineMetrics, MetricsSnapshot, Registration, Registry, Telemetry};

/// An open store. Cheap to clone; all clones, and all [`VBucket`]s made from them, are one engine.
/// The last one that is dropped closes it.
#[derive(Clone)]
pub struct Engine {
    handle: Arc<Handle>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("store", &self.store_uuid())
            .field("vbuckets", &self.vbuckets())
            .finish_non_exhaustive()
    }
}

/// Disk space of a store, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// All files in RocksDB's directory.
    pub total: u64,
    /// RocksDB's log.
    pub log: u64,
    /// Data files that are part of the present state.
    pub live_sst: u64,
    /// Data files that only an old view or a running read still needs.
    pub obsolete_sst: u64,
}

/// What RocksDB itself says of its snapshots; must agree with our own count at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksSnapshots {
    /// Open snapshots.
    pub open: u64,
    /// Seconds since 1970 at which the oldest was opened, 0 if none is open.
    pub oldest_time: u64,
}

impl Engine {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    pub(crate) fn services(&self) -> &Services {
        &self.handle.services
    }

    /// Returns a vBucket.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the store has no vBucket of this number.
    pub fn vbucket(&self, vb: VbId) -> Result<VBucket> {
        let vb = self.services().vbs.get(vb)?;
        Ok(VBucket::new(Arc::clone(&self.handle), Arc::clone(vb)))
    }

    /// Returns the vBucket that a key belongs to: which one, its hash decides. Keys that are alike, such
    /// as those of one prefix, are spread over all vBuckets.
    #[must_use]
    pub fn for_key(&self, key: impl AsRef<[u8]>) -> VBucket {
        let vb = self.services().vbs.of_key(key.as_ref());
        VBucket::new(Arc::clone(&self.handle), Arc::clone(vb))
    }

    /// Returns how many vBuckets the store has.
    #[must_use]
    pub fn vbuckets(&self) -> u16 {
        self.services().vbs.count()
    }

    /// Returns the store's uuid.
    #[must_use]
    pub fn store_uuid(&self) -> StoreUuid {
        self.services().store
    }

    /// Returns the configuration the engine was opened with; [`Self::tuning`] has what may have
    /// been changed since.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.services().config
    }

    /// Returns what can be changed while the engine is open, as it is now.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        (*self.services().tuning.get()).clone()
    }

    /// Replaces the tuning. New values apply from the next write, flush or slice.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field's name; nothing was changed then.
    pub fn set_tuning(&self, tuning: Tuning) -> Result<()> {
        self.services().gate.check_process()?;
        tuning.validate()?;
        self.services().tuning.replace(tuning);
        self.services().signals.wake_all();
        Ok(())
    }

    /// Returns the clock it goes by.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.services().clock)
    }

    /// Returns how much of the file system that holds the store is free, in percent.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`].
    pub fn disk_free_percent(&self) -> Result<u8> {
        let (free, all) = self
            .services()
            .gate
            .check_process()
            .and_then(|()| self.services().home.disk_blocks())?;
        let percent = u128::from(free)
            .saturating_mul(100)
            .checked_div(u128::from(all))
            .unwrap_or(100);
        Ok(u8::try_from(percent).unwrap_or(100))
    }

    /// Returns the engine's counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<EngineMetrics> {
        Arc::clone(&self.services().metrics)
    }

    /// Returns everything that is measured, as plain data: the same figures that a registry gets, but
    /// for those of streams ([`MetricsSnapshot`] of them is theirs to give). Takes each vBucket's lock
    /// for a moment.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`].
    pub fn metrics_snapshot(&self) -> Result<MetricsSnapshot> {
        self.services().gate.check_process()?;
        self.handle.samples.snapshot()
    }

    /// Returns where the figures are registered: in the registry given to [`crate::Builder::registry`], or in
    /// one of the engine's own.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        self.handle.samples.telemetry()
    }

    /// Registers figures of every single vBucket, nine for each, until the answer is dropped or the
    /// engine is closed. Meant for a registry and a path of their own: a thousand vBuckets are 9,000 series.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the registry has them already.
    pub fn register_vbuckets(&self, registry: &Registry) -> Result<Arc<Registration>> {
        self.handle.samples.register_vbuckets(registry)
    }

    /// Registers the figures of streams until the answer is dropped or the engine is closed. For the
    /// crate that has streams.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] if the engine has streams already; [`crate::Error::Closed`].
    pub fn register_streams(&self) -> Result<Arc<Registration>> {
        drop(self.services().gate.lend()?);
        self.handle.samples.register_streams()
    }

    /// Refuses in a process that a program forked: neither the engine's threads nor those of its streams
    /// are there. Takes no lock. For the crate that has streams.
    ///
    /// # Errors
    /// [`crate::Error::Forked`].
    pub fn check_process(&self) -> Result<()> {
        self.services().gate.opener().check_id()
    }

    /// Returns whether the engine takes writes, and why not.
    #[must_use]
    pub fn health(&self) -> HealthState {
        self.services().health.state()
    }

    /// Returns the memory that recent changes take, in bytes.
    #[must_use]
    pub fn checkpoint_memory(&self) -> u64 {
        self.services().memory.used()
    }

    /// Makes every change so far durable: flushes until nothing is left, and syncs. Finds
    /// nothing to do in an engine that only reads ([`crate::Builder::read_only`]), where all is durable.
    ///
    /// # Errors
    /// [`crate::Error::DiskFull`], [`crate::Error::Failed`], [`crate::Error::Closed`].
    pub fn flush(&self) -> Result<()> {
        drop(self.services().gate.lend()?);
        self.services().committer.flush_all()
    }

    /// Compacts what a vBucket has on disk; returns when it is done. Reads and writes go on.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] for an unknown vBucket; [`crate::Error::ReadOnly`]; [`crate::Error::DiskFull`], [`crate::Error::Closed`];
    /// [`crate::Error::Failed`] if the store's directory was moved, replaced or removed, which fails the engine;
    /// [`crate::Error::Io`] if RocksDB counted a background error meanwhile, whichever vBucket it was met
    /// in: RocksDB's call tells nothing, and the next write names the cause.
    pub fn compact(&self, vb: VbId) -> Result<()> {
        let services = self.services();
        let vb = services.vbs.get(vb)?;
        services.health.check_writable("a compaction")?;
        // A closed engine has no say in what became of its directory.
        drop(services.gate.lend()?);
        services
            .home
            .check()
            .inspect_err(|error| services.health.note(error).run())?;
        services.gate.lend()?.compact(vb.id())
    }

    /// Deletes everything a vBucket holds and gives it a new uuid; seqnos begin at 1 again. Durable
    /// when it returns. Changes that were not flushed yet are lost, and whoever waits for them is
    /// told [`crate::Error::VbGone`].
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

    /// Returns the disk space the store takes.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`].
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let storage = self.services().gate.lend()?;
        let files = data_files(&self.services().home.db())?;
        Ok(DiskUsage {
            total: files.bytes,
            log: files.log_bytes,
            live_sst: storage.property_sum("rocksdb.live-sst-files-size")?,
            obsolete_sst: storage
                .property("rocksdb.obsolete-sst-files-size")?
                .unwrap_or(0),
        })
    }

    /// Returns what RocksDB itself says of its snapshots.
    ///
    /// # Errors
    /// [`crate::Error::Io`], [`crate::Error::Closed`].
    pub fn rocks_snapshots(&self) -> Result<RocksSnapshots> {
        let storage = self.services().gate.lend()?;
        Ok(RocksSnapshots {
            open: storage.property("rocksdb.num-snapshots")?.unwrap_or(0),
            oldest_time: storage
                .property("rocksdb.oldest-snapshot-time")?
                .unwrap_or(0),
        })
    }

    /// Does one step of a background task on this thread. For programs that built the engine
    /// without threads ([`crate::Builder::background`]). Does nothing in an engine that only reads.
    ///
    /// # Errors
    /// Whatever the step met; it has been noted in the health.
    pub fn step(&self, task: BackgroundTask) -> Result<()> {
        self.services().gate.check_process()?;
        if self.services().health.is_read_only() {
            return Ok(());
        }
        task.step(self.services()).map(drop)
    }

    /// Closes the engine: refuses new operations, waits for those under way, makes every change
    /// durable, moves what it can to files within [`Config::close_timeout`], and marks the store as
    /// cleanly closed; of an engine that only reads, leaves the store as it was. Other clones get [`crate::Error::Closed`] from now on. Every call, of whichever
    /// clone and on whichever thread, returns when the store is closed, and with the same outcome.
    ///
    /// The last handle that is dropped does the same. Wakers may close it or drop the last
    /// handle. On another thread of the engine's own, where a clock or a subscriber of `tracing` could
    /// do so, the close follows once the step of that thread is over.
    ///
    /// # Errors
    /// What went wrong with the last flush: then the store is closed, but not cleanly, and what was
    /// not durable is lost, which nobody was told was durable. [`crate::Error::Busy`]: it was called
    /// on a thread that the close must wait for; the close follows by itself.
    /// [`crate::Error::Forked`].
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }
}
