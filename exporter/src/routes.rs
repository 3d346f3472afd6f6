//! Routing of requests, and their answers.

use crate::config::{Endpoints, HealthReport};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use vbstore_metrics::{Registry, TEXT_FORMAT, render};

pub(crate) type HttpResponse = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The work that answers a request.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Metrics(Registry),
    Health,
    /// An answer that needs no work.
    Ready(HttpResponse),
}

/// Returns the page for a request.
pub(crate) fn find(endpoints: &Endpoints, method: &Method, path: &str) -> Route {
    if method != Method::GET && method != Method::HEAD {
        let mut answer = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are allowed\n",
        );
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return Route::Ready(answer);
    }
    match (path, &endpoints.vbuckets) {
        ("/", vbuckets) => Route::Ready(landing(vbuckets.is_some())),
        ("/metrics", _) => Route::Metrics(endpoints.registry.clone()),
        ("/metrics/vbuckets", Some(vbuckets)) => Route::Metrics(vbuckets.clone()),
        ("/healthz", _) => Route::Health,
        _ => Route::Ready(plain(StatusCode::NOT_FOUND, "no such page: see /\n")),
    }
}

/// Gathers the metrics of a registry and encodes them. Blocks on the engine's locks, so it must not
/// run on the thread that serves connections.
pub(crate) fn metrics(registry: &Registry) -> HttpResponse {
    match render(registry) {
        Ok(text) => answer(StatusCode::OK, TEXT_FORMAT, text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics cannot be encoded\n",
            )
        }
    }
}

pub(crate) fn health(endpoints: &Endpoints) -> HttpResponse {
    match catch_unwind(AssertUnwindSafe(|| (endpoints.health)())) {
        Ok(HealthReport::Healthy) => plain(StatusCode::OK, "ok\n"),
        Ok(HealthReport::Unhealthy(why)) => {
            plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the health check panicked\n",
        ),
    }
}

pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> HttpResponse {
    answer(status, PLAIN, text)
}

fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> HttpResponse {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn landing(has_vbuckets: bool) -> HttpResponse {
    let by_vbucket = if has_vbuckets {
        "<li><a href=\"/metrics/vbuckets\">/metrics/vbuckets</a>: metrics of each vBucket</li>\n"
    } else {
        ""
    };
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><title>vbstore</title></head><body>\n\
         <h1>vbstore {}</h1>\n<ul>\n\
         <li><a href=\"/metrics\">/metrics</a>: metrics for Prometheus</li>\n{by_vbucket}\
         <li><a href=\"/healthz\">/healthz</a>: whether writes are accepted</li>\n\
         </ul>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    );
    answer(StatusCode::OK, HTML, page)
}
