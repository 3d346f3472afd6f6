//! What a consumer wants of a vBucket's changes, as a number that its positions carry.

use crate::number::u64_from;
use serde::{Deserialize, Serialize};

/// Identifies the filter of a stream: its key prefix, and whether it wants values.
///
/// A position was reached with one filter. What another filter wants besides was never delivered, so
/// a stream that resumes with another filter would miss it in silence: it is answered with a rollback
/// ([`crate::RollbackReason::FilterChanged`]).
///
/// The digest holds the length of the prefix, whether values are wanted, and a CRC-32 of the prefix:
/// below 2^53, so that it survives JSON readers that work in doubles. Two filters can only be
/// confused if their prefixes have the same length and the same CRC-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FilterDigest(u64);

impl FilterDigest {
    /// Returns the digest of a filter.
    #[must_use]
    pub fn of(prefix: &[u8], is_keys_only: bool) -> Self {
        // Keys are at most 65,535 bytes long: longer prefixes all match none.
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
