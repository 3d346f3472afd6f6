//! The values of metrics after known operations.

use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::metrics::names;
use vbstore::{
    Change, ConsumerConfig, DbSnapshotHolder, Durability, EndReason, Error, MetricsSnapshot,
    PageForm, SeqnoRange, SliceBudget, StreamRequest, Streams, StreamsConfig, VbId,
};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, drain, keys, on_disk, open, stepped, take};
use vbstore_tests::metrics::{assert_complete, assert_identities, by};
use vbstore_tests::{TestStore, put, vb};

fn io_error() -> Error {
    let source = Arc::new(std::io::Error::other("planted"));
    Error::Io {
        context: "a planted failure".into(),
        source,
    }
}

#[test]
fn every_metric_exists_from_the_start_with_every_label() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, consumer) = stepped(&engine);
    let snapshot = streams.metrics_snapshot().unwrap();
    let absent = [&names::ROCKS_OLDEST_SNAPSHOT, &names::ROCKS_OLDEST_LAG];
    assert_complete(&snapshot, names::ENGINE, &[]);
    assert_complete(&snapshot, names::ROCKS, &absent);
    assert_complete(&snapshot, names::STREAMS, &[]);
    for metric in absent {
        assert_eq!(snapshot.value(metric), None, "unknown is not there, not 0");
    }
    assert_identities(&snapshot);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn counters_equal_what_was_done() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 1);
    for key in keys(10) {
        vb.write(Change::set(key, "v"), Durability::Memory).unwrap();
    }
    // Three are replaced in memory; then a tombstone, and one more write that is synced.
    for key in keys(3) {
        vb.write(Change::set(key, "w"), Durability::Memory).unwrap();
    }
    vb.write(Change::delete("key-0009"), Durability::Logged)
        .unwrap();
    vb.write(Change::set("last", "v"), Durability::Synced)
        .unwrap();
    let too_large = vec![0; 65 << 20];
    let refused = vb.write(Change::set("large", too_large), Durability::Memory);
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    vb.get("key-0001").unwrap();
    vb.get_many(&["key-0001", "none"]).unwrap();
    vb.prefix("key", PageForm::Meta).unwrap();
    vb.scan_slice(
        SeqnoRange::above(vbstore::Seqno::ZERO),
        SliceBudget::default(),
    )
    .unwrap();

    let snapshot = engine.metrics_snapshot().unwrap();
    let value = |metric| snapshot.value(metric).unwrap();
    assert_eq!(by(&snapshot, &names::OPS, "write"), 16.0);
    assert_eq!(by(&snapshot, &names::OPS, "get"), 3.0);
    assert_eq!(by(&snapshot, &names::OPS, "page"), 1.0);
    assert_eq!(by(&snapshot, &names::OPS, "slice"), 1.0);
    assert_eq!(by(&snapshot, &names::WRITES_REJECTED, "too_large"), 1.0);
    // One key read in 16 is timed.
    assert_eq!(snapshot.sum(&names::READ_SECONDS), 2.0);
    assert_eq!(value(&names::WRITTEN_ITEMS), 15.0);
    assert_eq!(value(&names::CHECKPOINT_ITEMS_REPLACED), 4.0);
    assert_eq!(value(&names::PERSIST_ITEMS), 11.0);
    assert_eq!(value(&names::PERSIST_BATCHES), 2.0);
    assert_eq!(snapshot.sum(&names::PERSIST_BATCH_ITEMS), 2.0);
    assert_eq!(snapshot.sum(&names::PERSIST_WRITE), 1.0);
    assert_eq!(snapshot.sum(&names::PERSIST_SYNC), 1.0);
    assert_eq!(snapshot.sum(&names::DURABLE_WAIT), 15.0);
    assert_eq!(
        (value(&names::ITEMS), value(&names::TOMBSTONES)),
        (10.0, 1.0)
    );
    assert_eq!(value(&names::PERSIST_LAG_ITEMS), 0.0);
    assert_eq!(value(&names::SYNC_LAG_SEQNOS), 0.0);
    assert_identities(&snapshot);
    drop(vb);
    engine.delete_vbucket(VbId::new(1)).unwrap();
    let snapshot = engine.metrics_snapshot().unwrap();
    assert_eq!(snapshot.sum(&names::PERSIST_SYNC), 2.0, "a deletion's too");
    store.finish(engine);
}

