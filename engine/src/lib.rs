//! vBuckets, group commit and storage of vbstore, on RocksDB.
//!
//! A program depends on the crate `vbstore`, which re-exports what it needs from here. The map of
//! this crate, from the outside in:
//!
//! | module | what it holds |
//! |---|---|
//! | `engine`, `builder`, `close` | the handle; opening, creating and closing a store |
//! | `vbucket` | reading and writing keys |
//! | `commit` | group commit: who flushes, what a flush does, tickets, deleting a vBucket |
//! | `feed` | what streams are built on: admission, cursors, slices, watches |
//! | `tasks` | background tasks: flusher, witness syncer, pacer |
//! | `wakers` | calling a program's wakers |
//! | `home` | the directory: marker, lock, witness |
//! | `verify` | checking what is on disk |
//! | `storage` | the only place that names RocksDB |

mod builder;
mod change;
mod close;
mod commit;
mod config;
mod engine;
mod error;
pub mod failpoint;
mod feed;
mod health;
mod home;
mod inner;
mod memory;
mod samples;
mod slice;
mod storage;
mod stripes;
mod tasks;
mod vbucket;
mod verify;
mod wakers;

pub use builder::Builder;
pub use change::{Change, Written};
pub use commit::Ticket;
pub use config::{
    Config, Durability, KEY_BYTES_LIMIT, SliceBudget, Tuning, VALUE_BYTES_LIMIT, VBUCKETS_DEFAULT,
};
pub use engine::{DiskUsage, Engine, RocksSnapshots};
pub use error::{Cause, Error, ErrorKind, Result};
pub use feed::{Admitted, CursorGuard, Feed, FeedRead};
pub use health::HealthState;
pub use slice::{Ask, SeqnoRange, Slice, SliceEnd, SliceItem};
pub use tasks::BackgroundTask;
pub use vbucket::{Document, KeyRange, Page, PageEntry, PageForm, Seqnos, VBucket, VbCounts};
pub use verify::{Problem, Verification};
pub use wakers::Wakers;

/// For benches and tests: the options RocksDB is opened with, and what happens by itself only under
/// pressure. Not part of the interface: no promise is kept about it.
#[doc(hidden)]
pub mod raw {
    pub use crate::storage::options::{FamilyOptions, StorageConfig, key_family, seqno_family};

    use crate::{Engine, Result, SeqnoRange, Slice, SliceBudget};
    use vbstore_core::{Seqno, VbId};

    /// Lets no family be compacted any more until the store is opened again.
    ///
    /// # Errors
    /// When the engine is closed, or RocksDB refuses.
    pub fn stop_compactions(engine: &Engine) -> Result<()> {
        engine.inner().storage()?.stop_compactions()
    }

    /// Reads a slice through a db snapshot that stays open.
    pub type ReadHeld<'a> = dyn FnMut(VbId, SeqnoRange, SliceBudget) -> Result<Slice> + 'a;

    /// Opens one db snapshot and lends a function that reads slices through it, for as long as
    /// `work` takes: what this engine never does otherwise, so that a bench can say what it costs.
    ///
    /// # Errors
    /// When the engine is closed.
    pub fn with_held_view<R>(
        engine: &Engine,
        work: impl FnOnce(&mut ReadHeld<'_>) -> R,
    ) -> Result<R> {
        Ok(engine.inner().storage()?.with_held_view(work))
    }

    /// Removes tombstones for good, whoever may need them. Returns how many.
    ///
    /// # Errors
    /// As a flush.
    pub fn purge_tombstones(engine: &Engine, vb: VbId, upto: Seqno) -> Result<u64> {
        engine.inner().purge_tombstones(vb, upto)
    }

    /// Gives back all memory of changes that are on disk and that every stream has read; if
    /// `drops_cursors`, also what not, and drops the cursors of those who have not.
    ///
    /// # Errors
    /// As a flush.
    pub fn forget_memory(engine: &Engine, drops_cursors: bool) -> Result<()> {
        engine.inner().forget_memory(drops_cursors)
    }
}
