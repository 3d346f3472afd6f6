//! The parts of vbstore that need neither RocksDB nor threads. Nothing here opens a file.
//!
//! | module | contents |
//! |---|---|
//! | [`ids`] | vBucket ids, seqnos, CAS values, uuids |
//! | [`clock`] | the source of time, replaceable in tests |
//! | [`item`] | one change of one key, as it lives in memory |
//! | [`number`] | integer conversions that cannot fail |
//! | [`record`] | the encoding of on-disk records, with checked lengths |
//! | [`checkpoint`] | the recent changes of a vBucket in memory, and the cursors that read them |
//! | [`failover_log`] | the branches of a vBucket's history |
//! | [`resume`] | a consumer's position, and the decision whether it may resume there |
//! | [`progress`] | how far a stream has read, and which snapshot markers it must send |
//! | [`readers`] | the streams in progress of a vBucket, and what their consumers have taken |
//! | [`vbucket`] | one vBucket in memory: its lock, published seqnos and watches |
//! | [`filter`] | a digest of the filter of a stream |
//! | [`show`] | debug output of keys and values |
//! | [`sync`] | locks and atomics; a feature replaces them by those of a model checker |
//! | [`lock_order`] | the order in which locks are taken, and its run-time check |
//! | [`witness`] | the 64-byte record of how much was synced |
//!
//! The crate builds in seconds. Property tests, fuzzers and model checkers run on it.

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
