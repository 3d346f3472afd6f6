//! One vBucket in memory: its lock, what the lock guards, and how far it is durable.
//!
//! # Protocol
//! Everything but the two published seqnos is read and changed under the cell's lock.
//!
//! - `persisted` and `synced` are raised by whoever leads the flush, after the write they speak of
//!   has returned: stored first, then the lock is taken and the watches they fulfil are fired.
//!   [`VbCell::watch`] looks and registers under the same lock. So either the publisher finds the
//!   watch, or the watcher finds what was published: no wake-up is lost.
//! - A deletion stores `generation` first and then sets both back to 0, so whoever reads one of them
//!   and *then* finds the generation unchanged has read it of that generation.
//! - A stream is admitted, joins memory and reads it under the lock: no failover entry, no purge and
//!   no deletion comes in between, and what is announced from memory is sealed before the lock is
//!   given back.
//! - Wakers are called after the lock is given back.

use crate::checkpoint::{Checkpoints, CursorId, CursorLag, MemoryRead, NotInMemory, ReadLimit};
use crate::failover_log::FailoverLog;
use crate::ids::{Cas, Seqno, VbId, VbUuid};
use crate::lock_order::Rank;
use crate::progress::Progress;
use crate::record::VbState;
use crate::resume::{Position, Resume, decide};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

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

/// Why a generation of a vBucket, with all it held, came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerationEnd {
    /// The vBucket was deleted.
    Deleted,
}

/// The vBucket was deleted since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// One vBucket inside an engine.
#[derive(Debug)]
pub struct VbCell {
    /// Which one.
    pub id: VbId,
    persisted: AtomicU64,
    synced: AtomicU64,
    /// Counts deletions since the engine was opened.
    generation: AtomicU64,
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
    /// Why the generation before this one ended; `None` for the first since the engine was opened.
    pub generation_end: Option<GenerationEnd>,
    /// Whether the vBucket is on the dirty list.
    pub is_dirty: bool,
    watches: Vec<Watch>,
}

#[derive(Debug)]
struct Watch {
    visibility: Visibility,
    above: Seqno,
    waker: Waker,
}

/// Wakers to be called once no lock is held.
#[derive(Debug, Default)]
#[must_use = "call `wake` after the lock is given back"]
pub struct Fired(Vec<Waker>);

impl Fired {
    /// Returns whether there is nobody to wake.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls them. A waker can be a program's own code: if it panics, the others are called all the
    /// same, and the caller, which may be the leader of a flush, does not notice.
    pub fn wake(self) {
        for waker in self.0 {
            drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));
        }
    }
}

