//! The names of the files in a store's directory.

/// The marker's file name.
pub(crate) const MARKER: &str = "VBSTORE";
/// Where a new marker is written before it takes the old one's place.
pub(super) const MARKER_NEW: &str = "VBSTORE.new";
/// The lock's file name.
pub(super) const LOCK: &str = "VBSTORE.lock";
/// The witness's file name.
pub(crate) const WITNESS: &str = "WITNESS";
/// Where a new witness is written before it takes the old one's place.
pub(super) const WITNESS_NEW: &str = "WITNESS.new";
/// Where a new lock file is made before it takes the old one's place.
pub(super) const LOCK_NEW: &str = "VBSTORE.lock.new";
/// RocksDB's directory.
pub(super) const DB: &str = "db";

/// Everything that a store's directory may hold.
pub(super) const OURS: [&str; 7] = [MARKER, MARKER_NEW, LOCK, LOCK_NEW, WITNESS, WITNESS_NEW, DB];
