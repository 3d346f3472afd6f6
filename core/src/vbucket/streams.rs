//! What a stream does with its vBucket: it is admitted, joins memory, reads it, and leaves.

use super::{VbCell, VbDeleted, VbInner, Visibility};
use crate::checkpoint::{CursorId, CursorLag, MemoryRead, NotInMemory, ReadLimit};
use crate::filter::FilterDigest;
use crate::ids::{Seqno, VbUuid};
use crate::progress::StreamProgress;
use crate::readers::{ConsumerActivity, ReaderRegistration};
use crate::resume::{InvalidPosition, Position, ResumeDecision, check_end, check_position, decide};
use std::sync::Arc;
use std::time::Duration;

/// The time of a read from memory, and the minimum interval between seals by such reads.
#[derive(Clone, Copy, Debug)]
pub struct SealTime {
    /// The current time on the engine's monotonic clock.
    pub now: Duration,
    /// The flush interval.
    pub interval: Duration,
}

/// The place at which an admitted stream begins.
#[derive(Clone, Copy, Debug)]
pub struct AdmittedStart {
    /// The stream's progress, at its position.
    pub progress: StreamProgress,
    /// The generation of the vBucket that the stream belongs to.
    pub generation: u64,
    /// The stream's cursor, if memory holds everything above its position. Such a stream begins
    /// without reading the disk.
    pub cursor: Option<CursorId>,
}

/// The answer to a request for a stream.
#[derive(Debug)]
pub enum Admission {
    /// The stream may continue, and is a reader of the vBucket until the guard is dropped.
    Admitted {
        /// Where the stream begins.
        start: AdmittedStart,
        /// Keeps the stream registered as a reader.
        reader: ReaderRegistration,
    },
    /// The consumer must roll back first.
    Refused(ResumeDecision),
}

impl VbCell {
    /// Answers a request for a stream. Decides whether the consumer may continue, gives it a cursor
    /// if memory holds everything above its position, and registers it as a reader.
    ///
    /// All of this happens in one critical section, so that no failover entry and no purge comes in
    /// between.
    ///
    /// # Errors
    /// [`InvalidPosition`] if the position has impossible bounds, or if the consumer may continue
    /// but requests an end below its position.
    pub fn admit(
        &self,
        request: &Position,
        filter: FilterDigest,
        end_wanted: Seqno,
        activity: &Arc<ConsumerActivity>,
    ) -> Result<Admission, InvalidPosition> {
        let mut inner = self.lock();
        let start = match inner.start(self, request, filter, end_wanted)? {
            Ok(start) => start,
            Err(answer) => return Ok(Admission::Refused(answer)),
        };
        // Still under the lock, so that no purge decides between the answer and this.
        let reader = inner.readers.register(request.seqno, activity);
        Ok(Admission::Admitted { start, reader })
    }

    /// Answers a paused stream that resumes from what its consumer has taken, after its buffers
    /// were released. It is still registered as a reader, so it is not registered again. It must
    /// roll back if something it needs was removed nevertheless.
    ///
    /// # Errors
    /// [`InvalidPosition`] if the position has impossible bounds.
    pub fn readmit(
        &self,
        position: &Position,
        filter: FilterDigest,
    ) -> Result<Result<AdmittedStart, ResumeDecision>, InvalidPosition> {
        self.lock().start(self, position, filter, Seqno::MAX)
    }

    /// Returns whether `vb_uuid`, read from disk, is a branch of this generation of the vBucket.
    ///
    /// If it is the branch that is being written, its batch is on disk, so the branch is published
    /// first. Blocks while a deletion holds the vBucket's lock: by then it may have changed the
    /// disk but not the generation.
    #[must_use]
    pub fn has_branch(&self, generation: u64, vb_uuid: VbUuid) -> bool {
        let mut inner = self.lock();
        if inner
            .pending_branch
            .as_ref()
            .is_some_and(|b| b.uuid() == vb_uuid)
        {
            self.apply_pending_branch(&mut inner);
        }
        let entries = inner.failover_log.entries();
        self.generation() == generation && entries.iter().any(|entry| entry.uuid == vb_uuid)
    }

