//! The interface that streams are built on: admission, cursors, slices and wake-ups of one vBucket.
//!
//! The crate `vbstore-backfill` builds streams from this. A program uses those streams instead.

use crate::config::SliceBudget;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::handle::EngineHandle;
use crate::process::OpenerProcess;
use crate::services::Services;
use crate::slice::{Slice, SliceRequest};
use crate::vbuckets::Vb;
use crate::wakers::Wakers;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use vbstore_core::checkpoint::{MemoryRead, NotInMemory};
use vbstore_core::resume::InvalidPosition;
use vbstore_core::vbucket::VbDeleted;
use vbstore_core::{
    Admission, ConsumerActivity, CursorId, CursorLag, FilterDigest, Position, ReadLimit, Reader,
    ResumeDecision, SealTime, Seqno, StreamProgress, VbCell, VbId, VbUuid, Visibility,
};
use vbstore_metrics::DbSnapshotHolder;

/// The access to one vBucket that its streams need. Cheap to clone. Each clone keeps the engine
/// open.
#[derive(Clone)]
pub struct Feed {
    handle: Arc<EngineHandle>,
    vb: Arc<Vb>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Feed").field(&self.vb.id()).finish()
    }
}

/// A stream's cursor in the checkpoints of a vBucket. Dropping it removes the cursor, and takes the
/// vBucket's lock.
#[derive(Debug)]
pub struct CursorGuard {
    vb: Arc<Vb>,
    id: CursorId,
    opener: OpenerProcess,
}

/// Keeps a stream registered as a reader of its vBucket. Keeps neither the engine nor the stream
/// alive. Dropping it unregisters the stream, and takes the vBucket's lock.
#[derive(Debug)]
pub struct ReaderGuard {
    guard: vbstore_core::ReaderRegistration,
    opener: OpenerProcess,
}

/// The place from which a stream continues.
#[derive(Debug)]
pub struct StreamStart {
    /// The position, and the snapshot that the stream is in.
    pub progress: StreamProgress,
    /// The generation of the vBucket: each deletion begins a new one.
    pub generation: u64,
    /// The stream's cursor, or `None` if it must read the disk first.
    pub cursor: Option<CursorGuard>,
}

/// The decision about a request for a stream.
#[derive(Debug)]
pub enum StreamAdmission {
    /// The stream may continue.
    Continue {
        /// The place from which it continues.
        start: StreamStart,
        /// Keeps the stream registered as a reader of the vBucket.
        reader: ReaderGuard,
    },
    /// The consumer must first roll back. The decision says how far, and why.
    Rollback(ResumeDecision),
}

/// What [`Feed::read`] found in memory.
#[derive(Debug)]
pub enum FeedRead {
    /// Changes with the end of their snapshot, and the branch that they belong to.
    Changes(MemoryRead, VbUuid),
    /// There is no new change of the requested visibility.
    CaughtUp,
    /// The cursor was dropped to free memory: the stream must read the disk.
    Dropped,
}

impl Drop for CursorGuard {
    fn drop(&mut self) {
        // In a forked process the vBucket's lock stays locked forever if another thread held it at
        // the fork.
        if !self.opener.is_fork() {
            self.vb.cell.leave(self.id);
        }
    }
}

impl ReaderGuard {
    /// Takes over a registration that this process has made.
    #[cfg(feature = "testing")]
    pub(crate) fn new(guard: vbstore_core::ReaderRegistration) -> Result<Self> {
        let opener = OpenerProcess::current()?;
        Ok(Self { guard, opener })
    }

    /// Returns the reader, in which the consumer records the seqno up to which it has taken
    /// changes. Keeping the `Arc` does not keep the stream registered.
    #[must_use]
    pub fn reader(&self) -> &Arc<Reader> {
        self.guard.reader()
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        if self.opener.is_fork() {
            // Unregistering takes the vBucket's lock, which may be locked forever here; see
            // `CursorGuard`.
            self.guard.leave_registered();
        }
    }
}

impl CursorGuard {
    /// Returns how far the cursor lags, or `None` if it was dropped. The cost does not depend on
    /// the lag.
    #[must_use]
    pub fn lag(&self) -> Option<CursorLag> {
        self.vb.cell.lag(self.id)
    }
}

