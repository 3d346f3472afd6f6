//! The gate: operations borrow the storage from it, until the close takes the storage away.
//!
//! # Protocol
//! An operation enters the gate first and checks whether the engine is closing second. The close
//! sets `is_closing` first and waits once until the gate is empty second. So the close waits for
//! every operation that was inside before, and every later operation sees the flag.

use crate::error::{Error, Result};
use crate::process::OpenerProcess;
use crate::storage::Storage;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use vbstore_core::lock_order::{LockRank, RankGuard};

/// Lends the storage to operations until the engine closes.
pub(crate) struct Gate {
    /// `None` once the close has taken the storage.
    storage: RwLock<Option<Storage>>,
    is_closing: AtomicBool,
    opener: OpenerProcess,
}

/// The storage, lent for one operation. The close waits until this is dropped.
pub(crate) struct StorageGuard<'a> {
    // ORDER: fields drop in this order: the lock is released first, its rank second.
    storage: MappedRwLockReadGuard<'a, Storage>,
    _held: RankGuard,
}

impl Deref for StorageGuard<'_> {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        &self.storage
    }
}

impl Gate {
    pub(crate) fn new(storage: Storage, opener: OpenerProcess) -> Self {
        Self {
            storage: RwLock::new(Some(storage)),
            is_closing: AtomicBool::new(false),
            opener,
        }
    }

    pub(crate) fn opener(&self) -> &OpenerProcess {
        &self.opener
    }

    /// Returns an error in every process except the one that opened the store. Takes no lock.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.opener.check()
    }

    /// Lends the storage for one operation. Blocks only while the close takes the storage.
    ///
    /// # Errors
    /// [`Error::Closed`] once a close has begun; [`Error::Forked`].
    pub(crate) fn acquire(&self) -> Result<StorageGuard<'_>> {
        self.check_process()?;
        // ORDER: entered first, checked second; see the protocol.
        let lent = self.acquire_while_closing()?;
        if self.is_closing() {
            return Err(Error::Closed);
        }
        Ok(lent)
    }

    /// Lends the storage to the close itself, and to the threads that the close waits for:
    /// background tasks and the flush leader. These are known to run in the process that opened the
    /// store.
    ///
    /// # Errors
    /// [`Error::Closed`] once the close has taken the storage.
    pub(crate) fn acquire_while_closing(&self) -> Result<StorageGuard<'_>> {
        let held = RankGuard::take(LockRank::Gate);
        // A recursive read lock, because an operation may acquire the storage twice. If a close
        // waits for the write lock between the two, a plain read lock would deadlock.
        let storage = RwLockReadGuard::try_map(self.storage.read_recursive(), Option::as_ref)
            .map_err(|_| Error::Closed)?;
        Ok(StorageGuard {
            storage,
            _held: held,
        })
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Refuses new operations from now on.
    pub(crate) fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Blocks until every operation that is inside has left.
    pub(crate) fn wait_until_empty(&self) {
        let _held = RankGuard::take(LockRank::Gate);
        drop(self.storage.write());
    }

    /// Blocks until every operation has left, and takes the storage for good. Called once.
    pub(crate) fn take_storage(&self) -> Option<Storage> {
        let _held = RankGuard::take(LockRank::Gate);
        self.storage.write().take()
    }
}
