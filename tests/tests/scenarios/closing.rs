//! Closing: nothing is lost, no thread hangs, and nothing works afterwards.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{Change, Durability, Error, HealthState};
use vbstore_engine::raw;
use vbstore_tests::{TestStore, branches_after_a_change, put, vb};

#[test]
fn closing_makes_memory_durable_and_dropping_does_the_same() {
    for explicitly in [true, false] {
        let store = TestStore::threaded();
        let engine = store.open();
        put(&vb(&engine, 2), "k", "v");
        if explicitly {
            engine.close().unwrap();
        }
        drop(engine);

        let engine = store.open();
        assert_eq!(vb(&engine, 2).get("k").unwrap().unwrap().value, "v");
        assert_eq!(
            branches_after_a_change(&vb(&engine, 2)),
            1,
            "not a clean stop"
        );
        store.finish(engine);
    }
}

#[test]
fn a_closed_engine_refuses_everything_and_says_so() {
    let store = TestStore::threaded();
    let engine = store.open();
    let handle = vb(&engine, 0);
    let ticket = handle.set_nowait("k", "v").unwrap();
    engine.close().unwrap();
    engine.close().unwrap();

    assert!(ticket.wait().is_ok(), "the close made it durable");
    assert!(matches!(handle.get("k"), Err(Error::Closed)));
    assert!(matches!(handle.set("k", "v"), Err(Error::Closed)));
    assert!(matches!(engine.flush(), Err(Error::Closed)));
    assert!(matches!(engine.disk_usage(), Err(Error::Closed)));
    assert!(matches!(
        engine.delete_vbucket(handle.id()),
        Err(Error::Closed)
    ));
    drop((engine, handle, ticket));
    let engine = store.open();
    assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "v");
    store.finish(engine);
}

#[test]
fn a_handle_of_a_vbucket_keeps_the_engine_open() {
    let store = TestStore::threaded();
    let engine = store.open();
    let handle = vb(&engine, 0);
    drop(engine);

    handle.set("k", "v").unwrap();

    assert!(matches!(store.builder().open(), Err(Error::Locked { .. })));
    drop(handle);
    let engine = store.open();
    assert!(vb(&engine, 0).get("k").unwrap().is_some());
    store.finish(engine);
}

#[test]
fn closing_under_fire_loses_nothing_that_was_acknowledged() {
    for _ in 0..10 {
        let store = TestStore::threaded();
        let engine = store.open();
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let vb = vb(&engine, writer);
                    scope.spawn(move || {
                        let mut last = 0;
                        loop {
                            let change = Change::set(format!("k{last}"), "v");
                            match vb.write(change, Durability::Logged) {
                                Ok(written) => last = written.seqno.get(),
                                Err(Error::Closed) => return last,
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            while engine.metrics().flushes.get() < 20 {
                std::thread::yield_now();
            }
            engine.close().unwrap();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        drop(engine);
        let engine = store.open();
        for (number, last) in (0..).zip(acknowledged) {
            let vb = vb(&engine, number);
            assert!(vb.seqnos().unwrap().persisted.get() >= last);
            assert_eq!(branches_after_a_change(&vb), 1, "not a clean stop");
        }
        store.finish(engine);
    }
}

#[test]
fn writers_that_wait_while_the_last_flush_fails_get_its_error() {
    let store = TestStore::stepped();
    let engine = store.open();
    let ticket = vb(&engine, 0).set_nowait("k", "v").unwrap();
    let error = Error::Busy {
        what: "a planted failure",
    };
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Fail(error));

    assert!(matches!(engine.close(), Err(Error::Busy { .. })));

    assert!(matches!(ticket.wait(), Err(Error::Failed { .. })));
    drop((engine, ticket));
    let engine = store.open();
    assert_eq!(
        vb(&engine, 0).get("k").unwrap(),
        None,
        "it was never acknowledged"
    );
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        2,
        "not a clean stop"
    );
    store.finish(engine);
}

#[test]
fn closing_waits_for_a_flush_under_way() {
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::FLUSH_PUBLISH, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| vb(&engine, 0).set("k", "v"));
        let _held = gate.wait_for_arrival();
        let closer = scope.spawn(|| engine.close());
        gate.open();
        writer.join().unwrap().unwrap();
        closer.join().unwrap().unwrap();
    });
    drop(engine);
    let engine = store.open();
    assert!(vb(&engine, 0).get("k").unwrap().is_some());
    store.finish(engine);
}

