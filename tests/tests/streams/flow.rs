//! Buffers, turns and caps: a slow consumer delays itself and no other consumer.

use std::time::Duration;
use vbstore::{
    BackfillOrder, BackgroundTask, Change, ConsumerConfig, Durability, Error, StreamOptions,
    StreamRequest, StreamState, Streams, StreamsConfig, TryRecv, VbId,
};
use vbstore_engine::raw;
use vbstore_tests::following::{
    VB, drain, on_disk, on_disk_in_each, open, run_all, short, stepped, take,
};
use vbstore_tests::{TestStore, assert_at_rest, vb};

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("key-{n:04}"))
}

fn limited(bytes: u64) -> ConsumerConfig {
    ConsumerConfig {
        buffer_bytes_max: bytes,
        ..ConsumerConfig::default()
    }
}

#[test]
fn a_frozen_consumer_holds_its_buffer_and_nothing_else() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(500));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut frozen = streams.consumer("frozen", &limited(10_000)).unwrap();
    open(&mut frozen, &StreamRequest::from_start(VB));
    run_all(&streams);
    let stats = frozen.stats();
    assert_eq!(stats[0].state, StreamState::Snoozed);
    assert!(frozen.buffered_bytes() > 5_000 && frozen.buffered_bytes() <= 10_000);
    assert_at_rest(&engine);

    // Other consumers are still served.
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    open(&mut other, &StreamRequest::from_start(VB));
    assert_eq!(drain(&engine, &streams, &mut other).len(), 501);

    // It resumes once a share of its buffer is drained, not for a single event.
    frozen.try_recv().unwrap();
    assert!(!streams.step());
    let mut events = take(&mut frozen);
    assert!(streams.step());
    events.extend(drain(&engine, &streams, &mut frozen));
    assert_eq!(events.len(), 500, "with the marker that was taken first");
    assert_eq!(frozen.buffered_bytes(), 0);
    drop((frozen, other, streams));
    store.finish(engine);
}

