//! One vBucket in memory: its lock, the state under the lock, and how far it is durable.
//!
//! # Protocol
//! [`VbInner`] is read and changed under the cell's lock. The four atomic fields beside it are read
//! without the lock. They are changed only with the flush lead or under the lock.
//!
//! - The leader raises `persisted` and `synced` after the write or the sync has returned. It stores
//!   `persisted` under the lock, together with the state that belongs to it. It stores `synced`
//!   before it takes the lock, as nothing under the lock belongs to that.
//! - No wake-up is lost. A publisher stores the seqno and then looks for watches under the lock;
//!   [`VbCell::watch`] looks at the seqno and registers under the same lock. If the publisher comes
//!   first, the watcher finds the new seqno. If the watcher comes first, the publisher finds the
//!   watch.
//! - A deletion changes `generation` under the lock: first the generation, and then it sets both
//!   seqnos to 0. So a thread that reads a seqno and *then* finds the generation unchanged has a
//!   seqno of that generation.
//! - `is_branch_due` changes once, from true to false, under the lock and after the branch is on
//!   disk. A writer that still reads true takes the lead and looks again. One that reads false
//!   continues, and a seqno is assigned under the lock.
//! - A stream is admitted, joins memory and reads memory under the lock. So no failover entry,
//!   purge or deletion comes in between, and what it announces from memory is sealed before the
//!   lock is released. Its admission registers it as a reader in the same critical section;
//!   `core/src/readers.rs` says why.
//! - A stream that accepts changes from memory sees sealed checkpoints only. Sealing at each of its
//!   reads would end group commit and de-duplication. So such streams seal the open checkpoint at
//!   most once in a flush interval, all streams of a vBucket together. Otherwise they wait until a
//!   flush seals it, at most one flush interval later. The thread that seals for a flush fires the
//!   watches.
//! - Wakers are called after the lock is released.
//! - `core/src/branch.rs` says how a due branch begins.

mod streams;

pub use streams::{Admission, AdmittedStart, SealTime};

use crate::branch::PendingBranch;
use crate::checkpoint::Checkpoints;
use crate::failover_log::FailoverLog;
use crate::ids::{Cas, Seqno, VbId, VbUuid};
use crate::lock_order::LockRank;
use crate::readers::Readers;
use crate::record::VbState;
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

    /// Returns the index of this value in [`Self::ALL`].
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
pub struct VbDeleted;

/// One vBucket of an open engine.
#[derive(Debug)]
pub struct VbCell {
    /// The id of the vBucket.
    pub id: VbId,
    /// Everything up to this seqno is in RocksDB's log.
    persisted: AtomicU64,
    /// Everything up to this seqno is synced.
    synced: AtomicU64,
    /// Number of deletions since the engine was opened.
    generation: AtomicU64,
    /// Whether a branch must begin before the next change. Changed under the lock; once false it
    /// stays false.
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
    /// The branch that is being written, from [`VbCell::prepare_branch`] until it is published.
    pending_branch: Option<PendingBranch>,
    watches: Watches,
    /// The earliest time at which a follower that accepts unsynced changes may seal the open
    /// checkpoint, on the engine's monotonic clock.
    follower_seal_due: Duration,
}

/// The wakers of watches that fired, to be called when no lock is held.
#[derive(Debug, Default)]
#[must_use = "call `wake` after the lock is released"]
pub struct FiredWakers(Vec<FiredWatches>);

impl FiredWakers {
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

    /// Calls the wakers. Catches a panic in one of them, so that the others are still called and
    /// the caller is not affected.
    pub fn wake(self) {
        for waker in self.0.into_iter().flat_map(FiredWatches::into_wakers) {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
    }
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

    /// Marks that a branch must begin before the next change.
    #[must_use]
    pub fn with_branch_due(self) -> Self {
        self.is_branch_due.store(true, Ordering::Release);
        self
    }

    /// Returns whether a branch must begin before the next change. Takes no lock. Once it has
    /// returned false it always does.
    #[must_use]
    pub fn is_branch_due(&self) -> bool {
        self.is_branch_due.load(Ordering::Acquire)
    }

    /// Prepares the branch that is due, if any, and keeps it until [`Self::publish_branch`].
    /// Returns the records to write in one synced batch, or `None` if no branch is due.
    ///
    /// `uuid` names the branch, unless an earlier attempt that failed has named it already. Called
    /// with the flush lead.
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
        let pending = inner.pending_branch.get_or_insert_with(|| {
            let max_cas = max_cas.above_lost(cas_reserved);
            PendingBranch::new(uuid, state.high_seqno, log, unclean_stops, max_cas)
        });
        Some((pending.state(state), pending.failover_log().clone()))
    }

