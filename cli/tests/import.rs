//! Tests of `import` with valid and invalid input files, and of its reports.

#![expect(
    clippy::unwrap_used,
    clippy::as_conversions,
    reason = "a test may panic, and tells one story in one function"
)]

mod common;

use common::{SmallDisk, code, documents, import, json, not_run, ok, run, vbstore, write_lines};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Imports a file with this text. Returns the exit code, the report and the contents of the store.
fn imported(
    text: impl AsRef<[u8]>,
    args: &[&str],
) -> (i32, serde_json::Value, Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in"), text).unwrap();
    let args = [&["s", "--vbuckets", "2"][..], args, &["in"]].concat();
    let (exit, report) = import(&args, dir.path());
    let documents = documents("s", dir.path()).into_iter().collect();
    (exit, report, documents)
}

fn keys(documents: &[(String, String)]) -> Vec<&str> {
    documents.iter().map(|(key, _)| key.as_str()).collect()
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
    fs::write(dir.join("in.jsonl"), lines.join("\n")).unwrap();

    let (exit, report) = import(&["s", "in.jsonl"], dir);
    assert_eq!(exit, 1);
    let (exit, _) = import(&["v", "--skip-bad", "in.jsonl"], dir);
    assert_eq!(exit, 0);

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
    let (exit, said) = code(&["import", "--dir", "t", "--strict", "in.jsonl"], dir);
    assert_eq!(exit, 1);
    assert!(said.contains("line 2"), "{said}");
    assert_eq!(ok(&["get", "--dir", "t", "a"], dir), "{\"key\":\"a\"}");
    fs::write(dir.join("in.csv"), "name,id\n\"a,b\",1\n").unwrap();
    ok(
        &[
            "import", "--dir", "u", "--format", "csv", "--key", "name", "in.csv",
        ],
        dir,
    );
    assert_eq!(ok(&["get", "--dir", "u", "a,b"], dir), "\"a,b\",1");
}

#[test]
fn numbers_are_keys_as_they_are_written() {
    let numbers = [
        "0.916345371808552",
        "0.9163453718085521",
        "1",
        "1.0",
        "123456789012345678901234567890",
        "1e-400",
        "1e-401",
        "1e3",
    ];
    let lines = numbers.map(|number| format!("{{\"key\":{number}}}\n"));
    let (exit, _, documents) = imported(lines.concat(), &[]);
    assert_eq!((exit, keys(&documents)), (0, numbers.to_vec()));
    for (documents, line) in documents.iter().zip(&lines) {
        assert_eq!(documents.1, line.trim_end());
    }
    let neighbours = (0..2_000_u64).map(|n| f64::from_bits(0.75_f64.to_bits() + n));
    let lines: Vec<String> = neighbours
        .map(|n| {
            format!(
                "{{\"key\":{n:?}}}
"
            )
        })
        .collect();
    assert_eq!(imported(lines.concat(), &[]).2.len(), 2_000);
}

#[test]
fn an_import_that_loses_records_exits_with_1_and_says_why() {
    let (exit, report, _) = imported("{\"id\":1,\"v\":2}\n{\"id\":2}\n", &[]);
    assert_eq!(
        (exit, &report["ok"], &report["finished"]),
        (1, &false.into(), &true.into())
    );
    assert_eq!(
        (
            &report["rejected"][0]["reason"],
            &report["rejected"][1]["reason"]
        ),
        (
            &"no field \"key\": the record has \"id\", \"v\"".into(),
            &"no field \"key\"".into()
        )
    );
    for key in ["true", "null", "{}", "[]"] {
        assert_eq!(imported(format!("{{\"key\":{key}}}"), &[]).0, 1, "{key}");
    }
    let (exit, report, _) = imported("{\"id\":1}\n", &["--skip-bad"]);
    assert_eq!(
        (exit, &report["ok"], &report["rejected_count"]),
        (0, &true.into(), &1.into())
    );

    // One stray quote among many rows.
    let mut rows: Vec<String> = (0..5_000).map(|n| format!("{n},x\n")).collect();
    rows[11] = "11,\"x\n".to_owned();
    let (exit, report, documents) = imported(
        format!("id,v\n{}", rows.concat()),
        &["--format", "csv", "--key", "id"],
    );
    assert_eq!((exit, documents.len()), (1, 4_999));
    assert_eq!(
        (&report["rejected_count"], &report["rejected_lines"]),
        (&1.into(), &1.into())
    );
    let reason = report["rejected"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("begins in line 13") && reason.contains("4989 lines"),
        "{reason}"
    );
}

