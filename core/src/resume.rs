//! A consumer's position, and the decision whether it may resume there.

use crate::failover_log::FailoverLog;
use crate::filter::FilterDigest;
use crate::ids::{Seqno, VbUuid};
use serde::{Deserialize, Serialize};

/// A consumer's position in one vBucket: all that a later request needs. It records only what the
/// consumer has *taken*; nothing in it is read from a live engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The branch of history of the newest marker that was taken. Before the first marker, the
    /// branch on which the stream was opened.
    pub vb_uuid: VbUuid,
    /// The seqno of the last change, or of the last advance of the seqno, that was taken. 0 means
    /// nothing was taken.
    pub seqno: Seqno,
    /// The start of the newest marker that was taken: the last seqno at which the copy was
    /// complete.
    pub snap_start: Seqno,
    /// The end of that marker: the seqno at which the copy will be complete.
    pub snap_end: Seqno,
    /// The purge seqno of the newest marker from *disk* that was taken.
    pub purge_seqno: Seqno,
    /// The filter with which the position was reached. `None` in positions saved by versions that
    /// did not record it; those may resume with any filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterDigest>,
}

impl Position {
    /// Returns whether the consumer's copy equals the vBucket at `seqno`.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.seqno == self.snap_end || self.seqno == self.snap_start
    }
}

/// Why a consumer cannot resume at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RollbackReason {
    /// Tombstones above its position were purged: it would keep keys that no longer exist.
    Purged,
    /// It follows a branch of history that this vBucket does not know.
    UnknownBranch,
    /// It has changes of its branch that this vBucket does not have.
    Diverged,
    /// Its position was reached with another filter. Changes below the position that only the new
    /// filter selects were not delivered.
    FilterChanged,
}

impl RollbackReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::Purged,
        Self::UnknownBranch,
        Self::Diverged,
        Self::FilterChanged,
    ];

    /// Returns the name used in output and as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Purged => "purged",
            Self::UnknownBranch => "unknown_branch",
            Self::Diverged => "diverged",
            Self::FilterChanged => "filter_changed",
        }
    }
}

/// The answer to a request to resume. A rollback is an answer, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeDecision {
    /// The consumer may continue.
    Continue,
    /// The consumer must first return to an earlier state and request again.
    ///
    /// That is a *complete* state at or below `to`, with the whole position saved at that moment,
    /// or an empty copy and position 0. Dropping the changes above `to` is not enough: they
    /// replaced other changes.
    Rollback {
        /// Upper limit of the seqno to return to.
        to: Seqno,
        /// Why the consumer cannot continue.
        reason: RollbackReason,
    },
}

/// A request that no correct consumer can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPosition {
    /// The field that is wrong.
    pub field: &'static str,
    /// What is wrong with it.
    pub detail: &'static str,
}

/// Checks the bounds of a position: `snap_start <= seqno <= snap_end`.
///
/// # Errors
/// [`InvalidPosition`] with the first wrong field.
pub fn check_position(position: &Position) -> Result<(), InvalidPosition> {
    let wrong = |field, detail| Err(InvalidPosition { field, detail });
    if position.snap_start > position.seqno {
        return wrong("snap_start", "must not be above the seqno of the position");
    }
    if position.snap_end < position.seqno {
        return wrong("snap_end", "must not be below the seqno of the position");
    }
    Ok(())
}

/// Checks that the requested end is not below the position.
///
/// Call it only after [`decide`] has allowed the consumer to continue. A consumer that must roll
/// back may well request an end below its position: the vBucket ends there.
///
/// # Errors
/// [`InvalidPosition`] with the field `end`.
pub fn check_end(position: &Position, end: Seqno) -> Result<(), InvalidPosition> {
    if position.seqno > end {
        return Err(InvalidPosition {
            field: "end",
            detail: "must not be below the seqno of the position",
        });
    }
    Ok(())
}

