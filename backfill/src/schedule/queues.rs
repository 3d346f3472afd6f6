//! The queues of backfills: pure state over identities. No lock, no waker, no backfill is here, so that
//! tests and a model checker try it in seconds.
//!
//! # States
//! ```text
//! pending -> ready -> running -> ready | snoozed | done
//!                     snoozed -> ready                     by a message, never by polling
//! ```
//! - *Pending*: has no place, because too many are under way; holds nothing. Opening a stream is
//!   refused when too many are pending. A stream that falls back to the disk is never refused.
//! - *Ready*: has a place and waits for a worker.
//! - *Running* is the permit: a worker has it. A consumer may have only some of them at once, so that
//!   none can occupy all workers. Backfills that are read through one db snapshot share one.
//! - *Snoozed*: waits for room in its buffer or for durability. Has no permit. One that waits for room
//!   has no place either, so that a frozen consumer takes none from others; nor has one that waits for
//!   durability while the disk is full, since that may last. They take a place when they come back,
//!   also above the limit: the limit decides who may begin.
//!
//! # Turns
//! Consumers take turns. Within one, the order is round robin: a backfill that gets a place goes to
//! the end of the line, like one that ran. One that ran in a group and was not read, because those
//! before it used up the slice, keeps its turn: it goes back to the front. A sequential consumer has one
//! backfill that is not pending, until it is over.
//!
//! # Counting
//! What is limited is counted by tokens (places, permits, pending, begun): a task that leaves, by
//! whatever way, gives back what it has. Which consumers may run or begin is derived anew after each
//! change of one ([`Queues::refresh`]), not counted.

use super::tally::{Tally, Token};
use crate::config::Order;
use crate::stream::{BackfillId, ConsumerId, StreamState};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// Limits of one consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) order: Order,
    /// Places.
    pub(crate) backfills_max: usize,
    /// Permits.
    pub(crate) slices_max: usize,
}

/// How many backfills are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueLengths {
    pub(crate) pending: usize,
    pub(crate) ready: usize,
    pub(crate) running: usize,
    pub(crate) snoozed: usize,
}

/// What a snoozed backfill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleep {
    Room,
    Durable { keeps_place: bool },
}

/// What becomes of a backfill that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Its slice was read: it goes to the end of the line.
    Again,
    /// Its turn did not come: it goes on from the front of the line.
    Unread,
    Sleep(Sleep),
    Done,
}

/// Why a backfill was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many are pending.
    Crowded,
    /// Its consumer is gone.
    Gone,
}

/// What removing a backfill came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// It was taken out.
    Now,
    /// It runs: it is taken out when it is settled.
    WhenSettled,
    /// It is not there.
    Unknown,
}

#[derive(Debug)]
enum Status {
    Pending {
        _counted: Token,
    },
    Ready,
    /// The permit is shared by the group it runs in.
    Running {
        permit: Arc<Token>,
        is_removed: bool,
    },
    Snoozed,
}

#[derive(Debug)]
struct Task {
    consumer: ConsumerId,
    status: Status,
    /// Among all places, and among its consumer's.
    place: Option<(Token, Token)>,
    /// For sequential consumers.
    begun: Option<Token>,
}

#[derive(Debug)]
struct Queue {
    limits: Limits,
    /// All of its backfills, so that the consumer goes without a look at those of others.
    tasks: BTreeSet<BackfillId>,
    pending: VecDeque<BackfillId>,
    ready: VecDeque<BackfillId>,
    /// Snoozed ones that wait for room, in the order in which they came: each gets its turn.
    for_room: VecDeque<BackfillId>,
    places: Tally,
    permits: Tally,
    begun: Tally,
}

#[derive(Debug)]
pub(super) struct Queues {
    places_max: usize,
    pending_max: usize,
    places: Tally,
    pending: Tally,
    tasks: HashMap<BackfillId, Task>,
    consumers: BTreeMap<ConsumerId, Queue>,
    /// Consumers with a ready backfill and a permit for it.
    runnable: BTreeSet<ConsumerId>,
    /// Consumers with a pending backfill that could begin if there is a place.
    waiting: BTreeSet<ConsumerId>,
    /// Whose turn was last, to run and to begin.
    ran: Option<ConsumerId>,
    began: Option<ConsumerId>,
}

impl Queues {
    pub(super) fn new(places_max: usize, pending_max: usize) -> Self {
        Self {
            places_max,
            pending_max,
            places: Tally::default(),
            pending: Tally::default(),
            tasks: HashMap::new(),
            consumers: BTreeMap::new(),
            runnable: BTreeSet::new(),
            waiting: BTreeSet::new(),
            ran: None,
            began: None,
        }
    }

    pub(super) fn add_consumer(&mut self, consumer: ConsumerId, limits: Limits) {
        let queue = Queue {
            limits,
            tasks: BTreeSet::new(),
            pending: VecDeque::new(),
            ready: VecDeque::new(),
            for_room: VecDeque::new(),
            places: Tally::default(),
            permits: Tally::default(),
            begun: Tally::default(),
        };
        let before = self.consumers.insert(consumer, queue);
        assert!(before.is_none(), "a consumer is added twice");
    }

