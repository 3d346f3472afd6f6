//! Key stripes: one writer of a key at a time.
//!
//! A write that depends on the key's present state reads the checkpoint and then the disk while it
//! holds the key's stripe, so that no other change of that key comes in between, and takes the
//! vBucket's lock only for the assignment. Writes that depend on nothing take the stripe too: it
//! is what makes "in between" impossible.

use crossbeam::utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use vbstore_core::VbId;
use vbstore_core::lock_order::{Held, Rank};

/// Stripes: at 64 writers two meet by chance in 1 of 16 writes.
const STRIPES: usize = 1_024;

/// The stripes of all keys of all vBuckets.
pub(crate) struct Stripes(Box<[CachePadded<Mutex<()>>]>);

/// Holds the stripes of some keys.
#[must_use]
pub(crate) struct HeldStripes<'a> {
    // ORDER: released first, counted as released second.
    _guards: Vec<MutexGuard<'a, ()>>,
    _held: Held,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        let stripe = |_| CachePadded::new(Mutex::new(()));
        Self((0..STRIPES).map(stripe).collect())
    }

    /// Takes the stripes of these keys, in ascending order. A thread holds the stripes of one write.
    #[expect(
        clippy::indexing_slicing,
        reason = "a stripe's number is below their count"
    )]
    pub(crate) fn hold<'k>(
        &self,
        vb: VbId,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> HeldStripes<'_> {
        let held = Held::take(Rank::Stripes);
        let mut numbers: Vec<usize> = keys.map(|key| number(vb, key)).collect();
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
fn number(vb: VbId, key: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    (vb, key).hash(&mut hasher);
    hasher.finish() as usize % STRIPES
}
