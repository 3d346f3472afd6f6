//! One vBucket in memory: its lock, the state under the lock, and how far it is durable.
//!
//! # Protocol
//! [`VbInner`] is read and changed under the cell's lock. The four atomic fields beside it are read
//! without the lock. They are changed only with the flush lead or under the lock.
//!
//! - The leader raises `persisted` and `synced` after the write or the sync has returned. It stores
//!   `persisted` under the lock, with the state that belongs to it, and `synced` before it takes
//!   the lock, as nothing under the lock belongs to that.
//! - No wake-up is lost. A publisher stores the seqno and then looks for watches under the lock;
//!   [`VbCell::watch`] looks at the seqno and registers under the same lock. Either the publisher
//!   is first, and the watcher finds the new seqno, or the publisher finds the watch.
//! - A deletion changes `generation` under the lock, and then sets both seqnos to 0. So a thread
//!   that reads a seqno and *then* finds the generation unchanged has a seqno of that generation.
//! - `is_branch_due` changes once, from true to false, under the lock and after the branch is on
//!   disk. A writer that still reads true takes the lead and looks again. One that reads false
//!   continues, and a seqno is assigned under the lock.
//! - A stream is admitted, joins memory and reads memory under the lock. So no failover entry,
//!   purge or deletion comes in between, and what it announces from memory is sealed before the
//!   lock is released. Its admission also registers it as a reader; `core/src/readers.rs` says why.
//! - A stream that accepts changes from memory sees sealed checkpoints only. Sealing at each of its
//!   reads would end group commit and de-duplication. So such streams seal the open checkpoint at
//!   most once in a flush interval, all streams of a vBucket together. Otherwise they wait for a
//!   flush to seal it, at most one flush interval later. The thread that seals for a flush fires
//!   the watches.
//! - Wakers are called after the lock is released.
//! - `core/src/branch.rs` says how a due branch begins.

use crate::branch::Beginning;
use crate::checkpoint::{Checkpoints, CursorId, CursorLag, MemoryRead, NotInMemory, ReadLimit};
use crate::failover_log::FailoverLog;
use crate::filter::FilterDigest;
use crate::ids::{Cas, Seqno, VbId, VbUuid};
use crate::lock_order::Rank;
use crate::progress::Progress;
use crate::readers::{ReaderGuard, Readers, Taker};
use crate::record::VbState;
use crate::resume::{Malformed, Position, Resume, check_end, check_position, decide};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::watches::{FiredWatches, Watches};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// How durable a change must be before a stream delivers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Synced: no crash takes the change back.
    #[default]
    Synced,
    /// In RocksDB's log: a power cut may take the change back.
    Persisted,
    /// In memory: any crash may take the change back.
    Memory,
}

impl Visibility {
    /// Every value, the most durable first.
    pub const ALL: [Self; 3] = [Self::Synced, Self::Persisted, Self::Memory];

    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Synced => 0,
            Self::Persisted => 1,
            Self::Memory => 2,
        }
    }
}

/// Why a generation of a vBucket ended, with all its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerationEnd {
    /// The vBucket was deleted.
    Deleted,
}

/// The error when the vBucket was deleted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// One vBucket of an open engine.
#[derive(Debug)]
pub struct VbCell {
    /// The id of the vBucket.
    pub id: VbId,
    persisted: AtomicU64,
    synced: AtomicU64,
    /// Number of deletions since the engine was opened.
    generation: AtomicU64,
    /// Whether a branch must begin before the next change. Changed once, to false, under the lock.
    is_branch_due: AtomicBool,
    lock: Mutex<VbInner>,
}

/// The state that a vBucket's lock guards.
#[derive(Debug)]
pub struct VbInner {
    /// The recent changes in memory.
    pub checkpoints: Checkpoints,
    /// The state record as of the last flush.
    pub state: VbState,
    /// The branches of the vBucket's history.
    pub failover_log: FailoverLog,
    /// The largest CAS assigned.
    pub max_cas: Cas,
    /// The streams in progress of this generation.
    pub readers: Arc<Readers>,
    /// Why the previous generation ended; `None` in the first one since the engine was opened.
    pub generation_end: Option<GenerationEnd>,
    /// Whether the vBucket is on the dirty list.
    pub is_dirty: bool,
    /// The branch that is prepared and not published yet.
    beginning: Option<Beginning>,
    watches: Watches,
    /// The earliest time at which a follower that accepts unsynced changes may seal the open
    /// checkpoint, on the engine's monotonic clock.
    follower_seal_due: Duration,
}

/// The wakers of watches that fired, to be called when no lock is held.
#[derive(Debug, Default)]
#[must_use = "call `wake` after the lock is released"]
pub struct Fired(Vec<FiredWatches>);

