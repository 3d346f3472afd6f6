//! The gate: lends the storage to operations, and takes it away at the close.
//!
//! # Protocol
//! An operation passes the gate first and looks whether the engine is closing second. The close
//! raises `is_closing` first and then waits once until nobody is inside. So whoever was inside before
//! it is waited for, and whoever comes after sees it.

use crate::error::{Error, Result};
use crate::process::Opener;
use crate::storage::Storage;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use vbstore_core::lock_order::{Held, Rank};

/// Lends the storage until the engine closes.
pub(crate) struct Gate {
    /// `None` once the close has taken it.
    storage: RwLock<Option<Storage>>,
    is_closing: AtomicBool,
    opener: Opener,
}

/// The storage, lent for one operation. The close waits until it is dropped.
pub(crate) struct Lent<'a> {
    // ORDER: released first, counted as released second.
    storage: MappedRwLockReadGuard<'a, Storage>,
    _held: Held,
}

impl Deref for Lent<'_> {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        &self.storage
    }
}

impl Gate {
    pub(crate) fn new(storage: Storage, opener: Opener) -> Self {
        Self {
            storage: RwLock::new(Some(storage)),
            is_closing: AtomicBool::new(false),
            opener,
        }
    }

    pub(crate) fn opener(&self) -> &Opener {
        &self.opener
    }

    /// Refuses in every process except the one that opened the store. Takes no lock.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn check_process(&self) -> Result<()> {
        self.opener.check()
    }

    /// Lends the storage for one operation.
    ///
    /// # Errors
    /// [`Error::Closed`] once a close has begun; [`Error::Forked`].
    pub(crate) fn lend(&self) -> Result<Lent<'_>> {
        self.check_process()?;
        let lent = self.lend_while_closing()?;
        if self.is_closing() {
            return Err(Error::Closed);
        }
        Ok(lent)
    }

    /// Lends the storage to the close itself and to what it waits for: background tasks, and whoever
    /// leads a flush. They are in the process that opened the store.
    ///
    /// # Errors
    /// [`Error::Closed`] once the close has taken the storage.
    pub(crate) fn lend_while_closing(&self) -> Result<Lent<'_>> {
        let held = Held::take(Rank::Gate);
        // Recursive, so that a close that waits does not deadlock an operation that nests two.
        let storage = RwLockReadGuard::try_map(self.storage.read_recursive(), Option::as_ref)
            .map_err(|_| Error::Closed)?;
        Ok(Lent {
            storage,
            _held: held,
        })
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Refuses operations from now on.
    pub(crate) fn begin_closing(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    /// Waits until every operation that is inside has left.
    pub(crate) fn wait_until_empty(&self) {
        let _held = Held::take(Rank::Gate);
        drop(self.storage.write());
    }

    /// Waits until everybody has left and takes the storage away for good. Called once.
    pub(crate) fn take_storage(&self) -> Option<Storage> {
        let _held = Held::take(Rank::Gate);
        self.storage.write().take()
    }
}