    /// Begins the prepared branch in memory, after its records are on disk and synced. Called with
    /// the flush lead.
    pub fn publish_branch(&self) {
        self.apply_pending_branch(&mut self.lock());
    }

    fn apply_pending_branch(&self, inner: &mut VbInner) {
        let Some(pending_branch) = inner.pending_branch.take() else {
            // Nothing is left to do: a stream that saw the branch on disk has published it.
            return;
        };
        inner.state = pending_branch.state(inner.state);
        inner.max_cas = inner.state.max_cas;
        inner.failover_log = pending_branch.into_failover_log();
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
    /// [`VbDeleted`] if it was deleted.
    pub fn check_generation(&self, generation: u64) -> Result<(), VbDeleted> {
        if self.generation() == generation {
            Ok(())
        } else {
            Err(VbDeleted)
        }
    }

    /// Publishes that the checkpoints of the flush are in RocksDB's log, and that `state` describes
    /// what is there now. Called by the flush leader, without the lock.
    pub fn publish_persisted(&self, state: VbState) -> FiredWakers {
        let mut inner = self.lock();
        inner.checkpoints.flush_succeeded();
        inner.state = state;
        self.persisted
            .store(state.high_seqno.get(), Ordering::Release);
        inner.fire(self, None)
    }

    /// Publishes that everything persisted is synced. That is exact: only the caller, the flush
    /// leader, persists changes, and it has just synced. Called without the lock.
    pub fn publish_synced(&self) -> FiredWakers {
        self.synced.store(self.persisted().get(), Ordering::Release);
        self.lock().fire(self, None)
    }

    /// Publishes that everything up to `seqno` is synced, and perhaps more. Called with the flush
    /// lead, without the lock, for the generation that `seqno` belongs to.
    pub fn publish_synced_to(&self, seqno: Seqno) -> FiredWakers {
        self.synced.fetch_max(seqno.get(), Ordering::AcqRel);
        self.lock().fire(self, None)
    }

    /// Takes out every watch, whatever it waits for, because the health has changed or the engine
    /// closes.
    pub fn fire_all(&self) -> FiredWakers {
        FiredWakers(self.lock().watches.take_all())
    }

    /// Begins a new generation of the vBucket, empty and on a new branch.
    ///
    /// `inner` is the state under this cell's lock, which the caller has held since before it
    /// deleted the contents from disk. Returns the previous contents, to be dropped after the lock
    /// is released, and every watch.
    pub fn begin_generation(
        &self,
        inner: &mut VbInner,
        state: VbState,
        failover_log: FailoverLog,
        end: GenerationEnd,
    ) -> (Checkpoints, FiredWakers) {
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
        inner.pending_branch = None;
        self.is_branch_due.store(false, Ordering::Release);
        let fired = FiredWakers(inner.watches.take_all());
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

    /// Registers `waker` to be called when a change above `above` becomes visible. It is also
    /// called when the vBucket is deleted and by [`Self::fire_all`].
    ///
    /// Returns false, and registers nothing, if such a change is visible or the vBucket was deleted
    /// already. `now` is the time on the engine's monotonic clock.
    pub fn watch(
        &self,
        generation: u64,
        visibility: Visibility,
        above: Seqno,
        waker: &Waker,
        now: Duration,
    ) -> bool {
        // Cloning or dropping a waker can run the embedder's code, which must not run under the
        // lock.
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

    /// Returns the newest branch of the vBucket's history.
    #[must_use]
    pub fn vb_uuid(&self) -> VbUuid {
        self.lock().state.uuid
    }
}

impl VbInner {
    /// Takes out the watches that are fulfilled now. `cell` owns this state. The cost does not
    /// depend on the number of watches, unless only some of one visibility are fulfilled.
    ///
    /// A writer that has just appended passes `now`, so that followers which may seal its change
    /// are woken too.
    pub fn fire(&mut self, cell: &VbCell, now: Option<Duration>) -> FiredWakers {
        if self.watches.is_empty() {
            return FiredWakers::default();
        }
        let visible = Visibility::ALL.map(|visibility| cell.visible(self, visibility, now));
        FiredWakers(self.watches.take_fulfilled(&visible))
    }
}

// The model checker's locks work only inside its own tests.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
mod tests;
