//! The directory of a store: whose it is, in which state, and how much of it was synced.
//!
//! ```text
//! DIR/VBSTORE        marker: this is a store, of this format, being created or ready
//! DIR/VBSTORE.lock   locked while an engine has the store open; holds the pid of one that writes
//! DIR/WITNESS        how much was synced, and whether the last close was clean
//! DIR/db/            RocksDB's own
//! ```
//! The marker alone decides whether a store is created or opened. RocksDB's "create if missing" is
//! never set on a directory that holds anything: with CURRENT and the log missing it opens empty
//! and deletes every data file (measured).

mod digest;
mod directory;
mod identity;
mod lock;
mod logs;
mod marker;
mod names;
mod witness_file;

pub(crate) use digest::data_files;
pub(crate) use directory::{Home, has_marker};
pub(crate) use lock::Access;
pub(crate) use logs::sync_logs;
pub(crate) use marker::{Marker, Phase};
pub(crate) use names::WITNESS;
pub(crate) use witness_file::WitnessFile;
