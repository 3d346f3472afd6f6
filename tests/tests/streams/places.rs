//! Slots of backfills: how many may run at once, and what waits without one.

use vbstore::{Change, Consumer, Durability, Error, StreamRequest, Streams, StreamsConfig, VbId};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, consumer, drain, open, run_all, short, take};
use vbstore_tests::{TestStore, vb};

fn full() -> Error {
    Error::DiskFull {
        detail: "planted".into(),
    }
}

#[test]
fn places_are_counted_only_while_they_are_waited_for() {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(64);
    let engine = store.open();
    for number in 0..64 {
        vb(&engine, number).set("k", "v").unwrap();
    }
    raw::forget_memory(&engine, true).unwrap();
    for (pending_max, accepted) in [(0, 64), (1, 64), (16, 64)] {
        let config = StreamsConfig {
            pending_max,
            ..StreamsConfig::default()
        };
        let streams = Streams::stepped(&engine, &config).unwrap();
        let mut consumer = consumer(&streams, "c");
        let opened = (0..64)
            .filter(|n| {
                consumer
                    .open(&StreamRequest::from_start(VbId::new(*n)))
                    .is_ok()
            })
            .count();
        assert_eq!(opened, accepted, "pending_max {pending_max}");
        assert_eq!(drain(&engine, &streams, &mut consumer).len(), 128);
    }
    let config = StreamsConfig {
        pending_max: 0,
        backfills_max: 1,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let mut all: Vec<Consumer> = (0..100).map(|_| consumer(&streams, "c")).collect();
    let opened = all
        .iter_mut()
        .filter_map(|consumer| consumer.open(&StreamRequest::from_start(VB)).ok())
        .count();
    assert_eq!((opened, streams.stats().pending), (1, 0));
    drop((all, streams));
    store.finish(engine);
}

#[test]
fn while_the_disk_is_full_streams_of_what_is_synced_go_on() {
    use vbstore::failpoint::{Action, place};
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(8);
    let engine = store.open();
    for number in 0..8 {
        vb(&engine, number).set("k", "v").unwrap();
    }
    for number in 0..4 {
        let change = Change::set("k", "v2");
        vb(&engine, number)
            .write(change, Durability::Logged)
            .unwrap();
    }
    raw::forget_memory(&engine, true).unwrap();
    let config = StreamsConfig {
        backfills_max: 4,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let mut stuck = consumer(&streams, "unsynced");
    for number in 0..4 {
        open(&mut stuck, &StreamRequest::from_start(VbId::new(number)));
    }
    // They wait for the sync before the disk is full, and keep their slots.
    run_all(&streams);
    assert_eq!(streams.stats().snoozed, 4);
    for at in [place::SYNC, place::FLUSH_WRITE] {
        store.failpoints.nth(at, 0, u64::MAX, Action::Fail(full()));
    }
    vb(&engine, 7)
        .write(Change::set("k", "v3"), Durability::Memory)
        .unwrap();
    engine.flush().unwrap_err();
    let mut healthy = consumer(&streams, "healthy");
    open(&mut healthy, &StreamRequest::from_start(VbId::new(5)));
    run_all(&streams);
    assert_eq!(short(&take(&mut healthy)), ["0..1 disk", "k@1"]);
    assert!(take(&mut stuck).is_empty());
    for at in [place::SYNC, place::FLUSH_WRITE] {
        store.failpoints.clear(at);
    }
    engine.flush().unwrap();
    run_all(&streams);
    assert_eq!(take(&mut stuck).len(), 8);
    drop((stuck, healthy, streams));
    store.finish(engine);
}
