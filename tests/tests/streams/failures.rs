//! What ends a stream; it leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{
    Change, Consumer, ConsumerConfig, Durability, EndReason, Engine, Error, Event, Position,
    RollbackReason, Seqno, StreamEvent, StreamOptions, StreamRequest, StreamState, Streams,
    StreamsConfig, TryRecv, VbId, Visibility,
};
use vbstore_engine::raw;
use vbstore_tests::following::{
    PATIENCE, VB, drain, expect_event, on_disk, open, run_all, short, stepped, take,
};
use vbstore_tests::{TestStore, assert_at_rest, vb};

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("key-{n:04}"))
}

fn reason(events: &[StreamEvent]) -> &EndReason {
    match &events.last().unwrap().event {
        Event::End(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn io_error() -> Error {
    Error::io("planted", std::io::Error::other("planted"))
}

#[test]
fn a_deleted_vbucket_ends_streams_from_disk_and_from_memory() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = on_disk(&store, keys(6));
    let (streams, mut disk) = stepped(&engine);
    let mut memory = streams
        .consumer("memory", &ConsumerConfig::default())
        .unwrap();
    open(&mut memory, &StreamRequest::from_start(VB));
    drain(&engine, &streams, &mut memory);
    assert_eq!(memory.stats()[0].state, StreamState::InMemory);
    open(&mut disk, &StreamRequest::from_start(VB));
    assert!(streams.step());

    engine.delete_vbucket(VB).unwrap();
    vb(&engine, 1).set("new", "life").unwrap();

    let events = drain(&engine, &streams, &mut disk);
    assert!(
        matches!(reason(&events), EndReason::VbucketGone),
        "{events:?}"
    );
    assert!(
        events
            .iter()
            .all(|e| e.event.item().is_none_or(|i| i.key != "new"))
    );
    let events = drain(&engine, &streams, &mut memory);
    assert_eq!(short(&events), ["end vbucket_gone"]);
    // Their positions are on a branch that no longer exists.
    let request = StreamRequest::resume(VB, memory.position(VB).unwrap());
    assert_eq!(
        memory.open(&request).unwrap(),
        vbstore::OpenOutcome::Rollback {
            to: Seqno::ZERO,
            reason: RollbackReason::UnknownBranch
        }
    );
    assert_at_rest(&engine);
    drop((disk, memory, streams));
    store.finish(engine);
}

#[test]
fn closing_the_engine_ends_whatever_waits() {
    let store = TestStore::threaded();
    let engine = on_disk(&store, keys(6));
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    for _ in 0..7 {
        expect_event(&mut consumer);
    }
    // Not a scoped thread: a reader that is never woken would block the test.
    let (reports, report) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::Builder::new().name("reader".to_owned());
    let read = move || {
        let events = [consumer.recv(), consumer.recv()];
        reports.send((consumer, events)).unwrap();
    };
    let reader = reader.spawn(read).unwrap();
    engine.close().unwrap();
    let report = report.recv_timeout(PATIENCE);
    let (mut consumer, events) = report.expect("a reader that the close wakes");
    reader.join().unwrap();
    let [Some(last), None] = events else {
        panic!("{events:?}");
    };
    assert!(matches!(last.event, Event::End(EndReason::Shutdown)));
    let refused = consumer.open(&StreamRequest::from_start(VB));
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    drop((consumer, streams, engine));
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn what_is_not_synced_when_the_engine_fails_is_never_delivered() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(2));
    let (streams, mut consumer) = stepped(&engine);
    let mut memory = streams
        .consumer("memory", &ConsumerConfig::default())
        .unwrap();
    open(&mut memory, &StreamRequest::from_start(VB));
    drain(&engine, &streams, &mut memory);
    let change = Change::set("unsynced", "v");
    vb(&engine, 1).write(change, Durability::Logged).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert!(streams.step());
    assert_eq!(consumer.stats()[0].state, StreamState::Snoozed);

    store.failpoints.once(place::SYNC, Action::Fail(io_error()));
    engine.flush().unwrap_err();

    assert!(streams.step(), "woken by the failure");
    let events = take(&mut consumer);
    assert_eq!(short(&events), ["end error"]);
    assert!(matches!(
        reason(&events),
        EndReason::Error(Error::Failed { .. })
    ));
    assert_eq!(short(&take(&mut memory)), ["end error"]);
    assert_eq!(
        consumer.position(VB).unwrap().seqno,
        Seqno::ZERO,
        "its position has not moved"
    );
    assert_at_rest(&engine);
    // A consumer that accepts persisted changes reads on.
    let options = StreamOptions {
        visibility: Visibility::Persisted,
        ..StreamOptions::default()
    };
    open(
        &mut consumer,
        &StreamRequest::from_start(VB).options(options),
    );
    assert!(streams.step());
    let events = take(&mut consumer);
    assert_eq!(
        short(&events)[..4],
        ["0..3 disk", "key-0000@1", "key-0001@2", "unsynced@3"]
    );
    drop((consumer, memory, streams));
    engine.close().unwrap_err();
    drop(engine);
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn a_panic_or_an_error_in_a_slice_ends_that_stream_and_no_other() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(6));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let hurt = |action: Action, place| {
        let mut consumer = streams
            .consumer("hurt", &ConsumerConfig::default())
            .unwrap();
        let mut other = streams
            .consumer("other", &ConsumerConfig::default())
            .unwrap();
        open(&mut consumer, &StreamRequest::from_start(VB));
        store.failpoints.once(place, action);
        assert!(streams.step());
        open(&mut other, &StreamRequest::from_start(VB));
        let events = drain(&engine, &streams, &mut consumer);
        assert_eq!(drain(&engine, &streams, &mut other).len(), 7);
        assert_at_rest(&engine);
        assert_eq!(streams.stats().buffered_bytes, 0);
        assert_eq!(short(&events), ["end error"]);
        reason(&events).clone()
    };
    for place in [place::SLICE_OPEN, place::SLICE_VIEW, place::SLICE_HAND_ON] {
        let ended = hurt(Action::Panic, place);
        assert!(matches!(
            ended,
            EndReason::Error(Error::StreamPanicked { vb: VB })
        ));
        let ended = hurt(Action::Fail(io_error()), place);
        assert!(matches!(ended, EndReason::Error(Error::Io { .. })));
    }
    assert_eq!(streams.counters().panics.get(), 3);
    drop(streams);
    store.finish(engine);
}

