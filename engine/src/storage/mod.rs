//! Storage on RocksDB. This is the only module that names RocksDB.
//!
//! There are three ways in: writes ([`RecordBatch`] and [`Storage::write`]); point reads
//! ([`point`]); and a view that is lent to one closure, whose result owns all its data
//! ([`Storage::with_records`]). No type of a RocksDB snapshot or iterator is visible outside this
//! folder.

mod batch;
mod database;
mod ends;
mod error_map;
mod open;
mod options;
mod point;
mod properties;
mod records;
mod scan;
mod statistics;
mod view;

pub(crate) use batch::RecordBatch;
pub(crate) use database::Storage;
pub(crate) use open::OpenScope;
pub(crate) use options::background_jobs;
pub use options::{FamilyOptions, StorageConfig};
#[cfg(feature = "testing")]
pub use options::{key_family, seqno_family};
pub(crate) use properties::RocksFamilyStats;
pub(crate) use records::{Records, decode_document, decode_index_entry};
#[cfg(feature = "testing")]
pub use scan::ReadHeld;
pub(crate) use scan::{PageRow, PageScan};
pub(crate) use statistics::{RocksCounters, Timing};
