//! What streams are built on: admission, cursors, slices and wake-ups of one vBucket.
//!
//! The crate `vbstore-backfill` turns this into streams; a program uses those.

use crate::config::SliceBudget;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::handle::Handle;
use crate::process::Opener;
use crate::services::Services;
use crate::slice::{SeqnoRange, Slice};
use crate::vbuckets::Vb;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::checkpoint::{MemoryRead, NotInMemory};
use vbstore_core::resume::{Malformed, check_bounds};
use vbstore_core::vbucket::Gone;
use vbstore_core::{
    Admission, CursorId, CursorLag, Position, Progress, ReadLimit, Resume, Seqno, VbCell, VbId,
    Visibility,
};
use vbstore_metrics::Holder;

/// What streams of one vBucket are built on. Cheap to clone; every clone keeps the engine open.
#[derive(Clone)]
pub struct Feed {
    handle: Arc<Handle>,
    vb: Arc<Vb>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Feed").field(&self.vb.id()).finish()
    }
}

/// A stream's place in memory. Dropping it gives the place up.
#[derive(Debug)]
pub struct CursorGuard {
    vb: Arc<Vb>,
    id: CursorId,
    opener: Opener,
}

/// What came of a request.
#[derive(Debug)]
pub enum Admitted {
    /// It goes on.
    Continue {
        /// Where it begins.
        progress: Progress,
        /// Which life of the vBucket it is of.
        generation: u64,
        /// Its place in memory; `None` if the disk has to be read first.
        cursor: Option<CursorGuard>,
    },
    /// The consumer must go back first.
    Rollback(Resume),
}

/// What a read from memory found.
#[derive(Debug)]
pub enum FeedRead {
    /// Changes, and the end to announce.
    Changes(MemoryRead),
    /// Nothing now.
    CaughtUp,
    /// The cursor was dropped: the disk has to be read.
    Dropped,
}

impl Drop for CursorGuard {
    fn drop(&mut self) {
        if !self.opener.is_other() {
            self.vb.cell.leave(self.id);
        }
    }
}

impl CursorGuard {
    /// Returns how far it is behind; `None` if it was dropped. Takes the same time however far.
    #[must_use]
    pub fn lag(&self) -> Option<CursorLag> {
        self.vb.cell.lag(self.id)
    }
}

impl Engine {
    /// Returns what streams of a vBucket are built on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the store has no vBucket of this number.
    pub fn feed(&self, vb: VbId) -> Result<Feed> {
        let vb = self.services().vbs.get(vb)?;
        Ok(Feed {
            handle: Arc::clone(self.handle()),
            vb: Arc::clone(vb),
        })
    }
}

impl Feed {
    fn services(&self) -> &Services {
        &self.handle.services
    }

    fn cell(&self) -> &VbCell {
        &self.vb.cell
    }

    fn gone(&self, _: Gone) -> Error {
        Error::VbGone { vb: self.vb.id() }
    }

    fn guard(&self, id: CursorId) -> CursorGuard {
        CursorGuard {
            vb: Arc::clone(&self.vb),
            id,
            opener: self.services().gate.opener().clone(),
        }
    }

    /// Returns the vBucket.
    #[must_use]
    pub fn vb(&self) -> VbId {
        self.vb.id()
    }

    /// Answers a request for a stream, and gives it a cursor if memory serves it from the start.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field that no consumer can mean; [`Error::Closed`].
    pub fn admit(&self, request: &Position, end: Seqno) -> Result<Admitted> {
        drop(self.services().gate.lend()?);
        check_bounds(request, end)
            .map_err(|Malformed { field, detail }| Error::invalid(field, detail))?;
        Ok(match self.cell().admit(request, end) {
            Admission::Refused(answer) => Admitted::Rollback(answer),
            Admission::Admitted {
                progress,
                generation,
                cursor,
            } => Admitted::Continue {
                progress,
                generation,
                cursor: cursor.map(|id| self.guard(id)),
            },
        })
    }

