//! Signals, also while the output of the program is not read.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Blocked, code, json, ok, vbstore, within, write_lines};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Creates a store whose dump is several times the size of a pipe's buffer.
fn store(dir: &Path) {
    let lines = (0..4_000).map(|n| format!("{{\"key\":\"k{n}\",\"pad\":\"{n:0>200}\"}}"));
    write_lines(&dir.join("in.jsonl"), lines);
    let args = ["import", "--dir", "s", "--vbuckets", "4"];
    ok(
        &[&args[..], &["--durability", "logged", "in.jsonl"]].concat(),
        dir,
    );
}

/// Returns the program with SIGHUP not ignored. It would be, where the tests run under `nohup`.
fn with_default_hangup() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", env!("CARGO_BIN_EXE_vbstore")]);
    command
}

fn branches(dir: &Path) -> usize {
    let printed = ok(&["stats", "--dir", "s", "--vb", "0", "--json"], dir);
    let log = json(&printed).get("failover_log").cloned().unwrap();
    log.as_array().unwrap().len()
}

#[test]
fn one_signal_ends_a_program_whose_output_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    // A value that is larger than a pipe's buffer.
    let mut value = vbstore();
    let mut value = value
        .args(["session", "--dir", "s"])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let large = "1".repeat(200_000);
    let set = format!("{{\"op\":\"set\",\"key\":\"large\",\"value\":\"{large}\"}}");
    writeln!(value.stdin.take().unwrap(), "{set}").unwrap();
    assert!(value.wait().unwrap().success());
    let before = branches(dir);
    let commands: [&[&str]; 8] = [
        &["keys", "--json"],
        &["dump"],
        &["dump", "--by", "key"],
        &["tail", "--all"],
        &["tail", "--vb", "1"],
        &["tail", "--all", "--resume", "position"],
        &["get", "large"],
        &["dump", "--json"],
    ];
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        for command in commands {
            let mut program = with_default_hangup();
            program.args(command).args(["--dir", "s"]).current_dir(dir);
            let (exit, printed) = Blocked::start(program).end(signal);
            assert_eq!(exit, Some(1), "{command:?} {signal:?}: {printed}");
            assert!(printed.contains("interrupted"), "{command:?}: {printed}");
        }
    }
    assert_eq!(branches(dir), before, "every stop was clean");

    // Nothing of the output was read, so the saved positions must not skip anything.
    let args = ["tail", "--all", "--dir", "s", "--until-high"];
    let tailed = ok(&[&args[..], &["--resume", "position"]].concat(), dir);
    let changes = tailed.lines().filter(|line| line.contains("\"mutation\""));
    assert_eq!(changes.count(), 4_001);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    store(dir);
    let mut program = vbstore();
    program.args(["dump", "--dir", "s"]).current_dir(dir);
    let blocked = Blocked::start(program);
    kill_process(Pid::from_child(&blocked.child), Signal::TERM).unwrap();
    assert_eq!(blocked.end(Signal::TERM).0, Some(1));
}

#[test]
fn a_hangup_closes_the_store_unless_it_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    ok(&["set", "--dir", "s", "k", "v"], dir);
    let serve = |prefix: &str| {
        let script = format!("{prefix} \"$0\" serve --dir s");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_vbstore")])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert!(line.contains("is open until"), "{line}");
        child
    };
    let mut child = serve("exec env --default-signal=HUP");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    within("it has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let mut child = serve("trap '' HUP; exec");
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::HUP).unwrap();
    // SIGTERM still works. If SIGHUP had been handled too, this second signal would exit with 1.
    kill_process(pid, Signal::TERM).unwrap();
    within("it has ended", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(branches(dir), 1, "every stop was clean");
    assert_eq!(code(&["verify", "--dir", "s"], dir).0, 0);
}
