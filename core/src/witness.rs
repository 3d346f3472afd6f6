//! The durability witness: a 64-byte record of how much was synced.
//!
//! RocksDB's default recovery accepts a log with a flipped bit and opens the store with half of the
//! synced records gone. The witness is the engine's own record of how far the log was synced. It is
//! overwritten in place after each synced batch, before that batch is acknowledged, and read at the
//! next open. The file has two slots that are written in turn, so a torn write damages only one.

use crate::ids::StoreUuid;

/// Bytes of one slot.
pub const SLOT_LEN: usize = 64;
/// Number of slots in the file.
pub const SLOTS: usize = 2;
/// Bytes of the whole file.
pub const FILE_LEN: usize = SLOT_LEN * SLOTS;

const MAGIC: [u8; 8] = *b"vbwitns1";

/// The contents of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The store that the witness belongs to.
    pub store: StoreUuid,
    /// The number of this write, one higher than the previous one. The slot with the higher number
    /// is the newer.
    pub generation: u64,
    /// RocksDB's sequence number after the last synced batch.
    pub rocks_sequence: u64,
    /// After a clean close, a digest of the names and lengths of the data files, which is never 0.
    /// While the store is open, 0.
    pub clean_digest: u64,
    /// A digest that identifies the files of the store by inode and time of birth. 0 if it was not
    /// recorded.
    pub files_digest: u64,
}

impl Witness {
    /// Returns the index of the slot for this generation.
    #[must_use]
    pub fn slot(&self) -> u64 {
        self.generation % 2
    }

    /// Returns the bytes of the slot.
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_LEN] {
        let mut out = Vec::with_capacity(SLOT_LEN);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(self.store.bytes());
        out.extend_from_slice(&self.generation.to_be_bytes());
        out.extend_from_slice(&self.rocks_sequence.to_be_bytes());
        out.extend_from_slice(&self.clean_digest.to_be_bytes());
        out.extend_from_slice(&self.files_digest.to_be_bytes());
        out.resize(SLOT_LEN - 4, 0);
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        let mut slot = [0; SLOT_LEN];
        slot.copy_from_slice(&out);
        slot
    }

    /// Decodes a slot. Returns `None` if it was torn, is corrupt or was never written.
    #[must_use]
    pub fn decode(slot: &[u8]) -> Option<Self> {
        let slot: &[u8; SLOT_LEN] = slot.try_into().ok()?;
        let (sealed, crc) = slot.split_at(SLOT_LEN - 4);
        if crc32fast::hash(sealed).to_be_bytes() != crc || !sealed.starts_with(&MAGIC) {
            return None;
        }
        let number = |at: usize| -> Option<u64> {
            Some(u64::from_be_bytes(
                sealed.get(at..at.checked_add(8)?)?.try_into().ok()?,
            ))
        };
        Some(Self {
            store: StoreUuid::new(sealed.get(8..24)?.try_into().ok()?),
            generation: number(24)?,
            rocks_sequence: number(32)?,
            clean_digest: number(40)?,
            files_digest: number(48)?,
        })
    }

    /// Returns the newest readable slot of a whole file, or `None` if there is none.
    #[must_use]
    pub fn newest(file: &[u8]) -> Option<Self> {
        file.chunks(SLOT_LEN)
            .take(SLOTS)
            .filter_map(Self::decode)
            .max_by_key(|w| w.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(generation: u64) -> Witness {
        Witness {
            store: StoreUuid::new([7; 16]),
            generation,
            rocks_sequence: generation * 10,
            clean_digest: 0,
            files_digest: generation + 1,
        }
    }

    #[test]
    fn the_newer_slot_wins_and_a_torn_one_leaves_the_other() {
        let mut file = [witness(4).encode(), witness(5).encode()].concat();
        assert_eq!(Witness::newest(&file), Some(witness(5)));

        for torn in SLOT_LEN..FILE_LEN {
            let mut cut = file.clone();
            cut[torn] ^= 0x10;
            assert_eq!(Witness::newest(&cut), Some(witness(4)), "flip at {torn}");
        }
        file.fill(0);
        assert_eq!(Witness::newest(&file), None);
        assert_eq!(Witness::newest(&[]), None);
    }
}