/// Decides whether a consumer may resume at `position`.
///
/// `filter` is that of the request. `high_seqno` is the highest seqno assigned on the newest
/// branch, memory included. `purge_seqno` is the vBucket's present one. Call it under the lock that
/// guards both and the failover log, and act on the answer before releasing that lock.
#[must_use]
pub fn decide(
    position: &Position,
    filter: FilterDigest,
    failover_log: &FailoverLog,
    high_seqno: Seqno,
    purge_seqno: Seqno,
) -> ResumeDecision {
    let start = position.seqno;
    // A consumer without any change cannot have a wrong one.
    if start == Seqno::ZERO {
        return ResumeDecision::Continue;
    }
    if position.filter.is_some_and(|reached| reached != filter) {
        return ResumeDecision::Rollback {
            to: Seqno::ZERO,
            reason: RollbackReason::FilterChanged,
        };
    }
    if start < purge_seqno && position.purge_seqno != purge_seqno {
        return ResumeDecision::Rollback {
            to: Seqno::ZERO,
            reason: RollbackReason::Purged,
        };
    }
    let entries = failover_log.entries();
    let Some(at) = entries.iter().position(|e| e.uuid == position.vb_uuid) else {
        return ResumeDecision::Rollback {
            to: Seqno::ZERO,
            reason: RollbackReason::UnknownBranch,
        };
    };
    // Entries are newest first, so the next newer branch is the one before it. If several branches
    // begin at one seqno, the newest of them owns that seqno too.
    let newer = at.checked_sub(1).and_then(|newer| entries.get(newer));
    let upper = newer.map_or(high_seqno, |newer| newer.seqno);

    // If nothing of the snapshot was taken, its end does not matter.
    let snap_end = if start == position.snap_start {
        start
    } else {
        position.snap_end
    };
    if snap_end <= upper {
        return ResumeDecision::Continue;
    }
    // If all of the snapshot was taken, the copy is complete at its end.
    let snap_start = if start == snap_end {
        start
    } else {
        position.snap_start
    };
    ResumeDecision::Rollback {
        to: upper.min(snap_start),
        reason: RollbackReason::Diverged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(branches: &[(u64, u64)]) -> FailoverLog {
        // Oldest first.
        let mut log = FailoverLog::new(VbUuid::new(branches[0].0), 0);
        for (uuid, seqno) in &branches[1..] {
            log.begin(VbUuid::new(*uuid), Seqno::new(*seqno), 0);
        }
        log
    }

    fn at(uuid: u64, seqno: u64, snap: (u64, u64), purge: u64) -> Position {
        Position {
            vb_uuid: VbUuid::new(uuid),
            seqno: Seqno::new(seqno),
            snap_start: Seqno::new(snap.0),
            snap_end: Seqno::new(snap.1),
            purge_seqno: Seqno::new(purge),
            filter: None,
        }
    }

    fn all() -> FilterDigest {
        FilterDigest::of(b"", false)
    }

    fn back(to: u64, reason: RollbackReason) -> ResumeDecision {
        ResumeDecision::Rollback {
            to: Seqno::new(to),
            reason,
        }
    }

    #[test]
    fn the_rules_in_their_order() {
        use RollbackReason::{Diverged, Purged, UnknownBranch};
        // Branch 1 up to 300, branch 2 from there; high seqno 500, purge seqno 50.
        let log = log(&[(1, 0), (2, 300)]);
        let decide = |position| decide(&position, all(), &log, Seqno::new(500), Seqno::new(50));
        let max = u64::MAX;
        for (position, expected) in [
            // From the beginning, whatever the other fields hold.
            (at(9, 0, (0, 0), 7), ResumeDecision::Continue),
            (at(0, 0, (0, max), 0), ResumeDecision::Continue),
            // Below the purge seqno, at it, and below it with the present one recorded.
            (at(1, 49, (49, 49), 0), back(0, Purged)),
            (at(1, 1, (0, 60), 49), back(0, Purged)),
            (at(1, 50, (50, 50), 0), ResumeDecision::Continue),
            (at(1, 49, (49, 49), 50), ResumeDecision::Continue),
            // The purge seqno comes before the branch.
            (at(9, 49, (49, 49), 0), back(0, Purged)),
            (at(9, 400, (400, 400), 50), back(0, UnknownBranch)),
            (at(0, 400, (400, 400), 50), back(0, UnknownBranch)),
            // The old branch ends at 300.
            (at(1, 300, (300, 300), 50), ResumeDecision::Continue),
            (at(1, 300, (200, 300), 50), ResumeDecision::Continue),
            (at(1, 250, (200, 300), 50), ResumeDecision::Continue),
            (at(1, 220, (210, 301), 50), back(210, Diverged)),
            (at(1, 400, (400, 400), 50), back(300, Diverged)),
            (at(1, 301, (200, 301), 50), back(300, Diverged)),
            // Nothing of the snapshot was taken, so its end does not matter.
            (at(1, 210, (210, 301), 50), ResumeDecision::Continue),
            (at(1, 310, (310, 320), 50), back(300, Diverged)),
            // The newest branch ends at the high seqno.
            (at(2, 500, (400, 500), 50), ResumeDecision::Continue),
            (at(2, 450, (400, 501), 50), back(400, Diverged)),
            (at(2, 501, (501, 501), 50), back(500, Diverged)),
            (at(2, max, (max, max), max), back(500, Diverged)),
            (at(2, 400, (400, max), 50), ResumeDecision::Continue),
            (at(2, 401, (400, max), 50), back(400, Diverged)),
            (at(1, max, (1, max), 50), back(300, Diverged)),
        ] {
            assert_eq!(decide(position), expected, "{position:?}");
        }
    }

    #[test]
    fn of_branches_that_begin_at_one_seqno_the_next_newer_counts() {
        let log = log(&[(1, 0), (2, 10), (3, 10)]);
        let decide = |position| decide(&position, all(), &log, Seqno::new(20), Seqno::ZERO);
        assert_eq!(decide(at(2, 10, (10, 10), 0)), ResumeDecision::Continue);
        let diverged = back(10, RollbackReason::Diverged);
        assert_eq!(decide(at(2, 11, (11, 11), 0)), diverged);
        assert_eq!(decide(at(1, 11, (5, 11), 0)), diverged);
        assert_eq!(decide(at(3, 20, (11, 20), 0)), ResumeDecision::Continue);
    }

    #[test]
    fn a_position_resumes_with_the_filter_it_was_reached_with() {
        let log = log(&[(1, 0)]);
        let decide =
            |position, filter| decide(&position, filter, &log, Seqno::new(20), Seqno::ZERO);
        let (a, b) = (FilterDigest::of(b"a", false), FilterDigest::of(b"b", false));
        let keys_of_a = FilterDigest::of(b"a", true);
        let reached = |filter| Position {
            filter,
            ..at(1, 10, (10, 10), 0)
        };
        assert_eq!(decide(reached(Some(a)), a), ResumeDecision::Continue);
        let changed = back(0, RollbackReason::FilterChanged);
        for other in [b, keys_of_a, all()] {
            assert_eq!(decide(reached(Some(a)), other), changed);
            assert_eq!(decide(reached(Some(other)), a), changed);
        }
        // A position saved before positions had a filter, and one with nothing taken.
        assert_eq!(decide(reached(None), b), ResumeDecision::Continue);
        let nothing = Position {
            filter: Some(a),
            ..Position::default()
        };
        assert_eq!(decide(nothing, b), ResumeDecision::Continue);
    }

    #[test]
    fn a_position_saved_without_a_filter_is_read() {
        let old = r#"{"vb_uuid":7,"seqno":3,"snap_start":1,"snap_end":4,"purge_seqno":0}"#;
        let read: Position = serde_json::from_str(old).unwrap();
        assert_eq!(read, at(7, 3, (1, 4), 0));
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let new = Position {
            filter: Some(FilterDigest::of(b"order::", false)),
            ..read
        };
        let text = serde_json::to_string(&new).unwrap();
        assert_eq!(serde_json::from_str::<Position>(&text).unwrap(), new);
    }

    #[test]
    fn malformed_bounds_name_their_field() {
        let field = |position, end: u64| {
            check_position(&position)
                .and_then(|()| check_end(&position, Seqno::new(end)))
                .map_err(|malformed| malformed.field)
        };
        let max = u64::MAX;
        assert_eq!(field(at(1, 5, (5, 5), 0), 5), Ok(()));
        assert_eq!(field(at(1, 5, (0, max), 0), max), Ok(()));
        assert_eq!(field(at(1, max, (max, max), 0), max), Ok(()));
        assert_eq!(field(at(1, 5, (5, 5), 0), 4), Err("end"));
        assert_eq!(field(at(1, 5, (6, 7), 0), max), Err("snap_start"));
        assert_eq!(field(at(1, 0, (1, 1), 0), max), Err("snap_start"));
        assert_eq!(field(at(1, 5, (4, 4), 0), max), Err("snap_end"));
        assert_eq!(field(at(1, max, (0, max - 1), 0), max), Err("snap_end"));
    }
}
