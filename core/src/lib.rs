//! The pure parts of vbstore: no RocksDB, no threads, no file is opened here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | vBucket ids, seqnos, CAS values, uuids |
//! | [`clock`] | where time comes from, so that a test can move it |
//! | [`item`] | one change of one key, as it lives in memory |
//! | [`number`] | conversions that cannot fail |
//! | [`record`] | what is written to disk, byte by byte, with checked lengths |
//! | [`checkpoint`] | the in-memory run of recent changes of a vBucket and the cursors in it |
//! | [`failover_log`] | the branches of a vBucket's history |
//! | [`resume`] | where a consumer is, and whether it may go on from there |
//! | [`progress`] | how far a stream has read, and the markers it owes |
//! | [`readers`] | the streams in progress of a vBucket, and what was taken of them |
//! | [`vbucket`] | one vBucket in memory: lock, published seqnos, watches |
//! | [`filter`] | what a consumer wants of a vBucket's changes, as a digest |
//! | [`show`] | what debug output shows of keys and values |
//! | [`sync`] | locks and atomics, exchanged for a model checker's by a feature |
//! | [`lock_order`] | the order in which locks are taken, and its check |
//! | [`witness`] | the 64 bytes that say how much was synced |
//!
//! Everything here builds in seconds and is what property tests, fuzzers and model checkers run on.

mod branch;
pub mod checkpoint;
pub mod clock;
pub mod failover_log;
pub mod filter;
pub mod ids;
pub mod item;
pub mod lock_order;
pub mod number;
pub mod progress;
pub mod readers;
pub mod record;
pub mod resume;
pub mod show;
pub mod sync;
pub mod vbucket;
mod watches;
pub mod witness;

pub use checkpoint::{
    AppendOutcome, CheckpointStats, Checkpoints, CursorId, CursorLag, Lag, ReadLimit,
    SealedCheckpoint,
};
pub use clock::{Clock, ManualClock, SystemClock};
pub use failover_log::{FailoverEntry, FailoverLog};
pub use filter::FilterDigest;
pub use ids::{Cas, Seqno, StoreUuid, VbId, VbUuid};
pub use item::{Item, ItemKind, ItemMeta};
pub use number::u64_from;
pub use progress::{SnapshotMarker, SnapshotSource, StreamProgress};
pub use readers::{ConsumerActivity, Reader, ReaderRegistration, ReaderStats, Readers};
pub use record::RecordError;
pub use resume::{Position, ResumeDecision, RollbackReason};
pub use vbucket::{Admission, AdmittedStart, SealTime, VbCell, VbInner, Visibility};
