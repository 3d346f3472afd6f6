//! An HTTP server that exports metrics to Prometheus, for programs without an HTTP server.
//!
//! It runs on one named thread with its own runtime, and gathers metrics on up to two more. It
//! listens on the loopback interface unless configured otherwise. It has neither TLS nor
//! authentication: put a proxy in front of it to serve other machines.
//!
//! | path | answer |
//! |---|---|
//! | `/` | a page with links |
//! | `/metrics` | the metrics |
//! | `/metrics/vbuckets` | the metrics of single vBuckets, if configured |
//! | `/healthz` | 200 while writes are accepted, 503 with the reason otherwise |
//!
//! # Limits
//! A client can occupy one of 128 connections for at most 10 s. The head of a request may take 3 s,
//! 16 KiB and 64 headers; gathering may take 5 s; a connection serves one request. Further clients
//! wait in the system's accept queue. At most two requests gather metrics at the same time.

mod config;
mod routes;
mod serve;

pub use config::{Endpoints, ExporterConfig, HealthReport};

use serve::Server;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::Notify;

/// A running exporter. Dropping it stops the server: open connections are closed, and no more are
/// accepted.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts to listen, and serves on a thread of its own.
    ///
    /// # Errors
    /// Returns [`io::ErrorKind::InvalidInput`] for an address outside the loopback interface,
    /// unless the configuration allows it, and any error of binding the address or starting the
    /// thread.
    pub fn start(config: &ExporterConfig, endpoints: Endpoints) -> io::Result<Self> {
        let is_remote = !config.address.ip().is_loopback();
        if is_remote && !config.allow_remote {
            let detail = format!(
                "{} is not an address of the loopback interface, and remote access is not allowed",
                config.address
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, detail));
        }
        let listener = std::net::TcpListener::bind(config.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if is_remote {
            tracing::warn!(%address, "metrics are served to other machines without authentication");
        }
        let stop = Arc::new(Notify::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .thread_name("vbstore-gather")
            .max_blocking_threads(serve::GATHERS_MAX)
            .build()?;
        let (server, until) = (Server::new(endpoints), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("vbstore-http".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = server.run(listener) => {}
                        () = until.notified() => {}
                    }
                });
                // A gathering thread cannot be interrupted: do not wait for it longer than this.
                runtime.shutdown_timeout(serve::ANSWER_WITHIN);
            })?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Returns the address that the exporter listens on, with the port that the system chose for 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the exporter panicked");
        }
    }
}
