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

/// Stripes: at 64 writers two meet by chance in 1 of 16 writes.
const STRIPES: u64 = 1_024;

/// The stripes of all keys of all vBuckets.
#[derive(Debug)]
pub(crate) struct Stripes(Box<[CachePadded<Mutex<()>>]>);

/// Holds the stripes of some keys.
#[derive(Debug)]
#[must_use]
pub(crate) struct HeldStripes<'a> {
    _guards: Vec<MutexGuard<'a, ()>>,
}

impl Stripes {
    pub(crate) fn new() -> Self {
        Self(
            (0..STRIPES)
                .map(|_| CachePadded::new(Mutex::new(())))
                .collect(),
        )
    }

    /// Takes the stripes of these keys, in ascending order.
    pub(crate) fn hold<'k>(
        &self,
        vb: VbId,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> HeldStripes<'_> {
        let mut numbers: Vec<usize> = keys.map(|key| number(vb, key)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let guards = numbers
            .iter()
            .filter_map(|n| self.0.get(*n))
            .map(|s| s.lock())
            .collect();
        HeldStripes { _guards: guards }
    }
}

fn number(vb: VbId, key: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    (vb, key).hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES).unwrap_or(0)
}
