//! What is served, and where.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use vbstore_metrics::Registry;

/// Where to listen.
#[derive(Clone, Debug)]
pub struct ExporterConfig {
    /// The address; port 0 lets the system choose. Default: 127.0.0.1, port 0.
    pub address: SocketAddr,
    /// Whether an address of another interface than the loopback one is allowed. Default: no.
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

/// How a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes writes.
    Good,
    /// It does not; why.
    Bad(String),
}

/// What is served.
#[derive(Clone)]
pub struct Pages {
    /// The figures.
    pub registry: Registry,
    /// Those of single vBuckets; `None` if they are not served.
    pub vbuckets: Option<Registry>,
    /// How the program is. Called by the thread that serves; must not wait.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}
