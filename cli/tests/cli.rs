//! The program as a user types it.

#![expect(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::too_many_lines,
    clippy::similar_names,
    reason = "a test may panic, and tells one story in one function"
)]

mod common;

use common::{Session, code, json, ok, vbstore, write_lines};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn exit_codes_tell_errors_apart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ok(&["set", "--dir", "s", "k", "v"], dir);
    assert_eq!(ok(&["get", "--dir", "s", "k"], dir), "v");
    assert_eq!(code(&["get", "--dir", "s", "none"], dir).0, 1);
    assert_eq!(
        code(&["set", "--dir", "s", "--cas", "1", "k", "w"], dir).0,
        1
    );
    assert_eq!(code(&["set", "--dir", "s", "", "w"], dir).0, 2);
    assert_eq!(code(&["frobnicate"], dir).0, 2);
    for (command, vb) in [("stats", "64"), ("dump", "65535"), ("tail", "65535")] {
        let printed = code(&[command, "--dir", "s", "--vb", vb], dir);
        assert_eq!(printed.0, 2, "{command}: {printed:?}");
    }
    let (exit, printed) = code(&["--json", "frobnicate"], dir);
    assert_eq!(
        (exit, json(&printed)["error"]["kind"].as_str()),
        (2, Some("usage"))
    );
    let (exit, printed) = code(&["get", "--dir", "nowhere", "k", "--json"], dir);
    assert_eq!(
        (exit, json(&printed)["error"]["kind"].as_str()),
        (3, Some("no_store"))
    );
    assert!(!dir.join("nowhere").exists());
    assert_eq!(code(&["import", "--dir", "s", "no-such-file"], dir).0, 4);
    std::fs::create_dir(dir.join("foreign")).unwrap();
    std::fs::write(dir.join("foreign/file"), "x").unwrap();
    assert_eq!(code(&["set", "--dir", "foreign", "k", "v"], dir).0, 3);

    let marker = dir.join("s/VBSTORE");
    let mut bytes = std::fs::read(&marker).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&marker, bytes).unwrap();
    let (exit, printed) = code(&["verify", "--dir", "s"], dir);
    assert_eq!(exit, 5, "{printed}");
    assert!(printed.contains("VBSTORE"), "{printed}");
}

#[test]
fn a_store_that_is_open_elsewhere_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::start(dir.path(), "s");
    session.ask(r#"{"op":"set","key":"k","value":"v"}"#);
    let pid = session.child.id();

    let (exit, printed) = code(&["get", "--dir", "s", "k"], dir.path());

    assert_eq!(exit, 3);
    assert!(printed.contains(&format!("process {pid}")), "{printed}");
    session.end();
    assert_eq!(ok(&["get", "--dir", "s", "k"], dir.path()), "v");
}

