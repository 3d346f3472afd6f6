//! Serving the figures of an engine while a command runs.

use crate::args;
use crate::output::{CommandError, IO, say};
use std::sync::Arc;
use vbstore::Engine;
use vbstore::metrics::{Registration, Registry};
use vbstore_exporter::{Endpoints, Exporter, ExporterConfig, HealthReport};

/// Serves until it is dropped, which must be before the engine is closed.
pub(crate) struct RunningExporter {
    exporter: Exporter,
    _vbuckets: Option<Arc<Registration>>,
}

impl RunningExporter {
    /// Serves if the command line says where, and says so on standard error.
    pub(crate) fn start(
        args: &args::ServingArgs,
        engine: &Engine,
    ) -> Result<Option<Self>, CommandError> {
        let Some(address) = args.address else {
            return Ok(None);
        };
        let by_vbucket = args.per_vbucket.then(Registry::new);
        let registration = by_vbucket
            .as_ref()
            .map(|registry| engine.register_vbuckets(registry))
            .transpose()?;
        let of_health = engine.clone();
        let pages = Endpoints {
            registry: engine.telemetry().registry().clone(),
            vbuckets: by_vbucket,
            health: Arc::new(move || {
                let state = of_health.health();
                match state.cause() {
                    None => HealthReport::Healthy,
                    Some(cause) => HealthReport::Unhealthy(format!("{}: {cause}", state.name())),
                }
            }),
        };
        let config = ExporterConfig {
            address,
            allow_remote: args.allow_remote,
        };
        let exporter = Exporter::start(&config, pages).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidInput {
                CommandError::usage(format!("--metrics: {error}; --allow-remote allows it"))
            } else {
                CommandError::new(IO, "io", format!("cannot listen on {address}: {error}"))
            }
        })?;
        let exporting = Self {
            exporter,
            _vbuckets: registration,
        };
        // With port 0 nobody else knows.
        say(format_args!("figures at {}", exporting.url()))?;
        Ok(Some(exporting))
    }

    /// Where the figures are.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.exporter.address())
    }
}
