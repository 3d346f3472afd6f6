//! The index entry record: the value under each key in the key family.

use super::document::{kind_from_byte, kind_to_byte};
use super::{RecordError, RecordLocation, RecordReader, RecordWriter};
use crate::ids::{Cas, Seqno, VbId};
use crate::item::ItemMeta;

const BODY_LEN: usize = 1 + 1 + 4 + 8 + 4 + 8 + 4;

/// The metadata of a key's newest change. A write or a metadata read needs no more, so neither
/// reads the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry(pub ItemMeta);

impl IndexEntry {
    /// Replaces the contents of `out` by the record.
    pub fn encode(&self, vb: VbId, key: &[u8], out: &mut Vec<u8>) {
        let meta = &self.0;
        RecordWriter::new(out, BODY_LEN)
            .u8(kind_to_byte(meta.kind))
            .u8(meta.datatype)
            .u32(meta.flags)
            .u64(meta.cas.get())
            .u32(meta.expiry)
            .u64(meta.seqno.get())
            .u32(meta.value_len)
            .seal(RecordLocation::Index(vb, key));
    }

    /// Reads the record stored under `key` of `vb`.
    ///
    /// # Errors
    /// Fails if the version, checksum, length or kind is wrong, or the seqno is 0.
    pub fn decode(vb: VbId, key: &[u8], record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = RecordReader::open(record, RecordLocation::Index(vb, key))?;
        let kind = kind_from_byte(reader.u8()?)?;
        let datatype = reader.u8()?;
        let flags = reader.u32()?;
        let cas = Cas::new(reader.u64()?);
        let expiry = reader.u32()?;
        let seqno = Seqno::new(reader.u64()?);
        let value_len = reader.u32()?;
        reader.end()?;
        if seqno == Seqno::ZERO {
            return Err(RecordError("the index entry has the seqno 0"));
        }
        Ok(Self(ItemMeta {
            seqno,
            kind,
            cas,
            flags,
            expiry,
            datatype,
            value_len,
        }))
    }
}