#[test]
fn a_consumer_dropped_in_the_middle_of_a_slice_leaves_nothing() {
    let store = TestStore::threaded();
    let engine = on_disk(&store, keys(600));
    // One worker: with two, the first may still be in its slice when the second has served `next`.
    let config = StreamsConfig {
        workers: 1,
        ..StreamsConfig::default()
    };
    let streams = Streams::start(&engine, &config).unwrap();
    for at in [place::SLICE_OPEN, place::SLICE_VIEW, place::SLICE_HAND_ON] {
        let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
        let gate = Arc::new(Latch::default());
        store.failpoints.once(at, Action::Wait(Arc::clone(&gate)));
        open(&mut consumer, &StreamRequest::from_start(VB));
        let _held = gate.wait_for_arrival();
        drop(consumer);
        assert_eq!(streams.stats().streams.len(), 0);
        let held = usize::from(at == place::SLICE_VIEW);
        assert_eq!(engine.metrics().db_snapshots.open_now(), held);
        gate.open();
        // When the worker has served another consumer, it is free again.
        let mut next = streams
            .consumer("next", &ConsumerConfig::default())
            .unwrap();
        open(&mut next, &StreamRequest::from_start(VB));
        for _ in 0..601 {
            expect_event(&mut next);
        }
        drop(next);
    }
    drop(streams);
    store.finish(engine);
}

#[test]
fn a_stream_closed_in_the_middle_of_its_slice_is_not_put_to_sleep() {
    let store = TestStore::threaded();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    // The view of this stream holds unsynced changes, and no sync succeeds meanwhile.
    let sync = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::SYNC, Action::Wait(Arc::clone(&sync)));
    let change = Change::set("unsynced", "v");
    vb(&engine, 1).write(change, Durability::Logged).unwrap();
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::SLICE_HAND_ON, wait);
    std::thread::scope(|scope| {
        let step = std::thread::Builder::new().name("step".to_owned());
        let step = step.spawn_scoped(scope, || streams.step()).unwrap();
        let _held = gate.wait_for_arrival();
        assert!(consumer.close(VB));
        gate.open();
        assert!(step.join().unwrap());
    });
    let stats = streams.stats();
    assert_eq!((stats.snoozed, stats.ready, stats.pending), (0, 0, 0));
    assert_eq!(stats.buffered_bytes, 0);
    sync.open();
    assert_eq!(short(&take(&mut consumer)), ["end closed"]);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn purging_past_a_position_ends_the_stream_and_refuses_its_position() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = with_a_tombstone(&store);
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert!(streams.step());

    assert_eq!(raw::purge_tombstones(&engine, VB, Seqno::MAX).unwrap(), 1);

    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(
        short(&events),
        ["0..8 disk", "key-0000@1", "key-0001@2", "end rollback"]
    );
    let position = consumer.position(VB).unwrap();
    assert_eq!((position.seqno.get(), position.purge_seqno.get()), (2, 0));
    let answer = consumer.open(&StreamRequest::resume(VB, position)).unwrap();
    assert_eq!(
        answer,
        vbstore::OpenOutcome::Rollback {
            to: Seqno::ZERO,
            reason: RollbackReason::Purged
        }
    );
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert_eq!(drain(&engine, &streams, &mut consumer).len(), 7);
    assert_eq!(consumer.position(VB).unwrap().purge_seqno.get(), 7);
    drop((consumer, streams));
    store.finish(engine);
}