impl Engine {
    /// Returns the interface for streams of a vBucket.
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

    /// Reads slices for streams, one for each of `requests`, through one db snapshot. The db
    /// snapshot is opened by this call and released before it returns.
    ///
    /// All slices share the budget, whose time begins when the db snapshot is open. Only the first
    /// item of the first slice may exceed the budget. The next slice is read only if all slices so
    /// far have reached the end of their vBuckets, so the result may be shorter than `requests`. It
    /// has at least one entry unless `requests` is empty.
    ///
    /// An entry is an error if reading that slice failed or panicked ([`Error::StreamPanicked`]),
    /// or if its vBucket was deleted meanwhile ([`Error::VbGone`]). The other entries are not
    /// affected.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a vBucket that the store does not have, or a budget out of bounds;
    /// [`Error::Closed`].
    pub fn scan(
        &self,
        requests: &[SliceRequest],
        budget: SliceBudget,
    ) -> Result<Vec<Result<Slice>>> {
        let services = self.services();
        budget.validate()?;
        requests
            .iter()
            .try_for_each(|request| services.vbs.get(request.vb).map(drop))?;
        services
            .slices
            .read_many(DbSnapshotHolder::Backfill, requests, budget)
    }

    /// Returns the queue through which the program's wakers are called. Called by the crate
    /// `vbstore-backfill`.
    #[must_use]
    pub fn wakers(&self) -> Wakers {
        self.services().wakers.clone()
    }
}

fn malformed(InvalidPosition { field, detail }: InvalidPosition) -> Error {
    Error::invalid(field, detail)
}

impl Feed {
    fn services(&self) -> &Services {
        &self.handle.services
    }

    fn cell(&self) -> &VbCell {
        &self.vb.cell
    }

    fn gone(&self, _: VbDeleted) -> Error {
        Error::VbGone { vb: self.vb.id() }
    }

    fn opener(&self) -> OpenerProcess {
        self.services().gate.opener().clone()
    }

    fn guard(&self, id: CursorId) -> CursorGuard {
        CursorGuard {
            vb: Arc::clone(&self.vb),
            id,
            opener: self.opener(),
        }
    }

    fn start(&self, start: vbstore_core::AdmittedStart) -> StreamStart {
        StreamStart {
            progress: start.progress,
            generation: start.generation,
            cursor: start.cursor.map(|id| self.guard(id)),
        }
    }

    /// Returns the number of the vBucket.
    #[must_use]
    pub fn vb(&self) -> VbId {
        self.vb.id()
    }

    /// Decides whether a stream may continue from the position in `request`. `activity` is that of
    /// the stream's consumer. If the stream may continue, it is registered as a reader. It also
    /// gets a cursor if memory has all changes from its start on. Takes the vBucket's lock.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the name of a field that contradicts the others; [`Error::ReadOnly`]
    /// for a copied store that was opened read-only; [`Error::Closed`].
    pub fn admit(
        &self,
        request: &Position,
        filter: FilterDigest,
        end: Seqno,
        activity: &Arc<ConsumerActivity>,
    ) -> Result<StreamAdmission> {
        drop(self.services().gate.acquire()?);
        if self.services().has_branches_to_begin {
            // Until then, a position in the original looks like a position in this store, although
            // the two may have different changes.
            let refused =
                "a stream of a copied store, whose vBuckets must begin new branches first,";
            return Err(Error::ReadOnly { refused });
        }
        let admission = self.cell().admit(request, filter, end, activity);
        Ok(match admission.map_err(malformed)? {
            Admission::Refused(answer) => StreamAdmission::Rollback(answer),
            Admission::Admitted { start, reader } => StreamAdmission::Continue {
                start: self.start(start),
                reader: ReaderGuard {
                    guard: reader,
                    opener: self.opener(),
                },
            },
        })
    }

