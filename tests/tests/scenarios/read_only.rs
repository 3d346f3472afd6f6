//! A store that is opened read-only: all reads work, all writes are refused, and the directory
//! stays as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use vbstore::metrics::names;
use vbstore::{
    BackgroundTask, Change, ConsumerConfig, DbSnapshotHolder, Durability, Engine, Error, ErrorKind,
    HealthState, KeyRange, OpenOutcome, PageForm, Position, RollbackReason, Seqno, SeqnoRange,
    SliceBudget, StreamRequest, Streams, StreamsConfig, VbId,
};
use vbstore_engine::raw::purge_tombstones;
use vbstore_tests::following::{VB, drain, open, short, stepped, take};
use vbstore_tests::{
    TestStore, assert_at_rest, assert_verified, branches_after_a_change, copy_dir, put, rows, vb,
};

/// A file or a directory as other programs see it: inode, mode, length, mtime, ctime, and contents.
pub(crate) type Seen = (u64, u32, u64, (i64, i64), (i64, i64), Vec<u8>);

/// Returns everything in a directory.
pub(crate) fn seen(dir: &Path) -> BTreeMap<String, Seen> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        let mut content = Vec::new();
        if metadata.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else {
            content = std::fs::read(&path).unwrap();
        }
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let of = (
            metadata.ino(),
            metadata.mode(),
            metadata.len(),
            modified,
            changed,
            content,
        );
        found.insert(path.to_string_lossy().into_owned(), of);
    }
    found
}

pub(crate) fn open_to_read(store: &TestStore) -> Engine {
    store.builder().read_only().open().unwrap()
}

/// Writes three changes and a deletion to one vBucket, and a change to another.
pub(crate) fn fill(engine: &Engine) {
    vb(engine, 1).set("a", "1").unwrap();
    vb(engine, 1).set("b", "2").unwrap();
    vb(engine, 1).set("gone", "3").unwrap();
    vb(engine, 1).delete("gone").unwrap();
    vb(engine, 2).set("other", "4").unwrap();
}

