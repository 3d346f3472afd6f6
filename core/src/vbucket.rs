//! One vBucket in memory: its lock, what the lock guards, and how far it is durable.
//!
//! # Protocol
//! What [`VbInner`] has is read and changed under the cell's lock. The four atomic fields beside it are
//! read without it by whoever looks; they are changed with the lead of the flush only, or under the lock.
//!
//! - `persisted` and `synced` are raised by the leader, after the write they speak of has returned.
//!   `persisted` is stored under the lock, together with the state that it is of; `synced`, which nothing
//!   under the lock belongs to, is stored before the lock is taken. Either way the publisher looks for
//!   watches under the lock and after it has stored, and [`VbCell::watch`] looks and registers under the
//!   same lock. If the publisher comes first, the watcher finds what was published; if the watcher does,
//!   the publisher finds the watch: no wake-up is lost.
//! - `generation` is changed by a deletion, under the lock: first, and then both seqnos are set back to 0.
//!   So whoever reads one of them and *then* finds the generation unchanged has read it of that
//!   generation.
//! - `is_branch_due` changes once, from true to false, under the lock and after the branch is on disk.
//!   A writer that still reads true comes for the lead and looks again; one that reads false goes on, and
//!   a seqno is assigned under the lock.
//! - A stream is admitted, joins memory and reads it under the lock: no failover entry, no purge and
//!   no deletion comes in between, and what is announced from memory is sealed before the lock is
//!   given back. Its admission registers it as a reader in the same critical section;
//!   `core/src/readers.rs` says what that is for.
//! - A stream that accepts changes from memory is shown sealed checkpoints only. Sealing at each of
//!   its reads would end group commit and de-duplication, so such streams seal the open checkpoint at
//!   most once in a flush interval, all of a vBucket's together; otherwise they wait until a flush
//!   seals it, which is at most a flush interval later. Whoever seals for a flush fires the watches.
//! - Wakers are called after the lock is released.
//! - `core/src/branch.rs` says how a branch that is due begins.

use crate::branch::PendingBranch;
use crate::checkpoint::{Checkpoints, CursorId, CursorLag, MemoryRead, NotInMemory, ReadLimit};
use crate::failover_log::FailoverLog;
use crate::filter::FilterDigest;
use crate::ids::{Cas, Seqno, VbId, VbUuid};
use crate::lock_order::LockRank;
use crate::progress::StreamProgress;
use crate::readers::{ConsumerActivity, ReaderRegistration, Readers};
use crate::record::VbState;
use crate::resume::{InvalidPosition, Position, ResumeDecision, check_end, check_position, decide};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering};
use crate::watches::{FiredWatches, Watches};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// How durable a change must be before a stream delivers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Synced: no crash takes it back.
    #[default]
    Synced,
    /// In RocksDB's log: a power cut may take it back.
    Persisted,
    /// In memory: any crash may take it back.
    Memory,
}

impl Visibility {
    /// Every value, the most durable first.
    pub const ALL: [Self; 3] = [Self::Synced, Self::Persisted, Self::Memory];

    /// Returns its place in [`Self::ALL`].
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Synced => 0,
            Self::Persisted => 1,
            Self::Memory => 2,
        }
    }
}

/// Why a generation of a vBucket, with all it held, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerationEnd {
    /// The vBucket was deleted.
    Deleted,
}

/// The vBucket was deleted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbDeleted;

/// One vBucket inside an engine.
#[derive(Debug)]
pub struct VbCell {
    /// Which one.
    pub id: VbId,
    persisted: AtomicU64,
    synced: AtomicU64,
    /// Counts deletions since the engine was opened.
    generation: AtomicU64,
    /// A branch has to begin before the next change. Once false it stays so; changed under the lock.
    is_branch_due: AtomicBool,
    lock: Mutex<VbInner>,
}

