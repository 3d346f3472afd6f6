//! Sealed checkpoints, their entries and their running totals.

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
    /// The change of the key that this one replaces on disk, as of the moment it was appended.
    /// `None` if the key was never written or its tombstone is purged.
    pub previous: Option<ItemMeta>,
    /// When it was appended, on the engine's monotonic clock.
    pub appended: Duration,
}

/// A checkpoint that never changes again. Has at least one entry.
#[derive(Debug)]
pub struct SealedCheckpoint {
    pub(super) entries: Vec<CheckpointEntry>,
    pub(super) end: Seqno,
    pub(super) memory: u64,
    pub(super) is_sync_wanted: bool,
    /// Numbers the checkpoints of the vBucket, without gaps.
    pub(super) id: u64,
    /// The total of everything sealed before it, over the life of the [`super::Checkpoints`].
    pub(super) before: CheckpointTotals,
}

/// Totals of at most this many entries are compared with the entries themselves. Comparing so few
/// costs nothing, and a miscount shows in few entries as well as in many.
const COMPARED_MAX: usize = 16;

/// Running totals of changes and their memory. The difference of the totals at two places is what
/// lies between them, even if some of it was freed since.
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

    /// Returns the changes between `earlier` and this place.
    ///
    /// # Panics
    /// Panics if `earlier` is later than this place: a fault of the crate. Never saturates, so that
    /// no miscount is hidden.
    pub(super) fn minus(self, earlier: Self) -> Self {
        Self {
            items: self.items - earlier.items,
            bytes: self.bytes - earlier.bytes,
        }
    }

    /// Compares this total with `entries`, if there are at most [`COMPARED_MAX`].
    ///
    /// # Panics
    /// Panics if they differ.
    pub(super) fn check(self, entries: &[CheckpointEntry]) {
        if entries.len() <= COMPARED_MAX {
            assert_eq!(
                self,
                Self::of(entries),
                "a checkpoint's total differs from its entries"
            );
        }
    }
}

impl SealedCheckpoint {
    /// Returns the total of everything sealed up to the end of this checkpoint.
    pub(super) fn after(&self) -> CheckpointTotals {
        self.before.plus(CheckpointTotals {
            items: u64_from(self.entries.len()),
            bytes: self.memory,
        })
    }

    /// Returns the total of everything sealed before the entry at `index`.
    ///
    /// # Panics
    /// Panics if there are fewer than `index` entries.
    pub(super) fn before_entry(&self, index: usize) -> CheckpointTotals {
        let (read, _) = self.entries.split_at(index);
        self.before.plus(CheckpointTotals::of(read))
    }

    /// Checks `before`, the total of a cursor that stands before the entry at `index`. Recounts it
    /// if few entries of this checkpoint come before.
    ///
    /// # Panics
    /// Panics if the total is wrong or there is no such entry.
    pub(super) fn check_before_entry(&self, index: usize, before: CheckpointTotals) {
        assert!(
            index < self.entries.len(),
            "a cursor stands after the last entry of a sealed checkpoint"
        );
        let (read, _) = self.entries.split_at(index);
        before.minus(self.before).check(read);
    }

    /// Returns the changes in the order of their seqnos, one for each key.
    #[must_use]
    pub fn entries(&self) -> &[CheckpointEntry] {
        &self.entries
    }

    /// Returns the seqno of the last entry: a boundary.
    #[must_use]
    pub const fn end(&self) -> Seqno {
        self.end
    }

    /// Returns the bytes by which this checkpoint counts against the memory quota.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// Returns whether any change in it, or one replaced in it, asked for a sync.
    #[must_use]
    pub const fn is_sync_wanted(&self) -> bool {
        self.is_sync_wanted
    }
}
