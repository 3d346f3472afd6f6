//! Tracks how far a stream has read, and which snapshot markers it must send to its consumer.
//!
//! The contract: *when a consumer has taken every item up to the end of the newest marker, its copy
//! equals the vBucket at that seqno.* An expired document is part of both until a change removes
//! it, because no event reports that time has passed.
//!
//! - A marker announces the changes in `(start, end]`. `start` is the last seqno at which the
//!   consumer's copy was complete; it stays while the end moves.
//! - The end never moves back within a stream. A later view of the disk moves it to the view's own
//!   last seqno, *before* that view's items are delivered. Otherwise a change that the old marker
//!   covered could be missing: in the new view it may have moved behind the old end.
//! - A stream that resumes inside a snapshot announces a new end. What the consumer took came from
//!   a view that held everything up to the old end. So a view or a read that ends below the old end
//!   cannot complete the copy, and the stream waits for a later one (`end_min`).
//! - Each view is checked again. The stream ends if the view has another history, or if tombstones
//!   above the stream's position were purged since. A branch that begins while the stream is open,
//!   at or above everything it has read, continues the same history:
//!   [`StreamProgress::follow_branch`].

use crate::ids::{Seqno, VbUuid};
use crate::resume::Position;

/// Where the changes that a marker announces are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotSource {
    /// A view of the disk.
    Disk,
    /// Checkpoints in memory.
    Memory,
}

impl SnapshotSource {
    /// Returns the name used in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// A snapshot marker: announces the changes above `start` up to and including `end`, at which the
/// consumer's copy is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMarker {
    /// The last seqno at which the copy was complete.
    pub start: Seqno,
    /// The seqno at which the copy will be complete: a boundary.
    pub end: Seqno,
    /// Where the changes are read from.
    pub source: SnapshotSource,
    /// The purge seqno of the view; `None` if the changes are read from memory.
    pub purge_seqno: Option<Seqno>,
    /// The branch of history that the changes belong to.
    pub vb_uuid: VbUuid,
}

impl Position {
    /// Records that the consumer has taken a marker.
    pub fn take_marker(&mut self, marker: &SnapshotMarker) {
        self.vb_uuid = marker.vb_uuid;
        self.snap_start = marker.start;
        self.snap_end = marker.end;
        if let Some(purge_seqno) = marker.purge_seqno {
            self.purge_seqno = purge_seqno;
        }
    }

    /// Records that the consumer has taken everything up to `seqno`.
    pub fn take_seqno(&mut self, seqno: Seqno) {
        self.seqno = seqno;
    }
}

/// The state of a vBucket as read through one view of the disk.
#[derive(Clone, Copy, Debug)]
pub struct ViewInfo {
    /// The newest branch of history.
    pub vb_uuid: VbUuid,
    /// The last seqno in the view: a boundary.
    pub persisted_seqno: Seqno,
    /// The highest seqno of a purged tombstone.
    pub purge_seqno: Seqno,
}

/// Why a view cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewRejection {
    /// The view shows another branch of history than the one the stream follows. If that branch
    /// began while the stream was open, [`StreamProgress::follow_branch`] makes the view usable.
    OtherBranch,
    /// Tombstones above the stream's position were purged since.
    Purged,
    /// The view ends below what the stream has read or announced: a later view is needed.
    Behind,
}

/// How far one stream has read.
#[derive(Clone, Copy, Debug)]
pub struct StreamProgress {
    vb_uuid: VbUuid,
    /// Everything up to this seqno has been read.
    position: Seqno,
    /// The last seqno at which the consumer's copy is complete, once it has taken what was read.
    complete: Seqno,
    /// The end of the newest marker; `None` before the first.
    announced: Option<Seqno>,
    /// No marker may end below this seqno.
    end_min: Seqno,
    purge_seqno: Seqno,
    /// Whether the stream began at seqno 0.
    is_from_zero: bool,
    /// The end of the first view. 0 if the stream read memory first, `None` before the first read.
    first_view_end: Option<Seqno>,
    /// The end that was requested: the stream ends at the first seqno at or above it at which the
    /// consumer's copy is complete.
    end_wanted: Seqno,
}

