//! A digest of the filter of a stream, kept in the consumer's positions.

use crate::number::u64_from;
use serde::{Deserialize, Serialize};

/// Identifies the filter of a stream: its key prefix, and whether it wants keys only.
///
/// A position was reached with one filter. Changes below it that only another filter selects were
/// never delivered, so a stream that resumed with the other filter would silently miss them. Such a
/// request is answered with a rollback ([`crate::RollbackReason::FilterChanged`]).
///
/// The digest consists of the length of the prefix, the keys-only flag and a CRC-32 of the prefix.
/// It is below 2^53, so JSON readers that use doubles keep it exactly. Two filters with the same
/// flag have the same digest only if their prefixes have the same length and the same CRC-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilterDigest(u64);

impl FilterDigest {
    /// Returns the digest of the filter with this key prefix. `is_keys_only` tells whether the
    /// stream leaves out values.
    #[must_use]
    pub fn of(prefix: &[u8], is_keys_only: bool) -> Self {
        // A key is at most 65,535 bytes long, so every longer prefix matches nothing and they may
        // share a length.
        let length = u64_from(prefix.len()).min((1 << 20) - 1);
        let crc = u64::from(crc32fast::hash(prefix));
        Self((length << 33) | (u64::from(is_keys_only) << 32) | crc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_filters_have_other_digests_and_all_are_json_safe() {
        let long = vec![7; 65_535];
        let prefixes: [&[u8]; 6] = [b"", b"a", b"b", b"ab", b"\0", &long];
        let mut seen = std::collections::HashSet::new();
        for prefix in prefixes {
            for is_keys_only in [false, true] {
                let digest = FilterDigest::of(prefix, is_keys_only);
                assert_eq!(digest, FilterDigest::of(prefix, is_keys_only));
                assert!(digest.0 < 1 << 53);
                assert!(seen.insert(digest), "{prefix:?} {is_keys_only}");
            }
        }
    }
}