#[test]
fn what_is_compressed_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let half = |from: usize| -> String {
        let lines = from..from + 20_000;
        let lines = lines.map(|n| {
            format!(
                "{{\"key\":\"k{n}\",\"pad\":{}}}
",
                n * 7
            )
        });
        lines.collect::<Vec<_>>().concat()
    };
    let members = [gzip(half(0).as_bytes()), gzip(half(20_000).as_bytes())].concat();
    fs::write(dir.join("in.gz"), &members).unwrap();
    let frames = [half(0), half(20_000)].map(|text| zstd::encode_all(text.as_bytes(), 1).unwrap());
    // The file name does not matter.
    fs::write(dir.join("in"), frames.concat()).unwrap();
    for (store, input) in [("gzip", "in.gz"), ("zstd", "in")] {
        let (exit, report) = import(&[store, "--durability", "memory", input], dir);
        assert_eq!((exit, &report["records"]), (0, &40_000.into()), "{input}");
    }
    fs::write(dir.join("cut"), &members[..members.len() - 20_000]).unwrap();

    let args = [
        "import",
        "--dir",
        "cut-store",
        "--json",
        "--durability",
        "memory",
        "cut",
    ];
    let output = run(&args, dir);

    let report = json(&String::from_utf8(output.stdout).unwrap());
    let said = json(&String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(4));
    let records = report["records"].as_u64().unwrap();
    assert!((20_000..40_000).contains(&records), "{report}");
    assert_eq!(
        (&report["lines"], &report["finished"]),
        (&records.into(), &false.into())
    );
    assert_eq!(said["error"]["exit_code"], 4);
    let message = said["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("cut: its gzip data ends too early"),
        "{message}"
    );
    assert_eq!(documents("cut-store", dir).len() as u64, records);
    // The rest is appended: the file is the same up to the truncation.
    fs::write(dir.join("cut"), &members).unwrap();
    let (exit, report) = import(
        &["cut-store", "--durability", "memory", "--resume", "cut"],
        dir,
    );
    assert_eq!((exit, &report["records"]), (0, &(40_000 - records).into()));

    fs::write(dir.join("in.xz"), b"\xfd7zXZ\0...").unwrap();
    let (exit, said) = code(&["import", "--dir", "none", "in.xz"], dir);
    assert_eq!(exit, 4);
    assert!(said.contains("in.xz: is compressed with xz"), "{said}");
    assert!(!dir.join("none").exists());
}

#[test]
fn arrays_and_values_over_several_lines_are_read() {
    let array = "[\n  {\n    \"key\": \"a\",\n    \"v\": [1, 2]\n  },\n  {\"key\": \"b\"}\n]\n";
    let (exit, report, found) = imported(array, &[]);
    assert_eq!((exit, &report["records"]), (0, &2.into()));
    let value = "{\n    \"key\": \"a\",\n    \"v\": [1, 2]\n  }";
    assert_eq!(found[0], ("a".to_owned(), value.to_owned()));
    let values = array.replace("},\n", "}\n").replace(['[', ']'], "");
    let (exit, report, found) = imported(values.replace("1, 2", "0"), &[]);
    assert_eq!(
        (exit, &report["records"], keys(&found)),
        (0, &2.into(), vec!["a", "b"])
    );
    let (exit, report, found) = imported(&array[..array.len() - 3], &[]);
    assert_eq!(
        (exit, &report["rejected_count"], keys(&found)),
        (1, &1.into(), vec!["a", "b"])
    );

    let nested = "{\"user\":{\"id\":7}}\n{\"/id\":8,\"user\":{}}\n";
    let (exit, report, found) = imported(nested, &["--key", "/user/id"]);
    assert_eq!((exit, keys(&found)), (1, vec!["7"]));
    assert_eq!(report["rejected"][0]["line"], 2);
    assert_eq!(
        keys(&imported(nested, &["--key", "/~1id", "--skip-bad"]).2),
        ["8"]
    );
}

#[test]
fn rows_may_end_with_carriage_returns() {
    for end in ["\r", "\r\n", "\n"] {
        let csv = format!("id,v{end}1,\"a\rb\"{end}2,\"c\nd\"{end}3,e");
        let (exit, _, found) = imported(&csv, &["--format", "csv", "--key", "id"]);
        assert_eq!((exit, keys(&found)), (0, vec!["1", "2", "3"]), "{end:?}");
        assert_eq!(found[0].1, "1,\"a\rb\"");
        let tsv = format!("v\tid{end}a\t1{end}b\t2{end}");
        let (exit, _, found) = imported(tsv, &["--format", "tsv", "--key", "id"]);
        assert_eq!((exit, keys(&found)), (0, vec!["1", "2"]), "{end:?}");
        let lines = format!("{{\"key\":1}}{end}{{\"key\":2}}{end}");
        assert_eq!(keys(&imported(lines, &[]).2), ["1", "2"], "{end:?}");
    }
}

