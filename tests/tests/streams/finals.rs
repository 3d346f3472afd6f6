//! What is delivered of a stream that ends for good: all that may be, and nothing of another life of
//! its vBucket.

use std::sync::Arc;
use vbstore::failpoint::{Action, Gate, place};
use vbstore::{Change, Durability, Seqno, StreamRequest, Streams, StreamsConfig};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, consumer, keys, open, short, take};
use vbstore_tests::{TestStore, vb};

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
    let gate = Arc::new(Gate::default());
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
