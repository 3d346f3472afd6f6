//! Keeps the recent changes of one vBucket in memory: one open checkpoint, the sealed ones, the
//! persistence cursor and the cursors of streams.
//!
//! # Protocol
//! A [`Checkpoints`] belongs to one vBucket and is only touched under that vBucket's lock.
//!
//! - A change is appended to the *open* checkpoint. Only there can a newer change of a key replace
//!   an older one.
//! - *Sealing* ends the open checkpoint: it never changes again, and its end is a boundary. A
//!   sealed checkpoint is one flush unit: it reaches storage in one write batch, never split.
//! - A flush *takes* the checkpoints after the persistence cursor and keeps the old place of that
//!   cursor as a backup. [`Checkpoints::flush_succeeded`] discards the backup.
//!   [`Checkpoints::flush_failed`] moves the cursor back to it, so the next flush takes the same
//!   checkpoints again, and newer ones.
//! - Flushed checkpoints stay until [`Checkpoints::free_oldest`], so that a stream that has read
//!   the disk can continue in memory without a gap.
//! - A stream's *cursor* stands in the sealed part only (`cursors`). A checkpoint that a cursor has
//!   not read is not freed. A lagging cursor can be dropped instead, and its stream reads the disk;
//!   the persistence cursor cannot be dropped.
//!
//! Each entry records which change it replaces on disk. This is recorded at the append, because
//! memory knows it for certain then. It is the newest change of the key in memory or, if there is
//! none, what the writer read from disk under the key's stripe lock. No other change of that key
//! can reach the disk in between: it would have been in memory.

mod cursors;
mod sealed;
mod stats;

pub use cursors::{CursorId, CursorLag, MemoryRead, NotInMemory, ReadLimit};
pub use sealed::{CheckpointEntry, SealedCheckpoint};
pub use stats::{CheckpointStats, Lag};

use crate::ids::Seqno;
use crate::item::{Item, ItemMeta};
use crate::number::u64_from;
use cursors::Cursors;
use sealed::CheckpointTotals;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// The result of appending a change.
#[derive(Debug)]
pub struct AppendOutcome {
    /// Memory of the new change, in bytes.
    pub added: u64,
    /// Memory of the replaced change, in bytes; 0 if none was replaced.
    pub removed: u64,
    /// The change that was replaced in the open checkpoint. Freeing it takes time, so the caller
    /// drops it after releasing the lock.
    pub replaced: Option<Arc<Item>>,
}

/// Orders items by their key, so that a set of them can be searched by key.
#[derive(Debug)]
struct ItemByKey(Arc<Item>);

impl Borrow<[u8]> for ItemByKey {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl PartialEq for ItemByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ItemByKey {}

impl PartialOrd for ItemByKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ItemByKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

#[derive(Debug, Default)]
struct OpenCheckpoint {
    entries: BTreeMap<Seqno, CheckpointEntry>,
    memory: u64,
    is_sync_wanted: bool,
}

/// The checkpoints of one vBucket.
#[derive(Debug)]
pub struct Checkpoints {
    /// The newest change in memory of each key that has one, in key order.
    ///
    /// A tree rather than a hash table, for two reasons. A page finds its keys without visiting all
    /// of them. And a tree never moves as a whole: a hash table of some 100,000 keys stopped a
    /// write for 100 to 220 ms when it grew.
    newest: BTreeSet<ItemByKey>,
    /// The sealed checkpoints in memory, oldest first.
    sealed: VecDeque<Arc<SealedCheckpoint>>,
    open: OpenCheckpoint,
    high_seqno: Seqno,
    /// The persistence cursor: the end of the last checkpoint that a flush has taken.
    persistence: Seqno,
    /// The value to which `persistence` returns if the flush in progress fails. `None` when no
    /// flush is in progress.
    backup: Option<Seqno>,
    /// Everything up to it was freed or was never in memory. A boundary, except after a start.
    freed_upto: Seqno,
    /// The total of everything ever sealed. The part before the oldest sealed checkpoint was freed.
    sealed_total: CheckpointTotals,
    /// The id that the open checkpoint gets when it is sealed.
    next_id: u64,
    cursors: Cursors,
}

impl Checkpoints {
    /// Returns the checkpoints of a vBucket whose changes up to `high_seqno` are all on disk.
    #[must_use]
    pub fn new(high_seqno: Seqno) -> Self {
        Self {
            newest: BTreeSet::new(),
            sealed: VecDeque::new(),
            open: OpenCheckpoint::default(),
            high_seqno,
            persistence: high_seqno,
            backup: None,
            freed_upto: high_seqno,
            sealed_total: CheckpointTotals::default(),
            next_id: 0,
            cursors: Cursors::default(),
        }
    }

