//! The source of time.
//!
//! Only this module reads the system's clocks; clippy enforces it. So a test can move time by hand
//! and try a clock that jumps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall clock and a monotonic clock.
///
/// An implementation is called from any thread, also while the engine holds locks. It must not
/// block and must not call the engine.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Returns microseconds since 1970. May jump in both directions: nothing is ordered by it.
    fn wall_micros(&self) -> u64;

    /// Returns the time since an arbitrary fixed moment. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Returns whole seconds since 1970, the unit of an expiry.
    fn wall_seconds(&self) -> u32 {
        // The conversion overflows in 2106: from then on every expiry has passed.
        u32::try_from(self.wall_micros() / 1_000_000).unwrap_or(u32::MAX)
    }
}

/// Converts to whole microseconds. A duration over 584,000 years, which only a broken clock
/// reports, becomes `u64::MAX`.
fn micros_of(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The clocks of the operating system.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Returns the system's clocks; [`Clock::monotonic`] counts from this call.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the system's clock"
    )]
    fn wall_micros(&self) -> u64 {
        // A clock set before 1970 reads as 1970 rather than failing.
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        micros_of(since)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock for tests: it moves only when its methods are called. Starts one million seconds after
/// 1970.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl ManualClock {
    /// Returns a clock that does not move by itself.
    #[must_use]
    pub fn new() -> Self {
        Self {
            wall: AtomicU64::new(1_000_000_000_000),
            monotonic: AtomicU64::new(0),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let micros = micros_of(by);
        self.wall.fetch_add(micros, Ordering::SeqCst);
        self.monotonic.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the wall clock, forwards or back, to `micros` since 1970. The monotonic clock stays.
    pub fn set_wall_micros(&self, micros: u64) {
        self.wall.store(micros, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn wall_micros(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic.load(Ordering::SeqCst))
    }
}
