//! Acknowledged writes have the durability that was asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{BackgroundTask, Change, Clock, Durability, Error, Seqno, SystemClock, Tuning};
use vbstore_tests::{TestStore, put, vb};

#[test]
fn each_durability_reaches_its_seqno_before_it_returns() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    let seqnos = || {
        let seqnos = vb.seqnos().unwrap();
        (
            seqnos.high.get(),
            seqnos.persisted.get(),
            seqnos.synced.get(),
        )
    };
    vb.write(Change::set("a", "1"), Durability::Memory).unwrap();
    assert_eq!(seqnos(), (1, 0, 0));
    vb.write(Change::set("b", "1"), Durability::Logged).unwrap();
    assert_eq!(seqnos(), (2, 2, 0));
    vb.write(Change::set("c", "1"), Durability::Synced).unwrap();
    assert_eq!(seqnos(), (3, 3, 3));
    store.finish(engine);
}

#[test]
fn a_sync_covers_unsynced_batches_of_other_vbuckets() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 1)
        .write(Change::set("a", "1"), Durability::Logged)
        .unwrap();
    assert_eq!(vb(&engine, 1).seqnos().unwrap().synced.get(), 0);

    vb(&engine, 0)
        .write(Change::set("a", "1"), Durability::Synced)
        .unwrap();

    assert_eq!(vb(&engine, 1).seqnos().unwrap().synced.get(), 1);
    store.finish(engine);
}

#[test]
fn wait_synced_asks_for_the_sync_and_refuses_the_future() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    vb.write(Change::set("a", "1"), Durability::Logged).unwrap();
    assert_eq!(vb.seqnos().unwrap().synced.get(), 0);
    vb.wait_synced(Seqno::new(1), Duration::from_secs(60))
        .unwrap();
    assert_eq!(
        vb.seqnos().unwrap().synced.get(),
        1,
        "persisted is not synced"
    );
    put(&vb, "b", "2");

    vb.wait_synced(Seqno::new(2), Duration::from_secs(60))
        .unwrap();

    assert_eq!(vb.seqnos().unwrap().synced.get(), 2);
    let refused = vb.wait_synced(Seqno::new(3), Duration::ZERO);
    assert!(matches!(
        refused,
        Err(Error::Invalid { field: "seqno", .. })
    ));
    store.finish(engine);
}

#[test]
fn writes_without_a_waiter_are_flushed_and_synced() {
    let store = TestStore::stepped();
    let engine = store.open();
    let clock = store.clock.as_ref().unwrap();
    let vb = vb(&engine, 0);
    put(&vb, "a", "1");
    engine.step(BackgroundTask::Flusher).unwrap();
    assert_eq!(
        vb.seqnos().unwrap().persisted.get(),
        0,
        "before the interval"
    );

    clock.advance(Tuning::default().flush_interval);
    engine.step(BackgroundTask::Flusher).unwrap();
    let seqnos = vb.seqnos().unwrap();
    assert_eq!((seqnos.persisted.get(), seqnos.synced.get()), (1, 0));

    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!(vb.seqnos().unwrap().synced.get(), 0, "before the interval");
    clock.advance(Tuning::default().sync_interval);
    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!(vb.seqnos().unwrap().synced.get(), 1);
    store.finish(engine);
}

#[test]
fn one_batch_serves_all_waiting_writers() {
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        scope.spawn(|| vb(&engine, 0).set("leader", "1").unwrap());
        let _held = gate.wait_for_arrival();
        let before = engine.metrics().flushes.get();
        let tickets: Vec<_> = (0..100)
            .map(|n| vb(&engine, n % 4).set_nowait(format!("k{n}"), "1").unwrap())
            .collect();
        assert!(tickets.iter().all(|ticket| ticket.poll().is_none()));
        gate.open();
        for ticket in &tickets {
            ticket.wait().unwrap();
        }
        // One flush of the leader's own write and one for the hundred others; the flusher may add
        // one.
        let flushes = engine.metrics().flushes.get() - before;
        assert!(flushes <= 3, "{flushes} flushes");
    });
    store.finish(engine);
}

struct Flag(std::sync::atomic::AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn a_ticket_is_a_future_and_is_woken_when_it_is_durable() {
    let store = TestStore::stepped();
    let engine = store.open();
    let mut ticket = Box::pin(vb(&engine, 0).set_nowait("k", "v").unwrap());
    let flag = Arc::new(Flag(false.into()));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    assert!(Future::poll(ticket.as_mut(), &mut context).is_pending());

    engine.step(BackgroundTask::Flusher).unwrap();

    assert!(
        flag.0.load(std::sync::atomic::Ordering::SeqCst),
        "not woken"
    );
    let Poll::Ready(Ok(written)) = Future::poll(ticket.as_mut(), &mut context) else {
        panic!("not ready")
    };
    assert_eq!(written.seqno.get(), 1);
    drop(ticket);
    store.finish(engine);
}

#[test]
fn a_wait_that_times_out_leaves_the_write_under_way() {
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        scope.spawn(|| vb(&engine, 0).set("leader", "1").unwrap());
        let _held = gate.wait_for_arrival();
        let ticket = vb(&engine, 1).set_nowait("k", "1").unwrap();
        let late = ticket.wait_timeout(Duration::from_millis(1));
        assert!(matches!(late, Err(Error::NotYetDurable { .. })), "{late:?}");
        gate.open();
        ticket.wait().unwrap();
    });
    store.finish(engine);
}

