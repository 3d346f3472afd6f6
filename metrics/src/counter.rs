//! A plain counter.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    ///
    /// # Panics
    /// If the sum is more than a `u64` holds: what is added was miscounted.
    pub fn add(&self, n: u64) {
        let before = self.0.fetch_add(n, Ordering::Relaxed);
        assert!(n <= u64::MAX - before, "{n} added to {before}");
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
        // One too many was subtracted, without a check.
        counter.add(3_u64.wrapping_sub(4));
    }
}
