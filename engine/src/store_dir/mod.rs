//! The directory of a store: its lock, its marker and its witness.
//!
//! ```text
//! DIR/VBSTORE        marker: the format of the store, and whether it is being created or ready
//! DIR/VBSTORE.lock   locked while an engine has the store open; holds the pid of a writing process
//! DIR/WITNESS        how much was synced, and whether the last close was clean
//! DIR/db/            RocksDB's files
//! ```
//! Only the marker decides whether a store is created or opened. RocksDB's option
//! `create_if_missing` is never set for a directory that holds files: if CURRENT and the log are
//! missing, RocksDB opens an empty database and deletes every data file (measured).

mod digest;
mod directory;
mod identity;
mod lock;
mod logs;
mod marker;
mod names;
mod witness_file;

pub(crate) use digest::data_files;
pub(crate) use directory::{StoreDir, has_marker};
pub(crate) use lock::Access;
pub(crate) use logs::sync_logs;
pub(crate) use marker::{CreationPhase, StoreMarker};
pub(crate) use names::WITNESS;
pub(crate) use witness_file::WitnessFile;
