//! Consumers that take nothing: what is buffered for them is dropped when others are short, and read
//! again, with nothing skipped or repeated, when they come back.

use std::time::Duration;
use vbstore::{
    Change, Consumer, ConsumerConfig, Durability, EndReason, Error, Event, Position, Seqno,
    StreamOptions, StreamRequest, StreamState, Streams, StreamsConfig, TryRecv, VbId, Visibility,
};
use vbstore_engine::raw;
use vbstore_tests::following::{PATIENCE, VB, drain, on_disk, open, run_all, short, take};
use vbstore_tests::replica::{History, Replica};
use vbstore_tests::{TestStore, vb};

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("key-{n:04}"))
}

/// All consumers together may buffer this much: one slice of a hundred small documents, and a bit.
const TOTAL: u64 = 16_000;

fn few_buffers() -> StreamsConfig {
    StreamsConfig {
        buffer_bytes_max: TOTAL,
        ..StreamsConfig::default()
    }
}

fn consumer(streams: &Streams, name: &str) -> Consumer {
    streams.consumer(name, &ConsumerConfig::default()).unwrap()
}

/// Lets a consumer that takes find out that the others take nothing. What it takes is returned.
fn let_time_pass(
    store: &TestStore,
    streams: &Streams,
    healthy: &mut Consumer,
) -> Vec<vbstore::StreamEvent> {
    let clock = store.clock.as_ref().unwrap();
    let mut taken = Vec::new();
    for _ in 0..30 {
        run_all(streams);
        // Its reader comes again and again; the others' do not.
        taken.extend(healthy.try_recv());
        clock.advance(Duration::from_millis(100));
    }
    run_all(streams);
    taken
}

fn state(consumer: &Consumer) -> StreamState {
    consumer.stats()[0].state
}

fn seqnos(events: &[vbstore::StreamEvent]) -> Vec<u64> {
    let items = events.iter().filter_map(|event| event.event.item());
    items.map(|item| item.meta.seqno.get()).collect()
}

#[test]
fn what_a_frozen_consumer_has_not_taken_is_given_to_one_that_takes() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 100;
    let engine = on_disk(&store, keys(1_000));
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    // They take their first event, and then nothing any more: one event by event, one in batches.
    let mut frozen: Vec<Consumer> = (0..3).map(|_| consumer(&streams, "frozen")).collect();
    let mut first_events = Vec::new();
    for consumer in &mut frozen {
        open(consumer, &StreamRequest::from_start(VB));
        run_all(&streams);
        first_events.push(consumer.try_recv().ok());
    }
    assert!(streams.stats().buffered_bytes > TOTAL / 2);

    let mut healthy = consumer(&streams, "healthy");
    open(&mut healthy, &StreamRequest::from_start(VB));
    assert_eq!(healthy.try_recv().unwrap_err(), TryRecv::Empty);
    let mut events = let_time_pass(&store, &streams, &mut healthy);

    assert!(frozen.iter().all(|consumer| consumer.buffered_bytes() == 0));
    for consumer in frozen.iter().filter(|c| c.stats()[0].slices > 0) {
        assert_eq!(state(consumer), StreamState::Paused);
        assert_eq!(consumer.stats()[0].pauses, 1);
    }
    assert!(streams.counters().pauses.get() >= 1);
    // The healthy one reads whole slices, not item by item.
    events.extend(drain(&engine, &streams, &mut healthy));
    assert_eq!(events.len(), 1_001);
    let stats = &healthy.stats()[0];
    assert!(stats.slices + stats.shared_slices <= 14, "{stats:?}");

    // They come back one after the other, and miss nothing and see nothing twice.
    for (consumer, first) in frozen.iter_mut().zip(first_events) {
        let mut events: Vec<_> = first.into_iter().collect();
        events.extend(drain(&engine, &streams, consumer));
        assert_eq!(seqnos(&events), (1..=1_000).collect::<Vec<_>>());
        assert_eq!(state(consumer), StreamState::InMemory);
    }
    assert_eq!(streams.stats().buffered_bytes, 0);
    drop((frozen, healthy, streams));
    store.finish(engine);
}

