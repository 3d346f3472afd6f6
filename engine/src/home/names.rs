//! The names of the files in a store's directory.

/// The marker's file name.
pub(crate) const MARKER: &str = "VBSTORE";
/// Where a new marker is written before it takes the old one's place.
pub(super) const MARKER_NEW: &str = "VBSTORE.new";
/// The lock's file name.
pub(super) const LOCK: &str = "VBSTORE.lock";
/// The witness's file name.
pub(crate) const WITNESS: &str = "WITNESS";
/// RocksDB's directory.
pub(super) const DB: &str = "db";