/// Returns a store whose vBucket has six keys, a tombstone at 7 and a change at 8, all only on
/// disk.
fn with_a_tombstone(store: &TestStore) -> Engine {
    let engine = store.open();
    for key in keys(6) {
        vb(&engine, 1).set(key, "v").unwrap();
    }
    vb(&engine, 1).delete("key-0003").unwrap();
    vb(&engine, 1).set("last", "v").unwrap();
    raw::forget_memory(&engine, true).unwrap();
    engine
}

#[test]
fn purging_between_the_request_and_the_first_view_ends_the_stream_without_a_marker() {
    let store = TestStore::stepped();
    let engine = with_a_tombstone(&store);
    let (streams, mut consumer) = stepped(&engine);
    let position = Position {
        vb_uuid: vb(&engine, 1).seqnos().unwrap().vb_uuid,
        seqno: Seqno::new(2),
        snap_start: Seqno::new(2),
        snap_end: Seqno::new(2),
        purge_seqno: Seqno::ZERO,
        filter: None,
    };
    open(&mut consumer, &StreamRequest::resume(VB, position));

    assert_eq!(raw::purge_tombstones(&engine, VB, Seqno::MAX).unwrap(), 1);

    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["end rollback"]);
    let stayed = Position {
        filter: None,
        ..consumer.position(VB).unwrap()
    };
    assert_eq!(stayed, position);
    assert_at_rest(&engine);
    // A position that includes the purge seqno is not rolled back for the purge.
    let aware = Position {
        purge_seqno: Seqno::new(7),
        ..position
    };
    open(&mut consumer, &StreamRequest::resume(VB, aware));
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(
        short(&events),
        [
            "2..8 disk",
            "key-0002@3",
            "key-0004@5",
            "key-0005@6",
            "last@8"
        ]
    );
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn purging_what_a_dropped_cursor_had_not_read_ends_its_stream() {
    let store = TestStore::stepped();
    let engine = with_a_tombstone(&store);
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    assert_eq!(drain(&engine, &streams, &mut consumer).len(), 8);
    vb(&engine, 1).delete("key-0001").unwrap();
    let purge = || raw::purge_tombstones(&engine, VB, Seqno::MAX).unwrap();
    assert_eq!(purge(), 1, "that at 7: the highest seqno is kept");
    assert_eq!(purge(), 0);
    vb(&engine, 1).set("newer", "v").unwrap();
    assert_eq!(purge(), 1);
    raw::forget_memory(&engine, true).unwrap();
    assert_eq!(engine.metrics().cursors_dropped.get(), 1);

    let events = drain(&engine, &streams, &mut consumer);

    assert_eq!(short(&events), ["end rollback"]);
    assert_eq!(consumer.position(VB).unwrap().seqno, Seqno::new(8));
    drop((consumer, streams));
    store.finish(engine);
}

fn frozen(streams: &Streams) -> Consumer {
    let config = ConsumerConfig {
        buffer_bytes_max: 2_000,
        ..ConsumerConfig::default()
    };
    let mut consumer = streams.consumer("frozen", &config).unwrap();
    open(&mut consumer, &StreamRequest::from_start(VB));
    run_all(streams);
    consumer
}

#[test]
fn a_stalled_stream_is_reported_and_ended_if_the_disk_is_short() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(500));
    let config = StreamsConfig {
        stall_limit: Duration::from_secs(720),
        disk_free_min_percent: 0,
        ..StreamsConfig::default()
    };
    let streams = Streams::stepped(&engine, &config).unwrap();
    let clock = store.clock.clone().unwrap();
    let mut consumer = frozen(&streams);
    let mut idle = streams
        .consumer("idle", &ConsumerConfig::default())
        .unwrap();
    open(&mut idle, &StreamRequest::from_start(VbId::new(2)));
    assert!(take(&mut idle).is_empty());
    let pass = |seconds: u64| {
        for _ in 0..seconds / 180 {
            clock.advance(Duration::from_secs(180));
            assert!(!streams.step());
        }
    };
    pass(540);
    assert!(!consumer.stats()[0].is_stalled);
    pass(360);
    assert!(consumer.stats()[0].is_stalled);
    assert!(!idle.stats()[0].is_stalled, "it has nothing to take");
    // Taking a single event counts as progress.
    consumer.try_recv().unwrap();
    pass(180);
    assert!(!consumer.stats()[0].is_stalled);

    let full = Error::DiskFull {
        detail: "planted".into(),
    };
    vb(&engine, 1)
        .write(Change::set("new", "v"), Durability::Memory)
        .unwrap();
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Fail(full));
    engine.flush().unwrap_err();
    pass(900);
    // What it has buffered it may finish; everything that waited was dropped.
    let events = take(&mut consumer);
    assert_eq!(short(&events).last().unwrap(), "end stalled");
    assert!(events.len() < 10, "{events:?}");
    assert_eq!(
        streams
            .counters()
            .closed
            .of(EndReason::Stalled.name())
            .get(),
        1
    );
    assert_eq!(consumer.buffered_bytes(), 0);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecv::Ended);
    drop((consumer, idle, streams));
    store.finish(engine);
}