#[test]
fn a_session_answers_every_line_and_survives_bad_ones() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::start(dir.path(), "s");
    let set = session.ask(r#"{"op":"set","key":"k","value":"v","id":[1]}"#);
    assert_eq!(
        (set["ok"].as_bool(), &set["id"][0]),
        (Some(true), &1.into())
    );
    let refused = session.ask(r#"{"op":"add","key":"k","value":"w"}"#);
    assert_eq!(refused["error"]["kind"], "exists");
    assert_eq!(session.ask("nonsense")["ok"], false);
    assert_eq!(session.ask(r#"{"op":"odd"}"#)["error"]["kind"], "usage");
    assert_eq!(
        session.ask(r#"{"op":"get","key":"k"}"#)["record"]["value"],
        "v"
    );
    let vb = set["vb"].as_u64().unwrap();
    let page = session.ask(&format!(r#"{{"op":"prefix","vb":{vb},"prefix":"k"}}"#));
    assert_eq!(page["entries"][0]["key"], "k");
    let touched = session.ask(r#"{"op":"touch","key":"k","expiry":4000000000}"#);
    assert_eq!(touched["ok"], true);
    assert_eq!(
        session.ask(r#"{"op":"get_meta","key":"k"}"#)["record"]["expiry"],
        4_000_000_000_u64
    );
    assert_eq!(session.ask(r#"{"op":"del","key":"k"}"#)["ok"], true);
    assert_eq!(session.ask(r#"{"op":"get","key":"k"}"#)["found"], false);
    let batch = format!(
        r#"{{"op":"batch","vb":{vb},"changes":[{{"key":"a","value":"1"}},{{"key":"b","value":{{"base64":"/w=="}}}}]}}"#
    );
    assert_eq!(session.ask(&batch)["written"].as_array().unwrap().len(), 2);
    let many = session.ask(&format!(
        r#"{{"op":"get_many","vb":{vb},"keys":["b","none","a"]}}"#
    ));
    assert_eq!(many["values"], json(r#"[{"base64":"/w=="},null,"1"]"#));
    let seqnos = session.ask(&format!(r#"{{"op":"seqnos","vb":{vb}}}"#));
    assert_eq!(seqnos["synced"], seqnos["high"]);
    assert_eq!(
        session.ask(r#"{"op":"verify"}"#)["verification"]["ok"],
        true
    );
    assert_eq!(session.ask(r#"{"op":"stats"}"#)["items"], 2);
    assert!(session.ask(r#"{"op":"help"}"#)["set"].is_string());
    let deleted = session.ask(&format!(r#"{{"op":"delete_vbucket","vb":{vb}}}"#));
    assert_ne!(deleted["vb_uuid"], set["vb_uuid"]);
    session.end();
}

#[test]
fn what_was_dumped_is_imported_again_with_everything_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut session = Session::start(dir, "a");
    session.ask(r#"{"op":"set","key":"plain","value":"v","flags":7,"expiry":4000000000}"#);
    session.ask(r#"{"op":"set","key":{"base64":"/wA="},"value":{"base64":"AP8="}}"#);
    session.ask(r#"{"op":"set","key":"gone","value":"v"}"#);
    session.ask(r#"{"op":"del","key":"gone"}"#);
    session.end();
    let dump = |store: &str| -> BTreeMap<String, serde_json::Value> {
        let lines = ok(&["dump", "--dir", store], dir);
        let records = lines.lines().map(|line| {
            let mut record = json(line);
            let object = record.as_object_mut().unwrap();
            // The new store assigns its own seqnos.
            object.retain(|name, _| !matches!(name.as_str(), "seqno" | "prev_seqno"));
            (object["key"].to_string(), record)
        });
        records.collect()
    };
    std::fs::write(dir.join("dump.jsonl"), ok(&["dump", "--dir", "a"], dir)).unwrap();

    ok(
        &["import", "--dir", "b", "--format", "dump", "dump.jsonl"],
        dir,
    );

    let (a, b) = (dump("a"), dump("b"));
    assert_eq!(a, b);
    assert_eq!(a.len(), 3);
    assert_eq!(a["\"gone\""]["kind"], "deletion");
    assert_eq!(a["\"plain\""]["flags"], 7);
    let by_key = ok(&["dump", "--dir", "b", "--by", "key"], dir);
    assert_eq!(by_key.lines().count(), 2, "keys with a value only");
    let vb = a["\"plain\""]["vb"].to_string();
    let one = ok(&["dump", "--dir", "b", "--vb", &vb, "--from", "2"], dir);
    assert_eq!(one, "");
}

#[test]
fn bad_lines_are_counted_and_stop_only_a_strict_import() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lines = [
        "{\"key\":\"a\"}",
        "nonsense",
        "",
        "{\"no\":1}",
        "{\"key\":\"\"}",
        "{\"key\":\"b\"}",
    ];
    std::fs::write(dir.join("in.jsonl"), lines.join("\n")).unwrap();

    let report = json(&ok(&["import", "--dir", "s", "--json", "in.jsonl"], dir));

    assert_eq!(
        (&report["records"], &report["rejected_count"]),
        (&2.into(), &3.into())
    );
    let rejected: Vec<_> = report["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["line"].as_u64().unwrap())
        .collect();
    assert_eq!(rejected, [2, 4, 5]);
    let (exit, printed) = code(&["import", "--dir", "t", "--strict", "in.jsonl"], dir);
    assert_eq!(exit, 1);
    assert!(printed.contains("line 2"), "{printed}");
    assert_eq!(ok(&["get", "--dir", "t", "a"], dir), "{\"key\":\"a\"}");
    std::fs::write(dir.join("in.csv"), "name,id\n\"a,b\",1\n").unwrap();
    ok(
        &[
            "import", "--dir", "u", "--format", "csv", "--key", "name", "in.csv",
        ],
        dir,
    );
    assert_eq!(ok(&["get", "--dir", "u", "a,b"], dir), "\"a,b\",1");
}

#[test]
fn an_import_that_is_killed_goes_on_and_imports_nothing_twice() {
    // Enough that no import ends before it is killed.
    const LINES: usize = 60_000;
    const WINDOW: u64 = 256;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let input = dir.join("in.jsonl");
    write_lines(
        &input,
        (0..LINES).map(|n| format!("{{\"key\":\"k{n}\",\"n\":{n},\"pad\":\"{n:0>200}\"}}")),
    );
    let state = dir.join("s.import-state.json");
    let line_reached = || -> u64 {
        std::fs::read_to_string(&state)
            .ok()
            .map_or(0, |text| json(&text)["line"].as_u64().unwrap())
    };
    let args = [
        "import",
        "--dir",
        "s",
        "--vbuckets",
        "4",
        "--window",
        "256",
        "--resume",
        "in.jsonl",
    ];
    let mut kills = 0;
    for target in [3_000, 9_000, 15_000] {
        let mut child = vbstore()
            .args(args)
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Killed as soon as it has reached this line.
        while line_reached() < target && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        kills += u64::from(!child.wait().unwrap().success());
    }
    assert!(kills >= 2, "the import was over before it could be killed");

    ok(&args, dir);

    ok(&["verify", "--dir", "s"], dir);
    let mut high: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for line in ok(&["dump", "--dir", "s"], dir).lines() {
        let record = json(line);
        let seqno = record["seqno"].as_u64().unwrap();
        let highest = high.entry(record["vb"].as_u64().unwrap()).or_default();
        *highest = seqno.max(*highest);
        let (key, value) = (
            record["key"].as_str().unwrap(),
            record["value"].as_str().unwrap(),
        );
        found.insert(key.to_owned(), value.to_owned());
    }
    let expected: BTreeMap<String, String> = std::fs::read_to_string(&input)
        .unwrap()
        .lines()
        .map(|line| {
            (
                json(line)["key"].as_str().unwrap().to_owned(),
                line.to_owned(),
            )
        })
        .collect();
    assert!(
        found == expected,
        "{} records of {}",
        found.len(),
        expected.len()
    );
    let sum: u64 = high.values().sum();
    assert!(
        sum <= LINES as u64 + kills * WINDOW,
        "{sum} seqnos for {LINES} lines and {kills} kills"
    );
    std::fs::write(dir.join("other.jsonl"), "{\"key\":\"x\"}\n").unwrap();
    assert_eq!(
        code(&["import", "--dir", "s", "--resume", "other.jsonl"], dir).0,
        2
    );
}

#[test]
fn a_signal_ends_an_import_cleanly_and_it_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // A pipe that never ends, so that the signal finds the import at work.
    let mut child = vbstore()
        .args([
            "import",
            "--dir",
            "s",
            "--vbuckets",
            "4",
            "--window",
            "16",
            "-",
        ])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 0..100 {
        writeln!(input, "{{\"key\":\"k{n}\"}}").unwrap();
    }
    input.flush().unwrap();
    let state: PathBuf = dir.join("s.import-state.json");
    while !state.exists() {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // The pipe stays open: the signal alone must end it.
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("cut short"), "{printed}");
    let stats = json(&ok(&["stats", "--dir", "s", "--json"], dir));
    assert!(stats["items"].as_u64().unwrap() >= 16);
    ok(&["verify", "--dir", "s"], dir);
}

#[test]
fn a_named_pipe_is_imported_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let made = Command::new("mkfifo").arg(dir.join("pipe")).status();
    assert!(made.unwrap().success());
    let import = vbstore()
        .args(["import", "--dir", "s", "--vbuckets", "4", "--json", "pipe"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // More than an import reads ahead to identify its input: on a pipe, those bytes would be lost.
    let lines = (0..5_000).map(|n| format!("{{\"key\":\"k{n}\",\"some\":\"more bytes\"}}"));
    let mut pipe = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.join("pipe"))
        .unwrap();
    for line in lines {
        writeln!(pipe, "{line}").unwrap();
    }
    drop(pipe);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success());
    let printed = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(
        (&printed["records"], &printed["rejected_count"]),
        (&5_000.into(), &0.into())
    );
}

#[test]
fn a_short_stress_finds_nothing_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = [
        "--seconds",
        "2",
        "--seed",
        "7",
        "--writers",
        "4",
        "--vbuckets",
        "16",
    ];
    ok(
        &[
            &["stress", "--dir", "s", "--json", "report.json"][..],
            &args,
        ]
        .concat(),
        dir,
    );
    let report = json(&std::fs::read_to_string(dir.join("report.json")).unwrap());
    assert_eq!(
        (&report["ok"], &report["lost"], &report["violations"]),
        (&true.into(), &0.into(), &0.into())
    );
    assert!(report["operations"].as_u64().unwrap() > 100);
    assert!(report["slices"].as_u64().unwrap() > 10);
    assert!(report["worst_db_snapshot_age_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(report["verify_ok"], true);
    // A store that is not empty is refused.
    assert_eq!(code(&["stress", "--dir", "s", "--seconds", "1"], dir).0, 2);
}

#[test]
fn an_import_into_another_store_at_the_same_place_does_not_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_lines(
        &dir.join("in.jsonl"),
        (0..10).map(|n| format!("{{\"key\":\"k{n}\"}}")),
    );
    ok(&["import", "--dir", "s", "in.jsonl"], dir);
    let again = json(&ok(
        &["import", "--dir", "s", "--resume", "--json", "in.jsonl"],
        dir,
    ));
    assert_eq!(
        (&again["records"], &again["lines"]),
        (&0.into(), &10.into())
    );
    std::fs::remove_dir_all(dir.join("s")).unwrap();

    let (exit, printed) = code(&["import", "--dir", "s", "--resume", "in.jsonl"], dir);

    assert_eq!(exit, 2, "{printed}");
    assert!(printed.contains("another store"), "{printed}");
}

#[test]
fn what_an_import_says_it_has_done_survives_a_kill_with_any_durability() {
    for durability in ["memory", "logged", "synced"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let lines = (0..30_000).map(|n| format!("{{\"key\":\"k{n}\",\"pad\":\"{n:0>100}\"}}"));
        write_lines(&dir.join("in.jsonl"), lines);
        let args = [
            "--vbuckets",
            "4",
            "--window",
            "64",
            "--resume",
            "--durability",
            durability,
        ];
        let args = [&["import", "--dir", "s"][..], &args, &["in.jsonl"]].concat();
        let state = dir.join("s.import-state.json");
        let mut child = vbstore()
            .args(&args)
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !state.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        ok(&args, dir);

        let stats = json(&ok(&["stats", "--dir", "s", "--json"], dir));
        assert_eq!(stats["items"], 30_000, "{durability}");
    }
}
