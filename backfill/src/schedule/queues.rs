//! The queues of backfills, as pure state over identifiers. There are no locks, wakers or backfills
//! here, so that tests and a model checker run quickly.
//!
//! # States
//! ```text
//! pending -> ready -> running -> ready | snoozed | done
//!                     snoozed -> ready                     by a notification, never by polling
//! ```
//! - *Pending*: has no slot, because too many backfills are in progress. It holds no resources.
//!   Opening a stream is refused when too many are pending. A stream that falls back to the disk is
//!   never refused.
//! - *Ready*: has a slot, and waits for a worker.
//! - *Running*: a worker runs it under a permit. The permits of a consumer are limited, so that no
//!   consumer can occupy all workers. Backfills that are read through one db snapshot share a
//!   permit.
//! - *Snoozed*: waits for buffer room or for durability, without a permit. A backfill that waits
//!   for room has no slot either, so that a frozen consumer takes none from others. A backfill that
//!   waits for durability while the disk is full has no slot either, since the wait may take long.
//!   Both take a slot when they resume, even above the limit: the limit applies only to backfills
//!   that begin.
//!
//! # Turns
//! Consumers take turns. Within a consumer, the order is round robin: a backfill goes to the end of
//! the queue when it gets a slot, and after each run. A backfill that was in a group but was not
//! read keeps its turn: it returns to the front. A sequential consumer has only one backfill that
//! is not pending, until that one is over.
//!
//! # Counting
//! Everything limited is counted by tokens: slots, permits, pending and begun backfills. A task
//! that leaves, on any path, releases its tokens. Which consumers may run or begin a backfill is
//! derived again after each change of a consumer ([`BackfillQueues::refresh`]).

use super::tally::{Tally, Token};
use crate::config::BackfillOrder;
use crate::stream::{BackfillId, ConsumerId, StreamState};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// The scheduling limits of one consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerLimits {
    pub(crate) order: BackfillOrder,
    /// Maximum number of slots.
    pub(crate) backfills_max: usize,
    /// Maximum number of permits.
    pub(crate) slices_max: usize,
}

/// The number of backfills in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueLengths {
    pub(crate) pending: usize,
    pub(crate) ready: usize,
    pub(crate) running: usize,
    pub(crate) snoozed: usize,
}

/// What a snoozed backfill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueuedSnooze {
    Room,
    Durable { keeps_slot: bool },
}

/// What happens next to a backfill that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterRun {
    /// Its slice was read: it goes to the end of the queue.
    Again,
    /// It was not read: it goes to the front of the queue.
    Unread,
    Sleep(QueuedSnooze),
    Done,
}

/// Why a backfill was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubmitError {
    /// Too many are pending.
    Crowded,
    /// Its consumer was dropped.
    Gone,
}

/// The result of removing a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemoveOutcome {
    /// It was removed.
    Now,
    /// It is running, and is removed when it is settled.
    WhenSettled,
    /// There is no such backfill.
    Unknown,
}

#[derive(Debug)]
enum QueueStatus {
    Pending {
        _counted: Token,
    },
    Ready,
    /// The permit is shared with the other backfills of its group.
    Running {
        permit: Arc<Token>,
        is_removed: bool,
    },
    Snoozed,
}

#[derive(Debug)]
struct QueuedBackfill {
    consumer: ConsumerId,
    status: QueueStatus,
    /// Its slot in the total, and in the consumer's own limit.
    slot: Option<(Token, Token)>,
    /// Held from the backfill's first slot to its end. A sequential consumer begins no other
    /// backfill meanwhile.
    begun: Option<Token>,
}

#[derive(Debug)]
struct ConsumerQueue {
    limits: ConsumerLimits,
    /// All backfills of the consumer, so that removing it does not scan those of others.
    tasks: BTreeSet<BackfillId>,
    pending: VecDeque<BackfillId>,
    ready: VecDeque<BackfillId>,
    /// Snoozed backfills that wait for room, oldest first, so that each gets its turn.
    for_room: VecDeque<BackfillId>,
    slots: Tally,
    permits: Tally,
    begun: Tally,
}

