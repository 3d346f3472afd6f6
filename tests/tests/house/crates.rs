//! Rules for which crate may depend on which.

use super::files::{NOT_SHIPPED, SHIPPED, root};
use serde_json::{Value, json};
use std::process::Command;

#[test]
fn crates_depend_along_the_arrows_only() {
    let wrong = wrong_arrows(&metadata());

    assert!(
        wrong.is_empty(),
        "{}\nmove the code to a crate that may depend on both, or pass the value in through a \
         trait; the allowed dependencies are core, metrics <- engine <- backfill <- vbstore <- cli",
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
        "{}\nonly the engine links RocksDB: add what you need to its storage module",
        wrong.join("\n")
    );
}

#[test]
fn anyhow_is_a_dependency_of_no_library() {
    let wrong = wrong_dependents(&metadata(), "anyhow", &["vbstore-cli"], false);

    assert!(
        wrong.is_empty(),
        "{}\ncallers of a library match on its errors: define an error type with thiserror",
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
    assert!(wrong[2].contains("vbstore-new is missing"), "{wrong:?}");
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
            wrong.push(format!(
                "{name} is missing in SHIPPED and NOT_SHIPPED of tests/tests/house/files.rs"
            ));
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
/// dev-dependencies count if `tests_too`.
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

/// Returns the workspace members: name, and for each dependency its name and whether it is a
/// dev-dependency.
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

/// Returns the output of `cargo metadata` for the members of the workspace.
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

/// Returns a package as `cargo metadata` would show it.
fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
    let dependencies: Vec<Value> = dependencies
        .iter()
        .map(|(dependency, kind)| json!({ "name": dependency, "kind": kind }))
        .collect();
    json!({ "name": name, "dependencies": dependencies })
}
