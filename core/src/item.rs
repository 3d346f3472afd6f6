//! One change of one key, as it lives in memory.

use crate::ids::{Cas, Seqno};
use crate::number::u64_from;
use crate::show;
use bytes::Bytes;
use std::fmt;

/// What a change did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// The key was given a value.
    Mutation,
    /// The key was deleted by a caller.
    Deletion,
    /// The key was removed because its expiry had passed.
    Expiration,
}

impl ItemKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Mutation, Self::Deletion, Self::Expiration];

    /// Returns whether the key has a value after this change.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Mutation)
    }

    /// Returns the name used in `dump` and in streams.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutation => "mutation",
            Self::Deletion => "deletion",
            Self::Expiration => "expiration",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What is known of a change besides its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemMeta {
    /// Its place in the vBucket's order.
    pub seqno: Seqno,
    /// What it did.
    pub kind: ItemKind,
    /// Its CAS.
    pub cas: Cas,
    /// 32 bits that belong to the caller.
    pub flags: u32,
    /// For a mutation the second since 1970 at which it expires, 0 for never; for a deletion or
    /// an expiration the second at which it was made (its tombstone's age counts from there).
    pub expiry: u32,
    /// 8 bits that belong to the caller: how the value is to be read.
    pub datatype: u8,
    /// Length of the value in bytes; 0 for a tombstone.
    pub value_len: u32,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("meta", &self.meta)
            .field("key", &show::DebugKey(&self.key))
            .field("value", &show::DebugLength::of(&self.value))
            .finish()
    }
}

impl ItemMeta {
    /// Returns whether the key reads as present at `now` (seconds since 1970): a mutation that has
    /// not expired. A document expires at the start of its expiry second.
    #[must_use]
    pub const fn is_present(&self, now: u32) -> bool {
        self.kind.is_live() && (self.expiry == 0 || self.expiry > now)
    }
}

/// One change of one key. Immutable; shared between the checkpoint, the flusher and readers.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// What is known of it.
    pub meta: ItemMeta,
    /// The key.
    pub key: Box<[u8]>,
    /// The value, empty for a tombstone.
    pub value: Bytes,
}

impl Item {
    /// Memory that keeping a change costs besides its key and value, in bytes, at most: the item with its
    /// reference counts (112), its slot in the open checkpoint's tree, whose nodes are half full when
    /// they are filled in order (about 150, and 72 once it is sealed), its slot in the key index (about
    /// 16), the reference count of a value that was read (32), and what the allocator adds to three or
    /// four pieces. Measured with a counting allocator: `tests/tests/memory.rs`.
    pub const OVERHEAD: u64 = 336;

    /// Returns the memory this change is counted with, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        Self::memory_of(u64_from(self.key.len()), u64_from(self.value.len()))
    }

    /// Returns the memory that a change with a key and a value of so many bytes is counted with.
    #[must_use]
    pub const fn memory_of(key_len: u64, value_len: u64) -> u64 {
        key_len + value_len + Self::OVERHEAD
    }
}