#[test]
fn a_byte_order_mark_counts_at_the_beginning_only() {
    const BOM: &str = "\u{feff}";
    let csv = ["--format", "csv", "--key", "id"];
    let tsv = ["--format", "tsv", "--key", "id"];
    let lines = format!("{BOM}{{\"key\":\"a\"}}\n{BOM}{{\"key\":\"{BOM}b\"}}\n");
    let (exit, _, found) = imported(&lines, &[]);
    assert_eq!((exit, keys(&found)), (0, vec!["a", "\u{feff}b"]));
    assert_eq!(found[0].1, "{\"key\":\"a\"}");
    assert_eq!(
        keys(&imported(gzip(lines.as_bytes()), &[]).2),
        ["a", "\u{feff}b"]
    );
    assert_eq!(
        keys(&imported(format!("{BOM}[{{\"key\":1}}]"), &[]).2),
        ["1"]
    );
    assert_eq!(
        keys(&imported(format!("{BOM}id\tv\n1\t2\n"), &tsv).2),
        ["1"]
    );
    let quoted = format!("{BOM}\"first\nname\",id\r\nx,7\r\n");
    assert_eq!(keys(&imported(quoted, &csv).2), ["7"]);
    // Concatenated files: the byte order mark of a later part is part of the key.
    let joined = format!("{BOM}id,v\n1,a\n{BOM}id,v\n{BOM}2,b\n");
    let (_, _, found) = imported(joined, &csv);
    assert_eq!(keys(&found), ["1", "\u{feff}2", "\u{feff}id"]);

    let dir = tempfile::tempdir().unwrap();
    for bytes in [&b"\xff\xfei\0d\0"[..], b"\xfe\xff\0i\0d"] {
        fs::write(dir.path().join("in"), bytes).unwrap();
        let (exit, said) = code(
            &["import", "--dir", "s", "--format", "csv", "in"],
            dir.path(),
        );
        assert_eq!(exit, 4);
        assert!(said.contains("in: is UTF-16 text"), "{said}");
    }
}

#[test]
fn rows_without_a_header_and_rows_as_objects() {
    let csv = ["--format", "csv"];
    let with = |more: &[&'static str]| [&csv[..], more].concat();
    let text = "x;1\ny;2\n";
    let (exit, _, found) = imported(
        text,
        &with(&["--delimiter", ";", "--no-header", "--key", "2"]),
    );
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!((exit, found), (0, vec![pair("1", "x;1"), pair("2", "y;2")]));
    let text = "id,a name\r\n1,\"x \"\"y\"\"\r\nz\"\r\n2\r\n3,a,b\r\n";
    let (exit, report, found) = imported(text, &with(&["--key", "id", "--as", "json"]));
    assert_eq!((exit, &report["rejected"][0]["line"]), (1, &5.into()));
    let object = r#"{"id":"1","a name":"x \"y\"\r\nz"}"#;
    assert_eq!(found, [pair("1", object), pair("2", r#"{"id":"2"}"#)]);
    let tab = imported(
        "k\tv\n\"1\t2\n",
        &with(&["--delimiter", "\\t", "--key", "v", "--skip-bad"]),
    );
    assert_eq!(tab.0, 0);

    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("in"), "a;b\n1;2\n").unwrap();
    let refused = |args: &[&str], what: &str| {
        let (exit, said) = code(
            &[&["import", "--dir", "s"][..], args, &["in"]].concat(),
            dir,
        );
        assert_eq!(exit, 2, "{args:?}: {said}");
        assert!(said.contains(what), "{args:?}: {said}");
    };
    refused(&["--format", "csv", "--no-header"], "number of a column");
    refused(
        &["--format", "csv", "--no-header", "--key", "0"],
        "number of a column",
    );
    refused(
        &["--format", "csv", "--delimiter", "ab"],
        "one ASCII character",
    );
    refused(
        &["--format", "csv", "--key", "a"],
        "in: no column \"a\": the header has \"a;b\"",
    );
    refused(&["--delimiter", ";"], "--format csv or --format tsv");
    refused(&["--as", "json"], "--format csv or --format tsv");
    refused(&["--key", "/a~b"], "JSON pointer");
    refused(&["--strict", "--skip-bad"], "cannot be used with");
    refused(&["--state", "in"], "--state names the input file");
    assert!(!dir.join("s").exists());
}

#[test]
fn errors_name_the_file_before_anything_is_imported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("in"), "{\"key\":1}\n").unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let refused = |args: &[&str], exit: i32, what: &str| {
        let said = code(&[&["import", "--dir", "s"][..], args].concat(), dir);
        assert_eq!(said.0, exit, "{args:?}: {said:?}");
        assert!(said.1.contains(what), "{args:?}: {said:?}");
    };
    refused(&["nosuch"], 4, "nosuch: ");
    refused(&["folder"], 4, "folder: Is a directory");
    refused(
        &["--format", "csv", "empty"],
        2,
        "empty: is empty: there is no header",
    );
    assert!(!dir.join("s").exists());
    refused(&["--tail", "in", "in"], 4, "in: ");
    refused(&["--state", "no/where", "in"], 4, "no/where: ");
    refused(&["--state", "folder", "in"], 4, "folder: ");
    assert_eq!(documents("s", dir).len(), 0);
}

#[test]
fn whatever_is_no_file_is_read_as_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("in.gz"), gzip(b"{\"key\":1}\n{\"key\":2}\n")).unwrap();
    let shell = |script: &str| {
        let mut bash = Command::new("bash");
        bash.args(["-c", script, env!("CARGO_BIN_EXE_vbstore")])
            .current_dir(dir);
        let output = bash.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {said}");
    };
    for (store, script) in [
        ("a", "$0 import --dir a --vbuckets 2 <(cat in.gz)"),
        ("b", "cat in.gz | $0 import --dir b --vbuckets 2 /dev/stdin"),
        ("c", "cat in.gz | $0 import --dir c --vbuckets 2 -"),
        ("d", "$0 import --dir d --vbuckets 2 /dev/stdin < in.gz"),
    ] {
        shell(script);
        let found: Vec<_> = documents(store, dir).into_keys().collect();
        assert_eq!(found, ["1", "2"], "{script}");
    }
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
    // More input than a check of the first bytes of the file would consume.
    let lines = (0..5_000).map(|n| format!("{{\"key\":\"k{n}\",\"some\":\"more bytes\"}}"));
    let mut pipe = fs::OpenOptions::new()
        .write(true)
        .open(dir.join("pipe"))
        .unwrap();
    for line in lines {
        writeln!(pipe, "{line}").unwrap();
    }
    drop(pipe);
    let output = import.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(
        (&said["records"], &said["rejected_count"]),
        (&5_000.into(), &0.into())
    );
}

