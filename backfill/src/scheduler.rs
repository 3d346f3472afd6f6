//! Which backfill runs next.
//!
//! # States
//! ```text
//! pending -> ready -> running -> ready | snoozed | done
//!                     snoozed -> ready                     by a message, never by polling
//! ```
//! - *Pending*: not begun, because too many are under way; holds nothing. The queue is bounded:
//!   opening a stream is refused when it is full. A stream whose cursor was dropped is never refused.
//! - *Running* is the permit: a worker has it. There are as many as workers; a consumer may have only
//!   some of them, so that none can occupy all.
//! - *Snoozed*: waits for room in its buffer or for durability. Holds no permit. One that waits for
//!   room does not count as under way either: a frozen consumer takes no place from others.
//!
//! Consumers take turns; within one the order is round robin or sequential. A sequential consumer has
//! one backfill that may run, until it is over.
//!
//! # Protocol
//! One lock over all queues; nothing is called, woken or dropped under it that takes another lock, but
//! that of an account, under which this one is never taken.
//! A backfill is put among the snoozed *before* its wake-up is registered (or its condition looked at
//! again), so whoever wakes it finds it.

use crate::account::OnRoom;
use crate::config::{ConsumerConfig, Order};
use crate::stream::{StreamShared, StreamState};
use crate::task::{Backfill, Outcome, Snooze};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Scheduler {
    backfills_max: usize,
    pending_max: usize,
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
    me: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    consumers: HashMap<u64, Queue>,
    /// Consumers that may have something to run, each at most once.
    turn: VecDeque<u64>,
    /// Backfills ready, running, or snoozed for durability.
    under_way: usize,
    pending: usize,
    is_stopped: bool,
}

#[derive(Debug)]
struct Queue {
    order: Order,
    backfills_max: usize,
    slices_max: usize,
    ready: VecDeque<Box<Backfill>>,
    pending: VecDeque<Box<Backfill>>,
    snoozed: HashMap<u64, Sleeping>,
    /// Those among them that wait for room, in the order in which they came: each gets its turn.
    for_room: VecDeque<u64>,
    running: usize,
    under_way: usize,
    /// The one that runs to its end, if the order is sequential.
    current: Option<u64>,
    is_in_turn: bool,
    /// The consumer is gone: what comes back from a worker is dropped.
    is_gone: bool,
}

#[derive(Debug)]
struct Sleeping {
    backfill: Box<Backfill>,
    is_for_room: bool,
}

/// What a worker is to do.
#[derive(Debug)]
pub(crate) enum Next {
    /// Run this.
    Run(Box<Backfill>),
    /// The time is over.
    Late,
    /// End.
    Stop,
}

/// How many backfills are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueLengths {
    pub(crate) pending: usize,
    pub(crate) ready: usize,
    pub(crate) running: usize,
    pub(crate) snoozed: usize,
}

