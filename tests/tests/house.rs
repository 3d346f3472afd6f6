//! House rules: what the layout of the crates and the text of the sources must hold to. Each rule
//! is a function over text or over cargo's metadata, and is tried on a snippet that breaks it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Each shipped crate, its directory, and the crates of the workspace it may depend on.
const SHIPPED: [(&str, &str, &[&str]); 7] = [
    ("vbstore-core", "core", &[]),
    ("vbstore-metrics", "metrics", &[]),
    (
        "vbstore-engine",
        "engine",
        &["vbstore-core", "vbstore-metrics"],
    ),
    (
        "vbstore-backfill",
        "backfill",
        &["vbstore-engine", "vbstore-core", "vbstore-metrics"],
    ),
    (
        "vbstore",
        "src",
        &[
            "vbstore-core",
            "vbstore-metrics",
            "vbstore-engine",
            "vbstore-backfill",
        ],
    ),
    ("vbstore-exporter", "exporter", &["vbstore-metrics"]),
    ("vbstore-cli", "cli", &["vbstore", "vbstore-exporter"]),
];

/// Members that are not shipped: they may depend on anything.
const NOT_SHIPPED: [&str; 2] = ["vbstore-tests", "vbstore-benches"];

/// Crates that do not link RocksDB, directly or through another.
const NOT_LINKING: [&str; 2] = ["vbstore-core", "vbstore-metrics"];

/// The one folder of the shipped crates that may name RocksDB.
const STORAGE: &str = "engine/src/storage/";

const LINES_MAX: usize = 600;

const FEATURES_BANNED: [&str; 2] = ["multi-threaded-cf", "io-uring"];

// ---- The crates -----------------------------------------------------------------------------

#[test]
fn crates_depend_along_the_arrows_only() {
    let wrong = wrong_arrows(&metadata());

    assert!(
        wrong.is_empty(),
        "{}\nmove the code to the crate that may depend on both, or pass the value in through a \
         trait; the arrows are core, metrics <- engine <- backfill <- vbstore <- cli",
        wrong.join("\n")
    );
}

#[test]
fn rocksdb_is_a_dependency_of_the_engine_only() {
    let metadata = metadata();
    let mut wrong = wrong_dependents(&metadata, "rocksdb", &["vbstore-engine"], true);
    wrong.extend(wrong_dependents(&metadata, "librocksdb-sys", &[], true));

    assert!(
        wrong.is_empty(),
        "{}\nonly the engine links RocksDB; ask its storage module for what you need",
        wrong.join("\n")
    );
}

#[test]
fn anyhow_is_a_dependency_of_no_library() {
    let wrong = wrong_dependents(&metadata(), "anyhow", &["vbstore-cli"], false);

    assert!(
        wrong.is_empty(),
        "{}\na library gives its callers an error type they can match on: use thiserror",
        wrong.join("\n")
    );
}

#[test]
fn arrow_rule_finds_what_breaks_it() {
    let upward = package("vbstore-core", &[("vbstore-engine", None)]);
    let past_the_facade = package("vbstore-cli", &[("vbstore-engine", Some("dev"))]);
    let unknown = package("vbstore-new", &[]);
    let right = package("vbstore-engine", &[("vbstore-core", None), ("bytes", None)]);
    let tests = package("vbstore-tests", &[("vbstore-core", None)]);
    let all = [upward, past_the_facade, unknown, right, tests];

    let wrong = wrong_arrows(&json!({ "packages": all }));

    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(
        wrong[0].contains("vbstore-core depends on vbstore-engine"),
        "{wrong:?}"
    );
    assert!(
        wrong[1].contains("vbstore-cli depends on vbstore-engine"),
        "{wrong:?}"
    );
    assert!(wrong[2].contains("vbstore-new is in no table"), "{wrong:?}");
}

#[test]
fn dependent_rule_finds_what_breaks_it() {
    let library = package("vbstore-core", &[("anyhow", None)]);
    let library_tests = package("vbstore-engine", &[("anyhow", Some("dev"))]);
    let program = package("vbstore-cli", &[("anyhow", None)]);
    let tests = package("vbstore-tests", &[("anyhow", None)]);
    let metadata = json!({ "packages": [library, library_tests, program, tests] });

    let wrong = wrong_dependents(&metadata, "anyhow", &["vbstore-cli"], false);
    let with_tests = wrong_dependents(&metadata, "anyhow", &["vbstore-cli"], true);

    assert_eq!(wrong, ["vbstore-core depends on anyhow"]);
    assert_eq!(
        with_tests,
        [
            "vbstore-core depends on anyhow",
            "vbstore-engine depends on anyhow"
        ]
    );
}

