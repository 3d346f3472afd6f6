//! Rules for the text of the sources.

use super::files::{files, read, shipped_sources};
use super::tokens::{Token, tokens};

/// The only folder of the shipped crates that may name RocksDB.
const STORAGE: &str = "engine/src/storage/";

const LINES_MAX: usize = 600;

/// Sources of the engine with locks that are not ranked mutexes. The first three take the token of
/// their rank themselves. The others are leaf locks with a condition variable, or belong to the
/// whole process.
const OWN_LOCKS: [&str; 9] = [
    "gate.rs",
    "stripes.rs",
    "tuning.rs",
    "closing.rs",
    "failpoint.rs",
    "store_dir/lock.rs",
    "signals.rs",
    "wakers.rs",
    "memory.rs",
];

#[test]
fn only_the_storage_folder_names_rocksdb() {
    let shipped = shipped_sources();
    let storage = shipped.iter().filter(|path| path.starts_with(STORAGE));
    let named = storage
        .filter(|path| !rocksdb_names(&tokens(&read(path))).is_empty())
        .count();
    assert!(
        named > 0,
        "no source in {STORAGE} names rocksdb: correct STORAGE in this rule"
    );

    let wrong: Vec<String> = shipped
        .iter()
        .filter(|path| !path.starts_with(STORAGE))
        .flat_map(|path| {
            let lines = rocksdb_names(&tokens(&read(path)));
            lines
                .into_iter()
                .map(move |line| format!("{path}:{line}: names rocksdb"))
        })
        .collect();

    assert!(
        wrong.is_empty(),
        "{}\nonly {STORAGE} may name rocksdb: add a function there that returns owned values",
        wrong.join("\n")
    );
}

#[test]
fn rocksdb_rule_finds_what_breaks_it() {
    for wrong in [
        "use rocksdb::DB;",
        "use std::fs;\nuse {std::io, rocksdb};",
        "pub use ::rocksdb as db;",
        "extern crate rocksdb;",
        "fn f(db: &rocksdb::DB) {}",
        "let x = rocksdb /* really */ :: Options::default();",
        "let x = 'a'; let y = '\"'; let z = r#rocksdb::DB::open();",
        "fn f<'a>(x: &'a str) -> rocksdb::Error {}",
        "use librocksdb_sys as ffi;",
    ] {
        assert_eq!(rocksdb_names(&tokens(wrong)).len(), 1, "{wrong}");
    }
    for right in [
        "// use rocksdb::DB;\n/// [`rocksdb::DB`]\n/* /* rocksdb:: */ use rocksdb; */ use std::fs;",
        "let name = \"rocksdb::x \\\" use rocksdb;\"; let raw = r#\"use rocksdb::\"x\";\"#;",
        "let byte = b\"rocksdb::\"; let quote = '\\''; let s = \"rocksdb::\";",
        "use crate::rocksdb_options::all; let rocksdb_sequence = 1;",
    ] {
        assert_eq!(
            rocksdb_names(&tokens(right)),
            Vec::<usize>::new(),
            "{right}"
        );
    }
}

#[test]
fn locks_of_the_engine_have_a_rank() {
    let named = |path: &&String| tokens(&read(path)).iter().any(|t| t.text == "parking_lot");
    let sources = files("rs");
    let engine = sources
        .iter()
        .filter(|path| path.starts_with("engine/src/"));
    let unranked: Vec<&str> = engine
        .filter(named)
        .map(|path| path.trim_start_matches("engine/src/"))
        .collect();

    let mut listed = OWN_LOCKS;
    listed.sort_unstable();
    assert_eq!(
        unranked, listed,
        "use the locks of vbstore_core::sync, whose order is checked; a file that needs another \
         kind takes the token of its rank itself and is listed in OWN_LOCKS"
    );
}

