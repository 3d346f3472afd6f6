//! Tests of `import --resume` after kills and signals, and after the input has grown.

#![expect(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::similar_names,
    reason = "a test may panic, and tells one story in one function"
)]

mod common;

use common::{code, documents, import, json, ok, vbstore, write_lines};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn keys(dir: &Path) -> String {
    documents("s", dir).into_keys().collect()
}

#[test]
fn an_import_that_is_killed_goes_on_and_imports_nothing_twice() {
    // Enough records that no import ends before it is killed.
    const LINES: usize = 60_000;
    const WINDOW: u64 = 256;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let input = dir.join("in.jsonl");
    write_lines(
        &input,
        (0..LINES).map(|n| format!("{{\"key\":\"k{n}\",\"n\":{n},\"pad\":\"{n:0>200}\"}}")),
    );
    let state = dir.join("s/IMPORT-STATE.json");
    let line_reached = || -> u64 {
        fs::read_to_string(&state)
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
        // Kill the import as soon as it has made this progress.
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
    let expected: BTreeMap<String, String> = fs::read_to_string(&input)
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
    let state: PathBuf = dir.join("s/IMPORT-STATE.json");
    let line_reached = || {
        let text = fs::read_to_string(&state).ok();
        text.map_or(0, |text| json(&text)["line"].as_u64().unwrap())
    };
    while line_reached() < 16 {
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    // The pipe stays open: the signal alone must end it.
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("interrupted"), "{said}");
    let stats = json(&ok(&["stats", "--dir", "s", "--json"], dir));
    assert!(stats["items"].as_u64().unwrap() >= 16);
    ok(&["verify", "--dir", "s"], dir);
}

#[test]
fn an_import_into_another_store_at_the_same_place_does_not_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_lines(
        &dir.join("in.jsonl"),
        (0..10).map(|n| format!("{{\"key\":\"k{n}\"}}")),
    );
    let args = ["s", "--state", "state", "--resume", "in.jsonl"];
    assert_eq!(import(&args, dir).1["records"], 10);
    let (exit, again) = import(&args, dir);
    assert_eq!(
        (exit, &again["records"], &again["lines"]),
        (0, &0.into(), &10.into())
    );
    fs::remove_dir_all(dir.join("s")).unwrap();

    let (exit, said) = code(
        &[
            "import", "--dir", "s", "--state", "state", "--resume", "in.jsonl",
        ],
        dir,
    );

    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("another store"), "{said}");
    // A state file in the store directory is deleted together with the store.
    let (exit, report) = import(&["s", "--resume", "in.jsonl"], dir);
    assert_eq!((exit, &report["records"]), (0, &10.into()));
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
        let state = dir.join("s/IMPORT-STATE.json");
        let mut child = vbstore()
            .args(&args)
            .current_dir(dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let has_begun = || {
            let text = fs::read_to_string(&state).unwrap_or_default();
            text.contains("\"line\"") && !text.contains("\"line\":0,")
        };
        while !has_begun() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        ok(&args, dir);

        let stats = json(&ok(&["stats", "--dir", "s", "--json"], dir));
        assert_eq!(stats["items"], 30_000, "{durability}");
    }
}

#[test]
fn a_finished_import_is_followed_by_another_or_by_what_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let resumed = |name: &str| {
        let (exit, report) = import(&["s", "--vbuckets", "2", "--resume", name], dir);
        assert_eq!(exit, 0, "{report}");
        (
            report["records"].as_u64().unwrap(),
            report["already_there"].as_u64().unwrap(),
        )
    };
    write("one", "{\"key\":\"a\"}\n");
    assert_eq!(resumed("one"), (1, 0));
    assert_eq!(resumed("one"), (0, 0));
    write("two", "{\"key\":\"b\"}\n");
    assert_eq!(resumed("two"), (1, 0));
    write("two", "{\"key\":\"b\"}\n{\"key\":\"c\"}\n");
    assert_eq!(resumed("two"), (1, 0));
    // The input is replaced by a longer and by a shorter one.
    write("two", "{\"key\":\"d\"}\n{\"key\":\"e\"}\n{\"key\":\"f\"}\n");
    assert_eq!(resumed("two"), (3, 0));
    write("two", "{\"key\":\"g\"}\n");
    assert_eq!(resumed("two"), (1, 0));
    assert_eq!(keys(dir), "abcdefg");

    // An array that has grown.
    write("array", "[\n {\"key\":\"h\"}\n]\n");
    assert_eq!(resumed("array"), (1, 0));
    write("array", "[\n {\"key\":\"h\"},\n {\"key\":\"i\"}\n]\n");
    assert_eq!(resumed("array"), (1, 0));
}

