//! Consumers that take nothing: their buffers are dropped when others run short. When they come
//! back, the data is read again with nothing skipped or repeated.

use std::time::Duration;
use vbstore::{
    BackfillOrder, Change, Consumer, ConsumerConfig, Durability, EndReason, Event, Position, Seqno,
    StreamEvent, StreamOptions, StreamRequest, StreamState, Streams, StreamsConfig, TryRecv, VbId,
};
use vbstore_engine::raw;
use vbstore_tests::following::{
    VB, consumer, drain, keys, on_disk, open, run_all, seqnos, short, take,
};
use vbstore_tests::replica::{History, Replica};
use vbstore_tests::{TestStore, put, vb};

/// Buffer limit of all consumers together: a little more than one slice of a hundred small
/// documents.
const TOTAL: u64 = 16_000;

fn few_buffers() -> StreamsConfig {
    StreamsConfig {
        buffer_bytes_max: TOTAL,
        ..StreamsConfig::default()
    }
}

/// Lets time pass while a healthy consumer takes, so that the others are found to take nothing.
/// Returns what it took.
fn let_time_pass(store: &TestStore, streams: &Streams, healthy: &mut Consumer) -> Vec<StreamEvent> {
    let clock = store.clock.as_ref().unwrap();
    let mut taken = Vec::new();
    for _ in 0..30 {
        run_all(streams);
        // Only its reader comes again and again.
        taken.extend(healthy.try_recv());
        clock.advance(Duration::from_millis(100));
    }
    run_all(streams);
    taken
}

fn state(consumer: &Consumer) -> StreamState {
    consumer.stats()[0].state
}

#[test]
fn what_a_frozen_consumer_has_not_taken_is_given_to_one_that_takes() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 100;
    let engine = on_disk(&store, keys(1_000));
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    // They take their first event and then nothing: some event by event, some in batches.
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

    // They come back one after the other; each misses nothing and sees nothing twice.
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
    // The consumer stops after every number of events, in the middle of a slice and of a marker.
    // Meanwhile the vBucket changes: overwritten, deleted, flushed, freed from memory.
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
            // Two idle rounds: taking may find that the stream was paused, or that its cursor was
            // dropped.
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
        // Others run short, and it takes nothing.
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
    // The requested end is reached once, though it had been reached before the pause.
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
fn a_paused_stream_whose_end_was_reached_delivers_what_was_before_it_and_ends_once() {
    for taken in [0, 1, 50, 100] {
        let mut store = TestStore::stepped();
        store.config.tuning.slice_budget.items_max = 100;
        let engine = on_disk(&store, keys(100));
        let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
        let mut frozen = consumer(&streams, "frozen");
        open(
            &mut frozen,
            &StreamRequest::from_start(VB).until(Seqno::new(100)),
        );
        while streams.step() {}
        let mut events: Vec<_> = (0..taken).map(|_| frozen.try_recv().unwrap()).collect();
        assert_eq!(state(&frozen), StreamState::Ended, "its end is reached");
        let mut healthy = consumer(&streams, "healthy");
        open(&mut healthy, &StreamRequest::from_start(VB));
        let_time_pass(&store, &streams, &mut healthy);
        assert_eq!(state(&frozen), StreamState::Paused, "taken {taken}");
        assert_eq!(frozen.buffered_bytes(), 0);

        events.extend(drain(&engine, &streams, &mut frozen));

        assert_eq!(seqnos(&events), (1..=100).collect::<Vec<_>>());
        let is_end = |event: &&StreamEvent| matches!(event.event, Event::End(_));
        assert_eq!(events.iter().filter(is_end).count(), 1);
        assert_eq!(short(&events).last().unwrap(), "end reached_end");
        assert_eq!(frozen.try_recv().unwrap_err(), TryRecv::Ended);
        assert_eq!(streams.counters().closed.of("reached_end").get(), 1);
        drop((frozen, healthy, streams));
        store.finish(engine);
    }
}

/// A request with a filter whose stream reads from disk first, wherever it starts.
fn without_first_deletions(vb: VbId) -> StreamRequest {
    let options = StreamOptions {
        skips_first_deletions: true,
        ..StreamOptions::default()
    };
    StreamRequest::from_start(vb).options(options)
}

/// Pauses a consumer that takes nothing in favour of one that reads vBucket 2 from disk.
fn pause_for_another(store: &TestStore, streams: &Streams, frozen: &Consumer) {
    let mut healthy = consumer(streams, "healthy");
    open(&mut healthy, &without_first_deletions(VbId::new(2)));
    let_time_pass(store, streams, &mut healthy);
    assert_eq!(
        (state(frozen), frozen.buffered_bytes()),
        (StreamState::Paused, 0)
    );
}

