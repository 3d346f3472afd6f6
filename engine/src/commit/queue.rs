//! Who waits for what, and who leads.

use crate::config::Durability;
use crossbeam::sync::{Parker, Unparker};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::{Clock, Seqno, SystemClock, VbId};

/// What somebody waits for.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// That everything up to a seqno is as durable as this.
    Durable {
        vb: VbId,
        generation: u64,
        seqno: Seqno,
        level: Durability,
    },
    /// That memory is below its quota.
    Room,
    /// The lead.
    Lead,
}

impl Want {
    pub(super) fn wants_sync(&self) -> bool {
        matches!(
            self,
            Self::Durable {
                level: Durability::Synced,
                ..
            }
        )
    }

    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Durable { .. } => "not as durable as asked for within the time allowed",
            Self::Room => "memory quota",
            Self::Lead => "the lead of the flush",
        }
    }
}

const WAITING: u8 = 0;
const WOKEN: u8 = 1;
const LEADS: u8 = 2;

/// A parked thread.
#[derive(Debug)]
pub(super) struct Slot {
    state: AtomicU8,
    unparker: Unparker,
}

thread_local! {
    /// Parking a thread costs an allocation; a thread that writes parks often.
    static PARKER: RefCell<Parker> = RefCell::new(Parker::new());
}

impl Slot {
    fn new() -> Arc<Self> {
        let unparker = PARKER.with_borrow(|parker| parker.unparker().clone());
        Arc::new(Self {
            state: AtomicU8::new(WAITING),
            unparker,
        })
    }

    /// Parks the thread until it is woken or handed the lead. Returns false if the deadline came
    /// first.
    pub(super) fn park(&self, deadline: Option<Duration>, queue: &Committer) -> bool {
        loop {
            // A left-over token of an earlier wait makes a park return at once: look, park, look.
            if self.state.load(Ordering::Acquire) != WAITING {
                return true;
            }
            match deadline {
                None => PARKER.with_borrow(Parker::park),
                Some(deadline) => {
                    let left = deadline.saturating_sub(queue.now());
                    if left.is_zero() {
                        return false;
                    }
                    PARKER.with_borrow(|parker| parker.park_timeout(left));
                }
            }
        }
    }

    pub(super) fn was_handed_lead(&self) -> bool {
        self.state.load(Ordering::Acquire) == LEADS
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::Release);
        self.unparker.unpark();
    }
}

#[derive(Debug)]
enum Sleeper {
    Thread(Arc<Slot>),
    /// A ticket's waker; the number tells whose, so that it can be replaced.
    Task(u64, Waker),
}

#[derive(Debug)]
struct Waiting {
    want: Want,
    sleeper: Sleeper,
}

#[derive(Debug, Default)]
struct Queue {
    is_led: bool,
    waiting: VecDeque<Waiting>,
}

impl Queue {
    /// Takes a ticket's waker out. There is at most one a ticket.
    fn take_task(&mut self, id: u64) -> Option<Waiting> {
        let of_ticket = |w: &Waiting| matches!(w.sleeper, Sleeper::Task(other, _) if other == id);
        let place = self.waiting.iter().position(of_ticket)?;
        self.waiting.remove(place)
    }
}

/// What joining led to.
#[derive(Debug)]
pub(super) enum Joined {
    /// The want is fulfilled, or never will be.
    Fulfilled,
    /// The caller is the leader now.
    Leads,
    /// The caller is in the queue and must park.
    Waits(Arc<Slot>),
}

/// The commit queue, the dirty list, and what the flusher goes by.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    dirty: Mutex<DirtyList>,
    /// Touched by the leader only.
    pub(super) led: Mutex<Led>,
    /// Somebody has a ticket that nobody may be waiting for.
    pub(super) demanded: AtomicBool,
    /// A stream has read what is not synced yet.
    pub(super) sync_demanded: AtomicBool,
    is_closed: AtomicBool,
    /// Waiting is done in real time, whatever clock the engine was given.
    real: SystemClock,
}

/// vBuckets with changes that no flush has taken.
#[derive(Debug, Default)]
pub(super) struct DirtyList {
    /// Each at most once.
    pub(super) vbs: VecDeque<VbId>,
    /// When the first of them was put on the list.
    since: Option<Duration>,
}

/// What the leader knows from one flush to the next.
#[derive(Debug, Default)]
pub(super) struct Led {
    /// vBuckets whose persisted seqno is above their synced one.
    pub(super) unsynced: BTreeSet<VbId>,
    /// Since when there has been one.
    pub(super) unsynced_since: Option<Duration>,
    /// Bytes of all batches written since the engine was opened.
    pub(super) log_position: u64,
}

