//! One stream: from disk, from memory, and from one to the other.

use std::sync::Arc;
use vbstore::{
    BackgroundTask, Change, ConsumerConfig, Durability, EndReason, Event, OpenOutcome, Seqno,
    SnapshotSource, StreamOptions, StreamRequest, StreamState, Streams, StreamsConfig, TryRecv,
    VbId, Visibility,
};
use vbstore_tests::following::{VB, drain, expect_event, short, stepped, take, until_ended, write};
use vbstore_tests::replica::{History, Replica};
use vbstore_tests::{TestStore, assert_at_rest, vb};

#[test]
fn a_stream_from_the_beginning_reads_the_disk_and_goes_on_in_memory() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (vb, history) = (vb(&engine, 1), History::default());
    for n in 0..5 {
        write(&vb, &history, &format!("k{}", n % 3), Some("v"));
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(vb);
    let engine = store.open();
    let vb = vbstore_tests::vb(&engine, 1);
    let (streams, mut consumer) = stepped(&engine);

    let opened = consumer.open(&StreamRequest::from_start(VB)).unwrap();
    assert_eq!(opened, OpenOutcome::Continue);
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..5 disk", "k2@3", "k0@4", "k1@5"]);
    assert_eq!(consumer.stats()[0].state, StreamState::InMemory);

    write(&vb, &history, "k0", None);
    assert!(
        drain(&engine, &streams, &mut consumer).is_empty(),
        "not synced yet"
    );
    engine.flush().unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["5..6 memory", "-k0@6"]);
    assert_eq!(consumer.stats()[0].slices, 1);

    assert!(consumer.close(VB));
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["end closed"]);
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecv::Ended);
    assert_at_rest(&engine);
    drop((consumer, streams, vb));
    store.finish(engine);
}

#[test]
fn a_stream_whose_start_is_in_memory_never_reads_the_disk() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (vb, history) = (vb(&engine, 1), History::default());
    for n in 0..4 {
        write(&vb, &history, &format!("k{}", n % 2), Some("v"));
    }
    engine.flush().unwrap();
    let (streams, mut consumer) = stepped(&engine);
    let _ = consumer.open(&StreamRequest::from_start(VB)).unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..4 memory", "k0@3", "k1@4"]);
    assert_eq!(consumer.stats()[0].slices, 0);

    // The same with unpersisted changes, for a consumer that asks for them.
    let mut early = streams
        .consumer("early", &ConsumerConfig::default())
        .unwrap();
    let options = StreamOptions {
        visibility: Visibility::Memory,
        ..StreamOptions::default()
    };
    let request = StreamRequest::resume(VB, consumer.position(VB).unwrap());
    let _ = early.open(&request.options(options)).unwrap();
    write(&vb, &history, "k0", Some("new"));
    let events = drain(&engine, &streams, &mut early);
    assert_eq!(short(&events), ["4..5 memory", "k0@5"]);
    drop((consumer, early, streams, vb));
    store.finish(engine);
}

#[test]
fn the_end_moves_from_slice_to_slice_and_the_copy_is_right_at_the_newest_only() {
    let mut store = TestStore::stepped();
    store.config.tuning.slice_budget.items_max = 2;
    let engine = store.open();
    let (vb, history) = (vb(&engine, 1), History::default());
    for key in ["a", "b", "c", "d", "e"] {
        write(&vb, &history, key, Some("1"));
    }
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(vb);
    let engine = store.open();
    let vb = vbstore_tests::vb(&engine, 1);
    let (streams, mut consumer) = stepped(&engine);
    let _ = consumer.open(&StreamRequest::from_start(VB)).unwrap();
    let mut replica = Replica::default();
    replica.begin_stream(consumer.position(VB).unwrap());

    assert!(streams.step());
    // "d" moves behind the announced end before its slice is read.
    write(&vb, &history, "d", Some("2"));
    engine.flush().unwrap();
    let mut seen = Vec::new();
    loop {
        let ran = streams.step();
        let mut took = false;
        while let Ok(event) = consumer.try_recv() {
            replica.take(&event, consumer.position(VB).unwrap(), &history);
            seen.push(event);
            took = true;
        }
        if !ran && !took {
            break;
        }
    }
    assert_eq!(
        short(&seen),
        ["0..5 disk", "a@1", "b@2", "0..6 disk", "c@3", "e@5", "d@6"]
    );
    assert_eq!(replica.compared, 1);
    drop((consumer, streams, vb));
    store.finish(engine);
}

#[test]
fn nothing_is_delivered_before_it_is_synced() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb = vb(&engine, 1);
    let written = vb
        .write(Change::set("a", "1".to_owned()), Durability::Logged)
        .unwrap();
    // Reopening frees memory; the next flush persists the change without a sync.
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(vb);
    let engine = store.open();
    let vb = vbstore_tests::vb(&engine, 1);
    let (streams, mut consumer) = stepped(&engine);
    let again = vb
        .write(Change::set("a", "2".to_owned()), Durability::Logged)
        .unwrap();
    assert!(again.seqno > written.seqno);
    assert!(vb.seqnos().unwrap().synced < again.seqno);

    let _ = consumer.open(&StreamRequest::from_start(VB)).unwrap();
    assert!(streams.step());
    assert_eq!(consumer.try_recv().unwrap_err(), TryRecv::Empty);
    assert_eq!(consumer.stats()[0].state, StreamState::Snoozed);
    assert!(!streams.step(), "it is woken by the sync, not before");
    // The stream itself asked for the sync.
    engine.step(BackgroundTask::Syncer).unwrap();
    assert_eq!(vb.seqnos().unwrap().synced, again.seqno);
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..2 disk", "a@2"]);

    // A stream that accepts persisted changes does not wait.
    let last = vb
        .write(Change::set("b", "1".to_owned()), Durability::Logged)
        .unwrap();
    let mut eager = streams
        .consumer("eager", &ConsumerConfig::default())
        .unwrap();
    let options = StreamOptions {
        visibility: Visibility::Persisted,
        ..StreamOptions::default()
    };
    let _ = eager
        .open(&StreamRequest::from_start(VB).options(options))
        .unwrap();
    assert!(streams.step());
    let events = take(&mut eager);
    assert_eq!(short(&events), ["0..3 disk", "a@2", "b@3"]);
    assert!(vb.seqnos().unwrap().synced < last.seqno);
    drop((consumer, eager, streams, vb));
    store.finish(engine);
}

