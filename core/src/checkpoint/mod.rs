//! The recent changes of one vBucket in memory: an open checkpoint, sealed ones, the persistence
//! cursor and the cursors of streams.
//!
//! # Protocol
//! A [`Checkpoints`] belongs to one vBucket and is only touched under that vBucket's lock.
//!
//! - A change is appended to the *open* checkpoint. A newer change of a key replaces an older one
//!   there, and only there.
//! - *Sealing* ends the open checkpoint: it never changes again, its end is a boundary, and it is
//!   one flush unit: it reaches storage in one write batch, never split.
//! - A flush *takes* what lies after the persistence cursor and leaves a backup cursor behind; it
//!   ends in [`Checkpoints::flush_succeeded`] (backup forgotten) or [`Checkpoints::flush_failed`]
//!   (cursor back at the backup, the next flush takes the same checkpoints again, and more).
//! - Flushed checkpoints stay until [`Checkpoints::free_oldest`], so that a reader that comes from
//!   disk finds the place in memory where it has to go on.
//! - A stream's *cursor* stands in the sealed part only (`cursors`). A checkpoint that a cursor has
//!   not read is not freed; a cursor that lags can be dropped instead, and its stream reads the
//!   disk. The persistence cursor can not.
//!
//! The change that a new one replaces on disk is noted when it is appended, because this is the
//! moment at which memory knows it for certain: the newest change of the key in memory, or, if
//! there is none, what the writer read from disk under the key's stripe lock. No other change of
//! that key can reach the disk in between, because it would have been in memory.

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

/// What appending a change did.
#[derive(Debug)]
pub struct AppendOutcome {
    /// Memory added, in bytes.
    pub added: u64,
    /// Memory given back by the change that was replaced, in bytes.
    pub removed: u64,
    /// The change that was replaced in the open checkpoint. Freeing it takes time, so the caller drops it
    /// after the lock is released.
    pub replaced: Option<Arc<Item>>,
}

/// An item looked up by its key.
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
    /// The newest change in memory of each key that has one, in key order. A tree rather than a hash
    /// table: a page finds its keys without looking at all of them, and it never has to be moved as a
    /// whole, which stopped a write for 100 to 220 ms when a table of some 100,000 keys grew.
    newest: BTreeSet<ItemByKey>,
    /// Oldest first.
    sealed: VecDeque<Arc<SealedCheckpoint>>,
    open: OpenCheckpoint,
    high_seqno: Seqno,
    /// End of the last checkpoint that a flush has taken.
    persistence: Seqno,
    /// Where `persistence` goes back to if the flush in progress fails.
    backup: Option<Seqno>,
    /// Everything up to it was freed, or was never in memory: a boundary, but after a start.
    freed_upto: Seqno,
    /// Everything that was ever sealed. What was freed of it is what comes before the oldest.
    sealed_total: CheckpointTotals,
    /// Id of the open checkpoint.
    next_id: u64,
    cursors: Cursors,
}

impl Checkpoints {
    /// Returns the checkpoints of a vBucket of which everything up to `high_seqno` is on disk.
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

    /// Returns the last seqno assigned.
    #[must_use]
    pub const fn high_seqno(&self) -> Seqno {
        self.high_seqno
    }