/// What came of a request for a stream.
#[derive(Clone, Copy, Debug)]
pub enum Admission {
    /// It goes on from here; if it has a cursor it never needs the disk.
    Admitted {
        /// Where it begins.
        progress: Progress,
        /// Which life of the vBucket it is of.
        generation: u64,
        /// Its place in memory, if memory holds everything above its position.
        cursor: Option<CursorId>,
    },
    /// The consumer must go back first.
    Refused(Resume),
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
            lock: Mutex::new(
                Rank::VBucket,
                VbInner {
                    checkpoints: Checkpoints::new(state.high_seqno),
                    max_cas: state.max_cas,
                    state,
                    failover_log,
                    generation_end: None,
                    is_dirty: false,
                    watches: Vec::new(),
                },
            ),
        }
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
    /// [`Gone`].
    pub fn check_generation(&self, generation: u64) -> Result<(), Gone> {
        if self.generation() == generation {
            Ok(())
        } else {
            Err(Gone)
        }
    }

    /// The checkpoints that the flush took are in RocksDB's log, and `state` describes what is
    /// there now. Called by the leader of the flush, without the lock.
    pub fn publish_persisted(&self, state: VbState) -> Fired {
        let mut inner = self.lock();
        inner.checkpoints.flush_succeeded();
        inner.state = state;
        self.persisted
            .store(state.high_seqno.get(), Ordering::Release);
        inner.fire(self)
    }

    /// Everything persisted is synced: the leader alone persists, and has just synced. Called
    /// without the lock.
    pub fn publish_synced(&self) -> Fired {
        self.synced.store(self.persisted().get(), Ordering::Release);
        self.lock().fire(self)
    }

    /// Everything up to `seqno` is synced, and perhaps more. Called with the lead, without the lock,
    /// for the generation that `seqno` is of.
    pub fn publish_synced_to(&self, seqno: Seqno) -> Fired {
        self.synced.fetch_max(seqno.get(), Ordering::AcqRel);
        self.lock().fire(self)
    }

    /// Wakes everybody who watches, whatever for: the health has changed, or the engine closes.
    pub fn fire_all(&self) -> Fired {
        let watches = std::mem::take(&mut self.lock().watches);
        Fired(watches.into_iter().map(|watch| watch.waker).collect())
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
    ) -> (Checkpoints, Fired) {
        // ORDER: see the module's comment.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.persisted.store(0, Ordering::Release);
        self.synced.store(0, Ordering::Release);
        let forgotten = inner.checkpoints.reset();
        inner.state = state;
        inner.failover_log = failover_log;
        inner.generation_end = Some(end);
        let watches = std::mem::take(&mut inner.watches);
        let fired = Fired(watches.into_iter().map(|watch| watch.waker).collect());
        (forgotten, fired)
    }

    /// Returns up to where changes may be delivered to a stream that asks for this.
    fn visible(&self, inner: &VbInner, visibility: Visibility) -> Seqno {
        match visibility {
            Visibility::Synced => self.synced(),
            Visibility::Persisted => self.persisted(),
            Visibility::Memory => inner.checkpoints.high_seqno(),
        }
    }

    /// Calls `waker` once changes above `above` are as durable as asked, or the vBucket is deleted,
    /// or [`Self::fire_all`] is called. Returns false, and registers nothing, if that is so already.
    pub fn watch(
        &self,
        generation: u64,
        visibility: Visibility,
        above: Seqno,
        waker: &Waker,
    ) -> bool {
        // Cloning and dropping a waker can run a program's own code: never under the lock.
        let watch = Watch {
            visibility,
            above,
            waker: waker.clone(),
        };
        let mut inner = self.lock();
        if self.generation() != generation || self.visible(&inner, visibility) > above {
            drop(inner);
            return false;
        }
        // One waker needs one watch: the newest.
        let place = inner.watches.iter().position(|w| w.waker.will_wake(waker));
        let replaced = place.map(|at| inner.watches.remove(at));
        inner.watches.push(watch);
        drop(inner);
        drop(replaced);
        true
    }

    /// Takes a watch away; nothing happens if it has fired.
    pub fn unwatch(&self, waker: &Waker) {
        let mut inner = self.lock();
        let place = inner.watches.iter().position(|w| w.waker.will_wake(waker));
        let watch = place.map(|at| inner.watches.swap_remove(at));
        drop(inner);
        drop(watch);
    }

    /// Returns how many watches are waiting.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.lock().watches.len()
    }

    /// Answers a request: decides whether the consumer may go on, and gives it a cursor if memory
    /// serves it from the start. All in one step, so that no failover entry comes in between.
    #[must_use]
    pub fn admit(&self, request: &Position, end_wanted: Seqno) -> Admission {
        let mut inner = self.lock();
        let (high, purge) = (inner.checkpoints.high_seqno(), inner.state.purge_seqno);
        let answer = decide(request, &inner.failover_log, high, purge);
        if answer != Resume::Continue {
            return Admission::Refused(answer);
        }
        let progress = Progress::new(request, inner.state.uuid, purge, end_wanted);
        let cursor = inner.join(progress.position()).ok();
        Admission::Admitted {
            progress,
            generation: self.generation(),
            cursor,
        }
    }

    /// Gives a stream that has read everything up to `position` a cursor after it.
    ///
    /// # Errors
    /// [`Gone`] if the vBucket was deleted; `Ok(None)` means that memory does not serve it: the
    /// stream reads the disk, which checks what has to be checked.
    pub fn join(&self, generation: u64, position: Seqno) -> Result<Option<CursorId>, Gone> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        Ok(inner.join(position).ok())
    }

    /// Registers a cursor after what is on disk, to keep in memory what comes after the next view of
    /// the disk.
    ///
    /// # Errors
    /// [`Gone`] if the vBucket was deleted.
    pub fn hold_memory(&self, generation: u64) -> Result<CursorId, Gone> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        inner.checkpoints.register_on_disk().map_err(|_| Gone)
    }

    /// Takes a cursor away.
    pub fn leave(&self, cursor: CursorId) {
        self.lock().checkpoints.remove_cursor(cursor);
    }

    /// Reads from a cursor what is as durable as asked: the items and the end to announce, in one
    /// step. `Ok(None)`: nothing now.
    ///
    /// # Errors
    /// [`Gone`] if the vBucket was deleted.
    pub fn read(
        &self,
        generation: u64,
        cursor: CursorId,
        progress: &Progress,
        visibility: Visibility,
        limit: ReadLimit,
    ) -> Result<Result<Option<MemoryRead>, NotInMemory>, Gone> {
        let mut inner = self.lock();
        self.check_generation(generation)?;
        if visibility == Visibility::Memory && progress.position() >= progress.announced() {
            // What it announces must not change any more.
            inner.checkpoints.seal();
        }
        let upto = self.visible(&inner, visibility);
        let announced = progress.announced();
        Ok(inner
            .checkpoints
            .read(cursor, announced, upto, progress.end_min(), limit))
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
    /// A cursor behind the purge seqno could miss deletions: such a stream reads the disk first,
    /// where the view says what was purged.
    fn join(&mut self, position: Seqno) -> Result<CursorId, NotInMemory> {
        if position < self.state.purge_seqno {
            return Err(NotInMemory);
        }
        self.checkpoints.register(position)
    }

    /// Takes the watches that are fulfilled now. `cell` is the one this belongs to.
    pub fn fire(&mut self, cell: &VbCell) -> Fired {
        if self.watches.is_empty() {
            return Fired::default();
        }
        let watches = std::mem::take(&mut self.watches);
        let (fired, waiting) = watches
            .into_iter()
            .partition(|watch| cell.visible(self, watch.visibility) > watch.above);
        self.watches = waiting;
        Fired(fired.into_iter().map(|watch| watch.waker).collect())
    }
}