/// Returns each dependency between members of the workspace that `SHIPPED` does not allow.
fn wrong_arrows(metadata: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let packages = packages(metadata);
    for (name, dependencies) in &packages {
        if NOT_SHIPPED.contains(name) {
            continue;
        }
        let Some((_, _, allowed)) = SHIPPED.iter().find(|(shipped, ..)| shipped == name) else {
            wrong.push(format!("{name} is in no table of {}", file!()));
            continue;
        };
        for (dependency, _) in dependencies {
            let known = SHIPPED.iter().any(|(shipped, ..)| shipped == dependency);
            let member = known || packages.iter().any(|(member, _)| member == dependency);
            if member && !allowed.contains(dependency) {
                wrong.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    wrong
}

/// Returns each shipped crate that depends on `dependency` though it is not among `allowed`;
/// dependencies for tests count if `tests_too`.
fn wrong_dependents(
    metadata: &Value,
    dependency: &str,
    allowed: &[&str],
    tests_too: bool,
) -> Vec<String> {
    packages(metadata)
        .into_iter()
        .filter(|(name, _)| !NOT_SHIPPED.contains(name) && !allowed.contains(name))
        .filter(|(_, dependencies)| {
            let mut uses = dependencies.iter().filter(|(name, _)| *name == dependency);
            uses.any(|(_, for_tests)| tests_too || !for_tests)
        })
        .map(|(name, _)| format!("{name} depends on {dependency}"))
        .collect()
}

/// Returns the members: name, and for each dependency its name and whether it is for tests only.
fn packages(metadata: &Value) -> Vec<(&str, Vec<(&str, bool)>)> {
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let dependencies =
                dependencies.map(|value| (value["name"].as_str().unwrap(), value["kind"] == "dev"));
            (package["name"].as_str().unwrap(), dependencies.collect())
        })
        .collect()
}

/// Returns what cargo says about the members of the workspace.
fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        packages(&metadata).len() >= 6,
        "cargo metadata names too few members"
    );
    metadata
}

/// Returns a package as cargo's metadata would show it.
fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
    let dependencies: Vec<Value> = dependencies
        .iter()
        .map(|(dependency, kind)| json!({ "name": dependency, "kind": kind }))
        .collect();
    json!({ "name": name, "dependencies": dependencies })
}

// ---- The manifests and the commands ---------------------------------------------------------

#[test]
fn manifests_name_no_banned_feature() {
    let manifests = files("toml");
    assert!(
        manifests.len() >= 7,
        "found too few manifests: {manifests:?}"
    );

    let wrong: Vec<String> = manifests
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .flat_map(|path| banned_features(path, &read(path)))
        .collect();

    assert!(
        wrong.is_empty(),
        "{}\nmulti-threaded-cf retypes the alias DB for every user of the crate: write \
         DBWithThreadMode<MultiThreaded>; io-uring needs a library that few machines have",
        wrong.join("\n")
    );
}

#[test]
fn feature_rule_finds_what_breaks_it() {
    let manifest = "# multi-threaded-cf is fine in a comment\n\
                    rocksdb = { features = [\"multi-threaded-cf\"] } # so\n\
                    [features]\n\
                    fast = [\"rocksdb/io-uring\"]\n";

    let wrong = banned_features("Cargo.toml", manifest);

    assert_eq!(
        wrong,
        ["Cargo.toml:2: multi-threaded-cf", "Cargo.toml:4: io-uring"]
    );
}

#[test]
fn readme_and_ci_name_the_same_commands() {
    let wrong = commands_missing(&read("README.md"), &read(".ci/run"));

    assert!(
        wrong.is_empty(),
        "{}\nsay it there, in these very words",
        wrong.join("\n")
    );
}

#[test]
fn command_rule_finds_what_breaks_it() {
    assert!(commands_missing("make run, make test", "set -e\nmake test 2>&1\n").is_empty());

    let wrong = commands_missing("make build", "# make test\ncargo test\n");

    assert_eq!(wrong.len(), 3, "{wrong:?}");
}

