use super::*;
use crate::stream::Ids;
use std::collections::HashSet;

const C: ConsumerId = Ids::test_consumer(1);
const D: ConsumerId = Ids::test_consumer(2);

const fn b(number: u64) -> BackfillId {
    Ids::test_backfill(number)
}

fn limits(order: BackfillOrder, backfills_max: usize, slices_max: usize) -> ConsumerLimits {
    ConsumerLimits {
        order,
        backfills_max,
        slices_max,
    }
}

fn queues(slots_max: usize, pending_max: usize) -> BackfillQueues {
    let mut queues = BackfillQueues::new(slots_max, pending_max);
    for consumer in [C, D] {
        queues.add_consumer(consumer, limits(BackfillOrder::RoundRobin, 64, 64));
    }
    queues
}

impl BackfillQueues {
    /// Asserts that every count matches the tokens of the tasks, and every queue their states.
    pub(in super::super) fn check(&self) {
        let mut slots = 0;
        let mut pending = 0;
        let mut by_consumer: HashMap<ConsumerId, (usize, usize)> = HashMap::new();
        let mut permits: HashMap<ConsumerId, HashSet<*const Token>> = HashMap::new();
        for (id, task) in &self.tasks {
            let (own_slots, own_begun) = by_consumer.entry(task.consumer).or_default();
            slots += usize::from(task.slot.is_some());
            *own_slots += usize::from(task.slot.is_some());
            *own_begun += usize::from(task.begun.is_some());
            let queue = self.consumers.get(&task.consumer);
            assert!(
                queue.is_none_or(|queue| queue.tasks.contains(id)),
                "{id:?} is not listed"
            );
            let is_in = |line: fn(&ConsumerQueue) -> &VecDeque<BackfillId>| {
                queue.map_or(0, |queue| line(queue).iter().filter(|o| *o == id).count())
            };
            let lines = [
                is_in(|queue| &queue.pending),
                is_in(|queue| &queue.ready),
                is_in(|queue| &queue.for_room),
            ];
            match &task.status {
                QueueStatus::Pending { .. } => {
                    pending += 1;
                    assert_eq!((lines, task.slot.is_some()), ([1, 0, 0], false));
                }
                QueueStatus::Ready => assert_eq!((lines, task.slot.is_some()), ([0, 1, 0], true)),
                QueueStatus::Running { permit, .. } => {
                    let of = permits.entry(task.consumer).or_default();
                    of.insert(Arc::as_ptr(permit));
                    assert_eq!((lines, task.slot.is_some()), ([0, 0, 0], true));
                }
                QueueStatus::Snoozed => assert_eq!((lines[0], lines[1]), (0, 0)),
            }
        }
        assert_eq!(self.slots.count(), slots, "slots");
        assert_eq!(self.pending.count(), pending, "pending");
        for (consumer, queue) in &self.consumers {
            let (own, begun) = by_consumer.get(consumer).copied().unwrap_or_default();
            assert_eq!(queue.slots.count(), own, "slots of a consumer");
            assert_eq!(queue.begun.count(), begun, "begun");
            let running = permits.get(consumer).map_or(0, HashSet::len);
            assert_eq!(queue.permits.count(), running, "permits");
            assert!(running <= queue.limits.slices_max);
            assert!(queue.tasks.iter().all(|id| self.tasks.contains_key(id)));
            for line in [&queue.pending, &queue.ready, &queue.for_room] {
                assert!(line.iter().all(|id| self.tasks.contains_key(id)));
            }
            let may_run = !queue.ready.is_empty() && running < queue.limits.slices_max;
            assert_eq!(self.runnable.contains(consumer), may_run, "turn");
            let may_begin = !queue.pending.is_empty() && queue.may_begin();
            assert_eq!(self.waiting.contains(consumer), may_begin, "turn to begin");
        }
        // No backfill that may begin waits while a slot is free.
        assert!(self.waiting.is_empty() || self.slots.count() >= self.slots_max);
    }

    /// Asserts that there are no tasks and no counts.
    pub(in super::super) fn assert_empty(&self) {
        self.check();
        assert_eq!(self.lengths(), QueueLengths::default());
        assert_eq!((self.slots.count(), self.pending.count()), (0, 0));
    }
}