/// What a vBucket's lock guards.
#[derive(Debug)]
pub struct VbInner {
    /// The changes in memory.
    pub checkpoints: Checkpoints,
    /// As of the last flush.
    pub state: VbState,
    /// The branches of its history.
    pub failover_log: FailoverLog,
    /// The largest CAS given out.
    pub max_cas: Cas,
    /// The streams in progress of this generation.
    pub readers: Arc<Readers>,
    /// Why the generation before this one ended; `None` for the first since the engine was opened.
    pub generation_end: Option<GenerationEnd>,
    /// Whether the vBucket is on the dirty list.
    pub is_dirty: bool,
    /// The branch that is being written.
    pending_branch: Option<PendingBranch>,
    watches: Watches,
    /// From when on a follower that accepts unsynced changes may seal the open checkpoint, on the
    /// engine's monotonic clock.
    follower_seal_due: Duration,
}

/// Wakers to be called once no lock is held.
#[derive(Debug, Default)]
#[must_use = "call `wake` after the lock is released"]
pub struct FiredWakers(Vec<FiredWatches>);

impl FiredWakers {
    /// Returns how many watches fired.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(FiredWatches::len).sum()
    }

    /// Returns whether none fired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the watches of another call, to be woken together.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// Calls the wakers. A panic in one of them is caught: the others are still called, and the
    /// caller does not notice.
    pub fn wake(self) {
        for waker in self.0.into_iter().flat_map(FiredWatches::into_wakers) {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
    }
}

/// When a stream reads from memory, and how often such streams may seal the open checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct SealTime {
    /// The engine's monotonic clock.
    pub now: Duration,
    /// The flush interval.
    pub interval: Duration,
}

/// Where a stream that may go on begins; if it has a cursor it never needs the disk.
#[derive(Clone, Copy, Debug)]
pub struct AdmittedStart {
    /// Where it begins.
    pub progress: StreamProgress,
    /// Which life of the vBucket it is of.
    pub generation: u64,
    /// Its place in memory, if memory holds everything above its position.
    pub cursor: Option<CursorId>,
}

/// What came of a request for a stream.
#[derive(Debug)]
pub enum Admission {
    /// It goes on, and is a reader of the vBucket until the guard is dropped.
    Admitted {
        /// Where it begins.
        start: AdmittedStart,
        /// Keeps it registered.
        reader: ReaderRegistration,
    },
    /// The consumer must go back first.
    Refused(ResumeDecision),
}

impl VbCell {
    /// Returns the cell of a vBucket of which everything is on disk and synced.
    #[must_use]
    pub fn new(id: VbId, state: VbState, failover_log: FailoverLog) -> Self {
        Self {
            id,
            persisted: AtomicU64::new(state.high_seqno.get()),
            synced: AtomicU64::new(state.high_seqno.get()),
            generation: AtomicU64::new(0),
            is_branch_due: AtomicBool::new(false),
            lock: Mutex::new(
                LockRank::VBucket,
                VbInner {
                    checkpoints: Checkpoints::new(state.high_seqno),
                    max_cas: state.max_cas,
                    state,
                    failover_log,
                    readers: Readers::new(),
                    generation_end: None,
                    is_dirty: false,
                    pending_branch: None,
                    watches: Watches::default(),
                    follower_seal_due: Duration::ZERO,
                },
            ),
        }
    }

    /// Marks that a branch has to begin before the next change.
    #[must_use]
    pub fn with_branch_due(self) -> Self {
        self.is_branch_due.store(true, Ordering::Release);
        self
    }

    /// Returns whether a branch has to begin before the next change. Takes no lock. Once it has
    /// returned false it always does.
    #[must_use]
    pub fn is_branch_due(&self) -> bool {
        self.is_branch_due.load(Ordering::Acquire)
    }

