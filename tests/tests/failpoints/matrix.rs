//! Each failpoint with each action.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use vbstore::failpoint::{Action, Failpoints, place};
use vbstore::{
    Change, Clock, ConsumerConfig, Durability, Engine, Error, HealthState, KeyRange, OpenOutcome,
    PageForm, Seqno, StreamRequest, Streams, StreamsConfig, SystemClock, VbId,
};
use vbstore_engine::raw::purge_tombstones;
use vbstore_tests::{TestStore, assert_verified, branches_after_a_change, put, rows, vb};

const WRITE_PATH: [&str; 4] = [
    place::FLUSH_BUILD,
    place::FLUSH_WRITE,
    place::FLUSH_WITNESS,
    place::FLUSH_PUBLISH,
];

fn io_error() -> Error {
    let source = Arc::new(std::io::Error::other("planted"));
    Error::Io {
        context: "a planted failure".into(),
        source,
    }
}

fn disk_full() -> Error {
    Error::DiskFull {
        detail: "planted".into(),
    }
}

/// Waits until writes are accepted again; a minute is far more than the promised 15 s.
fn wait_until_open(engine: &Engine) {
    let clock = SystemClock::new();
    while !matches!(engine.health(), HealthState::Open) {
        assert!(
            clock.monotonic().as_secs() < 60,
            "writes are not tried again: {:?}",
            engine.health()
        );
        std::thread::yield_now();
    }
}

/// Returns whether the batch is on disk at this failpoint: before its write none of it is,
/// afterwards all of it.
fn is_written(place: &str) -> bool {
    matches!(place, place::FLUSH_WITNESS | place::FLUSH_PUBLISH)
}

#[test]
fn a_full_disk_at_any_step_refuses_writes_and_heals() {
    for place in WRITE_PATH {
        let store = TestStore::stepped();
        let engine = store.open();
        let vb0 = vb(&engine, 0);
        vb0.set("before", "1").unwrap();
        store.failpoints.once(place, Action::Fail(disk_full()));

        let refused = vb0.set("during", "1");

        assert!(
            matches!(refused, Err(Error::DiskFull { .. })),
            "{place}: {refused:?}"
        );
        assert!(
            matches!(engine.health(), HealthState::Degraded { .. }),
            "{place}"
        );
        let high = vb0.seqnos().unwrap().high;
        assert!(
            matches!(vb0.set("more", "1"), Err(Error::DiskFull { .. })),
            "{place}"
        );
        assert_eq!(
            vb0.seqnos().unwrap().high,
            high,
            "{place}: a refused write took a seqno"
        );
        assert_eq!(
            vb0.get("before").unwrap().unwrap().value,
            "1",
            "{place}: reads go on"
        );

        engine.flush().unwrap();

        assert!(matches!(engine.health(), HealthState::Open), "{place}");
        vb0.set("after", "1").unwrap();
        let keys: Vec<String> = rows(&vb0).into_iter().map(|row| row.2).collect();
        assert_eq!(keys, ["before", "during", "after"], "{place}");
        drop(vb0);
        store.finish(engine);
    }
}

#[test]
fn the_flusher_notices_by_itself_that_space_is_back() {
    let store = TestStore::threaded();
    let engine = store.open();
    let vb = vb(&engine, 0);
    store
        .failpoints
        .nth(place::FLUSH_WRITE, 0, 3, Action::Fail(disk_full()));
    assert!(vb.set("during", "1").is_err());

    wait_until_open(&engine);

    assert_eq!(vb.get("during").unwrap().unwrap().value, "1");
    drop(vb);
    store.finish(engine);
}

#[test]
fn the_flusher_notices_a_full_disk_that_it_did_not_meet_itself() {
    for (place, has_changes) in [(place::FLUSH_WRITE, true), (place::DELETE_VBUCKET, false)] {
        let store = TestStore::threaded();
        let engine = store.open();
        // Lets the flusher finish, so that it waits to be woken.
        engine.flush().unwrap();
        store.failpoints.once(place, Action::Fail(disk_full()));
        if has_changes {
            // The flusher may heal and write this change before the writer looks, so both outcomes
            // are fine.
            drop(vb(&engine, 0).set("during", "1"));
            assert_eq!(engine.metrics().flush_failures.get(), 1);
        } else {
            assert!(engine.delete_vbucket(VbId::new(0)).is_err());
        }

        wait_until_open(&engine);

        vb(&engine, 0).set("after", "1").unwrap();
        store.finish(engine);
    }
}

