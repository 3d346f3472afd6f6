//! Serves figures to Prometheus over HTTP, for programs that have no server of their own.
//!
//! One named thread with a runtime of its own, and two more that gather. It listens on the loopback
//! interface unless it is told otherwise, speaks no TLS and knows no users: put a proxy before it.
//!
//! | path | what |
//! |---|---|
//! | `/` | a page with links |
//! | `/metrics` | the figures |
//! | `/metrics/vbuckets` | those of single vBuckets, if they are served |
//! | `/healthz` | 200 while writes are taken, 503 with the reason otherwise |
//!
//! # Limits
//! Whatever a client does costs at most a connection of 128, for 10 s: a request's head is read for 3 s
//! and up to 16 KiB and 64 headers, an answer is waited for 5 s, and a connection serves one request.
//! Who comes when all are taken waits in the system's queue. At most two gather at once.

mod config;
mod pages;
mod serve;

pub use config::{ExporterConfig, Health, Pages};

use serve::Server;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::Notify;

/// A running exporter. Ends when it is dropped: it takes no more connections, and those it has are cut.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Listens, and serves from a thread of its own.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for an address that is not of the loopback interface, unless the
    /// configuration allows it; whatever the system says of the address or the thread.
    pub fn start(config: &ExporterConfig, pages: Pages) -> io::Result<Self> {
        let is_remote = !config.address.ip().is_loopback();
        if is_remote && !config.allow_remote {
            let detail = format!("{} is not of the loopback interface", config.address);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, detail));
        }
        let listener = std::net::TcpListener::bind(config.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if is_remote {
            tracing::warn!(%address, "figures are served to other machines, without authentication");
        }
        let stop = Arc::new(Notify::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .thread_name("vbstore-gather")
            .max_blocking_threads(serve::GATHERS_MAX)
            .build()?;
        let (server, until) = (Server::new(pages), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("vbstore-http".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = server.run(listener) => {}
                        () = until.notified() => {}
                    }
                });
                // What gathers still is waited for no longer than this.
                runtime.shutdown_timeout(serve::ANSWER_WITHIN);
            })?;
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Returns the address it listens on, with the port that the system chose if it was 0.
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
