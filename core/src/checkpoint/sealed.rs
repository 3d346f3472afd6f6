//! A checkpoint that never changes again, and what it is made of.

use crate::ids::Seqno;
use crate::item::{Item, ItemMeta};
use crate::number::u64_from;
use std::sync::Arc;
use std::time::Duration;

/// A change in a checkpoint.
#[derive(Clone, Debug)]
pub struct CheckpointEntry {
    /// The change.
    pub item: Arc<Item>,
    /// What it replaces on disk, as of the moment it was appended; `None` if the key was never
    /// written, or its tombstone is gone.
    pub previous: Option<ItemMeta>,
    /// When it was appended, on the engine's monotonic clock.
    pub appended: Duration,
}

/// A checkpoint that never changes again.
#[derive(Debug)]
pub struct SealedCheckpoint {
    pub(super) entries: Vec<CheckpointEntry>,
    pub(super) end: Seqno,
    pub(super) memory: u64,
    pub(super) is_sync_wanted: bool,
    /// Counts the checkpoints of the vBucket, without gaps.
    pub(super) id: u64,
    /// What was sealed before it, over the life of the [`super::Checkpoints`].
    pub(super) before: CheckpointTotals,
}

/// Up to so many entries, totals are compared with the entries themselves: so few cost nothing, and a
/// miscount of many is one of few as well.
const COMPARED_MAX: usize = 16;

/// Changes and their memory, as running totals: the difference of two places is what lies between
/// them, whatever was freed meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CheckpointTotals {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

impl CheckpointTotals {
    pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a CheckpointEntry>) -> Self {
        entries
            .into_iter()
            .fold(Self::default(), |sum, entry| sum.plus(Self::of_one(entry)))
    }

    pub(super) fn of_one(entry: &CheckpointEntry) -> Self {
        Self {
            items: 1,
            bytes: entry.item.memory(),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            items: self.items + other.items,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Returns what lies between an earlier place and this one.
    ///
    /// # Panics
    /// If it is not earlier.
    pub(super) fn minus(self, earlier: Self) -> Self {
        Self {
            items: self.items - earlier.items,
            bytes: self.bytes - earlier.bytes,
        }
    }

    /// Compares with the entries that these are the totals of, if they are few.
    ///
    /// # Panics
    /// If they differ.
    pub(super) fn check(self, entries: &[CheckpointEntry]) {
        if entries.len() <= COMPARED_MAX {
            assert_eq!(self, Self::of(entries), "a miscount in a checkpoint");
        }
    }
}

impl SealedCheckpoint {
    /// Returns what was sealed up to its end, over the life of the [`super::Checkpoints`].
    pub(super) fn after(&self) -> CheckpointTotals {
        self.before.plus(CheckpointTotals {
            items: u64_from(self.entries.len()),
            bytes: self.memory,
        })
    }

    /// Returns what was sealed before one of its entries.
    ///
    /// # Panics
    /// If it has fewer entries.
    pub(super) fn before_entry(&self, index: usize) -> CheckpointTotals {
        let (read, _) = self.entries.split_at(index);
        self.before.plus(CheckpointTotals::of(read))
    }

    /// Compares the total of a cursor that stands before one of its entries, if few come before it.
    ///
    /// # Panics
    /// If it is wrong, or there is no such entry.
    pub(super) fn check_before_entry(&self, index: usize, before: CheckpointTotals) {
        assert!(index < self.entries.len(), "a cursor behind the last entry");
        let (read, _) = self.entries.split_at(index);
        before.minus(self.before).check(read);
    }

    /// Returns its changes, one per key, in the order of their seqnos; never empty.
    #[must_use]
    pub fn entries(&self) -> &[CheckpointEntry] {
        &self.entries
    }

    /// Returns its last seqno: a boundary.
    #[must_use]
    pub const fn end(&self) -> Seqno {
        self.end
    }

    /// Returns the memory it is counted with, in bytes.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// Returns whether a change in it, or one that was replaced in it, is to be synced.
    #[must_use]
    pub const fn is_sync_wanted(&self) -> bool {
        self.is_sync_wanted
    }
}