#[test]
fn writers_of_all_durabilities_side_by_side_lose_nothing() {
    let store = TestStore::threaded();
    let engine = store.open();
    std::thread::scope(|scope| {
        for writer in 0..8_u16 {
            let vb = vb(&engine, writer % 4);
            scope.spawn(move || {
                for n in 0..300 {
                    let durability = [Durability::Memory, Durability::Logged, Durability::Synced]
                        [usize::from((writer + n) % 3)];
                    let key = format!("{writer}-{}", n % 50);
                    let written = vb
                        .write(Change::set(key, n.to_string()), durability)
                        .unwrap();
                    let seqnos = vb.seqnos().unwrap();
                    match durability {
                        Durability::Memory => {}
                        Durability::Logged => assert!(seqnos.persisted >= written.seqno),
                        Durability::Synced => assert!(seqnos.synced >= written.seqno),
                    }
                }
            });
        }
    });
    for writer in 0..8_u16 {
        for n in 0..50 {
            let document = vb(&engine, writer % 4)
                .get(format!("{writer}-{n}"))
                .unwrap()
                .unwrap();
            assert_eq!(document.value, (n + 250).to_string());
        }
    }
    store.finish(engine);
}

#[test]
fn memory_at_its_quota_makes_a_writer_flush_and_frees_what_is_on_disk() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 1 << 20;
    let engine = store.open();
    let vb = vb(&engine, 0);
    for n in 0..200 {
        vb.write(
            Change::set(format!("k{n}"), vec![b'x'; 20_000]),
            Durability::Memory,
        )
        .unwrap();
        assert!(engine.checkpoint_memory() <= (1 << 20) + 21_000);
    }
    assert_eq!(vb.get("k0").unwrap().unwrap().value.len(), 20_000);
    assert!(engine.metrics().checkpoints_freed.get() > 0);
    store.finish(engine);
}

#[test]
fn memory_at_its_quota_that_cannot_be_freed_is_busy_and_changes_nothing() {
    let mut store = TestStore::threaded();
    store.config.tuning.memory_quota = 1 << 20;
    store.config.tuning.busy_timeout = Duration::from_millis(20);
    store.config.tuning.flush_interval = Duration::from_secs(3_600);
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        scope.spawn(|| vb(&engine, 0).set("leader", "1").unwrap());
        let _held = gate.wait_for_arrival();
        put(&vb(&engine, 1), "big", &"x".repeat(1 << 20));
        let high = vb(&engine, 1).seqnos().unwrap().high;

        let refused = vb(&engine, 1).write(Change::set("more", "1"), Durability::Memory);

        assert!(
            matches!(
                refused,
                Err(Error::Busy {
                    what: "no room in memory_quota"
                })
            ),
            "{refused:?}"
        );
        assert_eq!(vb(&engine, 1).seqnos().unwrap().high, high);
        gate.open();
    });
    put(&vb(&engine, 1), "more", "1");
    store.finish(engine);
}

/// A clock that panics on the flusher's thread, once armed and after the test has reached the
/// barrier.
#[derive(Debug)]
struct Trap {
    is_set: AtomicBool,
    barrier: Barrier,
    clock: SystemClock,
}

impl Clock for Trap {
    fn wall_micros(&self) -> u64 {
        self.clock.wall_micros()
    }

    fn monotonic(&self) -> Duration {
        let is_flusher = std::thread::current().name() == Some("vbstore-flusher");
        if is_flusher && self.is_set.load(Ordering::SeqCst) {
            self.barrier.wait();
            panic!("planted");
        }
        self.clock.monotonic()
    }
}

struct Tells(SyncSender<()>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
    }
}

#[test]
fn a_ticket_is_woken_when_the_flusher_panics() {
    let store = TestStore::threaded();
    let trap = Arc::new(Trap {
        is_set: AtomicBool::new(false),
        barrier: Barrier::new(2),
        clock: SystemClock::new(),
    });
    let clock = Arc::clone(&trap);
    let engine = store.builder().clock(clock).open().unwrap();
    trap.is_set.store(true, Ordering::SeqCst);
    let mut ticket = Box::pin(vb(&engine, 0).set_nowait("k", "v").unwrap());
    let (sender, woken) = sync_channel(1);
    let waker = Waker::from(Arc::new(Tells(sender)));
    let mut context = Context::from_waker(&waker);
    assert!(Future::poll(ticket.as_mut(), &mut context).is_pending());
    trap.barrier.wait();

    woken.recv_timeout(Duration::from_secs(60)).unwrap();

    let outcome = Future::poll(ticket.as_mut(), &mut context);
    let is_failed = matches!(outcome, Poll::Ready(Err(Error::Failed { .. })));
    assert!(is_failed, "{outcome:?}");
    drop(ticket);
    engine.close().unwrap_err();
}
