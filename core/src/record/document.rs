//! The document: what the seqno family holds under each seqno.

use super::{RecordError, RecordLocation, RecordReader, RecordWriter};
use crate::ids::{Cas, Seqno, VbId};
use crate::item::{ItemKind, ItemMeta};
use crate::show;
use std::fmt;

/// Bytes of a document besides key, value and envelope.
const HEAD_LEN: usize = 1 + 1 + 4 + 8 + 4 + 8 + 2;
const LAST_OF_CHECKPOINT: u8 = 0x80;

/// What a document says besides its key and value. The seqno is in its storage key, the value
/// length follows from the record's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentHead {
    /// What is known of the change.
    pub meta: ItemMeta,
    /// Whether it was the last of its checkpoint, and so its seqno a boundary.
    pub is_last_of_checkpoint: bool,
    /// The seqno of the change of the same key that this one replaced, 0 if there was none.
    pub prev_seqno: Seqno,
}

impl fmt::Debug for DocumentRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentRecord")
            .field("head", &self.head)
            .field("key", &show::DebugKey(self.key))
            .field("value", &show::DebugLength::of(self.value))
            .finish()
    }
}

/// A decoded document; borrows from the record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DocumentRecord<'a> {
    /// Everything but key and value.
    pub head: DocumentHead,
    /// The key.
    pub key: &'a [u8],
    /// The value, empty for a tombstone.
    pub value: &'a [u8],
}

/// Returns the byte that stands for a kind.
pub(super) fn kind_to_byte(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::Mutation => 1,
        ItemKind::Deletion => 2,
        ItemKind::Expiration => 3,
    }
}

/// Returns the kind that a byte stands for.
pub(super) fn kind_from_byte(byte: u8) -> Result<ItemKind, RecordError> {
    match byte {
        1 => Ok(ItemKind::Mutation),
        2 => Ok(ItemKind::Deletion),
        3 => Ok(ItemKind::Expiration),
        _ => Err(RecordError("unknown kind")),
    }
}

impl<'a> DocumentRecord<'a> {
    /// Writes the record into `out`, which is cleared first.
    ///
    /// # Errors
    /// When the key is longer than 65,535 bytes; `out` then holds nothing of use.
    pub fn encode(&self, vb: VbId, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let meta = &self.head.meta;
        let key_len = u16::try_from(self.key.len()).map_err(|_| RecordError("key too long"))?;
        let last = if self.head.is_last_of_checkpoint {
            LAST_OF_CHECKPOINT
        } else {
            0
        };
        RecordWriter::new(out, HEAD_LEN + self.key.len() + self.value.len())
            .u8(kind_to_byte(meta.kind) | last)
            .u8(meta.datatype)
            .u32(meta.flags)
            .u64(meta.cas.get())
            .u32(meta.expiry)
            .u64(self.head.prev_seqno.get())
            .u16(key_len)
            .bytes(self.key)
            .bytes(self.value)
            .seal(RecordLocation::Document(vb, &meta.seqno.to_key()));
        Ok(())
    }

    /// Reads the record stored at `seqno` of `vb`.
    ///
    /// # Errors
    /// When version, checksum, a length or the kind is not what it should be.
    pub fn decode(vb: VbId, seqno: Seqno, record: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = RecordReader::open(record, RecordLocation::Document(vb, &seqno.to_key()))?;
        let kind_byte = reader.u8()?;
        let kind = kind_from_byte(kind_byte & !LAST_OF_CHECKPOINT)?;
        let datatype = reader.u8()?;
        let flags = reader.u32()?;
        let cas = Cas::new(reader.u64()?);
        let expiry = reader.u32()?;
        let prev_seqno = Seqno::new(reader.u64()?);
        let key_len = usize::from(reader.u16()?);
        let key = reader.take(key_len)?;
        let value = reader.rest();
        let value_len =
            u32::try_from(value.len()).map_err(|_| RecordError("value longer than 4 GiB"))?;
        if key.is_empty() {
            return Err(RecordError("empty key"));
        }
        if !kind.is_live() && value_len != 0 {
            return Err(RecordError("tombstone with a value"));
        }
        if prev_seqno >= seqno {
            return Err(RecordError("previous seqno not below the document's own"));
        }
        let meta = ItemMeta {
            seqno,
            kind,
            cas,
            flags,
            expiry,
            datatype,
            value_len,
        };
        let is_last_of_checkpoint = kind_byte & LAST_OF_CHECKPOINT != 0;
        Ok(Self {
            head: DocumentHead {
                meta,
                is_last_of_checkpoint,
                prev_seqno,
            },
            key,
            value,
        })
    }
}
