//! Reads stores that cannot be written to, or must not be.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and tells one story in one function"
)]

mod common;

use common::{Serving, Session, SmallDisk, code, json, ok, run};
use std::path::Path;
use std::process::Output;

/// The commands that only read, and a part of the output of each.
const READING: [(&[&str], &str); 7] = [
    (&["keys", "--dir", "s"], "k\n"),
    (&["get", "--dir", "s", "k"], "v"),
    (&["dump", "--dir", "s"], r#""key":"k""#),
    (&["dump", "--dir", "s", "--by", "key"], r#""key":"k""#),
    (&["stats", "--dir", "s"], "read_only"),
    (&["verify", "--dir", "s"], "ok: 64 vBuckets, 1 items"),
    (
        &["tail", "--dir", "s", "--all", "--until-high"],
        r#""key":"k""#,
    ),
];

fn printed(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn on_a_full_disk_reading_commands_warn_and_writing_commands_name_read_only() {
    let Some(disk) = SmallDisk::mount("on_a_full_disk_reading_commands_warn", "96m") else {
        return;
    };
    let dir = disk.path();
    ok(&["set", "--dir", "s", "k", "v"], dir);
    disk.fill(0);
    for (args, answer) in READING {
        let (code, out, err) = printed(&run(args, dir));
        assert_eq!(code, 0, "{args:?}: {err}");
        assert!(out.contains(answer), "{args:?}: {out}");
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
        assert!(err.starts_with("vbstore: the disk is full: "), "{err}");
        assert!(err.ends_with("; s is opened read-only\n"), "{err}");

        let asked = [args, &["--read-only"]].concat();
        let (code, out, err) = printed(&run(&asked, dir));
        assert_eq!((code, err.as_str()), (0, ""), "{asked:?}");
        assert!(out.contains(answer), "{asked:?}: {out}");
    }
    let (code_of_get, out, err) = printed(&run(&["get", "--dir", "s", "k", "--json"], dir));
    assert_eq!((code_of_get, json(&out)["value"].as_str()), (0, Some("v")));
    assert_eq!(json(&err)["warning"]["kind"], "disk_full", "{err}");

    for args in [
        &["set", "--dir", "s", "k", "w"][..],
        &["del", "--dir", "s", "k"],
        &["new-branch", "--dir", "s"],
        &["compact", "--dir", "s"],
        &["import", "--dir", "s", "/dev/null"],
        &["session", "--dir", "s"],
        &["stress", "--dir", "s", "--seconds", "1"],
    ] {
        let (code, err) = code(args, dir);
        assert_eq!(code, 4, "{args:?}: {err}");
        assert!(err.contains("the disk is full"), "{args:?}: {err}");
        assert!(
            err.contains("--read-only with get, keys, dump"),
            "{args:?}: {err}"
        );
    }
    // A store that does not exist cannot be opened read-only either.
    let (code_of_serve, err) = code(&["serve", "--dir", "none"], dir);
    assert_eq!(code_of_serve, 4, "{err}");
    assert!(err.contains("the disk is full"), "{err}");
    assert_eq!(code(&["get", "--dir", "none", "k"], dir).0, 3);

    disk.make_room();
    let (code, out, err) = printed(&run(&["get", "--dir", "s", "k"], dir));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "v", ""));
    ok(&["set", "--dir", "s", "k", "w"], dir);
}

fn branches(dir: &Path) -> usize {
    let printed = ok(&["stats", "--dir", "s", "--vb", "0", "--json"], dir);
    json(&printed)
        .get("failover_log")
        .unwrap()
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn read_only_holds_the_store_beside_others_that_read_and_refuses_changes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(code(&["get", "--dir", "s", "k", "--read-only"], dir).0, 3);
    assert!(!dir.join("s").exists());
    ok(&["set", "--dir", "s", "k", "v"], dir);
    let mut session = Session::start_with(dir, "s", &["--read-only"]);
    let found = session.ask(r#"{"op":"get","key":"k"}"#);
    assert_eq!(found["record"]["value"], "v");
    for command in [
        r#"{"op":"set","key":"k","value":"w"}"#,
        r#"{"op":"del","key":"k"}"#,
        r#"{"op":"compact","vb":0}"#,
        r#"{"op":"delete_vbucket","vb":0}"#,
    ] {
        let refused = session.ask(command);
        assert_eq!(refused["error"]["kind"], "read_only", "{command}");
    }
    for (args, answer) in READING {
        let asked = [args, &["--read-only"]].concat();
        let (code, out, err) = printed(&run(&asked, dir));
        assert_eq!((code, err.as_str()), (0, ""), "{asked:?}");
        assert!(out.contains(answer), "{asked:?}: {out}");
    }
    // Commands without --read-only are refused at once, without waiting for the readers.
    for args in [
        &["set", "--dir", "s", "k", "w"][..],
        &["get", "--dir", "s", "k"],
    ] {
        let (exit, printed) = code(args, dir);
        assert_eq!(exit, 3, "{args:?}: {printed}");
        assert!(printed.contains("open in another process"), "{printed}");
    }
    let serving = Serving::start(&["serve", "--dir", "s", "--read-only"], dir);
    let (status, cause) = serving.get("/healthz");
    assert_eq!(status, 503);
    assert!(cause.contains("read_only"), "{cause}");
    let (_, page) = serving.get("/metrics");
    let is_read_only = |line: &str| {
        line.starts_with("vbstore_health{") && line.contains("read_only") && line.ends_with(" 1")
    };
    assert!(page.lines().any(is_read_only), "{page}");
    assert_eq!(serving.stop().0, 0);
    session.end();
    assert_eq!(ok(&["get", "--dir", "s", "k"], dir), "v");
    assert_eq!(branches(dir), 1, "every stop was clean");
    for command in ["session", "serve"] {
        let both = [command, "--dir", "s", "--read-only", "--vbuckets", "4"];
        assert_eq!(code(&both, dir).0, 2, "{command}");
    }
}
