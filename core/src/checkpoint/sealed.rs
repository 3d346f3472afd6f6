//! A checkpoint that never changes again, and what it is made of.

use crate::ids::Seqno;
use crate::item::{Item, ItemMeta};
use std::sync::Arc;
use std::time::Duration;

/// What is known of the change that a change replaces on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Previous {
    /// Nobody has looked: the flush does.
    Unknown,
    /// The key was never written, or its tombstone is gone.
    None,
    /// This change.
    Known(ItemMeta),
}

/// A change in a checkpoint.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The change.
    pub item: Arc<Item>,
    /// What it replaces on disk.
    pub previous: Previous,
    /// When it was appended, on the engine's monotonic clock.
    pub appended: Duration,
}

/// A checkpoint that never changes again.
#[derive(Debug)]
pub struct Sealed {
    pub(super) entries: Vec<Entry>,
    pub(super) end: Seqno,
    pub(super) memory: u64,
    pub(super) is_sync_wanted: bool,
    /// Counts the checkpoints of the vBucket, without gaps.
    pub(super) id: u64,
    /// What was sealed before it, over the life of the [`super::Checkpoints`].
    pub(super) before: Totals,
}

/// Changes and their memory, as running totals: the difference of two places is what lies between
/// them, whatever was freed meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) items: u64,
    pub(super) bytes: u64,
}

impl Totals {
    pub(super) fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        entries
            .into_iter()
            .fold(Self::default(), |sum, entry| Self {
                items: sum.items.saturating_add(1),
                bytes: sum.bytes.saturating_add(entry.item.memory()),
            })
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            items: self.items.saturating_add(other.items),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub(super) fn minus(self, earlier: Self) -> Self {
        Self {
            items: self.items.saturating_sub(earlier.items),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}

impl Sealed {
    /// Returns its changes, one per key, in the order of their seqnos; never empty.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
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
