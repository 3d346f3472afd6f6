//! `serve`, `watch` and `stress --metrics`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Serving, code, json, ok};
use std::io::Read;

#[test]
fn serve_holds_a_store_open_and_serves_until_it_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--json",
        "serve",
        "--dir",
        "db",
        "--vbuckets",
        "8",
        "--per-vbucket",
    ];
    let serving = Serving::start(&args, dir.path());
    let (status, text) = serving.get("/metrics");
    assert_eq!(status, 200);
    assert!(
        text.contains("vbstore_vbuckets{store=\"db\"} 8\n"),
        "{text}"
    );
    assert!(text.contains("vbstore_backfill_workers{store=\"db\"} 2\n"));
    let (status, text) = serving.get("/metrics/vbuckets");
    assert_eq!(status, 200);
    assert!(text.contains("vbstore_vb_high_seqno{store=\"db\",vb=\"7\"} 0\n"));
    assert_eq!(serving.get("/healthz"), (200, "ok\n".to_owned()));
    assert!(serving.get("/").1.contains("/metrics/vbuckets"));
    let (exit, printed) = code(&["stats", "--dir", "db"], dir.path());
    assert_eq!(exit, 3, "it is locked: {printed}");

    let url = serving.url.clone();
    let looks = ok(
        &["watch", &url, "--count", "2", "--interval", "0.1", "--json"],
        dir.path(),
    );
    let looks: Vec<serde_json::Value> = looks.lines().map(json).collect();
    assert_eq!(looks.len(), 2);
    assert_eq!(looks[0]["health"], "open");
    assert_eq!(looks[0]["snapshots_open"], 0.0);
    assert_eq!(looks[0]["writes_per_second"], serde_json::Value::Null);
    assert_eq!(looks[1]["writes_per_second"], 0.0);
    let address = url
        .trim_start_matches("http://")
        .trim_end_matches("/metrics");
    let screen = ok(&["watch", address, "--count", "1"], dir.path());
    assert!(screen.contains("db snapshots") && screen.contains("checkpoints"));

    let (exit, out, err) = serving.stop();
    assert_eq!((exit, err.as_str()), (0, ""));
    assert_eq!(json(&out)["metrics"], url.as_str());
    let report = json(&ok(&["--json", "stats", "--dir", "db"], dir.path()));
    let vbuckets = &report["metrics"]["vbstore_vbuckets"]["samples"][0]["value"];
    assert_eq!(vbuckets, 8.0);
    let (exit, printed) = code(&["watch", address, "--count", "1"], dir.path());
    assert_eq!(exit, 4, "{printed}");
    assert!(printed.contains("no answer"), "{printed}");
}

#[test]
fn another_interface_must_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "serve",
        "--dir",
        "db",
        "--vbuckets",
        "1",
        "--metrics",
        "0.0.0.0:0",
    ];
    let (exit, printed) = code(&args, dir.path());
    assert_eq!(exit, 2, "{printed}");
    assert!(printed.contains("--allow-remote"), "{printed}");
    let (exit, printed) = code(
        &["serve", "--dir", "db", "--metrics", "nowhere"],
        dir.path(),
    );
    assert_eq!(exit, 2, "{printed}");
    let (exit, printed) = code(&["serve", "--dir", "db", "--per-vbucket"], dir.path());
    assert_eq!(exit, 2, "{printed}");
    let (exit, printed) = code(&["watch", "--interval", "0"], dir.path());
    assert_eq!(exit, 2, "{printed}");
}

#[test]
fn a_stress_serves_while_it_runs_and_its_metrics_agree() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "--json",
        "stress",
        "--dir",
        "db",
        "--vbuckets",
        "8",
        "--seconds",
        "3",
        "--streams",
        "4",
        "--frozen",
        "1",
        "--reconnect-every",
        "500",
    ];
    let mut serving = Serving::start(&args, dir.path());
    let (status, text) = serving.get("/metrics");
    assert_eq!(status, 200);
    assert!(text.contains("vbstore_consumers{store=\"db\"}"), "{text}");
    let mut out = String::new();
    let mut stdout = serving.child.stdout.take().unwrap();
    stdout.read_to_string(&mut out).unwrap();
    assert!(serving.child.wait().unwrap().success(), "{out}");
    let report = json(&out);
    assert_eq!(report["violations"], 0, "{report:#}");
}
