//! A sync beside the flush leader: writers that did not ask for it do not wait, and only what it
//! covered is called synced.

use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{BackgroundTask, Change, Durability, Engine, Error, HealthState, Tuning};
use vbstore_tests::{TestStore, vb};

/// Returns a vBucket's persisted and synced seqno.
fn seqnos(engine: &Engine, n: u16) -> (u64, u64) {
    let seqnos = vb(engine, n).seqnos().unwrap();
    (seqnos.persisted.get(), seqnos.synced.get())
}

fn logged(engine: &Engine, n: u16, key: &str) {
    let change = Change::set(key, "v");
    vb(engine, n).write(change, Durability::Logged).unwrap();
}

fn io_error() -> Error {
    let source = Arc::new(std::io::Error::other("planted"));
    Error::Io {
        context: "a planted failure".into(),
        source,
    }
}

/// Runs `meanwhile` between the syncer's note of the persisted seqnos and its sync; returns the
/// outcome of the sync.
fn beside_a_sync(
    store: &TestStore,
    engine: &Engine,
    meanwhile: impl FnOnce(),
) -> Result<(), Error> {
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::SYNC, wait);
    let clock = store.clock.as_ref().unwrap();
    clock.advance(Tuning::default().sync_interval);
    std::thread::scope(|scope| {
        let syncer = std::thread::Builder::new().name("syncer".to_owned());
        let step = || engine.step(BackgroundTask::Syncer);
        let syncer = syncer.spawn_scoped(scope, step).unwrap();
        let _held = gate.wait_for_arrival();
        meanwhile();
        gate.open();
        syncer.join().unwrap()
    })
}

#[test]
fn who_writes_without_a_sync_does_not_wait_for_it_and_is_not_called_synced() {
    let store = TestStore::stepped();
    let engine = store.open();
    logged(&engine, 0, "a");
    logged(&engine, 1, "a");

    beside_a_sync(&store, &engine, || {
        logged(&engine, 0, "b");
        logged(&engine, 2, "a");
        assert_eq!(seqnos(&engine, 0), (2, 0));
    })
    .unwrap();

    assert_eq!(seqnos(&engine, 0), (2, 1));
    assert_eq!(seqnos(&engine, 1), (1, 1));
    assert_eq!(seqnos(&engine, 2), (1, 0));
    // The remaining changes are due one interval after they were noted, and are synced then.
    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!(seqnos(&engine, 0), (2, 1));
    let clock = store.clock.as_ref().unwrap();
    clock.advance(Tuning::default().sync_interval);
    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!((seqnos(&engine, 0), seqnos(&engine, 2)), ((2, 2), (1, 1)));
    let syncs = engine.metrics().syncs.get();
    clock.advance(Duration::from_secs(60));
    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!(engine.metrics().syncs.get(), syncs, "nothing to sync");
    store.finish(engine);
}

#[test]
fn a_leader_that_synced_more_meanwhile_is_not_set_back() {
    let store = TestStore::stepped();
    let engine = store.open();
    logged(&engine, 0, "a");

    beside_a_sync(&store, &engine, || {
        let change = Change::set("b", "v");
        let written = vb(&engine, 0).write(change, Durability::Synced);
        assert_eq!(written.unwrap().seqno.get(), 2);
        assert_eq!(seqnos(&engine, 0), (2, 2));
    })
    .unwrap();

    assert_eq!(seqnos(&engine, 0), (2, 2));
    // The change is still there after a crash.
    store.crash(engine);
    let engine = store.open();
    assert_eq!(seqnos(&engine, 0).1, 2);
    store.finish(engine);
}

#[test]
fn a_vbucket_deleted_meanwhile_begins_unsynced() {
    let store = TestStore::stepped();
    let engine = store.open();
    for key in ["a", "b", "c"] {
        logged(&engine, 0, key);
    }

    beside_a_sync(&store, &engine, || {
        engine.delete_vbucket(vb(&engine, 0).id()).unwrap();
        logged(&engine, 0, "d");
        assert_eq!(seqnos(&engine, 0), (1, 0));
    })
    .unwrap();

    assert_eq!(
        seqnos(&engine, 0),
        (1, 0),
        "seqno 3 is of the deleted generation"
    );
    store.finish(engine);
}

#[test]
fn a_sync_that_fails_fails_the_engine_and_publishes_nothing() {
    let store = TestStore::stepped();
    let engine = store.open();
    logged(&engine, 0, "a");
    let clock = store.clock.as_ref().unwrap();
    clock.advance(Tuning::default().sync_interval);
    store.failpoints.once(place::SYNC, Action::Fail(io_error()));

    assert!(engine.step(BackgroundTask::Syncer).is_err());

    assert!(matches!(engine.health(), HealthState::Failed { .. }));
    assert_eq!(seqnos(&engine, 0), (1, 0));
    let hits = store.failpoints.hits(place::SYNC);
    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!(store.failpoints.hits(place::SYNC), hits, "never again");
    drop(engine);
}

#[test]
fn of_two_syncs_of_which_one_failed_the_other_publishes_nothing() {
    let store = TestStore::stepped();
    let engine = store.open();
    logged(&engine, 0, "a");

    beside_a_sync(&store, &engine, || {
        let fails = Action::Fail(io_error());
        store.failpoints.once(place::FLUSH_WRITE, fails);
        let change = Change::set("b", "v");
        vb(&engine, 0)
            .write(change, Durability::Synced)
            .unwrap_err();
    })
    .unwrap();

    assert_eq!(seqnos(&engine, 0), (1, 0));
    drop(engine);
}