#[test]
fn what_has_no_place_is_pending_and_only_that_counts_as_pending() {
    // While slots are free nothing is pending, so nothing is refused.
    let mut q = queues(256, 0);
    for n in 0..64 {
        q.submit(C, b(n), true).unwrap();
        q.check();
    }
    assert_eq!(q.lengths().ready, 64);
    assert_eq!(
        q.submit(C, b(64), true),
        Err(SubmitError::Crowded),
        "its own limit"
    );
    q.submit(D, b(65), true).unwrap();
    // The limit holds for any number of consumers.
    let mut q = BackfillQueues::new(1, 2);
    let mut accepted = 0;
    for n in 0..1_000 {
        let consumer = Ids::test_consumer(n);
        q.add_consumer(consumer, limits(BackfillOrder::RoundRobin, 64, 64));
        accepted += usize::from(q.submit(consumer, b(n), true).is_ok());
        q.check();
    }
    assert_eq!((accepted, q.lengths().pending), (3, 2));
    // A backfill of a stream that falls back to the disk is always accepted.
    q.submit(Ids::test_consumer(999), b(5_000), false).unwrap();
    q.check();
    assert_eq!(q.lengths().pending, 3);
}

#[test]
fn consumers_and_within_them_backfills_take_turns() {
    let mut q = queues(256, 0);
    for n in [10, 11, 12] {
        q.submit(C, b(n), true).unwrap();
    }
    q.submit(D, b(20), true).unwrap();
    let mut turns = Vec::new();
    for _ in 0..8 {
        let id = q.pick().unwrap();
        turns.push(id);
        assert!(q.settle(id, AfterRun::Again));
        q.check();
    }
    let expected = [10, 20, 11, 20, 12, 20, 10, 20].map(b);
    assert_eq!(turns, expected);
}

#[test]
fn a_new_backfill_does_not_pass_one_that_is_under_way() {
    let mut q = queues(256, 0);
    q.submit(C, b(1), true).unwrap();
    let mut long = 0;
    // Short backfills, each of which is replaced by a new one when it ends.
    let mut next = 100;
    q.submit(C, b(next), true).unwrap();
    for _ in 0..1_000 {
        let id = q.pick().unwrap();
        if id == b(1) {
            long += 1;
            q.settle(id, AfterRun::Again);
        } else {
            q.settle(id, AfterRun::Done);
            next += 1;
            q.submit(C, b(next), true).unwrap();
        }
        q.check();
    }
    assert_eq!(long, 500);
}

#[test]
fn a_sequential_consumer_reads_one_to_its_end() {
    let mut q = BackfillQueues::new(256, 100);
    q.add_consumer(C, limits(BackfillOrder::Sequential, 64, 64));
    for n in 0..3 {
        q.submit(C, b(n), true).unwrap();
    }
    assert_eq!((q.lengths().ready, q.lengths().pending), (1, 2));
    assert_eq!(q.pick(), Some(b(0)));
    assert_eq!(q.pick(), None);
    // It waits for room without a slot, and still no other one begins.
    q.settle(b(0), AfterRun::Sleep(QueuedSnooze::Room));
    q.check();
    assert_eq!(q.pick(), None);
    assert!(q.wake(b(0)));
    assert_eq!(q.pick(), Some(b(0)));
    q.settle(b(0), AfterRun::Done);
    q.check();
    assert_eq!(q.pick(), Some(b(1)));
    assert_eq!(q.remove(b(1)), RemoveOutcome::WhenSettled);
    assert!(!q.settle(b(1), AfterRun::Again));
    q.check();
    assert_eq!(q.pick(), Some(b(2)));
}

#[test]
fn a_backfill_that_waits_for_room_or_a_full_disk_has_no_slot() {
    for sleep in [
        QueuedSnooze::Room,
        QueuedSnooze::Durable { keeps_slot: false },
    ] {
        let mut q = queues(1, 10);
        q.submit(C, b(1), true).unwrap();
        q.submit(D, b(2), true).unwrap();
        assert_eq!(q.state(b(2)), Some(StreamState::Pending));
        assert_eq!(q.pick(), Some(b(1)));
        q.settle(b(1), AfterRun::Sleep(sleep));
        q.check();
        assert_eq!(q.pick(), Some(b(2)));
        // It resumes although no slot is free. After that, none begins until both are over.
        assert!(q.wake(b(1)));
        assert!(!q.wake(b(1)));
        q.submit(D, b(3), true).unwrap();
        q.check();
        q.settle(b(2), AfterRun::Done);
        assert_eq!(q.state(b(3)), Some(StreamState::Pending));
        assert_eq!(q.pick(), Some(b(1)));
        q.settle(b(1), AfterRun::Done);
        q.check();
        assert_eq!(q.pick(), Some(b(3)));
    }
    let mut q = queues(1, 10);
    q.submit(C, b(1), true).unwrap();
    q.submit(D, b(2), true).unwrap();
    q.pick();
    q.settle(
        b(1),
        AfterRun::Sleep(QueuedSnooze::Durable { keeps_slot: true }),
    );
    q.check();
    assert_eq!(q.pick(), None);
}

