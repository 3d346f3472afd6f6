//! The program in a shell: list keys, pipe values, complete commands.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Serving, Session, code, json, ok, terminal, vbstore, within, write_lines};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Output, Stdio};

/// Runs the program with `input` on its standard input.
fn pipe(args: &[&str], input: &[u8], dir: &Path) -> Output {
    let mut child = vbstore()
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Fails if the program refuses its arguments, as it then does not read.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

#[test]
fn keys_of_all_vbuckets_are_listed_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut names: Vec<String> = (0..3_000).map(|n| format!("user::{n}")).collect();
    names.extend((0..50).map(|n| format!("item::{n}")));
    let lines = names.iter().map(|name| format!("{{\"key\":\"{name}\"}}"));
    write_lines(&dir.join("in.jsonl"), lines);
    let import = ["import", "--dir", "s", "--durability", "logged", "in.jsonl"];
    ok(&import, dir);
    // Deleted keys are not listed.
    ok(&["del", "--dir", "s", "user::7"], dir);
    names.retain(|name| name != "user::7");
    names.sort();

    let listed = ok(&["keys", "--dir", "s"], dir);
    assert_eq!(listed.lines().collect::<Vec<_>>(), names);
    let items = ok(&["ls", "--dir", "s", "--prefix", "item::"], dir);
    assert_eq!(items.lines().count(), 50);
    assert!(items.lines().is_sorted());
    let some = [
        "keys", "--dir", "s", "--prefix", "user::", "--from", "user::5",
    ];
    let some = ok(&[&some[..], &["--limit", "3"]].concat(), dir);
    assert_eq!(some, "user::5\nuser::50\nuser::500\n");
    let before = ["keys", "--dir", "s", "--prefix", "user::", "--from", "a"];
    let before = ok(&[&before[..], &["--limit", "1"]].concat(), dir);
    assert_eq!(before, "user::0\n");
    assert_eq!(ok(&["keys", "--dir", "s", "--prefix", "none"], dir), "");

    let one = ok(&["keys", "--dir", "s", "--json", "--limit", "1"], dir);
    let one = json(&one);
    assert_eq!(one["key"], "item::0");
    assert_eq!(one["value_len"], "{\"key\":\"item::0\"}".len());
    let vb = one["vb"].to_string();
    let of_vb = ok(&["keys", "--dir", "s", "--vb", &vb], dir);
    assert!(of_vb.lines().any(|key| key == "item::0"));
    assert!(of_vb.lines().count() < 200 && of_vb.lines().is_sorted());

    for by in ["seqno", "key"] {
        let dumped = ok(
            &["dump", "--dir", "s", "--prefix", "item::", "--by", by],
            dir,
        );
        assert_eq!(dumped.lines().count(), 50, "{by}");
    }
    assert_eq!(code(&["keys", "--dir", "s", "--limit", "0"], dir).0, 2);
    let (exit, printed) = code(&["keys", "--dir", "s", "--vb", "64"], dir);
    assert_eq!(exit, 2);
    assert!(
        printed.contains("no vBucket 64: the store has 64"),
        "{printed}"
    );
}

