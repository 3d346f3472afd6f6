//! The parts of a request: a filter, an end, a position to resume from.

use vbstore::{
    Change, Durability, Error, OpenOutcome, Position, RollbackReason, Seqno, StreamOptions,
    StreamRequest, Streams, StreamsConfig, Visibility,
};
use vbstore_engine::raw;
use vbstore_tests::following::{VB, consumer, drain, keys, on_disk, open, short, take};
use vbstore_tests::{TestStore, vb};

#[test]
fn what_is_left_out_as_a_first_deletion_does_not_depend_on_where_the_changes_are() {
    let store = TestStore::stepped();
    let engine = store.open();
    for key in keys(10) {
        for change in [Change::set(&key, "v"), Change::delete(&key)] {
            vb(&engine, 1).write(change, Durability::Memory).unwrap();
        }
        engine.flush().unwrap();
    }
    vb(&engine, 1).set("last", "v").unwrap();
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let options = StreamOptions {
        skips_first_deletions: true,
        ..StreamOptions::default()
    };
    let request = StreamRequest::from_start(VB).options(options);
    for where_from in ["memory", "disk"] {
        let mut consumer = consumer(&streams, where_from);
        open(&mut consumer, &request);
        let events = drain(&engine, &streams, &mut consumer);
        assert_eq!(short(&events), ["0..21 disk", "last@21"], "{where_from}");
        // Later changes are delivered.
        vb(&engine, 1).delete("last").unwrap();
        let events = drain(&engine, &streams, &mut consumer);
        assert_eq!(short(&events).last().unwrap(), "-last@22");
        engine.delete_vbucket(VB).unwrap();
        drop(consumer);
        for n in 0..20 {
            let key = format!("key-{:04}", n / 2);
            let change = if n % 2 == 0 {
                Change::set(&key, "v")
            } else {
                Change::delete(&key)
            };
            vb(&engine, 1).write(change, Durability::Memory).unwrap();
            engine.flush().unwrap();
        }
        vb(&engine, 1).set("last", "v").unwrap();
        raw::forget_memory(&engine, true).unwrap();
    }
    drop(streams);
    store.finish(engine);
}

#[test]
fn a_position_resumes_only_with_the_filter_it_was_reached_with() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, ["a1", "b1", "a2"].map(str::to_owned));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let of = |prefix: &'static str, is_keys_only| StreamOptions {
        prefix: prefix.into(),
        is_keys_only,
        ..StreamOptions::default()
    };
    let mut consumer = consumer(&streams, "c");
    open(
        &mut consumer,
        &StreamRequest::from_start(VB).options(of("a", false)),
    );
    drain(&engine, &streams, &mut consumer);
    let position = consumer.position(VB).unwrap();
    consumer.close(VB);
    take(&mut consumer);
    vb(&engine, 1).set("b2", "v").unwrap();
    let changed = OpenOutcome::Rollback {
        to: Seqno::ZERO,
        reason: RollbackReason::FilterChanged,
    };
    for other in [
        of("b", false),
        of("", false),
        of("a", true),
        of("a1", false),
    ] {
        let request = StreamRequest::resume(VB, position).options(other);
        assert_eq!(consumer.open(&request).unwrap(), changed);
        // The same if the request has an end below the position.
        let until = request.until(Seqno::new(1));
        assert_eq!(consumer.open(&until).unwrap(), changed);
    }
    let options = StreamOptions {
        visibility: Visibility::Persisted,
        ..of("a", false)
    };
    open(
        &mut consumer,
        &StreamRequest::resume(VB, position).options(options),
    );
    assert_eq!(
        short(&drain(&engine, &streams, &mut consumer)),
        ["3..4 memory", "to 4"]
    );
    assert_eq!(streams.counters().rollbacks.of("filter_changed").get(), 8);
    drop((consumer, streams));
    store.finish(engine);
}

#[test]
fn an_end_below_the_position_is_malformed_only_if_the_consumer_may_go_on() {
    let store = TestStore::stepped();
    let engine = on_disk(&store, keys(3));
    let streams = Streams::stepped(&engine, &StreamsConfig::default()).unwrap();
    let mut consumer = consumer(&streams, "c");
    let uuid = vb(&engine, 1).seqnos().unwrap().vb_uuid;
    let at = |seqno| Position {
        vb_uuid: uuid,
        seqno: Seqno::new(seqno),
        snap_start: Seqno::new(seqno),
        snap_end: Seqno::new(seqno),
        ..Position::default()
    };
    let until = |position: Position| StreamRequest::resume(VB, position).until(Seqno::new(2));
    let refused = consumer.open(&until(at(3)));
    assert!(
        matches!(refused, Err(Error::Invalid { field: "end", .. })),
        "{refused:?}"
    );
    // Beyond the high seqno of the vBucket: it must roll back.
    let answer = consumer.open(&until(at(9))).unwrap();
    assert!(matches!(answer, OpenOutcome::Rollback { .. }), "{answer:?}");
    drop((consumer, streams));
    store.finish(engine);
}
