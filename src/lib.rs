//! An embedded, persistent key-value engine whose every change can be followed from any point.
//!
//! Keys live in *vBuckets*, the shards of the key space. Every change of a vBucket gets the next
//! *seqno*. A write returns when it is as durable as its caller asked, which is synced by default.
//!
//! ```
//! use vbstore::{Engine, PageForm, VbId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("store");
//! let engine = Engine::open(&path)?;
//!
//! let written = engine.for_key("fruit::apple").set("fruit::apple", "green")?;
//! let document = engine.for_key("fruit::apple").get("fruit::apple")?.ok_or("missing")?;
//! assert_eq!(document.value, "green");
//! assert_eq!(document.meta.cas, written.cas);
//!
//! // The hash of a key selects its vBucket, so the keys with a prefix are spread over all of them.
//! engine.for_key("fruit::pear").set("fruit::pear", "yellow")?;
//! let mut fruits = Vec::new();
//! for vb in (0..engine.vbuckets()).map(VbId::new) {
//!     let page = engine.vbucket(vb)?.prefix("fruit::", PageForm::Meta)?;
//!     fruits.extend(page.entries.into_iter().map(|entry| entry.key));
//! }
//! fruits.sort();
//! assert_eq!(fruits, ["fruit::apple", "fruit::pear"]);
//!
//! // A stream delivers every change from the beginning, then new changes as they are made.
//! use vbstore::{ConsumerConfig, Event, StreamRequest, Streams, StreamsConfig};
//! let vb = engine.for_key("fruit::apple").id();
//! let streams = Streams::start(&engine, &StreamsConfig::default())?;
//! let mut consumer = streams.consumer("example", &ConsumerConfig::default())?;
//! assert_eq!(consumer.open(&StreamRequest::from_start(vb))?, vbstore::OpenOutcome::Continue);
//! let marker = consumer.recv().ok_or("a stream is open")?;
//! assert!(matches!(marker.event, Event::SnapshotMarker(_)));
//! let change = consumer.recv().ok_or("a stream is open")?;
//! assert_eq!(change.event.item().ok_or("a change")?.key, "fruit::apple");
//! # drop((consumer, streams));
//! engine.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! vbstore is not a server (it opens no port), not a cluster (nothing is replicated) and not a
//! query engine. It runs on Linux.

pub use vbstore_backfill::{
    BackfillOrder, Consumer, ConsumerConfig, EndReason, Event, EventBatch, OpenOutcome, Positions,
    StreamCounters, StreamEvent, StreamItem, StreamOptions, StreamRequest, StreamState,
    StreamStats, Streams, StreamsConfig, StreamsStats, TryRecv,
};
pub use vbstore_core::failover_log::{FailoverEntry, FailoverLog};
pub use vbstore_core::ids::{Cas, Seqno, StoreUuid, VBUCKETS_MAX, VbId, VbUuid};
pub use vbstore_core::record::Counts;
pub use vbstore_core::{
    Clock, FilterDigest, ItemKind, ItemMeta, ManualClock, Position, RollbackReason, SnapshotMarker,
    SnapshotSource, SystemClock, Visibility,
};
pub use vbstore_engine::{
    BackgroundTask, Builder, Cause, Change, Config, DiskUsage, Document, Durability, Engine, Error,
    ErrorKind, HealthState, KEY_BYTES_LIMIT, KeyRange, Page, PageEntry, PageForm, Problem, Result,
    RocksSnapshots, SeqnoRange, Seqnos, Slice, SliceBudget, SliceEnd, SliceItem, Ticket, Tuning,
    VALUE_BYTES_LIMIT, VBUCKETS_DEFAULT, VBucket, VbCounts, VbReaders, Verification, WriteReceipt,
    failpoint,
};
pub use vbstore_metrics::{
    self as metrics, DbSnapshotHolder, DbSnapshots, EngineMetrics, HOLD_BOUNDS_MICROS, LongHold,
    MetricsSnapshot, Registration, Registry, Telemetry,
};

/// Compiles and runs the programs of the README as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
