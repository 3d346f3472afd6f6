//! The ends of the key ranges of a vBucket's families.

/// Above every seqno of 8 bytes.
pub(super) const SEQNOS_END: [u8; 9] = [0xff; 9];
/// Above every key: none is longer than 65,535 bytes.
pub(super) static KEYS_END: [u8; 1 << 16] = [0xff; 1 << 16];
