//! Consumers that are slow but not frozen: they make progress, and do not count as frozen or
//! stalled too early.

use std::time::Duration;
use vbstore::{
    Change, Consumer, Durability, Engine, Event, Seqno, StreamRequest, StreamState, Streams,
    StreamsConfig, VbId,
};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, consumer, keys, on_disk, open, seqnos, take};
use vbstore_tests::{TestStore, vb};

/// Buffer limit of all consumers together: a little more than one slice of a hundred small
/// documents.
const TOTAL: u64 = 16_000;

fn few_buffers(engine: &Engine) -> Streams {
    let config = StreamsConfig {
        buffer_bytes_max: TOTAL,
        ..StreamsConfig::default()
    };
    Streams::stepped(engine, &config).unwrap()
}

/// Opens another consumer that runs short of buffers, takes for 1.5 s, and is dropped.
fn a_greedy_one_comes(store: &TestStore, streams: &Streams) {
    let mut greedy = consumer(streams, "greedy");
    open(&mut greedy, &StreamRequest::from_start(VbId::new(3)));
    for _ in 0..15 {
        take(&mut greedy);
        while streams.step() {}
        store
            .clock
            .as_ref()
            .unwrap()
            .advance(Duration::from_millis(100));
    }
    while streams.step() {}
}

/// Returns a store with keys for a slow consumer, and keys for greedy ones in another vBucket.
fn one_beside_what_is_greedy(store: &mut TestStore) -> Engine {
    store.config.tuning.slice_budget.items_max = 100;
    let engine = on_disk(store, keys(300));
    for key in keys(200) {
        vb(&engine, 3)
            .write(Change::set(key, "value"), Durability::Memory)
            .unwrap();
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    engine
}

/// Takes the next event and lets time pass, as if the consumer worked on it.
fn next(streams: &Streams, slow: &mut Consumer) -> vbstore::StreamEvent {
    for _ in 0..10 {
        while streams.step() {}
        if let Ok(event) = slow.try_recv() {
            while streams.step() {}
            return event;
        }
    }
    panic!("nothing comes: {:?}", slow.stats());
}

#[test]
fn a_slow_consumer_beside_greedy_ones_gets_on() {
    let mut store = TestStore::stepped();
    let engine = one_beside_what_is_greedy(&mut store);
    let streams = few_buffers(&engine);
    let mut slow = consumer(&streams, "slow");
    open(&mut slow, &StreamRequest::from_start(VB));
    let mut events = Vec::new();
    for _ in 0..24 {
        events.push(next(&streams, &mut slow));
        a_greedy_one_comes(&store, &streams);
    }
    let pauses = slow.stats()[0].pauses;
    assert!(pauses >= 8, "it is paused for the others: {pauses}");
    let seqnos = seqnos(&events);
    assert!(seqnos.len() >= 8, "only {seqnos:?} of 24 events");
    assert_eq!(seqnos, (1..=seqnos.len() as u64).collect::<Vec<_>>());
    drop((slow, streams));
    store.finish(engine);
}

#[test]
fn a_slow_consumer_of_many_streams_gets_on_in_each() {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(8);
    store.config.tuning.slice_budget.items_max = 100;
    let engine = store.open();
    for number in 0..8 {
        for key in keys(150) {
            vb(&engine, number)
                .write(Change::set(key, "value"), Durability::Memory)
                .unwrap();
        }
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let streams = few_buffers(&engine);
    let mut slow = consumer(&streams, "slow");
    for number in [0, 1, 2, 4, 5, 6] {
        open(&mut slow, &StreamRequest::from_start(VbId::new(number)));
    }
    for _ in 0..60 {
        next(&streams, &mut slow);
        a_greedy_one_comes(&store, &streams);
    }
    for stats in slow.stats() {
        assert!(stats.taken_seqno > Seqno::ZERO, "starved: {stats:?}");
        assert!(stats.pauses > 0);
    }
    drop((slow, streams));
    store.finish(engine);
}

#[test]
fn a_frozen_consumer_that_looks_in_now_and_then_is_paused_again() {
    let mut store = TestStore::stepped();
    let engine = one_beside_what_is_greedy(&mut store);
    let streams = few_buffers(&engine);
    let mut frozen = consumer(&streams, "frozen");
    open(&mut frozen, &StreamRequest::from_start(VB));
    for pauses in 1..=3 {
        // Takes the marker, and then nothing more.
        let event = next(&streams, &mut frozen).event;
        assert!(matches!(event, Event::SnapshotMarker(_)), "{event:?}");
        for _ in 0..4 {
            a_greedy_one_comes(&store, &streams);
        }
        assert_eq!(frozen.stats()[0].state, StreamState::Paused);
        assert_eq!(frozen.stats()[0].pauses, pauses);
        assert_eq!(frozen.buffered_bytes(), 0);
    }
    drop((frozen, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_is_not_idle_before_there_is_something_to_take() {
    let store = TestStore::stepped();
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let clock = store.clock.clone().unwrap();
    let mut waiting = consumer(&streams, "waiting");
    open(&mut waiting, &StreamRequest::from_start(VB));
    assert!(take(&mut waiting).is_empty());
    // The watchdog looks every 180 s. It looks once more, and only then something arrives.
    let pass = |seconds: u64| {
        clock.advance(Duration::from_secs(seconds));
        assert!(!streams.step());
    };
    pass(180);
    clock.advance(Duration::from_secs(179));
    vb(&engine, 1).set("k", "v").unwrap();
    pass(1);
    for _ in 0..3 {
        pass(180);
    }
    let is_stalled = || waiting.stats()[0].is_stalled;
    assert!(!is_stalled(), "stalled for 541 s of 720 s");
    pass(180);
    assert!(is_stalled());
    drop((waiting, streams));
    store.finish(engine);
}
