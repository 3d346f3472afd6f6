//! A counter that is safe to update from any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// A value that only increases. Updates are atomic and take no lock.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n` to the sum.
    ///
    /// # Panics
    /// Panics if the sum exceeds `u64::MAX`. No real count gets there, so `n` was miscounted.
    pub fn add(&self, n: u64) {
        let before = self.0.fetch_add(n, Ordering::Relaxed);
        assert!(
            n <= u64::MAX - before,
            "counter overflow: {n} added to {before}"
        );
    }

    /// Returns the sum so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "added to 7")]
    fn a_sum_that_wraps_is_a_miscount() {
        let counter = Counter::default();
        counter.add(7);
        // What an unchecked subtraction yields that goes below zero.
        counter.add(3_u64.wrapping_sub(4));
    }
}
