//! What clients receive, including misbehaving ones.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;
use vbstore_exporter::{Endpoints, Exporter, ExporterConfig, HealthReport};
use vbstore_metrics::{MetricsSnapshot, Registration, Registry, SampleSource, Telemetry, names};

/// A source that can be made to block until it is released.
#[derive(Default)]
struct Source {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Source {
    fn shut(&self, is_shut: bool) {
        *self.is_shut.lock().unwrap() = is_shut;
        self.changed.notify_all();
    }
}

impl SampleSource for Source {
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>> {
        let is_shut = self.is_shut.lock().unwrap();
        let _open = self.changed.wait_while(is_shut, |shut| *shut).unwrap();
        into.put(&names::VBUCKETS, 4);
        Ok(())
    }
}

struct Served {
    exporter: Exporter,
    source: Arc<Source>,
    is_good: Arc<AtomicBool>,
    _registration: Registration,
}

fn served(with_vbuckets: bool) -> Served {
    let registry = Registry::new();
    let telemetry = Telemetry::new("test", registry.clone(), Arc::new(|| Duration::ZERO));
    let registration = telemetry.register("engine", names::ENGINE).unwrap();
    let source: Arc<Source> = Arc::default();
    let weak: Weak<Source> = Arc::downgrade(&source);
    registration.attach(weak);
    let is_good = Arc::new(AtomicBool::new(true));
    let good = Arc::clone(&is_good);
    let pages = Endpoints {
        registry,
        vbuckets: with_vbuckets.then(Registry::new),
        health: Arc::new(move || {
            if good.load(Ordering::SeqCst) {
                HealthReport::Healthy
            } else {
                HealthReport::Unhealthy("failed: planted".to_owned())
            }
        }),
    };
    Served {
        exporter: Exporter::start(&ExporterConfig::default(), pages).unwrap(),
        source,
        is_good,
        _registration: registration,
    }
}

/// Sends a request and returns everything received until the connection ends.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    exchange(
        address,
        &format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[test]
fn each_page_answers_get_and_head_and_nothing_else() {
    let served = served(true);
    let at = served.exporter.address();
    assert!(at.ip().is_loopback());
    let landing = ask(at, "GET", "/");
    assert_eq!(status(&landing), "200");
    assert!(landing.contains("href=\"/metrics\"") && landing.contains("/metrics/vbuckets"));
    let metrics = ask(at, "GET", "/metrics");
    let (head, body) = metrics.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "));
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        body.contains("vbstore_vbuckets{store=\"test\"} 4\n"),
        "{body}"
    );
    let only_head = ask(at, "HEAD", "/metrics");
    let (head, body) = only_head.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && body.is_empty());
    assert_eq!(status(&ask(at, "GET", "/metrics/vbuckets")), "200");
    assert_eq!(status(&ask(at, "GET", "/metrics?x=y")), "200");
    assert_eq!(status(&ask(at, "GET", "/nothing")), "404");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let refused = ask(at, method, "/metrics");
        assert_eq!(status(&refused), "405", "{method}");
        assert!(refused.contains("allow: GET, HEAD"));
    }
    assert_eq!(status(&ask(at, "GET", "/healthz")), "200");
    served.is_good.store(false, Ordering::SeqCst);
    let bad = ask(at, "GET", "/healthz");
    assert_eq!(status(&bad), "503");
    assert!(bad.ends_with("failed: planted\n"));
    assert_eq!(status(&ask(at, "GET", "/metrics")), "200");
}

#[test]
fn vbuckets_are_served_only_if_asked_for() {
    let served = served(false);
    let at = served.exporter.address();
    assert_eq!(status(&ask(at, "GET", "/metrics/vbuckets")), "404");
    assert!(!ask(at, "GET", "/").contains("vbuckets"));
}

#[test]
fn a_head_that_is_too_large_or_no_http_is_refused() {
    let served = served(false);
    let at = served.exporter.address();
    let long = "a".repeat(12 << 10);
    let many = "x: y\r\n".repeat(100);
    for (head, wanted) in [
        (format!("x: {long}\r\ny: {long}\r\n"), "431"),
        (many, "431"),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{head}\r\n");
        let mut stream = TcpStream::connect(at).unwrap();
        // The server may refuse the request before all of it was sent.
        drop(stream.write_all(request.as_bytes()));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || status(&answer) == wanted, "{answer}");
    }
    let nonsense = exchange(at, "\u{1}\u{2}nonsense\r\n\r\n");
    assert_eq!(status(&nonsense), "400");
    assert_eq!(status(&ask(at, "GET", "/metrics")), "200");
}

#[test]
fn a_hundred_scrapers_and_a_hundred_clients_that_say_nothing() {
    let served = served(false);
    let at = served.exporter.address();
    let idle: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(at).unwrap()).collect();
    std::thread::scope(|scope| {
        let scrapers: Vec<_> = (0..100)
            .map(|n| {
                let thread = std::thread::Builder::new().name(format!("scraper-{n}"));
                let scrape = move || status(&ask(at, "GET", "/metrics")).to_owned();
                thread.spawn_scoped(scope, scrape).unwrap()
            })
            .collect();
        for scraper in scrapers {
            assert_eq!(scraper.join().unwrap(), "200");
        }
    });
    // Silent connections are closed.
    for mut stream in idle {
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest));
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"));
    }
}

#[test]
fn a_client_that_waits_too_long_gets_503_and_later_ones_are_served() {
    let served = served(false);
    let at = served.exporter.address();
    served.source.shut(true);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|n| {
                let thread = std::thread::Builder::new().name(format!("scraper-{n}"));
                let scrape = move || status(&ask(at, "GET", "/metrics")).to_owned();
                thread.spawn_scoped(scope, scrape).unwrap()
            })
            .collect();
        // Pages that need no gathering are still served.
        assert_eq!(status(&ask(at, "GET", "/")), "200");
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), "503");
        }
    });
    served.source.shut(false);
    assert_eq!(status(&ask(at, "GET", "/metrics")), "200");
}

#[test]
fn another_interface_must_be_allowed_and_a_dropped_exporter_is_gone() {
    let config = ExporterConfig {
        address: "0.0.0.0:0".parse().unwrap(),
        ..ExporterConfig::default()
    };
    let pages = || Endpoints {
        registry: Registry::new(),
        vbuckets: None,
        health: Arc::new(|| HealthReport::Healthy),
    };
    let refused = Exporter::start(&config, pages()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    let allowed = ExporterConfig {
        allow_remote: true,
        ..config
    };
    let exporter = Exporter::start(&allowed, pages()).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], exporter.address().port()));
    assert_eq!(status(&ask(at, "GET", "/healthz")), "200");
    let taken = ExporterConfig {
        address: at,
        ..ExporterConfig::default()
    };
    let refused = Exporter::start(&taken, pages()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    drop(exporter);
    assert!(TcpStream::connect(at).is_err());
}
