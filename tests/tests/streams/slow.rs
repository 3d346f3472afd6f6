//! Consumers that are slow and not frozen: they are not called stalled before they are.

use std::time::Duration;
use vbstore::{StreamRequest, Streams, StreamsConfig};
use vbstore_tests::following::{VB, consumer, open, take};
use vbstore_tests::{TestStore, vb};

#[test]
fn a_consumer_is_not_idle_before_there_is_something_to_take() {
    let store = TestStore::stepped();
    let engine = store.open();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let clock = store.clock.clone().unwrap();
    let mut waiting = consumer(&streams, "waiting");
    open(&mut waiting, &StreamRequest::from_start(VB));
    assert!(take(&mut waiting).is_empty());
    // The watchdog looks every 180 s. It looks once more, and then something comes.
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