    /// Gives a stream that has read everything up to `position` a cursor after it, if memory serves
    /// it.
    ///
    /// # Errors
    /// [`Error::VbGone`].
    pub fn join(&self, generation: u64, position: Seqno) -> Result<Option<CursorGuard>> {
        self.services().gate.check_process()?;
        let joined = self.cell().join(generation, position);
        let cursor = joined.map_err(|gone| self.gone(gone))?;
        Ok(cursor.map(|id| self.guard(id)))
    }

    /// Keeps in memory what is not sealed yet, until the guard is dropped or memory runs short.
    ///
    /// # Errors
    /// [`Error::VbGone`].
    pub fn hold_memory(&self, generation: u64) -> Result<CursorGuard> {
        self.services().gate.check_process()?;
        let held = self.cell().hold_memory(generation);
        held.map(|id| self.guard(id))
            .map_err(|gone| self.gone(gone))
    }

    /// Reads from a cursor what is as durable as asked.
    ///
    /// # Errors
    /// [`Error::VbGone`].
    pub fn read(
        &self,
        generation: u64,
        cursor: &CursorGuard,
        progress: &Progress,
        visibility: Visibility,
        limit: ReadLimit,
    ) -> Result<FeedRead> {
        self.services().gate.check_process()?;
        let read = self
            .cell()
            .read(generation, cursor.id, progress, visibility, limit);
        Ok(match read.map_err(|gone| self.gone(gone))? {
            Ok(Some(read)) => FeedRead::Changes(read),
            Ok(None) => FeedRead::CaughtUp,
            Err(NotInMemory) => FeedRead::Dropped,
        })
    }

    /// Reads one slice from disk. Opens a db snapshot and gives it back before it returns.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn slice(&self, after: Seqno, budget: SliceBudget) -> Result<Slice> {
        self.services().failpoints.pass(place::SLICE_OPEN)?;
        let range = SeqnoRange::above(after);
        let slices = &self.services().slices;
        let slice = slices.read(Holder::Backfill, &self.vb, range, budget)?;
        self.services().failpoints.pass(place::SLICE_HAND_ON)?;
        Ok(slice)
    }

    /// Calls `waker` once changes above `above` are as durable as asked, or when the stream has to
    /// look again for another reason (deletion, failure, close). Returns false if that is so now.
    #[must_use]
    pub fn watch(
        &self,
        generation: u64,
        visibility: Visibility,
        above: Seqno,
        waker: &Waker,
    ) -> bool {
        self.services().gate.check_process().is_ok()
            && self.cell().watch(generation, visibility, above, waker)
            // ORDER: watched first, looked at second. A failure or a close comes first and wakes
            // second, so one of the two is seen.
            && self.unwell().is_none()
    }

    /// Takes a watch away; nothing happens if it has fired.
    pub fn unwatch(&self, waker: &Waker) {
        self.cell().unwatch(waker);
    }

    /// Returns how many streams wait for changes of the vBucket.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.cell().watches()
    }

    /// Returns up to where everything is synced.
    #[must_use]
    pub fn synced(&self) -> Seqno {
        self.cell().synced()
    }

    /// Returns up to where everything is in RocksDB's log.
    #[must_use]
    pub fn persisted(&self) -> Seqno {
        self.cell().persisted()
    }

    /// Returns whether the vBucket was deleted since.
    #[must_use]
    pub fn is_gone(&self, generation: u64) -> bool {
        self.cell().check_generation(generation).is_err()
    }

    /// Asks for a sync of what is persisted, soon.
    pub fn demand_sync(&self) {
        self.services().demand.sync();
    }

    /// Asks for a flush, soon.
    pub fn demand_flush(&self) {
        self.services().demand.flush();
    }

    /// Returns why nothing more will become durable: the engine is closing or has failed, or this process
    /// is a fork of the one that opened it.
    #[must_use]
    pub fn unwell(&self) -> Option<Error> {
        let services = self.services();
        if let Err(forked) = services.gate.check_process() {
            return Some(forked);
        }
        if services.gate.is_closing() {
            return Some(Error::Closed);
        }
        if services.health.is_failed() {
            return services.health.check().err();
        }
        None
    }
}