#[test]
fn makefile_keeps_to_one_archive() {
    let makefile = read("Makefile");
    assert!(
        makefile.contains("cargo test"),
        "the Makefile runs no tests"
    );

    let wrong = wrong_cargo_calls(&makefile);

    assert!(
        wrong.is_empty(),
        "{}\nanother choice of packages, another profile directory or RUSTFLAGS compiles RocksDB \
         once more; see the head of the Makefile, and run scripts/check-one-archive",
        wrong.join("\n")
    );
}

#[test]
fn cargo_call_rule_finds_what_breaks_it() {
    let right = "# RUSTFLAGS, cargo build\n\
                 a:\n\tcargo build --release --workspace --locked\n\tcargo fmt --all\n\
                 \tRUSTDOCFLAGS=x cargo doc --release --workspace --locked\n\
                 \tcargo bench --workspace --locked\n\
                 \tcargo test --profile bench --workspace --locked\n";
    assert_eq!(wrong_cargo_calls(right), Vec::<String>::new());

    for wrong in [
        "a:\n\tcargo build --release -p vbstore-cli --locked\n",
        "a:\n\tcargo build --release --workspace\n",
        "a:\n\tcargo test --workspace --locked\n",
        "a:\n\tcargo test --workspace --locked --release\n",
        "a:\n\tRUSTFLAGS=-Dwarnings cargo build --release --workspace --locked\n",
        "export RUSTFLAGS := -Dwarnings\n",
    ] {
        assert_eq!(wrong_cargo_calls(wrong).len(), 1, "{wrong}");
    }
}

/// Returns each banned feature that a manifest names outside its comments.
fn banned_features(path: &str, manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, line) in (1..).zip(manifest.lines()) {
        let code = line.split('#').next().unwrap_or_default();
        for feature in FEATURES_BANNED {
            if code.contains(feature) {
                wrong.push(format!("{path}:{number}: {feature}"));
            }
        }
    }
    wrong
}

/// Returns which of the project's commands the README or the script of the CI leaves out.
fn commands_missing(readme: &str, ci: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for command in ["make run", "make test"] {
        if !readme.contains(command) {
            wrong.push(format!("README.md does not name {command}"));
        }
    }
    if !ci
        .lines()
        .any(|line| line.trim_start().starts_with("make test"))
    {
        wrong.push(".ci/run does not call make test".to_owned());
    }
    wrong
}

/// Returns the lines of a Makefile that would not share the RocksDB archive with the others.
fn wrong_cargo_calls(makefile: &str) -> Vec<String> {
    let compiles = [
        "build", "clippy", "test", "doc", "bench", "run", "check", "rustdoc",
    ];
    let is_wrong = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rustflags = words.iter().any(|word| word.starts_with("RUSTFLAGS"))
            || line.contains("export RUSTFLAGS");
        let Some(at) = words.windows(2).position(|pair| {
            pair[0].trim_start_matches('@') == "cargo" && compiles.contains(&pair[1])
        }) else {
            return rustflags;
        };
        let call = &words[at + 1..];
        // Tests are built with debug assertions, so in the profile bench.
        let profile = match call[0] {
            "bench" => true,
            "test" => call.windows(2).any(|pair| pair == ["--profile", "bench"]),
            _ => call.contains(&"--release"),
        };
        // A crate that does not link RocksDB may be built by itself, but not where the others are:
        // its features would be other ones.
        let is_apart = call
            .windows(2)
            .any(|pair| pair[0] == "--package" && NOT_LINKING.contains(&pair[1]))
            && call.contains(&"--target-dir");
        let is_shared = profile && call.contains(&"--workspace");
        rustflags || !call.contains(&"--locked") || !(is_apart || is_shared)
    };
    let lines = makefile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    lines
        .filter(is_wrong)
        .map(|line| format!("Makefile: {}", line.trim()))
        .collect()
}

// ---- The sources ----------------------------------------------------------------------------