    /// Removes a consumer and its backfills. Returns those that do not run; one that runs leaves when
    /// it is settled.
    pub(super) fn remove_consumer(&mut self, consumer: ConsumerId) -> Vec<BackfillId> {
        let Some(queue) = self.consumers.remove(&consumer) else {
            return Vec::new();
        };
        self.runnable.remove(&consumer);
        self.waiting.remove(&consumer);
        let mut removed = Vec::new();
        for id in queue.tasks {
            if let Status::Running { is_removed, .. } = &mut self.task(id).status {
                *is_removed = true;
            } else {
                self.tasks.remove(&id);
                removed.push(id);
            }
        }
        self.begin_waiting();
        removed
    }

    /// Takes a backfill in. It gets a place if there is one, else it is pending.
    pub(super) fn submit(
        &mut self,
        consumer: ConsumerId,
        id: BackfillId,
        may_be_refused: bool,
    ) -> Result<(), Refusal> {
        let Some(queue) = self.consumers.get_mut(&consumer) else {
            return Err(Refusal::Gone);
        };
        let has_place = queue.may_begin() && self.places.out() < self.places_max;
        // Those that wait begin first.
        let waits = !has_place || !queue.pending.is_empty();
        if waits && may_be_refused && self.pending.out() >= self.pending_max {
            return Err(Refusal::Crowded);
        }
        queue.pending.push_back(id);
        queue.tasks.insert(id);
        let task = Task {
            consumer,
            status: Status::Pending {
                _counted: self.pending.take(),
            },
            place: None,
            begun: None,
        };
        let before = self.tasks.insert(id, task);
        assert!(before.is_none(), "a backfill is submitted twice");
        self.refresh(consumer);
        self.begin_waiting();
        Ok(())
    }

    /// Takes the next backfill to run: consumers take turns.
    pub(super) fn pick(&mut self) -> Option<BackfillId> {
        let consumer = next_in_turn(&self.runnable, self.ran)?;
        self.ran = Some(consumer);
        let permit = Arc::new(self.queue(consumer).permits.take());
        self.run_first(consumer, permit)
    }

    /// Takes another ready backfill of the consumer of one that was just picked, to be read through
    /// the same db snapshot: it needs no permit of its own.
    pub(super) fn pick_beside(&mut self, picked: BackfillId) -> Option<BackfillId> {
        let task = self.tasks.get(&picked)?;
        let Status::Running { permit, .. } = &task.status else {
            return None;
        };
        let (consumer, permit) = (task.consumer, Arc::clone(permit));
        let queue = self.consumers.get(&consumer)?;
        if queue.ready.is_empty() {
            return None;
        }
        self.run_first(consumer, permit)
    }

    fn run_first(&mut self, consumer: ConsumerId, permit: Arc<Token>) -> Option<BackfillId> {
        let id = self.queue(consumer).ready.pop_front();
        // Runnable means that there is one.
        assert!(id.is_some(), "a runnable consumer with nothing ready");
        let id = id?;
        self.task(id).status = Status::Running {
            permit,
            is_removed: false,
        };
        self.refresh(consumer);
        Some(id)
    }

    /// Notes what becomes of a backfill that ran. Returns false if it was removed meanwhile, or is
    /// done: it is forgotten.
    pub(super) fn settle(&mut self, id: BackfillId, then: Then) -> bool {
        let task = self.task(id);
        let consumer = task.consumer;
        let Status::Running { is_removed, .. } = task.status else {
            unreachable!("{id:?} is settled and does not run");
        };
        let stays = !is_removed && then != Then::Done && self.consumers.contains_key(&consumer);
        if !stays {
            self.tasks.remove(&id);
            // Its consumer may be gone.
            if let Some(queue) = self.consumers.get_mut(&consumer) {
                queue.tasks.remove(&id);
            }
        } else if let Then::Sleep(sleep) = then {
            let task = self.task(id);
            // The permit goes back with the status.
            task.status = Status::Snoozed;
            match sleep {
                Sleep::Room => {
                    task.place = None;
                    self.queue(consumer).for_room.push_back(id);
                }
                Sleep::Durable { keeps_place: false } => task.place = None,
                Sleep::Durable { keeps_place: true } => {}
            }
        } else {
            self.task(id).status = Status::Ready;
            let queue = self.queue(consumer);
            match queue.limits.order {
                Order::RoundRobin if then == Then::Again => queue.ready.push_back(id),
                Order::RoundRobin | Order::Sequential => queue.ready.push_front(id),
            }
        }
        self.refresh(consumer);
        self.begin_waiting();
        stays
    }