/// Calls every function that reads.
pub(crate) fn read_everything(engine: &Engine) {
    let vb1 = vb(engine, 1);
    assert_eq!(vb1.get("a").unwrap().unwrap().value, "1");
    assert!(!vb1.get_meta("gone").unwrap().unwrap().kind.is_live());
    let many = vb1.get_many(&["b", "none"]).unwrap();
    assert_eq!(many[0].as_ref().unwrap().value, "2");
    assert!(many[1].is_none());
    let page = vb1.range(&KeyRange::all(), PageForm::Documents).unwrap();
    let keys: Vec<_> = page.entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(rows(&vb1).len(), 3, "one of them a tombstone");
    let budget = SliceBudget::default();
    let slice = vb1
        .scan_slice(SeqnoRange::above(Seqno::ZERO), budget)
        .unwrap();
    assert_eq!(slice.persisted_seqno().get(), 4);
    let seqnos = vb1.seqnos().unwrap();
    assert_eq!(
        [seqnos.high, seqnos.persisted, seqnos.synced],
        [Seqno::new(4); 3]
    );
    vb1.wait_synced(seqnos.high, Duration::ZERO).unwrap();
    assert_eq!(vb1.counts().unwrap().counts.items, 2);
    assert_eq!(vb1.failover_log().unwrap().entries().len(), 1);
    assert!(engine.disk_usage().unwrap().total > 0);
    assert_verified(engine);
    let (streams, mut consumer) = stepped(engine);
    open(&mut consumer, &StreamRequest::from_start(VB));
    let events = drain(engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..4 disk", "a@1", "b@2", "-gone@4"]);
    drop((consumer, streams));
    assert_at_rest(engine);
}

#[test]
fn everything_can_be_read_and_the_directory_stays_as_it_was() {
    for (mut store, crashes) in [
        (TestStore::threaded(), false),
        (TestStore::threaded(), true),
        (TestStore::stepped(), true),
    ] {
        store.config.block_cache_bytes = 1 << 20;
        let engine = store.open();
        fill(&engine);
        if crashes {
            store.crash(engine);
        } else {
            engine.close().unwrap();
            drop(engine);
        }
        let before = seen(&store.path());
        for _ in 0..2 {
            let engine = open_to_read(&store);
            read_everything(&engine);
            engine.flush().unwrap();
            for task in BackgroundTask::ALL {
                engine.step(task).unwrap();
            }
            engine.close().unwrap();
            drop(engine);
            assert_eq!(seen(&store.path()), before, "crashed: {crashes}");
            // Dropping the last handle closes the engine too.
            drop(open_to_read(&store));
            assert_eq!(seen(&store.path()), before, "crashed: {crashes}");
        }

        let engine = store.open();
        let expected = if crashes { 2 } else { 1 };
        assert_eq!(branches_after_a_change(&vb(&engine, 1)), expected);
        assert_eq!(vb(&engine, 1).get("a").unwrap().unwrap().value, "1");
        store.finish(engine);
    }
}

#[test]
fn a_read_only_engine_has_the_metrics_of_a_writable_one() {
    let store = TestStore::stepped();
    let engine = store.open();
    fill(&engine);
    let families = |engine: &Engine| -> Vec<String> {
        let families = engine.metrics_snapshot().unwrap().families;
        families.keys().map(ToString::to_string).collect()
    };
    let of_writer = families(&engine);
    assert!(of_writer.len() > 50, "{of_writer:?}");
    engine.close().unwrap();
    drop(engine);
    let engine = open_to_read(&store);
    drop(rows(&vb(&engine, 1)));
    assert_eq!(families(&engine), of_writer);
    let snapshot = engine.metrics_snapshot().unwrap();
    let opened = [("holder", DbSnapshotHolder::Slice.name())];
    let opened = snapshot.value_by(&names::DB_SNAPSHOTS_OPENED, &opened);
    assert_eq!(opened, Some(1.0));
    let state = [("state", "read_only")];
    let state = snapshot.value_by(&names::HEALTH_STATE, &state);
    assert_eq!(state, Some(1.0));
    engine.close().unwrap();
}

#[test]
fn whatever_would_change_the_store_is_refused_and_changes_nothing() {
    let store = TestStore::threaded();
    let engine = store.open();
    fill(&engine);
    store.crash(engine);
    let before = seen(&store.path());
    let engine = open_to_read(&store);
    let vb1 = vb(&engine, 1);
    let seqnos = vb1.seqnos().unwrap();

    let logged = Durability::Logged;
    let batch = [Change::set("x", "1"), Change::delete("a")];
    let refused: [(&str, Error); 15] = [
        ("set", vb1.set("x", "1").unwrap_err()),
        ("add", vb1.add("x", "1").unwrap_err()),
        ("replace", vb1.replace("a", "2").unwrap_err()),
        ("delete", vb1.delete("a").unwrap_err()),
        ("touch", vb1.touch("a", 4_000_000_000).unwrap_err()),
        (
            "write",
            vb1.write(Change::set("x", "1"), logged).unwrap_err(),
        ),
        (
            "in memory",
            vb1.write(Change::set("x", "1"), Durability::Memory)
                .unwrap_err(),
        ),
        (
            "write_nowait",
            vb1.write_nowait(Change::set("x", "1"), logged).unwrap_err(),
        ),
        ("set_nowait", vb1.set_nowait("x", "1").unwrap_err()),
        ("delete_nowait", vb1.delete_nowait("a").unwrap_err()),
        ("batch", vb1.batch(&batch, logged).unwrap_err()),
        (
            "batch_nowait",
            vb1.batch_nowait(&batch, logged).unwrap_err(),
        ),
        (
            "delete_vbucket",
            engine.delete_vbucket(vb1.id()).unwrap_err(),
        ),
        ("compact", engine.compact(vb1.id()).unwrap_err()),
        (
            "purge",
            purge_tombstones(&engine, vb1.id(), Seqno::new(4)).unwrap_err(),
        ),
    ];

    for (call, error) in &refused {
        assert!(matches!(error, Error::ReadOnly { .. }), "{call}: {error:?}");
        assert_eq!(error.kind(), ErrorKind::ReadOnly, "{call}");
        let said = "is refused: the store was opened with read_only; open it without \
                    read_only to write";
        assert!(error.to_string().ends_with(said), "{call}: {error}");
    }
    assert_eq!(
        refused[0].1.to_string().split(" is ").next(),
        Some("a change")
    );
    let HealthState::ReadOnly { cause } = engine.health() else {
        panic!("{:?}", engine.health());
    };
    assert_eq!(cause.to_string(), "the store was opened with read_only");
    assert_eq!(engine.health().name(), "read_only");
    assert_eq!(vb1.seqnos().unwrap(), seqnos);
    assert_eq!(engine.checkpoint_memory(), 0);
    // An invalid argument is reported as on a writable engine.
    let empty = vb1.set("", "1").unwrap_err();
    assert!(matches!(empty, Error::Invalid { field: "key", .. }));
    drop(vb1);
    read_everything(&engine);
    engine.close().unwrap();
    assert!(matches!(vb(&engine, 1).get("a"), Err(Error::Closed)));
    drop(engine);
    assert_eq!(seen(&store.path()), before);
}

/// Resumes from a position; returns the answer and the events up to the current high seqno.
fn resume(engine: &Engine, position: Position) -> (OpenOutcome, Vec<String>, Option<Position>) {
    let (streams, mut consumer) = stepped(engine);
    let opened = consumer.open(&StreamRequest::resume(VB, position)).unwrap();
    let events = drain(engine, &streams, &mut consumer);
    (opened, short(&events), consumer.position(VB))
}

#[test]
fn a_position_reached_while_reading_is_good_when_the_store_is_opened_to_write() {
    for crashes in [false, true] {
        let store = TestStore::stepped();
        let engine = store.open();
        fill(&engine);
        let seqnos = vb(&engine, 1).seqnos().unwrap();
        // A consumer that has followed a change which the crash loses.
        put(&vb(&engine, 1), "lost", "5");
        let further = Position {
            vb_uuid: seqnos.vb_uuid,
            seqno: Seqno::new(5),
            snap_start: Seqno::new(5),
            snap_end: Seqno::new(5),
            ..Position::default()
        };
        if crashes {
            store.crash(engine);
        } else {
            engine.close().unwrap();
            drop(engine);
        }

        let engine = open_to_read(&store);
        let read = vb(&engine, 1).seqnos().unwrap();
        let (opened, events, position) = resume(&engine, Position::default());
        assert_eq!(opened, OpenOutcome::Continue);
        let last = if crashes { "-gone@4" } else { "lost@5" };
        assert_eq!(events.last().unwrap(), last);
        let position = position.unwrap();
        assert!(position.is_complete());
        assert_eq!(
            (position.vb_uuid, position.seqno),
            (read.vb_uuid, read.high)
        );
        let of_further = resume(&engine, further).0;
        engine.close().unwrap();
        drop(engine);

        let engine = store.open();
        assert_eq!(vb(&engine, 1).seqnos().unwrap(), read);
        let expected = if crashes {
            let (to, reason) = (Seqno::new(4), RollbackReason::Diverged);
            OpenOutcome::Rollback { to, reason }
        } else {
            OpenOutcome::Continue
        };
        assert_eq!(resume(&engine, further).0, expected);
        assert_eq!(of_further, expected, "the same while it was only read");
        assert_eq!(resume(&engine, position).0, OpenOutcome::Continue);
        vb(&engine, 1).set("new", "6").unwrap();
        assert_eq!(
            vb(&engine, 1).failover_log().unwrap().entries().len(),
            1 + usize::from(crashes)
        );
        let (opened, events, _) = resume(&engine, position);
        assert_eq!(opened, OpenOutcome::Continue);
        let next = read.high.get() + 1;
        assert_eq!(events.last().unwrap(), &format!("new@{next}"));
        assert_eq!(events.len(), 2, "{events:?}");
        store.finish(engine);
    }
}

#[test]
fn a_copy_can_be_read_and_its_streams_are_refused_until_it_was_opened_to_write() {
    let store = TestStore::stepped();
    let engine = store.open();
    fill(&engine);
    engine.close().unwrap();
    drop(engine);
    let copy = store.path().with_file_name("copy");
    copy_dir(&store.path(), &copy);
    let before = seen(&copy);

    let engine = Engine::builder(&copy).read_only().open().unwrap();
    assert_eq!(vb(&engine, 1).get("a").unwrap().unwrap().value, "1");
    assert_eq!(rows(&vb(&engine, 1)).len(), 3);
    assert_verified(&engine);
    let (streams, mut consumer) = stepped(&engine);
    let refused = consumer.open(&StreamRequest::from_start(VB)).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused:?}");
    assert!(refused.to_string().contains("copied"), "{refused}");
    assert!(take(&mut consumer).is_empty());
    drop((consumer, streams));
    engine.close().unwrap();
    drop(engine);
    assert_eq!(seen(&copy), before);

    Engine::open(&copy).unwrap().close().unwrap();
    let engine = Engine::builder(&copy).read_only().open().unwrap();
    assert_eq!(vb(&engine, 1).failover_log().unwrap().entries().len(), 2);
    assert_eq!(
        resume(&engine, Position::default()).0,
        OpenOutcome::Continue
    );
    engine.close().unwrap();
    // The original was never a copy.
    let engine = open_to_read(&store);
    assert_eq!(
        resume(&engine, Position::default()).0,
        OpenOutcome::Continue
    );
    engine.close().unwrap();
}

