//! One change of one key, as it lives in memory.

use crate::ids::{Cas, Seqno};
use crate::number::u64_from;
use crate::show;
use bytes::Bytes;
use std::fmt;

/// What a change did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    /// The key was set to a value.
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

    /// Returns the name used in streams and in the output of `dump`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutation => "mutation",
            Self::Deletion => "deletion",
            Self::Expiration => "expiration",
        }
    }

    /// Returns the kind with this name, or `None` if there is none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The metadata of a change: everything except its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemMeta {
    /// The place of the change in the vBucket's order.
    pub seqno: Seqno,
    /// What the change did to the key.
    pub kind: ItemKind,
    /// The CAS of the key after this change.
    pub cas: Cas,
    /// 32 bits that the engine stores for the caller and does not interpret.
    pub flags: u32,
    /// For a mutation, the second since 1970 at which it expires, or 0 for never. For a deletion or
    /// an expiration, the second at which it was made; the age of its tombstone counts from there.
    pub expiry: u32,
    /// 8 bits that the engine stores for the caller and does not interpret: the format of the
    /// value.
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
    /// Returns whether the key reads as present at `now` (seconds since 1970): this is a mutation
    /// that has not expired. A document expires at the start of its expiry second.
    #[must_use]
    pub const fn is_present(&self, now: u32) -> bool {
        self.kind.is_live() && (self.expiry == 0 || self.expiry > now)
    }
}

/// One change of one key. Immutable, and shared between the checkpoint, the flusher and streams.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Everything except the key and the value.
    pub meta: ItemMeta,
    /// The key.
    pub key: Box<[u8]>,
    /// The value, empty for a tombstone.
    pub value: Bytes,
}

impl Item {
    /// Upper limit, in bytes, of the memory that a change needs besides its key and value.
    ///
    /// It consists of the item with its reference counts (112), its slot in the open checkpoint's
    /// tree (about 150, as nodes filled in order are half full; 72 once sealed), its slot in the
    /// key index (about 16), the reference count of a value that was read (32), and the allocator's
    /// overhead for three or four allocations. Measured with a counting allocator:
    /// `tests/tests/memory.rs`.
    pub const OVERHEAD: u64 = 336;

    /// Returns the number of bytes by which this change counts against the memory quota.
    #[must_use]
    pub fn memory(&self) -> u64 {
        Self::memory_of(u64_from(self.key.len()), u64_from(self.value.len()))
    }

    /// Returns the same for a change whose key and value have these lengths, in bytes.
    #[must_use]
    pub const fn memory_of(key_len: u64, value_len: u64) -> u64 {
        key_len + value_len + Self::OVERHEAD
    }
}
