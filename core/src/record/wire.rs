//! Reads and writes the fields of records with checked lengths, and the envelope around them.

use super::{RECORD_VERSION, RecordError, RecordLocation};

const CRC_LEN: usize = 4;

/// Writes one record into a buffer.
#[derive(Debug)]
pub(crate) struct RecordWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> RecordWriter<'a> {
    /// Clears `out` and starts a record in it. `capacity` is the expected length of the body.
    pub(crate) fn new(out: &'a mut Vec<u8>, capacity: usize) -> Self {
        Self::versioned(out, capacity, RECORD_VERSION)
    }

    /// Like [`Self::new`], for a record of this version.
    pub(crate) fn versioned(out: &'a mut Vec<u8>, capacity: usize, version: u8) -> Self {
        out.clear();
        out.reserve(capacity + 1 + CRC_LEN);
        out.push(version);
        Self { out }
    }

    pub(crate) fn u8(self, value: u8) -> Self {
        self.out.push(value);
        self
    }

    pub(crate) fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn bytes(self, value: &[u8]) -> Self {
        self.out.extend_from_slice(value);
        self
    }

    /// Ends the record with its checksum.
    pub(crate) fn seal(self, place: RecordLocation<'_>) {
        let mut crc = place.crc();
        crc.update(self.out);
        self.out.extend_from_slice(&crc.finalize().to_be_bytes());
    }
}

/// Reads the fields of one record whose checksum is right.
#[derive(Debug)]
pub(crate) struct RecordReader<'a> {
    rest: &'a [u8],
}

impl<'a> RecordReader<'a> {
    /// Checks length, version and checksum, in this order.
    pub(crate) fn open(record: &'a [u8], place: RecordLocation<'_>) -> Result<Self, RecordError> {
        Self::open_up_to(record, place, RECORD_VERSION).map(|(_, reader)| reader)
    }

    /// Like [`Self::open`], for a record type that has versions up to `newest`. Returns the
    /// record's version too.
    pub(crate) fn open_up_to(
        record: &'a [u8],
        place: RecordLocation<'_>,
        newest: u8,
    ) -> Result<(u8, Self), RecordError> {
        let split = record
            .len()
            .checked_sub(CRC_LEN)
            .ok_or(RecordError("the record is too short"))?;
        let (sealed, crc) = record
            .split_at_checked(split)
            .ok_or(RecordError("the record is too short"))?;
        let (version, rest) = sealed
            .split_first()
            .ok_or(RecordError("the record is too short"))?;
        if !(RECORD_VERSION..=newest).contains(version) {
            return Err(RecordError("unknown record version"));
        }
        let mut expected = place.crc();
        expected.update(sealed);
        if expected.finalize().to_be_bytes() != crc {
            return Err(RecordError("record checksum mismatch"));
        }
        Ok((*version, Self { rest }))
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(RecordError("the record ends within a field"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?
            .try_into()
            .map_err(|_| RecordError("the record ends within a field"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Returns all bytes that are left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Checks that no bytes are left.
    pub(crate) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(RecordError("the record has bytes after its last field"))
        }
    }
}
