//! Detection of backfills that never catch up.

use std::time::Duration;

/// Tracks the distance of a backfill to the end of its view, slice by slice. A vBucket that is
/// overwritten faster than it is read moves its end away from the backfill.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Divergence {
    /// The smallest distance so far, in seqnos, and the time at which it was reached.
    nearest: Option<(u64, Duration)>,
}

impl Divergence {
    /// Records the distance after a slice that ended at `now`. Returns whether the distance has not
    /// shrunk for `limit`.
    pub(super) fn record(&mut self, distance: u64, now: Duration, limit: Duration) -> bool {
        match self.nearest {
            Some((least, since)) if distance >= least && distance > 0 => {
                now.saturating_sub(since) >= limit
            }
            _ => {
                self.nearest = Some((distance, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_that_does_not_shrink_for_the_limit_diverges() {
        let mut divergence = Divergence::default();
        let seconds = Duration::from_secs;
        let mut record = |distance, at| divergence.record(distance, seconds(at), seconds(60));
        assert!(!record(100, 0));
        assert!(!record(100, 59));
        assert!(record(120, 60));
        assert!(!record(99, 70), "the smallest distance so far");
        assert!(!record(100, 129));
        assert!(record(99, 130));
        assert!(!record(0, 200), "a backfill at its end does not diverge");
        assert!(!record(0, 900));
    }
}
