//! Copies of a store: each must begin its own branches, so that no consumer of the original
//! mistakes it for the original.

use std::path::Path;
use std::process::Command;
use vbstore::failpoint::{Action, place};
use vbstore::{
    ConsumerConfig, Engine, Error, OpenOutcome, Position, RollbackReason, Seqno, StreamRequest,
    Streams, StreamsConfig, VbId,
};
use vbstore_tests::{TestStore, assert_verified, branches_after_a_change, vb, vbs};

const VB: VbId = VbId::new(0);

fn sh(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success(), "{script}");
}

/// Returns how many branches each vBucket has.
fn branches(engine: &Engine) -> Vec<usize> {
    let of = |vb: &vbstore::VBucket| vb.failover_log().unwrap().entries().len();
    vbs(engine).iter().map(of).collect()
}

fn open_at(store: &TestStore, name: &str) -> Engine {
    let path = store.path().with_file_name(name);
    Engine::builder(path)
        .config(store.config.clone())
        .create(false)
        .open()
        .unwrap()
}

/// Writes keys `from..to` and closes.
fn write(engine: Engine, from: u32, to: u32) -> Position {
    for n in from..to {
        vb(&engine, 0).set(format!("k{n}"), "v").unwrap();
    }
    let seqnos = vb(&engine, 0).seqnos().unwrap();
    engine.close().unwrap();
    Position {
        vb_uuid: seqnos.vb_uuid,
        seqno: seqnos.high,
        snap_start: seqnos.high,
        snap_end: seqnos.high,
        ..Position::default()
    }
}

fn answer(engine: &Engine, position: Position) -> OpenOutcome {
    let streams = Streams::start(engine, &StreamsConfig::default()).unwrap();
    let mut consumer = streams.consumer("c", &ConsumerConfig::default()).unwrap();
    let request = StreamRequest::resume(VB, position).until(Seqno::new(position.seqno.get() + 1));
    consumer.open(&request).unwrap()
}

#[test]
fn a_store_that_was_copied_begins_new_branches_at_once_and_only_then() {
    for (copy, expected) in [
        ("cp -r store copy", 2),
        ("cp -a store copy", 2),
        ("mkdir copy; tar -cf - -C store . | tar -xf - -C copy", 2),
        ("cp -al store copy", 2),
        ("cp -al store copy; rm -r store", 2),
        ("cp -a store x; rm -r store; mv x copy", 2),
        // The same store at another path, and then back at its own.
        ("mv store copy", 1),
        ("mkdir d; mv store d/x; mv d/x copy", 1),
        ("mv store x; mv x store; mv store copy", 1),
    ] {
        let store = TestStore::threaded();
        let parent = store.path().parent().unwrap().to_owned();
        let position = write(store.open(), 0, 20);
        sh(&parent, copy);
        let engine = open_at(&store, "copy");
        assert_eq!(branches(&engine), [expected; 4], "{copy}");
        let seqno = vb(&engine, 0).failover_log().unwrap().entries()[0].seqno;
        assert_eq!(seqno.get(), if expected == 2 { 20 } else { 0 }, "{copy}");
        assert_eq!(
            answer(&engine, position),
            OpenOutcome::Continue,
            "common history"
        );
        engine.close().unwrap();
        drop(engine);
        let engine = open_at(&store, "copy");
        assert_eq!(branches(&engine), [expected; 4], "{copy}: opened again");
        engine.close().unwrap();
        drop(engine);
        if store.path().exists() {
            let engine = store.open();
            assert_eq!(branches(&engine), [1; 4], "{copy}: the original");
            engine.close().unwrap();
        }
    }
}

#[test]
fn a_consumer_that_was_further_than_a_copy_that_is_put_back_must_go_back() {
    for restore in [
        "rm -r store; mv backup store",
        "rm -r store; cp -a backup store",
        "rm -r store; cp -r backup store",
        // Over the existing files, which keep their inodes.
        "cp -a backup/. store/",
        "rm -r store/db; cp -a backup/db store/; cat backup/WITNESS > store/WITNESS",
        // As rsync does: files that differ are replaced by new ones, the others are left alone.
        "cd backup; find . -type f | while read f; do cmp -s $f ../store/$f || \
         { cp -a $f ../store/$f.tmp; mv ../store/$f.tmp ../store/$f; }; done; \
         cd ../store; find . -type f | while read f; do [ -e ../backup/$f ] || rm $f; done",
    ] {
        let store = TestStore::threaded();
        let parent = store.path().parent().unwrap().to_owned();
        write(store.open(), 0, 20);
        sh(&parent, "cp -a store backup");
        let position = write(store.open(), 20, 30);
        assert_eq!(position.seqno.get(), 30);
        sh(&parent, restore);
        let engine = store.open();
        let to = Seqno::new(20);
        let reason = RollbackReason::Diverged;
        assert_eq!(
            answer(&engine, position),
            OpenOutcome::Rollback { to, reason },
            "{restore}"
        );
        for n in 0..50 {
            vb(&engine, 0).set(format!("after{n}"), "v").unwrap();
        }
        assert_eq!(
            answer(&engine, position),
            OpenOutcome::Rollback { to, reason },
            "{restore}"
        );
        store.finish(engine);
    }
}

