//! Turns of streams that are read together, through one db snapshot: a stream whose turn did not
//! come keeps its turn.

use std::sync::Arc;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{ConsumerConfig, Engine, StreamRequest, Streams, StreamsConfig, VbId};
use vbstore_tests::TestStore;
use vbstore_tests::following::{on_disk_in_each, open, take};

/// Returns a store of 32 vBuckets, `count` of which have `keys_each` keys on disk; two fit into a
/// slice.
fn large_vbuckets(count: u16, keys_each: usize) -> (TestStore, Engine) {
    let mut store = TestStore::stepped();
    store.config.vbuckets = Some(32);
    store.config.tuning.slice_budget.items_max = 2;
    let engine = on_disk_in_each(&store, count, keys_each);
    (store, engine)
}

#[test]
fn streams_that_are_read_in_groups_take_turns() {
    for count in [2, 20] {
        let (store, engine) = large_vbuckets(count, 6);
        let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
        let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
        for number in 0..count {
            open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
        }
        let mut turns = Vec::new();
        while streams.step_group() {
            turns.extend(take(&mut consumer).first().map(|event| event.vb.get()));
        }
        // Two rounds of slices that are cut off; the last ones may be read together.
        let in_turn: Vec<u16> = (0..count).chain(0..count).collect();
        assert_eq!(turns[..in_turn.len()], in_turn, "{count} large vBuckets");
        for stats in consumer.stats() {
            assert_eq!(stats.taken_seqno.get(), 6, "{stats:?}");
        }
        drop((consumer, streams));
        store.finish(engine);
    }
}

#[test]
fn what_a_group_has_read_is_charged_before_its_first_stream_releases_the_rest() {
    let (mut store, engine) = large_vbuckets(2, 40);
    drop(engine);
    store.config.tuning.slice_budget.items_max = 1_000;
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    for number in 0..2 {
        open(&mut consumer, &StreamRequest::from_start(VbId::new(number)));
    }
    // The first of the two is settled, the second is not.
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.nth(place::SLICE_HAND_ON, 1, 1, wait);
    std::thread::scope(|scope| {
        let step = std::thread::Builder::new().name("step".to_owned());
        let step = step.spawn_scoped(scope, || streams.step_group()).unwrap();
        let _held = gate.wait_for_arrival();
        let before = streams.stats().buffered_bytes;
        gate.open();
        assert!(step.join().unwrap());
        let after = streams.stats().buffered_bytes;
        assert!(after <= before, "{before} were reserved for {after}");
    });
    assert_eq!(take(&mut consumer).len(), 2 * 41);
    drop((consumer, streams));
    store.finish(engine);
}
