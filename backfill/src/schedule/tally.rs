//! Counting what is taken of something, by tokens that give themselves back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the tokens that are out. Changed under the scheduler's lock.
#[derive(Debug, Default)]
pub(super) struct Tally(pub(super) Arc<AtomicUsize>);

/// One of what a [`Tally`] counts, until it is dropped.
#[derive(Debug)]
#[must_use = "a token that is dropped is given back"]
pub(super) struct Token(pub(super) Arc<AtomicUsize>);

impl Tally {
    pub(super) fn out(&self) -> usize {
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
        assert!(before > 0, "a token is given back that was not out");
    }
}
