//! The engine's handle.

use crate::builder::Builder;
use crate::config::{Config, Tuning};
use crate::error::{Error, Result};
use crate::health::HealthState;
use crate::home::data_files;
use crate::inner::Inner;
use crate::samples::{Places, Samples};
use crate::tasks::BackgroundTask;
use crate::vbucket::VBucket;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use vbstore_core::{Clock, StoreUuid, VbId, VbUuid};
use vbstore_metrics::{EngineMetrics, MetricsSnapshot, Registration, Registry, Telemetry};

/// An open store. Cheap to clone; all clones, and all [`VBucket`]s made from them, are one engine.
/// The last one that is dropped closes it.
#[derive(Clone, Debug)]
pub struct Engine {
    handle: Arc<Handle>,
}

/// Closes the engine when the last clone is gone. Background threads hold the inner part only.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    samples: Samples,
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
    /// Begins to open the store in a directory, or to create it.
    #[must_use]
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    /// Opens the store in a directory with the default configuration, or creates it.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    pub(crate) fn new(inner: Inner, with_threads: bool, places: Places) -> Result<Self> {
        let inner = Arc::new(inner);
        let handle = Handle {
            inner: Arc::clone(&inner),
            threads: Mutex::new(Vec::new()),
            samples: Samples::new(&inner, places),
        };
        if with_threads {
            let threads = crate::tasks::start(&inner);
            *handle.threads.lock() = threads.map_err(|e| Error::io("start a thread", e))?;
        }
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    pub(crate) fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.handle.inner
    }

    /// Returns a vBucket.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the store has no vBucket of this number.
    pub fn vbucket(&self, vb: VbId) -> Result<VBucket> {
        self.inner().vb(vb)?;
        Ok(VBucket::new(Arc::clone(&self.handle), vb))
    }

    /// Returns the vBucket that a key belongs to.
    #[must_use]
    pub fn for_key(&self, key: impl AsRef<[u8]>) -> VBucket {
        VBucket::new(
            Arc::clone(&self.handle),
            VbId::of_key(key.as_ref(), self.vbuckets()),
        )
    }

    /// Returns how many vBuckets the store has.
    #[must_use]
    pub fn vbuckets(&self) -> u16 {
        u16::try_from(self.inner().vbs.len()).unwrap_or(u16::MAX)
    }

    /// Returns the store's uuid.
    #[must_use]
    pub fn store_uuid(&self) -> StoreUuid {
        self.inner().store
    }

    /// Returns the configuration the engine was opened with; [`Self::tuning`] has what may have
    /// been changed since.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner().config
    }

    /// Returns what can be changed while the engine is open, as it is now.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        (*self.inner().tuning()).clone()
    }

    /// Changes it. Takes effect with the next write, flush or slice.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field's name; nothing was changed then.
    pub fn set_tuning(&self, tuning: Tuning) -> Result<()> {
        self.inner().set_tuning(tuning)
    }

    /// Returns the clock it goes by.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner().clock)
    }

    /// Returns how much of the file system that holds the store is free, in percent.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Closed`].
    pub fn disk_free_percent(&self) -> Result<u8> {
        let (free, all) = self.inner().disk_blocks()?;
        let percent = u128::from(free)
            .saturating_mul(100)
            .checked_div(u128::from(all))
            .unwrap_or(100);
        Ok(u8::try_from(percent).unwrap_or(100))
    }

    /// Returns the engine's counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<EngineMetrics> {
        Arc::clone(&self.inner().metrics)
    }

    /// Returns everything that is measured, as plain data: the same figures that a registry gets, but
    /// for those of streams ([`MetricsSnapshot`] of them is theirs to give). Takes each vBucket's lock
    /// for a moment.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Closed`].
    pub fn metrics_snapshot(&self) -> Result<MetricsSnapshot> {
        self.handle.samples.snapshot()
    }

    /// Returns where the figures are registered: in the registry given to [`Builder::registry`], or in
    /// one of the engine's own.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        self.handle.samples.telemetry()
    }

    /// Registers figures of every single vBucket, nine for each, until the answer is dropped or the
    /// engine is closed. Meant for a registry and a path of their own: a thousand vBuckets are 9,000 series.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the registry has them already.
    pub fn register_vbuckets(&self, registry: &Registry) -> Result<Arc<Registration>> {
        self.handle.samples.register_vbuckets(registry)
    }

    /// Registers the figures of streams until the answer is dropped or the engine is closed. For the
    /// crate that has streams.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the engine has streams already; [`Error::Closed`].
    pub fn register_streams(&self) -> Result<Arc<Registration>> {
        drop(self.inner().storage()?);
        self.handle.samples.register_streams()
    }

    /// Returns whether the engine takes writes, and why not.
    #[must_use]
    pub fn health(&self) -> HealthState {
        self.inner().health.state()
    }

    /// Returns the memory that recent changes take, in bytes.
    #[must_use]
    pub fn checkpoint_memory(&self) -> u64 {
        self.inner().memory.used()
    }

    /// Makes every change so far durable: flushes until nothing is left, and syncs.
    ///
    /// # Errors
    /// [`Error::DiskFull`], [`Error::Failed`], [`Error::Closed`].
    pub fn flush(&self) -> Result<()> {
        drop(self.inner().storage()?);
        self.inner().flush_all()
    }

    /// Compacts what a vBucket has on disk; returns when it is done. Reads and writes go on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown vBucket; [`Error::DiskFull`], [`Error::Closed`];
    /// [`Error::Io`] if RocksDB counted a background error meanwhile, whichever vBucket it was met
    /// in: RocksDB's call tells nothing, and the next write names the cause.
    pub fn compact(&self, vb: VbId) -> Result<()> {
        self.inner().vb(vb)?;
        self.inner().storage()?.compact(vb)
    }

    /// Deletes everything a vBucket holds and gives it a new uuid; seqnos begin at 1 again. Durable
    /// when it returns. Changes that were not flushed yet are lost, and whoever waits for them is
    /// told [`Error::VbGone`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown vBucket; [`Error::DiskFull`], [`Error::Failed`],
    /// [`Error::Closed`].
    pub fn delete_vbucket(&self, vb: VbId) -> Result<VbUuid> {
        self.inner().delete_vbucket(vb)
    }

    /// Returns the disk space the store takes.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Closed`].
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let storage = self.inner().storage()?;
        let home = self.inner().home.lock();
        let files = data_files(&home.as_ref().ok_or(Error::Closed)?.db())?;
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
    /// [`Error::Io`], [`Error::Closed`].
    pub fn rocks_snapshots(&self) -> Result<RocksSnapshots> {
        let storage = self.inner().storage()?;
        Ok(RocksSnapshots {
            open: storage.property("rocksdb.num-snapshots")?.unwrap_or(0),
            oldest_time: storage
                .property("rocksdb.oldest-snapshot-time")?
                .unwrap_or(0),
        })
    }

    /// Does one step of a background task on this thread. For programs that built the engine
    /// without threads ([`Builder::background`]).
    ///
    /// # Errors
    /// Whatever the step met; it has been noted in the health.
    pub fn step(&self, task: BackgroundTask) -> Result<()> {
        task.step(self.inner()).map(drop)
    }

    /// Closes the engine: refuses new operations, waits for those under way, makes every change
    /// durable, moves what it can to files within [`Config::close_timeout`], and marks the store as
    /// cleanly closed. Other clones get [`Error::Closed`] from now on. Closing twice is no error.
    ///
    /// # Errors
    /// What went wrong with the last flush: then the store is closed, but not cleanly, and what was
    /// not durable is lost, which nobody was told was durable.
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        let inner = &self.inner;
        if inner.is_closing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.samples.unregister();
        // Streams that wait find the engine closing and end.
        inner.wake_streams();
        // ORDER: threads first, so that nothing runs beside the last flush; see `tasks`.
        inner.signals.stop_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                inner.health.fail("a background thread panicked");
            }
        }
        inner.close()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!(%error, "store not closed cleanly");
        }
    }
}
