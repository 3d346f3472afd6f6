//! Rules for the manifests, the Makefile and the CI.

use super::files::{files, read};

/// Crates that do not link RocksDB, directly or through another.
const NOT_LINKING: [&str; 2] = ["vbstore-core", "vbstore-metrics"];

const FEATURES_BANNED: [&str; 2] = ["multi-threaded-cf", "io-uring"];

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
        "the Makefile has no `cargo test`"
    );

    let wrong = wrong_cargo_calls(&makefile);

    assert!(
        wrong.is_empty(),
        "{}\nother packages, another profile or RUSTFLAGS compile RocksDB a second time: see the \
         head of the Makefile, and run scripts/check-one-archive",
        wrong.join("\n")
    );
}

#[test]
fn cargo_call_rule_finds_what_breaks_it() {
    let right = "# RUSTFLAGS, cargo build\n\
                 a:\n\tcargo build --release --workspace --locked\n\tcargo fmt --all\n\
                 \tRUSTDOCFLAGS=x cargo doc --release --workspace --locked\n\
                 \tcargo bench --profile release --workspace --locked\n\
                 \tcargo test --profile bench --workspace --locked\n";
    assert_eq!(wrong_cargo_calls(right), Vec::<String>::new());

    for wrong in [
        "a:\n\tcargo build --release -p vbstore-cli --locked\n",
        "a:\n\tcargo build --release --workspace\n",
        "a:\n\tcargo test --workspace --locked\n",
        "a:\n\tcargo test --workspace --locked --release\n",
        "a:\n\tcargo bench --workspace --locked\n",
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

/// Returns which of the project's commands the README or the CI script leaves out.
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

/// Returns the lines of a Makefile that would build a second RocksDB archive instead of sharing it.
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
        let has_profile = |profile| call.windows(2).any(|pair| pair == ["--profile", profile]);
        // Tests are built with debug assertions, so in the profile bench. Benches are built as
        // users build the crates.
        let profile = match call[0] {
            "bench" => has_profile("release"),
            "test" => has_profile("bench"),
            _ => call.contains(&"--release"),
        };
        // A crate that does not link RocksDB may be built by itself, but in its own directory: its
        // features would differ from those of the workspace.
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
