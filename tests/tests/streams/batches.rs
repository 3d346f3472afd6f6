//! Batches: what memory they keep, how they are taken in part, and what reading them from memory
//! costs.

use std::time::Duration;
use vbstore::{
    Change, Durability, Seqno, StreamOptions, StreamRequest, Streams, StreamsConfig, TryRecv,
    Visibility,
};
use vbstore_tests::following::{PATIENCE, VB, consumer, keys, on_disk, open, run_all, take};
use vbstore_tests::{TestStore, vb};

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
            while follows && let Ok(event) = follower.try_recv() {
                let is_change = event.event.item().is_some();
                events.push(event);
                // The consumer reads again after the next change, so each read would find a change
                // to seal.
                if is_change {
                    break;
                }
            }
        }
        // If each read sealed the checkpoint, memory would hold every change, though a flush writes
        // only the newest.
        let held = engine.checkpoint_memory();
        assert!(held < 3_000, "{held} bytes for one key");
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
    // The first checkpoint was sealed for its first read.
    assert!(flushed(true) <= 2);
}
