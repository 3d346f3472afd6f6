//! Exclusive upper bounds of the key ranges of a vBucket's families.

/// Above every seqno key, which has 8 bytes.
pub(super) const SEQNOS_END: [u8; 9] = [0xff; 9];
/// Above every document key: none is longer than 65,535 bytes.
pub(super) static KEYS_END: [u8; 1 << 16] = [0xff; 1 << 16];