#[test]
fn one_read_of_a_key_in_16_is_timed_whatever_is_read_beside_it() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 1);
    for _ in 0..32 {
        vb.get("none").unwrap();
        vb.get_meta("none").unwrap();
    }
    let snapshot = engine.metrics_snapshot().unwrap();
    assert_eq!(by(&snapshot, &names::OPS, "get"), 64.0);
    assert_eq!(snapshot.sum(&names::READ_SECONDS), 2.0);
    drop(vb);
    store.finish(engine);
}

#[test]
fn an_open_db_snapshot_shows_with_its_age_and_agrees_with_rocksdb() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(5));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::SLICE_VIEW, wait);
    let (clock, sample) = (store.clock.clone().unwrap(), || {
        streams.metrics_snapshot().unwrap()
    });
    let open_now = |snapshot: &MetricsSnapshot| {
        let ours = snapshot.sum(&names::DB_SNAPSHOTS_OPEN);
        let rocksdbs = snapshot.value(&names::ROCKS_SNAPSHOTS_OPEN).unwrap();
        assert_eq!(ours, rocksdbs);
        ours
    };
    std::thread::scope(|scope| {
        let step = std::thread::Builder::new().name("step".to_owned());
        let step = step.spawn_scoped(scope, || streams.step()).unwrap();
        let _held = gate.wait_for_arrival();
        let first = sample();
        assert_eq!(open_now(&first), 1.0);
        let holder = DbSnapshotHolder::Backfill.name();
        assert_eq!(by(&first, &names::DB_SNAPSHOTS_OPEN, holder), 1.0);
        assert!(first.value(&names::ROCKS_OLDEST_SNAPSHOT).unwrap() > 1e9);
        assert_identities(&first);
        clock.advance(Duration::from_millis(1_500));
        let later = sample();
        let age = |snapshot: &MetricsSnapshot| snapshot.value(&names::DB_SNAPSHOT_OLDEST_AGE);
        assert_eq!(age(&later).unwrap() - age(&first).unwrap(), 1.5);
        assert_eq!(by(&later, &names::BACKFILL_TASKS, "running"), 1.0);
        gate.open();
        assert!(step.join().unwrap());
    });
    let after = sample();
    assert_eq!(open_now(&after), 0.0);
    assert_eq!(after.value(&names::DB_SNAPSHOT_OLDEST_AGE), Some(0.0));
    assert_eq!(after.value(&names::ROCKS_OLDEST_SNAPSHOT), None);
    let over = by(&after, &names::DB_SNAPSHOT_OVER_LIMIT, "backfill");
    assert_eq!(over, 1.0);
    assert_identities(&after);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn the_lag_of_cursors_and_of_persistence_is_what_is_owed() {
    let store = TestStore::stepped();
    let engine = store.open();
    let clock = store.clock.clone().unwrap();
    let (streams, mut consumer) = stepped(&engine);
    for n in [1, 2] {
        open(&mut consumer, &StreamRequest::from_start(VbId::new(n)));
    }
    drain(&engine, &streams, &mut consumer);
    let sample = || streams.metrics_snapshot().unwrap();
    assert_eq!(by(&sample(), &names::CURSORS, "stream"), 2.0);
    assert_eq!(by(&sample(), &names::CURSORS, "persistence"), 4.0);
    assert_eq!(by(&sample(), &names::STREAMS_OPEN, "in_memory"), 2.0);

    for key in keys(5) {
        vb(&engine, 1)
            .write(Change::set(key, "v"), Durability::Memory)
            .unwrap();
    }
    clock.advance(Duration::from_secs(3));
    for key in keys(2) {
        vb(&engine, 2)
            .write(Change::set(key, "v"), Durability::Memory)
            .unwrap();
    }
    let owed = sample();
    for kind in ["persistence", "stream"] {
        assert_eq!(by(&owed, &names::CURSOR_MAX_LAG_ITEMS, kind), 5.0);
        assert_eq!(by(&owed, &names::CURSOR_BACKLOG_ITEMS, kind), 7.0);
        assert_eq!(by(&owed, &names::CURSOR_MAX_LAG_SECONDS, kind), 3.0);
        let memory = owed.value(&names::CHECKPOINT_MEMORY).unwrap();
        assert_eq!(by(&owed, &names::CURSOR_BACKLOG_BYTES, kind), memory);
    }
    assert_eq!(owed.value(&names::PERSIST_LAG_ITEMS), Some(7.0));
    assert_eq!(owed.value(&names::PERSIST_MAX_LAG_SECONDS), Some(3.0));

    vb(&engine, 1)
        .write(Change::set("one", "v"), Durability::Logged)
        .unwrap();
    let logged = sample();
    assert_eq!(logged.value(&names::PERSIST_LAG_ITEMS), Some(0.0));
    assert_eq!(logged.value(&names::SYNC_LAG_SEQNOS), Some(8.0));
    assert_eq!(by(&logged, &names::CURSOR_MAX_LAG_ITEMS, "stream"), 6.0);

    engine.flush().unwrap();
    drain(&engine, &streams, &mut consumer);
    let done = sample();
    assert_eq!(by(&done, &names::CURSOR_BACKLOG_ITEMS, "stream"), 0.0);
    assert_eq!(by(&done, &names::CURSOR_MAX_LAG_SECONDS, "stream"), 0.0);
    assert_eq!(by(&done, &names::STREAM_ITEMS, "memory"), 8.0);
    assert_eq!(done.value(&names::STREAM_MAX_LAG_SEQNOS), Some(0.0));
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn readers_their_lag_and_their_idleness_are_those_of_the_worst() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(9));
    let (streams, mut consumer) = stepped(&engine);
    let value = |metric| streams.metrics_snapshot().unwrap().value(metric).unwrap();
    assert_eq!(value(&names::READERS), 0.0);
    open(&mut consumer, &StreamRequest::from_start(VB));
    open(&mut consumer, &StreamRequest::from_start(VbId::new(2)));
    assert_eq!(value(&names::READERS), 2.0);
    assert_eq!(value(&names::READER_MAX_LAG_SEQNOS), 9.0);
    while streams.step() {}
    // The marker and three changes.
    for _ in 0..4 {
        consumer.try_recv().unwrap();
    }
    assert_eq!(value(&names::READER_MAX_LAG_SEQNOS), 6.0);
    // Changes that are only in memory count as well.
    vb(&engine, 1)
        .write(Change::set("new", "v"), Durability::Memory)
        .unwrap();
    assert_eq!(value(&names::READER_MAX_LAG_SEQNOS), 7.0);
    assert_eq!(value(&names::READER_MAX_IDLE_SECONDS), 0.0);
    let clock = store.clock.clone().unwrap();
    for _ in 0..2 {
        clock.advance(Duration::from_secs(200));
        while streams.step() {}
    }
    assert_eq!(value(&names::READER_MAX_IDLE_SECONDS), 200.0);
    engine.flush().unwrap();
    drain(&engine, &streams, &mut consumer);
    assert_eq!(value(&names::READER_MAX_LAG_SEQNOS), 0.0);
    assert_eq!(value(&names::READER_MAX_IDLE_SECONDS), 0.0);
    assert_eq!(value(&names::READERS), 2.0);
    drop(consumer);
    assert_eq!(value(&names::READERS), 0.0);
    drop(streams);
    store.finish(engine);
}

