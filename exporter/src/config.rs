//! Configuration of the exporter: the address, and the pages it serves.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use vbstore_metrics::Registry;

/// The address to listen on.
#[derive(Clone, Debug)]
pub struct ExporterConfig {
    /// The address. With port 0 the system chooses a free port. Default: 127.0.0.1, port 0.
    pub address: SocketAddr,
    /// Whether an address outside the loopback interface is allowed. Default: no, since the
    /// exporter has neither TLS nor authentication.
    pub allow_remote: bool,
}

impl Default for ExporterConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            allow_remote: false,
        }
    }
}

/// The health of the program, as `/healthz` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthReport {
    /// The program accepts writes. Answered with status 200.
    Healthy,
    /// The program refuses writes, for this reason. Answered with status 503.
    Unhealthy(String),
}

/// The pages that an exporter serves.
#[derive(Clone)]
pub struct Endpoints {
    /// The metrics for `/metrics`.
    pub registry: Registry,
    /// The metrics for `/metrics/vbuckets`; `None` if that page is not served.
    pub vbuckets: Option<Registry>,
    /// Returns the health for `/healthz`. Called on the thread that serves all connections, so it
    /// must not block.
    pub health: Arc<dyn Fn() -> HealthReport + Send + Sync>,
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}