impl Committer {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            dirty: Mutex::default(),
            led: Mutex::default(),
            demanded: AtomicBool::new(false),
            sync_demanded: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            real: SystemClock::new(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.real.monotonic()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The last flush has been done: what is not durable now never will be by this engine.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Step 2 of the protocol.
    pub(super) fn join(&self, want: &Want, is_settled: impl Fn(&Want) -> bool) -> Joined {
        let mut queue = self.queue.lock();
        if is_settled(want) {
            return Joined::Fulfilled;
        }
        if !queue.is_led {
            queue.is_led = true;
            return Joined::Leads;
        }
        let slot = Slot::new();
        let sleeper = Sleeper::Thread(Arc::clone(&slot));
        queue.waiting.push_back(Waiting {
            want: want.clone(),
            sleeper,
        });
        Joined::Waits(slot)
    }

    /// Puts a ticket's waker into the queue, in place of the one it had. Returns false if the want
    /// is settled.
    pub(super) fn register(
        &self,
        id: u64,
        want: &Want,
        waker: &Waker,
        is_settled: impl Fn(&Want) -> bool,
    ) -> bool {
        // Cloning and dropping a waker runs the program's code: never under the lock.
        let waiting = Waiting {
            want: want.clone(),
            sleeper: Sleeper::Task(id, waker.clone()),
        };
        let mut queue = self.queue.lock();
        let replaced = queue.take_task(id);
        let must_wait = !is_settled(want);
        let refused = if must_wait {
            queue.waiting.push_back(waiting);
            None
        } else {
            Some(waiting)
        };
        drop(queue);
        drop((replaced, refused));
        must_wait
    }

    /// Takes a ticket's waker out of the queue.
    pub(super) fn unregister(&self, id: u64) {
        let taken = self.queue.lock().take_task(id);
        drop(taken);
    }

    /// Takes a thread out of the queue. Returns true if it had been handed the lead.
    pub(super) fn leave(&self, slot: &Arc<Slot>) -> bool {
        let mut queue = self.queue.lock();
        queue
            .waiting
            .retain(|w| !matches!(&w.sleeper, Sleeper::Thread(other) if Arc::ptr_eq(other, slot)));
        slot.was_handed_lead()
    }

    /// The leader resigns: wakes everybody whose want is settled and hands on the lead.
    pub(super) fn resign(&self, is_settled: impl Fn(&Want) -> bool) {
        let mut woken = Vec::new();
        let mut queue = self.queue.lock();
        let mut heir = None;
        let mut still = VecDeque::with_capacity(queue.waiting.len());
        for waiting in queue.waiting.drain(..) {
            if is_settled(&waiting.want) {
                woken.push(waiting.sleeper);
            } else if let (None, Sleeper::Thread(slot)) = (&heir, &waiting.sleeper) {
                heir = Some(Arc::clone(slot));
            } else {
                still.push_back(waiting);
            }
        }
        queue.waiting = still;
        queue.is_led = heir.is_some();
        if let Some(heir) = heir {
            // Under the lock, so that a thread that leaves cannot miss it.
            heir.set(LEADS);
        }
        drop(queue);
        // Threads first: a waker is a program's own code, and may panic.
        let mut wakers = Vec::new();
        for sleeper in woken {
            match sleeper {
                Sleeper::Thread(slot) => slot.set(WOKEN),
                Sleeper::Task(_, waker) => wakers.push(waker),
            }
        }
        for waker in wakers {
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("the waker of a ticket panicked");
            }
        }
    }

    /// Returns whether somebody in the queue waits for a sync.
    pub(super) fn is_sync_awaited(&self) -> bool {
        self.queue
            .lock()
            .waiting
            .iter()
            .any(|waiting| waiting.want.wants_sync())
    }

    /// Puts a vBucket on the dirty list. Called under its lock, when it was not on it. Returns
    /// whether the list was empty.
    pub(crate) fn mark_dirty(&self, vb: VbId, now: Duration) -> bool {
        let mut dirty = self.dirty.lock();
        dirty.vbs.push_back(vb);
        let was_empty = dirty.since.is_none();
        dirty.since.get_or_insert(now);
        was_empty
    }

    /// Takes the whole dirty list. Whole, so that no vBucket is in one flush twice: a change that
    /// is appended while the flush takes its checkpoints goes onto the next list.
    pub(super) fn take_dirty(&self) -> DirtyList {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Puts back, in front, what did not fit into the flush.
    pub(super) fn put_back_dirty(&self, rest: DirtyList) {
        if rest.vbs.is_empty() {
            return;
        }
        let mut dirty = self.dirty.lock();
        let newer = std::mem::replace(&mut *dirty, rest);
        dirty.vbs.extend(newer.vbs);
        dirty.since = dirty.since.or(newer.since);
    }

    /// Returns since when there has been a change that no flush has taken.
    pub(crate) fn dirty_since(&self) -> Option<Duration> {
        self.dirty.lock().since
    }

    /// Returns since when there has been a batch that is not synced.
    pub(crate) fn unsynced_since(&self) -> Option<Duration> {
        self.led.lock().unsynced_since
    }

    /// Returns whether a ticket was handed out since the last call.
    pub(crate) fn take_demand(&self) -> bool {
        self.demanded.swap(false, Ordering::AcqRel)
    }

    /// Returns whether a stream asked for a sync since the last call.
    pub(crate) fn take_sync_demand(&self) -> bool {
        self.sync_demanded.swap(false, Ordering::AcqRel)
    }

    /// Returns the bytes of all batches written since the engine was opened.
    pub(crate) fn log_position(&self) -> u64 {
        self.led.lock().log_position
    }
}
