//! Requests to the flusher and the syncer to act soon.

use crate::signals::TaskSignals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Requests a flush or a sync from a background task, for callers that do not take the lead.
pub(crate) struct Demand {
    flush: AtomicBool,
    sync: AtomicBool,
    signals: Arc<TaskSignals>,
}

impl Demand {
    pub(crate) fn new(signals: Arc<TaskSignals>) -> Self {
        Self {
            flush: AtomicBool::new(false),
            sync: AtomicBool::new(false),
            signals,
        }
    }

    /// Asks the flusher to flush soon. Needed for tickets: no thread may be waiting for a ticket,
    /// so no thread would flush.
    pub(crate) fn flush(&self) {
        if !self.flush.swap(true, Ordering::AcqRel) {
            self.signals.flusher.wake();
        }
    }

    /// Asks the syncer to sync soon. A stream that has read unsynced changes needs it.
    pub(crate) fn sync(&self) {
        if !self.sync.swap(true, Ordering::AcqRel) {
            self.signals.syncer.wake();
        }
    }

    /// Returns whether a flush was requested since the last call.
    pub(crate) fn take_flush(&self) -> bool {
        self.flush.swap(false, Ordering::AcqRel)
    }

    /// Returns whether a sync was requested since the last call.
    pub(crate) fn take_sync(&self) -> bool {
        self.sync.swap(false, Ordering::AcqRel)
    }
}
