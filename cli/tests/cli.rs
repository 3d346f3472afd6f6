//! The program as a user types it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Session, code, json, ok};
use std::collections::BTreeMap;

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
fn a_session_sends_an_id_back_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::start(dir.path(), "s");
    for id in [
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        "1e400",
        "-0",
        "1E5",
        "\"\\u00e9\\/\\ud800\"",
        "{ \"b\" : 1e-400,\"a\":[1.10] }",
        "null",
    ] {
        for rest in [
            "\"op\":\"get\",\"key\":\"k\"",
            "\"op\":\"odd\"",
            "\"op\":\"get\",\"key\":1e400",
        ] {
            let answer = session.ask_for_text(&format!("{{\"id\": {id} ,{rest}}}"));
            assert!(answer.contains(&format!("\"id\":{id}}}")), "{answer}");
        }
    }
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