#[test]
fn a_group_runs_with_one_permit_until_the_last_of_it_is_settled() {
    let mut q = BackfillQueues::new(256, 0);
    q.add_consumer(C, limits(BackfillOrder::RoundRobin, 64, 1));
    for n in 0..4 {
        q.submit(C, b(n), true).unwrap();
    }
    assert_eq!(q.pick(), Some(b(0)));
    assert_eq!(q.pick_for_group(b(0)), Some(b(1)));
    assert_eq!(q.pick(), None, "one permit");
    q.check();
    q.settle(b(0), AfterRun::Done);
    assert_eq!(q.pick(), None);
    q.settle(b(1), AfterRun::Again);
    q.check();
    assert_eq!(q.pick(), Some(b(2)));
    assert_eq!(q.pick_for_group(b(2)), Some(b(3)));
    assert_eq!(q.pick_for_group(b(2)), Some(b(1)));
    assert_eq!(q.pick_for_group(b(2)), None);
}

#[test]
fn a_removed_consumer_leaves_nothing() {
    let mut q = queues(2, 10);
    for n in 0..4 {
        q.submit(C, b(n), true).unwrap();
    }
    q.submit(D, b(9), true).unwrap();
    assert_eq!(q.pick(), Some(b(0)));
    let mut removed = q.remove_consumer(C);
    removed.sort_unstable();
    assert_eq!(removed, [1, 2, 3].map(b));
    assert_eq!(q.pick(), Some(b(9)));
    assert!(!q.settle(b(0), AfterRun::Again));
    assert_eq!(q.submit(C, b(50), false), Err(SubmitError::Gone));
    q.check();
    q.settle(b(9), AfterRun::Done);
    q.check();
    q.assert_empty();
}

#[test]
#[should_panic(expected = "released twice")]
fn a_token_that_is_released_twice_panics() {
    let tally = Tally::default();
    let token = tally.take();
    // Simulates a miscount.
    let stolen = Token(Arc::clone(&tally.0));
    drop(token);
    drop(stolen);
}

/// A random number generator without a dependency. The walks are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// Random walks over all operations, with a full check after each step. At the end everything is
/// drained, so that every backfill must run to its end and none is forgotten.
#[test]
fn random_walks_keep_every_count_and_forget_nobody() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut q = BackfillQueues::new(1 + random.below(4), random.below(4));
        let consumers: Vec<ConsumerId> = (0..3).map(Ids::test_consumer).collect();
        for consumer in &consumers {
            let order = [BackfillOrder::RoundRobin, BackfillOrder::Sequential][random.below(2)];
            let own = limits(order, 1 + random.below(3), 1 + random.below(2));
            q.add_consumer(*consumer, own);
        }
        let mut running: Vec<BackfillId> = Vec::new();
        let mut known: Vec<BackfillId> = Vec::new();
        for step in 0..400 {
            match random.below(8) {
                0 | 1 => {
                    let id = b(step);
                    let consumer = consumers[random.below(3)];
                    if q.submit(consumer, id, random.below(2) == 0).is_ok() {
                        known.push(id);
                    }
                }
                2 | 3 => running.extend(q.pick()),
                4 => {
                    let beside = running.last().and_then(|id| q.pick_for_group(*id));
                    running.extend(beside);
                }
                5 if !running.is_empty() => {
                    let id = running.swap_remove(random.below(running.len()));
                    let sleeps = [
                        QueuedSnooze::Room,
                        QueuedSnooze::Durable { keeps_slot: true },
                        QueuedSnooze::Durable { keeps_slot: false },
                    ];
                    let then = match random.below(4) {
                        0 => AfterRun::Again,
                        1 => AfterRun::Unread,
                        2 => AfterRun::Sleep(sleeps[random.below(3)]),
                        _ => AfterRun::Done,
                    };
                    q.settle(id, then);
                }
                6 if !known.is_empty() => {
                    q.wake(known[random.below(known.len())]);
                }
                7 if !known.is_empty() && random.below(4) == 0 => {
                    q.remove(known[random.below(known.len())]);
                }
                _ => {}
            }
            q.check();
        }
        for id in running.drain(..) {
            q.settle(id, AfterRun::Done);
        }
        for id in known {
            q.wake(id);
        }
        while let Some(id) = q.pick() {
            q.settle(id, AfterRun::Done);
            q.check();
        }
        q.assert_empty();
    }
}