#[test]
fn a_consumer_that_takes_nothing_is_not_ended_on_a_read_only_store() {
    let store = TestStore::stepped();
    let engine = store.open();
    for number in 0..500 {
        put(&vb(&engine, 1), &format!("k{number}"), "value");
    }
    engine.close().unwrap();
    drop(engine);
    for is_ended in [false, true] {
        let engine = if is_ended {
            store.open()
        } else {
            open_to_read(&store)
        };
        let config = StreamsConfig {
            stall_limit: Duration::from_secs(720),
            // Makes every disk count as short of space.
            disk_free_min_percent: 100,
            ..StreamsConfig::default()
        };
        let streams = Streams::stepped(&engine, &config).unwrap();
        let small = ConsumerConfig {
            buffer_bytes_max: 2_000,
            ..ConsumerConfig::default()
        };
        let mut consumer = streams.consumer("frozen", &small).unwrap();
        open(&mut consumer, &StreamRequest::from_start(VbId::new(1)));
        while streams.step() {}
        for _ in 0..8 {
            store
                .clock
                .as_ref()
                .unwrap()
                .advance(Duration::from_secs(180));
            assert!(!streams.step());
        }
        assert!(is_ended || consumer.stats()[0].is_stalled);
        let mut events = Vec::new();
        loop {
            events.extend(short(&take(&mut consumer)));
            if !streams.step() {
                break;
            }
        }
        let last = events.last().unwrap();
        assert_eq!(last == "end stalled", is_ended, "{events:?}");
        assert_eq!(last == "k499@500", !is_ended, "{events:?}");
        drop((consumer, streams));
        engine.close().unwrap();
    }
}
