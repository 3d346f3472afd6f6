//! Lets a real Prometheus scrape a running `stress`, and an engine that a failpoint stops in a
//! slice.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::float_cmp,
    clippy::format_push_string,
    reason = "a test"
)]

mod common;

use common::{json, vbstore};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Failpoints, Latch, place};
use vbstore::{
    Change, Clock, Config, ConsumerConfig, Durability, Engine, ManualClock, StreamRequest, Streams,
    StreamsConfig, SystemClock, VbId,
};
use vbstore_exporter::{Endpoints, Exporter, ExporterConfig, HealthReport};

/// Most series that `/metrics` may have for one store, streams included.
const SERIES_BUDGET: f64 = 500.0;
/// Checks look at the last 30 s of the stress, which is scraped each second.
const SECONDS: u64 = 30;
/// Scrapes in that time that must have succeeded: enough for the checks, but few enough for a slow
/// machine.
const SCRAPES: f64 = 15.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the directory of Prometheus' programs; `None`, with a message, if there is none.
fn programs() -> Option<PathBuf> {
    let named = std::env::var_os("VBSTORE_PROMETHEUS").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .map(|cache| cache.join("vbstore/prometheus/usr/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path);
    let mut places = named.into_iter().chain(cache).chain(on_path);
    let found = places.find(|dir| dir.join("promtool").exists() && dir.join("prometheus").exists());
    if found.is_none() {
        let is_required = std::env::var_os("VBSTORE_REQUIRE_PROMETHEUS").is_some();
        assert!(!is_required, "no Prometheus: scripts/get-prometheus");
        eprintln!("NOT RUN: no Prometheus (scripts/get-prometheus gets it)");
    }
    found
}

fn metrics_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../metrics")
}

/// A program that is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Calls `ask` until it returns something.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(clock.monotonic() < PATIENCE, "never: {what}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn pass(time: Duration) {
    let clock = SystemClock::new();
    while clock.monotonic() < time {
        std::thread::park_timeout(time.saturating_sub(clock.monotonic()));
    }
}

/// Runs promtool, which must succeed.
fn promtool(programs: &Path, args: &[&str], input: &str) {
    let mut child = Command::new(programs.join("promtool"))
        .args(args)
        .current_dir(metrics_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let printed = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy);
    assert!(output.status.success(), "promtool {args:?}: {printed:?}");
}

fn fetch(url: &str) -> Option<String> {
    let mut answer = ureq::get(url).call().ok()?;
    answer.body_mut().read_to_string().ok()
}

struct Prometheus {
    at: String,
    _running: Running,
}

