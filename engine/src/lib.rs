//! The engine of vbstore: vBuckets, group commit and storage on RocksDB.
//!
//! A program depends on the crate `vbstore`, which re-exports what it needs from here. The modules,
//! from the public ones to the basic ones; a module imports only from those below it:
//!
//! | module | what it provides |
//! |---|---|
//! | `builder`, `engine`, `vbucket`, `feed`, `verify` | the interface of programs and of streams |
//! | `handle`, `closing` | the state that all handles share; closing an engine |
//! | `opening` | the steps of opening a store: create, compare with the witness, recover |
//! | `samples` | metrics for scrapes and for `metrics_snapshot` |
//! | `tasks` | background tasks: flushing, syncing, memory, the directory, compaction |
//! | `services` | the parts of an open engine; the order of locks |
//! | `write`, `read` | writing keys; reading by key, by page and by slice |
//! | `commit` | group commit: the flush leader, flushes, tickets, deletion of a vBucket |
//! | `gate`, `vbuckets`, `health`, `memory`, `tuning`, `stripes` | state that the parts share |
//! | `signals`, `deferred`, `wakers`, `process`, `engine_thread` | threads, wake-ups and forks |
//! | `store_dir` | the store's directory: marker, lock, witness |
//! | `storage` | RocksDB: the only module that names it |
//! | `change`, `config`, `durability`, `error`, `slice` | data types that all modules use |
//! | `failpoint`, `numbers` | failpoints for tests; conversions of numbers |

mod builder;
mod change;
mod closing;
mod commit;
mod config;
mod deferred;
mod durability;
mod engine;
mod engine_thread;
mod error;
pub mod failpoint;
mod feed;
mod gate;
mod handle;
mod health;
mod memory;
mod numbers;
mod opening;
mod process;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod raw;
mod read;
mod samples;
mod services;
mod signals;
mod slice;
mod storage;
mod store_dir;
mod stripes;
mod tasks;
mod tuning;
mod vbucket;
mod vbuckets;
mod verify;
mod wakers;
mod write;

pub use builder::Builder;
pub use change::{Change, WriteReceipt};
pub use commit::Ticket;
pub use config::{
    Config, KEY_BYTES_LIMIT, SliceBudget, Tuning, VALUE_BYTES_LIMIT, VBUCKETS_DEFAULT,
};
pub use durability::Durability;
pub use engine::{DiskUsage, Engine, RocksSnapshots};
pub use error::{Cause, Error, ErrorKind, Result};
pub use feed::{CursorGuard, Feed, FeedRead, ReaderGuard, StreamAdmission, StreamStart};
pub use health::HealthState;
pub use read::{Document, KeyRange, Page, PageEntry, PageForm};
pub use slice::{SeqnoRange, Slice, SliceEnd, SliceItem, SliceRequest};
pub use tasks::BackgroundTask;
pub use vbucket::{Seqnos, VBucket, VbCounts, VbReaders};
pub use verify::{Problem, Verification};
pub use wakers::Wakers;