/// All queues, with the limits that apply to all consumers together.
#[derive(Debug)]
pub(super) struct BackfillQueues {
    slots_max: usize,
    pending_max: usize,
    slots: Tally,
    pending: Tally,
    tasks: HashMap<BackfillId, QueuedBackfill>,
    consumers: BTreeMap<ConsumerId, ConsumerQueue>,
    /// Consumers that have a ready backfill and a free permit.
    runnable: BTreeSet<ConsumerId>,
    /// Consumers that have a pending backfill, and could begin it if a slot were free.
    waiting: BTreeSet<ConsumerId>,
    /// The consumer whose backfill ran last. The next turn is that of the consumer after it.
    last_ran: Option<ConsumerId>,
    /// The same for the consumer whose backfill began last.
    last_began: Option<ConsumerId>,
}

impl BackfillQueues {
    pub(super) fn new(slots_max: usize, pending_max: usize) -> Self {
        Self {
            slots_max,
            pending_max,
            slots: Tally::default(),
            pending: Tally::default(),
            tasks: HashMap::new(),
            consumers: BTreeMap::new(),
            runnable: BTreeSet::new(),
            waiting: BTreeSet::new(),
            last_ran: None,
            last_began: None,
        }
    }

    pub(super) fn add_consumer(&mut self, consumer: ConsumerId, limits: ConsumerLimits) {
        let queue = ConsumerQueue {
            limits,
            tasks: BTreeSet::new(),
            pending: VecDeque::new(),
            ready: VecDeque::new(),
            for_room: VecDeque::new(),
            slots: Tally::default(),
            permits: Tally::default(),
            begun: Tally::default(),
        };
        let before = self.consumers.insert(consumer, queue);
        assert!(before.is_none(), "a consumer is added twice");
    }

    /// Removes a consumer and its backfills. Returns those that are not running; a running one is
    /// removed when it is settled.
    pub(super) fn remove_consumer(&mut self, consumer: ConsumerId) -> Vec<BackfillId> {
        let Some(queue) = self.consumers.remove(&consumer) else {
            return Vec::new();
        };
        self.runnable.remove(&consumer);
        self.waiting.remove(&consumer);
        let mut removed = Vec::new();
        for id in queue.tasks {
            if let QueueStatus::Running { is_removed, .. } = &mut self.task(id).status {
                *is_removed = true;
            } else {
                self.tasks.remove(&id);
                removed.push(id);
            }
        }
        self.begin_waiting();
        removed
    }

    /// Adds a backfill. It gets a slot if one is free, and is pending otherwise.
    ///
    /// # Errors
    /// If the consumer was dropped. Also if the backfill `may_be_refused` and would be pending, but
    /// `pending_max` backfills already are.
    pub(super) fn submit(
        &mut self,
        consumer: ConsumerId,
        id: BackfillId,
        may_be_refused: bool,
    ) -> Result<(), SubmitError> {
        let Some(queue) = self.consumers.get_mut(&consumer) else {
            return Err(SubmitError::Gone);
        };
        let has_slot = queue.may_begin() && self.slots.count() < self.slots_max;
        // The consumer's older pending backfills begin first.
        let waits = !has_slot || !queue.pending.is_empty();
        if waits && may_be_refused && self.pending.count() >= self.pending_max {
            return Err(SubmitError::Crowded);
        }
        queue.pending.push_back(id);
        queue.tasks.insert(id);
        let task = QueuedBackfill {
            consumer,
            status: QueueStatus::Pending {
                _counted: self.pending.take(),
            },
            slot: None,
            begun: None,
        };
        let before = self.tasks.insert(id, task);
        assert!(before.is_none(), "a backfill is submitted twice");
        self.refresh(consumer);
        self.begin_waiting();
        Ok(())
    }

    /// Picks the next backfill to run, taking a permit for it. Consumers take turns.
    pub(super) fn pick(&mut self) -> Option<BackfillId> {
        let consumer = next_in_turn(&self.runnable, self.last_ran)?;
        self.last_ran = Some(consumer);
        let permit = Arc::new(self.queue(consumer).permits.take());
        self.run_first(consumer, permit)
    }

    /// Picks another ready backfill of the same consumer, to be read through the same db snapshot.
    /// It shares the permit of `picked`.
    pub(super) fn pick_for_group(&mut self, picked: BackfillId) -> Option<BackfillId> {
        let task = self.tasks.get(&picked)?;
        let QueueStatus::Running { permit, .. } = &task.status else {
            return None;
        };
        let (consumer, permit) = (task.consumer, Arc::clone(permit));
        let queue = self.consumers.get(&consumer)?;
        if queue.ready.is_empty() {
            return None;
        }
        self.run_first(consumer, permit)
    }