#[test]
fn a_disk_that_stays_full_is_not_taken_for_healed_because_nothing_is_to_be_written() {
    let store = TestStore::stepped();
    let engine = store.open();
    store
        .failpoints
        .once(place::DELETE_VBUCKET, Action::Fail(disk_full()));
    assert!(engine.delete_vbucket(VbId::new(0)).is_err());
    store
        .failpoints
        .nth(place::FLUSH_WRITE, 0, 2, Action::Fail(disk_full()));

    for _ in 0..2 {
        assert!(matches!(engine.flush(), Err(Error::DiskFull { .. })));
        assert!(matches!(engine.health(), HealthState::Degraded { .. }));
    }
    engine.flush().unwrap();

    assert!(matches!(engine.health(), HealthState::Open));
    store.finish(engine);
}

#[test]
fn any_other_failure_is_final_keeps_its_first_cause_and_reads_go_on() {
    for place in WRITE_PATH {
        for action in [Action::Fail(io_error()), Action::Panic] {
            let store = TestStore::stepped();
            let engine = store.open();
            let vb0 = vb(&engine, 0);
            vb0.set("before", "1").unwrap();
            let waiting = vb(&engine, 1).set_nowait("waiting", "1").unwrap();
            store.failpoints.once(place, action.clone());

            let refused = vb0.set("during", "1");

            let what = format!("{place} {action:?}");
            assert!(
                matches!(refused, Err(Error::Failed { .. })),
                "{what}: {refused:?}"
            );
            assert!(
                matches!(waiting.wait(), Err(Error::Failed { .. })),
                "{what}: it hangs"
            );
            let HealthState::Failed { cause } = engine.health() else {
                panic!("{what}")
            };
            assert!(
                cause.to_string().contains("planted") || cause.to_string().contains(place),
                "{what}: {cause}"
            );
            assert!(
                matches!(vb0.set("more", "1"), Err(Error::Failed { .. })),
                "{what}"
            );
            assert!(
                matches!(engine.flush(), Err(Error::Failed { .. })),
                "{what}"
            );
            assert_eq!(vb0.get("before").unwrap().unwrap().value, "1", "{what}");
            assert!(
                engine.close().is_err(),
                "{what}: a failed engine closes cleanly"
            );
            drop((engine, vb0, waiting));

            let engine = store.open();
            let vb0 = vb(&engine, 0);
            assert!(vb0.get("before").unwrap().is_some(), "{what}");
            assert_eq!(
                vb0.get("during").unwrap().is_some(),
                is_written(place),
                "{what}"
            );
            assert_eq!(vb0.failover_log().unwrap().entries().len(), 1, "{what}");
            assert_eq!(branches_after_a_change(&vb0), 2, "{what}");
            drop(vb0);
            store.finish(engine);
        }
    }
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 0);
    vb.write(Change::set("k", "1"), Durability::Logged).unwrap();
    store.failpoints.once(place::SYNC, Action::Fail(io_error()));
    let seqno = vb.seqnos().unwrap().high;

    let refused = vb.wait_synced(seqno, std::time::Duration::from_secs(60));

    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    let hits = store.failpoints.hits(place::SYNC);
    assert!(engine.flush().is_err());
    assert!(
        vb.wait_synced(seqno, std::time::Duration::from_secs(60))
            .is_err()
    );
    assert_eq!(store.failpoints.hits(place::SYNC), hits);
    assert_eq!(vb.seqnos().unwrap().synced.get(), 0);
}

#[test]
fn a_batch_rebuilt_after_a_failure_is_the_same_and_more() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb0 = vb(&engine, 0);
    put(&vb0, "a", "1");
    put(&vb0, "b", "1");
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Fail(disk_full()));
    assert!(engine.flush().is_err());
    engine.flush().unwrap();
    put(&vb0, "a", "2");
    store
        .failpoints
        .once(place::FLUSH_BUILD, Action::Fail(disk_full()));
    assert!(engine.flush().is_err());
    engine.flush().unwrap();

    let found: Vec<_> = rows(&vb0)
        .into_iter()
        .map(|row| (row.0, row.2, row.4))
        .collect();

    assert_eq!(found, [(2, "b".into(), 0), (3, "a".into(), 1)]);
    assert_eq!(vb0.counts().unwrap().counts.items, 2);
    drop(vb0);
    store.finish(engine);
}

