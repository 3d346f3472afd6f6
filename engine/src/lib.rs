//! vBuckets, group commit and storage of vbstore, on RocksDB.
//!
//! A program depends on the crate `vbstore`, which re-exports what it needs from here. The map of
//! this crate, from the outside in; a module imports from those below it only:
//!
//! | module | what it holds |
//! |---|---|
//! | `builder`, `engine`, `vbucket`, `feed`, `verify` | what a program, or the crate of streams, calls |
//! | `handle`, `closing` | what all handles share; how an engine comes to rest |
//! | `opening` | the steps of opening a store: create, compare with the witness, recover |
//! | `samples` | figures for scrapes and `metrics_snapshot` |
//! | `tasks` | background tasks: flusher, syncer, witness syncer, pacer, directory watcher, compactor |
//! | `services` | the parts of an open engine, put together; the order of locks |
//! | `write`, `read` | writing keys; reading by key, by pages and by slices |
//! | `commit` | group commit: who flushes, what a flush does, tickets, deleting a vBucket |
//! | `gate`, `vbuckets`, `health`, `memory`, `tuning`, `stripes`, `signals`, `wakes`, `wakers`, `process`, `own_thread` | what the parts share |
//! | `home` | the directory: marker, lock, witness |
//! | `storage` | the only place that names RocksDB |
//! | `change`, `config`, `durability`, `error`, `slice`, `failpoint`, `numbers` | plain data that all of them use |

mod builder;
mod change;
mod closing;
mod commit;
mod config;
mod durability;
mod engine;
mod error;
pub mod failpoint;
mod feed;
mod gate;
mod handle;
mod health;
mod home;
mod memory;
mod numbers;
mod opening;
mod own_thread;
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
mod stripes;
mod tasks;
mod tuning;
mod vbucket;
mod vbuckets;
mod verify;
mod wakers;
mod wakes;
mod write;

pub use builder::Builder;
pub use change::{Change, Written};
pub use commit::Ticket;
pub use config::{
    Config, KEY_BYTES_LIMIT, SliceBudget, Tuning, VALUE_BYTES_LIMIT, VBUCKETS_DEFAULT,
};
pub use durability::Durability;
pub use engine::{DiskUsage, Engine, RocksSnapshots};
pub use error::{Cause, Error, ErrorKind, Result};
pub use feed::{Admitted, CursorGuard, Feed, FeedRead, ReaderGuard, Start};
pub use health::HealthState;
pub use read::{Document, KeyRange, Page, PageEntry, PageForm};
pub use slice::{Ask, SeqnoRange, Slice, SliceEnd, SliceItem};
pub use tasks::BackgroundTask;
pub use vbucket::{Seqnos, VBucket, VbCounts, VbReaders};
pub use verify::{Problem, Verification};
pub use wakers::Wakers;
