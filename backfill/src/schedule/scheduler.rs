//! The queues with their lock, the backfills in them, and what wakes them.
//!
//! # Protocol
//! One lock over the queues and the backfills that do not run. Nothing is called, woken or dropped
//! under it that takes another lock: what is taken out is dropped after it is released. A backfill is
//! put among the snoozed *before* its wake-up is registered (or its condition looked at again), so
//! whoever wakes it finds it.

use super::queues::{Limits, QueueLengths, Queues, Removed, Sleep, Then};
use super::task::{Outcome, Snooze, Task};
use crate::delivery::{Buffers, OnRoom};
use crate::stream::{BackfillId, ConsumerId, StreamState};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;
use vbstore_core::Clock;
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::{Condvar, Mutex};

pub(crate) struct Scheduler<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    buffers: Arc<Buffers>,
    me: Weak<Self>,
}

#[derive(Debug)]
struct State<T> {
    queues: Queues,
    /// Those that do not run.
    backfills: HashMap<BackfillId, Box<T>>,
    is_stopped: bool,
}

/// Backfills that run together. They stay in their boxes, which move between queues and workers.
pub(crate) type Group<T> = Vec<Box<T>>;

/// What a worker is to do.
#[derive(Debug)]
pub(crate) enum NextGroup<T> {
    /// Run these, to be read through one db snapshot.
    Run(Group<T>),
    /// The time is over.
    Late,
    /// End.
    Stop,
}

impl<T: Task> std::fmt::Debug for Scheduler<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("lengths", &self.lengths())
            .finish_non_exhaustive()
    }
}