#[test]
fn no_key_can_control_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut session = Session::start(dir, "s");
    for key in [
        r#""plain""#,
        r#""a\nb""#,
        r#""\u001b[31mred""#,
        r#""{\"base64\":\"/w==\"}""#,
        r#"{"base64":"/w=="}"#,
    ] {
        let set = session.ask(&format!(r#"{{"op":"set","key":{key},"value":""}}"#));
        assert_eq!(set["ok"], true);
    }
    session.end();
    let listed = ok(&["keys", "--dir", "s"], dir);
    let expected = [
        r#""\u001b[31mred""#,
        r#""a\nb""#,
        "plain",
        r#""{\"base64\":\"/w==\"}""#,
        r#"{"base64":"/w=="}"#,
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    let encoded = ok(&["keys", "--dir", "s", "--base64", "--from", "cA=="], dir);
    let expected = ["cGxhaW4=", "eyJiYXNlNjQiOiIvdz09In0=", "/w=="];
    assert_eq!(encoded.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_value_comes_and_goes_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let large: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    for value in [&b""[..], b"no line feed", b"\n\n", b"\xff\0-\n", &large] {
        let set = pipe(&["set", "--dir", "s", "k", "-"], value, dir);
        assert!(set.status.success(), "{set:?}");
        let get = pipe(&["get", "--dir", "s", "k"], b"", dir);
        assert!(get.stdout == value, "{} bytes", get.stdout.len());
    }
    let too_large = pipe(&["set", "--dir", "s", "k", "-"], &vec![b'x'; 21 << 20], dir);
    assert_eq!(too_large.status.code(), Some(2), "{too_large:?}");
    assert!(pipe(&["get", "--dir", "s", "k"], b"", dir).stdout == large);

    // An interrupted `set` sets nothing, although it has read some input.
    let mut cut = vbstore()
        .args(["set", "--dir", "s", "k", "-"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = cut.stdin.take().unwrap();
    input.write_all(b"half").unwrap();
    // Once it reads, its signal handlers are installed.
    within("what was sent is read", || {
        rustix::io::ioctl_fionread(&input).unwrap() == 0
    });
    kill_process(Pid::from_child(&cut), Signal::TERM).unwrap();
    within("it has ended", || cut.try_wait().unwrap().is_some());
    assert_eq!(cut.wait().unwrap().code(), Some(1));
    assert!(pipe(&["get", "--dir", "s", "k"], b"", dir).stdout == large);

    // On a terminal a line feed follows the value, so that the prompt begins on a new line.
    ok(&["set", "--dir", "s", "k", "v"], dir);
    let (mut control, terminal) = terminal(80, 24);
    let mut get = vbstore()
        .args(["get", "--dir", "s", "k"])
        .current_dir(dir)
        .stdout(terminal.try_clone().unwrap())
        .stderr(terminal)
        .spawn()
        .unwrap();
    assert!(get.wait().unwrap().success());
    let mut printed = Vec::new();
    // Linux reports an error at the end of a terminal that no program has open any more.
    drop(control.read_to_end(&mut printed));
    assert_eq!(printed, b"v\r\n");
}

#[test]
fn base64_holds_for_keys_values_and_output() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ok(&["set", "--dir", "s", "--base64", "/wA=", "AP8K"], dir);
    assert_eq!(
        ok(&["get", "--dir", "s", "--base64", "/wA="], dir),
        "AP8K\n"
    );
    let get = json(&ok(
        &["get", "--dir", "s", "--base64", "--json", "/wA="],
        dir,
    ));
    assert_eq!(get["key"], json(r#"{"base64":"/wA="}"#));
    assert_eq!(get["value"], json(r#"{"base64":"AP8K"}"#));
    assert_eq!(ok(&["keys", "--dir", "s", "--base64"], dir), "/wA=\n");
    ok(&["del", "--dir", "s", "--base64", "/wA="], dir);
    assert_eq!(ok(&["keys", "--dir", "s"], dir), "");
    for args in [
        &["get", "--dir", "s", "--base64", "!"][..],
        &["set", "--dir", "s", "--base64", "aw==", "!"],
        &["keys", "--dir", "s", "--base64", "--prefix", "!"],
        &["set", "--dir", "s", "--base64", "", "aw=="],
    ] {
        let (exit, printed) = code(args, dir);
        assert_eq!(exit, 2, "{args:?}: {printed}");
    }
}

#[test]
fn a_deletion_may_ask_for_a_cas() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let set = json(&ok(&["set", "--dir", "s", "--json", "k", "v"], dir));
    let cas = set["cas"].to_string();
    let (exit, printed) = code(&["del", "--dir", "s", "--cas", "1", "k"], dir);
    assert_eq!(exit, 1, "{printed}");
    assert!(printed.contains(&cas), "{printed}");
    ok(&["del", "--dir", "s", "--cas", &cas, "k"], dir);
    assert_eq!(code(&["get", "--dir", "s", "k"], dir).0, 1);
}

#[test]
fn the_directory_may_come_from_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let run = |variable: &str, args: &[&str]| {
        vbstore()
            .args(args)
            .env("VBSTORE_DIR", variable)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    assert!(run("s", &["set", "k", "v"]).status.success());
    assert!(dir.path().join("s/VBSTORE").exists());
    for args in [
        &["get", "k"][..],
        &["keys"],
        &["stats"],
        &["dump"],
        &["tail", "--all", "--until-high"],
        &["session"],
        &["verify"],
        &["compact"],
        &["new-branch"],
        &["import", "/dev/null"],
    ] {
        let output = run("s", args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    // The option takes precedence, and an empty variable counts as unset.
    assert_eq!(run("s", &["get", "--dir", "t", "k"]).status.code(), Some(3));
    assert_eq!(run("", &["get", "k"]).status.code(), Some(2));
    let help = run("s", &["get", "-h"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("[env: VBSTORE_DIR]"), "{help}");
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let help = ok(&["help"], dir);
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.split("\n\n").next().unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 17, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ok(&["completions", shell], dir);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(code(&["completions", "nosh"], dir).0, 2);
    assert!(ok(&["man"], dir).contains(".TH vbstore 1"));
    assert_eq!(ok(&["man", "new/man1"], dir), "");
    for command in commands {
        let page = dir.join(format!("new/man1/vbstore-{command}.1"));
        assert!(page.exists(), "{command}");
        let help = ok(&[command, "--help"], dir);
        assert!(help.contains("Usage: vbstore"), "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
    std::fs::write(dir.join("file"), "").unwrap();
    let (exit, printed) = code(&["man", "file"], dir);
    assert_eq!(exit, 4);
    assert!(printed.contains("file"), "{printed}");
}

#[test]
fn metrics_are_served_at_a_host_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let serving = Serving::start_at("localhost:0", &["serve", "--dir", "s"], dir);
    assert_eq!(serving.get("/metrics").0, 200);
    assert!(!serving.url.contains("localhost"), "{}", serving.url);
    assert_eq!(serving.stop().0, 0);
    for (address, exit, text) in [
        ("0.0.0.0:0", 2, "--allow-remote"),
        ("[::]:0", 2, "--allow-remote"),
        ("localhost", 2, "a host and a port"),
        (":9184", 2, "a host and a port"),
        ("localhost:http", 2, "a host and a port"),
        (
            "no-such-host.invalid:1",
            4,
            "cannot resolve no-such-host.invalid:1",
        ),
    ] {
        let args = ["serve", "--dir", "new", "--metrics", address];
        let (found, printed) = code(&args, dir);
        assert_eq!(found, exit, "{address}: {printed}");
        assert!(printed.contains(text), "{address}: {printed}");
        assert!(!dir.join("new").exists(), "{address}: it was opened");
    }
    let serving = Serving::start_at("0.0.0.0:0", &["serve", "--dir", "s", "--allow-remote"], dir);
    assert_eq!(serving.stop().0, 0);
}

#[test]
fn compacting_releases_space() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // Values that do not compress; each import replaces those of the one before it.
    let mut state: u64 = 1;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{state:016x}")
    };
    for round in 0..3 {
        let lines = (0..4_000).map(|n| {
            let pad: String = (0..30).map(|_| random()).collect();
            format!("{{\"key\":\"k{n}\",\"round\":{round},\"pad\":\"{pad}\"}}")
        });
        write_lines(&dir.join("in.jsonl"), lines);
        let import = [
            "import",
            "--dir",
            "s",
            "--vbuckets",
            "4",
            "--durability",
            "logged",
        ];
        ok(&[&import[..], &["in.jsonl"]].concat(), dir);
    }
    let report = json(&ok(&["compact", "--dir", "s", "--json"], dir));
    assert_eq!(
        (&report["ok"], &report["compacted"]),
        (&true.into(), &4.into())
    );
    let bytes = |name: &str| report[name].as_u64().unwrap();
    assert!(
        bytes("live_bytes_after") < bytes("live_bytes_before"),
        "{report}"
    );
    assert!(bytes("bytes_after") < bytes("bytes_before"), "{report}");
    let printed = ok(&["compact", "--dir", "s", "--vb", "3"], dir);
    assert!(
        printed.starts_with("compacted 1 of 1 vBuckets: "),
        "{printed}"
    );
    assert_eq!(ok(&["keys", "--dir", "s"], dir).lines().count(), 4_000);
    ok(&["verify", "--dir", "s"], dir);
    assert_eq!(code(&["compact", "--dir", "none"], dir).0, 3);
    assert_eq!(code(&["compact", "--dir", "s", "--vb", "4"], dir).0, 2);
}

#[test]
fn stats_are_printed_as_short_lines_without_json() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ok(&["set", "--dir", "s", "k", "v"], dir);
    for _ in 0..10 {
        ok(&["new-branch", "--dir", "s"], dir);
    }
    for args in [
        &["stats", "--dir", "s"][..],
        &["stats", "--dir", "s", "--vb", "0"],
    ] {
        let printed = ok(args, dir);
        assert!(printed.lines().all(|line| line.len() < 80), "{printed}");
        assert!(!printed.contains(['{', '"']), "{printed}");
    }
    let printed = ok(&["stats", "--dir", "s"], dir);
    assert!(
        printed.contains("health                   open\n"),
        "{printed}"
    );
    let all = json(&ok(&["stats", "--dir", "s", "--json"], dir));
    assert!(all["metrics"].is_object());
}
