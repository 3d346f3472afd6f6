//! The signals between the threads of a run: freeze, finish, fail.

use crate::output::CommandError;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use vbstore::Error;

/// The state of a run, which its threads poll.
#[derive(Debug, Default)]
pub(crate) struct FollowControl {
    is_frozen: AtomicBool,
    is_over: AtomicBool,
    failure: OnceLock<Error>,
}

impl FollowControl {
    /// Lets followers of the mode `Frozen` stop reading.
    pub(crate) fn freeze(&self) {
        self.is_frozen.store(true, Ordering::Release);
    }

    /// Announces that nothing more is written. All followers, frozen ones too, read the rest and
    /// end.
    pub(crate) fn finish(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Ends the run with an error: all threads end at once, without waiting for changes that may
    /// never come. Only the first error is kept, because later ones are mostly caused by it.
    pub(crate) fn fail(&self, error: Error) {
        drop(self.failure.set(error));
        self.finish();
    }

    /// Returns whether [`freeze`](Self::freeze) was called.
    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Ordering::Acquire)
    }

    /// Returns whether nothing more is written.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Returns whether the run has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Returns the first error of the run, if there was one.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        match self.failure.get() {
            None => Ok(()),
            Some(error) => Err(error.clone().into()),
        }
    }
}

/// Finishes a run when it is dropped. Needed for early returns: the scope waits for its threads,
/// which would never end.
pub(crate) struct FinishOnDrop<'a> {
    control: &'a FollowControl,
    also: &'a AtomicBool,
}

impl<'a> FinishOnDrop<'a> {
    /// Finishes `control` and sets `also` when it is dropped.
    pub(crate) fn new(control: &'a FollowControl, also: &'a AtomicBool) -> Self {
        Self { control, also }
    }
}

impl Drop for FinishOnDrop<'_> {
    fn drop(&mut self) {
        self.control.finish();
        self.also.store(true, Ordering::Release);
    }
}