#[test]
fn one_item_always_passes() {
    let store = TestStore::stepped();
    let engine = store.open();
    let value = "x".repeat(1 << 20);
    for key in ["a", "b"] {
        let change = Change::set(key, value.clone());
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("small", &limited(1)).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    run_all(&streams);
    assert!(
        consumer.buffered_bytes() < (1 << 20) + 1_000,
        "one at a time"
    );
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..2 disk", "a@1", "b@2"]);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn streams_that_wait_for_room_get_it_in_turn() {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(64);
    let engine = store.open();
    for number in 0..64 {
        for key in keys(120) {
            let change = Change::set(key, "value");
            vb(&engine, number)
                .write(change, Durability::Memory)
                .unwrap();
        }
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("wide", &limited(8_000)).unwrap();
    for number in 0..64 {
        open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
    }
    // After a few rounds every consumer has received something.
    for _ in 0..64 {
        run_all(&streams);
        take(&mut consumer);
    }
    let stats = consumer.stats();
    let starved: Vec<_> = stats.iter().filter(|s| s.taken_seqno.get() == 0).collect();
    assert!(starved.is_empty(), "{starved:?}");
    let events = drain(&engine, &streams, &mut consumer);
    assert!(!events.is_empty());
    for stats in consumer.stats() {
        assert_eq!(stats.taken_seqno.get(), 120, "{stats:?}");
    }
    assert_eq!(consumer.buffered_bytes(), 0);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_frozen_consumer_of_few_keys_is_bounded_too() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 10;
    let engine = on_disk(&store, keys(2_000));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut leader = streams
        .consumer("leader", &ConsumerConfig::default())
        .unwrap();
    let mut frozen = streams.consumer("frozen", &limited(20_000)).unwrap();
    let none = StreamOptions {
        prefix: "no such key".into(),
        ..StreamOptions::default()
    };
    open(&mut leader, &StreamRequest::from_start(VB));
    open(&mut frozen, &StreamRequest::from_start(VB).options(none));
    while streams.step() {
        take(&mut leader);
    }
    assert_eq!(
        frozen.stats()[0].state,
        StreamState::Snoozed,
        "batches without rows count too"
    );
    let events = drain(&engine, &streams, &mut frozen);
    assert_eq!(short(&events).last().unwrap(), "to 2000");
    drop((leader, frozen, streams));
    store.finish(engine);
}

fn two_vbuckets(store: &TestStore) -> vbstore::Engine {
    let engine = store.open();
    for number in [0, 1] {
        for key in keys(6) {
            let change = Change::set(key, "value");
            vb(&engine, number)
                .write(change, Durability::Memory)
                .unwrap();
        }
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    engine
}

/// Returns the vBuckets of the slices in their order, when both are followed.
fn turns(order: BackfillOrder) -> Vec<u16> {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = two_vbuckets(&store);
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let config = ConsumerConfig {
        order,
        ..ConsumerConfig::default()
    };
    let mut consumer = streams.consumer("ordered", &config).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VbId::new(0)));
    open(&mut consumer, &StreamRequest::from_start(VB));
    let mut turns = Vec::new();
    loop {
        let ran = streams.step();
        let events = take(&mut consumer);
        turns.extend(events.first().map(|event| event.vb.get()));
        assert_at_rest(&engine);
        if !ran {
            break;
        }
    }
    drop((consumer, streams));
    store.finish(engine);
    turns
}

#[test]
fn round_robin_takes_turns_and_sequential_goes_to_the_end() {
    assert_eq!(turns(BackfillOrder::RoundRobin), [0, 1, 0, 1, 0, 1]);
    assert_eq!(turns(BackfillOrder::Sequential), [0, 0, 0, 1, 1, 1]);
}

#[test]
fn too_many_backfills_wait_and_even_more_are_refused() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = two_vbuckets(&store);
    let config = StreamsConfig {
        backfills_max: 1,
        pending_max: 1,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let consumer = || streams.consumer("c", &ConsumerConfig::default()).unwrap();
    let (mut first, mut second, mut third) = (consumer(), consumer(), consumer());
    open(&mut first, &StreamRequest::from_start(VB));
    assert!(streams.step());
    open(&mut second, &StreamRequest::from_start(VB));
    assert_eq!(second.stats()[0].state, StreamState::Pending);
    let refused = third.open(&StreamRequest::from_start(VB));
    assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    assert_eq!(third.try_recv().unwrap_err(), TryRecv::Ended);
    assert_eq!(third.position(VB), None);

    // Once the first consumer is done the second begins, and the third may open.
    drain(&engine, &streams, &mut first);
    assert_eq!(drain(&engine, &streams, &mut second).len(), 7);
    open(&mut third, &StreamRequest::from_start(VB));
    assert_eq!(drain(&engine, &streams, &mut third).len(), 7);
    assert_eq!(streams.stats().pending, 0);
    drop((first, second, third));
    drop(streams);
    store.finish(engine);
}

#[test]
fn a_frozen_consumer_takes_no_place_from_others() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(500));
    let config = StreamsConfig {
        backfills_max: 1,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let mut frozen = streams.consumer("frozen", &limited(2_000)).unwrap();
    open(&mut frozen, &StreamRequest::from_start(VB));
    run_all(&streams);
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    open(&mut other, &StreamRequest::from_start(VB));
    assert_eq!(drain(&engine, &streams, &mut other).len(), 501);
    drop((frozen, other, streams));
    store.finish(engine);
}

#[test]
fn streams_of_one_vbucket_share_slices_where_they_may() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 50;
    let engine = on_disk(&store, keys(500));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let consumer = |name| streams.consumer(name, &ConsumerConfig::default()).unwrap();
    let (mut leader, mut follower) = (consumer("leader"), consumer("follower"));
    let opened = engine.metrics().db_snapshots.opened();
    open(&mut leader, &StreamRequest::from_start(VB));
    let keys_only = StreamOptions {
        is_keys_only: true,
        prefix: "key-00".into(),
        ..StreamOptions::default()
    };
    open(
        &mut follower,
        &StreamRequest::from_start(VB).options(keys_only),
    );
    run_all(&streams);
    let slices = |c: &vbstore::Consumer| (c.stats()[0].slices, c.stats()[0].shared_slices);
    let ((led, _), (own, shared)) = (slices(&leader), slices(&follower));
    assert_eq!(led + own, 10, "{led} {own} {shared}");
    assert!(shared >= 9);
    assert_eq!(engine.metrics().db_snapshots.opened() - opened, 10);
    assert_eq!(take(&mut leader).len(), 501);
    let events = take(&mut follower);
    let changes: Vec<_> = events
        .iter()
        .filter_map(|event| event.event.item())
        .collect();
    assert_eq!(changes.len(), 100);
    assert!(changes.iter().all(|item| item.value.is_empty()));

    // A stream that opens later does not receive a slice of a view older than itself, though such
    // slices are kept for the frozen consumer.
    let mut frozen = streams.consumer("frozen", &limited(2_000)).unwrap();
    let mut early = consumer("early");
    open(&mut frozen, &StreamRequest::from_start(VB));
    open(&mut early, &StreamRequest::from_start(VB));
    run_all(&streams);
    assert_eq!(frozen.stats()[0].state, StreamState::Snoozed);
    let mut late = consumer("late");
    open(&mut late, &StreamRequest::from_start(VB));
    run_all(&streams);
    assert_eq!(slices(&late), (10, 0));
    drop((leader, follower, frozen, early, late, streams));
    store.finish(engine);
}

