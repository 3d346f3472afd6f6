//! The locks and atomics of the engine's tables: those of `parking_lot` and of the standard library,
//! or, with the feature `shuttle`, those of a model checker that tries many interleavings of the very
//! same code. Each mutex has its place in the order of locks ([`crate::lock_order`]).

use crate::lock_order::{Held, Rank};
use std::ops::{Deref, DerefMut};

#[cfg(not(feature = "shuttle"))]
mod plain {
    pub(super) use parking_lot::{Mutex, MutexGuard};
    pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }
}

#[cfg(feature = "shuttle")]
mod checked {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Mutex, MutexGuard};

    #[expect(clippy::unwrap_used, reason = "a panic is what the checker looks for")]
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}

#[cfg(feature = "shuttle")]
use checked as used;
#[cfg(not(feature = "shuttle"))]
use plain as used;

pub use used::{AtomicBool, AtomicU64, Ordering};

/// A mutex with a place in the order of locks. A panic of its holder does not poison it, except for
/// the model checker.
#[derive(Debug)]
pub struct Mutex<T> {
    rank: Rank,
    inner: used::Mutex<T>,
}

/// Holds a [`Mutex`] until it is dropped.
#[derive(Debug)]
#[must_use = "the mutex is released when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    // ORDER: released first, counted as released second.
    inner: used::MutexGuard<'a, T>,
    _held: Held,
}

impl<T> Mutex<T> {
    /// Returns an unlocked mutex of a rank.
    pub fn new(rank: Rank, value: T) -> Self {
        Self {
            rank,
            inner: used::Mutex::new(value),
        }
    }

    /// Waits until the mutex is free and locks it.
    ///
    /// # Panics
    /// When this thread holds a lock that must not be held then, in builds with debug assertions.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = Held::take(self.rank);
        MutexGuard {
            inner: used::lock(&self.inner),
            _held: held,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