#[test]
fn a_paused_stream_still_leaves_first_deletions_out() {
    let store = TestStore::stepped();
    let engine = store.open();
    let write = |change| vb(&engine, 1).write(change, Durability::Memory).unwrap();
    for key in keys(10) {
        write(Change::set(&key, "v"));
        write(Change::delete(&key));
        engine.flush().unwrap();
    }
    // This change alone fills the buffers of all consumers. Memory still has everything.
    write(Change::set("last", vec![7; 15_000]));
    vb(&engine, 2).set("other", "v").unwrap();
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    let mut frozen = consumer(&streams, "frozen");
    open(&mut frozen, &without_first_deletions(VB));
    while streams.step() {}
    pause_for_another(&store, &streams, &frozen);

    let events = drain(&engine, &streams, &mut frozen);

    let events = short(&events);
    assert_eq!(events.first().unwrap(), "0..21 disk");
    assert_eq!(events.last().unwrap(), "last@21");
    assert!(
        events.iter().all(|event| !event.starts_with('-')),
        "{events:?}"
    );
    drop((frozen, streams));
    store.finish(engine);
}

#[test]
fn a_paused_stream_whose_position_was_purged_ends() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 100;
    let engine = store.open();
    // As much as all consumers may buffer.
    for key in keys(100) {
        put(&vb(&engine, 1), &key, &"x".repeat(200));
    }
    vb(&engine, 1).delete("key-0050").unwrap();
    vb(&engine, 1).set("newest", "stays").unwrap();
    vb(&engine, 2).set("other", "v").unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    let mut frozen = consumer(&streams, "frozen");
    open(&mut frozen, &StreamRequest::from_start(VB));
    while streams.step() {}
    // The marker and nine changes.
    let taken: Vec<_> = (0..10).map(|_| frozen.try_recv().unwrap()).collect();
    assert_eq!(seqnos(&taken), (1..=9).collect::<Vec<_>>());
    pause_for_another(&store, &streams, &frozen);
    assert_eq!(raw::purge_tombstones(&engine, VB, Seqno::MAX).unwrap(), 1);

    let events = drain(&engine, &streams, &mut frozen);

    assert_eq!(short(&events), ["end rollback"]);
    let Event::End(EndReason::Rollback { to, reason }) = &events[0].event else {
        panic!("{events:?}");
    };
    assert_eq!((*to, reason.name()), (Seqno::ZERO, "purged"));
    drop((frozen, streams));
    store.finish(engine);
}

#[test]
fn paused_streams_of_a_sequential_consumer_come_one_after_the_other() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 30;
    let engine = store.open();
    for number in [0, 1] {
        for key in keys(100) {
            put(&vb(&engine, number), &key, "value");
        }
    }
    vb(&engine, 2).set("other", vec![7; 15_000]).unwrap();
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let streams = Streams::stepped(&engine, &few_buffers()).unwrap();
    let config = ConsumerConfig {
        order: BackfillOrder::Sequential,
        ..ConsumerConfig::default()
    };
    let mut frozen = streams.consumer("frozen", &config).unwrap();
    for number in [0, 1] {
        let request = StreamRequest::from_start(VbId::new(number)).until(Seqno::new(100));
        open(&mut frozen, &request);
    }
    while streams.step() {}
    let mut events: Vec<_> = (0..5).map(|_| frozen.try_recv().unwrap()).collect();
    let mut healthy = consumer(&streams, "healthy");
    open(&mut healthy, &StreamRequest::from_start(VbId::new(2)));
    let_time_pass(&store, &streams, &mut healthy);
    assert_eq!(frozen.buffered_bytes(), 0);
    assert!(streams.counters().pauses.get() >= 1);

    events.extend(drain(&engine, &streams, &mut frozen));

    for number in [0, 1] {
        let of = |event: &&StreamEvent| event.vb == VbId::new(number);
        let events: Vec<_> = events.iter().filter(of).cloned().collect();
        assert_eq!(seqnos(&events), (1..=100).collect::<Vec<_>>(), "{number}");
        assert_eq!(short(&events).last().unwrap(), "end reached_end");
    }
    let first_of_next = events.iter().position(|event| event.vb == VbId::new(1));
    let last = events.iter().rposition(|event| event.vb == VbId::new(0));
    assert!(last < first_of_next, "{last:?} {first_of_next:?}");
    drop((frozen, healthy, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_that_stops_inside_a_batch_from_memory_is_charged_for_it_and_releases_it() {
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
    // One item always passes, so each consumer may exceed the total by one item.
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
    // Frozen inside a batch from memory, it releases the batch.
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
        // Makes the disk count as short of space.
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
    // A consumer with nothing to take is not stalled; one that takes nothing of what is there is.
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