impl Fired {
    /// Returns the number of watches that fired.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(FiredWatches::len).sum()
    }

    /// Returns whether no watch fired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the watches of another call, so that all are woken together.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Calls the wakers. Catches a panic in one of them, so that the others are still called.
    pub fn wake(self) {
        for waker in self.0.into_iter().flat_map(FiredWatches::into_wakers) {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
    }
}

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
pub struct Start {
    /// The stream's progress, at its position.
    pub progress: Progress,
    /// The generation of the vBucket that the stream belongs to.
    pub generation: u64,
    /// The stream's cursor, if memory holds everything above its position.
    pub cursor: Option<CursorId>,
}

/// The answer to a request for a stream.
#[derive(Debug)]
pub enum Admission {
    /// The stream may continue, and is a reader of the vBucket until the guard is dropped.
    Admitted {
        /// Where the stream begins.
        start: Start,
        /// Keeps the stream registered as a reader.
        reader: ReaderGuard,
    },
    /// The consumer must roll back first.
    Refused(Resume),
}

impl VbCell {
    /// Returns the cell of a vBucket whose changes are all on disk and synced.
    #[must_use]
    pub fn new(id: VbId, state: VbState, failover_log: FailoverLog) -> Self {
        Self {
            id,
            persisted: AtomicU64::new(state.high_seqno.get()),
            synced: AtomicU64::new(state.high_seqno.get()),
            generation: AtomicU64::new(0),
            is_branch_due: AtomicBool::new(false),
            lock: Mutex::new(
                Rank::VBucket,
                VbInner {
                    checkpoints: Checkpoints::new(state.high_seqno),
                    max_cas: state.max_cas,
                    state,
                    failover_log,
                    readers: Readers::new(),
                    generation_end: None,
                    is_dirty: false,
                    beginning: None,
                    watches: Watches::default(),
                    follower_seal_due: Duration::ZERO,
                },
            ),
        }
    }

    /// Marks that a branch must begin before the next change.
    #[must_use]
    pub fn with_branch_due(self) -> Self {
        self.is_branch_due.store(true, Ordering::Release);
        self
    }

    /// Returns whether a branch must begin before the next change. Takes no lock. False is final.
    #[must_use]
    pub fn is_branch_due(&self) -> bool {
        self.is_branch_due.load(Ordering::Acquire)
    }

    /// Prepares the branch that is due and keeps it until [`Self::publish_branch`]. Returns the
    /// records to write in one synced batch, or `None` if no branch is due. `uuid` names the
    /// branch, unless a failed attempt has named it already. Called with the flush lead.
    ///
    /// # Panics
    /// Panics if a change was assigned before the branch began.
    #[must_use]
    pub fn prepare_branch(
        &self,
        uuid: VbUuid,
        unclean_stops: u64,
        cas_reserved: Cas,
    ) -> Option<(VbState, FailoverLog)> {
        let mut inner = self.lock();
        if !self.is_branch_due() {
            return None;
        }
        let (state, max_cas) = (inner.state, inner.max_cas);
        assert_eq!(
            inner.checkpoints.high_seqno(),
            state.high_seqno,
            "a change of {} was assigned before its branch began",
            self.id
        );
        let log = inner.failover_log.clone();
        let beginning = inner.beginning.get_or_insert_with(|| {
            let max_cas = max_cas.above_lost(cas_reserved);
            Beginning::new(uuid, state.high_seqno, log, unclean_stops, max_cas)
        });
        Some((beginning.state(state), beginning.failover_log().clone()))
    }

    /// Begins the prepared branch in memory. Called with the flush lead, after its batch is synced.
    pub fn publish_branch(&self) {
        self.apply_beginning(&mut self.lock());
    }

    fn apply_beginning(&self, inner: &mut VbInner) {
        let Some(beginning) = inner.beginning.take() else {
            // Nothing is left to do: a stream that saw the branch on disk has published it.
            return;
        };
        inner.state = beginning.state(inner.state);
        inner.max_cas = inner.state.max_cas;
        inner.failover_log = beginning.into_failover_log();
        self.is_branch_due.store(false, Ordering::Release);
    }