    /// Decides how a stream continues after its buffers were dropped. `position` is what its
    /// consumer has taken. The inner error means that the consumer must roll back. The stream stays
    /// registered as a reader, and is not registered again.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn readmit(
        &self,
        position: &Position,
        filter: FilterDigest,
    ) -> Result<std::result::Result<StreamStart, ResumeDecision>> {
        drop(self.services().gate.acquire()?);
        let answer = self.cell().readmit(position, filter).map_err(malformed)?;
        Ok(answer.map(|start| self.start(start)))
    }

    /// Gives a cursor to a stream that has read everything up to `position`. Returns `None` if
    /// memory does not have everything above it; the stream must then read the disk.
    ///
    /// # Errors
    /// [`Error::VbGone`].
    pub fn join(&self, generation: u64, position: Seqno) -> Result<Option<CursorGuard>> {
        self.services().gate.check_process()?;
        let joined = self.cell().join(generation, position);
        let cursor = joined.map_err(|gone| self.gone(gone))?;
        Ok(cursor.map(|id| self.guard(id)))
    }

    /// Keeps the changes that are not yet persisted in memory, until the guard is dropped or memory
    /// runs short. A stream calls this before it reads the disk, so that it can continue from
    /// memory afterwards.
    ///
    /// # Errors
    /// [`Error::VbGone`].
    pub fn hold_memory(&self, generation: u64) -> Result<CursorGuard> {
        self.services().gate.check_process()?;
        let held = self.cell().hold_memory(generation);
        held.map(|id| self.guard(id))
            .map_err(|gone| self.gone(gone))
    }

    /// Reads changes of the given visibility at a cursor. Never reads the disk.
    ///
    /// # Errors
    /// [`Error::VbGone`].
    pub fn read(
        &self,
        generation: u64,
        cursor: &CursorGuard,
        progress: &StreamProgress,
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

    /// Calls `waker` once changes above `above` have the given visibility, or once the stream must
    /// check its state for another reason: a deletion, a failure, or the close. Returns false if
    /// one of these holds already. Even then the watch may have been registered.
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
            // ORDER: the watch is registered first and the health is checked second. A failure or a
            // close changes the health first and wakes second, so the stream notices one of the
            // two.
            && self.health_error().is_none()
    }

    /// Removes a watch. Does nothing if it has fired already, or in a fork of the process.
    pub fn unwatch(&self, waker: &Waker) {
        if self.services().gate.check_process().is_ok() {
            self.cell().unwatch(waker);
        }
    }

    /// Returns the number of streams that wait for changes of the vBucket.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.cell().watches()
    }

    /// Returns the seqno up to which everything is synced.
    #[must_use]
    pub fn synced(&self) -> Seqno {
        self.cell().synced()
    }

    /// Returns the seqno up to which everything is in RocksDB's log.
    #[must_use]
    pub fn persisted(&self) -> Seqno {
        self.cell().persisted()
    }

    /// Returns whether `vb_uuid` is a branch of this generation of the vBucket. Takes the vBucket's
    /// lock, and so waits for a deletion that is being written.
    #[must_use]
    pub fn has_branch(&self, generation: u64, vb_uuid: VbUuid) -> bool {
        self.cell().has_branch(generation, vb_uuid)
    }

    /// Returns whether the vBucket was deleted since that generation.
    #[must_use]
    pub fn is_gone(&self, generation: u64) -> bool {
        self.cell().check_generation(generation).is_err()
    }

    /// Passes a failpoint of a backfill. Called by the crate `vbstore-backfill`.
    ///
    /// # Errors
    /// The error that a test has set for the place.
    pub fn pass(&self, place: &'static str) -> Result<()> {
        self.services().failpoints.pass(place)
    }

    /// Asks the syncer to sync soon everything that is persisted. Does not block.
    pub fn demand_sync(&self) {
        self.services().demand.sync();
    }

    /// Asks the flusher to flush soon. Does not block.
    pub fn demand_flush(&self) {
        self.services().demand.flush();
    }

    /// Returns why nothing more will become durable, or `None` if the engine is healthy. The
    /// reasons are: this process is a fork, the engine is closing or has failed, or the changes of
    /// the vBucket cannot be flushed.
    #[must_use]
    pub fn health_error(&self) -> Option<Error> {
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
