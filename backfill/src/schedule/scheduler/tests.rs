use super::*;
use crate::config::BackfillOrder;
use crate::delivery::Charge;
use crate::stream::Ids;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use vbstore_core::{ManualClock, Seqno, Visibility};

const C: ConsumerId = Ids::test_consumer(1);
const DURABLE: Snooze = Snooze::Durable {
    visibility: Visibility::Synced,
    above: Seqno::ZERO,
};
/// How long to wait for a thread that must be woken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A task that does nothing.
#[derive(Debug)]
struct Idle {
    id: BackfillId,
    watcher: Option<Arc<Watched>>,
}

/// The watcher of a task. Keeps the waker for the test to call.
#[derive(Debug)]
struct Watched {
    waker: Waker,
    is_durable: AtomicBool,
}

impl ScheduledTask for Idle {
    type Watcher = Watched;

    fn id(&self) -> BackfillId {
        self.id
    }

    fn consumer(&self) -> ConsumerId {
        C
    }

    fn set_queued(&mut self) {}

    fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<Watched> {
        let new = || {
            Arc::new(Watched {
                waker: make(),
                is_durable: AtomicBool::new(false),
            })
        };
        Arc::clone(self.watcher.get_or_insert_with(new))
    }

    fn watch(watcher: &Watched, _: Visibility, _: Seqno) -> bool {
        !watcher.is_durable.load(Ordering::SeqCst)
    }
}

/// A scheduler with one consumer, whose buffer has room for two slices of 1,000 bytes.
fn scheduler(slices_max: usize) -> Arc<Scheduler<Idle>> {
    let scheduler = Scheduler::new(4, 4, 1 << 20, Arc::new(ManualClock::new()));
    let limits = ConsumerLimits {
        order: BackfillOrder::RoundRobin,
        backfills_max: 4,
        slices_max,
    };
    scheduler.buffers().add_consumer(C, 2_000, 25, 2);
    scheduler.buffers().visit(C, true);
    scheduler.add_consumer(C, limits);
    scheduler
}

/// Fills the consumer's buffer.
fn full(scheduler: &Scheduler<Idle>) -> [Charge; 2] {
    let buffers = scheduler.buffers();
    let charges = [1, 2].map(|_| buffers.reserve(C, 1_000).unwrap());
    assert!(buffers.reserve(C, 1_000).is_err());
    charges
}

fn submit(scheduler: &Scheduler<Idle>, number: u64) {
    let id = Ids::test_backfill(number);
    let idle = Box::new(Idle { id, watcher: None });
    scheduler.submit(idle, true).unwrap();
}

/// Picks the next backfill. Panics if none is ready.
fn run(scheduler: &Scheduler<Idle>) -> Idle {
    let mut group = scheduler.try_next(1);
    scheduler.check();
    *group.pop().expect("no backfill is ready")
}

fn settle(scheduler: &Scheduler<Idle>, outcome: InvocationOutcome<Idle>, id: BackfillId) {
    scheduler.settle(id, C, outcome, || false);
    scheduler.check();
}

fn snooze(scheduler: &Scheduler<Idle>, backfill: Idle, snooze: Snooze) {
    let id = backfill.id;
    settle(
        scheduler,
        InvocationOutcome::Snooze(Box::new(backfill), snooze),
        id,
    );
}

/// Finishes the ready backfills, which must be these, and asserts that nothing is left.
fn end(scheduler: &Scheduler<Idle>, numbers: &[u64]) {
    for number in numbers {
        let backfill = run(scheduler);
        assert_eq!(backfill.id, Ids::test_backfill(*number));
        settle(scheduler, InvocationOutcome::Done, backfill.id);
    }
    assert!(scheduler.try_next(1).is_empty());
    scheduler.assert_nothing_left();
}