    /// Registers a cursor for a stream that has read everything up to `position`. Returns `None` if
    /// memory cannot serve it; the stream reads the disk then, where each view is checked.
    ///
    /// # Errors
    /// [`VbDeleted`] if the vBucket was deleted.
    pub fn join(&self, generation: u64, position: Seqno) -> Result<Option<CursorId>, VbDeleted> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        Ok(inner.join(position).ok())
    }

    /// Registers a cursor after what is on disk, which keeps in memory everything after the next
    /// view of the disk.
    ///
    /// # Errors
    /// [`VbDeleted`] if the vBucket was deleted.
    pub fn hold_memory(&self, generation: u64) -> Result<CursorId, VbDeleted> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        Ok(inner.checkpoints.register_on_disk())
    }

    /// Removes a cursor; does nothing if it is gone.
    pub fn leave(&self, cursor: CursorId) {
        self.lock().checkpoints.remove_cursor(cursor);
    }

    /// Reads from a cursor what is visible. Returns the items, the end to announce and their
    /// branch, all of one moment, or `None` if there is nothing to read now.
    ///
    /// # Errors
    /// [`VbDeleted`] if the vBucket was deleted; [`NotInMemory`] if the cursor was dropped.
    pub fn read(
        &self,
        generation: u64,
        cursor: CursorId,
        progress: &StreamProgress,
        visibility: Visibility,
        limit: ReadLimit,
        seal: SealTime,
    ) -> Result<Result<Option<(MemoryRead, VbUuid)>, NotInMemory>, VbDeleted> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        let owes_nothing = progress.position() >= progress.announced();
        if visibility == Visibility::Memory && owes_nothing && seal.now >= inner.follower_seal_due {
            // Seal before announcing: the announced end must not change any more.
            if inner.checkpoints.seal() {
                inner.follower_seal_due = seal.now.saturating_add(seal.interval);
            }
        }
        let upto = self.visible(&inner, visibility, None);
        let announced = progress.announced();
        let vb_uuid = inner.state.uuid;
        let read = inner
            .checkpoints
            .read(cursor, announced, upto, progress.end_min(), limit);
        Ok(read.map(|read| read.map(|read| (read, vb_uuid))))
    }

    /// Returns how far a cursor is behind, or `None` if it is gone.
    #[must_use]
    pub fn lag(&self, cursor: CursorId) -> Option<CursorLag> {
        self.lock().checkpoints.lag(cursor)
    }
}

impl VbInner {
    /// Decides whether a consumer may continue, and gives it a cursor if memory can serve it.
    /// `cell` owns this state.
    fn start(
        &mut self,
        cell: &VbCell,
        request: &Position,
        filter: FilterDigest,
        end_wanted: Seqno,
    ) -> Result<Result<AdmittedStart, ResumeDecision>, InvalidPosition> {
        check_position(request)?;
        let (high, purge) = (self.checkpoints.high_seqno(), self.state.purge_seqno);
        let answer = decide(request, filter, &self.failover_log, high, purge);
        if answer != ResumeDecision::Continue {
            return Ok(Err(answer));
        }
        check_end(request, end_wanted)?;
        let progress = StreamProgress::new(request, self.state.uuid, purge, end_wanted);
        let cursor = self.join(progress.position()).ok();
        Ok(Ok(AdmittedStart {
            progress,
            generation: cell.generation(),
            cursor,
        }))
    }

    /// Registers a cursor for a stream at `position`.
    ///
    /// Refuses a position below the purge seqno, as memory could miss deletions there. Such a
    /// stream reads the disk first, where the view says what was purged.
    fn join(&mut self, position: Seqno) -> Result<CursorId, NotInMemory> {
        if position < self.state.purge_seqno {
            return Err(NotInMemory);
        }
        self.checkpoints.register(position)
    }
}
