//! Lists the files of the project, and its crates.

use std::fs;
use std::path::{Path, PathBuf};

/// Each shipped crate, its directory, and the crates of the workspace it may depend on.
pub(super) const SHIPPED: [(&str, &str, &[&str]); 7] = [
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

/// Members that are not shipped; they may depend on anything.
pub(super) const NOT_SHIPPED: [&str; 2] = ["vbstore-tests", "vbstore-benches"];

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the sources of the shipped crates.
pub(super) fn shipped_sources() -> Vec<String> {
    let is_shipped = |path: &String| {
        SHIPPED
            .iter()
            .any(|(_, directory, _)| path.starts_with(&format!("{directory}/")))
    };
    files("rs").into_iter().filter(is_shipped).collect()
}

/// Returns the project's files with this extension, as sorted paths from the root.
pub(super) fn files(extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Output of builds and runs is not part of the project.
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
