//! Counters of limited resources, with tokens that release themselves when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the tokens that are taken. Changed only under the scheduler's lock, so relaxed ordering
/// is enough.
#[derive(Debug, Default)]
pub(super) struct Tally(pub(super) Arc<AtomicUsize>);

/// One unit of what a [`Tally`] counts, released when it is dropped.
#[derive(Debug)]
#[must_use = "a dropped token is released"]
pub(super) struct Token(pub(super) Arc<AtomicUsize>);

impl Tally {
    /// Returns the number of tokens that are taken.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Token {
        self.0.fetch_add(1, Ordering::Relaxed);
        Token(Arc::clone(&self.0))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a token is released twice");
    }
}
