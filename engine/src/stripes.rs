//! Key stripes: one writer of a key at a time.
//!
//! Every write reads the key's present state, from the checkpoint and then from disk, while it holds the
//! key's stripe, so that no other change of that key comes in between, and takes the vBucket's lock only
//! for the assignment.
//!
//! Each vBucket has stripes of its own: a batch of many keys takes most of them and reads the disk
//! meanwhile, which no writer of another vBucket may have to wait for.

use parking_lot::{Mutex, MutexGuard};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use vbstore_core::lock_order::{Held, Rank};

/// Stripes of a vBucket: with 64 writers of one vBucket two meet by chance in 1 of 16 writes. A byte
/// each, and so 1 MiB for 1,024 vBuckets; writers of one vBucket share its lock, so that it does not
/// matter that they share cache lines here.
const STRIPES: usize = 1_024;

/// The stripes of the keys of one vBucket.
pub(crate) struct Stripes(Box<[Mutex<()>]>);

/// Holds the stripes of some keys.
#[must_use]
pub(crate) struct HeldStripes<'a> {
    // ORDER: released first, counted as released second.
    _guards: Vec<MutexGuard<'a, ()>>,
    _held: Held,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    /// Takes the stripes of these keys, in ascending order. A thread holds the stripes of one write.
    #[expect(
        clippy::indexing_slicing,
        reason = "a stripe's number is below their count"
    )]
    pub(crate) fn hold<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> HeldStripes<'_> {
        let held = Held::take(Rank::Stripes);
        let mut numbers: Vec<usize> = keys.map(number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        HeldStripes {
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