impl Prometheus {
    fn start(programs: &Path, dir: &Path, targets: &[(&str, &str)]) -> Self {
        // An address that only this process uses, so that no other test can take the port first.
        let [.., high, low] = std::process::id().to_be_bytes();
        let at = format!("127.77.{high}.{low}:19090");
        let rules = std::fs::read_to_string(metrics_dir().join("rules/alerts.yml")).unwrap();
        // As shipped, except that the alert which this test waits for fires sooner.
        let held = "> 60'\n        for: 1m\n";
        assert!(rules.contains(held));
        let quick = rules.replacen(held, "> 60'\n        for: 1s\n", 1);
        std::fs::write(dir.join("alerts.yml"), quick).unwrap();
        let mut config =
            "global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}\n\
                          rule_files: [alerts.yml]\nscrape_configs:\n"
                .to_owned();
        for (job, target) in targets {
            config +=
                &format!("  - {{job_name: {job}, static_configs: [{{targets: ['{target}']}}]}}\n");
        }
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        let child = Command::new(programs.join("prometheus"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(["--log.level=warn", &format!("--web.listen-address={at}")])
            .current_dir(dir)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self {
            at,
            _running: Running(child),
        };
        until("prometheus is ready", || {
            fetch(&format!("http://{}/-/ready", prometheus.at))
        });
        prometheus
    }

    fn api(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let request = ureq::get(format!("http://{}/api/v1/{path}", self.at));
        let request = request.query_pairs(query.iter().copied());
        let mut answer = request.call().unwrap();
        let answer = json(&answer.body_mut().read_to_string().unwrap());
        assert_eq!(answer["status"], "success", "{query:?}");
        answer["data"].clone()
    }

    /// Returns the current values of an expression.
    fn query(&self, expr: &str) -> Vec<f64> {
        let data = self.api("query", &[("query", expr)]);
        let series = data["result"].as_array().unwrap();
        series
            .iter()
            .map(|one| one["value"][1].as_str().unwrap().parse().unwrap())
            .collect()
    }

    fn one(&self, expr: &str) -> f64 {
        let values = self.query(expr);
        assert_eq!(values.len(), 1, "{expr}: {values:?}");
        values[0]
    }

    /// Returns the names of the firing alerts of a job.
    fn firing(&self, job: &str) -> BTreeSet<String> {
        let data = self.api("alerts", &[]);
        let alerts = data["alerts"].as_array().unwrap();
        let of_job = alerts
            .iter()
            .filter(|alert| alert["labels"]["job"] == job && alert["state"] == "firing");
        of_job
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Starts a `stress` that serves its metrics; returns it with its URL.
fn stress(dir: &Path) -> (Running, String) {
    let mut child = vbstore()
        .args(["stress", "--dir", "stress", "--vbuckets", "16", "--json"])
        // Killed when the test ends.
        .args(["--seconds", "600"])
        .args(["--streams", "6", "--frozen", "1", "--slow", "1"])
        .args(["--reconnect-every", "1000", "--memory-mib", "8"])
        .args(["--metrics", "127.0.0.1:0", "--per-vbucket"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = printed
        .find_map(|line| {
            Some(
                line.unwrap()
                    .split_once("metrics at ")?
                    .1
                    .trim_end_matches("\"}}")
                    .to_owned(),
            )
        })
        .unwrap();
    // Standard error is read to its end, so that the stress never blocks on a full pipe.
    let rest = std::thread::Builder::new().name("stderr".to_owned());
    let print = move || printed.for_each(|line| eprintln!("stress: {line:?}"));
    drop(rest.spawn(print).unwrap());
    (Running(child), url)
}

fn target(url: &str) -> &str {
    url.trim_start_matches("http://")
        .trim_end_matches("/metrics")
}

/// An engine with one stream whose slice is held by a failpoint.
struct Held {
    exporter: Exporter,
    clock: Arc<ManualClock>,
    gate: Arc<Latch>,
    streams: Streams,
    engine: Engine,
}

impl Held {
    fn start(dir: &Path) -> Self {
        let (clock, failpoints) = (
            Arc::new(ManualClock::new()),
            Arc::new(Failpoints::default()),
        );
        let config = Config {
            vbuckets: Some(4),
            ..Config::default()
        };
        let open = || {
            let builder = Engine::builder(dir.join("held")).config(config.clone());
            let of_test: Arc<dyn Clock> = clock.clone();
            let builder = builder.clock(of_test);
            builder.failpoints(Arc::clone(&failpoints)).open().unwrap()
        };
        let engine = open();
        let vb = engine.vbucket(VbId::new(1)).unwrap();
        vb.write(Change::set("k", "v"), Durability::Synced).unwrap();
        drop(vb);
        engine.close().unwrap();
        drop(engine);
        let engine = open();
        let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
        let gate = Arc::new(Latch::default());
        failpoints.once(place::SLICE_VIEW, Action::Wait(Arc::clone(&gate)));
        let pages = Endpoints {
            registry: engine.telemetry().registry().clone(),
            vbuckets: None,
            health: Arc::new(|| HealthReport::Healthy),
        };
        Self {
            exporter: Exporter::start(&ExporterConfig::default(), pages).unwrap(),
            clock,
            gate,
            streams,
            engine,
        }
    }
}

/// Checks what must hold for the stress at every scrape and at the end.
fn check_stress(prometheus: &Prometheus) {
    let over = format!("[{SECONDS}s]");
    let own = fetch(&format!("http://{}/metrics", prometheus.at)).unwrap();
    for counter in ["duplicate_timestamp", "out_of_order"] {
        let line = format!("prometheus_target_scrapes_sample_{counter}_total 0\n");
        assert!(own.contains(&line), "samples refused: {counter}");
    }
    let samples = prometheus.one("max_over_time(scrape_samples_scraped{job=\"stress\"}[1m])");
    assert!(samples <= SERIES_BUDGET, "{samples} series");
    // In each scrape: opened minus closed is open.
    let difference = format!(
        "max(max_over_time(abs(vbstore_db_snapshots_opened_total{{job=\"stress\"}} \
         - vbstore_db_snapshots_closed_total - vbstore_db_snapshots_open)[{SECONDS}s:1s]))"
    );
    assert_eq!(prometheus.one(&difference), 0.0);
    let most = format!(
        "max_over_time(vbstore_db_snapshots_open{{job=\"stress\", holder=\"backfill\"}}{over})"
    );
    assert!(prometheus.one(&most) <= 2.0, "more than workers");
    // The last value, because an instant query finds nothing after a failed scrape.
    let last = |metric: &str, labels: &str| {
        let of = format!("{metric}{{job=\"stress\"{labels}}}");
        prometheus.one(&format!("sum(last_over_time({of}{over}))"))
    };
    assert!(last("vbstore_written_items_total", "") > 1_000.0);
    let backfill = ", holder=\"backfill\"";
    assert!(last("vbstore_db_snapshots_opened_total", backfill) > 0.0);
    assert_eq!(last("vbstore_collector_errors_total", ""), 0.0);
    assert_eq!(prometheus.firing("stress"), BTreeSet::new());
}

/// Checks that every expression of the dashboard has data.
fn check_dashboard(prometheus: &Prometheus) {
    let text = std::fs::read_to_string(metrics_dir().join("dashboards/grafana.json")).unwrap();
    let dashboard = json(&text);
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        if panel["description"] == "May have no data." {
            continue;
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().unwrap();
            let expr = expr
                .replace("$__rate_interval", "10s")
                .replace("$instance", ".+")
                .replace("$store", "stress");
            // Retried, because there is no data just after a failed scrape.
            until(&expr, || {
                (!prometheus.query(&expr).is_empty()).then_some(())
            });
            asked += 1;
        }
    }
    assert!(asked > 40, "{asked} expressions");
}

#[test]
fn the_rules_pass_their_tests() {
    let Some(programs) = programs() else {
        return;
    };
    let check = ["check", "rules", "--lint=all", "--lint-fatal"];
    let files = ["rules/alerts.yml", "rules/recording.yml"];
    promtool(&programs, &[&check[..], &files].concat(), "");
    promtool(&programs, &["test", "rules", "rules/tests/alerts.yml"], "");
}

#[test]
fn a_real_prometheus_accepts_the_metrics_and_sees_a_held_db_snapshot() {
    let Some(programs) = programs() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (_stress, url) = stress(dir.path());
    let held = Held::start(dir.path());
    let held_at = held.exporter.address().to_string();
    let targets = [("stress", target(&url)), ("held", &held_at)];
    let prometheus = Prometheus::start(&programs, dir.path(), &targets);
    let scraped = "count(up == 1)";
    until("both are scraped", || {
        (prometheus.query(scraped) == [2.0]).then_some(())
    });

    // A slice opens its db snapshot and stops there.
    let mut consumer = held
        .streams
        .consumer("c", &ConsumerConfig::default())
        .unwrap();
    let request = StreamRequest::from_start(VbId::new(1));
    let _ = consumer.open(&request).unwrap();
    let _held = held.gate.wait_for_arrival();
    held.clock.advance(Duration::from_secs(61));
    let alert = "VbstoreSnapshotHeld";
    until("the alert fires", || {
        prometheus.firing("held").contains(alert).then_some(())
    });
    let both = "vbstore_rocksdb_snapshots_open{job=\"held\"} \
                == ignoring (holder) sum without (holder) (vbstore_db_snapshots_open)";
    until("both counts are 1", || {
        (prometheus.query(both) == [1.0]).then_some(())
    });
    held.gate.open();
    until("the alert clears", || {
        (!prometheus.firing("held").contains(alert)).then_some(())
    });

    let text = fetch(&url).unwrap();
    promtool(&programs, &["check", "metrics"], &text);
    let by_vbucket = fetch(&format!("{url}/vbuckets")).unwrap();
    promtool(&programs, &["check", "metrics"], &by_vbucket);
    until("scraped often enough", || {
        pass(Duration::from_millis(500));
        let good = format!("sum_over_time(up{{job=\"stress\"}}[{SECONDS}s])");
        (prometheus.query(&good).first().copied() >= Some(SCRAPES)).then_some(())
    });
    check_stress(&prometheus);
    check_dashboard(&prometheus);
    drop((consumer, held.exporter, held.streams));
    held.engine.close().unwrap();
}
