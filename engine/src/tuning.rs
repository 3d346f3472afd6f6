//! The tuning in force.

use crate::config::Tuning;
use parking_lot::RwLock;
use std::sync::Arc;
use vbstore_core::lock_order::{Held, Rank};

/// The tuning of an open engine, replaced as a whole.
pub(crate) struct CurrentTuning(RwLock<Arc<Tuning>>);

impl CurrentTuning {
    pub(crate) fn new(tuning: Tuning) -> Self {
        Self(RwLock::new(Arc::new(tuning)))
    }

    /// Returns the tuning in force. A leaf in the order of locks.
    pub(crate) fn get(&self) -> Arc<Tuning> {
        let _held = Held::take(Rank::Leaf);
        Arc::clone(&self.0.read())
    }

    /// Replaces the tuning, which the caller has validated.
    pub(crate) fn replace(&self, tuning: Tuning) {
        let _held = Held::take(Rank::Leaf);
        *self.0.write() = Arc::new(tuning);
    }
}