#[test]
fn a_stream_ends_at_the_first_boundary_at_or_above_what_was_asked() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (vb, history) = (vb(&engine, 1), History::default());
    for key in ["a", "b", "c"] {
        write(&vb, &history, key, Some("1"));
    }
    engine.flush().unwrap();
    let (streams, mut consumer) = stepped(&engine);
    let request = StreamRequest::from_start(VB).until(Seqno::new(2));
    let _ = consumer.open(&request).unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(
        short(&events),
        ["0..3 memory", "a@1", "b@2", "c@3", "end reached_end"]
    );
    // Refused until every event of the earlier stream is taken.
    let again = StreamRequest::from_start(VB).until(Seqno::new(2));
    let _ = consumer.open(&again).unwrap();
    assert!(consumer.try_recv().is_ok());
    assert!(consumer.open(&again).is_err());
    drain(&engine, &streams, &mut consumer);
    // The position is at the end already.
    let position = consumer.position(VB).unwrap();
    let request = StreamRequest::resume(VB, position).until(position.seqno);
    let _ = consumer.open(&request).unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["end reached_end"]);
    drop((consumer, streams, vb));
    store.finish(engine);
}

#[test]
fn filters_leave_out_and_still_move_the_position() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (vb, history) = (vb(&engine, 1), History::default());
    for key in ["x1", "y1", "x2", "y2"] {
        write(&vb, &history, key, Some("1"));
    }
    write(&vb, &history, "x1", None);
    write(&vb, &history, "y1", None);
    engine.flush().unwrap();
    engine.close().unwrap();
    drop(vb);
    let engine = store.open();
    let vb = vbstore_tests::vb(&engine, 1);
    let (streams, mut consumer) = stepped(&engine);
    let options = StreamOptions {
        prefix: "x".into(),
        is_keys_only: true,
        skips_first_deletions: true,
        ..StreamOptions::default()
    };
    let request = StreamRequest::from_start(VB).options(options);
    let _ = consumer.open(&request).unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..6 disk", "x2@3", "to 6"]);
    let item = events[1].event.item().unwrap();
    assert!(item.value.is_empty());
    assert_eq!(item.meta.value_len, 1);
    // Later deletions count.
    write(&vb, &history, "x2", None);
    write(&vb, &history, "y2", None);
    engine.flush().unwrap();
    let events = drain(&engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["6..8 memory", "-x2@7", "to 8"]);
    drop((consumer, streams, vb));
    store.finish(engine);
}

#[test]
fn what_no_consumer_can_mean_is_refused_and_changes_nothing() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    let field = |result: vbstore::Result<OpenOutcome>| match result {
        Err(vbstore::Error::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let unknown = StreamRequest::from_start(VbId::new(4));
    assert_eq!(field(consumer.open(&unknown)), "vb");
    let mut request = StreamRequest::from_start(VB);
    request.position.seqno = Seqno::new(5);
    request.position.snap_end = Seqno::new(4);
    assert_eq!(field(consumer.open(&request)), "snap_end");
    assert!(consumer.positions().0.is_empty());
    let _ = consumer.open(&StreamRequest::from_start(VB)).unwrap();
    assert_eq!(field(consumer.open(&StreamRequest::from_start(VB))), "vb");
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn a_threaded_consumer_follows_while_others_write() {
    let store = TestStore::threaded();
    let engine = store.open();
    let streams = Streams::start(&engine, &StreamsConfig::default()).unwrap();
    let history = Arc::new(History::default());
    let vb = vb(&engine, 1);
    let writer = {
        let (vb, history) = (vb.clone(), Arc::clone(&history));
        let name = std::thread::Builder::new().name("writer".to_owned());
        let written = name.spawn(move || {
            for n in 0..5_000_u32 {
                write(
                    &vb,
                    &history,
                    &format!("k{}", n * 7 % 911),
                    Some(&format!("{n}")),
                );
            }
            vb.seqnos().unwrap().high
        });
        written.unwrap()
    };
    let mut consumer = streams.consumer("t", &ConsumerConfig::default()).unwrap();
    let _ = consumer.open(&StreamRequest::from_start(VB)).unwrap();
    let mut events = Vec::new();
    let high = writer.join().unwrap();
    while consumer.position(VB).unwrap().seqno < high {
        let event = expect_event(&mut consumer);
        events.push((event, consumer.position(VB).unwrap()));
    }
    // The writer records a change after it was made, so the comparison has to wait for it.
    let mut replica = Replica::default();
    for (event, position) in &events {
        replica.take(event, *position, &history);
    }
    assert!(replica.compared > 0);
    assert!(events.iter().any(|(e, _)| matches!(&e.event,
        Event::SnapshotMarker(m) if m.source == SnapshotSource::Memory)));
    engine.close().unwrap();
    let rest = until_ended(&mut consumer);
    assert!(matches!(
        rest.last().unwrap().event,
        Event::End(EndReason::Shutdown)
    ));
    drop((consumer, streams, vb, engine));
    let engine = store.open();
    store.finish(engine);
}
