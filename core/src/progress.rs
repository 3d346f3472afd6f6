//! How far a stream has read, and the markers it owes its consumer.
//!
//! The contract: *when a consumer has taken every item up to the end of the newest marker, its copy
//! equals the vBucket at that seqno.* A document whose expiry has passed is part of both until a change
//! removes it: no event says that time has passed.
//!
//! - A marker is `(start, end]`. `start` is the last seqno at which the consumer was complete; it
//!   stays while the end moves.
//! - The end never moves back within a stream. Each view of the disk that is newer than the one that
//!   announced the end moves it to its own last seqno, *before* its items: a change that was owed
//!   may have moved behind the old end in it.
//! - A stream that resumes inside a snapshot announces a new end. What the consumer took came from a
//!   view that held everything up to the old one, so a view or a read that ends below it cannot
//!   complete the copy: such a stream waits (`end_min`).
//! - Each view is checked again: another history, or tombstones above the position that were removed
//!   since, end the stream. A branch that begins while the stream is open, at or above all it has
//!   read, is the same history going on: [`StreamProgress::follow_branch`].

use crate::ids::{Seqno, VbUuid};
use crate::resume::Position;

/// Where what a marker announces is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotSource {
    /// From disk.
    Disk,
    /// From checkpoints.
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

/// Announces changes above `start` up to and with `end`, at which the consumer's copy is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMarker {
    /// The last seqno at which the copy was complete.
    pub start: Seqno,
    /// The seqno at which it will be: a boundary.
    pub end: Seqno,
    /// Where the changes are read from.
    pub source: SnapshotSource,
    /// The purge seqno of the view, if they are read from disk.
    pub purge_seqno: Option<Seqno>,
    /// The branch of history they are of.
    pub vb_uuid: VbUuid,
}

impl Position {
    /// Notes that a marker was taken.
    pub fn take_marker(&mut self, marker: &SnapshotMarker) {
        self.vb_uuid = marker.vb_uuid;
        self.snap_start = marker.start;
        self.snap_end = marker.end;
        if let Some(purge_seqno) = marker.purge_seqno {
            self.purge_seqno = purge_seqno;
        }
    }

    /// Notes that everything up to `seqno` was taken.
    pub fn take_seqno(&mut self, seqno: Seqno) {
        self.seqno = seqno;
    }
}

/// What a view of the disk held besides its changes, read through that view.
#[derive(Clone, Copy, Debug)]
pub struct ViewInfo {
    /// The newest branch of history.
    pub vb_uuid: VbUuid,
    /// The last seqno it held: a boundary.
    pub persisted_seqno: Seqno,
    /// The highest seqno of a tombstone that was removed for good.
    pub purge_seqno: Seqno,
}

/// Why a view cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewRejection {
    /// It shows another branch of history than the one the stream follows. If that branch began while
    /// the stream was open, [`StreamProgress::follow_branch`] makes the view fit.
    OtherBranch,
    /// Tombstones above the stream's position were removed since.
    Purged,
    /// It ends below what the stream has read or announced: a later one is needed.
    Behind,
}

/// How far one stream has read.
#[derive(Clone, Copy, Debug)]
pub struct StreamProgress {
    vb_uuid: VbUuid,
    /// Everything up to it has been read.
    position: Seqno,
    /// The last seqno at which the consumer is complete once it has taken what was read.
    complete: Seqno,
    /// End of the newest marker.
    announced: Option<Seqno>,
    /// No marker may end below it.
    end_min: Seqno,
    purge_seqno: Seqno,
    /// Whether it began at 0, and the end of its first view if it has had one.
    is_from_zero: bool,
    first_view_end: Option<Seqno>,
    /// The request's end: it ends at the first complete marker at or above it.
    end_wanted: Seqno,
}

