//! Serving the figures of an engine while a command runs.

use crate::args;
use crate::output::{Failure, IO, say};
use std::sync::Arc;
use vbstore::Engine;
use vbstore::metrics::{Registration, Registry};
use vbstore_exporter::{Exporter, ExporterConfig, Health, Pages};

/// Serves until it is dropped, which must be before the engine is closed.
pub(crate) struct Exporting {
    exporter: Exporter,
    _vbuckets: Option<Arc<Registration>>,
}

impl Exporting {
    /// Serves if the command line says where, and says so on standard error.
    pub(crate) fn start(args: &args::Serving, engine: &Engine) -> Result<Option<Self>, Failure> {
        let Some(address) = args.address else {
            return Ok(None);
        };
        let by_vbucket = args.per_vbucket.then(Registry::new);
        let registration = by_vbucket
            .as_ref()
            .map(|registry| engine.register_vbuckets(registry))
            .transpose()?;
        let of_health = engine.clone();
        let pages = Pages {
            registry: engine.telemetry().registry().clone(),
            vbuckets: by_vbucket,
            health: Arc::new(move || {
                let state = of_health.health();
                match state.cause() {
                    None => Health::Good,
                    Some(cause) => Health::Bad(format!("{}: {cause}", state.name())),
                }
            }),
        };
        let config = ExporterConfig {
            address,
            allow_remote: args.allow_remote,
        };
        let exporter = Exporter::start(&config, pages).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidInput {
                Failure::usage(format!("--metrics: {error}; --allow-remote allows it"))
            } else {
                Failure::new(IO, "io", format!("cannot listen on {address}: {error}"))
            }
        })?;
        let exporting = Self {
            exporter,
            _vbuckets: registration,
        };
        // With port 0 nobody else knows.
        say(format_args!("figures at {}", exporting.url()));
        Ok(Some(exporting))
    }

    /// Where the figures are.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.exporter.address())
    }
}
