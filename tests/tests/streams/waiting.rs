//! Backfills that wait: for their turn, for buffer space, for a sync, for a flush. None of them has
//! a view of the disk, and all of them are woken.

use std::sync::Arc;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::{
    Change, Consumer, ConsumerConfig, Durability, EndReason, Engine, Event, Position, Seqno,
    StreamOptions, StreamRequest, StreamState, Streams, StreamsConfig, TryRecv, VbId, Visibility,
};
use vbstore_engine::raw;
use vbstore_tests::following::{
    VB, drain, expect_event, keys, on_disk, open, run_all, short, stepped, take,
};
use vbstore_tests::{TestStore, assert_at_rest, vb};

fn views(engine: &Engine) -> u64 {
    engine.metrics().db_snapshots.opened()
}

fn waiting_in(stats: &vbstore::StreamsStats) -> [usize; 4] {
    [stats.pending, stats.ready, stats.running, stats.snoozed]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wait {
    Turn,
    Worker,
    Room,
    Sync,
}

const WAITS: [Wait; 4] = [Wait::Turn, Wait::Worker, Wait::Room, Wait::Sync];

/// Returns a consumer whose stream waits for this. Slices have two items.
fn waiting(engine: &Engine, streams: &Streams, wait: Wait) -> Consumer {
    let is_for_room = wait == Wait::Room;
    let config = ConsumerConfig {
        buffer_bytes_max: if is_for_room { 2_000 } else { 20 << 20 },
        ..ConsumerConfig::default()
    };
    let mut consumer = streams.consumer("waiting", &config).unwrap();
    if wait == Wait::Sync {
        let change = Change::set("unsynced", "v");
        vb(engine, 1).write(change, Durability::Logged).unwrap();
    }
    open(&mut consumer, &StreamRequest::from_start(VB));
    let state = match wait {
        // It has a slot and has not begun.
        Wait::Turn => StreamState::Ready,
        Wait::Worker => {
            assert!(streams.step());
            StreamState::Ready
        }
        Wait::Room | Wait::Sync => {
            run_all(streams);
            StreamState::Snoozed
        }
    };
    assert_eq!(consumer.stats()[0].state, state, "{wait:?}");
    assert_at_rest(engine);
    consumer
}

/// Returns its position as a program would compose it, without the filter.
fn without_filter(consumer: &Consumer) -> Option<Position> {
    let position = consumer.position(VB)?;
    Some(Position {
        filter: None,
        ..position
    })
}

fn two_at_once() -> TestStore {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    store
}

#[test]
fn a_stream_that_is_closed_or_dropped_while_it_waits_opens_no_view_and_leaves_nothing() {
    let store = two_at_once();
    let engine = on_disk(&store, keys(100));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    for (wait, is_dropped) in WAITS
        .iter()
        .flat_map(|wait| [(*wait, false), (*wait, true)])
    {
        let mut consumer = waiting(&engine, &streams, wait);
        let opened = views(&engine);
        if is_dropped {
            drop(consumer);
        } else {
            assert!(consumer.close(VB));
            assert!(!consumer.close(VB));
            assert_eq!(short(&take(&mut consumer)), ["end closed"], "{wait:?}");
            assert_eq!(consumer.position(VB).unwrap().seqno, Seqno::ZERO);
        }
        assert!(!streams.step(), "{wait:?}");
        assert_eq!(views(&engine), opened);
        let stats = streams.stats();
        assert_eq!((waiting_in(&stats), stats.buffered_bytes), ([0; 4], 0));
        assert!(stats.streams.is_empty());
        assert_eq!(engine.feed(VB).unwrap().watches(), 0, "{wait:?}");
        engine.flush().unwrap();
    }
    drop(streams);
    store.finish(engine);
}

#[test]
fn closing_the_engine_ends_backfills_wherever_they_wait() {
    for wait in WAITS {
        let store = two_at_once();
        let engine = on_disk(&store, keys(100));
        let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
        let mut consumer = waiting(&engine, &streams, wait);

        engine.close().unwrap();

        let mut events = Vec::new();
        loop {
            let ran = streams.step();
            let taken = take(&mut consumer);
            if !ran && taken.is_empty() {
                break;
            }
            events.extend(taken);
        }
        let (end, before) = events.split_last().unwrap();
        assert!(matches!(end.event, Event::End(EndReason::Shutdown)));
        let seqnos = before.iter().filter_map(|event| event.event.item());
        let seqnos = seqnos.map(|item| item.meta.seqno.get());
        assert!(seqnos.eq(1..=consumer.position(VB).unwrap().seqno.get()));
        assert_eq!(consumer.try_recv().unwrap_err(), TryRecv::Ended);
        let stats = streams.stats();
        assert_eq!((waiting_in(&stats), stats.buffered_bytes), ([0; 4], 0));
        assert_eq!(engine.metrics().db_snapshots.open_now(), 0);
        let ended = streams.counters().closed.of(EndReason::Shutdown.name());
        assert_eq!(ended.get(), 1);
        drop((consumer, streams, engine));
        let engine = store.open();
        store.finish(engine);
    }
}

#[test]
fn closing_the_engine_waits_for_a_slice_that_is_being_read() {
    let store = TestStore::threaded();
    let engine = on_disk(&store, keys(6));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::SLICE_VIEW, wait);
    std::thread::scope(|scope| {
        let name = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let step = name("step").spawn_scoped(scope, || streams.step()).unwrap();
        let _held = gate.wait_for_arrival();
        let close = name("close").spawn_scoped(scope, || engine.close());
        gate.open();
        assert!(step.join().unwrap());
        close.unwrap().join().unwrap().unwrap();
    });
    run_all(&streams);
    let events = take(&mut consumer);
    assert_eq!(short(&events).last().unwrap(), "end shutdown");
    assert_eq!(engine.metrics().db_snapshots.open_now(), 0);
    drop((consumer, streams, engine));
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn a_backfill_that_needs_what_is_not_on_disk_waits_without_a_view() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    for key in ["d", "e"] {
        let change = Change::set(key, "v");
        vb(&engine, 1).write(change, Durability::Memory).unwrap();
    }
    let (streams, mut consumer) = stepped(&engine);
    // It has taken two changes of a snapshot that ends beyond what is on disk.
    let position = Position {
        vb_uuid: vb(&engine, 1).seqnos().unwrap().vb_uuid,
        seqno: Seqno::new(2),
        snap_start: Seqno::ZERO,
        snap_end: Seqno::new(5),
        purge_seqno: Seqno::ZERO,
        filter: None,
    };
    let options = StreamOptions {
        visibility: Visibility::Memory,
        ..StreamOptions::default()
    };
    let opened = views(&engine);
    open(
        &mut consumer,
        &StreamRequest::resume(VB, position).options(options),
    );
    assert!(streams.step());
    assert_eq!(consumer.stats()[0].state, StreamState::Snoozed);
    assert!(!streams.step(), "woken by the flush, not before");
    assert_eq!(views(&engine), opened);
    assert_eq!(without_filter(&consumer), Some(position));

    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..5 disk", "key-0002@3", "d@4", "e@5"]);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_consumer_at_its_own_limit_leaves_the_others_theirs() {
    let store = two_at_once();
    let engine = store.open();
    for number in [0, 1] {
        for key in keys(6) {
            let change = Change::set(key, "value");
            vb(&engine, number)
                .write(change, Durability::Memory)
                .unwrap();
        }
    }
    engine.flush().unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let config = ConsumerConfig {
        backfills_max: 1,
        ..ConsumerConfig::default()
    };
    let mut narrow = streams.consumer("narrow", &config).unwrap();
    let mut other = streams
        .consumer("other", &ConsumerConfig::default())
        .unwrap();
    for number in [0, 1] {
        open(&mut narrow, &StreamRequest::from_start(VbId::new(number)));
    }
    assert!(streams.step());
    open(&mut other, &StreamRequest::from_start(VB));
    let state_of = |consumer: &Consumer, vb| {
        let stats = consumer.stats();
        stats.iter().find(|stats| stats.vb == vb).unwrap().state
    };
    while state_of(&narrow, VbId::new(0)) != StreamState::InMemory {
        assert_eq!(state_of(&narrow, VB), StreamState::Pending);
        assert!(streams.step());
        assert_at_rest(&engine);
    }
    assert_ne!(
        state_of(&other, VB),
        StreamState::Pending,
        "it had its turns"
    );
    let events = drain(&engine, &streams, &mut narrow);
    assert_eq!(events.len(), 14);
    assert!(events[..7].iter().all(|event| event.vb == VbId::new(0)));
    assert_eq!(drain(&engine, &streams, &mut other).len(), 7);
    drop((narrow, other, streams));
    store.finish(engine);
}