    /// Makes a snoozed backfill ready. Returns false if it is not snoozed.
    pub(super) fn wake(&mut self, id: BackfillId) -> bool {
        let is_snoozed = |task: &Task| matches!(task.status, Status::Snoozed);
        if !self.tasks.get(&id).is_some_and(is_snoozed) {
            return false;
        }
        let all = self.places.take();
        let task = self.task(id);
        let consumer = task.consumer;
        task.status = Status::Ready;
        let has_place = task.place.is_some();
        let queue = self.queue(consumer);
        queue.for_room.retain(|waiting| *waiting != id);
        queue.ready.push_back(id);
        if !has_place {
            let own = queue.places.take();
            self.task(id).place = Some((all, own));
        }
        self.refresh(consumer);
        true
    }

    /// Returns the backfills of a consumer that wait for room and are to be woken: as many as it may
    /// run at once, each of which passes on what it leaves ([`Self::next_for_room`]).
    pub(super) fn waiting_for_room(&self, consumer: ConsumerId) -> Vec<BackfillId> {
        let Some(queue) = self.consumers.get(&consumer) else {
            return Vec::new();
        };
        let count = queue.limits.slices_max;
        queue.for_room.iter().take(count).copied().collect()
    }

    /// Returns the backfill of a consumer that has waited for room longest.
    pub(super) fn next_for_room(&self, consumer: ConsumerId) -> Option<BackfillId> {
        self.consumers.get(&consumer)?.for_room.front().copied()
    }

    /// Removes a backfill, whatever it does.
    pub(super) fn remove(&mut self, id: BackfillId) -> Removed {
        let Some(task) = self.tasks.get_mut(&id) else {
            return Removed::Unknown;
        };
        if let Status::Running { is_removed, .. } = &mut task.status {
            *is_removed = true;
            return Removed::WhenSettled;
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
        Removed::Now
    }

    /// Returns what a backfill is doing, if it is there.
    pub(super) fn state(&self, id: BackfillId) -> Option<StreamState> {
        self.tasks.get(&id).map(|task| match task.status {
            Status::Pending { .. } => StreamState::Pending,
            Status::Ready => StreamState::Ready,
            Status::Running { .. } => StreamState::Running,
            Status::Snoozed => StreamState::Snoozed,
        })
    }

    pub(super) fn lengths(&self) -> QueueLengths {
        let mut lengths = QueueLengths::default();
        for task in self.tasks.values() {
            *match task.status {
                Status::Pending { .. } => &mut lengths.pending,
                Status::Ready => &mut lengths.ready,
                Status::Running { .. } => &mut lengths.running,
                Status::Snoozed => &mut lengths.snoozed,
            } += 1;
        }
        lengths
    }

    /// Gives free places to pending backfills: consumers take turns.
    fn begin_waiting(&mut self) {
        while self.places.out() < self.places_max
            && let Some(consumer) = next_in_turn(&self.waiting, self.began)
        {
            self.began = Some(consumer);
            let all = self.places.take();
            let queue = self.queue(consumer);
            let own = queue.places.take();
            let begun = queue.begun.take();
            let id = queue.pending.pop_front();
            assert!(id.is_some(), "a waiting consumer with nothing pending");
            if let Some(id) = id {
                queue.ready.push_back(id);
                let task = self.task(id);
                task.status = Status::Ready;
                task.place = Some((all, own));
                task.begun = Some(begun);
            }
            self.refresh(consumer);
        }
    }

    /// Derives what a consumer may do now. To be called after each change of it or of its backfills.
    fn refresh(&mut self, consumer: ConsumerId) {
        let Some(queue) = self.consumers.get(&consumer) else {
            return;
        };
        let may_run = !queue.ready.is_empty() && queue.permits.out() < queue.limits.slices_max;
        let may_begin = !queue.pending.is_empty() && queue.may_begin();
        set(&mut self.runnable, consumer, may_run);
        set(&mut self.waiting, consumer, may_begin);
    }

    #[expect(clippy::expect_used, reason = "a listed task is there")]
    fn task(&mut self, id: BackfillId) -> &mut Task {
        self.tasks
            .get_mut(&id)
            .expect("a listed backfill that is not there")
    }

    #[expect(clippy::expect_used, reason = "the consumer of a listed task is there")]
    fn queue(&mut self, consumer: ConsumerId) -> &mut Queue {
        let queue = self.consumers.get_mut(&consumer);
        queue.expect("a listed consumer that is not there")
    }
}

impl Queue {
    /// Returns whether its own limits let another backfill begin.
    fn may_begin(&self) -> bool {
        match self.limits.order {
            Order::RoundRobin => self.places.out() < self.limits.backfills_max,
            Order::Sequential => self.begun.out() == 0,
        }
    }
}

fn set(set: &mut BTreeSet<ConsumerId>, consumer: ConsumerId, is_in: bool) {
    if is_in {
        set.insert(consumer);
    } else {
        set.remove(&consumer);
    }
}

/// Returns the consumer after the last one, round about.
fn next_in_turn(set: &BTreeSet<ConsumerId>, last: Option<ConsumerId>) -> Option<ConsumerId> {
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let mut later = set.range((after, Bound::Unbounded));
    later.next().or_else(|| set.first()).copied()
}

#[cfg(test)]
mod tests;