#[test]
fn after_three_failed_joins_memory_is_held_for_the_view() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    for round in 0..4 {
        // While a slice is being read, a change is written, flushed, and freed from memory.
        let gate = std::sync::Arc::new(vbstore::failpoint::Latch::default());
        let place = vbstore::failpoint::place::SLICE_HAND_ON;
        let wait = vbstore::failpoint::Action::Wait(std::sync::Arc::clone(&gate));
        store.failpoints.once(place, wait);
        std::thread::scope(|scope| {
            let step = std::thread::Builder::new().name("step".to_owned());
            let step = step.spawn_scoped(scope, || streams.step()).unwrap();
            let _held = gate.wait_for_arrival();
            vb(&engine, 1).set(format!("new-{round}"), "v").unwrap();
            raw::forget_memory(&engine, false).unwrap();
            gate.open();
            assert!(step.join().unwrap());
        });
        let is_joined = consumer.stats()[0].state == StreamState::InMemory;
        assert_eq!(is_joined, round == 3, "round {round}");
    }
    let events = take(&mut consumer);
    assert_eq!(short(&events).last().unwrap(), "new-3@7");
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn the_lag_of_a_cursor_is_right_through_replacing_and_freeing() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let clock = store.clock.clone().unwrap();
    let lag = |consumer: &vbstore::Consumer| {
        let stats = consumer.stats();
        (
            stats[0].lag_items.unwrap(),
            stats[0].lag_age.unwrap().as_secs(),
        )
    };
    assert_eq!(lag(&consumer), (0, 0));
    let put = |key: &str| {
        let change = Change::set(key, "v");
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    };
    put("a");
    clock.advance(Duration::from_secs(5));
    put("b");
    assert_eq!(lag(&consumer), (2, 5));
    put("a");
    assert_eq!(lag(&consumer), (2, 0), "the older one was replaced");
    clock.advance(Duration::from_secs(3));
    engine.flush().unwrap();
    put("a");
    assert_eq!(lag(&consumer), (3, 3), "not across a flush");
    raw::forget_memory(&engine, false).unwrap();
    assert_eq!(lag(&consumer), (3, 3), "what it has not read stays");
    assert_eq!(take(&mut consumer).len(), 3);
    assert_eq!(lag(&consumer), (1, 0));
    raw::forget_memory(&engine, false).unwrap();
    engine.flush().unwrap();
    assert_eq!(take(&mut consumer).len(), 2);
    assert_eq!(lag(&consumer), (0, 0));
    put("c");
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    assert_eq!(consumer.stats()[0].lag_items, None, "dropped");
    assert_eq!(engine.metrics().cursors_dropped.get(), 1);
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["4..5 disk", "c@5"]);
    assert_eq!(consumer.stats()[0].cursor_drops, 1);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_backfill_whose_end_runs_away_says_so() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = on_disk(&store, keys(40));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let clock = store.clock.clone().unwrap();
    for n in 0..8 {
        assert!(streams.step());
        clock.advance(Duration::from_secs(20));
        for m in 0..9 {
            vb(&engine, 1).set(format!("new-{n}-{m}"), "v").unwrap();
        }
        raw::forget_memory(&engine, true).unwrap();
        take(&mut consumer);
    }
    assert!(consumer.stats()[0].is_diverging);
    drain(&engine, &streams, &mut consumer);
    assert!(!consumer.stats()[0].is_diverging);
    engine.step(BackgroundTask::Syncer).unwrap();
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn what_everyone_has_read_is_freed_before_a_cursor_is_dropped() {
    let mut store = TestStore::stepped();
    store.config.tuning.memory_quota = 1 << 20;
    store.config.tuning.checkpoint_bytes_max = 64 << 10;
    let engine = store.open();
    let (streams, mut reader) = stepped(&engine);
    let mut frozen = streams
        .consumer("frozen", &ConsumerConfig::default())
        .unwrap();
    open(&mut reader, &StreamRequest::from_start(VbId::new(0)));
    open(&mut frozen, &StreamRequest::from_start(VB));
    let (value, mut read) = ("x".repeat(2_000), 0);
    let write = |number: u16, n: u32| {
        let change = Change::set(format!("key-{n}"), value.clone());
        vb(&engine, number)
            .write(change, Durability::Synced)
            .unwrap();
    };
    // 100 KB that the frozen consumer has not read, and 4 MB that the other one has.
    for n in 0..50 {
        write(1, n);
    }
    for n in 0..2_000 {
        write(0, n);
        read += take(&mut reader)
            .iter()
            .filter(|e| e.event.item().is_some())
            .count();
    }
    let metrics = engine.metrics();
    assert!(metrics.checkpoints_freed.get() > 10);
    assert_eq!(metrics.cursors_dropped.get(), 0);
    assert_eq!(frozen.stats()[0].lag_items, Some(50));
    // Now nothing else can be freed.
    for n in 50..1_000 {
        write(1, n);
    }
    assert_eq!(metrics.cursors_dropped.get(), 1);
    assert_eq!(frozen.stats()[0].lag_items, None);
    assert!(engine.checkpoint_memory() <= 1 << 20);
    assert_eq!(read, 2_000);
    let events = drain(&engine, &streams, &mut frozen);
    let items = events.iter().filter(|e| e.event.item().is_some()).count();
    assert_eq!((items, frozen.stats()[0].cursor_drops), (1_000, 1));
    drop((reader, frozen, streams));
    store.finish(engine);
}