    /// Returns the last seqno that was assigned.
    #[must_use]
    pub const fn high_seqno(&self) -> Seqno {
        self.high_seqno
    }

    /// Returns the newest change of `key` in memory, or `None` if memory has no change of it.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Item>> {
        self.newest.get(key).map(|by_key| &by_key.0)
    }

    /// Returns whether there is a change that no flush has taken.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.persistence < self.high_seqno
    }

    /// Appends a change at `now`, on the engine's monotonic clock.
    ///
    /// `on_disk` is the key's newest change on disk, as the writer read it. It is used only if
    /// memory has no change of the key. `sync` asks for the flush of this change to be synced.
    ///
    /// # Panics
    /// Panics if the seqno is not above the high seqno, or if the change that is replaced is in no
    /// checkpoint. Both are faults of the engine: seqnos are assigned under the lock that guards
    /// this value.
    pub fn append(
        &mut self,
        item: Arc<Item>,
        on_disk: Option<ItemMeta>,
        sync: bool,
        now: Duration,
    ) -> AppendOutcome {
        let seqno = item.meta.seqno;
        assert!(
            seqno > self.high_seqno,
            "seqno {seqno} is appended after {}",
            self.high_seqno
        );

        let added = item.memory();
        let mut removed = 0;
        let mut replaced = None;
        let previous = match self.newest.replace(ItemByKey(Arc::clone(&item))) {
            None => on_disk,
            Some(ItemByKey(older)) => {
                let seqno = older.meta.seqno;
                if let Some(entry) = self.open.entries.remove(&seqno) {
                    // The replaced change never reaches the disk. So the new change takes over the
                    // document that it was going to replace there.
                    removed = entry.item.memory();
                    replaced = Some(entry.item);
                    entry.previous
                } else {
                    let sealed_upto = self.sealed.back().map(|sealed| sealed.end);
                    assert!(
                        sealed_upto >= Some(seqno),
                        "seqno {seqno} is in no checkpoint"
                    );
                    Some(older.meta)
                }
            }
        };
        let entry = CheckpointEntry {
            item,
            previous,
            appended: now,
        };
        self.open.entries.insert(seqno, entry);
        self.open.memory = self.open.memory + added - removed;
        // A sync stays wanted after its change was replaced: the writer of that change may still
        // wait for it.
        self.open.is_sync_wanted |= sync;
        self.high_seqno = seqno;
        AppendOutcome {
            added,
            removed,
            replaced,
        }
    }

    /// Returns the memory of the open checkpoint's changes, in bytes.
    #[must_use]
    pub const fn open_memory(&self) -> u64 {
        self.open.memory
    }

    /// Returns the last boundary: the end of the newest sealed checkpoint, even if that was freed
    /// since.
    #[must_use]
    pub fn sealed_end(&self) -> Seqno {
        if self.open.entries.is_empty() {
            return self.high_seqno;
        }
        self.sealed
            .back()
            .map_or(self.freed_upto, |sealed| sealed.end)
    }

    /// Returns the total of the open checkpoint.
    fn open_total(&self) -> CheckpointTotals {
        CheckpointTotals {
            items: u64_from(self.open.entries.len()),
            bytes: self.open.memory,
        }
    }

    /// Returns the total of everything that was ever freed.
    fn freed_total(&self) -> CheckpointTotals {
        let oldest = self.sealed.front();
        oldest.map_or(self.sealed_total, |sealed| sealed.before)
    }

    /// Seals the open checkpoint; its end becomes a boundary. Returns false if the open checkpoint
    /// is empty.
    ///
    /// # Panics
    /// Panics if the memory it counts differs from that of its changes: a fault of this module.
    pub fn seal(&mut self) -> bool {
        let all = self.open_total();
        let open = std::mem::take(&mut self.open);
        let entries: Vec<CheckpointEntry> = open.entries.into_values().collect();
        all.check(&entries);
        let Some(last) = entries.last() else {
            return false;
        };
        self.sealed.push_back(Arc::new(SealedCheckpoint {
            end: last.item.meta.seqno,
            entries,
            memory: open.memory,
            is_sync_wanted: open.is_sync_wanted,
            id: self.next_id,
            before: self.sealed_total,
        }));
        self.sealed_total = self.sealed_total.plus(all);
        self.next_id += 1;
        true
    }

    /// Seals the open checkpoint and returns the checkpoints after the persistence cursor, oldest
    /// first. Returns at least one if there is any, and then as many as fit in `bytes_max`.
    ///
    /// If the result is not empty, a flush has begun and must be ended with
    /// [`Self::flush_succeeded`] or [`Self::flush_failed`].
    ///
    /// # Panics
    /// Panics if the previous flush has not ended: a vBucket has one flush at a time.
    pub fn begin_flush(&mut self, bytes_max: u64) -> Vec<Arc<SealedCheckpoint>> {
        assert!(
            self.backup.is_none(),
            "a flush of this vBucket is in progress already"
        );
        self.seal();
        let mut taken = Vec::new();
        let mut bytes: u64 = 0;
        let first = self
            .sealed
            .partition_point(|sealed| sealed.end <= self.persistence);
        for sealed in self.sealed.range(first..) {
            bytes += sealed.memory;
            // The first one always passes: a checkpoint above the limit must be flushed too, and is
            // never split.
            if !taken.is_empty() && bytes > bytes_max {
                break;
            }
            taken.push(Arc::clone(sealed));
        }
        if let Some(last) = taken.last() {
            self.backup = Some(self.persistence);
            self.persistence = last.end;
        }
        taken
    }

    /// Ends the flush: the checkpoints it took are on disk.
    ///
    /// # Panics
    /// Panics if no flush is in progress.
    pub fn flush_succeeded(&mut self) {
        let backup = self.backup.take();
        assert!(backup.is_some(), "no flush of this vBucket is in progress");
    }

    /// Ends the flush without success: the next one takes the same checkpoints again. Does nothing
    /// if no flush is in progress, because this also cleans up after a panic at any point.
    pub fn flush_failed(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.persistence = backup;
        }
    }

    /// Returns the seqno up to which everything is on disk for certain.
    fn on_disk(&self) -> Seqno {
        self.backup.unwrap_or(self.persistence)
    }

    /// Removes the oldest checkpoint from memory if it is on disk and every cursor has read it.
    /// Returns it, so that the caller can drop it after releasing the lock.
    ///
    /// # Panics
    /// Panics if the totals do not continue after it, or the key index lacks one of its keys: a
    /// fault of this module.
    pub fn free_oldest(&mut self) -> Option<Arc<SealedCheckpoint>> {
        let oldest = self.sealed.front()?;
        if oldest.end > self.on_disk() || self.cursors.is_wanted(oldest.id) {
            return None;
        }
        let freed = self.sealed.pop_front()?;
        self.freed_upto = freed.end;
        assert_eq!(
            self.freed_total(),
            freed.after(),
            "the totals do not continue after the freed checkpoint"
        );
        for entry in &freed.entries {
            let (key, seqno): (&[u8], _) = (&entry.item.key, entry.item.meta.seqno);
            let newest = self.get(key).map(|item| item.meta.seqno);
            assert!(
                newest >= Some(seqno),
                "seqno {seqno} is freed, but the key index has {newest:?}"
            );
            // A newer change of the key is in a later checkpoint; the index must keep that one.
            if newest == Some(seqno) {
                self.newest.remove(key);
            }
        }
        Some(freed)
    }

    /// Discards everything, cursors included, and starts again at seqno 0. Returns the discarded
    /// state, so that the caller can drop it after releasing the lock.
    ///
    /// # Panics
    /// Panics if a flush is in progress, as it would end in checkpoints that it did not begin in.
    #[must_use = "drop the discarded state after the lock is released"]
    pub fn reset(&mut self) -> Self {
        assert!(self.backup.is_none(), "a reset during a flush");
        // Ids are never reused, so a cursor from before the reset cannot name a later one.
        let cursors = self.cursors.emptied();
        let discarded = std::mem::replace(self, Self::new(Seqno::ZERO));
        self.cursors = cursors;
        discarded
    }

    /// Returns the bytes by which all checkpoints count against the memory quota.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.sealed_total.minus(self.freed_total()).bytes + self.open.memory
    }

    /// Calls `visit` for the newest change in memory of each key from `from` on, in key order,
    /// until it returns false. Some of these changes may be on disk already.
    pub fn visit_from(&self, from: &[u8], mut visit: impl FnMut(&Arc<Item>) -> bool) {
        let bounds = (Bound::Included(from), Bound::Unbounded);
        for by_key in self.newest.range::<[u8], _>(bounds) {
            if !visit(&by_key.0) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