impl Scheduler {
    pub(crate) fn new(workers: usize, backfills_max: usize, pending_max: usize) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            backfills_max,
            pending_max,
            workers,
            state: Mutex::default(),
            changed: Condvar::new(),
            me: Weak::clone(me),
        })
    }

    pub(crate) fn add_consumer(&self, number: u64, config: &ConsumerConfig) {
        let all_but_one = self.workers.saturating_sub(1).max(1);
        let queue = Queue {
            order: config.order,
            backfills_max: config.backfills_max,
            slices_max: config.slices_max.unwrap_or(all_but_one),
            ready: VecDeque::new(),
            pending: VecDeque::new(),
            snoozed: HashMap::new(),
            for_room: VecDeque::new(),
            running: 0,
            under_way: 0,
            current: None,
            is_in_turn: false,
            is_gone: false,
        };
        self.state.lock().consumers.insert(number, queue);
    }

    /// Drops everything of a consumer that is gone. What is running is dropped when it comes back.
    pub(crate) fn remove_consumer(&self, number: u64) {
        let mut state = self.state.lock();
        let Some(queue) = state.consumers.get_mut(&number) else {
            return;
        };
        queue.is_gone = true;
        let ready = std::mem::take(&mut queue.ready);
        let pending = std::mem::take(&mut queue.pending);
        let snoozed = std::mem::take(&mut queue.snoozed);
        let running = queue.running;
        let ended = queue.under_way.saturating_sub(running);
        queue.under_way = running;
        if running == 0 {
            state.consumers.remove(&number);
        }
        state.under_way = state.under_way.saturating_sub(ended);
        state.pending = state.pending.saturating_sub(pending.len());
        state.wake_waiting();
        drop(state);
        self.changed.notify_all();
        drop((ready, pending, snoozed));
    }

    /// Takes a backfill in. Gives it back if too many wait and it `may_be_refused`, or if the
    /// consumer is gone.
    pub(crate) fn submit(
        &self,
        backfill: Box<Backfill>,
        may_be_refused: bool,
    ) -> Result<(), Box<Backfill>> {
        let mut state = self.state.lock();
        let has_room = state.under_way < self.backfills_max;
        let is_crowded = state.pending >= self.pending_max;
        let consumer = backfill.stream.consumer;
        let Some(queue) = state.consumers.get_mut(&consumer) else {
            return Err(backfill);
        };
        if queue.is_gone {
            return Err(backfill);
        }
        let begins = has_room && queue.under_way < queue.backfills_max && queue.pending.is_empty();
        if !begins && is_crowded && may_be_refused {
            return Err(backfill);
        }
        // Whether it may begin is decided when its turn comes.
        backfill.stream.set_state(StreamState::Pending);
        queue.pending.push_back(backfill);
        state.pending = state.pending.saturating_add(1);
        state.give_turn(consumer);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for something to run, up to `timeout`. The caller must give what it gets back with
    /// [`Self::settle`].
    pub(crate) fn next(&self, timeout: Duration) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.is_stopped {
                return Next::Stop;
            }
            if let Some(backfill) = state.pick(self.backfills_max) {
                backfill.stream.set_state(StreamState::Running);
                return Next::Run(backfill);
            }
            if self.changed.wait_for(&mut state, timeout).timed_out() {
                return Next::Late;
            }
        }
    }

    /// The same without waiting.
    pub(crate) fn try_next(&self) -> Option<Box<Backfill>> {
        let backfill = self.state.lock().pick(self.backfills_max)?;
        backfill.stream.set_state(StreamState::Running);
        Some(backfill)
    }

    /// A worker has run one invocation of a stream's backfill.
    pub(crate) fn settle(&self, stream: &Arc<StreamShared>, outcome: Outcome) {
        let (number, consumer) = (stream.number, stream.consumer);
        let mut asleep = None;
        let mut dropped = None;
        let mut state = self.state.lock();
        let Some(queue) = state.consumers.get_mut(&consumer) else {
            return;
        };
        queue.running = queue.running.saturating_sub(1);
        let mut leaves = false;
        match outcome {
            // Closed while it ran: whoever closed it did not find it among those that wait.
            _ if queue.is_gone || stream.is_closed() => {
                leaves = true;
                dropped = Some(outcome);
                if queue.current == Some(number) {
                    queue.current = None;
                }
            }
            Outcome::Again(mut backfill) => {
                if !stream.is_closed() {
                    stream.set_state(StreamState::Ready);
                }
                backfill.set_queued();
                match queue.order {
                    Order::RoundRobin => queue.ready.push_back(backfill),
                    Order::Sequential => queue.ready.push_front(backfill),
                }
            }
            Outcome::Snooze(backfill, snooze) => {
                if !stream.is_closed() {
                    stream.set_state(StreamState::Snoozed);
                }
                let is_for_room = matches!(snooze, Snooze::Room);
                leaves = is_for_room;
                let sleeping = Sleeping {
                    backfill,
                    is_for_room,
                };
                queue.snoozed.insert(number, sleeping);
                if is_for_room {
                    queue.for_room.push_back(number);
                }
                asleep = Some(snooze);
            }
            Outcome::Done => {
                leaves = true;
                if queue.current == Some(number) {
                    queue.current = None;
                }
            }
        }
        if leaves {
            queue.under_way = queue.under_way.saturating_sub(1);
        }
        if queue.is_gone && queue.running == 0 {
            state.consumers.remove(&consumer);
        }
        if leaves {
            state.under_way = state.under_way.saturating_sub(1);
            state.wake_waiting();
        }
        state.give_turn(consumer);
        drop(state);
        drop(dropped);
        self.changed.notify_one();
        match asleep {
            Some(Snooze::Room) => self.register(stream, Snooze::Room),
            Some(snooze) => {
                self.register(stream, snooze);
                self.pass_on_room(stream);
            }
            None => self.pass_on_room(stream),
        }
    }

    /// Wakes the next that waits for room, if there is some left after this one.
    fn pass_on_room(&self, stream: &StreamShared) {
        if stream.account.is_still_full() {
            return;
        }
        let mut state = self.state.lock();
        let woken = state
            .consumers
            .get_mut(&stream.consumer)
            .map_or(0, |queue| queue.wake_for_room(1, false));
        if woken == 0 {
            return;
        }
        state.under_way = state.under_way.saturating_add(woken);
        state.give_turn(stream.consumer);
        drop(state);
        self.changed.notify_one();
    }

    /// Sees to it that a snoozed backfill is woken; at once if its condition holds by now.
    fn register(&self, stream: &Arc<StreamShared>, snooze: Snooze) {
        let is_asleep = match snooze {
            Snooze::Room => stream.account.is_still_full(),
            Snooze::Durable { visibility, above } => {
                let waker = stream.backfill_waker(|| {
                    Waker::from(Arc::new(SnoozeWaker {
                        scheduler: Weak::clone(&self.me),
                        consumer: stream.consumer,
                        number: stream.number,
                    }))
                });
                let generation = stream.generation;
                stream.feed.watch(generation, visibility, above, waker)
            }
        };
        if !is_asleep {
            self.wake(stream.consumer, stream.number);
        }
    }

    /// Makes a snoozed backfill ready.
    fn wake(&self, consumer: u64, number: u64) {
        let mut state = self.state.lock();
        let Some(queue) = state.consumers.get_mut(&consumer) else {
            return;
        };
        let Some(sleeping) = queue.snoozed.remove(&number) else {
            return;
        };
        queue.for_room.retain(|waiting| *waiting != number);
        let counts_again = queue.make_ready(sleeping);
        state.under_way = state.under_way.saturating_add(usize::from(counts_again));
        state.give_turn(consumer);
        drop(state);
        self.changed.notify_one();
    }

    /// Ends what is known of a stream that was closed; what runs ends by itself.
    pub(crate) fn remove(&self, consumer: u64, number: u64) {
        let mut state = self.state.lock();
        let Some(queue) = state.consumers.get_mut(&consumer) else {
            return;
        };
        let mut dropped: Vec<Box<Backfill>> = Vec::new();
        let (mut pending, mut under_way) = (0_usize, 0_usize);
        let place = queue.pending.iter().position(|b| b.stream.number == number);
        if let Some(backfill) = place.and_then(|at| queue.pending.remove(at)) {
            pending = 1;
            dropped.push(backfill);
        }
        let place = queue.ready.iter().position(|b| b.stream.number == number);
        if let Some(backfill) = place.and_then(|at| queue.ready.remove(at)) {
            under_way = 1;
            dropped.push(backfill);
        }
        if let Some(sleeping) = queue.snoozed.remove(&number) {
            queue.for_room.retain(|waiting| *waiting != number);
            under_way = usize::from(!sleeping.is_for_room);
            dropped.push(sleeping.backfill);
        }
        if !dropped.is_empty() && queue.current == Some(number) {
            queue.current = None;
        }
        queue.under_way = queue.under_way.saturating_sub(under_way);
        state.under_way = state.under_way.saturating_sub(under_way);
        state.pending = state.pending.saturating_sub(pending);
        if under_way > 0 {
            state.wake_waiting();
        }
        state.give_turn(consumer);
        drop(state);
        self.changed.notify_one();
        // It may have been the one that was to pass on room.
        for backfill in &dropped {
            self.pass_on_room(&backfill.stream);
        }
        drop(dropped);
    }

    /// Ends: workers stop, everything that waits is dropped.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        let consumers = std::mem::take(&mut state.consumers);
        drop(state);
        self.changed.notify_all();
        drop(consumers);
    }

    pub(crate) fn lengths(&self) -> QueueLengths {
        let state = self.state.lock();
        let mut lengths = QueueLengths {
            pending: state.pending,
            ..QueueLengths::default()
        };
        for queue in state.consumers.values() {
            lengths.ready = lengths.ready.saturating_add(queue.ready.len());
            lengths.running = lengths.running.saturating_add(queue.running);
            lengths.snoozed = lengths.snoozed.saturating_add(queue.snoozed.len());
        }
        lengths
    }
}

