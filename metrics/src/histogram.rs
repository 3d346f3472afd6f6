//! Histograms of sizes and durations.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bucket bounds for durations that a caller waits for, in microseconds: 10 us to 10 s.
pub const LATENCY_BOUNDS_MICROS: &[u64] = &[
    10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// Bucket bounds for numbers of items.
pub const ITEMS_BOUNDS: &[u64] = &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536];

/// Bucket bounds for sizes in bytes.
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

/// A histogram with fixed bucket bounds. Any thread may add values; no lock is taken.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One count for each bound, and a last one for values above all bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Returns an empty histogram. `bounds` must be in ascending order.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self {
            bounds,
            counts,
            sum: AtomicU64::new(0),
        }
    }

    /// Returns an empty histogram for durations, with [`LATENCY_BOUNDS_MICROS`].
    #[must_use]
    pub fn latency() -> Self {
        Self::new(LATENCY_BOUNDS_MICROS)
    }

    /// Adds a value.
    pub fn observe(&self, size: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < size);
        let Some(count) = self.counts.get(bucket) else {
            unreachable!("there is one more count than bounds");
        };
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(size, Ordering::Relaxed);
    }

    /// Adds a duration, in whole microseconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(micros(time));
    }

    /// Returns the number of values in each bucket: those above the previous bound and up to this
    /// one. The last number counts the values above the last bound. Not cumulative.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        let counts = self.counts.iter();
        counts.map(|c| c.load(Ordering::Relaxed)).collect()
    }

    /// Returns the upper bounds of the buckets.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// Returns the sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// Returns a histogram for durations, see [`Histogram::latency`].
impl Default for Histogram {
    fn default() -> Self {
        Self::latency()
    }
}

/// Returns a duration in whole microseconds, at most `u64::MAX`. Only a broken clock measures a
/// duration beyond that, which is 584,000 years.
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