    /// Starts the first ready backfill of a consumer.
    fn run_first(&mut self, consumer: ConsumerId, permit: Arc<Token>) -> Option<BackfillId> {
        let id = self.queue(consumer).ready.pop_front();
        // A consumer is in `runnable` only while it has a ready backfill.
        assert!(id.is_some(), "a runnable consumer has no ready backfill");
        let id = id?;
        self.task(id).status = QueueStatus::Running {
            permit,
            is_removed: false,
        };
        self.refresh(consumer);
        Some(id)
    }

    /// Moves a backfill that ran to its next state. Returns false if the backfill is over or was
    /// removed meanwhile: the queues no longer have it then.
    pub(super) fn settle(&mut self, id: BackfillId, then: AfterRun) -> bool {
        let task = self.task(id);
        let consumer = task.consumer;
        let QueueStatus::Running { is_removed, .. } = task.status else {
            unreachable!("{id:?} is settled, but is not running");
        };
        let stays = !is_removed && then != AfterRun::Done && self.consumers.contains_key(&consumer);
        if !stays {
            self.tasks.remove(&id);
            // The consumer may have been dropped.
            if let Some(queue) = self.consumers.get_mut(&consumer) {
                queue.tasks.remove(&id);
            }
        } else if let AfterRun::Sleep(sleep) = then {
            let task = self.task(id);
            // Replacing the status drops its share of the permit.
            task.status = QueueStatus::Snoozed;
            match sleep {
                QueuedSnooze::Room => {
                    task.slot = None;
                    self.queue(consumer).for_room.push_back(id);
                }
                QueuedSnooze::Durable { keeps_slot: false } => task.slot = None,
                QueuedSnooze::Durable { keeps_slot: true } => {}
            }
        } else {
            self.task(id).status = QueueStatus::Ready;
            let queue = self.queue(consumer);
            match queue.limits.order {
                BackfillOrder::RoundRobin if then == AfterRun::Again => queue.ready.push_back(id),
                // A sequential consumer finishes one backfill before the next.
                BackfillOrder::RoundRobin | BackfillOrder::Sequential => queue.ready.push_front(id),
            }
        }
        self.refresh(consumer);
        self.begin_waiting();
        stays
    }

    /// Makes a snoozed backfill ready. Returns false if it is not snoozed. If it has released its
    /// slot it takes one again, even above the limit.
    pub(super) fn wake(&mut self, id: BackfillId) -> bool {
        let is_snoozed = |task: &QueuedBackfill| matches!(task.status, QueueStatus::Snoozed);
        if !self.tasks.get(&id).is_some_and(is_snoozed) {
            return false;
        }
        let all = self.slots.take();
        let task = self.task(id);
        let consumer = task.consumer;
        task.status = QueueStatus::Ready;
        let has_slot = task.slot.is_some();
        let queue = self.queue(consumer);
        queue.for_room.retain(|waiting| *waiting != id);
        queue.ready.push_back(id);
        if !has_slot {
            let own = queue.slots.take();
            self.task(id).slot = Some((all, own));
        }
        self.refresh(consumer);
        true
    }

    /// Returns the backfills of a consumer to wake when it has room: up to the number that it may
    /// run at once. Each of them wakes the next if it leaves room ([`Self::next_for_room`]).
    pub(super) fn waiting_for_room(&self, consumer: ConsumerId) -> Vec<BackfillId> {
        let Some(queue) = self.consumers.get(&consumer) else {
            return Vec::new();
        };
        let count = queue.limits.slices_max;
        queue.for_room.iter().take(count).copied().collect()
    }

    /// Returns the backfill of a consumer that has waited for room the longest.
    pub(super) fn next_for_room(&self, consumer: ConsumerId) -> Option<BackfillId> {
        self.consumers.get(&consumer)?.for_room.front().copied()
    }