    /// Returns what has to be written, in one synced batch, to begin the branch that is due, and
    /// remembers it until [`Self::publish_branch`]; `None` if none is due. `uuid` names the branch,
    /// unless an attempt that failed has named it already. Called with the lead.
    ///
    /// # Panics
    /// When a change was assigned before its branch began.
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
            "a change of {} before its branch",
            self.id
        );
        let log = inner.failover_log.clone();
        let pending = inner.pending_branch.get_or_insert_with(|| {
            let max_cas = max_cas.above_lost(cas_reserved);
            PendingBranch::new(uuid, state.high_seqno, log, unclean_stops, max_cas)
        });
        Some((pending.state(state), pending.failover_log().clone()))
    }

    /// The branch that was prepared is on disk and synced. Called with the lead.
    pub fn publish_branch(&self) {
        self.apply_pending_branch(&mut self.lock());
    }

    fn apply_pending_branch(&self, inner: &mut VbInner) {
        let Some(pending_branch) = inner.pending_branch.take() else {
            // A stream that saw it on disk was first.
            return;
        };
        inner.state = pending_branch.state(inner.state);
        inner.max_cas = inner.state.max_cas;
        inner.failover_log = pending_branch.into_failover_log();
        self.is_branch_due.store(false, Ordering::Release);
    }

    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, VbInner> {
        self.lock.lock()
    }

    /// Returns which life of the vBucket this is.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns up to where it is in RocksDB's log.
    #[must_use]
    pub fn persisted(&self) -> Seqno {
        Seqno::new(self.persisted.load(Ordering::Acquire))
    }

    /// Returns up to where it is synced.
    #[must_use]
    pub fn synced(&self) -> Seqno {
        Seqno::new(self.synced.load(Ordering::Acquire))
    }

    /// Refuses if the vBucket was deleted since `generation` was read.
    ///
    /// # Errors
    /// [`VbDeleted`].
    pub fn check_generation(&self, generation: u64) -> Result<(), VbDeleted> {
        if self.generation() == generation {
            Ok(())
        } else {
            Err(VbDeleted)
        }
    }

    /// The checkpoints that the flush took are in RocksDB's log, and `state` describes what is
    /// there now. Called by the leader of the flush, without the lock.
    pub fn publish_persisted(&self, state: VbState) -> FiredWakers {
        let mut inner = self.lock();
        inner.checkpoints.flush_succeeded();
        inner.state = state;
        self.persisted
            .store(state.high_seqno.get(), Ordering::Release);
        inner.fire(self, None)
    }

    /// Everything persisted is synced: the leader alone persists, and has just synced. Called
    /// without the lock.
    pub fn publish_synced(&self) -> FiredWakers {
        self.synced.store(self.persisted().get(), Ordering::Release);
        self.lock().fire(self, None)
    }

    /// Everything up to `seqno` is synced, and perhaps more. Called with the lead, without the lock,
    /// for the generation that `seqno` is of.
    pub fn publish_synced_to(&self, seqno: Seqno) -> FiredWakers {
        self.synced.fetch_max(seqno.get(), Ordering::AcqRel);
        self.lock().fire(self, None)
    }

    /// Wakes everybody who watches, whatever for: the health has changed, or the engine closes.
    pub fn fire_all(&self) -> FiredWakers {
        FiredWakers(self.lock().watches.take_all())
    }

    /// Begins a new life of the vBucket, empty, on a new branch. `inner` is its own lock, held since
    /// before what it held was deleted from disk. Returns what it held, to be dropped after the lock is
    /// released, and the wakers of everybody who watches.
    pub fn begin_generation(
        &self,
        inner: &mut VbInner,
        state: VbState,
        failover_log: FailoverLog,
        end: GenerationEnd,
    ) -> (Checkpoints, FiredWakers) {
        // ORDER: see the module's comment.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.persisted.store(0, Ordering::Release);
        self.synced.store(0, Ordering::Release);
        let forgotten = inner.checkpoints.reset();
        inner.state = state;
        inner.failover_log = failover_log;
        inner.readers = Readers::new();
        inner.generation_end = Some(end);
        inner.max_cas = state.max_cas;
        inner.pending_branch = None;
        self.is_branch_due.store(false, Ordering::Release);
        let fired = FiredWakers(inner.watches.take_all());
        (forgotten, fired)
    }

    /// Returns up to where changes may be delivered to a stream that asks for this. With `now`, what
    /// a follower may seal counts as sealed.
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

    /// Calls `waker` once changes above `above` are as durable as asked, or the vBucket is deleted,
    /// or [`Self::fire_all`] is called. Returns false, and registers nothing, if that is so already.
    /// `now` is the engine's monotonic clock.
    pub fn watch(
        &self,
        generation: u64,
        visibility: Visibility,
        above: Seqno,
        waker: &Waker,
        now: Duration,
    ) -> bool {
        // Cloning and dropping a waker can run a program's own code: never under the lock.
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

    /// Removes a watch; does nothing if it has fired.
    pub fn unwatch(&self, waker: &Waker) {
        let removed = self.lock().watches.remove(waker);
        drop(removed);
    }

    /// Returns how many watches are waiting.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.lock().watches.len()
    }

    /// Answers a request: decides whether the consumer may go on, gives it a cursor if memory serves it
    /// from the start, and registers it as a reader. All in one step, so that neither a failover entry
    /// nor a purge comes in between.
    ///
    /// # Errors
    /// [`InvalidPosition`]: bounds of the position that no consumer can have, or, if the consumer may go on,
    /// an end below its position.
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
        let reader = inner.readers.register(request.seqno, activity);
        Ok(Admission::Admitted { start, reader })
    }

    /// Answers a stream that goes on, from what was taken of it, after its buffers were given back. It
    /// is a reader already, and is not registered again. It has to go back first if something it
    /// needed was removed nevertheless.
    ///
    /// # Errors
    /// [`InvalidPosition`]: bounds of the position that no consumer can have.
    pub fn readmit(
        &self,
        position: &Position,
        filter: FilterDigest,
    ) -> Result<Result<AdmittedStart, ResumeDecision>, InvalidPosition> {
        self.lock().start(self, position, filter, Seqno::MAX)
    }

    /// Returns whether `vb_uuid` is a branch of this life of the vBucket. `vb_uuid` was read from disk:
    /// if it is the branch that is being written, its batch is there, and the branch has begun. Waits
    /// for a deletion that is being written, which has changed the disk but not the generation yet.
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

    /// Gives a stream that has read everything up to `position` a cursor after it.
    ///
    /// # Errors
    /// [`VbDeleted`] if the vBucket was deleted; `Ok(None)` means that memory does not serve it:
    /// the stream reads the disk, which checks what has to be checked.
    pub fn join(&self, generation: u64, position: Seqno) -> Result<Option<CursorId>, VbDeleted> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        Ok(inner.join(position).ok())
    }

    /// Registers a cursor after what is on disk, to keep in memory what comes after the next view of
    /// the disk.
    ///
    /// # Errors
    /// [`VbDeleted`] if the vBucket was deleted.
    pub fn hold_memory(&self, generation: u64) -> Result<CursorId, VbDeleted> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        Ok(inner.checkpoints.register_on_disk())
    }

    /// Takes a cursor away.
    pub fn leave(&self, cursor: CursorId) {
        self.lock().checkpoints.remove_cursor(cursor);
    }

    /// Reads from a cursor what is as durable as asked: the items, the end to announce, and the branch
    /// they are of, in one step. `Ok(None)`: nothing now.
    ///
    /// # Errors
    /// [`VbDeleted`] if the vBucket was deleted.
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
            // What it announces must not change any more.
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

    /// Returns how far a cursor is behind; `None` if it is gone.
    #[must_use]
    pub fn lag(&self, cursor: CursorId) -> Option<CursorLag> {
        self.lock().checkpoints.lag(cursor)
    }

    /// Returns the newest branch of its history.
    #[must_use]
    pub fn vb_uuid(&self) -> VbUuid {
        self.lock().state.uuid
    }
}

impl VbInner {
    /// Decides whether a consumer may go on, and gives it a cursor if memory serves it. `cell` is the
    /// one this belongs to.
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

    /// A cursor behind the purge seqno could miss deletions: such a stream reads the disk first,
    /// where the view says what was purged.
    fn join(&mut self, position: Seqno) -> Result<CursorId, NotInMemory> {
        if position < self.state.purge_seqno {
            return Err(NotInMemory);
        }
        self.checkpoints.register(position)
    }

    /// Takes the watches that are fulfilled now. `cell` is the one this belongs to. Costs the same
    /// however many watches there are, unless some of one visibility are fulfilled and others not.
    ///
    /// `now` is given by a writer that has just appended: followers that may seal it are woken.
    pub fn fire(&mut self, cell: &VbCell, now: Option<Duration>) -> FiredWakers {
        if self.watches.is_empty() {
            return FiredWakers::default();
        }
        let visible = Visibility::ALL.map(|visibility| cell.visible(self, visibility, now));
        FiredWakers(self.watches.take_fulfilled(&visible))
    }
}

// The model checker's locks work in its own tests only.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
mod tests;