#[test]
fn a_paused_stream_goes_on_wherever_it_was() {
    // Cut after every number of events, in the middle of a slice and of a marker, while the vBucket
    // changes behind its back: overwritten, deleted, flushed, forgotten by memory.
    for cut in 0..40 {
        let mut store = TestStore::stepped();
        store.config.tuning.slice_budget.items_max = 7;
        let engine = store.open();
        let history = History::default();
        let put = |key: &str, value: Option<&str>| {
            vbstore_tests::following::write(&vb(&engine, 1), &history, key, value);
        };
        for key in keys(30) {
            put(&key, Some("old"));
        }
        engine.flush().unwrap();
        raw::forget_memory(&engine, true).unwrap();
        let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
        let mut slow = consumer(&streams, "slow");
        open(&mut slow, &StreamRequest::from_start(VB));
        let mut replica = Replica::new(StreamOptions::default());
        replica.begin_stream(Position::default());
        let mut left = cut;
        let follow = |slow: &mut Consumer, replica: &mut Replica, left: &mut usize| {
            // Taking may find that it was paused, or that its cursor was dropped.
            let mut idle_rounds = 0;
            while *left > 0 && idle_rounds < 2 {
                run_all(&streams);
                engine.flush().unwrap();
                let Ok(event) = slow.try_recv() else {
                    idle_rounds += 1;
                    continue;
                };
                idle_rounds = 0;
                replica.take(&event, slow.position(VB).unwrap(), &history);
                *left -= 1;
            }
        };
        follow(&mut slow, &mut replica, &mut left);
        run_all(&streams);
        // Others are short, and it takes nothing.
        let mut greedy = consumer(&streams, "greedy");
        open(&mut greedy, &StreamRequest::from_start(VbId::new(2)));
        let value = "x".repeat(20_000);
        for n in 0..3 {
            let change = Change::set(format!("large-{n}"), value.clone());
            vb(&engine, 2).write(change, Durability::Memory).unwrap();
        }
        for (n, key) in keys(30).enumerate() {
            match n % 3 {
                0 => put(&key, Some("new")),
                1 => put(&key, None),
                _ => {}
            }
        }
        engine.flush().unwrap();
        raw::forget_memory(&engine, cut % 2 == 0).unwrap();
        let_time_pass(&store, &streams, &mut greedy);
        let mut rest = usize::MAX;
        follow(&mut slow, &mut replica, &mut rest);
        assert_eq!(
            replica.position.seqno,
            vb(&engine, 1).seqnos().unwrap().high,
            "cut {cut}"
        );
        assert!(replica.compared >= 1);
        assert_eq!(
            replica.copy,
            history.at(Seqno::MAX, &StreamOptions::default())
        );
        drop((slow, greedy, streams));
        store.finish(engine);
    }
}

