//! The state record of a vBucket. It is written in the same batch as the items it describes.

use super::{RecordError, RecordLocation, RecordReader, RecordWriter};
use crate::ids::{Cas, Seqno, VbId, VbUuid};

const BODY_LEN: usize = 8 * 7;

/// Counts of the contents of a vBucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Number of keys with a value, including those whose expiry has passed.
    pub items: u64,
    /// Number of keys whose newest change is a deletion or an expiration that is not purged yet.
    pub tombstones: u64,
    /// Bytes of the keys and values of all `items`.
    pub bytes: u64,
}

/// The state of a vBucket as of one boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbState {
    /// The newest branch of the vBucket's history: the first entry of the failover log.
    pub uuid: VbUuid,
    /// The last seqno written: always a boundary.
    pub high_seqno: Seqno,
    /// The highest seqno of a purged tombstone.
    pub purge_seqno: Seqno,
    /// The largest CAS assigned.
    pub max_cas: Cas,
    /// Counts of the contents.
    pub counts: Counts,
}

impl VbState {
    /// Returns the state of an empty vBucket.
    #[must_use]
    pub fn new(uuid: VbUuid) -> Self {
        Self {
            uuid,
            high_seqno: Seqno::ZERO,
            purge_seqno: Seqno::ZERO,
            max_cas: Cas::default(),
            counts: Counts::default(),
        }
    }

    /// Returns the storage key of the record.
    #[must_use]
    pub fn storage_key(vb: VbId) -> Vec<u8> {
        format!("vb/{:04}/state", vb.get()).into_bytes()
    }

    /// Replaces the contents of `out` by the record, which is at most 100 bytes long. It is written
    /// with every batch, and a large one costs time: 13 us instead of 8.6 for a batch of one
    /// document.
    pub fn encode(&self, vb: VbId, out: &mut Vec<u8>) {
        RecordWriter::new(out, BODY_LEN)
            .u64(self.uuid.get())
            .u64(self.high_seqno.get())
            .u64(self.purge_seqno.get())
            .u64(self.max_cas.get())
            .u64(self.counts.items)
            .u64(self.counts.tombstones)
            .u64(self.counts.bytes)
            .seal(RecordLocation::Named(&Self::storage_key(vb)));
    }

    /// Reads the record of `vb`.
    ///
    /// # Errors
    /// Fails if the version, checksum or length is wrong, or the purge seqno is above the high
    /// seqno.
    pub fn decode(vb: VbId, record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = RecordReader::open(record, RecordLocation::Named(&Self::storage_key(vb)))?;
        let state = Self {
            uuid: VbUuid::new(reader.u64()?),
            high_seqno: Seqno::new(reader.u64()?),
            purge_seqno: Seqno::new(reader.u64()?),
            max_cas: Cas::new(reader.u64()?),
            counts: Counts {
                items: reader.u64()?,
                tombstones: reader.u64()?,
                bytes: reader.u64()?,
            },
        };
        reader.end()?;
        if state.purge_seqno > state.high_seqno {
            return Err(RecordError("the purge seqno is above the high seqno"));
        }
        Ok(state)
    }
}
