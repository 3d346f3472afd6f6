//! A stream's cursor in memory: which streams have one, what it costs, and that losing it loses no
//! change.

use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{
    BackgroundTask, Change, ConsumerConfig, Durability, Engine, FilterDigest, Position, Seqno,
    StreamRequest, StreamState, Streams, StreamsConfig, VbId,
};
use vbstore_core::ConsumerActivity;
use vbstore_engine::raw;
use vbstore_tests::following::{
    VB, drain, expect_event, keys, on_disk, open, run_all, short, stepped, take,
};
use vbstore_tests::{TestStore, put, vb};

/// Writes, frees all memory that no cursor holds, and returns the memory that is left.
fn memory_left_after_a_write(engine: &Engine) -> u64 {
    vb(engine, 1).set("probe", "v").unwrap();
    raw::forget_memory(engine, false).unwrap();
    engine.checkpoint_memory()
}

#[test]
fn what_is_not_taken_from_memory_is_buffered_nowhere() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 10;
    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert!(take(&mut consumer).is_empty(), "no marker of nothing");
    assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
    assert_eq!(consumer.position(VB).unwrap().seqno, Seqno::ZERO);
    for key in keys(1_000) {
        let change = Change::set(key, "value");
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    engine.flush().unwrap();
    assert_eq!(consumer.stats()[0].lag_items, Some(1_000));
    assert_eq!(streams.stats().buffered_bytes, 0);
    let batch = consumer.next_batch(Duration::ZERO).unwrap();
    assert_eq!(batch.len(), 11, "a marker and as much as a slice may have");
    assert_eq!(consumer.stats()[0].lag_items, Some(990));
    drop(batch);
    assert_eq!(drain(&engine, &streams, &mut consumer).len(), 990);
    assert_eq!(consumer.stats()[0].slices, 0);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_stream_that_ends_with_what_is_on_disk_takes_no_place_in_memory() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let (streams, mut consumer) = stepped(&engine);
    open(
        &mut consumer,
        &StreamRequest::from_start(VB).until(Seqno::new(3)),
    );
    run_all(&streams);
    assert_eq!(memory_left_after_a_write(&engine), 0);
    let events = short(&take(&mut consumer));
    assert_eq!(events[0], "0..3 disk");
    assert_eq!((events.len(), events[4].as_str()), (5, "end reached_end"));
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_dropped_place_in_memory_is_released() {
    let store = TestStore::stepped();
    let engine = store.open();
    let feed = engine.feed(VB).unwrap();
    let admitted = feed
        .admit(
            &Position::default(),
            FilterDigest::of(b"", false),
            Seqno::MAX,
            &ConsumerActivity::new(Duration::ZERO),
        )
        .unwrap();
    assert!(memory_left_after_a_write(&engine) > 0, "it is held");
    drop(admitted);
    assert_eq!(memory_left_after_a_write(&engine), 0);
    drop(feed);
    store.finish(engine);
}

#[test]
fn a_panic_while_memory_is_held_for_a_view_gives_it_up() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    for round in 0..4 {
        let gate = Arc::new(Latch::default());
        let wait = Action::Wait(Arc::clone(&gate));
        store.failpoints.once(place::SLICE_VIEW, wait);
        if round == 3 {
            store.failpoints.once(place::SLICE_HAND_ON, Action::Panic);
        }
        std::thread::scope(|scope| {
            let step = std::thread::Builder::new().name("step".to_owned());
            let step = step.spawn_scoped(scope, || streams.step()).unwrap();
            let _held = gate.wait_for_arrival();
            let left = memory_left_after_a_write(&engine);
            assert_eq!(left > 0, round == 3, "held from the fourth time on");
            gate.open();
            assert!(step.join().unwrap());
        });
    }
    let events = take(&mut consumer);
    assert_eq!(short(&events).last().unwrap(), "end error");
    assert_eq!(memory_left_after_a_write(&engine), 0);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_cursor_dropped_in_the_middle_of_a_batch_repeats_and_skips_nothing() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    for key in ["a", "b", "c"] {
        let change = Change::set(key, "v");
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    engine.flush().unwrap();
    let first = [consumer.try_recv().unwrap(), consumer.try_recv().unwrap()];
    assert_eq!(short(&first), ["0..3 memory", "a@1"]);
    // The buffered document moves to a later seqno; the cursor has passed the old one.
    vb(&engine, 1).set("b", "again").unwrap();
    raw::forget_memory(&engine, true).unwrap();
    assert_eq!(engine.metrics().cursors_dropped.get(), 1);
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["b@2", "c@3", "3..4 disk", "b@4"]);
    assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_cursor_dropped_before_its_changes_are_visible_is_missed_when_they_are() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert!(take(&mut consumer).is_empty());
    let change = Change::set("a", "v");
    vb(&engine, 1).write(change, Durability::Logged).unwrap();
    raw::forget_memory(&engine, true).unwrap();
    assert_eq!(engine.metrics().cursors_dropped.get(), 1);
    assert!(take(&mut consumer).is_empty(), "not synced yet");
    assert!(!streams.step());

    // No more writes come: the sync alone wakes the stream.
    engine.flush().unwrap();

    assert!(take(&mut consumer).is_empty());
    assert!(streams.step());
    assert_eq!(short(&take(&mut consumer)), ["0..1 disk", "a@1"]);
    assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn of_two_slow_consumers_the_one_that_lags_most_loses_its_cursor() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 1 << 20;
    store.config.tuning.checkpoint_bytes_max = 64 << 10;
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let frozen = |name, number| {
        let mut consumer = streams.consumer(name, &ConsumerConfig::default()).unwrap();
        open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
        consumer
    };
    // The cursor with the older lag has the smaller one.
    let (mut small, mut large) = (frozen("small", 0), frozen("large", 1));
    let value = "x".repeat(2_000);
    for n in 0..450 {
        let number = u16::from(n >= 50);
        let change = Change::set(format!("key-{n}"), value.clone());
        vb(&engine, number)
            .write(change, Durability::Synced)
            .unwrap();
    }
    assert_eq!(engine.metrics().cursors_dropped.get(), 1);
    assert_eq!(small.stats()[0].lag_items, Some(50));
    assert_eq!(large.stats()[0].lag_items, None);
    assert_eq!(drain(&engine, &streams, &mut small).len(), 51);
    let events = drain(&engine, &streams, &mut large);
    let items = events.iter().filter(|event| event.event.item().is_some());
    assert_eq!(items.count(), 400);
    engine.step(BackgroundTask::Syncer).unwrap();
    drop((small, large, streams));
    store.finish(engine);
}

