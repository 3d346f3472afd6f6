//! What the threads of a run tell each other: freeze, come to an end, give up.

use crate::output::CommandError;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use vbstore::Error;

/// When followers freeze and when they must come to an end.
#[derive(Debug, Default)]
pub(crate) struct FollowControl {
    is_frozen: AtomicBool,
    is_over: AtomicBool,
    failure: OnceLock<Error>,
}

impl FollowControl {
    /// Those that are to be frozen stop reading.
    pub(crate) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Release);
    }

    /// Nothing more is written: all read on, and end when they have everything.
    pub(crate) fn finish(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// The run cannot be completed: all end at once, without waiting for what may never come. The
    /// first error is kept; what fails later because of it does not replace it.
    pub(crate) fn fail(&self, error: Error) {
        drop(self.failure.set(error));
        self.finish();
    }

    /// Whether those that are to be frozen are.
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Acquire)
    }

    /// Whether nothing more is written.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Whether the run cannot be completed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Returns the first error as what the program ends with, if there was one.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        match self.failure.get() {
            None => Ok(()),
            Some(error) => Err(error.clone().into()),
        }
    }
}

/// Lets everything that follows come to an end when it is dropped, also by an early return: threads
/// of a scope are waited for.
pub(crate) struct FinishOnDrop<'a> {
    signals: &'a FollowControl,
    also: &'a AtomicBool,
}

impl<'a> FinishOnDrop<'a> {
    /// Finishes `signals` and sets `also` when it is dropped.
    pub(crate) fn new(signals: &'a FollowControl, also: &'a AtomicBool) -> Self {
        Self { signals, also }
    }
}

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.signals.finish();
        self.also.store(true, Ordering::Release);
    }
}