#[test]
fn streams_are_counted_from_opening_to_their_end() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(9));
    let (streams, mut consumer) = stepped(&engine);
    open(
        &mut consumer,
        &StreamRequest::from_start(VB).until(vbstore::Seqno::new(9)),
    );
    assert_eq!(
        by(
            &streams.metrics_snapshot().unwrap(),
            &names::STREAMS_OPEN,
            "backfilling"
        ),
        1.0
    );
    drain(&engine, &streams, &mut consumer);
    // A stream that loses its cursor, goes back to the disk, and is closed.
    open(&mut consumer, &StreamRequest::from_start(VbId::new(2)));
    drain(&engine, &streams, &mut consumer);
    vb(&engine, 2).set("k", "v").unwrap();
    raw::forget_memory(&engine, true).unwrap();
    drain(&engine, &streams, &mut consumer);
    consumer.close(VbId::new(2));
    take(&mut consumer);
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    open(&mut other, &StreamRequest::from_start(VB));
    assert!(streams.step());
    drop(other);

    let snapshot = streams.metrics_snapshot().unwrap();
    let value = |metric| snapshot.value(metric).unwrap();
    assert_eq!(value(&names::STREAMS_OPENED), 3.0);
    assert_eq!(by(&snapshot, &names::STREAMS_CLOSED, "reached_end"), 1.0);
    assert_eq!(by(&snapshot, &names::STREAMS_CLOSED, "closed"), 2.0);
    assert_eq!(snapshot.sum(&names::STREAMS_CLOSED), 3.0);
    assert_eq!(snapshot.sum(&names::STREAMS_OPEN), 0.0);
    assert_eq!(value(&names::STREAM_FALLBACKS), 1.0);
    assert_eq!(value(&names::CURSORS_DROPPED), 1.0);
    let begun = value(&names::BACKFILLS_STARTED);
    assert_eq!(begun, value(&names::BACKFILLS_ENDED));
    assert_eq!(begun, 3.0);
    assert_eq!(snapshot.sum(&names::BACKFILL_DURATION), 3.0);
    assert_eq!(snapshot.sum(&names::BACKFILL_FIRST_ITEM), 3.0);
    assert_eq!(by(&snapshot, &names::STREAM_ITEMS, "disk"), 9.0 + 1.0 + 9.0);
    // "key-0000" and "value"; "k" and "v".
    let bytes = 9.0 * 13.0 + 2.0 + 9.0 * 13.0;
    assert_eq!(by(&snapshot, &names::STREAM_BYTES, "disk"), bytes);
    assert_eq!(by(&snapshot, &names::STREAM_BYTES, "memory"), 0.0);
    assert_eq!(value(&names::BACKFILL_BUFFER_BYTES), 0.0);
    let closed = streams.counters().closed.of(EndReason::Closed.name());
    assert_eq!(closed.get(), 2);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn waiting_for_a_worker_is_timed_from_when_a_backfill_could_run() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 5;
    let engine = on_disk(&store, keys(9));
    let clock = store.clock.clone().unwrap();
    let (streams, mut consumer) = stepped(&engine);
    let micros = || {
        let waits = &streams.counters().queue_wait_micros;
        (waits.counts().iter().sum::<u64>(), waits.sum())
    };
    open(&mut consumer, &StreamRequest::from_start(VB));
    clock.advance(Duration::from_millis(300));
    assert!(streams.step());
    assert_eq!(micros(), (1, 300_000), "from the request");
    clock.advance(Duration::from_millis(20));
    assert!(streams.step());
    assert_eq!(micros(), (2, 320_000), "from one slice to the next");
    assert!(!streams.step());
    assert_eq!(take(&mut consumer).len(), 10);

    // A backfill that waits for a sync does not wait for a worker.
    let memory = Change::set("unsynced", "v");
    vb(&engine, 2).write(memory, Durability::Logged).unwrap();
    raw::forget_memory(&engine, true).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VbId::new(2)));
    assert!(streams.step());
    clock.advance(Duration::from_secs(5));
    assert!(!streams.step());
    engine.flush().unwrap();
    clock.advance(Duration::from_millis(1));
    assert!(streams.step());
    assert_eq!(micros(), (4, 321_000), "from the sync");
    let snapshot = streams.metrics_snapshot().unwrap();
    assert_eq!(snapshot.sum(&names::BACKFILL_QUEUE_WAIT), 4.0);
    // Delivering what was read already needs no further slice.
    assert_eq!(snapshot.sum(&names::BACKFILL_SLICE_SECONDS), 3.0);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_failure_shows_in_health_and_in_its_counter() {
    let store = TestStore::stepped();
    let engine = store.open();
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Fail(io_error()));
    vb(&engine, 0).set("k", "v").unwrap_err();
    let snapshot = engine.metrics_snapshot().unwrap();
    let health = |state| by(&snapshot, &names::HEALTH_STATE, state);
    assert_eq!(
        (health("open"), health("degraded"), health("failed")),
        (0.0, 0.0, 1.0)
    );
    assert_eq!(by(&snapshot, &names::PERSIST_FAILURES, "io"), 1.0);
    assert_eq!(snapshot.sum(&names::PERSIST_FAILURES), 1.0);
    vb(&engine, 0).set("k", "v").unwrap_err();
    let snapshot = engine.metrics_snapshot().unwrap();
    assert_eq!(by(&snapshot, &names::WRITES_REJECTED, "failed"), 1.0);
}

