//! Cursors: the places of streams in the checkpoints.
//!
//! # Protocol
//! Everything happens under the vBucket's lock, as with all of [`Checkpoints`].
//!
//! - A cursor stands *before* the first entry it has not read, named by the id of its checkpoint
//!   and the index there. It never stands after the last entry of a sealed checkpoint, nor inside
//!   the open one, where entries can still be replaced. Registering at a seqno inside the open
//!   checkpoint seals it first. So no entry that a cursor counts as read is ever replaced, and its
//!   total stays right. Both are asserted whenever a cursor is stored or read
//!   ([`Checkpoints::check_cursor`]).
//! - A cursor may be registered at `r` if and only if nothing above `r` was freed. Then, up to any
//!   sealed end, the entries above `r` hold the newest change of every key changed since `r`.
//! - A read returns changes and the end it announces in one step. The end is that of a sealed
//!   checkpoint: a boundary, which no later change can take away.
//! - A checkpoint with a cursor before one of its entries is not freed.
//!   [`Checkpoints::drop_lowest`] drops such a cursor if the checkpoint is on disk. The next read
//!   with that cursor fails, and the stream continues from disk.

use super::sealed::CheckpointTotals;
use super::{CheckpointEntry, Checkpoints};
use crate::ids::Seqno;
use crate::item::Item;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Identifies a cursor of one vBucket. Never reused, even after the vBucket was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId(u64);

/// The error when memory no longer holds everything above the requested seqno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInMemory;

/// Limits of one read. At least one change is returned, however large it is.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Maximum number of changes.
    pub items: usize,
    /// Maximum memory of the changes, in bytes.
    pub bytes: u64,
}

/// The result of one read.
#[derive(Clone, Debug)]
pub struct MemoryRead {
    /// The changes, in the order of their seqnos.
    pub items: Vec<Arc<Item>>,
    /// The end to announce in a snapshot marker: a boundary, at or above every item.
    pub end: Seqno,
    /// Everything up to this seqno has been read: `end`, or the last item if more remains below
    /// `end`.
    pub position: Seqno,
}

/// How far a cursor is behind the newest change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorLag {
    /// Number of changes not read.
    pub items: u64,
    /// Memory of these changes, in bytes.
    pub bytes: u64,
    /// When the first of them was appended, on the engine's monotonic clock. `None` if there is
    /// none.
    pub since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The id of the checkpoint it reads next. It is that of the open checkpoint if it has read
    /// everything sealed.
    checkpoint: u64,
    /// The index of the next entry in that checkpoint.
    index: usize,
    /// Everything up to this seqno has been read.
    position: Seqno,
    /// The total of everything sealed before the next entry.
    before: CheckpointTotals,
}

#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_id: HashMap<CursorId, Cursor>,
    /// Every cursor under its checkpoint and index. The first one lags most.
    by_place: BTreeSet<(u64, usize, CursorId)>,
    last_id: u64,
}

impl Cursors {
    /// Returns whether a cursor still has to read an entry of this checkpoint or an earlier one.
    pub(super) fn is_wanted(&self, checkpoint: u64) -> bool {
        self.by_place
            .first()
            .is_some_and(|(lowest, ..)| *lowest <= checkpoint)
    }

    /// Returns an empty set that continues the numbering of this one, so no id is reused.
    pub(super) fn emptied(&self) -> Self {
        Self {
            last_id: self.last_id,
            ..Self::default()
        }
    }

    fn insert(&mut self, cursor: Cursor) -> CursorId {
        self.last_id += 1;
        let id = CursorId(self.last_id);
        self.put(id, cursor);
        id
    }

    fn put(&mut self, id: CursorId, cursor: Cursor) {
        let before = self.by_id.insert(id, cursor);
        let is_new = self.by_place.insert((cursor.checkpoint, cursor.index, id));
        assert!(before.is_none() && is_new, "{id:?} is registered twice");
    }

    fn take(&mut self, id: CursorId) -> Option<Cursor> {
        let cursor = self.by_id.remove(&id)?;
        let was_listed = self.by_place.remove(&(cursor.checkpoint, cursor.index, id));
        assert!(was_listed, "{id:?} is not listed under its checkpoint");
        Some(cursor)
    }
}