impl<T: Task> Scheduler<T> {
    /// `buffer_bytes_max` is the total of the buffers, which wake the scheduler.
    pub(crate) fn new(
        places_max: usize,
        pending_max: usize,
        buffer_bytes_max: u64,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| {
            let on_room: Weak<Self> = Weak::clone(me);
            Self {
                state: Mutex::new(
                    Rank::Leaf,
                    State {
                        queues: Queues::new(places_max, pending_max),
                        backfills: HashMap::new(),
                        is_stopped: false,
                    },
                ),
                changed: Condvar::new(),
                buffers: Buffers::new(buffer_bytes_max, on_room, clock),
                me: Weak::clone(me),
            }
        })
    }

    pub(crate) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    pub(crate) fn add_consumer(&self, consumer: ConsumerId, limits: Limits) {
        self.state.lock().queues.add_consumer(consumer, limits);
    }

    /// Drops everything of a consumer that is gone. What is running is dropped when it is settled.
    pub(crate) fn remove_consumer(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        let removed = state.queues.remove_consumer(consumer);
        let removed: Vec<_> = removed.iter().map(|id| state.take(*id)).collect();
        drop(state);
        self.changed.notify_all();
        drop(removed);
    }

    /// Takes a backfill in. Gives it back if too many wait and it `may_be_refused`, or if the
    /// consumer is gone, or the workers are.
    pub(crate) fn submit(&self, mut backfill: Box<T>, may_be_refused: bool) -> Result<(), Box<T>> {
        backfill.set_queued();
        let (id, consumer) = (backfill.id(), backfill.consumer());
        let mut state = self.state.lock();
        if state.is_stopped || state.queues.submit(consumer, id, may_be_refused).is_err() {
            return Err(backfill);
        }
        state.backfills.insert(id, backfill);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for something to run, up to `timeout`: up to `group_max` backfills of one consumer. The
    /// caller must settle each of them.
    pub(crate) fn next(&self, group_max: usize, timeout: Duration) -> NextGroup<T> {
        let mut state = self.state.lock();
        loop {
            if state.is_stopped {
                return NextGroup::Stop;
            }
            let group = state.pick(group_max);
            if !group.is_empty() {
                return NextGroup::Run(group);
            }
            let (locked, is_late) = self.changed.wait_for(state, timeout);
            if is_late {
                return NextGroup::Late;
            }
            state = locked;
        }
    }

    /// The same without waiting; empty if there is nothing to run.
    pub(crate) fn try_next(&self, group_max: usize) -> Group<T> {
        self.state.lock().pick(group_max)
    }

    /// Settles a backfill that a worker has run, or that it has lost in a panic. `is_disk_full` is asked
    /// if it waits for durability: it keeps no place then, since that may last.
    pub(crate) fn settle(
        &self,
        id: BackfillId,
        consumer: ConsumerId,
        outcome: Outcome<T>,
        is_disk_full: impl Fn() -> bool,
    ) {
        let mut snoozed = None;
        let mut watcher = None;
        let mut keeps_place = false;
        let (mut backfill, then) = match outcome {
            Outcome::Again(backfill) => (Some(backfill), Then::Again),
            Outcome::Unread(backfill) => (Some(backfill), Then::Unread),
            Outcome::Snooze(mut backfill, snooze) => {
                snoozed = Some(snooze);
                let sleep = match snooze {
                    Snooze::Room => Sleep::Room,
                    Snooze::Durable { .. } => {
                        watcher = Some(backfill.watcher(|| self.waker(id)));
                        keeps_place = !is_disk_full();
                        Sleep::Durable { keeps_place }
                    }
                };
                (Some(backfill), Then::Sleep(sleep))
            }
            Outcome::Done => (None, Then::Done),
        };
        if let Some(backfill) = &mut backfill {
            backfill.set_queued();
        }
        let mut state = self.state.lock();
        let stays = state.queues.settle(id, then);
        if stays && let Some(backfill) = backfill.take() {
            state.backfills.insert(id, backfill);
        }
        drop(state);
        // Removed while it ran.
        drop(backfill);
        self.changed.notify_one();
        // Sees to it that it is woken; at once if its condition holds by now.
        let is_asleep = match (snoozed, watcher) {
            (Some(Snooze::Room), _) => self.buffers.is_still_refused(consumer),
            (Some(Snooze::Durable { visibility, above }), Some(watcher)) => {
                // ORDER: watch first, check second. When the disk becomes full, every backfill that
                // watches is woken, and goes to sleep again without a place. One that was not yet
                // watching is not woken; the check below finds the full disk for it.
                stays && T::watch(&watcher, visibility, above) && !(keeps_place && is_disk_full())
            }
            _ => true,
        };
        if stays && !is_asleep {
            self.wake(id);
        }
        if !matches!(snoozed, Some(Snooze::Room)) {
            self.pass_on_room(consumer);
        }
    }

    /// Wakes the next backfill of a consumer that waits for room, if there is some left.
    fn pass_on_room(&self, consumer: ConsumerId) {
        let next = self.state.lock().queues.next_for_room(consumer);
        if let Some(next) = next
            && !self.buffers.is_still_refused(consumer)
        {
            self.wake(next);
        }
    }

    fn waker(&self, backfill: BackfillId) -> Waker {
        Waker::from(Arc::new(SnoozeWaker {
            scheduler: Weak::clone(&self.me),
            backfill,
        }))
    }

    /// Makes a snoozed backfill ready.
    fn wake(&self, id: BackfillId) {
        let mut state = self.state.lock();
        if !state.queues.wake(id) {
            return;
        }
        if let Some(backfill) = state.backfills.get_mut(&id) {
            backfill.set_queued();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Removes a backfill whose stream does not want it any more. A running one is dropped when it is
    /// settled.
    pub(crate) fn remove(&self, id: BackfillId, consumer: ConsumerId) {
        let mut state = self.state.lock();
        let removed = match state.queues.remove(id) {
            Removed::Now => state.backfills.remove(&id),
            Removed::WhenSettled | Removed::Unknown => None,
        };
        drop(state);
        drop(removed);
        self.changed.notify_one();
        // It may have been the one that was to pass on room.
        self.pass_on_room(consumer);
    }

    /// Ends: workers stop, everything that waits is dropped.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        let backfills = std::mem::take(&mut state.backfills);
        drop(state);
        self.changed.notify_all();
        drop(backfills);
    }

    pub(crate) fn lengths(&self) -> QueueLengths {
        self.state.lock().queues.lengths()
    }

    /// Returns what backfills are doing, in their order.
    pub(crate) fn states(
        &self,
        ids: impl Iterator<Item = Option<BackfillId>>,
    ) -> Vec<Option<StreamState>> {
        let state = self.state.lock();
        ids.map(|id| state.queues.state(id?)).collect()
    }
}

impl<T: Task> OnRoom for Scheduler<T> {
    fn room(&self, consumer: ConsumerId) -> bool {
        let mut woken = false;
        let mut state = self.state.lock();
        for id in state.queues.waiting_for_room(consumer) {
            woken |= state.queues.wake(id);
            if let Some(backfill) = state.backfills.get_mut(&id) {
                backfill.set_queued();
            }
        }
        drop(state);
        if woken {
            self.changed.notify_all();
        }
        woken
    }
}

impl<T: Task> State<T> {
    #[expect(
        clippy::expect_used,
        clippy::unnecessary_box_returns,
        reason = "what the queues list does not run is in the map, and stays in its box"
    )]
    fn take(&mut self, id: BackfillId) -> Box<T> {
        let backfill = self.backfills.remove(&id);
        backfill.expect("a listed backfill that is not there")
    }

    fn pick(&mut self, group_max: usize) -> Group<T> {
        let Some(first) = self.queues.pick() else {
            return Vec::new();
        };
        let mut group = vec![self.take(first)];
        while group.len() < group_max
            && let Some(next) = self.queues.pick_beside(first)
        {
            group.push(self.take(next));
        }
        group
    }
}

/// Wakes a backfill that waits for durability.
struct SnoozeWaker<T> {
    scheduler: Weak<Scheduler<T>>,
    backfill: BackfillId,
}

impl<T: Task> Wake for SnoozeWaker<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake(self.backfill);
        }
    }
}

/// For tests: everything that is counted is compared.
#[cfg(test)]
impl<T: Task> Scheduler<T> {
    pub(crate) fn check(&self) {
        let state = self.state.lock();
        state.queues.check();
        let lengths = state.queues.lengths();
        let not_running = lengths.pending + lengths.ready + lengths.snoozed;
        let is_whole = state.backfills.len() == not_running;
        assert!(is_whole || state.is_stopped, "a backfill is lost");
    }

    pub(crate) fn assert_nothing_left(&self) {
        let state = self.state.lock();
        state.queues.assert_empty();
        assert!(state.backfills.is_empty(), "a backfill is left");
    }
}

// The model checker's locks work in its own tests only.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
mod tests;
