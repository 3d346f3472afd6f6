//! Identifiers and sequence values: vBucket ids, seqnos, CAS values and uuids.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest number of vBuckets a store can have.
pub const VBUCKETS_MAX: u16 = 1_024;

/// The largest integer that a JSON reader using doubles keeps exactly: 2^53 - 1. No
/// [`VbUuid::from_random`] is above it, and no [`Cas`] taken from the clock before the year 2255.
pub const JSON_SAFE_MAX: u64 = (1 << 53) - 1;

/// Identifies a vBucket: a shard of the key space with its own seqnos and its own history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VbId(u16);

impl VbId {
    /// Returns the id with this number. Does not check that a store has such a vBucket; the engine
    /// does when it gets the id.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Returns the number, counted from 0.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns the number as an index into a table of vBuckets.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Returns the vBucket of a key in a store of `vbuckets` vBuckets: bits 16 to 30 of the key's
    /// CRC-32, modulo `vbuckets`. The client libraries of Couchbase Server use the same formula.
    ///
    /// A count of 0 is treated as 1.
    #[must_use]
    pub fn of_key(key: &[u8], vbuckets: u16) -> Self {
        let [high, low, ..] = crc32fast::hash(key).to_be_bytes();
        let hash = u16::from_be_bytes([high & 0x7f, low]);
        Self(hash % vbuckets.max(1))
    }
}

impl fmt::Display for VbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vb_{:04}", self.0)
    }
}

/// A place in the order of changes of one vBucket. Each change gets the next higher one; 0 means
/// "none" or "before the first change".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seqno(u64);

impl Seqno {
    /// Before the first change.
    pub const ZERO: Self = Self(0);
    /// The largest seqno; never assigned to a change. Used as an open upper bound.
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the seqno with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the seqno after this one, or `None` at [`Seqno::MAX`].
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }

    /// Returns the seqno `count` after this one, at most [`Seqno::MAX`]. For bounds, which a caller
    /// may choose freely; seqnos to assign come from [`Self::next`].
    #[must_use]
    pub fn saturating_add(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// Returns the distance from `earlier` to this seqno, or 0 if `earlier` is higher. That can
    /// happen: the two may have been read at different moments, with a deletion of the vBucket in
    /// between.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns the storage key: big endian, so that keys sort by number.
    #[must_use]
    pub const fn to_key(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Returns the seqno of a storage key, or `None` if the key is not 8 bytes long.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        key.try_into().ok().map(u64::from_be_bytes).map(Self)
    }
}

impl fmt::Display for Seqno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value that changes with every change of a key. A write may require that the key still has a
/// certain CAS (compare and swap).
///
/// The engine assigns microseconds since 1970, raised where needed so that CAS values only rise
/// within a vBucket. Microseconds, unlike nanoseconds, stay below [`JSON_SAFE_MAX`] until the year
/// 2255. 0 is never assigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cas(u64);

impl Cas {
    /// Returns the CAS with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Upper limit for a CAS restored from another store: 2^62. Later ones must exceed it, so
    /// headroom is kept.
    pub const RESTORED_MAX: Self = Self(1 << 62);

    /// More changes than a vBucket can lose in one unclean stop. Changes that are not synced are at
    /// most one sync interval old, and 2^32 changes take an hour at a million a second.
    const LOST_MAX: u64 = 1 << 32;

    /// Returns a CAS above every one that may have been assigned and lost in an unclean stop.
    /// `self` is the largest known CAS of the vBucket, `reserved` the largest that could be taken
    /// from the clock.
    ///
    /// A lost CAS either came from the clock, and is at most `reserved`, or is one more than its
    /// predecessor.
    #[must_use]
    pub fn above_lost(self, reserved: Self) -> Self {
        Self(self.0.max(reserved.0) + Self::LOST_MAX)
    }

    /// Returns the CAS of a change made at `micros` since 1970 in a vBucket whose largest CAS is
    /// `self`.
    ///
    /// # Panics
    /// Panics if `self` is `u64::MAX`, as two changes with one CAS could not be told apart. A
    /// restored CAS is at most [`Self::RESTORED_MAX`], which leaves room for 2^63 changes.
    #[must_use]
    pub fn next(self, micros: u64) -> Self {
        Self((self.0 + 1).max(micros))
    }
}

impl fmt::Display for Cas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies a branch of a vBucket's history. Never 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct VbUuid(u64);

impl VbUuid {
    /// Returns the uuid with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns a uuid made from 64 random bits, between 1 and [`JSON_SAFE_MAX`].
    #[must_use]
    pub const fn from_random(bits: u64) -> Self {
        let value = bits & JSON_SAFE_MAX;
        Self(if value == 0 { 1 } else { value })
    }

    /// Returns the value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for VbUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identifies a store. Assigned once, when its directory is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreUuid([u8; 16]);

impl StoreUuid {
    /// Returns the uuid with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Parses 32 hexadecimal digits. Returns `None` for any other text, signs and separators
    /// included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16)
            .ok()
            .map(|n| Self(n.to_be_bytes()))
    }
}

impl fmt::Display for StoreUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vbucket_of_key_follows_the_clients_formula() {
        // CRC-32 of "123456789" is the check value 0xcbf43926 of the algorithm's own definition.
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(
            VbId::of_key(b"123456789", 1_024).get(),
            (0xcbf4 & 0x7fff) % 1_024
        );
        assert_eq!(VbId::of_key(b"anything", 1), VbId::new(0));
        assert_eq!(VbId::of_key(b"anything", 0), VbId::new(0));
    }

    #[test]
    fn seqno_keys_sort_as_numbers() {
        let mut keys: Vec<_> = [300, 2, u64::MAX, 255, 256, 0]
            .map(|n| Seqno::new(n).to_key())
            .into();
        keys.sort_unstable();
        let back: Vec<_> = keys
            .iter()
            .filter_map(|k| Seqno::from_key(k))
            .map(Seqno::get)
            .collect();
        assert_eq!(back, [0, 2, 255, 256, 300, u64::MAX]);
        assert_eq!(Seqno::from_key(b"short"), None);
    }

    #[test]
    fn seqno_arithmetic_stops_at_the_ends() {
        assert_eq!(
            Seqno::new(u64::MAX - 2).next(),
            Some(Seqno::new(u64::MAX - 1))
        );
        assert_eq!(Seqno::MAX.next(), None);
        assert_eq!(Seqno::new(u64::MAX - 2).saturating_add(9), Seqno::MAX);
        assert_eq!(Seqno::new(3).since(Seqno::new(5)), 0);
    }

    #[test]
    fn cas_rises_when_the_clock_goes_back() {
        let first = Cas::new(0).next(1_000);
        let second = first.next(10);
        assert_eq!((first.get(), second.get()), (1_000, 1_001));
    }

    #[test]
    fn uuids_survive_text_and_doubles() {
        let uuid = StoreUuid::new([0xab; 16]);
        assert_eq!(StoreUuid::parse(&uuid.to_string()), Some(uuid));
        assert_eq!(StoreUuid::parse("+b0000000000000000000000000000000"), None);
        assert_eq!(VbUuid::from_random(0), VbUuid::new(1));
        assert_eq!(VbUuid::from_random(u64::MAX).get(), JSON_SAFE_MAX);
    }
}