impl Checkpoints {
    /// Registers a cursor that has read everything up to `position`.
    ///
    /// # Errors
    /// [`NotInMemory`] if a change above `position` was freed, or `position` is above the high
    /// seqno.
    pub fn register(&mut self, position: Seqno) -> Result<CursorId, NotInMemory> {
        if position < self.freed_upto || position > self.high_seqno {
            return Err(NotInMemory);
        }
        Ok(self.register_at(position))
    }

    /// Registers a cursor at a seqno above which nothing was freed.
    fn register_at(&mut self, position: Seqno) -> CursorId {
        let begins_in_open = self.open.entries.keys().next();
        if begins_in_open.is_some_and(|first| *first <= position) {
            // A change that the cursor counts as read must not be replaced any more.
            self.seal();
        }
        let at = self.sealed.partition_point(|s| s.end <= position);
        let cursor = match self.sealed.get(at) {
            None => Cursor {
                checkpoint: self.next_id,
                index: 0,
                position,
                before: self.sealed_total,
            },
            Some(sealed) => {
                let entries = &sealed.entries;
                let index = entries.partition_point(|e| e.item.meta.seqno <= position);
                Cursor {
                    checkpoint: sealed.id,
                    index,
                    position,
                    before: sealed.before_entry(index),
                }
            }
        };
        self.check_cursor(&cursor);
        self.cursors.insert(cursor)
    }

    /// Registers a cursor after everything that is on disk for certain. Whatever seqno a later view
    /// of the disk ends at, the changes after it stay in memory until the cursor is removed or
    /// dropped. A checkpoint that a flush is writing now is kept too, as the view may not have it
    /// yet.
    ///
    /// # Panics
    /// Panics if a change that is not on disk was freed: a fault of this module.
    pub fn register_on_disk(&mut self) -> CursorId {
        let (on_disk, freed_upto) = (self.on_disk(), self.freed_upto);
        assert!(
            freed_upto <= on_disk,
            "freed up to {freed_upto}, on disk up to {on_disk}"
        );
        self.register_at(on_disk)
    }

    /// Removes a cursor; does nothing if it is gone.
    pub fn remove_cursor(&mut self, id: CursorId) {
        self.cursors.take(id);
    }

    /// Returns the number of cursors.
    #[must_use]
    pub fn cursors(&self) -> usize {
        self.cursors.by_id.len()
    }

    /// Reads from a cursor and moves it forward.
    ///
    /// The end of the read is that of the last sealed checkpoint whose end is at or below `upto`.
    /// But while `announced` is above the cursor's position, the end is `announced`: no other end
    /// is announced before that one is reached. Returns `None` if there is nothing to read: no such
    /// end is above the position, or it is below `end_min`.
    ///
    /// # Errors
    /// [`NotInMemory`] if the cursor was dropped or removed.
    pub fn read(
        &mut self,
        id: CursorId,
        announced: Seqno,
        upto: Seqno,
        end_min: Seqno,
        limit: ReadLimit,
    ) -> Result<Option<MemoryRead>, NotInMemory> {
        let mut cursor = *self.cursors.by_id.get(&id).ok_or(NotInMemory)?;
        self.check_cursor(&cursor);
        let Some(end) = self.end_of_read(cursor.position, announced, upto, end_min) else {
            return Ok(None);
        };
        let mut items = Vec::new();
        let mut bytes: u64 = 0;
        let mut at = self.place_of(cursor.checkpoint);
        let is_whole = loop {
            let Some(sealed) = self.sealed.get(at) else {
                break true;
            };
            let Some(entry) = sealed.entries.get(cursor.index) else {
                at += 1;
                // The ids of sealed checkpoints have no gaps.
                cursor.checkpoint += 1;
                cursor.index = 0;
                continue;
            };
            let (seqno, memory) = (entry.item.meta.seqno, entry.item.memory());
            if seqno > end {
                break true;
            }
            // The first item always passes, so that an item above the limit cannot block the
            // stream.
            let is_over = items.len() >= limit.items || bytes + memory > limit.bytes;
            if is_over && !items.is_empty() {
                break false;
            }
            items.push(Arc::clone(&entry.item));
            bytes += memory;
            cursor.index += 1;
            cursor.position = seqno;
            cursor.before = cursor.before.plus(CheckpointTotals::of_one(entry));
        };
        if is_whole {
            // No entry up to the end is left, even if the last item is below it.
            cursor.position = end;
        }
        let position = cursor.position;
        self.check_cursor(&cursor);
        self.cursors.take(id);
        self.cursors.put(id, cursor);
        Ok(Some(MemoryRead {
            items,
            end,
            position,
        }))
    }

