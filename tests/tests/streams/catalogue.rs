//! The tests that CATALOGUE.md names exist.

use std::path::{Path, PathBuf};

/// Returns the names between backticks in the second column of a table.
fn named(text: &str) -> Vec<&str> {
    let rows = text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split('|').nth(2));
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

fn sources(root: &Path) -> String {
    let mut all = String::new();
    let mut rest: Vec<PathBuf> = ["backfill", "core", "engine", "tests"]
        .iter()
        .map(|part| root.join(part))
        .collect();
    while let Some(path) = rest.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap();
            rest.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    all
}

#[test]
fn every_test_that_the_catalogue_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("tests/streams/CATALOGUE.md")).unwrap();
    let names = named(&text);
    assert!(names.len() > 100, "{}", names.len());
    let sources = sources(root.parent().unwrap());
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !sources.contains(&format!("fn {name}() {{")))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
