//! The scheduler: the queues under a lock, the backfills in them, and their wake-ups.
//!
//! # Protocol
//! One lock protects the queues and the backfills that are not running. While it is held, nothing
//! is called, woken or dropped that takes another lock. Backfills taken out are dropped after it is
//! released. A backfill is added to the snoozed ones *before* its wake-up is registered, or its
//! condition checked again. So every wake-up finds it.

use super::queues::{
    AfterRun, BackfillQueues, ConsumerLimits, QueueLengths, QueuedSnooze, RemoveOutcome,
};
use super::task::{InvocationOutcome, ScheduledTask, Snooze};
use crate::delivery::{Buffers, RoomWaker};
use crate::stream::{BackfillId, ConsumerId, StreamState};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;
use vbstore_core::Clock;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::{Condvar, Mutex};

/// Schedules the backfills of an engine's streams on the workers.
pub(crate) struct Scheduler<T> {
    state: Mutex<SchedulerState<T>>,
    /// Notified when a backfill may have become ready, and at the stop. Workers wait for it.
    changed: Condvar,
    buffers: Arc<Buffers>,
    weak_self: Weak<Self>,
}

#[derive(Debug)]
struct SchedulerState<T> {
    queues: BackfillQueues,
    /// The backfills that are not running. A worker owns those that are.
    backfills: HashMap<BackfillId, Box<T>>,
    is_stopped: bool,
}

/// Backfills that run together. They stay boxed while they move between the queues and the workers.
pub(crate) type Group<T> = Vec<Box<T>>;

/// The next work of a worker.
#[derive(Debug)]
pub(crate) enum NextGroup<T> {
    /// Run these backfills, which share one db snapshot.
    Run(Group<T>),
    /// Nothing became ready within the timeout.
    Late,
    /// The scheduler has stopped: the worker must end.
    Stop,
}

impl<T: ScheduledTask> std::fmt::Debug for Scheduler<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler")
            .field("lengths", &self.lengths())
            .finish_non_exhaustive()
    }
}

