//! What streams are built on: admission, cursors, slices and wake-ups of one vBucket.
//!
//! The crate `vbstore-backfill` turns this into streams; a program uses those.

use crate::config::SliceBudget;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::handle::Handle;
use crate::process::Opener;
use crate::services::Services;
use crate::slice::{Ask, Slice};
use crate::vbuckets::Vb;
use crate::wakers::Wakers;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::checkpoint::{MemoryRead, NotInMemory};
use vbstore_core::resume::Malformed;
use vbstore_core::vbucket::Gone;
use vbstore_core::{
    Admission, CursorId, CursorLag, FilterDigest, Position, Progress, ReadLimit, Reader, Resume,
    SealTime, Seqno, Taker, VbCell, VbId, VbUuid, Visibility,
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

/// Keeps a stream registered with its vBucket as a reader until it is dropped. Holds neither the engine
/// nor the stream. Dropping it takes a lock.
#[derive(Debug)]
pub struct ReaderGuard {
    guard: vbstore_core::ReaderGuard,
    opener: Opener,
}

/// Where a stream goes on.
#[derive(Debug)]
pub struct Start {
    /// Where it begins.
    pub progress: Progress,
    /// Which life of the vBucket it is of.
    pub generation: u64,
    /// Its place in memory; `None` if the disk has to be read first.
    pub cursor: Option<CursorGuard>,
}

/// What came of a request.
#[derive(Debug)]
pub enum Admitted {
    /// It goes on.
    Continue {
        /// Where it begins.
        start: Start,
        /// Keeps it registered as a reader of the vBucket.
        reader: ReaderGuard,
    },
    /// The consumer must go back first.
    Rollback(Resume),
}

/// What a read from memory found.
#[derive(Debug)]
pub enum FeedRead {
    /// Changes, the end to announce, and the branch they are of.
    Changes(MemoryRead, VbUuid),
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

impl ReaderGuard {
    /// Keeps a reader registered for this process.
    #[cfg(feature = "testing")]
    pub(crate) fn new(guard: vbstore_core::ReaderGuard) -> Result<Self> {
        let opener = Opener::this()?;
        Ok(Self { guard, opener })
    }

    /// Returns what the consumer notes in what it has taken. Keeping it keeps nothing registered.
    #[must_use]
    pub fn reader(&self) -> &Arc<Reader> {
        self.guard.reader()
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        if self.opener.is_other() {
            self.guard.leave_registered();
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

    /// Reads slices for streams, one for each ask, through one db snapshot that is opened and released
    /// before this returns. All of them together keep to the budget, whose time counts from the moment
    /// the view is open; only the first item of all passes in any case. Goes on to the next ask only
    /// while the slices so far reached the end of their vBuckets: the answer may be shorter than the
    /// asks, and has at least one entry if there is an ask. An error of one ask, a panic while it is read
    /// ([`Error::StreamPanicked`]), or its vBucket's deletion meanwhile ([`Error::VbGone`]), is its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a vBucket that the store does not have, or a budget out of bounds;
    /// [`Error::Closed`].
    pub fn scan(&self, asks: &[Ask], budget: SliceBudget) -> Result<Vec<Result<Slice>>> {
        let services = self.services();
        budget.validate()?;
        asks.iter()
            .try_for_each(|ask| services.vbs.get(ask.vb).map(drop))?;
        services.slices.read_many(Holder::Backfill, asks, budget)
    }

    /// Returns what calls wakers of a program. For the crate that has streams.
    #[must_use]
    pub fn wakers(&self) -> Wakers {
        self.services().wakers.clone()
    }
}

fn malformed(Malformed { field, detail }: Malformed) -> Error {
    Error::invalid(field, detail)
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

    fn opener(&self) -> Opener {
        self.services().gate.opener().clone()
    }

    fn guard(&self, id: CursorId) -> CursorGuard {
        CursorGuard {
            vb: Arc::clone(&self.vb),
            id,
            opener: self.opener(),
        }
    }

    fn start(&self, start: vbstore_core::Start) -> Start {
        Start {
            progress: start.progress,
            generation: start.generation,
            cursor: start.cursor.map(|id| self.guard(id)),
        }
    }

    /// Returns the vBucket.
    #[must_use]
    pub fn vb(&self) -> VbId {
        self.vb.id()
    }

    /// Answers a request for a stream of the consumer that `taker` is of, gives it a cursor if memory
    /// serves it from the start, and registers it as a reader.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field that no consumer can mean; [`Error::ReadOnly`] for a copy of a
    /// store that was opened to read; [`Error::Closed`].
    pub fn admit(
        &self,
        request: &Position,
        filter: FilterDigest,
        end: Seqno,
        taker: &Arc<Taker>,
    ) -> Result<Admitted> {
        drop(self.services().gate.lend()?);
        if self.services().has_branches_to_begin {
            let refused = "a stream of a store that was copied, which begins new branches first,";
            return Err(Error::ReadOnly { refused });
        }
        let admission = self.cell().admit(request, filter, end, taker);
        Ok(match admission.map_err(malformed)? {
            Admission::Refused(answer) => Admitted::Rollback(answer),
            Admission::Admitted { start, reader } => Admitted::Continue {
                start: self.start(start),
                reader: ReaderGuard {
                    guard: reader,
                    opener: self.opener(),
                },
            },
        })
    }

    /// Answers a stream that goes on from what was taken of it, after its buffers were given back: what
    /// to go back to if it cannot. It is a reader already.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn readmit(
        &self,
        position: &Position,
        filter: FilterDigest,
    ) -> Result<std::result::Result<Start, Resume>> {
        drop(self.services().gate.lend()?);
        let answer = self.cell().readmit(position, filter).map_err(malformed)?;
        Ok(answer.map(|start| self.start(start)))
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
        let seal = SealTime {
            now: self.services().clock.monotonic(),
            interval: self.services().tuning.get().flush_interval,
        };
        let read = self
            .cell()
            .read(generation, cursor.id, progress, visibility, limit, seal);
        Ok(match read.map_err(|gone| self.gone(gone))? {
            Ok(Some((read, vb_uuid))) => FeedRead::Changes(read, vb_uuid),
            Ok(None) => FeedRead::CaughtUp,
            Err(NotInMemory) => FeedRead::Dropped,
        })
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
        let now = self.services().clock.monotonic();
        self.services().gate.check_process().is_ok()
            && self.cell().watch(generation, visibility, above, waker, now)
            // ORDER: watched first, looked at second. A failure or a close comes first and wakes
            // second, so one of the two is seen.
            && self.unwell().is_none()
    }

    /// Takes a watch away; nothing happens if it has fired, or in a fork of the process.
    pub fn unwatch(&self, waker: &Waker) {
        if self.services().gate.check_process().is_ok() {
            self.cell().unwatch(waker);
        }
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

    /// Returns whether `vb_uuid` is a branch of this life of the vBucket. Takes the vBucket's lock, so
    /// that a deletion that is being written is waited for.
    #[must_use]
    pub fn has_branch(&self, generation: u64, vb_uuid: VbUuid) -> bool {
        self.cell().has_branch(generation, vb_uuid)
    }

    /// Returns whether the vBucket was deleted since.
    #[must_use]
    pub fn is_gone(&self, generation: u64) -> bool {
        self.cell().check_generation(generation).is_err()
    }

    /// Passes a failpoint of a backfill. For the crate that has streams.
    ///
    /// # Errors
    /// What was planted there.
    pub fn pass(&self, place: &'static str) -> Result<()> {
        self.services().failpoints.pass(place)
    }

    /// Asks for a sync of what is persisted, soon.
    pub fn demand_sync(&self) {
        self.services().demand.sync();
    }

    /// Asks for a flush, soon.
    pub fn demand_flush(&self) {
        self.services().demand.flush();
    }

    /// Returns why nothing more will become durable: the engine is closing or has failed, the vBucket's
    /// changes cannot be flushed, or this process is a fork of the one that opened it.
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
        self.vb.check().err()
    }
}