impl OnRoom for Scheduler {
    fn room(&self, consumer: Option<u64>) {
        let mut state = self.state.lock();
        let State {
            consumers,
            under_way,
            ..
        } = &mut *state;
        let mut woken = Vec::new();
        let chosen = consumers
            .iter_mut()
            .filter(|(number, _)| consumer.is_none_or(|only| only == **number));
        for (number, queue) in chosen {
            // As many as can run; each that finds room wakes the next.
            let count = queue.wake_for_room(queue.slices_max, consumer.is_none());
            if count > 0 {
                *under_way = under_way.saturating_add(count);
                woken.push(*number);
            }
        }
        for number in woken {
            state.give_turn(number);
        }
        drop(state);
        self.changed.notify_all();
    }
}

impl State {
    fn give_turn(&mut self, consumer: u64) {
        let Some(queue) = self.consumers.get_mut(&consumer) else {
            return;
        };
        let is_idle = queue.ready.is_empty() && queue.pending.is_empty();
        if !queue.is_in_turn && !is_idle {
            queue.is_in_turn = true;
            self.turn.push_back(consumer);
        }
    }

    /// There is a place again: consumers that had none may look again.
    fn wake_waiting(&mut self) {
        let waiting: Vec<u64> = self
            .consumers
            .iter()
            .filter(|(_, queue)| !queue.pending.is_empty())
            .map(|(number, _)| *number)
            .collect();
        for consumer in waiting {
            self.give_turn(consumer);
        }
    }