    /// Returns the end of a read from `position`, or `None` if there is nothing to read. The
    /// arguments are those of [`Self::read`].
    fn end_of_read(
        &self,
        position: Seqno,
        announced: Seqno,
        upto: Seqno,
        end_min: Seqno,
    ) -> Option<Seqno> {
        if announced > position {
            return Some(announced);
        }
        let ends = self.sealed.partition_point(|s| s.end <= upto);
        let end = self.sealed.range(..ends).next_back()?.end;
        (end > position && end >= end_min).then_some(end)
    }

    /// Returns the index of a cursor's checkpoint among the sealed ones, or their number if it is
    /// the open one.
    ///
    /// # Panics
    /// Panics if there is no such checkpoint: one that a cursor has not read must not be freed.
    fn place_of(&self, checkpoint: u64) -> usize {
        let at = self.sealed.partition_point(|s| s.id < checkpoint);
        let id = self.sealed.get(at).map_or(self.next_id, |s| s.id);
        assert_eq!(
            id, checkpoint,
            "a cursor stands in a checkpoint that was freed"
        );
        at
    }

    /// Asserts that a cursor stands before an entry in memory or before the open checkpoint, and
    /// that its total matches that place.
    fn check_cursor(&self, cursor: &Cursor) {
        match self.sealed.get(self.place_of(cursor.checkpoint)) {
            Some(sealed) => sealed.check_before_entry(cursor.index, cursor.before),
            None => assert_eq!(
                (cursor.index, cursor.before),
                (0, self.sealed_total),
                "the total of a cursor that has read everything sealed is wrong"
            ),
        }
    }

    /// Returns how far a cursor is behind, or `None` if it is gone. Takes time logarithmic in the
    /// number of checkpoints, independent of the distance.
    #[must_use]
    pub fn lag(&self, id: CursorId) -> Option<CursorLag> {
        let cursor = self.cursors.by_id.get(&id)?;
        let all = self.sealed_total.plus(self.open_total());
        let behind = all.minus(cursor.before);
        let next: Option<&CheckpointEntry> = match self.sealed.get(self.place_of(cursor.checkpoint))
        {
            Some(sealed) => sealed.entries.get(cursor.index),
            None => self.open.entries.values().next(),
        };
        Some(CursorLag {
            items: behind.items,
            bytes: behind.bytes,
            since: next.map(|entry| entry.appended),
        })
    }

    /// Returns the lag of every cursor.
    pub(super) fn lags(&self) -> impl Iterator<Item = CursorLag> {
        let ids = self.cursors.by_id.keys();
        ids.filter_map(|id| self.lag(*id))
    }

    /// Returns the cursor that lags most, with its lag, if the checkpoint it reads next is on disk.
    /// Only then does dropping it allow memory to be freed.
    #[must_use]
    pub fn lowest_droppable(&self) -> Option<(CursorId, CursorLag)> {
        let (checkpoint, _, id) = *self.cursors.by_place.first()?;
        if self.sealed.get(self.place_of(checkpoint))?.end > self.on_disk() {
            return None;
        }
        Some((id, self.lag(id)?))
    }

    /// Drops the cursor that [`Self::lowest_droppable`] returns, and returns its lag. Its stream
    /// continues from disk.
    pub fn drop_lowest(&mut self) -> Option<CursorLag> {
        let (id, lag) = self.lowest_droppable()?;
        self.cursors.take(id);
        Some(lag)
    }
}
