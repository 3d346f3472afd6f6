//! Routing of requests, and their answers.

use crate::config::{Health, Pages};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use vbstore_metrics::{Registry, TEXT_FORMAT, render};

pub(crate) type Answer = Response<Full<Bytes>>;

const PLAIN: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The work that answers a request.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    Metrics(Registry),
    Health,
    /// An answer that needs no work.
    Ready(Answer),
}

/// Returns the page for a request.
pub(crate) fn find(pages: &Pages, method: &Method, path: &str) -> Page {
    if method != Method::GET && method != Method::HEAD {
        let mut answer = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are allowed\n",
        );
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return Page::Ready(answer);
    }
    match (path, &pages.vbuckets) {
        ("/", vbuckets) => Page::Ready(landing(vbuckets.is_some())),
        ("/metrics", _) => Page::Metrics(pages.registry.clone()),
        ("/metrics/vbuckets", Some(vbuckets)) => Page::Metrics(vbuckets.clone()),
        ("/healthz", _) => Page::Health,
        _ => Page::Ready(plain(StatusCode::NOT_FOUND, "no such page: see /\n")),
    }
}

/// Gathers the metrics of a registry and encodes them. Blocks on the engine's locks, so it must not
/// run on the thread that serves connections.
pub(crate) fn metrics(registry: &Registry) -> Answer {
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

pub(crate) fn health(pages: &Pages) -> Answer {
    match catch_unwind(AssertUnwindSafe(|| (pages.health)())) {
        Ok(Health::Good) => plain(StatusCode::OK, "ok\n"),
        Ok(Health::Bad(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the health check panicked\n",
        ),
    }
}

pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    answer(status, PLAIN, text)
}

fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn landing(has_vbuckets: bool) -> Answer {
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
