//! Key stripes: locks that admit one writer of a key at a time.
//!
//! Every write reads the current state of its key, first from the checkpoints and then from disk.
//! It holds the key's stripe until it has its seqno, so no other write changes the key in between.
//! It needs the vBucket's lock only to assign the seqno.
//!
//! Each vBucket has its own stripes. A batch of many keys takes most of them, and holds them while
//! it reads the disk. Writers of other vBuckets must not wait for that.

use parking_lot::{Mutex, MutexGuard};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use vbstore_core::lock_order::{LockRank, RankGuard};

/// Stripes per vBucket. With 64 writers of one vBucket, two collide by chance in 1 of 16 writes. A
/// stripe is one byte, which makes 1 MiB for 1,024 vBuckets. Several stripes share a cache line.
/// That does not matter, because the writers of a vBucket share its lock anyway.
const STRIPES: usize = 1_024;

/// The stripes of the keys of one vBucket.
pub(crate) struct Stripes(Box<[Mutex<()>]>);

/// The held stripes of some keys. Dropping it releases them.
#[must_use]
pub(crate) struct StripesGuard<'a> {
    // ORDER: fields drop in this order. The guards are released before the lock-order check forgets
    // them.
    _guards: Vec<MutexGuard<'a, ()>>,
    _held: RankGuard,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Locks the stripes of these keys in ascending order, so that writers cannot deadlock. A
    /// thread holds the stripes of at most one write.
    #[expect(
        clippy::indexing_slicing,
        reason = "a stripe's number is below their count"
    )]
    pub(crate) fn hold<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> StripesGuard<'_> {
        let held = RankGuard::take(LockRank::Stripes);
        let mut numbers: Vec<usize> = keys.map(number).collect();
        numbers.sort_unstable();
        // Several keys may share a stripe, which is not re-entrant.
        numbers.dedup();
        StripesGuard {
            _guards: numbers.into_iter().map(|n| self.0[n].lock()).collect(),
            _held: held,
        }
    }
}

/// Returns the number of a key's stripe, below [`STRIPES`].
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the low bits of a hash are as good as any"
)]
fn number(key: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as usize % STRIPES
}