#[test]
fn a_paused_stream_ends_with_what_happened_meanwhile() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 100;
    let engine = on_disk(&store, keys(300));
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    let pause = |request: &StreamRequest| {
        let mut frozen = consumer(&streams, "frozen");
        open(&mut frozen, request);
        run_all(&streams);
        frozen.try_recv().unwrap();
        let mut healthy = consumer(&streams, "healthy");
        open(&mut healthy, &StreamRequest::from_start(VB));
        let_time_pass(&store, &streams, &mut healthy);
        drop(healthy);
        assert_eq!(state(&frozen), StreamState::Paused);
        frozen
    };
    // The end that was asked for is reached once, though it had been reached before the pause.
    let until = StreamRequest::from_start(VB).until(Seqno::new(100));
    let mut frozen = pause(&until);
    let events = drain(&engine, &streams, &mut frozen);
    assert_eq!(short(&events).last().unwrap(), "end reached_end");
    // A resumed stream announces its end again.
    assert_eq!(events.len(), 302);
    assert_eq!(frozen.try_recv().unwrap_err(), TryRecv::Ended);
    // Closed while it is paused.
    let mut frozen = pause(&StreamRequest::from_start(VB));
    assert!(frozen.close(VB));
    assert!(!frozen.close(VB));
    assert_eq!(short(&take(&mut frozen)), ["end closed"]);
    // Deleted while it is paused.
    let mut frozen = pause(&StreamRequest::from_start(VB));
    engine.delete_vbucket(VB).unwrap();
    assert_eq!(
        short(&drain(&engine, &streams, &mut frozen)),
        ["end vbucket_gone"]
    );
    let closed = &streams.counters().closed;
    assert_eq!(closed.of("vbucket_gone").get(), 1);
    assert_eq!(closed.of("reached_end").get(), 1);
    drop((frozen, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_that_stops_inside_a_batch_from_memory_is_charged_for_it_and_gives_it_back() {
    let store = TestStore::stepped();
    let engine = store.open();
    let value = "x".repeat(1_000);
    for key in keys(20) {
        let change = Change::set(key, value.clone());
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    engine.flush().unwrap();
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    let mut all: Vec<Consumer> = Vec::new();
    for n in 0..20 {
        let mut consumer = consumer(&streams, &format!("c{n}"));
        open(&mut consumer, &StreamRequest::from_start(VB));
        // The marker and the first change; the rest of the batch stays.
        for _ in 0..2 {
            consumer.try_recv().unwrap();
        }
        all.push(consumer);
    }
    // One item always passes, so the total may be exceeded by one for each.
    let buffered = streams.stats().buffered_bytes;
    assert!(
        buffered > TOTAL / 2,
        "what is inside a batch counts: {buffered}"
    );
    assert!(buffered <= TOTAL + 20 * 1_500, "{buffered}");
    for consumer in &mut all {
        assert_eq!(drain(&engine, &streams, consumer).len(), 19);
        assert_eq!(consumer.buffered_bytes(), 0);
    }
    // Frozen inside a batch from memory, it gives it back.
    let mut frozen = consumer(&streams, "frozen");
    open(&mut frozen, &StreamRequest::from_start(VB));
    let first: Vec<_> = (0..5).map(|_| frozen.try_recv().unwrap()).collect();
    raw::forget_memory(&engine, true).unwrap();
    let mut healthy = consumer(&streams, "healthy");
    open(&mut healthy, &StreamRequest::from_start(VB));
    let_time_pass(&store, &streams, &mut healthy);
    assert_eq!(
        (state(&frozen), frozen.buffered_bytes()),
        (StreamState::Paused, 0)
    );
    let mut events = first;
    events.extend(drain(&engine, &streams, &mut frozen));
    assert_eq!(seqnos(&events), (1..=20).collect::<Vec<_>>());
    drop((all, frozen, healthy, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_that_takes_of_one_stream_is_not_stalled_for_the_others() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 1_000;
    let engine = store.open();
    for number in 0..4 {
        for key in keys(500) {
            let change = Change::set(key, "v");
            vb(&engine, number)
                .write(change, Durability::Memory)
                .unwrap();
        }
    }
    engine.flush().unwrap();
    let config = StreamsConfig {
        stall_limit: Duration::from_millis(300),
        // The disk is always short.
        disk_free_min_percent: 100,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let clock = store.clock.clone().unwrap();
    let mut slow = consumer(&streams, "slow");
    for number in 0..4 {
        open(&mut slow, &StreamRequest::from_start(VbId::new(number)));
    }
    let mut events = Vec::new();
    while let Ok(event) = slow.try_recv() {
        events.push(event);
        clock.advance(Duration::from_millis(100));
        run_all(&streams);
    }
    assert_eq!(seqnos(&events).len(), 2_000);
    assert!(
        events
            .iter()
            .all(|event| !matches!(event.event, Event::End(_)))
    );
    // Nothing to take is no stall either; something to take, and nothing taken, is.
    let pass = || {
        for _ in 0..8 {
            clock.advance(Duration::from_millis(100));
            run_all(&streams);
        }
    };
    pass();
    assert!(slow.stats().iter().all(|stats| !stats.is_stalled));
    vb(&engine, 2).set("new", "v").unwrap();
    pass();
    assert_eq!(short(&take(&mut slow)), ["end stalled"]);
    assert_eq!(slow.stats().len(), 3, "only the one that had something");
    drop((slow, streams));
    store.finish(engine);
}

#[test]
fn a_stream_that_reads_memory_while_it_is_ended_has_one_end() {
    // The watchdog ends a stream whose reader has just read its end from memory.
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 1).set("k", "v").unwrap();
    let config = StreamsConfig {
        stall_limit: Duration::from_millis(1),
        disk_free_min_percent: 100,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let clock = store.clock.clone().unwrap();
    for ended_first in [false, true] {
        let mut consumer = consumer(&streams, "c");
        open(
            &mut consumer,
            &StreamRequest::from_start(VB).until(Seqno::new(1)),
        );
        if !ended_first {
            // It has read its end, and has taken nothing of it.
            assert!(consumer.try_recv().is_ok());
        }
        for _ in 0..3 {
            clock.advance(Duration::from_millis(10));
            assert!(!streams.step());
        }
        let ends: Vec<_> = take(&mut consumer)
            .into_iter()
            .filter(|event| matches!(event.event, Event::End(_)))
            .collect();
        let expected = if ended_first {
            "end stalled"
        } else {
            "end reached_end"
        };
        assert_eq!(short(&ends), [expected]);
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecv::Ended);
    }
    let closed = &streams.counters().closed;
    assert_eq!(closed.of("stalled").get(), 1);
    assert_eq!(closed.of("reached_end").get(), 1);
    drop(streams);
    store.finish(engine);
}

#[test]
fn an_end_comes_once_and_last_and_before_anything_of_another_stream() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = consumer(&streams, "c");
    for from_memory in [false, true] {
        open(&mut consumer, &StreamRequest::from_start(VB));
        drain(&engine, &streams, &mut consumer);
        if from_memory {
            vb(&engine, 1).set("new", "v").unwrap();
        }
        assert!(consumer.close(VB));
        let resume = StreamRequest::resume(VB, consumer.position(VB).unwrap());
        let refused = consumer.open(&resume);
        let is_refused =
            |result: &vbstore::Result<_>| matches!(result, Err(Error::Invalid { field: "vb", .. }));
        assert!(is_refused(&refused), "{refused:?}");
        assert_eq!(short(&take(&mut consumer)), ["end closed"]);
        open(&mut consumer, &resume);
        let events = drain(&engine, &streams, &mut consumer);
        assert!(
            !events
                .iter()
                .any(|event| matches!(event.event, Event::End(_)))
        );
        // In the middle of a batch: what is left of it is not delivered any more.
        consumer.close(VB);
        take(&mut consumer);
        open(&mut consumer, &StreamRequest::from_start(VB));
        run_all(&streams);
        consumer.try_recv().unwrap();
        assert!(consumer.close(VB));
        assert!(is_refused(&consumer.open(&resume)));
        assert_eq!(short(&take(&mut consumer)), ["end closed"]);
    }
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_batch_that_is_kept_keeps_neither_the_engine_nor_the_store() {
    let store = TestStore::threaded();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = consumer(&streams, "c");
    open(&mut consumer, &StreamRequest::from_start(VB));
    let batch = consumer.next_batch(PATIENCE).unwrap();
    // And one from memory.
    vb(&engine, 1).set("new", "v").unwrap();
    let newer = consumer.next_batch(PATIENCE).unwrap();
    drop((consumer, streams, engine));
    let engine = store.open();
    assert_eq!((batch.len(), newer.len()), (4, 2));
    let text = format!("{batch:?}{newer:?}");
    assert!(!text.contains("value") && text.len() < 500, "{text}");
    store.finish(engine);
}

#[test]
fn the_rest_of_a_batch_is_a_batch() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = consumer(&streams, "c");
    open(&mut consumer, &StreamRequest::from_start(VB));
    run_all(&streams);
    for taken in 1..=3 {
        for _ in 0..taken {
            consumer.try_recv().unwrap();
        }
        let batch = consumer.next_batch(Duration::ZERO).unwrap();
        assert_eq!(
            (batch.len(), batch.events().count()),
            (4 - taken, 4 - taken)
        );
        assert!(batch.marker().is_none());
        let position = consumer.position(VB).unwrap();
        assert_eq!(position.seqno, Seqno::new(3));
        assert!(position.is_complete());
        assert_eq!(
            consumer.next_batch(Duration::ZERO).unwrap_err(),
            TryRecv::Empty
        );
        consumer.close(VB);
        take(&mut consumer);
        open(&mut consumer, &StreamRequest::from_start(VB));
        run_all(&streams);
    }
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_follower_of_unsynced_changes_costs_no_de_duplication() {
    let flushed = |follows: bool| {
        let mut store = TestStore::stepped();
        store.config.tuning.flush_interval = Duration::from_secs(3_600);
        let engine = store.open();
        let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
        let mut follower = consumer(&streams, "c");
        let options = StreamOptions {
            visibility: Visibility::Memory,
            ..StreamOptions::default()
        };
        open(
            &mut follower,
            &StreamRequest::from_start(VB).options(options),
        );
        let mut events = Vec::new();
        for n in 0..1_000 {
            let change = Change::set("hot", format!("{n:0100}"));
            vb(&engine, 1).write(change, Durability::Memory).unwrap();
            if follows {
                events.extend(take(&mut follower));
            }
        }
        engine.flush().unwrap();
        events.extend(take(&mut follower));
        let last = events.last().and_then(|event| event.event.item()).cloned();
        assert_eq!(last.map(|item| item.meta.seqno.get()), Some(1_000));
        let flushed = engine.metrics().flushed_items.get();
        drop((follower, streams));
        store.finish(engine);
        flushed
    };
    assert_eq!(flushed(false), 1);
    // The first was sealed for its first read.
    assert!(flushed(true) <= 2);
}

#[test]
fn what_is_left_out_as_a_first_deletion_does_not_depend_on_where_the_changes_are() {
    let store = TestStore::stepped();
    let engine = store.open();
    for key in keys(10) {
        for change in [Change::set(&key, "v"), Change::delete(&key)] {
            vb(&engine, 1).write(change, Durability::Memory).unwrap();
        }
        engine.flush().unwrap();
    }
    vb(&engine, 1).set("last", "v").unwrap();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let options = StreamOptions {
        skips_first_deletions: true,
        ..StreamOptions::default()
    };
    let request = StreamRequest::from_start(VB).options(options);
    for where_from in ["memory", "disk"] {
        let mut consumer = consumer(&streams, where_from);
        open(&mut consumer, &request);
        let events = drain(&engine, &streams, &mut consumer);
        assert_eq!(short(&events), ["0..21 disk", "last@21"], "{where_from}");
        // Later ones are delivered.
        vb(&engine, 1).delete("last").unwrap();
        let events = drain(&engine, &streams, &mut consumer);
        assert_eq!(short(&events).last().unwrap(), "-last@22");
        engine.delete_vbucket(VB).unwrap();
        drop(consumer);
        for n in 0..20 {
            let key = format!("key-{:04}", n / 2);
            let change = if n % 2 == 0 {
                Change::set(&key, "v")
            } else {
                Change::delete(&key)
            };
            vb(&engine, 1).write(change, Durability::Memory).unwrap();
            engine.flush().unwrap();
        }
        vb(&engine, 1).set("last", "v").unwrap();
        raw::forget_memory(&engine, true).unwrap();
    }
    drop(streams);
    store.finish(engine);
}

#[test]
fn a_position_resumes_only_with_the_filter_it_was_reached_with() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, ["a1", "b1", "a2"].map(str::to_owned));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let of = |prefix: &'static str, is_keys_only| StreamOptions {
        prefix: prefix.into(),
        is_keys_only,
        ..StreamOptions::default()
    };
    let mut consumer = consumer(&streams, "c");
    open(
        &mut consumer,
        &StreamRequest::from_start(VB).options(of("a", false)),
    );
    drain(&engine, &streams, &mut consumer);
    let position = consumer.position(VB).unwrap();
    consumer.close(VB);
    take(&mut consumer);
    vb(&engine, 1).set("b2", "v").unwrap();
    let changed = vbstore::Opened::Rollback {
        to: Seqno::ZERO,
        reason: vbstore::RollbackReason::FilterChanged,
    };
    for other in [
        of("b", false),
        of("", false),
        of("a", true),
        of("a1", false),
    ] {
        let request = StreamRequest::resume(VB, position).options(other);
        assert_eq!(consumer.open(&request).unwrap(), changed);
        // Also when it asks for an end below the position, as one does that goes back.
        let until = request.until(Seqno::new(1));
        assert_eq!(consumer.open(&until).unwrap(), changed);
    }
    let options = StreamOptions {
        visibility: Visibility::Persisted,
        ..of("a", false)
    };
    open(
        &mut consumer,
        &StreamRequest::resume(VB, position).options(options),
    );
    assert_eq!(
        short(&drain(&engine, &streams, &mut consumer)),
        ["3..4 memory", "to 4"]
    );
    assert_eq!(streams.counters().rollbacks.of("filter_changed").get(), 8);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn an_end_below_the_position_is_malformed_only_if_the_consumer_may_go_on() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = consumer(&streams, "c");
    let uuid = vb(&engine, 1).seqnos().unwrap().vb_uuid;
    let at = |seqno| Position {
        vb_uuid: uuid,
        seqno: Seqno::new(seqno),
        snap_start: Seqno::new(seqno),
        snap_end: Seqno::new(seqno),
        ..Position::default()
    };
    let until = |position: Position| StreamRequest::resume(VB, position).until(Seqno::new(2));
    let refused = consumer.open(&until(at(3)));
    assert!(
        matches!(refused, Err(Error::Invalid { field: "end", .. })),
        "{refused:?}"
    );
    // Beyond what the vBucket has: it must go back.
    let answer = consumer.open(&until(at(9))).unwrap();
    assert!(
        matches!(answer, vbstore::Opened::Rollback { .. }),
        "{answer:?}"
    );
    let reason = EndReason::Closed;
    assert_eq!(reason.name(), "closed");
    drop((consumer, streams));
    store.finish(engine);
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

fn full() -> Error {
    Error::DiskFull {
        detail: "planted".into(),
    }
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
    // They fall asleep for the sync before the disk is full, and keep their places.
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