#[test]
fn a_copy_of_a_store_that_stopped_uncleanly_or_is_open_begins_new_branches() {
    let store = TestStore::stepped();
    let parent = store.path().parent().unwrap().to_owned();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    sh(&parent, "cp -a store while-open");
    store.crash(engine);
    sh(&parent, "cp -a store unclean; cp -al store linked");
    for name in ["while-open", "unclean", "linked"] {
        let engine = open_at(&store, name);
        assert_eq!(branches(&engine), [2; 4], "{name}");
        assert!(vb(&engine, 0).get("k").unwrap().is_some());
        vb(&engine, 0).set("k", "w").unwrap();
        assert_eq!(branches(&engine), [2; 4], "{name}: none is due");
        engine.close().unwrap();
    }
}

#[test]
fn a_copy_whose_open_is_cut_short_begins_its_branches_once_it_is_opened() {
    let store = TestStore::threaded();
    let parent = store.path().parent().unwrap().to_owned();
    write(store.open(), 0, 20);
    sh(&parent, "cp -a store x; rm -r store; mv x store");
    for _ in 0..2 {
        store.failpoints.once(
            place::OPEN_BRANCH,
            Action::Fail(Error::Busy { what: "planted" }),
        );
        assert!(store.builder().open().is_err());
    }
    let engine = store.open();
    assert_eq!(branches(&engine), [2; 4]);
    store.finish(engine);
}

#[test]
fn new_branches_begin_when_they_are_asked_for() {
    let store = TestStore::threaded();
    let position = write(store.open(), 0, 20);
    let engine = store.builder().new_branch().open().unwrap();
    assert_eq!(branches(&engine), [2; 4]);
    assert_eq!(answer(&engine, position), OpenOutcome::Continue);
    let engine_log = vb(&engine, 0).failover_log().unwrap();
    engine.close().unwrap();
    drop(engine);
    let engine = store.open();
    assert_eq!(
        vb(&engine, 0).failover_log().unwrap(),
        engine_log,
        "not asked for again"
    );
    store.finish(engine);
}

#[test]
fn a_copy_of_hard_links_and_the_original_stay_apart() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("before", "1").unwrap();
    engine.close().unwrap();
    drop(engine);
    let copy_path = store.path().with_file_name("copy");
    sh(store.path().parent().unwrap(), "cp -al store copy");

    // Both are open at once and diverge.
    let original = store.open();
    let copy = Engine::open(&copy_path).unwrap();
    for number in 0..20 {
        vb(&original, 0)
            .set(format!("original-{number}"), "1")
            .unwrap();
    }
    vb(&copy, 0).set("copy", "1").unwrap();
    original.close().unwrap();
    copy.close().unwrap();
    drop((original, copy));

    let copy = Engine::open(&copy_path).unwrap();
    assert!(vb(&copy, 0).get("before").unwrap().is_some());
    assert!(vb(&copy, 0).get("copy").unwrap().is_some());
    assert!(vb(&copy, 0).get("original-0").unwrap().is_none());
    assert_verified(&copy);
    copy.close().unwrap();
    let original = store.open();
    assert!(vb(&original, 0).get("copy").unwrap().is_none());
    assert!(vb(&original, 0).get("original-19").unwrap().is_some());
    store.finish(original);
}

#[test]
fn a_file_that_is_not_rocksdbs_makes_no_store_unclean() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    engine.close().unwrap();
    drop(engine);
    for name in ["notes.txt", "000001.sst.bak", "core.1"] {
        std::fs::write(store.path().join("db").join(name), "not RocksDB's").unwrap();
    }
    let engine = store.open();
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        1,
        "the stop counts as unclean"
    );
    store.finish(engine);
}
