//! The document record: the value under each seqno in the seqno family.

use super::{RecordError, RecordLocation, RecordReader, RecordWriter};
use crate::ids::{Cas, Seqno, VbId};
use crate::item::{ItemKind, ItemMeta};
use crate::show;
use std::fmt;

/// Bytes of a document except its key, its value and the record envelope.
const HEAD_LEN: usize = 1 + 1 + 4 + 8 + 4 + 8 + 2;
/// The bit of the kind byte that marks the last document of a checkpoint.
const LAST_OF_CHECKPOINT: u8 = 0x80;

/// The fields of a document except its key and value. The seqno comes from the storage key, and the
/// value length from the length of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentHead {
    /// The metadata of the change.
    pub meta: ItemMeta,
    /// Whether the change was the last of its checkpoint, which makes its seqno a boundary.
    pub is_last_of_checkpoint: bool,
    /// The seqno of the change of the same key that this one replaced; 0 if there was none.
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
    /// Everything except key and value.
    pub head: DocumentHead,
    /// The key.
    pub key: &'a [u8],
    /// The value, empty for a tombstone.
    pub value: &'a [u8],
}

pub(super) fn kind_to_byte(kind: ItemKind) -> u8 {
    match kind {
        ItemKind::Mutation => 1,
        ItemKind::Deletion => 2,
        ItemKind::Expiration => 3,
    }
}

pub(super) fn kind_from_byte(byte: u8) -> Result<ItemKind, RecordError> {
    match byte {
        1 => Ok(ItemKind::Mutation),
        2 => Ok(ItemKind::Deletion),
        3 => Ok(ItemKind::Expiration),
        _ => Err(RecordError("the kind byte of the change is unknown")),
    }
}

impl<'a> DocumentRecord<'a> {
    /// Replaces the contents of `out` by the record.
    ///
    /// # Errors
    /// Fails if the key is longer than 65,535 bytes; `out` has no useful contents then.
    pub fn encode(&self, vb: VbId, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let meta = &self.head.meta;
        let key_len = u16::try_from(self.key.len())
            .map_err(|_| RecordError("the key is longer than 65,535 bytes"))?;
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
    /// Fails if the version, the checksum, a length or the kind is wrong, the key is empty, a
    /// tombstone has a value, or the previous seqno is not below `seqno`.
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
        let value_len = u32::try_from(value.len())
            .map_err(|_| RecordError("the value is longer than 4 GiB"))?;
        if key.is_empty() {
            return Err(RecordError("the key is empty"));
        }
        if !kind.is_live() && value_len != 0 {
            return Err(RecordError("a tombstone has a value"));
        }
        if prev_seqno >= seqno {
            return Err(RecordError(
                "the previous seqno is not below the document's own",
            ));
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