#[test]
fn a_deletion_that_fails_for_good_fails_the_engine_and_hangs_no_thread() {
    let store = TestStore::threaded();
    let engine = store.open();
    vb(&engine, 1).set("kept", "1").unwrap();
    store
        .failpoints
        .once(place::DELETE_VBUCKET, Action::Fail(io_error()));
    engine.delete_vbucket(VbId::new(1)).unwrap_err();
    let refused = vb(&engine, 0).set("refused", "1");
    assert!(matches!(refused, Err(Error::Failed { .. })));
    engine.close().unwrap_err();
    drop(engine);
    let engine = store.open();
    assert!(vb(&engine, 1).get("kept").unwrap().is_some());
    store.finish(engine);
}

/// Runs in its own process, which the parent starts with these variables set.
#[test]
fn abort_child() {
    let (Ok(path), Ok(place)) = (
        std::env::var("VBSTORE_ABORT_DIR"),
        std::env::var("VBSTORE_ABORT_AT"),
    ) else {
        return;
    };
    let place = place::ALL
        .into_iter()
        .find(|known| *known == place)
        .unwrap();
    let failpoints = Arc::new(Failpoints::default());
    failpoints.once(place, Action::Abort);
    let builder = || {
        Engine::builder(&path)
            .failpoints(Arc::clone(&failpoints))
            .background(false)
    };
    if place == place::OPEN_SYNC {
        drop(builder().read_only().open());
    }
    let engine = builder().open().unwrap();
    vb(&engine, 0)
        .write(Change::set("logged", "1"), Durability::Logged)
        .unwrap();
    engine.flush().unwrap();
    vb(&engine, 0).set("synced", "1").unwrap();
    // What replaces a purged tombstone is looked up by the flush.
    let third = vb(&engine, 2);
    third.set("gone", "1").unwrap();
    third.delete("gone").unwrap();
    third.set("last", "1").unwrap();
    purge_tombstones(&engine, third.id(), Seqno::new(2)).unwrap();
    third.set("gone", "2").unwrap();
    drop(third);
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams
        .consumer("child", &ConsumerConfig::default())
        .unwrap();
    let from_start = StreamRequest::from_start(VbId::new(0));
    assert_eq!(consumer.open(&from_start).unwrap(), OpenOutcome::Continue);
    while streams.step() {}
    drop((consumer, streams));
    let all = KeyRange::all();
    vb(&engine, 0).range(&all, PageForm::Documents).unwrap();
    engine.delete_vbucket(VbId::new(1)).unwrap();
    engine.close().unwrap();
    panic!("{place} was not reached");
}

#[test]
fn a_process_that_ends_at_any_place_leaves_a_store_in_order() {
    for place in place::ALL {
        let store = TestStore::stepped();
        // The failpoints of creation are reached by a new store, the others by one that has data.
        if !place.starts_with("create") {
            let engine = store.open();
            vb(&engine, 0).set("old", "1").unwrap();
            vb(&engine, 1).set("deleted", "1").unwrap();
            if place == place::OPEN_BRANCH || place.starts_with("branch") {
                store.crash(engine)
            } else {
                engine.close().unwrap()
            }
        }
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "matrix::abort_child", "--nocapture"])
            .env("VBSTORE_ABORT_DIR", store.path())
            .env("VBSTORE_ABORT_AT", place)
            .output()
            .unwrap()
            .status;
        assert!(status.signal().is_some(), "{place}: ended with {status}");

        let engine = store.builder().failpoints(Arc::default()).open().unwrap();

        if !place.starts_with("create") {
            assert!(vb(&engine, 0).get("old").unwrap().is_some(), "{place}");
            let is_deleted = vb(&engine, 1).get("deleted").unwrap().is_none();
            assert_eq!(is_deleted, place == place::CLOSE, "{place}");
        }
        if matches!(place, place::DELETE_VBUCKET | place::CLOSE) {
            assert!(vb(&engine, 0).get("synced").unwrap().is_some(), "{place}");
        }
        assert_verified(&engine);
        vb(&engine, 0).set("after", "1").unwrap();
        store.finish(engine);
    }
}