#[test]
fn a_service_user_needs_its_store_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (program, store, input) = (dir.join("program"), dir.join("data"), dir.join("in"));
    if !rustix::process::geteuid().is_root() {
        not_run("a_service_user_needs_its_store_only", "it needs root");
        return;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_vbstore"), &program).unwrap();
    fs::write(&input, "{\"key\":\"a\"}\n").unwrap();
    fs::create_dir(&store).unwrap();
    std::os::unix::fs::chown(&store, Some(65_534), Some(65_534)).unwrap();

    let mut import = Command::new(&program);
    import
        .args(["import", "--vbuckets", "2", "--dir"])
        .arg(&store)
        .arg(&input);
    import
        .uid(65_534)
        .gid(65_534)
        .current_dir("/")
        .stdin(Stdio::null());
    let output = import.output().unwrap();

    assert!(output.status.success(), "{output:?}");
    assert_eq!(documents("data", dir).len(), 1);
    assert!(store.join("IMPORT-STATE.json").exists());
}

#[test]
fn a_full_disk_ends_an_import_with_its_counts() {
    let Some(disk) = SmallDisk::mount("a_full_disk_ends_an_import_with_its_counts", "96m") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    write_lines(
        &input,
        (0..40_000).map(|n| format!("{{\"key\":\"k{n}\",\"pad\":\"{n:0>1000}\"}}")),
    );
    ok(
        &["import", "--dir", "s", "--vbuckets", "2", "/dev/null"],
        disk.path(),
    );
    disk.fill(24 << 20);
    let args = |json: bool| {
        let mut import = vbstore();
        import
            .args(["import", "--dir", "s"])
            .arg(&input)
            .current_dir(disk.path());
        if json {
            import.args(["--json", "--resume"]);
        }
        import.output().unwrap()
    };

    let output = args(false);

    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(
        said.contains("imported ") && said.contains("--resume"),
        "{output:?}"
    );
    let output = args(true);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code().is_some_and(|code| code > 2),
        "{output:?}"
    );
    assert!(
        stderr.lines().any(|line| line.starts_with("{\"error\"")),
        "{stderr}"
    );

    disk.make_room();
    let output = args(true);
    let report = json(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(
        (output.status.code(), &report["finished"]),
        (Some(0), &true.into())
    );
    assert_eq!(documents("s", disk.path()).len(), 40_000);
}