impl StreamProgress {
    /// Begins at the position of an accepted request. `purge_seqno` is the vBucket's present one; a
    /// stream from 0 starts with it.
    #[must_use]
    pub fn new(request: &Position, vb_uuid: VbUuid, purge_seqno: Seqno, end_wanted: Seqno) -> Self {
        let start = request.seqno;
        let is_from_zero = start == Seqno::ZERO;
        let (complete, end_min) = if is_from_zero || request.is_complete() {
            (start, start)
        } else {
            // Inside a snapshot the copy was last complete at its start, and is not again below its
            // end.
            (request.snap_start, request.snap_end)
        };
        Self {
            vb_uuid,
            position: start,
            complete,
            announced: None,
            end_min,
            // A consumer without any change cannot lack what was purged before it began.
            purge_seqno: if is_from_zero {
                purge_seqno
            } else {
                request.purge_seqno
            },
            is_from_zero,
            first_view_end: None,
            end_wanted,
        }
    }

    /// Replaces the end that was requested.
    pub fn want_end(&mut self, end: Seqno) {
        self.end_wanted = end;
    }

    /// Returns the branch that the stream follows.
    #[must_use]
    pub const fn vb_uuid(&self) -> VbUuid {
        self.vb_uuid
    }

    /// Continues along a branch that began while the stream was open. The caller has checked, under
    /// the vBucket's lock, that the branch belongs to the same generation of the vBucket.
    pub fn follow_branch(&mut self, vb_uuid: VbUuid) {
        self.vb_uuid = vb_uuid;
    }

    /// Lets no marker end below `end`. Used when a paused stream resumes: `end` is that of a marker
    /// it sent before.
    pub fn require_end(&mut self, end: Seqno) {
        self.end_min = self.end_min.max(end);
    }

    /// Returns the seqno up to which the stream has read everything.
    #[must_use]
    pub const fn position(&self) -> Seqno {
        self.position
    }

    /// Returns the end of the newest marker, or the position before the first marker.
    #[must_use]
    pub fn announced(&self) -> Seqno {
        self.announced.unwrap_or(self.position)
    }

    /// Returns the lowest seqno at which a marker, or a view that is used, may end.
    #[must_use]
    pub fn end_min(&self) -> Seqno {
        self.end_min.max(self.position).max(self.announced())
    }

    /// Returns the purge seqno of the last view that was announced, or the initial one.
    #[must_use]
    pub const fn purge_seqno(&self) -> Seqno {
        self.purge_seqno
    }

    /// Returns whether the stream began at 0 and has read nothing yet, from disk or from memory.
    #[must_use]
    pub fn begins_from_zero(&self) -> bool {
        self.is_from_zero && self.first_view_end.is_none()
    }

