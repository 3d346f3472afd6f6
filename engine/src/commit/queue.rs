//! The commit queue: who waits for what, and who leads. The protocol is in [`super::committer`].

use super::want::Want;
use crate::wakers::Wakers;
use crossbeam::sync::{Parker, Unparker};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Waker;
use std::time::Duration;
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
use vbstore_core::{Clock, SystemClock};

const WAITING: u8 = 0;
const WOKEN: u8 = 1;
const LEADS: u8 = 2;

/// A parked thread.
pub(super) struct Slot {
    state: AtomicU8,
    unparker: Unparker,
    /// The parker of this wait alone, on a thread whose own is destroyed already.
    parker: Option<Mutex<Parker>>,
}

thread_local! {
    /// Parking a thread costs an allocation; a thread that writes parks often.
    static PARKER: RefCell<Parker> = RefCell::new(Parker::new());
}

impl Slot {
    fn new() -> Arc<Self> {
        let own = PARKER.try_with(|parker| parker.borrow().unparker().clone());
        // Without: the destructor of another of the thread's locals is writing.
        let (unparker, parker) = own.map_or_else(
            |_| {
                let parker = Parker::new();
                let unparker = parker.unparker().clone();
                (unparker, Some(Mutex::new(Rank::Leaf, parker)))
            },
            |unparker| (unparker, None),
        );
        Arc::new(Self {
            state: AtomicU8::new(WAITING),
            unparker,
            parker,
        })
    }

    /// Parks the thread until it is woken or handed the lead. Returns false if the deadline came
    /// first.
    pub(super) fn park(&self, deadline: Option<Duration>, queue: &CommitQueue) -> bool {
        loop {
            // A left-over token of an earlier wait makes a park return at once: look, park, look.
            if self.state.load(Ordering::Acquire) != WAITING {
                return true;
            }
            match deadline {
                None => self.with_parker(Parker::park),
                Some(deadline) => {
                    let left = deadline.saturating_sub(queue.now());
                    if left.is_zero() {
                        return false;
                    }
                    self.with_parker(|parker| parker.park_timeout(left));
                }
            }
        }
    }

    fn with_parker(&self, park: impl FnOnce(&Parker)) {
        match &self.parker {
            Some(parker) => park(&parker.lock()),
            None => PARKER.with_borrow(park),
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

enum Sleeper {
    Thread(Arc<Slot>),
    /// A ticket's waker; the number tells whose, so that it can be replaced.
    Task(u64, Waker),
}

struct Waiting {
    /// `None` for the lead itself.
    want: Option<Want>,
    sleeper: Sleeper,
}

#[derive(Default)]
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
pub(super) enum Joined {
    /// The want is fulfilled, or never will be.
    Fulfilled,
    /// The caller is the leader now.
    Leads,
    /// The caller is in the queue and must park.
    Waits(Arc<Slot>),
}

/// The commit queue.
pub(super) struct CommitQueue {
    queue: Mutex<Queue>,
    wakers: Wakers,
    /// Waiting is done in real time, whatever clock the engine was given.
    real: SystemClock,
}

impl CommitQueue {
    pub(super) fn new(wakers: Wakers) -> Self {
        Self {
            queue: Mutex::new(Rank::Queue, Queue::default()),
            wakers,
            real: SystemClock::new(),
        }
    }

    /// Returns what calls wakers once no lock is held.
    pub(super) fn wakers(&self) -> &Wakers {
        &self.wakers
    }

    pub(super) fn now(&self) -> Duration {
        self.real.monotonic()
    }

    /// Step 2 of the protocol. Without a want it is the lead itself that is waited for.
    pub(super) fn join(&self, want: Option<&Want>, is_settled: impl Fn(&Want) -> bool) -> Joined {
        let mut queue = self.queue.lock();
        if want.is_some_and(is_settled) {
            return Joined::Fulfilled;
        }
        if !queue.is_led {
            queue.is_led = true;
            return Joined::Leads;
        }
        let slot = Slot::new();
        let sleeper = Sleeper::Thread(Arc::clone(&slot));
        queue.waiting.push_back(Waiting {
            want: want.cloned(),
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
            want: Some(want.clone()),
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

    /// The leader resigns: wakes every thread whose want is settled and hands on the lead. Returns the
    /// wakers of tickets that are settled, which are called once the caller holds no lock.
    pub(super) fn resign(&self, is_settled: impl Fn(&Want) -> bool) -> TicketWakers {
        let mut woken = Vec::new();
        let mut queue = self.queue.lock();
        assert!(queue.is_led, "resigned without the lead");
        let mut heir = None;
        let mut still = VecDeque::with_capacity(queue.waiting.len());
        for waiting in queue.waiting.drain(..) {
            if waiting.want.as_ref().is_some_and(&is_settled) {
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
        let mut wakers = Vec::new();
        for sleeper in woken {
            match sleeper {
                Sleeper::Thread(slot) => slot.set(WOKEN),
                Sleeper::Task(_, waker) => wakers.push(waker),
            }
        }
        TicketWakers {
            wakers,
            calls: self.wakers.clone(),
        }
    }

    /// Returns the most bytes that anybody in the queue waits for room for.
    pub(super) fn room_awaited(&self) -> u64 {
        let queue = self.queue.lock();
        let rooms = queue.waiting.iter().filter_map(|w| w.want.as_ref());
        rooms.map(Want::room).max().unwrap_or(0)
    }

    /// Returns whether somebody in the queue waits for a sync.
    pub(super) fn is_sync_awaited(&self) -> bool {
        self.queue
            .lock()
            .waiting
            .iter()
            .any(|waiting| waiting.want.as_ref().is_some_and(Want::wants_sync))
    }
}

/// Wakers of tickets that are settled: the program's code, to be called without any lock.
#[must_use = "call `wake` once no lock is held"]
pub(super) struct TicketWakers {
    wakers: Vec<Waker>,
    calls: Wakers,
}

impl TicketWakers {
    pub(super) fn wake(self) {
        for waker in self.wakers {
            self.calls.post(waker);
        }
    }
}
