//! Arguments, and the errors for wrong ones.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Session, code, json, ok, vbstore};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Output, Stdio};

/// Runs the program with arguments that need not be UTF-8.
fn run_bytes(args: &[&[u8]], dir: &Path) -> Output {
    vbstore()
        .args(args.iter().map(|arg| OsStr::from_bytes(arg)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

const COMMANDS: [&str; 17] = [
    "keys",
    "compact",
    "completions",
    "man",
    "import",
    "get",
    "set",
    "del",
    "stats",
    "dump",
    "tail",
    "session",
    "serve",
    "watch",
    "new-branch",
    "verify",
    "stress",
];

#[test]
fn an_argument_that_is_not_utf8_does_not_panic() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for command in COMMANDS {
        let command = command.as_bytes();
        for args in [
            &[command, b"--dir", b"d\xff", b"a", b"b", b"c", b"--bogus"][..],
            &[command, b"--bogus\xff"],
            &[command, b"a", b"b", b"\xff", b"\xfe"],
            &[b"--json", command, b"a", b"b", b"\xff", b"\xfe"],
            &[b"\xff"],
        ] {
            let output = run_bytes(args, dir);
            let printed = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {printed}");
            if args.contains(&&b"--json"[..]) {
                assert_eq!(
                    json(printed.trim_end())["error"]["kind"],
                    "usage",
                    "{printed}"
                );
            }
        }
    }
}

#[test]
fn keys_values_and_names_that_are_not_utf8_work_as_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = run_bytes(&[b"set", b"--dir", b"d\xff", b"k\xfe", b"v\xfd"], dir);
    assert!(set.status.success(), "{set:?}");
    let get = run_bytes(&[b"get", b"--dir", b"d\xff", b"k\xfe"], dir);
    assert!(get.stdout.starts_with(b"v\xfd"), "{get:?}");
    let get = run_bytes(&[b"get", b"--json", b"--dir", b"d\xff", b"k\xfe"], dir);
    let get = json(&String::from_utf8(get.stdout).unwrap());
    assert_eq!(get["key"], json(r#"{"base64":"a/4="}"#));
    let tail: &[&[u8]] = &[b"tail", b"--all", b"--until-high", b"--dir", b"d\xff"];
    for (prefix, count) in [(&b"k\xfe"[..], 1), (b"\xfe", 0)] {
        let output = run_bytes(&[tail, &[b"--prefix", prefix]].concat(), dir);
        let lines = String::from_utf8(output.stdout).unwrap();
        assert_eq!(lines.matches("\"mutation\"").count(), count, "{lines}");
    }
    let missing = run_bytes(&[b"get", b"--dir", b"d\xff", b"\xfc"], dir);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");

    let mut serving = vbstore()
        .arg("serve")
        .arg("--json")
        .arg("--dir")
        .arg(OsString::from_vec(b"d\xff".to_vec()))
        .current_dir(dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(serving.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(json(&line)["dir"], json(r#"{"base64":"ZP8="}"#));
    let pid = rustix::process::Pid::from_child(&serving);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(serving.wait().unwrap().code(), Some(0));

    let del = run_bytes(&[b"del", b"--dir", b"d\xff", b"k\xfe"], dir);
    assert!(del.status.success(), "{del:?}");
}

#[test]
fn errors_name_the_file_and_come_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ok(&["set", "--dir", "s", "k", "v"], dir);
    std::fs::create_dir(dir.join("folder")).unwrap();
    std::fs::write(dir.join("file"), "x").unwrap();
    for (args, exit, text) in [
        (
            &[
                "tail",
                "--dir",
                "s",
                "--all",
                "--until-high",
                "--resume",
                "folder",
            ][..],
            4,
            "cannot read folder: Is a directory",
        ),
        (
            &[
                "tail",
                "--dir",
                "s",
                "--all",
                "--until-high",
                "--resume",
                "no/pos",
            ],
            4,
            "cannot write no/pos: No such file",
        ),
        (
            &[
                "stress",
                "--dir",
                "new",
                "--seconds",
                "1",
                "--json",
                "folder",
            ],
            4,
            "cannot write folder: Is a directory",
        ),
        (
            &["import", "--dir", "new2", "--tail", "file", "/dev/null"],
            4,
            "cannot create the directory file: File exists",
        ),
        (&["tail", "--dir", "s"], 2, "--all"),
        (
            &["tail", "--dir", "s", "--vb", "64"],
            2,
            "vbstore: no vBucket 64: the store has 64 (0 to 63)",
        ),
        (
            &["dump", "--dir", "s", "--vb", "64"],
            2,
            "vbstore: no vBucket 64: the store has 64 (0 to 63)",
        ),
        (
            &["stats", "--dir", "s", "--vb", "65535"],
            2,
            "vbstore: no vBucket 65535: the store has 64 (0 to 63)",
        ),
        (&["set", "--dir", "s", "", "v"], 2, "the key is empty"),
        (&["get", "--dir", "s", ""], 2, "the key is empty"),
        (&["del", "--dir", "s", ""], 2, "the key is empty"),
        (&["del", "--dir", "s", "none"], 1, "\"none\" has no value"),
    ] {
        let output = common::run(args, dir);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
        // An import prints its counts however it ends.
        let printed = String::from_utf8_lossy(&output.stdout);
        let is_idle = printed.is_empty() || printed.starts_with("imported 0 records");
        assert!(is_idle, "{args:?}: {output:?}");
    }
    assert!(!dir.join("new").exists(), "no work was begun");
}

#[test]
fn a_full_output_is_named() {
    let dir = tempfile::tempdir().unwrap();
    ok(&["set", "--dir", "s", "k", "v"], dir.path());
    let full = std::fs::File::options().write(true).open("/dev/full");
    let output = vbstore()
        .args(["dump", "--dir", "s"])
        .current_dir(dir.path())
        .stdout(full.unwrap())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{printed}");
    assert!(
        printed.contains("cannot write to standard output"),
        "{printed}"
    );
}

#[test]
fn a_session_refuses_fields_that_a_command_does_not_take() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::start(dir.path(), "s");
    let set = session.ask(r#"{"op":"set","key":"k","value":"v"}"#);
    assert_eq!(set["ok"], true);
    for (line, named) in [
        (
            r#"{"op":"set","key":"k","value":"w","durabilty":"memory","id":1}"#,
            "\"durabilty\"",
        ),
        (
            r#"{"op":"add","key":"n","value":"w","cas":1,"id":1}"#,
            "\"cas\"",
        ),
        (
            r#"{"op":"set","key":"k","value":"w","cas":"1","id":1}"#,
            "\"cas\"",
        ),
        (r#"{"op":"get","key":["k"],"id":1}"#, "\"key\""),
        (
            r#"{"op":"batch","vb":0,"changes":[{"key":"k","valu":"w"}],"id":1}"#,
            "\"valu\"",
        ),
        (
            r#"{"op":"stats","vb":64,"id":1}"#,
            "no vBucket 64: the store has 64 (0 to 63)",
        ),
    ] {
        let refused = session.ask(line);
        assert_eq!((&refused["ok"], &refused["id"]), (&false.into(), &1.into()));
        assert_eq!(refused["error"]["exit_code"], 2, "{line}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(named), "{line}: {message}");
    }
    let get = session.ask(r#"{"op":"get","key":"k"}"#);
    assert_eq!(get["record"]["cas"], set["cas"], "nothing was changed");
    let help = session.ask(r#"{"op":"help"}"#);
    let set = help["set"].as_str().unwrap();
    assert_eq!(set, "key, value, durability?, expiry?, flags?, cas?");
    session.end();
}

#[test]
fn with_json_every_line_of_standard_error_is_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let objects = |args: &[&str]| -> Vec<serde_json::Value> {
        let (exit, printed) = code(args, dir);
        assert_ne!(exit, 0, "{args:?}: {printed}");
        printed.lines().map(json).collect()
    };
    let kinds = |args: &[&str]| -> Vec<String> {
        let of = |object: serde_json::Value| object["error"]["kind"].as_str().unwrap().to_owned();
        objects(args).into_iter().map(of).collect()
    };
    assert_eq!(kinds(&["get", "--json"]), ["usage"]);
    assert_eq!(kinds(&["--json"]), ["usage"]);
    assert_eq!(
        kinds(&["--json", "get", "--dir", "none", "k"]),
        ["no_store"]
    );

    // The library detects a copied store, and logs a warning.
    ok(&["set", "--dir", "s", "k", "v"], dir);
    let copied = std::process::Command::new("cp")
        .args(["-r", "s", "copy"])
        .current_dir(dir)
        .status();
    assert!(copied.unwrap().success());
    for (command, exit) in [("get", 0), ("del", 0)] {
        let (found, printed) = code(&[command, "--json", "--dir", "copy", "k"], dir);
        assert_eq!(found, exit, "{printed}");
        if command == "get" {
            assert!(!printed.is_empty(), "no warning about the copy");
        }
        for line in printed.lines() {
            let log = json(line)["log"].clone();
            assert_eq!(log["level"], "WARN", "{line}");
            assert!(log["message"].is_string(), "{line}");
        }
    }
}
