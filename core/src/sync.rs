//! The locks and atomics of this crate: those of `parking_lot` and of the standard library, or, with the
//! feature `shuttle`, those of a model checker that tries many interleavings of the very same code.

#[cfg(not(feature = "shuttle"))]
mod plain {
    pub use parking_lot::MutexGuard;
    pub use std::sync::atomic::{AtomicU64, Ordering};

    /// A mutex that is not poisoned by a panic.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        /// Returns an unlocked mutex.
        pub const fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        /// Waits until the mutex is free and locks it.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
    }
}

#[cfg(feature = "shuttle")]
mod checked {
    pub use shuttle::sync::MutexGuard;
    pub use shuttle::sync::atomic::{AtomicU64, Ordering};

    /// A mutex whose every lock is a point at which the model checker may switch.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// Returns an unlocked mutex.
        pub fn new(value: T) -> Self {
            Self(shuttle::sync::Mutex::new(value))
        }

        /// Waits until the mutex is free and locks it.
        ///
        /// # Panics
        /// When another thread panicked with it: the model checker has found something.
        #[expect(clippy::unwrap_used, reason = "a panic is what the checker looks for")]
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

#[cfg(feature = "shuttle")]
pub use checked::{AtomicU64, Mutex, MutexGuard, Ordering};
#[cfg(not(feature = "shuttle"))]
pub use plain::{AtomicU64, Mutex, MutexGuard, Ordering};
