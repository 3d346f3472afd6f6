//! What follows: `tail`, sessions, imports and stress with streams.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

mod common;

use common::{Session, code, json, ok, run, vbstore, write_lines};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// The changes that JSON lines speak of: vBucket and seqno to key and kind.
fn changes(text: &str) -> BTreeMap<(u64, u64), (String, String)> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let event = json(line);
        let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        if event["key"].is_string() {
            let place = (
                event["vb"].as_u64().unwrap(),
                event["seqno"].as_u64().unwrap(),
            );
            found.insert(place, (word("key"), word("kind")));
        }
    }
    found
}

#[test]
fn a_tail_prints_what_a_dump_prints_and_goes_on_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lines = (0..20_000).map(|n| format!("{{\"key\":\"k{}\",\"n\":{n}}}", n % 15_000));
    write_lines(&dir.join("in.jsonl"), lines);
    ok(
        &["import", "--dir", "s", "--vbuckets", "4", "in.jsonl"],
        dir,
    );
    ok(&["del", "--dir", "s", "k77"], dir);
    let whole = changes(&ok(&["dump", "--dir", "s"], dir));

    let tailed = ok(&["tail", "--dir", "s", "--all", "--until-high"], dir);
    assert_eq!(changes(&tailed), whole);
    let kinds: std::collections::BTreeSet<String> = tailed
        .lines()
        .map(|line| json(line)["kind"].as_str().unwrap().to_owned())
        .collect();
    let expected = ["deletion", "end", "mutation", "snapshot_marker"];
    assert_eq!(
        kinds.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );

    // Killed again and again: nothing is missing from all that was printed.
    let mut printed = String::new();
    let tail = [
        "tail",
        "--dir",
        "s",
        "--all",
        "--until-high",
        "--resume",
        "state",
    ];
    for lines in [1_u32, 3_000, 9_000] {
        let mut child = vbstore()
            .args(tail)
            .current_dir(dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..lines {
            out.read_line(&mut printed).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was in the pipe was printed too; its last line may be cut.
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
        let cut = rest.rfind('\n').map_or(0, |at| at + 1);
        printed.push_str(&rest[..cut]);
    }
    printed.push_str(&ok(&tail, dir));
    assert_eq!(changes(&printed), whole);
    assert_eq!(changes(&ok(&tail, dir)).len(), 0, "all was printed");

    let few = [
        "tail",
        "--dir",
        "s",
        "--vb",
        "1",
        "--until-high",
        "--keys-only",
        "--prefix",
        "k1",
    ];
    let few = ok(&few, dir);
    assert!(changes(&few).values().all(|(key, _)| key.starts_with("k1")));
    assert!(few.contains("value_len") && !few.contains("\"value\":"));
    let (code, said) = code(
        &[
            "tail", "--dir", "s", "--all", "--from", "1", "--resume", "x",
        ],
        dir,
    );
    assert_eq!(code, 2, "{said}");
    let high = whole
        .keys()
        .filter(|(vb, _)| *vb == 0)
        .map(|(_, s)| *s)
        .max()
        .unwrap();
    let from = high.to_string();
    let last = ok(
        &[
            "tail",
            "--dir",
            "s",
            "--vb",
            "0",
            "--from",
            &from,
            "--until-high",
        ],
        dir,
    );
    assert_eq!(changes(&last).keys().collect::<Vec<_>>(), [&(0, high)]);
    let beyond = (high + 2).to_string();
    let output = run(&["tail", "--dir", "s", "--vb", "0", "--from", &beyond], dir);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"reason\":\"rollback\""));
}

#[test]
fn a_session_tails_from_a_position() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::start(dir.path(), "s");
    let set = session.ask("{\"op\":\"set\",\"key\":\"a\",\"value\":\"1\"}");
    let vb = set["vb"].as_u64().unwrap();
    let tail = |from: String| format!("{{\"op\":\"tail\",\"vb\":{vb},\"limit\":2,{from}}}");
    let first = session.ask(&tail("\"from\":1".to_owned()));
    assert_eq!(first["events"][0]["kind"], "snapshot_marker");
    assert_eq!(first["events"][1]["key"], "a");
    session.ask("{\"op\":\"del\",\"key\":\"a\"}");
    let position = format!("\"position\":{}", first["position"]);
    let second = session.ask(&tail(position));
    assert_eq!(second["events"][1]["kind"], "deletion");
    let beyond = session.ask(&tail("\"from\":9".to_owned()));
    assert_eq!(beyond["rollback"]["to"], 2, "{beyond}");
    let none = session.ask(&tail("\"from\":3,\"timeout_ms\":20".to_owned()));
    assert_eq!(none["events"].as_array().unwrap().len(), 0);
    session.end();
}

#[test]
fn followers_of_an_import_end_with_what_was_imported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lines = (0..30_000).map(|n| format!("{{\"key\":\"k{}\",\"n\":{n}}}", n % 20_000));
    write_lines(&dir.join("in.jsonl"), lines);
    let import = [
        "import",
        "--dir",
        "s",
        "--vbuckets",
        "8",
        "--json",
        "--tail",
        "out",
        "--streams",
        "9",
        "--frozen",
        "3",
        "--reconnect-every",
        "2000",
        "--reconnecting",
        "5",
        "in.jsonl",
    ];
    let said = json(&ok(&import, dir));
    assert_eq!(said["followed"]["equal"], true, "{said}");
    assert_eq!(said["followed"]["followers"], 9);
    assert!(
        said["followed"]["reconnects"].as_u64().unwrap() >= 5,
        "{said}"
    );
    for of in ["stayed_away", "forgot"] {
        assert!(said["followed"][of].as_u64().unwrap() >= 1, "{said}");
    }
    let mut tailed = BTreeMap::new();
    for vb in 0..8 {
        let text = std::fs::read_to_string(dir.join(format!("out/vb_{vb:04}.jsonl"))).unwrap();
        for ((vb, seqno), (key, _)) in changes(&text) {
            tailed.insert((vb, key), seqno);
        }
    }
    let dumped: BTreeMap<_, _> = changes(&ok(&["dump", "--dir", "s"], dir))
        .into_iter()
        .map(|((vb, seqno), (key, _))| ((vb, key), seqno))
        .collect();
    assert_eq!(tailed, dumped);
}

#[test]
fn a_short_stress_with_streams_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let stress = [
        "stress",
        "--dir",
        "s",
        "--seconds",
        "3",
        "--writers",
        "4",
        "--vbuckets",
        "8",
        "--streams",
        "16",
        "--frozen",
        "3",
        "--slow",
        "2",
        "--keys",
        "500",
        "--reconnect-every",
        "500",
        "--memory-mib",
        "1",
        "--json",
    ];
    let report = json(&ok(&stress, dir.path()));
    assert_eq!(report["violations"], 0, "{report}");
    let streams = &report["streams"];
    assert!(
        streams["complete_markers_compared"].as_u64().unwrap() > 100,
        "{streams}"
    );
    assert!(streams["reconnects"].as_u64().unwrap() > 10, "{streams}");
    // Consumers must have read what only the disk has, and what memory has.
    for of in ["forgot", "stayed_away", "backfills", "slices"] {
        assert!(streams[of].as_f64().unwrap() >= 1.0, "{streams}");
    }
    for of in ["items_from_disk", "items_from_memory"] {
        assert!(streams[of].as_f64().unwrap() > 100.0, "{streams}");
    }
    assert!(
        report["db_snapshots"]["most_open_for_streams"]
            .as_u64()
            .unwrap()
            <= 2
    );
}