    /// Removes a backfill in any state.
    pub(super) fn remove(&mut self, id: BackfillId) -> RemoveOutcome {
        let Some(task) = self.tasks.get_mut(&id) else {
            return RemoveOutcome::Unknown;
        };
        if let QueueStatus::Running { is_removed, .. } = &mut task.status {
            *is_removed = true;
            return RemoveOutcome::WhenSettled;
        }
        let consumer = task.consumer;
        self.tasks.remove(&id);
        let queue = self.queue(consumer);
        queue.tasks.remove(&id);
        for line in [&mut queue.pending, &mut queue.ready, &mut queue.for_room] {
            line.retain(|other| *other != id);
        }
        self.refresh(consumer);
        self.begin_waiting();
        RemoveOutcome::Now
    }

    /// Returns the state of a backfill; `None` if there is no such backfill.
    pub(super) fn state(&self, id: BackfillId) -> Option<StreamState> {
        self.tasks.get(&id).map(|task| match task.status {
            QueueStatus::Pending { .. } => StreamState::Pending,
            QueueStatus::Ready => StreamState::Ready,
            QueueStatus::Running { .. } => StreamState::Running,
            QueueStatus::Snoozed => StreamState::Snoozed,
        })
    }

    pub(super) fn lengths(&self) -> QueueLengths {
        let mut lengths = QueueLengths::default();
        for task in self.tasks.values() {
            *match task.status {
                QueueStatus::Pending { .. } => &mut lengths.pending,
                QueueStatus::Ready => &mut lengths.ready,
                QueueStatus::Running { .. } => &mut lengths.running,
                QueueStatus::Snoozed => &mut lengths.snoozed,
            } += 1;
        }
        lengths
    }

    /// Gives free slots to pending backfills. Consumers take turns.
    fn begin_waiting(&mut self) {
        while self.slots.count() < self.slots_max
            && let Some(consumer) = next_in_turn(&self.waiting, self.last_began)
        {
            self.last_began = Some(consumer);
            let all = self.slots.take();
            let queue = self.queue(consumer);
            let own = queue.slots.take();
            let begun = queue.begun.take();
            let id = queue.pending.pop_front();
            assert!(id.is_some(), "a waiting consumer has no pending backfill");
            if let Some(id) = id {
                queue.ready.push_back(id);
                let task = self.task(id);
                task.status = QueueStatus::Ready;
                task.slot = Some((all, own));
                task.begun = Some(begun);
            }
            self.refresh(consumer);
        }
    }

    /// Derives whether a consumer may run and may begin a backfill. Must be called after each
    /// change of the consumer or its backfills.
    fn refresh(&mut self, consumer: ConsumerId) {
        let Some(queue) = self.consumers.get(&consumer) else {
            return;
        };
        let may_run = !queue.ready.is_empty() && queue.permits.count() < queue.limits.slices_max;
        let may_begin = !queue.pending.is_empty() && queue.may_begin();
        set(&mut self.runnable, consumer, may_run);
        set(&mut self.waiting, consumer, may_begin);
    }

    #[expect(clippy::expect_used, reason = "the queues list existing tasks only")]
    fn task(&mut self, id: BackfillId) -> &mut QueuedBackfill {
        self.tasks
            .get_mut(&id)
            .expect("a listed backfill does not exist")
    }

    #[expect(clippy::expect_used, reason = "a listed task's consumer exists")]
    fn queue(&mut self, consumer: ConsumerId) -> &mut ConsumerQueue {
        let queue = self.consumers.get_mut(&consumer);
        queue.expect("the consumer of a backfill does not exist")
    }
}

impl ConsumerQueue {
    /// Returns whether the consumer's own limits allow another backfill to begin.
    fn may_begin(&self) -> bool {
        match self.limits.order {
            BackfillOrder::RoundRobin => self.slots.count() < self.limits.backfills_max,
            BackfillOrder::Sequential => self.begun.count() == 0,
        }
    }
}

/// Adds a consumer to a set, or removes it.
fn set(set: &mut BTreeSet<ConsumerId>, consumer: ConsumerId, is_in: bool) {
    if is_in {
        set.insert(consumer);
    } else {
        set.remove(&consumer);
    }
}

/// Returns the consumer of the set that follows `last`, wrapping around.
fn next_in_turn(set: &BTreeSet<ConsumerId>, last: Option<ConsumerId>) -> Option<ConsumerId> {
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let mut later = set.range((after, Bound::Unbounded));
    later.next().or_else(|| set.first()).copied()
}

#[cfg(test)]
mod tests;
