//! What is answered to which request.

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

/// What must be gathered for an answer.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    Figures(Registry),
    Health,
    /// Nothing: it is here.
    Ready(Answer),
}

/// Finds out what is asked for.
pub(crate) fn find(pages: &Pages, method: &Method, path: &str) -> Page {
    if method != Method::GET && method != Method::HEAD {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        answer.headers_mut().insert(ALLOW, allowed);
        return Page::Ready(answer);
    }
    match (path, &pages.vbuckets) {
        ("/", vbuckets) => Page::Ready(landing(vbuckets.is_some())),
        ("/metrics", _) => Page::Figures(pages.registry.clone()),
        ("/metrics/vbuckets", Some(vbuckets)) => Page::Figures(vbuckets.clone()),
        ("/healthz", _) => Page::Health,
        _ => Page::Ready(plain(StatusCode::NOT_FOUND, "no such page\n")),
    }
}

/// Gathers and writes the figures. Takes the engine's locks, so not to be called by the thread that
/// serves.
pub(crate) fn figures(registry: &Registry) -> Answer {
    match render(registry) {
        Ok(text) => answer(StatusCode::OK, TEXT_FORMAT, text),
        Err(error) => {
            tracing::error!(%error, "figures cannot be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot be written\n")
        }
    }
}

pub(crate) fn health(pages: &Pages) -> Answer {
    match catch_unwind(AssertUnwindSafe(|| (pages.health)())) {
        Ok(Health::Good) => plain(StatusCode::OK, "ok\n"),
        Ok(Health::Bad(why)) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        Err(_) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "asking for it panicked\n",
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
        "<li><a href=\"/metrics/vbuckets\">/metrics/vbuckets</a>: figures of every vBucket</li>\n"
    } else {
        ""
    };
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><title>vbstore</title></head><body>\n\
         <h1>vbstore {}</h1>\n<ul>\n\
         <li><a href=\"/metrics\">/metrics</a>: figures for Prometheus</li>\n{by_vbucket}\
         <li><a href=\"/healthz\">/healthz</a>: whether writes are taken</li>\n\
         </ul>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    );
    answer(StatusCode::OK, HTML, page)
}
