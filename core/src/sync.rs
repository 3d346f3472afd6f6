//! The locks, conditions and atomics of the engine's and the streams' tables: those of `parking_lot` and
//! of the standard library, or, with the feature `shuttle`, those of a model checker that tries many
//! interleavings of the very same code. Each mutex has its place in the order of locks
//! ([`crate::lock_order`]).

use crate::lock_order::{LockRank, RankGuard};
use std::ops::{Deref, DerefMut};
use std::time::Duration;

#[cfg(not(feature = "shuttle"))]
mod plain {
    pub(super) use parking_lot::{Condvar, Mutex, MutexGuard};
    pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
    }

    pub(super) fn wait_for<'a, T>(
        condvar: &Condvar,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let is_late = condvar.wait_for(&mut guard, timeout).timed_out();
        (guard, is_late)
    }
}

#[cfg(feature = "shuttle")]
mod checked {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    pub(super) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    #[expect(clippy::unwrap_used, reason = "a panic is what the checker looks for")]
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    /// No time passes for the checker: a notification that never comes is a deadlock, which it reports.
    #[expect(clippy::unwrap_used, reason = "a panic is what the checker looks for")]
    pub(super) fn wait_for<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        _: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        (condvar.wait(guard).unwrap(), false)
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
    rank: LockRank,
    inner: used::Mutex<T>,
}

/// Holds a [`Mutex`] until it is dropped.
#[derive(Debug)]
#[must_use = "the mutex is released when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    // ORDER: released first, counted as released second.
    inner: used::MutexGuard<'a, T>,
    held: RankGuard,
}

impl<T> Mutex<T> {
    /// Returns an unlocked mutex of a rank.
    pub fn new(rank: LockRank, value: T) -> Self {
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
        let held = RankGuard::take(self.rank);
        MutexGuard {
            inner: used::lock(&self.inner),
            held,
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

/// A condition of what a [`Mutex`] guards: a thread waits for it until another one notifies it.
#[derive(Debug, Default)]
pub struct Condvar(used::Condvar);

impl Condvar {
    /// Returns a condition that nobody waits for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Releases the mutex, waits for a notification up to `timeout`, and locks the mutex again. Returns
    /// whether the time was over first. For the model checker time never is.
    pub fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let MutexGuard { inner, held } = guard;
        let (inner, is_late) = used::wait_for(&self.0, inner, timeout);
        (MutexGuard { inner, held }, is_late)
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
