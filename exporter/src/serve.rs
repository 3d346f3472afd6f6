//! The server: connections and their limits.

use crate::config::Endpoints;
use crate::routes::{self, HttpResponse, Route};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Maximum number of threads that gather metrics.
pub(crate) const GATHERS_MAX: usize = 2;
/// Maximum number of open connections.
const CONNECTIONS_MAX: usize = 128;
/// Time limit for reading the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(3);
/// Time limit for gathering an answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Time limit for a connection.
const CONNECTION_WITHIN: Duration = Duration::from_secs(10);
/// Size limit of the head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// Pause after a failed `accept`. Without it, an `accept` that fails for too many open files would
/// fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Server {
    endpoints: Endpoints,
    connections: Arc<Semaphore>,
    gathers: Arc<Semaphore>,
}

impl Server {
    pub(crate) fn new(endpoints: Endpoints) -> Arc<Self> {
        Arc::new(Self {
            endpoints,
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            gathers: Arc::new(Semaphore::new(GATHERS_MAX)),
        })
    }

    /// Accepts connections until the future is dropped.
    pub(crate) async fn run(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "the exporter cannot use its listener");
                return;
            }
        };
        loop {
            // ORDER: acquire a place before `accept`, so that clients beyond the limit wait in the
            // system's queue.
            let Ok(place) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                if timeout(CONNECTION_WITHIN, server.serve(stream))
                    .await
                    .is_err()
                {
                    tracing::debug!("a connection was closed: too slow");
                }
                drop(place);
            });
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request: Request<Incoming>| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(&request).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> HttpResponse {
        let page = routes::find(&self.endpoints, request.method(), request.uri().path());
        let registry = match page {
            Route::Ready(answer) => return answer,
            Route::Metrics(registry) => registry,
            // Answered on this thread, so that it works while all gathering threads are busy.
            Route::Health => return routes::health(&self.endpoints),
        };
        let gathers = Arc::clone(&self.gathers);
        let gathered = timeout(ANSWER_WITHIN, async move {
            // Held by the gathering thread, so that a scrape whose client gave up still counts.
            let place = gathers.acquire_owned().await.ok()?;
            let gathered = tokio::task::spawn_blocking(move || {
                let answer = routes::metrics(&registry);
                drop(place);
                answer
            });
            gathered.await.ok()
        });
        match gathered.await {
            Ok(Some(answer)) => answer,
            Ok(None) => routes::plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "gathering the metrics panicked\n",
            ),
            Err(_) => routes::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy gathering metrics for other clients: try again\n",
            ),
        }
    }
}