#[test]
fn a_snoozed_backfill_is_ready_once_its_waker_is_called() {
    let s = scheduler(4);
    submit(&s, 1);
    let mut backfill = run(&s);
    let watched = backfill.watcher(|| s.waker(Ids::test_backfill(1)));
    snooze(&s, backfill, DURABLE);
    assert_eq!(s.lengths().snoozed, 1);
    assert!(s.try_next(1).is_empty(), "nothing has woken it");

    watched.waker.wake_by_ref();

    assert_eq!(s.lengths().ready, 1);
    // A second call has no effect.
    watched.waker.wake_by_ref();
    end(&s, &[1]);
    watched.waker.wake_by_ref();
    s.assert_nothing_left();
}

#[test]
fn a_condition_that_holds_before_the_snooze_wakes_the_backfill() {
    let s = scheduler(4);
    submit(&s, 1);
    let mut backfill = run(&s);
    let watched = backfill.watcher(|| s.waker(Ids::test_backfill(1)));
    // The waker is called while the backfill runs, so it wakes nothing.
    watched.is_durable.store(true, Ordering::SeqCst);
    watched.waker.wake_by_ref();
    snooze(&s, backfill, DURABLE);
    end(&s, &[1]);

    // Room became available while it ran.
    submit(&s, 2);
    let backfill = run(&s);
    let charges = full(&s);
    drop(charges);
    snooze(&s, backfill, Snooze::Room);
    end(&s, &[2]);
}

#[test]
fn room_wakes_those_that_wait_for_it() {
    let s = scheduler(4);
    let charges = full(&s);
    for number in [1, 2] {
        submit(&s, number);
        snooze(&s, run(&s), Snooze::Room);
    }
    assert_eq!(s.lengths().snoozed, 2);

    drop(charges);

    assert_eq!(s.lengths().ready, 2);
    end(&s, &[1, 2]);
}

#[test]
fn a_backfill_woken_for_room_passes_on_the_rest() {
    for is_removed in [false, true] {
        // Only one backfill is woken at a time.
        let s = scheduler(1);
        let charges = full(&s);
        for number in [1, 2] {
            submit(&s, number);
            snooze(&s, run(&s), Snooze::Room);
        }
        drop(charges);
        assert_eq!((s.lengths().ready, s.lengths().snoozed), (1, 1));
        if is_removed {
            s.remove(Ids::test_backfill(1), C);
        } else {
            settle(&s, InvocationOutcome::Done, run(&s).id);
        }
        assert_eq!((s.lengths().ready, s.lengths().snoozed), (1, 0));
        end(&s, &[2]);
    }
}

/// Runs `wakes` while a thread waits, or is about to wait, for a backfill. Returns what that thread
/// received.
fn next_after(s: &Arc<Scheduler<Idle>>, wakes: impl FnOnce()) -> NextGroup<Idle> {
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("worker".to_owned());
        let next = || {
            ready.wait();
            s.next(1, PATIENCE)
        };
        let worker = worker.spawn_scoped(scope, next).unwrap();
        ready.wait();
        for _ in 0..20 {
            std::thread::yield_now();
        }
        wakes();
        worker.join().unwrap()
    })
}

/// Returns the backfill that a worker was woken for.
fn woken(next: NextGroup<Idle>, what: &str) -> Idle {
    let NextGroup::Run(mut group) = next else {
        panic!("{what}, but no worker was woken: {next:?}");
    };
    *group.pop().unwrap()
}

#[test]
fn whatever_makes_a_backfill_ready_wakes_a_worker() {
    // The worker may or may not wait already; in some of the rounds it does.
    for _ in 0..100 {
        let s = scheduler(4);
        let next = next_after(&s, || submit(&s, 1));
        let mut backfill = woken(next, "a backfill was submitted");
        let watched = backfill.watcher(|| s.waker(Ids::test_backfill(1)));
        snooze(&s, backfill, DURABLE);
        let next = next_after(&s, || watched.waker.wake_by_ref());
        let backfill = woken(next, "what a backfill waited for is durable");
        let charges = full(&s);
        snooze(&s, backfill, Snooze::Room);
        let next = next_after(&s, || drop(charges));
        drop(woken(next, "room became available"));
        settle(&s, InvocationOutcome::Done, Ids::test_backfill(1));
        let next = next_after(&s, || s.stop());
        assert!(matches!(next, NextGroup::Stop), "{next:?}");
        s.assert_nothing_left();
    }
}
