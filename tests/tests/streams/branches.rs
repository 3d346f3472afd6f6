//! Branches of history as consumers see them: consumers that are connected when a branch begins,
//! and those that are not.

use std::sync::Arc;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{
    Change, Consumer, ConsumerConfig, Durability, Engine, Event, OpenOutcome, Position,
    RollbackReason, Seqno, StreamEvent, StreamOptions, StreamRequest, StreamState, Streams, VbUuid,
    Visibility,
};
use vbstore_tests::following::{VB, drain, keys, on_disk, open, short, stepped, take};
use vbstore_tests::{TestStore, vb};

fn visibility(visibility: Visibility) -> StreamOptions {
    StreamOptions {
        visibility,
        ..StreamOptions::default()
    }
}

/// Stops the engine as a crash would, and opens the store again.
fn crashed(store: &TestStore, engine: Engine) -> Engine {
    store.crash(engine);
    store.open()
}

/// Returns a store with `count` keys on disk in [`VB`], where the next change begins a branch.
fn with_branch_due(store: &TestStore, count: usize) -> Engine {
    let engine = on_disk(store, keys(count));
    crashed(store, engine)
}

fn branch_of(engine: &Engine) -> VbUuid {
    vb(engine, 1).seqnos().unwrap().vb_uuid
}