impl StreamProgress {
    /// Begins where an accepted request begins. `purge_seqno` is the vBucket's present one, which a
    /// stream from 0 starts with.
    #[must_use]
    pub fn new(request: &Position, vb_uuid: VbUuid, purge_seqno: Seqno, end_wanted: Seqno) -> Self {
        let start = request.seqno;
        let is_from_zero = start == Seqno::ZERO;
        let (complete, end_min) = if is_from_zero || request.is_complete() {
            (start, start)
        } else {
            (request.snap_start, request.snap_end)
        };
        Self {
            vb_uuid,
            position: start,
            complete,
            announced: None,
            end_min,
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

    /// Changes the end that is asked for.
    pub fn want_end(&mut self, end: Seqno) {
        self.end_wanted = end;
    }

    /// Returns the branch it follows.
    #[must_use]
    pub const fn vb_uuid(&self) -> VbUuid {
        self.vb_uuid
    }

    /// Goes on along a branch that began while the stream was open. The caller has made sure, under
    /// the vBucket's lock, that it is of the same life of the vBucket.
    pub fn follow_branch(&mut self, vb_uuid: VbUuid) {
        self.vb_uuid = vb_uuid;
    }

    /// Lets no marker end below `end`: the end of a marker that the same stream sent before it was
    /// resumed.
    pub fn require_end(&mut self, end: Seqno) {
        self.end_min = self.end_min.max(end);
    }

    /// Returns up to where it has read.
    #[must_use]
    pub const fn position(&self) -> Seqno {
        self.position
    }

    /// Returns the end of the newest marker, or the position before the first.
    #[must_use]
    pub fn announced(&self) -> Seqno {
        self.announced.unwrap_or(self.position)
    }

    /// Returns the seqno below which no marker may end, nor a view that is used.
    #[must_use]
    pub fn end_min(&self) -> Seqno {
        self.end_min.max(self.position).max(self.announced())
    }

    /// Returns the purge seqno it goes by.
    #[must_use]
    pub const fn purge_seqno(&self) -> Seqno {
        self.purge_seqno
    }

    /// Returns whether it began at 0 and has had no view and no read yet.
    #[must_use]
    pub fn begins_from_zero(&self) -> bool {
        self.is_from_zero && self.first_view_end.is_none()
    }

    /// Returns whether the consumer is complete once it has taken what was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete == self.position && self.position >= self.end_min()
    }

    /// Returns whether it has reached the end that was asked for.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_complete() && self.position >= self.end_wanted
    }

    /// Returns the seqno up to which a stream from 0 may leave out deletions: the end of its first
    /// view; 0 if it did not begin at 0, or began in memory.
    #[must_use]
    pub fn deletions_skipped_upto(&self) -> Seqno {
        if self.is_from_zero {
            self.first_view_end.unwrap_or_default()
        } else {
            Seqno::ZERO
        }
    }

    /// Takes a view of the disk, before anything that was read through it. Returns the marker that
    /// has to go before its items, if one has to.
    ///
    /// # Errors
    /// Why the view cannot be used; nothing was changed then.
    pub fn take_view(&mut self, view: &ViewInfo) -> Result<Option<SnapshotMarker>, ViewRejection> {
        if view.vb_uuid != self.vb_uuid {
            return Err(ViewRejection::OtherBranch);
        }
        let is_below_purge = self.position > Seqno::ZERO && self.position < view.purge_seqno;
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

    /// Notes that everything up to `position` was read through the view taken last.
    pub fn advance(&mut self, position: Seqno) {
        self.position = self.position.max(position);
        if self.position >= self.end_min() {
            self.complete = self.position;
        }
    }

    /// Notes a read from memory: its end, as announced, and up to where it read. Returns the marker
    /// that has to go before its items, if one has to.
    pub fn take_memory(&mut self, end: Seqno, position: Seqno) -> Option<SnapshotMarker> {
        // What it read from memory may have brought keys that a later view deletes.
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
        assert!(!p.is_complete(), "complete at an end that has moved");
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
        assert!(p.take_view(&view(50, 40)).is_ok(), "all of it was taken");
        assert_eq!(p.purge_seqno(), seqno(40));
        // Below the purge seqno it came with, which has not changed since.
        let mut p = from(40, (40, 40), 45);
        assert!(p.take_view(&view(50, 45)).is_ok());
        assert_eq!(p.take_view(&view(50, 46)), Err(ViewRejection::Purged));
        // Begun at 0 with the present one; nothing taken yet, so nothing can be missing.
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
        // Nothing of (100, 110] was taken, so that the position alone would allow any end.
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
        assert!(!p.is_at_end(), "13 is no boundary");
        p.advance(seqno(15));
        assert!(p.is_at_end());
        let nothing = StreamProgress::new(&request, UUID, seqno(0), seqno(0));
        assert!(nothing.is_at_end());
    }
}
