//! Work under a lock or by the flush leader does not grow with the amount of data in memory.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::metrics::names;
use vbstore::{
    BackgroundTask, Change, Consumer, Durability, Engine, StreamRequest, Streams, StreamsConfig,
    VbId,
};
use vbstore_engine::raw;
use vbstore_tests::following::{consumer, drain, open};
use vbstore_tests::{TestStore, put, vb};

#[test]
fn a_batch_of_many_keys_holds_up_no_other_vbucket() {
    let store = TestStore::threaded();
    let engine = store.open();
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::WRITE_ASSIGN, wait);
    std::thread::scope(|scope| {
        let large = vb(&engine, 0);
        let batch = scope.spawn(move || {
            let keys = (0..10_000).map(|n| Change::add(format!("key-{n}"), "v"));
            let changes: Vec<Change> = keys.collect();
            large.batch(&changes, Durability::Memory)
        });
        // From here on the batch holds the stripes of all its keys.
        let arrival = gate.wait_for_arrival();
        let (done, is_done) = mpsc::sync_channel(1);
        let other = vb(&engine, 1);
        scope.spawn(move || {
            for n in 0..1_000 {
                put(&other, &format!("key-{n}"), "v");
            }
            done.send(()).unwrap();
        });
        let waited = is_done.recv_timeout(Duration::from_secs(60));
        // Readers of the batch's vBucket go on, and do not see a part of it.
        let seen = vb(&engine, 0).get("key-1").unwrap();
        drop(arrival);
        assert!(batch.join().unwrap().is_ok());
        waited.unwrap();
        assert!(seen.is_none());
    });
    store.finish(engine);
}

#[test]
fn memory_is_freed_by_turns_of_some_thousand_changes() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 16 << 20;
    store.config.tuning.checkpoint_bytes_max = 64 << 10;
    let engine = store.open();
    let mut written = 0;
    while engine.checkpoint_memory() < 15 << 20 {
        put(&vb(&engine, written % 4), &format!("key-{written}"), "v");
        written += 1;
    }
    let each = engine.checkpoint_memory() / u64::from(written);
    let low = (16 << 20) / 100 * 70;
    let freed = &engine.metrics().freed_bytes;
    let turn_max = (4_096 + 1) * each + (64 << 10);

    engine.flush().unwrap();
    assert!(freed.get() > 0);
    let mut turns = 1;
    while engine.checkpoint_memory() > low {
        let before = freed.get();
        assert!(
            before <= turns * turn_max,
            "{before} bytes in {turns} turns"
        );
        // Nothing is written: the flusher goes on because the previous turn asked for another.
        engine.step(BackgroundTask::Flusher).unwrap();
        assert!(freed.get() > before, "stopped above the low mark");
        turns += 1;
    }
    assert!(turns > 1, "all was freed in one turn");
    store.finish(engine);
}

#[test]
fn cursors_are_dropped_by_turns_of_some_dozens() {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(256);
    store.config.tuning.memory_quota = 16 << 20;
    store.config.tuning.memory_low_percent = 10;
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut frozen: Vec<Consumer> = Vec::new();
    for number in 0..256 {
        let mut consumer = consumer(&streams, "frozen");
        open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
        assert!(drain(&engine, &streams, &mut consumer).is_empty());
        frozen.push(consumer);
    }
    let dropped = &engine.metrics().cursors_dropped;
    let mut number = 0;
    while engine.checkpoint_memory() < 14 << 20 {
        let change = Change::set("k", vec![7; 60_000]);
        vb(&engine, number)
            .write(change, Durability::Memory)
            .unwrap();
        number += 1;
    }
    assert_eq!(dropped.get(), 0);

    engine.flush().unwrap();

    let mut turns = 1;
    while engine.checkpoint_memory() > (16 << 20) / 10 {
        let before = dropped.get();
        assert!(before <= turns * 64, "{before} cursors in {turns} turns");
        engine.step(BackgroundTask::Flusher).unwrap();
        assert!(dropped.get() > before, "stopped above the low mark");
        turns += 1;
    }
    assert!(dropped.get() > 128, "{} cursors", dropped.get());
    assert!(turns > 2, "all were dropped in {turns} turns");
    drop((frozen, streams));
    store.finish(engine);
}

/// Returns how many block cache look-ups RocksDB has done.
fn blocks_looked_up(engine: &Engine) -> f64 {
    let snapshot = engine.metrics_snapshot().unwrap();
    snapshot.value(&names::ROCKS_CACHE_LOOKUPS).unwrap()
}

#[test]
fn a_batch_looks_up_all_its_keys_in_one_read() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = vb(&engine, 0);
    let keys: Vec<String> = (0..1_000).map(|n| format!("key-{n:04}")).collect();
    for key in &keys {
        put(&first, key, "v");
    }
    // Neither our memory nor RocksDB's memtables hold the keys: each look-up reads a block.
    let settle = || {
        engine.flush().unwrap();
        engine.compact(first.id()).unwrap();
        raw::forget_memory(&engine, true).unwrap();
    };
    settle();
    let cost = |write: &dyn Fn()| {
        let before = blocks_looked_up(&engine);
        write();
        blocks_looked_up(&engine) - before
    };
    let changes: Vec<Change> = keys.iter().map(|key| Change::replace(key, "w")).collect();
    let together = cost(&|| drop(first.batch(&changes, Durability::Memory).unwrap()));
    settle();
    let one_by_one = cost(&|| {
        for key in &keys {
            first
                .write(Change::replace(key, "x"), Durability::Memory)
                .unwrap();
        }
    });
    // Keys of one block are looked up in it together.
    assert!(one_by_one >= 1_000.0, "{one_by_one} blocks");
    assert!(
        together * 4.0 < one_by_one,
        "{together} blocks for a batch, {one_by_one} for its keys"
    );
    drop(first);
    store.finish(engine);
}
