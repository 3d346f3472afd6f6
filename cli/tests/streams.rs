//! Streams in `tail`, `session`, `import` and `stress`.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test may panic, and tells one story in one function"
)]

mod common;

use common::{Serving, Session, SmallDisk, code, json, ok, run, vbstore, write_lines};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Returns the changes in JSON lines: vBucket and seqno to key and kind.
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

    // Killed repeatedly: together, the outputs hold every change.
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
        // The rest of the pipe counts as printed; its last line may be incomplete.
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
    let (code, printed) = code(
        &[
            "tail", "--dir", "s", "--all", "--from", "1", "--resume", "x",
        ],
        dir,
    );
    assert_eq!(code, 2, "{printed}");
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
    let printed = json(&ok(&import, dir));
    assert_eq!(printed["followed"]["equal"], true, "{printed}");
    assert_eq!(printed["followed"]["followers"], 9);
    assert!(
        printed["followed"]["reconnects"].as_u64().unwrap() >= 5,
        "{printed}"
    );
    for of in ["stayed_away", "forgot"] {
        assert!(printed["followed"][of].as_u64().unwrap() >= 1, "{printed}");
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
    // Consumers must have read from disk and from memory.
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

/// Runs the program with a limit on the size of files, so that a write to RocksDB's log soon fails,
/// with an error other than a full disk. A program that does not end is killed, and has no exit
/// code.
fn run_until_a_write_fails(args: &[&str], dir: &Path) -> Output {
    let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" \"$@\"";
    Command::new("timeout")
        .args(["--signal=KILL", "100", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_vbstore"))
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Asserts exit code 4, with an error of this kind that names the first cause.
fn assert_failed(output: &Output, kind: &str, cause: &str) {
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{printed}");
    let error = json(printed.trim().lines().next_back().unwrap());
    assert_eq!(error["error"]["kind"], kind, "{printed}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains(cause), "{printed}");
}

#[test]
fn a_stress_with_streams_stops_when_the_engine_fails() {
    let dir = tempfile::tempdir().unwrap();
    // Without the failure it would run far longer than the time limit.
    let stress = [
        "stress",
        "--dir",
        "s",
        "--seconds",
        "1000",
        "--vbuckets",
        "8",
        "--streams",
        "8",
        "--frozen",
        "2",
        "--slow",
        "1",
        "--reconnect-every",
        "500",
        "--json",
    ];
    let output = run_until_a_write_fails(&stress, dir.path());
    assert_failed(&output, "failed", "File too large");
}

#[test]
fn an_import_with_streams_stops_when_the_engine_fails() {
    let dir = tempfile::tempdir().unwrap();
    let value = "v".repeat(500);
    let lines = (0..60_000).map(|n| format!("{{\"key\":\"k{n}\",\"value\":\"{value}\"}}"));
    write_lines(&dir.path().join("in.jsonl"), lines);
    let import = [
        "import",
        "--dir",
        "s",
        "--vbuckets",
        "8",
        "--tail",
        "out",
        "--streams",
        "8",
        "--frozen",
        "2",
        "--reconnect-every",
        "500",
        "--json",
        "in.jsonl",
    ];
    let output = run_until_a_write_fails(&import, dir.path());
    assert_failed(&output, "failed", "File too large");
}

#[test]
fn an_import_with_streams_stops_when_the_disk_is_full() {
    let Some(disk) = SmallDisk::mount("an_import_with_streams", "96m") else {
        return;
    };
    let dir = disk.path();
    let value = "v".repeat(50_000);
    // Through a pipe, so that the input takes no space.
    let script = format!(
        "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo \"{{\\\"key\\\":\\\"k$i\\\",\\\"v\\\":\\\"{value}\\\"}}\"; done \
         | timeout --signal=KILL 200 \"$0\" \"$@\""
    );
    let output = Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_vbstore")])
        .args(["import", "--dir", "s", "--vbuckets", "2", "--tail", "out"])
        .args(["--streams", "4", "--json", "-"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert_failed(&output, "disk_full", "No space left on device");
}

/// Writes that a full disk refused may have been made or not. No acknowledged write is lost, and
/// `stress` reports none as lost.
#[test]
fn a_stress_goes_on_when_a_full_disk_has_space_again() {
    let Some(disk) = SmallDisk::mount("a_stress_goes_on", "600m") else {
        return;
    };
    disk.fill(120 << 20);
    let stress = [
        "stress",
        "--dir",
        "s",
        "--seconds",
        "1000",
        "--vbuckets",
        "8",
        "--streams",
        "8",
        "--frozen",
        "2",
        "--slow",
        "1",
        "--reconnect-every",
        "500",
        "--keys",
        "300",
        "--value-max",
        "5000",
        "--memory-mib",
        "16",
        "--json",
    ];
    let serving = Serving::start(&stress, disk.path());
    let wait_for = |status: u16| {
        let mut looks = 0;
        while serving.get("/healthz").0 != status {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            looks += 1;
            assert!(looks < 6_000, "the health never became {status}");
        }
    };
    wait_for(503);
    let (_, cause) = serving.get("/healthz");
    assert!(cause.contains("degraded"), "{cause}");
    disk.make_room();
    wait_for(200);
    let (code, out, printed) = serving.stop();
    assert_eq!(code, 0, "{out}{printed}");
    let report = json(&out);
    assert_eq!(
        (&report["lost"], &report["violations"]),
        (&0.into(), &0.into())
    );
    assert!(report["refused"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_tail_refuses_a_position_that_was_reached_with_another_filter() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for key in ["a1", "b1"] {
        ok(&["set", "--dir", "s", key, "v"], dir);
    }
    let tail = |options: &[&str]| {
        let all = [
            "tail",
            "--dir",
            "s",
            "--all",
            "--until-high",
            "--resume",
            "state",
        ];
        run(&[&all[..], options].concat(), dir)
    };
    assert!(tail(&["--prefix", "a"]).status.success());
    let state = std::fs::read(dir.join("state")).unwrap();
    for options in [
        &["--prefix", "b"][..],
        &[],
        &["--prefix", "a", "--keys-only"],
    ] {
        let refused = tail(options);
        assert_eq!(refused.status.code(), Some(2), "{options:?}");
        let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            printed.contains("--prefix") && printed.contains("state"),
            "{printed}"
        );
        assert_eq!(refused.stdout, b"", "{options:?}");
        assert_eq!(std::fs::read(dir.join("state")).unwrap(), state);
    }
    ok(&["set", "--dir", "s", "a2", "v"], dir);
    let more = tail(&["--prefix", "a"]);
    let more = changes(&String::from_utf8(more.stdout).unwrap());
    assert_eq!(
        more.values().map(|(key, _)| &**key).collect::<Vec<_>>(),
        ["a2"]
    );
}

#[test]
fn a_tail_of_one_vbucket_keeps_the_positions_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let lines = (0..40).map(|n| format!("{{\"key\":\"k{n}\"}}"));
    write_lines(&dir.join("in.jsonl"), lines);
    ok(
        &["import", "--dir", "s", "--vbuckets", "4", "in.jsonl"],
        dir,
    );
    let tail = |which: &[&str]| {
        let what = ["tail", "--dir", "s", "--until-high", "--resume", "state"];
        changes(&ok(&[&what[..], which].concat(), dir))
    };
    let first = tail(&["--vb", "0"]);
    let second = tail(&["--vb", "1"]);
    assert!(!first.is_empty() && !second.is_empty());
    assert_eq!(tail(&["--vb", "0"]).len(), 0, "printed already");
    let rest = tail(&["--all"]);
    assert_eq!(first.len() + second.len() + rest.len(), 40);
    assert!(rest.keys().all(|(vb, _)| *vb >= 2));
}

#[test]
fn a_tail_of_a_restored_store_names_the_seqno_to_roll_back_to() {
    let tail = [
        "tail",
        "--dir",
        "s",
        "--all",
        "--until-high",
        "--resume",
        "state",
    ];
    for restore in ["rm -r s && cp -a copy s", "new-branch"] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        ok(&["set", "--dir", "s", "k", "first"], dir);
        assert!(
            Command::new("cp")
                .args(["-a", "s", "copy"])
                .current_dir(dir)
                .status()
                .unwrap()
                .success()
        );
        let is_copied = restore.starts_with("rm");
        if is_copied {
            ok(&["set", "--dir", "s", "k", "LOST"], dir);
        }
        assert_eq!(changes(&ok(&tail, dir)).len(), 1);
        if is_copied {
            let done = Command::new("sh")
                .args(["-c", restore])
                .current_dir(dir)
                .status();
            assert!(done.unwrap().success());
        } else {
            let printed = ok(&["--json", "new-branch", "--dir", "s"], dir);
            assert_eq!(json(&printed)["vbuckets"], 64);
        }
        let stats = json(&ok(&["--json", "stats", "--dir", "s", "--vb", "0"], dir));
        assert_eq!(
            stats["failover_log"].as_array().unwrap().len(),
            2,
            "{stats}"
        );
        ok(&["set", "--dir", "s", "k", "after"], dir);
        for _ in 0..2 {
            let output = run(&tail, dir);
            let printed = String::from_utf8(output.stdout).unwrap();
            if is_copied {
                // Each run says so, until one starts with a new file or --from.
                assert_eq!(output.status.code(), Some(1), "{printed}");
                let end = printed
                    .lines()
                    .map(json)
                    .find(|line| line["reason"] == "rollback");
                let end = end.unwrap();
                assert_eq!(
                    (&end["to"], &end["rollback_reason"]),
                    (&1.into(), &"diverged".into())
                );
            } else {
                assert!(output.status.success(), "nothing was lost: {printed}");
            }
        }
    }
}
