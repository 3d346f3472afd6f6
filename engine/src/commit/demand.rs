//! What others ask the flusher and the syncer to do soon.

use crate::signals::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks for a flush or a sync that nobody waits for with the lead.
pub(crate) struct Demand {
    flush: AtomicBool,
    sync: AtomicBool,
    signals: Arc<Signals>,
}

impl Demand {
    pub(crate) fn new(signals: Arc<Signals>) -> Self {
        Self {
            flush: AtomicBool::new(false),
            sync: AtomicBool::new(false),
            signals,
        }
    }

    /// Asks the flusher to flush soon: somebody has a ticket and may not be waiting.
    pub(crate) fn flush(&self) {
        if !self.flush.swap(true, Ordering::AcqRel) {
            self.signals.flusher.wake();
        }
    }

    /// Asks the syncer to sync soon: a stream has read what is not synced yet.
    pub(crate) fn sync(&self) {
        if !self.sync.swap(true, Ordering::AcqRel) {
            self.signals.syncer.wake();
        }
    }

    /// Returns whether a flush was asked for since the last call.
    pub(crate) fn take_flush(&self) -> bool {
        self.flush.swap(false, Ordering::AcqRel)
    }

    /// Returns whether a sync was asked for since the last call.
    pub(crate) fn take_sync(&self) -> bool {
        self.sync.swap(false, Ordering::AcqRel)
    }
}
