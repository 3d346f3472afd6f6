//! The names of the files in a store's directory, and how messages show them.

use std::path::Path;

/// The file name of the marker.
pub(crate) const MARKER: &str = "VBSTORE";
/// Where a new marker is written before it replaces the old one.
pub(super) const MARKER_NEW: &str = "VBSTORE.new";
/// The file name of the lock.
pub(super) const LOCK: &str = "VBSTORE.lock";
/// The file name of the witness.
pub(crate) const WITNESS: &str = "WITNESS";
/// Where a new witness is written before it replaces the old one.
pub(super) const WITNESS_NEW: &str = "WITNESS.new";
/// Where a new lock file is made before it replaces the old one.
pub(super) const LOCK_NEW: &str = "VBSTORE.lock.new";
/// The name of RocksDB's directory.
pub(super) const DB: &str = "db";

/// The names of all files that a store's directory may hold.
pub(super) const STORE_FILES: [&str; 7] =
    [MARKER, MARKER_NEW, LOCK, LOCK_NEW, WITNESS, WITNESS_NEW, DB];

/// Returns a path as messages show it. A path through the descriptor of the store's directory is
/// shown relative to that directory, because `/proc/self/fd/5/WITNESS` means nothing to a user.
pub(super) fn display_path(path: &Path) -> String {
    let path = path.to_string_lossy();
    match path.strip_prefix("/proc/self/fd/") {
        None => path.into_owned(),
        Some(inside) => inside.split_once('/').map_or_else(
            || "the store's directory".to_owned(),
            |(_, file)| file.to_owned(),
        ),
    }
}