#[test]
fn a_line_that_was_half_written_is_read_again_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |text: &str| fs::write(dir.join("in"), text).unwrap();
    let resume = || {
        let (exit, report) = import(&["s", "--vbuckets", "2", "--resume", "in"], dir);
        (
            exit,
            report["records"].as_u64().unwrap(),
            report["lines"].as_u64().unwrap(),
        )
    };
    write("{\"key\":\"a\"}\n{\"key\":\"b\",\"v\":");
    assert_eq!(resume(), (1, 1, 2));
    assert_eq!(resume(), (1, 0, 2));
    write("{\"key\":\"a\"}\n{\"key\":\"b\",\"v\":1}\n{\"key\":\"c\"}");
    assert_eq!(resume(), (0, 2, 3));
    write("{\"key\":\"a\"}\n{\"key\":\"b\",\"v\":1}\n{\"key\":\"c\"}\n{\"key\":\"d\"}\n");
    assert_eq!(resume(), (0, 1, 4));
    assert_eq!(keys(dir), "abcd");

    // A row with a partially written quoted field, and a row that is truncated within a field.
    let csv = |store: &str, text: &str| {
        write(text);
        let args = [
            store,
            "--vbuckets",
            "2",
            "--format",
            "csv",
            "--key",
            "k",
            "--resume",
            "in",
        ];
        import(&args, dir).0
    };
    assert_eq!(csv("c", "k,v\n1,\"a\nb"), 1);
    assert_eq!(csv("c", "k,v\n1,\"a\nb\"\n2,x"), 0);
    assert_eq!(csv("c", "k,v\n1,\"a\nb\"\n2,xyz\n"), 0);
    let found: Vec<_> = documents("c", dir).into_values().collect();
    assert_eq!(found, ["1,\"a\nb\"", "2,xyz"]);
}

#[test]
fn what_was_rejected_before_a_kill_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // The second part of a compressed file is not written yet.
    let text = "nonsense\n{\"key\":1}\n";
    let whole = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let rest = zstd::encode_all(&b"{\"key\":2}\n"[..], 1).unwrap();
    let cut = [&whole[..], &rest[..rest.len() - 3]].concat();
    fs::write(dir.join("in"), cut).unwrap();
    let (exit, report) = import(&["s", "--resume", "in"], dir);
    assert_eq!((exit, &report["rejected_count"]), (4, &1.into()));

    fs::write(dir.join("in"), [whole, rest].concat()).unwrap();
    let (exit, report) = import(&["s", "--resume", "in"], dir);

    assert_eq!(exit, 1, "{report}");
    assert_eq!(
        (
            &report["records"],
            &report["rejected_count"],
            &report["rejected_before"]
        ),
        (&1.into(), &0.into(), &1.into())
    );
    // The rejection was reported before. From now on there is nothing new.
    assert_eq!(import(&["s", "--resume", "in"], dir).0, 0);
}

