//! The tuning of an open engine.

use crate::config::Tuning;
use parking_lot::RwLock;
use std::sync::Arc;
use vbstore_core::lock_order::{LockRank, RankGuard};

/// The current tuning. Replaced as a whole, so that a reader never sees a mixture of two.
pub(crate) struct CurrentTuning(RwLock<Arc<Tuning>>);

impl CurrentTuning {
    pub(crate) fn new(tuning: Tuning) -> Self {
        Self(RwLock::new(Arc::new(tuning)))
    }

    /// Returns the current tuning. Takes a leaf lock.
    pub(crate) fn get(&self) -> Arc<Tuning> {
        let _held = RankGuard::take(LockRank::Leaf);
        Arc::clone(&self.0.read())
    }

    /// Replaces the tuning. The caller has validated the new one.
    pub(crate) fn replace(&self, tuning: Tuning) {
        let _held = RankGuard::take(LockRank::Leaf);
        *self.0.write() = Arc::new(tuning);
    }
}
