//! The encoding of the records on disk.
//!
//! Every record is an envelope: a version byte, the body, and a CRC-32. The checksum covers where
//! the record is stored (vBucket, family and storage key) and all bytes before it. So a record
//! copied to another place is not accepted there. All integers are big endian.
//!
//! Decoding checks every length before it uses it and never panics. Bytes that are not a valid
//! record yield a [`RecordError`].

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

/// The oldest record version. Record types without a version of their own have this one.
pub const RECORD_VERSION: u8 = 1;

/// Why bytes are not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(pub &'static str);

/// Where a record is stored, as covered by its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLocation<'a> {
    /// A document under its seqno key.
    Document(VbId, &'a [u8]),
    /// An index entry under the user's key.
    Index(VbId, &'a [u8]),
    /// A record of a vBucket or of the store, under its name.
    Named(&'a [u8]),
}

impl RecordLocation<'_> {
    fn crc(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        // The tag tells equal keys of different families apart.
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
