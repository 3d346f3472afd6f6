//! Mutexes, condition variables and atomics for shared state.
//!
//! They wrap those of `parking_lot` and of the standard library. With the feature `shuttle` they
//! wrap those of a model checker, which runs the same code in many interleavings. Each mutex has a
//! rank in the lock order ([`crate::lock_order`]).

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
        let is_timed_out = condvar.wait_for(&mut guard, timeout).timed_out();
        (guard, is_timed_out)
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

    /// Ignores the timeout, as no time passes in the model checker. A notification that never comes
    /// is a deadlock, which the checker reports.
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

/// A mutex with a rank in the lock order. A panic of its holder does not poison it, except in the
/// model checker.
#[derive(Debug)]
pub struct Mutex<T> {
    rank: LockRank,
    inner: used::Mutex<T>,
}

/// Keeps a [`Mutex`] locked until it is dropped.
#[derive(Debug)]
#[must_use = "the mutex is released when the guard is dropped"]
pub struct MutexGuard<'a, T> {
    // ORDER: fields drop in this order: the mutex is released before it is recorded as released.
    inner: used::MutexGuard<'a, T>,
    held: RankGuard,
}

impl<T> Mutex<T> {
    /// Returns an unlocked mutex.
    pub fn new(rank: LockRank, value: T) -> Self {
        Self {
            rank,
            inner: used::Mutex::new(value),
        }
    }

    /// Locks the mutex, blocking until it is free.
    ///
    /// # Panics
    /// In builds with debug assertions, panics if this thread holds a lock that must not be held
    /// then ([`RankGuard::take`]).
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

/// A condition variable, used with one [`Mutex`].
#[derive(Debug, Default)]
pub struct Condvar(used::Condvar);

impl Condvar {
    /// Returns a condition variable without waiting threads.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Releases the mutex, blocks until a notification or for at most `timeout`, and locks the
    /// mutex again. Returns the guard and whether the wait timed out; in the model checker it never
    /// does.
    pub fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let MutexGuard { inner, held } = guard;
        let (inner, is_timed_out) = used::wait_for(&self.0, inner, timeout);
        (MutexGuard { inner, held }, is_timed_out)
    }

    /// Wakes one waiting thread, if there is one.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}
