//! What all handles of one engine share.

use crate::closing::Closing;
use crate::error::{Error, Result};
use crate::samples::{Places, Samples};
use crate::services::Services;
use crate::tasks;
use std::sync::Arc;

/// Closes the engine when the last clone is gone. Background threads hold the services only.
pub(crate) struct Handle {
    pub(crate) services: Arc<Services>,
    pub(crate) samples: Arc<Samples>,
    closing: Arc<Closing>,
}

impl Handle {
    /// Makes the handle of an engine, and starts its threads if it is to have any. One that only reads
    /// has none: all that they do is about writing.
    ///
    /// # Errors
    /// [`Error::Io`] when a thread cannot be started.
    pub(crate) fn new(services: Services, with_threads: bool, places: Places) -> Result<Arc<Self>> {
        let services = Arc::new(services);
        let samples = Arc::new(Samples::new(&services, places));
        let closing = Arc::new(Closing::new(Arc::clone(&services), Arc::clone(&samples)));
        let handle = Arc::new(Self {
            services,
            samples,
            closing,
        });
        if with_threads && !handle.services.health.is_read_only() {
            tasks::start(&handle.services, |thread| handle.closing.will_stop(thread))
                .map_err(|e| Error::io("start a thread", e))?;
        }
        Ok(handle)
    }

    pub(crate) fn close(&self) -> Result<()> {
        self.closing.close()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.services.gate.opener().check_id().is_err() {
            // The store is the parent's: nothing of it is closed, unlocked or deleted here.
            // Nor are the figures taken out of the registry: a scrape may have held its lock at the fork.
            self.closing.leak_threads();
            Box::leak(Box::new((
                Arc::clone(&self.services),
                Arc::clone(&self.samples),
                Arc::clone(&self.closing),
            )));
            return;
        }
        match self.close() {
            // Busy: this is a thread that the close waits for; it follows by itself.
            Ok(()) | Err(Error::Busy { .. }) => {}
            Err(error) => tracing::error!(%error, "store not closed cleanly"),
        }
    }
}