#[test]
fn sources_are_short_plain_and_whole() {
    let sources = files("rs");
    assert!(sources.len() > 20, "found too few sources: {sources:?}");

    let wrong: Vec<String> = sources
        .iter()
        .flat_map(|path| source_faults(path, &read(path)))
        .collect();

    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn source_rules_find_what_breaks_them() {
    let faults = |text: &str| source_faults("core/src/x.rs", text);
    for (wrong, fault) in [
        ("// \u{e9}", "is not ASCII"),
        (
            "#[test]\n#[ignore = \"slow\"]\nfn f() {}",
            "x.rs:2: an ignored test",
        ),
        ("#[cfg_attr(windows, ignore)]\nfn f() {}", "an ignored test"),
        ("fn f() { todo!() }", "todo!"),
        ("fn f() { std::thread::sleep(d); }", "thread::sleep"),
        ("use std::thread::{self, sleep};", "thread::sleep"),
        (&"\n".repeat(LINES_MAX + 1), "601 lines"),
    ] {
        let found = faults(wrong);
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
        assert!(found[0].contains(fault), "{found:?}");
    }

    let right = "// todo!( and thread::sleep\nlet s = \"#[ignore] todo!(\"; let ignore = [sleep];";
    assert_eq!(faults(right), Vec::<String>::new());
    assert_eq!(faults(&"\n".repeat(LINES_MAX)), Vec::<String>::new());
    let long = "\n".repeat(LINES_MAX + 1);
    assert_eq!(
        source_faults("tests/tests/x.rs", &long),
        Vec::<String>::new()
    );
    assert_eq!(
        source_faults("tests/tests/x.rs", "thread::sleep(d)").len(),
        1
    );
}

/// Returns where a source breaks a rule that holds for every source, and how to repair it.
fn source_faults(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX && !path.starts_with("tests/") {
        wrong.push(format!(
            "{path}: {lines} lines, at most {LINES_MAX} are allowed: split it by subject"
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(letter) = line.chars().find(|letter| !letter.is_ascii()) {
            wrong.push(format!(
                "{path}:{number}: {letter:?} is not ASCII: use an escape sequence"
            ));
        }
    }
    let tokens = tokens(text);
    let text_at = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut statement = Statement::default();
    for (at, token) in tokens.iter().enumerate() {
        statement.step(token);
        let line = token.line;
        if token.text == "ignore" && statement.attribute > 0 {
            let advice = "repair the test, or delete it and say why in the commit";
            wrong.push(format!("{path}:{line}: an ignored test: {advice}"));
        }
        if token.text == "todo" && text_at(at + 1) == "!" {
            wrong.push(format!(
                "{path}:{line}: todo!: implement it, or return a typed error"
            ));
        }
        let called = at >= 2 && text_at(at - 1) == "::" && text_at(at - 2) == "thread";
        if token.text == "sleep" && (called || statement.imports_thread) {
            let advice =
                "a task returns when to run it next, and a test waits at a failpoint::Gate";
            wrong.push(format!("{path}:{line}: thread::sleep: {advice}"));
        }
    }
    wrong
}

/// Returns the lines on which a source names the crate rocksdb, in an import or in a path.
fn rocksdb_names(tokens: &[Token]) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut statement = Statement::default();
    for (at, token) in tokens.iter().enumerate() {
        statement.step(token);
        if token.text != "rocksdb" && token.text != "librocksdb_sys" {
            continue;
        }
        let path = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        let external = at >= 2 && tokens[at - 1].text == "crate" && tokens[at - 2].text == "extern";
        if path || external || statement.import {
            lines.push(token.line);
        }
    }
    lines
}

/// The context of a token, as far as the rules need it.
#[derive(Default)]
struct Statement {
    /// Within `use ...;`.
    import: bool,
    /// Within a `use ...;` that has named `thread`.
    imports_thread: bool,
    /// How many brackets of an attribute are open.
    attribute: usize,
    after_hash: bool,
}

impl Statement {
    fn step(&mut self, token: &Token) {
        match token.text.as_str() {
            "use" => self.import = true,
            ";" => (self.import, self.imports_thread) = (false, false),
            "thread" => self.imports_thread = self.import,
            "[" if self.after_hash || self.attribute > 0 => self.attribute += 1,
            "]" => self.attribute = self.attribute.saturating_sub(1),
            _ => {}
        }
        self.after_hash = token.text == "#" || (self.after_hash && token.text == "!");
    }
}
