//! What is written to disk, byte by byte.
//!
//! Every record is an envelope: a version byte, the body, and the CRC-32 of where it is stored and
//! of everything before the CRC. "Where" is the vBucket, the family and the storage key, so that a
//! record copied to another place does not pass for one that belongs there. All integers are big
//! endian. Decoding checks every length before it is used and never panics; what does not decode is
//! a [`RecordError`].

mod document;
mod index_entry;
mod store_state;
mod vb_state;
mod wire;

pub use document::{DocumentHead, DocumentRecord};
pub use index_entry::IndexEntry;
pub use store_state::StoreState;
pub use vb_state::{Counts, VbState};
pub(crate) use wire::{RecordReader, RecordWriter};

use crate::ids::VbId;

/// The oldest record version, and that of every record type without a version of its own.
pub const RECORD_VERSION: u8 = 1;

/// Why bytes are not the record they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub &'static str);

/// The family a record is stored in, as far as its checksum is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLocation<'a> {
    /// A document under its seqno key.
    Document(VbId, &'a [u8]),
    /// An index entry under the user's key.
    Index(VbId, &'a [u8]),
    /// A record of a vBucket or of the engine under its name.
    Named(&'a [u8]),
}

impl RecordLocation<'_> {
    fn crc(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        let (tag, vb, key) = match *self {
            Self::Document(vb, key) => (b'd', vb.get(), key),
            Self::Index(vb, key) => (b'k', vb.get(), key),
            Self::Named(key) => (b'n', 0, key),
        };
        hasher.update(&[tag]);
        hasher.update(&vb.to_be_bytes());
        hasher.update(key);
        hasher
    }
}

#[cfg(test)]
mod tests;
