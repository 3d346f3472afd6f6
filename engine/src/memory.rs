//! How much memory the checkpoints of all vBuckets take.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of all checkpoints. Changed under the lock of the vBucket concerned.
#[derive(Debug, Default)]
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

    pub(crate) fn subtract(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        debug_assert!(before >= bytes, "{bytes} bytes given back of {before}");
    }
}