    /// Locks the vBucket, blocking until the lock is free.
    pub fn lock(&self) -> MutexGuard<'_, VbInner> {
        self.lock.lock()
    }

    /// Returns the current generation: the number of deletions since the engine was opened.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the seqno up to which everything is in RocksDB's log.
    #[must_use]
    pub fn persisted(&self) -> Seqno {
        Seqno::new(self.persisted.load(Ordering::Acquire))
    }

    /// Returns the seqno up to which everything is synced.
    #[must_use]
    pub fn synced(&self) -> Seqno {
        Seqno::new(self.synced.load(Ordering::Acquire))
    }

    /// Checks that the vBucket was not deleted since `generation` was read.
    ///
    /// # Errors
    /// [`Gone`] if it was deleted.
    pub fn check_generation(&self, generation: u64) -> Result<(), Gone> {
        if self.generation() == generation {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    /// Publishes that the checkpoints of the flush are in RocksDB's log, and that `state` describes
    /// what is there now. Called by the flush leader, without the lock.
    pub fn publish_persisted(&self, state: VbState) -> Fired {
        let mut inner = self.lock();
        inner.checkpoints.flush_succeeded();
        inner.state = state;
        self.persisted
            .store(state.high_seqno.get(), Ordering::Release);
        inner.fire(self, None)
    }

    /// Publishes that everything persisted is synced. That is exact: only the caller, the flush
    /// leader, persists changes, and it has just synced. Called without the lock.
    pub fn publish_synced(&self) -> Fired {
        self.synced.store(self.persisted().get(), Ordering::Release);
        self.lock().fire(self, None)
    }

    /// Publishes that everything up to `seqno` is synced, and perhaps more. Called with the flush
    /// lead, without the lock, for the generation that `seqno` belongs to.
    pub fn publish_synced_to(&self, seqno: Seqno) -> Fired {
        self.synced.fetch_max(seqno.get(), Ordering::AcqRel);
        self.lock().fire(self, None)
    }

    /// Takes out every watch, because the health has changed or the engine closes.
    pub fn fire_all(&self) -> Fired {
        Fired(self.lock().watches.take_all())
    }

    /// Begins a new, empty generation of the vBucket on a new branch. `inner` is the state of this
    /// cell; the caller has held the lock since before it deleted the contents from disk. Returns
    /// the previous contents, to be dropped after the lock is released, and every watch.
    pub fn begin_generation(
        &self,
        inner: &mut VbInner,
        state: VbState,
        failover_log: FailoverLog,
        end: GenerationEnd,
    ) -> (Checkpoints, Fired) {
        // ORDER: the generation before the seqnos, as the module documentation explains.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.persisted.store(0, Ordering::Release);
        self.synced.store(0, Ordering::Release);
        let discarded = inner.checkpoints.reset();
        inner.state = state;
        inner.failover_log = failover_log;
        // Streams of the old generation keep the old list and do not count for this one.
        inner.readers = Readers::new();
        inner.generation_end = Some(end);
        inner.max_cas = state.max_cas;
        inner.beginning = None;
        self.is_branch_due.store(false, Ordering::Release);
        let fired = Fired(inner.watches.take_all());
        (discarded, fired)
    }

    /// Returns the seqno up to which changes may be delivered to a stream with this visibility.
    /// With `now`, changes that a follower may seal at that time count as sealed.
    fn visible(&self, inner: &VbInner, visibility: Visibility, now: Option<Duration>) -> Seqno {
        match visibility {
            Visibility::Synced => self.synced(),
            Visibility::Persisted => self.persisted(),
            Visibility::Memory if now.is_some_and(|now| now >= inner.follower_seal_due) => {
                inner.checkpoints.high_seqno()
            }
            Visibility::Memory => inner.checkpoints.sealed_end(),
        }
    }

    /// Registers `waker` to be called when a change above `above` becomes visible, when the vBucket
    /// is deleted, and by [`Self::fire_all`]. Returns false, and registers nothing, if such a
    /// change is visible or the vBucket was deleted already. `now` is the time on the engine's
    /// monotonic clock.
    pub fn watch(
        &self,
        generation: u64,
        visibility: Visibility,
        above: Seqno,
        waker: &Waker,
        now: Duration,
    ) -> bool {
        // Cloning or dropping a waker can run the embedder's code: never under the lock.
        let waker = waker.clone();
        let mut inner = self.lock();
        if self.generation() != generation || self.visible(&inner, visibility, Some(now)) > above {
            drop(inner);
            return false;
        }
        let replaced = inner.watches.add(visibility, above, waker);
        drop(inner);
        drop(replaced);
        true
    }

    /// Removes the watch of `waker`; does nothing if it has fired.
    pub fn unwatch(&self, waker: &Waker) {
        let removed = self.lock().watches.remove(waker);
        drop(removed);
    }

    /// Returns the number of watches.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.lock().watches.len()
    }

    /// Answers a request for a stream: decides whether the consumer may continue, gives it a cursor
    /// if memory serves it, and registers it as a reader. All of this is one critical section, so
    /// that no failover entry and no purge comes in between.
    ///
    /// # Errors
    /// [`Malformed`] if the position has impossible bounds, or if the consumer may continue but
    /// requests an end below its position.
    pub fn admit(
        &self,
        request: &Position,
        filter: FilterDigest,
        end_wanted: Seqno,
        taker: &Arc<Taker>,
    ) -> Result<Admission, Malformed> {
        let mut inner = self.lock();
        let start = match inner.start(self, request, filter, end_wanted)? {
            Ok(start) => start,
            Err(answer) => return Ok(Admission::Refused(answer)),
        };
        // Still under the lock, so that no purge decides between the answer and this.
        let reader = inner.readers.register(request.seqno, taker);
        Ok(Admission::Admitted { start, reader })
    }

    /// Answers a paused stream that resumes from what its consumer has taken, after its buffers
    /// were released. It is still registered as a reader, so it is not registered again. It must
    /// roll back if something it needs was removed nevertheless.
    ///
    /// # Errors
    /// [`Malformed`] if the position has impossible bounds.
    pub fn readmit(
        &self,
        position: &Position,
        filter: FilterDigest,
    ) -> Result<Result<Start, Resume>, Malformed> {
        self.lock().start(self, position, filter, Seqno::MAX)
    }

    /// Returns whether `vb_uuid`, read from disk, is a branch of this generation of the vBucket. If
    /// it is the branch that is being written, its batch is on disk, so the branch is published
    /// first. Blocks while a deletion holds the lock: it may have changed the disk, but not yet the
    /// generation.
    #[must_use]
    pub fn has_branch(&self, generation: u64, vb_uuid: VbUuid) -> bool {
        let mut inner = self.lock();
        if inner
            .beginning
            .as_ref()
            .is_some_and(|b| b.uuid() == vb_uuid)
        {
            self.apply_beginning(&mut inner);
        }
        let entries = inner.failover_log.entries();
        self.generation() == generation && entries.iter().any(|entry| entry.uuid == vb_uuid)
    }

    /// Registers a cursor for a stream that has read everything up to `position`. Returns `None` if
    /// memory cannot serve it; the stream reads the disk then, where each view is checked.
    ///
    /// # Errors
    /// [`Gone`] if the vBucket was deleted.
    pub fn join(&self, generation: u64, position: Seqno) -> Result<Option<CursorId>, Gone> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        Ok(inner.join(position).ok())
    }

    /// Registers a cursor after what is on disk, which keeps in memory everything after the next
    /// view of the disk.
    ///
    /// # Errors
    /// [`Gone`] if the vBucket was deleted.
    pub fn hold_memory(&self, generation: u64) -> Result<CursorId, Gone> {
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
    /// [`Gone`] if the vBucket was deleted; [`NotInMemory`] if the cursor was dropped.
    pub fn read(
        &self,
        generation: u64,
        cursor: CursorId,
        progress: &Progress,
        visibility: Visibility,
        limit: ReadLimit,
        seal: SealTime,
    ) -> Result<Result<Option<(MemoryRead, VbUuid)>, NotInMemory>, Gone> {
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

    /// Returns the newest branch of the vBucket's history.
    #[must_use]
    pub fn vb_uuid(&self) -> VbUuid {
        self.lock().state.uuid
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
    ) -> Result<Result<Start, Resume>, Malformed> {
        check_position(request)?;
        let (high, purge) = (self.checkpoints.high_seqno(), self.state.purge_seqno);
        let answer = decide(request, filter, &self.failover_log, high, purge);
        if answer != Resume::Continue {
            return Ok(Err(answer));
        }
        check_end(request, end_wanted)?;
        let progress = Progress::new(request, self.state.uuid, purge, end_wanted);
        let cursor = self.join(progress.position()).ok();
        Ok(Ok(Start {
            progress,
            generation: cell.generation(),
            cursor,
        }))
    }

    /// Registers a cursor for a stream at `position`. Refuses a position below the purge seqno, as
    /// memory could miss deletions there: such a stream reads the disk first, where the view says
    /// what was purged.
    fn join(&mut self, position: Seqno) -> Result<CursorId, NotInMemory> {
        if position < self.state.purge_seqno {
            return Err(NotInMemory);
        }
        self.checkpoints.register(position)
    }

    /// Takes out the watches that are fulfilled now. `cell` owns this state. The cost does not
    /// depend on the number of watches, unless only some of one visibility are fulfilled. A writer
    /// that has just appended passes `now`, so that followers which may seal its change are woken
    /// too.
    pub fn fire(&mut self, cell: &VbCell, now: Option<Duration>) -> Fired {
        if self.watches.is_empty() {
            return Fired::default();
        }
        let visible = Visibility::ALL.map(|visibility| cell.visible(self, visibility, now));
        Fired(self.watches.take_fulfilled(&visible))
    }
}

// The model checker's locks work only inside its own tests.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
mod tests;