    /// Takes the next backfill: the first consumer in turn that may run one.
    fn pick(&mut self, backfills_max: usize) -> Option<Box<Backfill>> {
        while let Some(consumer) = self.turn.pop_front() {
            let has_room = self.under_way < backfills_max;
            let Some(queue) = self.consumers.get_mut(&consumer) else {
                continue;
            };
            queue.is_in_turn = false;
            let Some((backfill, is_new)) = queue.pick(has_room) else {
                // Whoever changes what it lacked gives it its turn again.
                continue;
            };
            if is_new {
                self.pending = self.pending.saturating_sub(1);
                self.under_way = self.under_way.saturating_add(1);
            }
            self.give_turn(consumer);
            return Some(backfill);
        }
        None
    }
}

impl Queue {
    /// Takes the next backfill, and whether it has just begun.
    fn pick(&mut self, has_room: bool) -> Option<(Box<Backfill>, bool)> {
        if self.running >= self.slices_max {
            return None;
        }
        let may_begin = has_room
            && self.under_way < self.backfills_max
            && (self.order == Order::RoundRobin || self.current.is_none());
        // A new one goes first: it has read nothing yet, and may find memory all it needs.
        let (backfill, is_new) = if may_begin && !self.pending.is_empty() {
            (self.pending.pop_front()?, true)
        } else {
            (self.ready.pop_front()?, false)
        };
        if is_new {
            self.under_way = self.under_way.saturating_add(1);
        }
        if self.order == Order::Sequential {
            self.current = Some(backfill.stream.number);
        }
        self.running = self.running.saturating_add(1);
        Some((backfill, is_new))
    }

    /// Makes ready the first of those that wait for room; returns how many.
    fn wake_for_room(&mut self, count: usize, is_total: bool) -> usize {
        let mut woken = 0_usize;
        while woken < count {
            let Some(number) = self.for_room.pop_front() else {
                break;
            };
            let Some(sleeping) = self.snoozed.remove(&number) else {
                continue;
            };
            if is_total {
                sleeping.backfill.stream.account.try_again();
            }
            self.make_ready(sleeping);
            woken = woken.saturating_add(1);
        }
        woken
    }

    /// Returns whether it counts as under way again.
    fn make_ready(&mut self, sleeping: Sleeping) -> bool {
        let Sleeping {
            mut backfill,
            is_for_room,
        } = sleeping;
        if !backfill.stream.is_closed() {
            backfill.stream.set_state(StreamState::Ready);
        }
        backfill.set_queued();
        self.ready.push_back(backfill);
        if is_for_room {
            self.under_way = self.under_way.saturating_add(1);
        }
        is_for_room
    }
}

/// Wakes a backfill that waits for durability.
#[derive(Debug)]
struct SnoozeWaker {
    scheduler: Weak<Scheduler>,
    consumer: u64,
    number: u64,
}

impl Wake for SnoozeWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(scheduler) = self.scheduler.upgrade() {
            scheduler.wake(self.consumer, self.number);
        }
    }
}
