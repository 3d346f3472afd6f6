//! Serves the metrics of an engine while a command runs.

use crate::args;
use crate::output::{CommandError, IO, info};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use vbstore::Engine;
use vbstore::metrics::{Registration, Registry};
use vbstore_exporter::{Endpoints, Exporter, ExporterConfig, HealthReport};

/// Addresses to listen on: the first one that works is used.
#[derive(Debug)]
pub(crate) struct Listen(Vec<SocketAddr>);

impl Listen {
    /// Resolves the address of `--metrics`; returns `None` if it is not given. Called before the
    /// store is opened, so that a wrong address fails without touching the store.
    ///
    /// # Errors
    /// The host is unknown, or one of its addresses is not a loopback address and `--allow-remote`
    /// is not given.
    pub(crate) fn resolve(args: &args::ServingArgs) -> Result<Option<Self>, CommandError> {
        let Some(address) = &args.address else {
            return Ok(None);
        };
        let failed = |why: String| {
            let text = format!("--metrics: cannot resolve {address}: {why}");
            CommandError::new(IO, "io", text)
        };
        let resolved = address.to_socket_addrs();
        let mut resolved: Vec<SocketAddr> = resolved.map_err(|e| failed(e.to_string()))?.collect();
        // `localhost` mostly means 127.0.0.1, so IPv4 comes first.
        resolved.sort_by_key(SocketAddr::is_ipv6);
        if resolved.is_empty() {
            return Err(failed("the name has no address".to_owned()));
        }
        let remote = resolved.iter().find(|found| !found.ip().is_loopback());
        if let Some(remote) = remote.filter(|_| !args.allow_remote) {
            return Err(CommandError::usage(format!(
                "--metrics: {} is not a loopback address, so other machines could reach it; give \
                 --allow-remote to allow that",
                remote.ip()
            )));
        }
        Ok(Some(Self(resolved)))
    }
}

/// A metrics server, which runs until this is dropped. Must be dropped before the engine is closed.
pub(crate) struct RunningExporter {
    exporter: Exporter,
    _vbuckets: Option<Arc<Registration>>,
}

impl RunningExporter {
    /// Starts the server if there are addresses to listen on, and prints its URL on standard error.
    pub(crate) fn start(
        listen: Option<&Listen>,
        args: &args::ServingArgs,
        engine: &Engine,
    ) -> Result<Option<Self>, CommandError> {
        let Some(Listen(addresses)) = listen else {
            return Ok(None);
        };
        let by_vbucket = args.per_vbucket.then(Registry::new);
        let registration = by_vbucket
            .as_ref()
            .map(|registry| engine.register_vbuckets(registry))
            .transpose()?;
        let engine_for_health = engine.clone();
        let pages = Endpoints {
            registry: engine.telemetry().registry().clone(),
            vbuckets: by_vbucket,
            health: Arc::new(move || {
                let state = engine_for_health.health();
                match state.cause() {
                    None => HealthReport::Healthy,
                    Some(cause) => HealthReport::Unhealthy(format!("{}: {cause}", state.name())),
                }
            }),
        };
        let mut exporter = None;
        let mut refused = String::new();
        for address in addresses.iter().copied() {
            let config = ExporterConfig {
                address,
                allow_remote: args.allow_remote,
            };
            match Exporter::start(&config, pages.clone()) {
                Ok(started) => {
                    exporter = Some(started);
                    break;
                }
                Err(error) => refused = format!("cannot listen on {address}: {error}"),
            }
        }
        let exporter = exporter.ok_or_else(|| CommandError::new(IO, "io", refused))?;
        let exporting = Self {
            exporter,
            _vbuckets: registration,
        };
        // With port 0, this line is the only way to learn the port.
        info(format_args!("metrics at {}", exporting.url()));
        Ok(Some(exporting))
    }

    /// Returns the URL of the metrics.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.exporter.address())
    }
}