fn marker_branches(events: &[StreamEvent]) -> Vec<VbUuid> {
    let of = |event: &StreamEvent| match &event.event {
        Event::SnapshotMarker(marker) => Some(marker.vb_uuid),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

fn answer(consumer: &mut Consumer, position: Position) -> OpenOutcome {
    let opened = consumer.open(&StreamRequest::resume(VB, position)).unwrap();
    consumer.close(VB);
    take(consumer);
    opened
}

fn change(engine: &Engine, key: &str) -> u64 {
    let change = Change::set(key, "new");
    let written = vb(engine, 1).write(change, Durability::Memory).unwrap();
    written.seqno.get()
}

#[test]
fn a_branch_that_begins_in_the_middle_of_a_snapshot_from_disk_is_followed() {
    for level in Visibility::ALL {
        let mut store = TestStore::stepped();
        store.config.tuning.slice_budget.items_max = 2;
        let engine = with_branch_due(&store, 6);
        let old = branch_of(&engine);
        let (streams, mut consumer) = stepped(&engine);
        let request = StreamRequest::from_start(VB).options(visibility(level));
        open(&mut consumer, &request);
        assert!(streams.step());
        let first: Vec<_> = std::iter::from_fn(|| consumer.try_recv().ok()).collect();
        assert_eq!(short(&first), ["0..6 disk", "key-0000@1", "key-0001@2"]);
        assert_eq!(marker_branches(&first), [old]);
        let inside = consumer.position(VB).unwrap();

        change(&engine, "key-0003");
        if level != Visibility::Memory {
            engine.flush().unwrap();
        }

        let new = branch_of(&engine);
        assert_ne!(new, old);
        let rest = drain(&engine, &streams, &mut consumer);
        let names = short(&rest);
        assert!(
            !names.iter().any(|name| name.starts_with("end")),
            "{names:?}"
        );
        assert_eq!(names.last().unwrap(), "key-0003@7");
        assert_eq!(marker_branches(&rest).last(), Some(&new));
        let at_end = consumer.position(VB).unwrap();
        assert_eq!((at_end.vb_uuid, at_end.seqno.get()), (new, 7));
        drop((consumer, streams));
        // Positions on the old and on the new branch both resume.
        let (_streams, mut consumer) = stepped(&engine);
        assert_eq!(answer(&mut consumer, inside), OpenOutcome::Continue);
        assert_eq!(answer(&mut consumer, at_end), OpenOutcome::Continue);
        drop((consumer, _streams));
        store.finish(engine);
    }
}

#[test]
fn a_branch_that_begins_under_a_stream_in_memory_is_followed() {
    for level in Visibility::ALL {
        let store = TestStore::stepped();
        let engine = with_branch_due(&store, 3);
        let old = branch_of(&engine);
        let (streams, mut consumer) = stepped(&engine);
        let request = StreamRequest::from_start(VB).options(visibility(level));
        open(&mut consumer, &request);
        drain(&engine, &streams, &mut consumer);
        assert_eq!(consumer.stats()[0].state, StreamState::InMemory);
        let before = consumer.position(VB).unwrap();
        assert_eq!((before.vb_uuid, before.seqno.get()), (old, 3));

        change(&engine, "new");
        if level != Visibility::Memory {
            engine.flush().unwrap();
        }

        let events = drain(&engine, &streams, &mut consumer);
        assert_eq!(short(&events), ["3..4 memory", "new@4"], "{level:?}");
        let new = branch_of(&engine);
        assert_ne!(new, old);
        assert_eq!(marker_branches(&events), [new]);
        let after = consumer.position(VB).unwrap();
        assert_eq!((after.vb_uuid, after.seqno.get()), (new, 4));
        drop((consumer, streams));
        store.finish(engine);
    }
}

#[test]
fn a_branch_that_is_on_disk_and_not_yet_published_can_be_resumed_from() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = with_branch_due(&store, 6);
    let old = branch_of(&engine);
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::BRANCH_PUBLISH, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| change(&engine, "new"));
        let arrival = gate.wait_for_arrival();

        assert!(streams.step());

        let events = take(&mut consumer);
        assert_eq!(short(&events), ["0..6 disk", "key-0000@1", "key-0001@2"]);
        let position = consumer.position(VB).unwrap();
        assert_ne!(position.vb_uuid, old, "the view shows the new branch");
        consumer.close(VB);
        take(&mut consumer);
        assert_eq!(answer(&mut consumer, position), OpenOutcome::Continue);
        drop(arrival);
        assert_eq!(writer.join().unwrap(), 7);
        assert_eq!(branch_of(&engine), position.vb_uuid);
    });
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn an_absent_consumer_of_an_untouched_vbucket_goes_on_after_any_number_of_stops() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    drain(&engine, &streams, &mut consumer);
    let position = consumer.position(VB).unwrap();
    drop((consumer, streams));
    let mut engine = engine;
    for _ in 0..30 {
        engine = crashed(&store, engine);
        vb(&engine, 2).set("k", "v").unwrap();
    }
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::resume(VB, position));
    change(&engine, "new");
    engine.flush().unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["3..4 memory", "new@4"]);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_that_saw_what_is_lost_must_go_back_before_and_after_the_branch_begins() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let (streams, mut consumer) = stepped(&engine);
    let request = StreamRequest::from_start(VB).options(visibility(Visibility::Memory));
    open(&mut consumer, &request);
    drain(&engine, &streams, &mut consumer);
    change(&engine, "lost");
    assert_eq!(
        short(&[consumer.try_recv().unwrap(), consumer.try_recv().unwrap()])[1],
        "lost@4"
    );
    let position = consumer.position(VB).unwrap();
    drop((consumer, streams));
    let mut engine = crashed(&store, engine);
    // Holds too if the first engine that could begin the branch does not.
    engine.close().unwrap();
    drop(engine);
    engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    let back = OpenOutcome::Rollback {
        to: Seqno::new(3),
        reason: RollbackReason::Diverged,
    };
    assert_eq!(answer(&mut consumer, position), back);
    assert_eq!(change(&engine, "another"), 4);
    assert_eq!(answer(&mut consumer, position), back);
    change(&engine, "more");
    assert_eq!(answer(&mut consumer, position), back);
    drop((consumer, streams));
    store.finish(engine);
}

/// A request like that of `examples/follow.rs`, which wants what exists now.
#[test]
fn a_consumer_beyond_a_rollback_that_asks_for_an_end_must_roll_back() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let high = vb(&engine, 1).seqnos().unwrap().high;
    let ahead = Position {
        vb_uuid: branch_of(&engine),
        seqno: Seqno::new(9),
        snap_start: Seqno::new(9),
        snap_end: Seqno::new(9),
        ..Position::default()
    };
    let streams = Streams::stepped(&engine, &vbstore::StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    let opened = consumer
        .open(&StreamRequest::resume(VB, ahead).until(high))
        .unwrap();
    let (to, reason) = (high, RollbackReason::Diverged);
    assert_eq!(opened, OpenOutcome::Rollback { to, reason });
    drop((consumer, streams));
    store.finish(engine);
}
