//! How much memory the checkpoints of all vBuckets take.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of all checkpoints. Changed under the lock of the vBucket concerned.
#[derive(Default)]
pub(crate) struct Memory {
    used: AtomicU64,
}

impl Memory {
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Takes off what was freed.
    ///
    /// # Panics
    /// When more is freed than was ever added: the count is wrong, and with it the quota.
    pub(crate) fn subtract(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        assert!(before >= bytes, "{bytes} bytes freed of {before}");
    }
}
