//! What all parts of an open engine share.
//!
//! # Locks
//! Taken in this order, each only if needed; a thread that holds one never takes one above it:
//!
//! 1. the *lead* of the commit queue: not a mutex but a role, see [`crate::commit`];
//! 2. the *gate*: the read side of `storage` for every operation, the write side for closing;
//! 3. key stripes, in ascending order;
//! 4. the vBucket's lock;
//! 5. leaves, never two at once: dirty list, commit queue, health, witness, tuning.
//!
//! A thread that waits for durability, for room or for the lead holds none of them.

use crate::commit::Committer;
use crate::config::{Config, Tuning};
use crate::error::{Error, Result};
use crate::failpoint::Failpoints;
use crate::health::Health;
use crate::home::{Home, WitnessFile};
use crate::memory::Memory;
use crate::storage::Storage;
use crate::stripes::Stripes;
use crate::tasks::Signals;
use crate::wakers::Wakers;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vbstore_core::{Clock, StoreUuid, VbCell, VbId};
use vbstore_metrics::{EngineMetrics, number};

/// The storage, lent for one operation. Closing waits until it is given back.
pub(crate) type StorageRef<'a> = MappedRwLockReadGuard<'a, Storage>;

/// An open engine without its handles and threads.
#[derive(Debug)]
pub(crate) struct Inner {
    /// `None` once closed.
    pub(crate) storage: RwLock<Option<Storage>>,
    pub(crate) vbs: Box<[VbCell]>,
    /// For each vBucket the log position (bytes written by the engine) plus one at the first write
    /// since both families were last moved to files; 0 if there was none. For the pacer.
    pub(crate) rocks_unflushed_since: Box<[AtomicU64]>,
    pub(crate) stripes: Stripes,
    pub(crate) commit: Committer,
    pub(crate) memory: Memory,
    pub(crate) health: Health,
    pub(crate) witness: Mutex<WitnessFile>,
    pub(crate) home: Mutex<Option<Home>>,
    pub(crate) config: Config,
    pub(crate) store: StoreUuid,
    pub(crate) write_buffer_bytes: u64,
    tuning: RwLock<Arc<Tuning>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: Option<Arc<Failpoints>>,
    pub(crate) signals: Signals,
    pub(crate) wakers: Wakers,
    /// Set first thing by a close: no operation begins after it.
    pub(crate) is_closing: AtomicBool,
}

/// What an engine is put together from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) storage: Storage,
    pub(crate) vbs: Box<[VbCell]>,
    pub(crate) witness: WitnessFile,
    pub(crate) home: Home,
    pub(crate) config: Config,
    pub(crate) store: StoreUuid,
    pub(crate) write_buffer_bytes: u64,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: Option<Arc<Failpoints>>,
    pub(crate) wakers: Wakers,
}

impl Inner {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            storage: RwLock::new(Some(parts.storage)),
            rocks_unflushed_since: parts.vbs.iter().map(|_| AtomicU64::new(0)).collect(),
            vbs: parts.vbs,
            stripes: Stripes::new(),
            commit: Committer::new(),
            memory: Memory::default(),
            health: Health::new(),
            witness: Mutex::new(parts.witness),
            home: Mutex::new(Some(parts.home)),
            tuning: RwLock::new(Arc::new(parts.config.tuning.clone())),
            config: parts.config,
            store: parts.store,
            write_buffer_bytes: parts.write_buffer_bytes,
            clock: parts.clock,
            metrics: parts.metrics,
            failpoints: parts.failpoints,
            signals: Signals::default(),
            wakers: parts.wakers,
            is_closing: AtomicBool::new(false),
        }
    }

    /// Lends the storage for one operation.
    pub(crate) fn storage(&self) -> Result<StorageRef<'_>> {
        let storage = self.storage_while_closing()?;
        // ORDER: the gate first, looked at second. The close raises this and then passes through the
        // gate once, so whoever came in before it is waited for, and whoever comes after sees it.
        if self.is_closing.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(storage)
    }

    /// The same for the close itself and for what it waits for.
    pub(crate) fn storage_while_closing(&self) -> Result<StorageRef<'_>> {
        // Recursive, so that a close that waits does not deadlock an operation that nests two.
        RwLockReadGuard::try_map(self.storage.read_recursive(), Option::as_ref)
            .map_err(|_| Error::Closed)
    }

    /// Returns how many blocks of the file system are free, and how many there are.
    pub(crate) fn disk_blocks(&self) -> Result<(u64, u64)> {
        let home = self.home.lock();
        let path = home.as_ref().ok_or(Error::Closed)?.db();
        let space = rustix::fs::statvfs(&path)
            .map_err(|e| Error::io("ask for the free space", e.into()))?;
        Ok((space.f_bavail, space.f_blocks))
    }

    /// Returns which share of the file system is free, or `None` if it does not say how large it is.
    pub(crate) fn disk_free_ratio(&self) -> Result<Option<f64>> {
        let (free, all) = self.disk_blocks()?;
        Ok((all > 0).then(|| number(free) / number(all)))
    }

    /// Returns the cell of a vBucket.
    pub(crate) fn vb(&self, vb: VbId) -> Result<&VbCell> {
        self.vbs.get(vb.index()).ok_or_else(|| {
            Error::invalid("vb", format!("{} of {} vBuckets", vb.get(), self.vbs.len()))
        })
    }

    pub(crate) fn tuning(&self) -> Arc<Tuning> {
        Arc::clone(&self.tuning.read())
    }

    pub(crate) fn set_tuning(&self, tuning: Tuning) -> Result<()> {
        tuning.validate()?;
        *self.tuning.write() = Arc::new(tuning);
        self.signals.wake_all();
        Ok(())
    }

    /// Takes note of an error of the write path. If that changes the health, wakes the flusher, which
    /// is the one that tries again (writers are refused from now on, so nobody else would wake it),
    /// and after a failure every stream. The caller holds no vBucket's lock.
    pub(crate) fn note_failure(&self, error: &Error) {
        let failures = &self.metrics.flush_failures;
        let counter = match error {
            Error::DiskFull { .. } => &failures.disk_full,
            Error::Io { .. } => &failures.io,
            Error::Corruption { .. } => &failures.corruption,
            _ => &failures.other,
        };
        counter.add(1);
        let has_changed = self.health.note(error);
        self.tell_of(has_changed);
    }

    /// Enters `Failed` because of something that is no error of an operation: a panic.
    pub(crate) fn fail(&self, cause: String) {
        self.metrics.flush_failures.other.add(1);
        let has_changed = self.health.fail(cause);
        self.tell_of(has_changed);
    }

    fn tell_of(&self, has_changed: bool) {
        // Only then: the flusher itself notes what it meets when it tries again, and must not wake
        // itself from the pause it takes.
        if has_changed {
            self.signals.flusher.wake();
            if self.health.is_failed() {
                self.wake_streams();
            }
        }
    }

    /// Wakes every stream that waits, so that it looks at the health and at the close. The caller
    /// holds no vBucket's lock.
    pub(crate) fn wake_streams(&self) {
        for cell in &self.vbs {
            cell.fire_all().wake();
        }
    }

    /// Passes a failpoint.
    pub(crate) fn pass(&self, place: &'static str) -> Result<()> {
        self.failpoints
            .as_ref()
            .map_or(Ok(()), |failpoints| failpoints.hit(place))
    }
}