fn many_vbuckets(count: u16, keys_each: usize) -> (TestStore, vbstore::Engine) {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(count);
    let engine = on_disk_in_each(&store, count, keys_each);
    (store, engine)
}

#[test]
fn one_db_snapshot_serves_many_small_vbuckets_of_a_consumer() {
    for (per_snapshot, expected) in [(1, 64), (16, 4), (1_024, 1)] {
        let (store, engine) = many_vbuckets(64, 3);
        let config = StreamsConfig {
            backfills_per_snapshot: per_snapshot,
            ..StreamsConfig::default()
        };
        let streams = Streams::stepped(&engine, &config).unwrap();
        let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
        for number in 0..64 {
            open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
        }
        let opened = || engine.metrics().db_snapshots.opened();
        let before = opened();
        while streams.step_group() {
            assert_at_rest(&engine);
        }
        assert_eq!(opened() - before, expected, "{per_snapshot} a snapshot");
        assert_eq!(take(&mut consumer).len(), 64 * 4);
        assert_eq!(streams.counters().slices.complete.get(), 64);
        drop((consumer, streams));
        store.finish(engine);
    }
}

#[test]
fn a_slice_cut_by_its_budget_ends_its_group_and_the_others_go_on_in_the_next() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 5;
    let engine = two_vbuckets(&store);
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    for number in [0, 1] {
        open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
    }
    let before = engine.metrics().db_snapshots.opened();
    let mut slices = 0;
    while streams.step_group() {
        slices += 1;
        assert!(
            streams.stats().buffered_bytes < 10_000,
            "what was not read is released"
        );
    }
    // 5 of the first; 5 of the second, whose turn it was; then the rest of both.
    assert_eq!(engine.metrics().db_snapshots.opened() - before, 3);
    assert_eq!(slices, 3);
    assert_eq!(take(&mut consumer).len(), 14);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_panic_or_an_error_in_one_slice_of_a_group_ends_its_stream_alone() {
    use vbstore::failpoint::{Action, place};
    let error = || Error::io("read", std::io::Error::other("planted"));
    for at in [place::SLICE_OPEN, place::SLICE_VIEW, place::SLICE_HAND_ON] {
        for action in [Action::Panic, Action::Fail(error())] {
            let (store, engine) = many_vbuckets(8, 3);
            let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
            let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
            for number in 0..8 {
                open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
            }
            // The fourth stream of the group.
            store.failpoints.nth(at, 3, 1, action);
            assert!(streams.step_group());
            while streams.step_group() {}
            assert_at_rest(&engine);
            let events = take(&mut consumer);
            let ended = short(&events).iter().filter(|e| *e == "end error").count();
            assert_eq!((ended, events.len()), (1, 7 * 4 + 1), "{at}");
            assert_eq!(streams.stats().buffered_bytes, 0);
            assert_eq!(consumer.stats().len(), 7);
            drop((consumer, streams));
            store.finish(engine);
        }
    }
}
