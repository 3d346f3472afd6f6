//! Counting how large or how long things were.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds for times that a user waits for, in microseconds: 10 us to 10 s.
pub const LATENCY_BOUNDS_MICROS: &[u64] = &[
    10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// Upper bounds for how many items something has.
pub const ITEMS_BOUNDS: &[u64] = &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536];

/// Upper bounds for how many bytes something has.
pub const BYTES_BOUNDS: &[u64] = &[
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
];

/// How often something was up to which size. Counting takes no lock and may be done by any thread.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: what is above the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Returns one with these bounds, which rise.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self {
            bounds,
            counts,
            sum: AtomicU64::new(0),
        }
    }

    /// Returns one for times in microseconds, see [`LATENCY_BOUNDS_MICROS`].
    #[must_use]
    pub fn latency() -> Self {
        Self::new(LATENCY_BOUNDS_MICROS)
    }

    /// Counts one.
    pub fn observe(&self, size: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < size);
        let Some(count) = self.counts.get(bucket) else {
            unreachable!("one count more than bounds");
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(size, Ordering::Relaxed);
    }

    /// Counts a time, in microseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(micros(time));
    }

    /// Returns how many were up to each bound and above the one before it; the last number is of
    /// those above the last bound.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let counts = self.counts.iter();
        counts.map(|c| c.load(Ordering::Relaxed)).collect()
    }

    /// Returns the bounds.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// Returns the sum of all that was counted.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// One for times, see [`Histogram::latency`].
impl Default for Histogram {
    fn default() -> Self {
        Self::latency()
    }
}

/// Returns whole microseconds; a time beyond 584,000 years, which only a broken clock has, is the most
/// there is.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&[10, 20]);
        for size in [0, 10, 11, 20, 21, u64::MAX / 2] {
            histogram.observe(size);
        }
        assert_eq!(histogram.counts(), [2, 2, 2]);
        assert_eq!(histogram.sum(), 62 + u64::MAX / 2);
    }
}
