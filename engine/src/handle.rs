//! The state that all handles of one engine share.

use crate::closing::EngineCloser;
use crate::error::{Error, Result};
use crate::samples::{MetricSources, Registrations};
use crate::services::Services;
use crate::tasks;
use std::sync::Arc;

/// An open engine. It is closed when the last `Arc` is dropped. Background threads hold only the
/// services, so they do not keep it open.
pub(crate) struct EngineHandle {
    pub(crate) services: Arc<Services>,
    pub(crate) samples: Arc<MetricSources>,
    closer: Arc<EngineCloser>,
}

impl EngineHandle {
    /// Makes the handle of an engine. Starts its background threads if `with_threads`. An engine
    /// that only reads has none, because all background tasks are about writing.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started.
    pub(crate) fn new(
        services: Services,
        with_threads: bool,
        registrations: Registrations,
    ) -> Result<Arc<Self>> {
        let services = Arc::new(services);
        let samples = Arc::new(MetricSources::new(&services, registrations));
        let closer = Arc::new(EngineCloser::new(
            Arc::clone(&services),
            Arc::clone(&samples),
        ));
        let handle = Arc::new(Self {
            services,
            samples,
            closer,
        });
        if with_threads && !handle.services.health.is_read_only() {
            tasks::start(&handle.services, |thread| handle.closer.add_thread(thread))
                .map_err(|e| Error::io("start a background thread", e))?;
        }
        Ok(handle)
    }

    pub(crate) fn close(&self) -> Result<()> {
        self.closer.close()
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        if self.services.gate.opener().check_id().is_err() {
            // This is a fork, and the store belongs to the parent: nothing is closed, unlocked or
            // deleted here. Leaked, because dropping the samples would take the registry's lock,
            // which a scrape may have held at the fork.
            self.closer.leak_threads();
            Box::leak(Box::new((
                Arc::clone(&self.services),
                Arc::clone(&self.samples),
                Arc::clone(&self.closer),
            )));
            return;
        }
        match self.close() {
            // Busy: the close waits for this very thread, and follows by itself.
            Ok(()) | Err(Error::Busy { .. }) => {}
            Err(error) => tracing::error!(%error, "store not closed cleanly"),
        }
    }
}