#[test]
fn a_panic_in_a_flush_is_counted_as_a_failure() {
    let store = TestStore::stepped();
    let engine = store.open();
    store.failpoints.once(place::FLUSH_WRITE, Action::Panic);
    vb(&engine, 0).set("k", "v").unwrap_err();
    let snapshot = engine.metrics_snapshot().unwrap();
    assert_eq!(by(&snapshot, &names::PERSIST_FAILURES, "other"), 1.0);
    assert_eq!(snapshot.sum(&names::PERSIST_FAILURES), 1.0);
    assert_eq!(by(&snapshot, &names::HEALTH_STATE, "failed"), 1.0);
}

#[test]
fn sums_over_families_are_kept_and_say_how_old_they_are() {
    let store = TestStore::stepped();
    let engine = store.open();
    let clock = store.clock.clone().unwrap();
    let sample = || engine.metrics_snapshot().unwrap();
    let first = sample();
    assert_eq!(first.value(&names::ROCKS_SUMS_AGE), Some(0.0));
    let memtables = first.value(&names::ROCKS_MEMTABLE_BYTES).unwrap();
    for key in keys(200) {
        vb(&engine, 1)
            .write(Change::set(key, vec![b'v'; 4_000]), Durability::Memory)
            .unwrap();
    }
    engine.flush().unwrap();
    clock.advance(Duration::from_secs(14));
    let kept = sample();
    assert_eq!(kept.value(&names::ROCKS_SUMS_AGE), Some(14.0));
    assert_eq!(kept.value(&names::ROCKS_MEMTABLE_BYTES), Some(memtables));
    clock.advance(Duration::from_secs(1));
    let fresh = sample();
    assert_eq!(fresh.value(&names::ROCKS_SUMS_AGE), Some(0.0));
    assert!(fresh.value(&names::ROCKS_MEMTABLE_BYTES).unwrap() > memtables);
    store.finish(engine);
}