#[test]
fn only_the_storage_folder_names_rocksdb() {
    let shipped = shipped_sources();
    let storage = shipped.iter().filter(|path| path.starts_with(STORAGE));
    let named = storage
        .filter(|path| !rocksdb_names(&tokens(&read(path))).is_empty())
        .count();
    assert!(
        named > 0,
        "nothing in {STORAGE} names rocksdb: this rule looks at the wrong place"
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
        "{}\nonly {STORAGE} names rocksdb: give its face a function that returns owned values",
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

/// Returns where a source breaks a rule that holds for every source, and what to do.
fn source_faults(path: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX && !path.starts_with("tests/") {
        wrong.push(format!(
            "{path}: {lines} lines, {LINES_MAX} are the most: split it by subject"
        ));
    }
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(letter) = line.chars().find(|letter| !letter.is_ascii()) {
            wrong.push(format!(
                "{path}:{number}: {letter:?} is not ASCII: write it as an escape"
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
            let advice = "repair it, or delete it and say why in the commit";
            wrong.push(format!("{path}:{line}: an ignored test: {advice}"));
        }
        if token.text == "todo" && text_at(at + 1) == "!" {
            wrong.push(format!(
                "{path}:{line}: todo!: write it, or return a typed error"
            ));
        }
        let called = at >= 2 && text_at(at - 1) == "::" && text_at(at - 2) == "thread";
        if token.text == "sleep" && (called || statement.imports_thread) {
            let advice = "a task returns when it wants to run next, a test waits at a gate";
            wrong.push(format!("{path}:{line}: thread::sleep: {advice}"));
        }
    }
    wrong
}

/// Returns the lines on which a source names the crate rocksdb, as an import or in a path.
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

/// What a token stands in, as far as the rules care.
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

/// A word or a sign of a source; comments, strings and lifetimes yield none.
struct Token {
    line: usize,
    text: String,
}

/// Splits a source into its tokens.
fn tokens(source: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_length(rest),
            '"' => string_length(rest),
            '\'' => quote_length(rest),
            'b' | 'c' if word == 1 && rest[1..].starts_with('"') => 1 + string_length(&rest[1..]),
            'b' if word == 1 && rest[1..].starts_with('\'') => 1 + quote_length(&rest[1..]),
            'r' | 'b' | 'c' if raw_string_length(rest, word).is_some() => {
                raw_string_length(rest, word).unwrap()
            }
            'r' if word == 1 && rest[1..].starts_with('#') => 2,
            letter if is_word(letter) => {
                found.push(Token {
                    line,
                    text: rest[..word].to_owned(),
                });
                word
            }
            letter if letter.is_whitespace() => letter.len_utf8(),
            letter => {
                let length = if rest.starts_with("::") {
                    2
                } else {
                    letter.len_utf8()
                };
                found.push(Token {
                    line,
                    text: rest[..length].to_owned(),
                });
                length
            }
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns the length of the block comment at the start; they nest.
fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text.as_bytes()[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text.as_bytes()[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Returns the length of the string at the start, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of the raw string at the start, if there is one behind its prefix.
fn raw_string_length(text: &str, prefix: usize) -> Option<usize> {
    let body = &text[prefix..];
    let hashes = body.find(|letter| letter != '#')?;
    let is_raw = matches!(&text[..prefix], "r" | "br" | "cr") && body[hashes..].starts_with('"');
    let end = format!("\"{}", "#".repeat(hashes));
    let start = prefix + hashes + 1;
    is_raw.then(|| {
        text[start..]
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len())
    })
}

/// Returns the length of the character or lifetime at the start.
fn quote_length(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        // The letter behind the backslash may itself be a quote.
        (Some((_, '\\')), Some((at, _))) => text[at + 1..].find('\'').map_or(1, |end| at + end + 2),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => {
            1 + text[1..]
                .find(|letter| !is_word(letter))
                .unwrap_or(text.len() - 1)
        }
    }
}

// ---- The files ------------------------------------------------------------------------------

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the sources of the shipped crates.
fn shipped_sources() -> Vec<String> {
    let is_shipped = |path: &String| {
        SHIPPED
            .iter()
            .any(|(_, directory, _)| path.starts_with(&format!("{directory}/")))
    };
    files("rs").into_iter().filter(is_shipped).collect()
}

/// Returns the project's files of one kind, as sorted paths from the root.
fn files(extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What builds and runs leave behind is not the project's.
            let is_skipped =
                name.starts_with('.') || name == "target" || path == root().join("run");
            if path.is_dir() && !is_skipped {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(
                    path.strip_prefix(root())
                        .unwrap()
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

// ---- What is told -----------------------------------------------------------------------------

#[test]
fn the_version_of_rocksdb_that_is_told_is_the_one_that_is_linked() {
    let lock = read("Cargo.lock");
    let after = lock.split("name = \"librocksdb-sys\"\n").nth(1).unwrap();
    let linked = after.split('"').nth(1).unwrap().split('+').nth(1).unwrap();
    let told = read("engine/src/samples/tables.rs");
    let wanted = format!("const ROCKSDB: &str = \"{linked}\";");
    assert!(
        told.contains(&wanted),
        "engine/src/samples/tables.rs: {wanted}"
    );
}
