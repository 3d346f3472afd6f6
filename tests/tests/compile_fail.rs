//! A db snapshot cannot leave the function that lends it. The test compiles the shipped source file
//! with one line that lets the snapshot escape, and asserts which error the compiler reports. Each
//! case is also compiled without that line, which must succeed: so the error is about that line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Marks the line that lets something escape.
const MARK: &str = "// ESCAPES";

/// The error for a closure that returns what it borrows; this error has no code.
const NO_CODE: &str = "lifetime may not live long enough";

struct Case {
    name: &'static str,
    /// The code of the compiler's error, or its message where it has no code.
    code: &'static str,
    body: &'static str,
}

const CASES: [Case; 8] = [
    Case {
        name: "store the view",
        code: "E0521",
        body: "let mut kept: Option<&ReadView<'_>> = None;
               with_view(db, |view| {
                   drop(view.get(family, b\"k\"));
                   kept = Some(view); // ESCAPES
               });
               drop(kept);",
    },
    Case {
        name: "return the view",
        code: NO_CODE,
        body: "let returned = with_view::<Option<&'static ReadView<'static>>>(db, |view| {
                   drop(view.get(family, b\"k\"));
                   return Some(view); // ESCAPES
                   #[allow(unreachable_code)]
                   None
               });
               drop(returned);",
    },
    Case {
        name: "send the view through a channel",
        code: "E0521",
        body: "let (sender, receiver) = std::sync::mpsc::sync_channel::<&ReadView<'_>>(1);
               with_view(db, |view| {
                   drop(view.get(family, b\"k\"));
                   drop(sender.send(view)); // ESCAPES
               });
               drop(receiver);",
    },
    Case {
        name: "take the view to another thread",
        code: "E0521",
        body: "with_view(db, |view| {
                   drop(view.get(family, b\"k\"));
                   std::thread::spawn(move || drop(std::ptr::from_ref(view))); // ESCAPES
               });",
    },
    Case {
        name: "hold the iterator",
        code: "E0521",
        body: "let mut kept: Option<RowIterator<'_>> = None;
               with_view(db, |view| {
                   drop(view.rows(family, b\"a\", None));
                   kept = Some(view.rows(family, b\"a\", None)); // ESCAPES
               });
               drop(kept);",
    },
    Case {
        name: "return the iterator",
        code: NO_CODE,
        body: "let returned = with_view::<Option<RowIterator<'static>>>(db, |view| {
                   drop(view.rows(family, b\"a\", None));
                   return Some(view.rows(family, b\"a\", None)); // ESCAPES
                   #[allow(unreachable_code)]
                   None
               });
               drop(returned);",
    },
    Case {
        name: "hold a row",
        code: "E0521",
        body: "let mut kept: Option<&[u8]> = None;
               with_view(db, |view| {
                   let rows = view.rows(family, b\"a\", None);
                   let row = rows.current();
                   if let Ok(Some((key, _))) = row {
                       let _ = key.len();
                       kept = Some(key); // ESCAPES
                   }
               });
               drop(kept);",
    },
    Case {
        name: "make a view by hand",
        code: "E0451",
        body: "let snapshot = db.snapshot();
               let view = ReadView { snapshot: &snapshot }; // ESCAPES
               drop(snapshot);",
    },
];

/// Returns the directory of this test's binary, which also has the libraries of its dependencies.
fn dependencies() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned()
}

/// Returns the newest library with this name: older builds leave theirs in the directory.
fn library(name: &str) -> PathBuf {
    let prefix = format!("lib{name}-");
    let files = std::fs::read_dir(dependencies())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "rlib"))
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(&prefix)
        })
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap())
        .unwrap_or_else(|| panic!("no library {name} beside the test"))
}

fn compile(source: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("case.rs");
    std::fs::write(&file, source).unwrap();
    let rocksdb = format!("rocksdb={}", library("rocksdb").display());
    let deps = format!("dependency={}", dependencies().display());
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
        ])
        .args(["--extern", &rocksdb, "-L", &deps, "--out-dir"])
        .arg(dir.path())
        .arg(&file)
        .output()
        .unwrap()
}

/// Returns a program around the body, with the shipped file as a module.
fn program(body: &str) -> String {
    let view = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/storage/view.rs");
    format!(
        "#![allow(dead_code, unused_imports, unused_variables, unused_mut, unused_assignments)]
         #[path = {view:?}]
         mod view;
         use view::{{RowIterator, ReadView, with_view}};
         type Db = rocksdb::DBWithThreadMode<rocksdb::SingleThreaded>;
         fn case(db: &Db, family: &rocksdb::ColumnFamily) {{
             {body}
         }}"
    )
}

#[test]
fn every_way_out_is_refused_for_its_reason_and_its_twin_compiles() {
    for case in CASES {
        assert_eq!(case.body.matches(MARK).count(), 1, "{}", case.name);
        let refused = compile(&program(case.body));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{}: it compiles", case.name);
        let mut answers: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("error"))
            .filter(|line| !line.contains("aborting due to"))
            .map(|line| line.trim_start_matches(['[', ':', ' ']))
            .map(|line| line.split(']').next().unwrap_or(line))
            .collect();
        answers.dedup();
        assert_eq!(answers, [case.code], "{}: {said}", case.name);

        let twin: Vec<&str> = case
            .body
            .lines()
            .filter(|line| !line.contains(MARK))
            .collect();
        let compiled = compile(&program(&twin.join("\n")));
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(
            compiled.status.success(),
            "the twin of {}: {said}",
            case.name
        );
    }
}