#[test]
fn one_state_is_found_however_the_store_is_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("in"), "{\"key\":\"a\"}\n").unwrap();
    import(&["s/", "--vbuckets", "2", "in"], dir);
    assert_eq!(
        fs::read_dir(dir).unwrap().count(),
        2,
        "nothing lies beside the store"
    );
    let here = dir.join("s");
    let absolute = here.to_string_lossy().into_owned();
    for (store, place, input) in [
        ("s", dir, "in"),
        ("./s//", dir, "./in"),
        (absolute.as_str(), dir, "in"),
        (".", here.as_path(), "../in"),
        ("../s", here.as_path(), "../in"),
    ] {
        let (exit, report) = import(&[store, "--resume", input], place);
        assert_eq!(
            (exit, &report["lines"], &report["already_there"]),
            (0, &1.into(), &0.into()),
            "{store}"
        );
    }

    // An earlier version kept the state file beside the store directory.
    let state = dir.join("s/IMPORT-STATE.json");
    let mut old = json(&fs::read_to_string(&state).unwrap());
    fs::remove_file(&state).unwrap();
    let object = old.as_object_mut().unwrap();
    object.retain(|name, _| !matches!(name.as_str(), "crc" | "layout" | "rejected"));
    object["input"]["fingerprint"] = crc32fast::hash(b"{\"key\":\"a\"}\n").into();
    object["is_finished"] = false.into();
    fs::write(dir.join("s.import-state.json"), old.to_string()).unwrap();
    let (exit, report) = import(&["s/", "--resume", "in"], dir);
    assert_eq!(
        (exit, &report["lines"], &report["already_there"]),
        (0, &1.into(), &0.into())
    );

    fs::write(&state, "").unwrap();
    let (exit, said) = code(&["import", "--dir", "s", "--resume", "in"], dir);
    assert_eq!(exit, 4);
    assert!(
        said.contains("s/IMPORT-STATE.json") && said.contains("it is empty"),
        "{said}"
    );
}

#[test]
fn an_import_that_was_cut_short_goes_on_with_the_same_input_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let refused = |args: &[&str], what: &str| {
        let args = [&["import", "--dir", "s", "--resume"][..], args].concat();
        let (exit, said) = code(&args, dir);
        assert_eq!(exit, 2, "{args:?}: {said}");
        assert!(said.contains(what), "{args:?}: {said}");
    };
    write("in", "{\"key\":1}\n{\"key\":2}\nnonsense\n{\"key\":3}\n");
    write("other", "{\"key\":4}\n");
    let (exit, report) = import(&["s", "--vbuckets", "2", "--strict", "in"], dir);
    assert_eq!(
        (exit, &report["records"], &report["lines"]),
        (1, &2.into(), &2.into())
    );

    refused(&["other"], "/in (--format json --key key), up to line 2");
    refused(&["--key", "other", "in"], "of another input");
    write("in", "{\"key\":1}\n{\"key\":7}\nnonsense\n{\"key\":3}\n");
    refused(&["in"], "the file differs from the one");
    write("in", "{\"key\":1}\n");
    refused(&["in"], "the file is shorter than");
    write("in", "{\"key\":1}\n{\"key\":2}\n{\"key\":3}\n");
    let (exit, report) = import(&["s", "--resume", "in"], dir);
    assert_eq!(
        (exit, &report["records"], &report["already_there"]),
        (0, &1.into(), &0.into())
    );
}

#[test]
fn a_pipe_goes_on_if_the_same_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let import = |args: &[&str], text: &str| {
        let mut child = vbstore()
            .args(["import", "--json", "--dir", "s", "--vbuckets", "2"])
            .args(args)
            .arg("-")
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let said =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), said)
    };
    let (good, bad) = ("{\"key\":1}\n{\"key\":2}\n", "x\n{\"key\":3}\n");
    assert_eq!(import(&["--strict"], &format!("{good}{bad}")).0, 1);
    let (exit, said) = import(&["--resume"], "{\"key\":1}\n{\"key\":9}\n");
    assert_eq!(exit, 2, "{said}");
    assert!(said.contains("the stream differs from"), "{said}");
    let (exit, said) = import(&["--resume"], &format!("{good}{{\"key\":3}}\n"));
    let report = json(&said);
    assert_eq!(
        (exit, &report["records"], &report["already_there"]),
        (0, &1.into(), &0.into())
    );
    // The import was finished, so the next input is another stream.
    let (exit, said) = import(&["--resume"], "{\"key\":4}\n");
    assert_eq!((exit, &json(&said)["records"]), (0, &1.into()));
    assert_eq!(keys(dir), "1234");
}