#[test]
fn cas_rises_with_the_seqno_for_all_writers() {
    let store = TestStore::threaded();
    let engine = store.open();
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    let shared = &engine;
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let name = std::thread::Builder::new().name(format!("writer-{writer}"));
            let writes = move || {
                for n in 0..250 {
                    vb(shared, 1).set(format!("k{writer}-{n}"), "v").unwrap();
                }
            };
            name.spawn_scoped(scope, writes).unwrap();
        }
        while seen.len() < 1_000 {
            let event = expect_event(&mut consumer);
            seen.extend(
                event
                    .event
                    .item()
                    .map(|item| (item.meta.seqno, item.meta.cas)),
            );
        }
    });
    let rises = |two: &[(Seqno, vbstore::Cas)]| two[0].0 < two[1].0 && two[0].1 < two[1].1;
    assert!(seen.windows(2).all(rises));
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_write_at_the_quota_waits_while_cursors_are_dropped_by_turns() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 16 << 20;
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let frozen = |n: u32| {
        let name = format!("frozen-{n}");
        let mut consumer = streams.consumer(&name, &ConsumerConfig::default()).unwrap();
        open(&mut consumer, &StreamRequest::from_start(VB));
        consumer
    };
    // The cursors are dropped in several turns, and nothing can be freed before the last is
    // dropped.
    let consumers: Vec<_> = (0..130).map(frozen).collect();
    for n in 0..6 {
        let change = Change::set(format!("key-{n}"), vec![0; 2 << 20]);
        vb(&engine, 1).write(change, Durability::Synced).unwrap();
    }
    assert_eq!(engine.metrics().cursors_dropped.get(), 0);

    let large = Change::set("large", vec![0; 6 << 20]);
    vb(&engine, 0).write(large, Durability::Memory).unwrap();

    assert_eq!(engine.metrics().cursors_dropped.get(), 130);
    drop((consumers, streams));
    store.finish(engine);
}

#[test]
fn each_turn_frees_what_everyone_has_read_before_it_drops_a_cursor() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 16 << 20;
    store.config.tuning.checkpoint_bytes_max = 64 << 10;
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let frozen = |name, number| {
        let mut consumer = streams.consumer(name, &ConsumerConfig::default()).unwrap();
        open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
        consumer
    };
    let (large, small) = (frozen("large", 0), frozen("small", 1));
    let mut written = 0;
    while engine.checkpoint_memory() < 15 << 20 {
        let number = u16::from(written % 3 == 0);
        put(&vb(&engine, number), &format!("key-{written}"), "v");
        written += 1;
    }
    // Dropping one cursor is enough, but what it kept takes several turns to free.
    engine.flush().unwrap();
    let low = (16 << 20) / 100 * 70;
    assert!(engine.checkpoint_memory() > low, "all in one turn");
    while engine.checkpoint_memory() > low {
        engine.step(BackgroundTask::Flusher).unwrap();
    }

    assert_eq!(engine.metrics().cursors_dropped.get(), 1);
    assert_eq!(large.stats()[0].lag_items, None);
    assert!(small.stats()[0].lag_items.is_some());
    drop((large, small, streams));
    store.finish(engine);
}