#[test]
fn a_copy_of_the_lock_file_s_descriptor_does_not_keep_the_store_locked() {
    use std::os::fd::{BorrowedFd, OwnedFd};
    let store = TestStore::stepped();
    let engine = store.open();
    let lock_file = store.path().join("VBSTORE.lock");
    let is_of_lock = |fd: &i32| {
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        target.is_ok_and(|target| target == lock_file)
    };
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = descriptors.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let numbers: Vec<i32> = numbers.filter(is_of_lock).collect();
    let [number] = numbers[..] else {
        panic!("{numbers:?}")
    };
    // A copy of the descriptor, as a forked child has until it executes another program.
    // SAFETY: the engine keeps the descriptor open for the whole of this call.
    let copy: OwnedFd = unsafe { BorrowedFd::borrow_raw(number) }
        .try_clone_to_owned()
        .unwrap();

    engine.close().unwrap();
    drop(engine);

    let engine = store.open();
    drop(copy);
    store.finish(engine);
}

#[test]
fn every_close_returns_when_the_store_is_closed() {
    let store = TestStore::threaded();
    let engine = store.open();
    put(&vb(&engine, 0), "k", "v");
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::CLOSE, Action::Wait(Arc::clone(&gate)));
    let (reopened, outcome) = sync_channel(2);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| engine.close());
        let held = gate.wait_for_arrival();
        let other = engine.clone();
        scope.spawn(|| {
            let closed = other.close();
            drop(other);
            reopened
                .send(closed.and_then(|()| store.builder().open()))
                .unwrap();
        });
        // The first close waits before its last flush, so the second has no outcome to return yet.
        let early = outcome.recv_timeout(Duration::from_millis(200));
        assert!(early.is_err(), "returned beside the first: {early:?}");
        drop(held);
        first.join().unwrap().unwrap();
    });
    let reopened = outcome.recv().unwrap().unwrap();
    assert_eq!(vb(&reopened, 0).get("k").unwrap().unwrap().value, "v");
    assert_eq!(
        branches_after_a_change(&vb(&reopened, 0)),
        1,
        "not a clean stop"
    );
    store.finish(reopened);
}

#[test]
fn every_close_has_the_same_outcome() {
    let store = TestStore::threaded();
    let engine = store.open();
    let planted = Error::TooLarge {
        field: "planted",
        size: 2,
        max: 1,
    };
    store.failpoints.once(place::CLOSE, Action::Fail(planted));
    let other = engine.clone();
    let outcomes = std::thread::scope(|scope| {
        let threads = [&engine, &other].map(|engine| scope.spawn(|| engine.close()));
        threads.map(|thread| thread.join().unwrap())
    });
    for outcome in outcomes.into_iter().chain([engine.close()]) {
        let field = match outcome {
            Err(Error::TooLarge { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field, "planted");
    }
    drop((engine, other));
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn a_branch_that_is_due_while_the_engine_closes_fails_neither_the_close_nor_the_engine() {
    let store = TestStore::stepped();
    store.crash(store.open());
    let engine = store.open();
    put(&vb(&engine, 2), "acknowledged", "v");
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::BRANCH_WRITE, wait);
    std::thread::scope(|scope| {
        let write = |number| {
            let vb = vb(&engine, number);
            move || vb.write(Change::set("late", "v"), Durability::Memory)
        };
        let leads = scope.spawn(write(0));
        let arrival = gate.wait_for_arrival();
        let waits = scope.spawn(write(1));
        while raw::waiting_for_branch(&engine) == 0 {
            std::thread::yield_now();
        }
        let closes = scope.spawn(|| engine.close());
        while !matches!(vb(&engine, 3).get("k"), Err(Error::Closed)) {
            std::thread::yield_now();
        }
        drop(arrival);
        for writer in [leads, waits] {
            let refused = writer.join().unwrap();
            assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        }
        closes.join().unwrap().unwrap();
    });
    assert!(matches!(engine.health(), HealthState::Open));
    drop(engine);
    let engine = store.open();
    assert!(vb(&engine, 2).get("acknowledged").unwrap().is_some());
    store.finish(engine);
}