#[test]
fn an_engine_has_one_set_of_streams_at_a_time() {
    let store = TestStore::stepped();
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let second = Streams::stepped(&engine, &StreamsConfig::default());
    assert!(matches!(
        second,
        Err(Error::Invalid {
            field: "engine",
            ..
        })
    ));
    drop(streams);
    drop(Streams::stepped(&engine, &StreamsConfig::default()).unwrap());
    store.finish(engine);
}

#[test]
fn changes_that_a_batch_leaves_out_count_as_replaced_once_it_is_written() {
    let mut store = TestStore::stepped();
    store.config.tuning.checkpoint_bytes_max = 4 << 10;
    let engine = store.open();
    for _ in 0..6 {
        // One checkpoint each.
        put(&vb(&engine, 1), "k", &"v".repeat(5_000));
    }
    let full = Error::DiskFull {
        detail: "planted".into(),
    };
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Fail(full));
    assert!(matches!(engine.flush(), Err(Error::DiskFull { .. })));
    engine.flush().unwrap();

    let snapshot = engine.metrics_snapshot().unwrap();
    let value = |metric| snapshot.value(metric).unwrap();
    assert_eq!(value(&names::WRITTEN_ITEMS), 6.0);
    assert_eq!(value(&names::PERSIST_ITEMS), 1.0);
    assert_eq!(value(&names::CHECKPOINT_ITEMS_REPLACED), 5.0);
    store.finish(engine);
}
