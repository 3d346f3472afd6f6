//! The last events of a stream that ends for good: everything that may be delivered is, and nothing
//! of a later generation of its vBucket.

use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{
    Change, Durability, Seqno, StreamRequest, StreamState, Streams, StreamsConfig, VbId,
};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, consumer, keys, on_disk, open, seqnos, short, take};
use vbstore_tests::{TestStore, vb};

#[test]
fn what_was_read_before_a_final_end_is_kept_for_a_frozen_consumer() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 50;
    let engine = on_disk(&store, keys(200));
    for key in keys(100) {
        vb(&engine, 2)
            .write(Change::set(key, "value"), Durability::Memory)
            .unwrap();
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let config = StreamsConfig {
        buffer_bytes_max: 16_000,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let mut frozen = consumer(&streams, "frozen");
    open(&mut frozen, &StreamRequest::from_start(VB));
    assert!(streams.step());
    // The next slice fails, so this stream can never read again what was read before.
    let planted = vbstore::Error::Busy { what: "planted" };
    store
        .failpoints
        .once(place::SLICE_HAND_ON, Action::Fail(planted));
    assert!(streams.step());
    assert_eq!(frozen.stats()[0].state, StreamState::Ended);
    let mut other = consumer(&streams, "other");
    open(&mut other, &StreamRequest::from_start(VB));
    while streams.step() {}
    other.try_recv().unwrap();

    // Other consumers are short of buffers for a long time.
    let clock = store.clock.clone().unwrap();
    for _ in 0..3 {
        let mut greedy = consumer(&streams, "greedy");
        open(&mut greedy, &StreamRequest::from_start(VbId::new(2)));
        for _ in 0..15 {
            take(&mut greedy);
            while streams.step() {}
            clock.advance(Duration::from_millis(100));
        }
    }
    assert_eq!(other.stats()[0].state, StreamState::Paused);
    let events = take(&mut frozen);
    assert_eq!(seqnos(&events), (1..=50).collect::<Vec<_>>());
    assert_eq!(short(&events).last().unwrap(), "end error");
    drop((frozen, other, streams));
    store.finish(engine);
}

#[test]
fn a_slice_that_was_not_synced_is_not_delivered_by_the_syncs_of_the_next_life() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = store.open();
    for key in keys(5) {
        let change = Change::set(key, "first life");
        vb(&engine, 1).write(change, Durability::Logged).unwrap();
    }
    raw::forget_memory(&engine, true).unwrap();
    assert_eq!(vb(&engine, 1).seqnos().unwrap().synced, Seqno::ZERO);
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut follower = consumer(&streams, "follower");
    open(&mut follower, &StreamRequest::from_start(VB));
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::SLICE_HAND_ON, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        let step = std::thread::Builder::new().name("step".to_owned());
        let step = step.spawn_scoped(scope, || streams.step()).unwrap();
        let _held = gate.wait_for_arrival();
        engine.delete_vbucket(VB).unwrap();
        for key in keys(6) {
            vb(&engine, 1).set(key, "next life").unwrap();
        }
        gate.open();
        assert!(step.join().unwrap());
    });
    while streams.step() {}
    assert_eq!(short(&take(&mut follower)), ["end vbucket_gone"]);
    drop((follower, streams));
    store.finish(engine);
}