    /// Returns the newest change of `key`, if memory has it.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Item>> {
        self.newest.get(key).map(|by_key| &by_key.0)
    }

    /// Returns whether there is a change that no flush has taken.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.persistence < self.high_seqno
    }

    /// Appends a change at `now` (the engine's monotonic clock). `on_disk` is the key's newest change
    /// on disk as the writer read it; it counts only if memory has no change of the key.
    ///
    /// # Panics
    /// When the seqno does not rise: seqnos are assigned under the lock that guards this value, so
    /// that would be a fault of the engine. When the change that is replaced is neither in the open
    /// checkpoint nor in a sealed one.
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
            "seqno {seqno} after {}",
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
                    // It never reaches the disk: what it was going to replace there is now replaced
                    // by this change.
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
        self.open.is_sync_wanted |= sync;
        self.high_seqno = seqno;
        AppendOutcome {
            added,
            removed,
            replaced,
        }
    }

    /// Returns the size of the open checkpoint in bytes.
    #[must_use]
    pub const fn open_memory(&self) -> u64 {
        self.open.memory
    }

    /// Returns the end of the newest sealed checkpoint, which may have been freed since: the last
    /// boundary.
    #[must_use]
    pub fn sealed_end(&self) -> Seqno {
        if self.open.entries.is_empty() {
            return self.high_seqno;
        }
        self.sealed
            .back()
            .map_or(self.freed_upto, |sealed| sealed.end)
    }

    /// Returns the changes in the open checkpoint and their memory.
    fn open_total(&self) -> CheckpointTotals {
        CheckpointTotals {
            items: u64_from(self.open.entries.len()),
            bytes: self.open.memory,
        }
    }

    /// Returns everything that was ever freed.
    fn freed_total(&self) -> CheckpointTotals {
        let oldest = self.sealed.front();
        oldest.map_or(self.sealed_total, |sealed| sealed.before)
    }

    /// Seals the open checkpoint; its end is a boundary from now on. Returns false if it is empty.
    ///
    /// # Panics
    /// When the memory it is counted with is not that of its changes: a fault of this module.
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

    /// Seals the open checkpoint and hands a flush the checkpoints after the persistence cursor,
    /// oldest first: at least one if there is any, then as long as they fit in `bytes_max`. If there is
    /// none, no flush has begun and none is to be ended.
    ///
    /// # Panics
    /// When the flush before has not ended: there is only one at a time.
    pub fn begin_flush(&mut self, bytes_max: u64) -> Vec<Arc<SealedCheckpoint>> {
        assert!(self.backup.is_none(), "two flushes of one vBucket");
        self.seal();
        let mut taken = Vec::new();
        let mut bytes: u64 = 0;
        let first = self
            .sealed
            .partition_point(|sealed| sealed.end <= self.persistence);
        for sealed in self.sealed.range(first..) {
            bytes += sealed.memory;
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

    /// The checkpoints that the flush took are on disk.
    ///
    /// # Panics
    /// When no flush is under way.
    pub fn flush_succeeded(&mut self) {
        let backup = self.backup.take();
        assert!(backup.is_some(), "no flush of this vBucket is under way");
    }

    /// The checkpoints that the flush took are not on disk: the next one takes them again. Nothing
    /// happens if the flush has ended: this also cleans up after a panic, at whatever point.
    pub fn flush_failed(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.persistence = backup;
        }
    }

    /// Returns the end of what is on disk for certain.
    fn on_disk(&self) -> Seqno {
        self.backup.unwrap_or(self.persistence)
    }

    /// Takes the oldest checkpoint out of memory if it is on disk and every cursor has read it, and
    /// returns it, so that it can be dropped after the lock is released.
    ///
    /// # Panics
    /// When the totals do not continue after it, or a key of it has no newest change: a fault of this
    /// module.
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
            "what was freed is not what was sealed"
        );
        for entry in &freed.entries {
            let (key, seqno): (&[u8], _) = (&entry.item.key, entry.item.meta.seqno);
            let newest = self.get(key).map(|item| item.meta.seqno);
            assert!(newest >= Some(seqno), "{newest:?} is newest, not {seqno}");
            if newest == Some(seqno) {
                self.newest.remove(key);
            }
        }
        Some(freed)
    }

    /// Forgets everything, cursors included, and starts again at seqno 0; returns what was forgotten,
    /// so that it can be dropped after the lock is released.
    ///
    /// # Panics
    /// When a flush is under way: it would end in checkpoints that it did not begin in.
    #[must_use = "what was forgotten is dropped after the lock is released"]
    pub fn reset(&mut self) -> Self {
        assert!(self.backup.is_none(), "reset during a flush");
        let cursors = self.cursors.emptied();
        let forgotten = std::mem::replace(self, Self::new(Seqno::ZERO));
        self.cursors = cursors;
        forgotten
    }

    /// Returns the memory that all checkpoints are counted with, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.sealed_total.minus(self.freed_total()).bytes + self.open.memory
    }

    /// Calls `visit` for the newest change in memory of each key from `from` on, in key order, until it
    /// returns false. What is on disk already may be among them.
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