#[test]
fn a_slice_cut_by_its_budget_leaves_its_stream_ready_and_the_next_has_a_whole_one() {
    let store = two_at_once();
    let engine = on_disk(&store, keys(5));
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    for (slices, read, state) in [
        (1, 2, StreamState::Ready),
        (2, 4, StreamState::Ready),
        (3, 5, StreamState::InMemory),
    ] {
        assert!(streams.step());
        assert_at_rest(&engine);
        let stats = &consumer.stats()[0];
        assert_eq!((stats.slices, stats.read_seqno.get()), (slices, read));
        assert_eq!(stats.state, state);
    }
    assert_eq!(streams.counters().slices.budget.get(), 2);
    assert_eq!(streams.counters().slices.complete.get(), 1);
    assert_eq!(take(&mut consumer).len(), 6);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_slice_shows_nothing_that_came_after_its_view() {
    let store = TestStore::stepped();
    let engine = store.open();
    for key in ["a", "b"] {
        vb(&engine, 1).set(key, "v").unwrap();
    }
    vb(&engine, 1).delete("a").unwrap();
    vb(&engine, 1).set("c", "v").unwrap();
    raw::forget_memory(&engine, true).unwrap();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let gate = Arc::new(Latch::default());
    let wait = Action::Wait(Arc::clone(&gate));
    store.failpoints.once(place::SLICE_VIEW, wait);
    std::thread::scope(|scope| {
        let step = std::thread::Builder::new().name("step".to_owned());
        let step = step.spawn_scoped(scope, || streams.step()).unwrap();
        let _held = gate.wait_for_arrival();
        vb(&engine, 1).set("late", "v").unwrap();
        assert_eq!(raw::purge_tombstones(&engine, VB, Seqno::MAX).unwrap(), 1);
        gate.open();
        assert!(step.join().unwrap());
    });
    let mut events = Vec::new();
    for _ in 0..4 {
        events.push(expect_event(&mut consumer));
    }
    assert_eq!(short(&events), ["0..4 disk", "b@2", "-a@3", "c@4"]);
    let Event::SnapshotMarker(marker) = &events[0].event else {
        panic!("{events:?}");
    };
    assert_eq!(marker.purge_seqno, Some(Seqno::ZERO), "that of its view");
    let events = take(&mut consumer);
    assert_eq!(short(&events), ["4..5 memory", "late@5"]);
    drop((consumer, streams));
    store.finish(engine);
}
