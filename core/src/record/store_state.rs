//! The state record of the whole store.

use super::{RecordError, RecordLocation, RecordReader, RecordWriter};
use crate::ids::Cas;

/// The state of the whole store. A store created before this record existed has the default state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Number of times the store was opened after an unclean stop.
    pub unclean_stops: u64,
    /// Upper limit of every CAS taken from the clock so far.
    pub cas_reserved: Cas,
}

impl StoreState {
    /// The storage key of the record.
    pub const STORAGE_KEY: &[u8] = b"store";

    /// Replaces the contents of `out` by the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        RecordWriter::new(out, 8 * 2)
            .u64(self.unclean_stops)
            .u64(self.cas_reserved.get())
            .seal(RecordLocation::Named(Self::STORAGE_KEY));
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Fails if the version, checksum or length is wrong.
    pub fn decode(record: &[u8]) -> Result<Self, RecordError> {
        let mut reader = RecordReader::open(record, RecordLocation::Named(Self::STORAGE_KEY))?;
        let state = Self {
            unclean_stops: reader.u64()?,
            cas_reserved: Cas::new(reader.u64()?),
        };
        reader.end()?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_round_trips_and_a_cut_or_flipped_one_is_refused() {
        let state = StoreState {
            unclean_stops: 3,
            cas_reserved: Cas::new(1 << 50),
        };
        let mut record = Vec::new();
        state.encode(&mut record);
        assert_eq!(StoreState::decode(&record), Ok(state));
        for cut in 0..record.len() {
            assert!(StoreState::decode(&record[..cut]).is_err(), "cut to {cut}");
        }
        for byte in 0..record.len() {
            let mut flipped = record.clone();
            flipped[byte] ^= 0x10;
            assert!(StoreState::decode(&flipped).is_err(), "byte {byte}");
        }
    }
}