    /// Returns whether the consumer's copy is complete once it has taken what was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete == self.position && self.position >= self.end_min()
    }

    /// Returns whether the stream has reached the requested end with a complete copy.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_complete() && self.position >= self.end_wanted
    }

    /// Returns the seqno up to which deletions need not be delivered, because the consumer cannot
    /// have the deleted keys. For a stream from 0 this is the end of its first view; it is 0 if the
    /// stream did not begin at 0 or began in memory.
    #[must_use]
    pub fn deletions_skipped_upto(&self) -> Seqno {
        if self.is_from_zero {
            self.first_view_end.unwrap_or_default()
        } else {
            Seqno::ZERO
        }
    }

    /// Accepts a view of the disk, before anything read through it is delivered. Returns the marker
    /// to send before the view's items, or `None` if the announced end stays.
    ///
    /// # Errors
    /// Returns why the view cannot be used; nothing was changed then.
    pub fn take_view(&mut self, view: &ViewInfo) -> Result<Option<SnapshotMarker>, ViewRejection> {
        if view.vb_uuid != self.vb_uuid {
            return Err(ViewRejection::OtherBranch);
        }
        let is_below_purge = self.position > Seqno::ZERO && self.position < view.purge_seqno;
        // An unchanged purge seqno means that nothing was purged since it was recorded.
        if is_below_purge && self.purge_seqno != view.purge_seqno {
            return Err(ViewRejection::Purged);
        }
        if view.persisted_seqno < self.end_min() {
            return Err(ViewRejection::Behind);
        }
        self.first_view_end.get_or_insert(view.persisted_seqno);
        if view.persisted_seqno == self.announced() {
            return Ok(None);
        }
        self.announced = Some(view.persisted_seqno);
        self.purge_seqno = view.purge_seqno;
        Ok(Some(SnapshotMarker {
            start: self.complete,
            end: view.persisted_seqno,
            source: SnapshotSource::Disk,
            purge_seqno: Some(view.purge_seqno),
            vb_uuid: self.vb_uuid,
        }))
    }

    /// Records that everything up to `position` was read through the view accepted last.
    pub fn advance(&mut self, position: Seqno) {
        self.position = self.position.max(position);
        if self.position >= self.end_min() {
            self.complete = self.position;
        }
    }

    /// Records a read from memory: its announced `end`, and the `position` up to which it read.
    /// Returns the marker to send before its items, or `None` if the announced end stays.
    pub fn take_memory(&mut self, end: Seqno, position: Seqno) -> Option<SnapshotMarker> {
        // The items from memory may include keys that a later view deletes, so no deletion may be
        // skipped.
        self.first_view_end.get_or_insert(Seqno::ZERO);
        let is_new = end > self.announced();
        let marker = is_new.then_some(SnapshotMarker {
            start: self.complete,
            end,
            source: SnapshotSource::Memory,
            purge_seqno: None,
            vb_uuid: self.vb_uuid,
        });
        if is_new {
            self.announced = Some(end);
        }
        self.advance(position);
        marker
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: VbUuid = VbUuid::new(7);

    fn seqno(number: u64) -> Seqno {
        Seqno::new(number)
    }

    fn view(persisted: u64, purge: u64) -> ViewInfo {
        ViewInfo {
            vb_uuid: UUID,
            persisted_seqno: seqno(persisted),
            purge_seqno: seqno(purge),
        }
    }

    fn from(start: u64, snap: (u64, u64), purge: u64) -> StreamProgress {
        let request = Position {
            vb_uuid: UUID,
            seqno: seqno(start),
            snap_start: seqno(snap.0),
            snap_end: seqno(snap.1),
            purge_seqno: seqno(purge),
            filter: None,
        };
        StreamProgress::new(&request, UUID, seqno(3), Seqno::MAX)
    }

    fn range(marker: Option<SnapshotMarker>) -> Option<(u64, u64)> {
        marker.map(|marker| (marker.start.get(), marker.end.get()))
    }

    #[test]
    fn the_end_moves_with_each_view_and_the_start_stays() {
        let mut p = from(0, (0, 0), 0);
        assert_eq!(range(p.take_view(&view(10, 3)).unwrap()), Some((0, 10)));
        p.advance(seqno(4));
        assert_eq!(range(p.take_view(&view(10, 3)).unwrap()), None);
        assert_eq!(range(p.take_view(&view(15, 3)).unwrap()), Some((0, 15)));
        p.advance(seqno(10));
        assert!(!p.is_complete(), "complete at an end that has moved since");
        p.advance(seqno(15));
        assert!(p.is_complete());
        assert_eq!(range(p.take_memory(seqno(20), seqno(18))), Some((15, 20)));
        assert!(!p.is_complete());
        assert_eq!(range(p.take_memory(seqno(20), seqno(20))), None);
        assert!(p.is_complete());
        assert_eq!(p.take_view(&view(19, 3)), Err(ViewRejection::Behind));
        assert_eq!(p.deletions_skipped_upto(), seqno(10));
    }

    #[test]
    fn a_stream_resumed_inside_a_snapshot_needs_an_end_at_or_above_the_old_one() {
        let mut p = from(105, (100, 110), 3);
        assert_eq!(p.take_view(&view(109, 3)), Err(ViewRejection::Behind));
        assert_eq!(p.end_min(), seqno(110));
        assert_eq!(range(p.take_view(&view(110, 3)).unwrap()), Some((100, 110)));
        p.advance(seqno(110));
        assert!(p.is_complete());
        assert_eq!(p.deletions_skipped_upto(), Seqno::ZERO);

        for (start, snap) in [(110, (100, 110)), (100, (100, 110))] {
            let mut p = from(start, snap, 3);
            assert!(p.is_complete());
            let marker = p.take_memory(seqno(120), seqno(120));
            assert_eq!(range(marker), Some((start, 120)));
        }
    }

    #[test]
    fn every_view_is_checked_for_its_branch_and_for_purging() {
        let mut p = from(40, (40, 40), 5);
        let mut other = view(50, 5);
        other.vb_uuid = VbUuid::new(8);
        assert_eq!(p.take_view(&other), Err(ViewRejection::OtherBranch));
        let mut followed = p;
        followed.follow_branch(other.vb_uuid);
        let marker = followed.take_view(&other).unwrap().unwrap();
        assert_eq!(marker.vb_uuid, other.vb_uuid);
        assert_eq!(p.take_view(&view(50, 41)), Err(ViewRejection::Purged));
        assert!(
            p.take_view(&view(50, 40)).is_ok(),
            "everything purged was taken"
        );
        assert_eq!(p.purge_seqno(), seqno(40));
        // Below the purge seqno that its position carries, which has not changed since.
        let mut p = from(40, (40, 40), 45);
        assert!(p.take_view(&view(50, 45)).is_ok());
        assert_eq!(p.take_view(&view(50, 46)), Err(ViewRejection::Purged));
        // Begun at 0 with the present purge seqno. Nothing was taken yet, so nothing can be
        // missing.
        let mut p = from(0, (0, 0), 0);
        assert_eq!(p.purge_seqno(), seqno(3));
        assert!(p.take_view(&view(50, 9)).is_ok());
        p.advance(seqno(8));
        assert!(p.take_view(&view(50, 9)).is_ok());
        assert_eq!(p.take_view(&view(50, 10)), Err(ViewRejection::Purged));
    }

    #[test]
    fn a_stream_that_began_in_memory_leaves_out_no_deletion_on_disk() {
        let mut p = from(0, (0, 0), 0);
        p.take_memory(seqno(5), seqno(5));
        p.take_view(&view(9, 3)).unwrap();
        assert_eq!(p.deletions_skipped_upto(), Seqno::ZERO);
    }

    #[test]
    fn a_stream_that_is_resumed_by_itself_moves_no_end_back() {
        // Nothing of (100, 110] was taken, so the position alone would allow any end.
        let mut p = from(100, (100, 110), 3);
        p.require_end(seqno(110));
        assert!(!p.is_complete());
        assert_eq!(p.take_view(&view(109, 3)), Err(ViewRejection::Behind));
        assert_eq!(range(p.take_view(&view(112, 3)).unwrap()), Some((100, 112)));
        p.require_end(seqno(50));
        assert_eq!(p.end_min(), seqno(112));
    }

    #[test]
    fn the_end_asked_for_is_a_lower_bound() {
        let request = Position::default();
        let mut p = StreamProgress::new(&request, UUID, seqno(0), seqno(12));
        p.take_view(&view(15, 0)).unwrap();
        p.advance(seqno(13));
        assert!(!p.is_at_end(), "13 is not a boundary");
        p.advance(seqno(15));
        assert!(p.is_at_end());
        let nothing = StreamProgress::new(&request, UUID, seqno(0), seqno(0));
        assert!(nothing.is_at_end());
    }
}