impl<T: ScheduledTask> Scheduler<T> {
    /// Creates a scheduler together with the buffers, which wake its backfills. `buffer_bytes_max`
    /// is the total size of the buffers in bytes.
    pub(crate) fn new(
        slots_max: usize,
        pending_max: usize,
        buffer_bytes_max: u64,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak_self: &Weak<Self>| {
            let on_room: Weak<Self> = Weak::clone(weak_self);
            Self {
                state: Mutex::new(
                    LockRank::Leaf,
                    SchedulerState {
                        queues: BackfillQueues::new(slots_max, pending_max),
                        backfills: HashMap::new(),
                        is_stopped: false,
                    },
                ),
                changed: Condvar::new(),
                buffers: Buffers::new(buffer_bytes_max, on_room, clock),
                weak_self: Weak::clone(weak_self),
            }
        })
    }

    pub(crate) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    pub(crate) fn add_consumer(&self, consumer: ConsumerId, limits: ConsumerLimits) {
        self.state.lock().queues.add_consumer(consumer, limits);
    }

    /// Drops all backfills of a consumer that was dropped. A running one is dropped when it is
    /// settled.
    pub(crate) fn remove_consumer(&self, consumer: ConsumerId) {
        let mut state = self.state.lock();
        let removed = state.queues.remove_consumer(consumer);
        let removed: Vec<_> = removed.iter().map(|id| state.take(*id)).collect();
        drop(state);
        self.changed.notify_all();
        drop(removed);
    }

    /// Adds a backfill.
    ///
    /// # Errors
    /// Returns the backfill if the consumer was dropped or the workers have stopped. Also if too
    /// many backfills are pending and it `may_be_refused`.
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

    /// Blocks until backfills are ready, for at most `timeout`. Picks up to `group_max` backfills
    /// of one consumer. The caller must settle each of them.
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

    /// Like [`Self::next`], without waiting. Empty if nothing is ready.
    pub(crate) fn try_next(&self, group_max: usize) -> Group<T> {
        self.state.lock().pick(group_max)
    }

    /// Settles a backfill that a worker has run, or has lost in a panic. `is_disk_full` is called
    /// if the backfill waits for durability. If the disk is full, the backfill keeps no slot, since
    /// the wait may take long.
    pub(crate) fn settle(
        &self,
        id: BackfillId,
        consumer: ConsumerId,
        outcome: InvocationOutcome<T>,
        is_disk_full: impl Fn() -> bool,
    ) {
        let mut snoozed = None;
        let mut watcher = None;
        let mut keeps_slot = false;
        let (mut backfill, then) = match outcome {
            InvocationOutcome::Again(backfill) => (Some(backfill), AfterRun::Again),
            InvocationOutcome::Unread(backfill) => (Some(backfill), AfterRun::Unread),
            InvocationOutcome::Snooze(mut backfill, snooze) => {
                snoozed = Some(snooze);
                let sleep = match snooze {
                    Snooze::Room => QueuedSnooze::Room,
                    Snooze::Durable { .. } => {
                        watcher = Some(backfill.watcher(|| self.waker(id)));
                        keeps_slot = !is_disk_full();
                        QueuedSnooze::Durable { keeps_slot }
                    }
                };
                (Some(backfill), AfterRun::Sleep(sleep))
            }
            InvocationOutcome::Done => (None, AfterRun::Done),
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
        // `backfill` is still set only if it was removed while it ran. It is dropped without the
        // lock.
        drop(backfill);
        self.changed.notify_one();
        // The wait condition may already hold. In that case, wake the backfill immediately.
        let is_asleep = match (snoozed, watcher) {
            (Some(Snooze::Room), _) => self.buffers.is_still_refused(consumer),
            (Some(Snooze::Durable { visibility, above }), Some(watcher)) => {
                // ORDER: watch first, check second. When the disk becomes full, every watching
                // backfill is woken, and snoozes again without a slot. One that was not watching
                // yet is not woken, so the check below looks at the disk for it.
                stays && T::watch(&watcher, visibility, above) && !(keeps_slot && is_disk_full())
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

    /// Wakes the next backfill of a consumer that waits for room, if there is still room.
    fn pass_on_room(&self, consumer: ConsumerId) {
        let next = self.state.lock().queues.next_for_room(consumer);
        if let Some(next) = next
            && !self.buffers.is_still_refused(consumer)
        {
            self.wake(next);
        }
    }

    /// Creates a waker for a backfill that waits for durability.
    fn waker(&self, backfill: BackfillId) -> Waker {
        Waker::from(Arc::new(SnoozeWaker {
            scheduler: Weak::clone(&self.weak_self),
            backfill,
        }))
    }

    /// Makes a snoozed backfill ready, and wakes a worker.
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

    /// Removes a backfill that its stream no longer wants. A running one is dropped when it is
    /// settled.
    pub(crate) fn remove(&self, id: BackfillId, consumer: ConsumerId) {
        let mut state = self.state.lock();
        let removed = match state.queues.remove(id) {
            RemoveOutcome::Now => state.backfills.remove(&id),
            RemoveOutcome::WhenSettled | RemoveOutcome::Unknown => None,
        };
        drop(state);
        drop(removed);
        self.changed.notify_one();
        // The removed backfill may have been woken for room, which the next one can use now.
        self.pass_on_room(consumer);
    }

    /// Stops the workers, and drops all backfills that are not running.
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

    /// Returns the states of backfills, in the order of `ids`.
    pub(crate) fn states(
        &self,
        ids: impl Iterator<Item = Option<BackfillId>>,
    ) -> Vec<Option<StreamState>> {
        let state = self.state.lock();
        ids.map(|id| state.queues.state(id?)).collect()
    }
}

impl<T: ScheduledTask> RoomWaker for Scheduler<T> {
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

impl<T: ScheduledTask> SchedulerState<T> {
    #[expect(
        clippy::expect_used,
        clippy::unnecessary_box_returns,
        reason = "a listed backfill that is not running is in the map, and stays boxed"
    )]
    /// Takes a backfill out of the map, to run or to drop it.
    fn take(&mut self, id: BackfillId) -> Box<T> {
        let backfill = self.backfills.remove(&id);
        backfill.expect("a listed backfill is not in the map")
    }

    /// Picks a group for a worker. Empty if nothing is ready.
    fn pick(&mut self, group_max: usize) -> Group<T> {
        let Some(first) = self.queues.pick() else {
            return Vec::new();
        };
        let mut group = vec![self.take(first)];
        while group.len() < group_max
            && let Some(next) = self.queues.pick_for_group(first)
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

impl<T: ScheduledTask> Wake for SnoozeWaker<T> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake(self.backfill);
        }
    }
}

#[cfg(test)]
impl<T: ScheduledTask> Scheduler<T> {
    /// Asserts that the queues are consistent, and that no backfill is missing.
    pub(crate) fn check(&self) {
        let state = self.state.lock();
        state.queues.check();
        let lengths = state.queues.lengths();
        let not_running = lengths.pending + lengths.ready + lengths.snoozed;
        let is_whole = state.backfills.len() == not_running;
        assert!(is_whole || state.is_stopped, "a backfill is missing");
    }

    /// Asserts that there is no backfill.
    pub(crate) fn assert_nothing_left(&self) {
        let state = self.state.lock();
        state.queues.assert_empty();
        assert!(state.backfills.is_empty(), "a backfill is left");
    }
}

// With the feature `shuttle`, locks work only inside the model checker's tests.
#[cfg(not(feature = "shuttle"))]
#[cfg(test)]
mod tests;
