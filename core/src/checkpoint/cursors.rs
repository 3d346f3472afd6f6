//! Where streams are in the checkpoints.
//!
//! # Protocol
//! Under the vBucket's lock, as everything in [`Checkpoints`].
//!
//! - A cursor stands *before* an entry: the first one it has not read, named by the id of its
//!   checkpoint and its index there; never behind the last entry of a sealed one. It never stands
//!   inside the open checkpoint, where entries still vanish: registering at a seqno within it seals it
//!   first. So nothing a cursor counts as read can be replaced, and its total stays right. Both are
//!   asserted whenever a cursor is stored and read ([`Checkpoints::check_cursor`]).
//! - It may be registered at `r` if and only if nothing above `r` was freed. Then the entries above
//!   `r` hold, for every key changed since `r`, its newest change up to any sealed end.
//! - What a read returns and the end it announces are taken in one step, and the end is a sealed
//!   one: a boundary, which no later change can take away.
//! - A checkpoint with a cursor before one of its entries is not freed. [`Checkpoints::drop_lowest`]
//!   takes such a cursor away if its checkpoint is on disk; whoever reads with it next learns that
//!   it is gone and goes on from disk.

use super::sealed::CheckpointTotals;
use super::{CheckpointEntry, Checkpoints};
use crate::ids::Seqno;
use crate::item::Item;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Names a cursor of one vBucket. Never given out twice, also after the vBucket was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CursorId(u64);

/// Memory no longer holds everything above the seqno that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotInMemory;

/// How much one read may return; at least one change always passes.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Changes.
    pub items: usize,
    /// Their memory, in bytes.
    pub bytes: u64,
}

/// What a read returned.
#[derive(Clone, Debug)]
pub struct MemoryRead {
    /// Changes, in the order of their seqnos.
    pub items: Vec<Arc<Item>>,
    /// The end to announce: a boundary, at or above every item.
    pub end: Seqno,
    /// Everything up to it has been read: `end`, or the last item if there is more.
    pub position: Seqno,
}

/// How far a cursor is behind the newest change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CursorLag {
    /// Changes not read.
    pub items: u64,
    /// Their memory, in bytes.
    pub bytes: u64,
    /// When the first of them was appended, on the engine's monotonic clock; `None` if there is
    /// none.
    pub since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The checkpoint it reads next; that of the open one if it has read all that is sealed.
    checkpoint: u64,
    /// The entry there.
    index: usize,
    /// Everything up to it has been read.
    position: Seqno,
    /// What was ever sealed before its place.
    before: CheckpointTotals,
}

#[derive(Debug, Default)]
pub(super) struct Cursors {
    by_id: HashMap<CursorId, Cursor>,
    /// Each cursor under the checkpoint it reads next and the entry there: the first lags most.
    by_place: BTreeSet<(u64, usize, CursorId)>,
    last_id: u64,
}

impl Cursors {
    /// Whether a cursor has still to read something of this checkpoint.
    pub(super) fn is_wanted(&self, checkpoint: u64) -> bool {
        self.by_place
            .first()
            .is_some_and(|(lowest, ..)| *lowest <= checkpoint)
    }

    /// Returns a set without cursors that goes on with the ids of this one.
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
        assert!(before.is_none() && is_new, "{id:?} is there already");
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
    /// [`NotInMemory`] if something above it was freed, or it is above the high seqno.
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

    /// Registers a cursor after everything that is on disk: whatever a later view of the disk ends
    /// with, what comes after it stays in memory until the cursor is removed or dropped. A checkpoint
    /// that a flush is writing just now is kept too: the view may not have it yet.
    ///
    /// # Panics
    /// When something that is not on disk was freed: a fault of this module.
    pub fn register_on_disk(&mut self) -> CursorId {
        let (on_disk, freed_upto) = (self.on_disk(), self.freed_upto);
        assert!(
            freed_upto <= on_disk,
            "freed up to {freed_upto}, on disk up to {on_disk}"
        );
        self.register_at(on_disk)
    }

    /// Takes a cursor away; nothing happens if it is gone.
    pub fn remove_cursor(&mut self, id: CursorId) {
        self.cursors.take(id);
    }

    /// Returns how many cursors there are.
    #[must_use]
    pub fn cursors(&self) -> usize {
        self.cursors.by_id.len()
    }

    /// Reads from a cursor and moves it. While `announced` is above its position, everything up to
    /// `announced` is read and no other end announced; then the end is the last sealed one up to
    /// `upto`. `None` if there is nothing to read: no such end, or it is below `end_min`.
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
        let end = if announced > cursor.position {
            announced
        } else {
            let ends = self.sealed.partition_point(|s| s.end <= upto);
            let last = self.sealed.range(..ends).next_back();
            match last.map(|sealed| sealed.end) {
                Some(end) if end > cursor.position && end >= end_min => end,
                _ => return Ok(None),
            }
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
                cursor.checkpoint += 1;
                cursor.index = 0;
                continue;
            };
            let (seqno, memory) = (entry.item.meta.seqno, entry.item.memory());
            if seqno > end {
                break true;
            }
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

    /// Returns the place of a cursor's checkpoint among the sealed ones; after the last of them if it
    /// is the open one.
    ///
    /// # Panics
    /// When there is no such checkpoint: what a cursor has not read is not freed.
    fn place_of(&self, checkpoint: u64) -> usize {
        let at = self.sealed.partition_point(|s| s.id < checkpoint);
        let id = self.sealed.get(at).map_or(self.next_id, |s| s.id);
        assert_eq!(id, checkpoint, "a cursor in a checkpoint that is not there");
        at
    }

    /// Asserts that a cursor stands before an entry that is in memory, or before the open checkpoint,
    /// and that its total is what was sealed before that place.
    fn check_cursor(&self, cursor: &Cursor) {
        match self.sealed.get(self.place_of(cursor.checkpoint)) {
            Some(sealed) => sealed.check_before_entry(cursor.index, cursor.before),
            None => assert_eq!(
                (cursor.index, cursor.before),
                (0, self.sealed_total),
                "a miscount of a cursor that has read everything sealed"
            ),
        }
    }

    /// Returns how far a cursor is behind; `None` if it is gone. The time it takes grows with the
    /// logarithm of the number of checkpoints, not with the distance.
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

    /// Returns the lag of the cursor that lags most among those whose next checkpoint is on disk:
    /// dropping it is what lets memory be freed.
    #[must_use]
    pub fn lowest_droppable(&self) -> Option<(CursorId, CursorLag)> {
        let (checkpoint, _, id) = *self.cursors.by_place.first()?;
        if self.sealed.get(self.place_of(checkpoint))?.end > self.on_disk() {
            return None;
        }
        Some((id, self.lag(id)?))
    }

    /// Drops the cursor that [`Self::lowest_droppable`] names and returns its lag. Its stream goes on
    /// from disk.
    pub fn drop_lowest(&mut self) -> Option<CursorLag> {
        let (id, lag) = self.lowest_droppable()?;
        self.cursors.take(id);
        Some(lag)
    }
}
