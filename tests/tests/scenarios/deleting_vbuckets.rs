//! Deleting a vBucket: its old contents are never seen again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vbstore::failpoint::{Action, Latch, place};
use vbstore::metrics::names;
use vbstore::{
    BackgroundTask, Change, Counts, Durability, Engine, Error, ErrorKind, KeyRange, PageForm,
    VBucket, VbId,
};
use vbstore_engine::raw::forget_memory;
use vbstore_tests::{TestStore, put, rows, vb};

#[test]
fn nothing_of_a_deleted_vbucket_is_seen_again() {
    let store = TestStore::threaded();
    let engine = store.open();
    let vb0 = vb(&engine, 0);
    put(&vb(&engine, 1), "other", "stays");
    for round in 0..3 {
        for n in 0..50 {
            put(&vb0, &format!("k{n}"), &round.to_string());
        }
        engine.flush().unwrap();
    }
    engine.compact(VbId::new(0)).unwrap();
    put(&vb0, "memory", "only");
    let before = vb0.seqnos().unwrap();

    let uuid = engine.delete_vbucket(VbId::new(0)).unwrap();

    assert_ne!(uuid, before.vb_uuid);
    let seqnos = vb0.seqnos().unwrap();
    assert_eq!(
        (seqnos.high.get(), seqnos.synced.get(), seqnos.vb_uuid),
        (0, 0, uuid)
    );
    assert_eq!(vb0.counts().unwrap().counts, Counts::default());
    assert_eq!(vb0.get("k1").unwrap(), None);
    assert_eq!(vb0.get("memory").unwrap(), None);
    assert_eq!(rows(&vb0), []);
    let first = vb0.set("k7", "new life").unwrap();
    assert_eq!((first.seqno.get(), first.vb_uuid), (1, uuid));
    assert!(first.cas > vbstore::Cas::new(0));
    assert_eq!(
        rows(&vb0),
        [(1, "mutation", "k7".into(), "new life".into(), 0)]
    );
    drop(vb0);
    engine.close().unwrap();

    let engine = store.open();
    let vb0 = vb(&engine, 0);
    assert_eq!(
        rows(&vb0),
        [(1, "mutation", "k7".into(), "new life".into(), 0)]
    );
    assert_eq!(vb0.failover_log().unwrap().entries().len(), 1);
    assert_eq!(vb0.seqnos().unwrap().vb_uuid, uuid);
    assert_eq!(vb(&engine, 1).get("other").unwrap().unwrap().value, "stays");
    drop(vb0);
    store.finish(engine);
}

#[test]
fn an_empty_vbucket_can_be_deleted() {
    let store = TestStore::threaded();
    let engine = store.open();
    let first = engine.delete_vbucket(VbId::new(3)).unwrap();
    let second = engine.delete_vbucket(VbId::new(3)).unwrap();
    assert_ne!(first, second);
    store.finish(engine);
}

#[test]
fn waiting_for_a_change_of_a_deleted_vbucket_fails() {
    let store = TestStore::stepped();
    let engine = store.open();
    let ticket = vb(&engine, 0).set_nowait("k", "v").unwrap();
    engine.delete_vbucket(VbId::new(0)).unwrap();
    assert!(matches!(ticket.wait(), Err(Error::VbGone { vb }) if vb == VbId::new(0)));
    store.finish(engine);
}

#[test]
fn a_failed_deletion_leaves_everything() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let full = Error::DiskFull {
        detail: "planted".into(),
    };
    store
        .failpoints
        .once(place::DELETE_VBUCKET, Action::Fail(full));

    assert!(matches!(
        engine.delete_vbucket(VbId::new(0)),
        Err(Error::DiskFull { .. })
    ));

    assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "v");
    engine.flush().unwrap();
    vb(&engine, 0).set("k", "w").unwrap();
    store.finish(engine);
}

#[test]
fn deleting_while_others_write_and_read_leaves_the_store_in_order() {
    let store = TestStore::threaded();
    let engine = store.open();
    let deleted = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (vb, deleted) = (vb(&engine, 0), &deleted);
                scope.spawn(move || {
                    let mut n = 0;
                    while n < 3_000 || deleted.load(Ordering::Acquire) < 2 {
                        n += 1;
                        let key = format!("k{}", (n * 7 + writer) % 40);
                        let change = match n % 5 {
                            0 => Change::add(key, "added"),
                            1 => Change::replace(key, "replaced"),
                            2 => Change::delete(key),
                            3 => Change::touch(key, 0),
                            _ => Change::set(key, "set"),
                        };
                        match vb.write(change, Durability::Memory) {
                            Ok(_)
                            | Err(
                                Error::NotFound | Error::Exists { .. } | Error::VbGone { .. },
                            ) => {}
                            Err(error) => panic!("{error}"),
                        }
                        vb.get("k1").unwrap();
                    }
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            engine.delete_vbucket(VbId::new(0)).unwrap();
            deleted.fetch_add(1, Ordering::AcqRel);
        }
    });
    store.finish(engine);
}

#[test]
fn a_change_that_was_admitted_before_the_deletion_is_not_made_after_it() {
    let store = TestStore::threaded();
    let engine = store.open();
    put(&vb(&engine, 0), "k", "v");
    engine.flush().unwrap();
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::WRITE_ASSIGN, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        // This writer has read that the key exists, and holds its stripe.
        let writer = scope.spawn(|| {
            let change = Change::replace("k", "w");
            vb(&engine, 0).write(change, Durability::Memory)
        });
        let _held = gate.wait_for_arrival();
        engine.delete_vbucket(VbId::new(0)).unwrap();
        gate.open();
        let answer = writer.join().unwrap();
        assert!(matches!(answer, Err(Error::VbGone { .. })), "{answer:?}");
        // A handle names the number of a vBucket, so it stays valid.
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Conflict);
    });
    assert_eq!(vb(&engine, 0).seqnos().unwrap().high.get(), 0);
    assert_eq!(vb(&engine, 0).get("k").unwrap(), None);
    store.finish(engine);
}

#[test]
fn a_page_beside_a_deletion_is_of_one_life_and_finds_no_corruption() {
    for form in [PageForm::Documents, PageForm::Meta] {
        let store = TestStore::stepped();
        let engine = store.open();
        let vb0 = vb(&engine, 0);
        for n in 0..50 {
            put(&vb0, &format!("k{n}"), "old life");
        }
        engine.flush().unwrap();
        // A deletion removes files below level 0 at once, whatever view is open.
        engine.compact(vb0.id()).unwrap();
        forget_memory(&engine, true).unwrap();
        let gate = Arc::new(Latch::default());
        store
            .failpoints
            .once(place::PAGE_VIEW, Action::Wait(Arc::clone(&gate)));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| vb0.range(&KeyRange::all(), form));
            let held = gate.wait_for_arrival();
            engine.delete_vbucket(vb0.id()).unwrap();
            put(&vb0, "k7", "new life");
            drop(held);
            let page = reader.join().unwrap().unwrap();
            let keys: Vec<_> = page.entries.iter().map(|entry| &*entry.key).collect();
            assert_eq!(keys, [b"k7"], "{form:?}");
        });
        drop(vb0);
        store.finish(engine);
    }
}

/// Returns bytes that do not compress.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).unwrap()
    };
    (0..8_192).map(|_| byte()).collect()
}

fn live_mib(engine: &Engine) -> u64 {
    engine.disk_usage().unwrap().live_sst >> 20
}

#[test]
fn a_deletion_frees_its_space_by_itself() {
    let store = TestStore::stepped();
    let engine = store.open();
    let (deleted, stays) = (vb(&engine, 0), vb(&engine, 1));
    let fill = |vb: &VBucket, keys: std::ops::Range<u64>| {
        for n in keys {
            let change = Change::set(n.to_be_bytes(), noise(n));
            vb.write(change, Durability::Memory).unwrap();
        }
        engine.flush().unwrap();
    };
    fill(&deleted, 0..2_000);
    fill(&stays, 0..500);
    engine.compact(deleted.id()).unwrap();
    engine.compact(stays.id()).unwrap();
    // Changes in level 0, and changes that are in no file yet, must go as well.
    fill(&deleted, 2_000..4_000);
    assert!(live_mib(&engine) >= 18);

    engine.delete_vbucket(deleted.id()).unwrap();
    fill(&deleted, 0..3);
    engine.step(BackgroundTask::Compactor).unwrap();

    assert!(live_mib(&engine) <= 5, "{} MiB live", live_mib(&engine));
    for n in 0..500 {
        let document = stays.get(u64::to_be_bytes(n)).unwrap().unwrap();
        assert_eq!(document.value, noise(n));
    }
    assert_eq!(deleted.counts().unwrap().counts.items, 3);
    assert_eq!(rows(&deleted).len(), 3);
    store.finish(engine);
}

fn fill(engine: &Engine, keys: std::ops::Range<u64>) {
    for n in keys {
        let change = Change::set(n.to_be_bytes(), noise(n));
        vb(engine, 0).write(change, Durability::Memory).unwrap();
    }
    engine.flush().unwrap();
}

#[test]
fn a_deletion_leaves_files_of_level_0_to_the_compactor() {
    let store = TestStore::stepped();
    let engine = store.open();
    // The close flushes changes that are in no file to level 0.
    fill(&engine, 0..1_000);
    engine.close().unwrap();
    drop(engine);
    let engine = store.open();

    engine.delete_vbucket(VbId::new(0)).unwrap();

    let left = live_mib(&engine);
    assert!(left >= 7, "{left} MiB live after the deletion");
    engine.step(BackgroundTask::Compactor).unwrap();
    let left = live_mib(&engine);
    assert!(left <= 1, "{left} MiB live after the compaction");
    store.finish(engine);
}

#[test]
fn a_deletion_removes_whole_files_by_itself() {
    let store = TestStore::stepped();
    let engine = store.open();
    fill(&engine, 0..2_000);
    engine.compact(VbId::new(0)).unwrap();
    assert!(live_mib(&engine) >= 15, "{} MiB live", live_mib(&engine));

    engine.delete_vbucket(VbId::new(0)).unwrap();

    let left = live_mib(&engine);
    assert!(left <= 1, "{left} MiB live after the deletion");
    store.finish(engine);
}

/// Returns the seeks and steps of RocksDB's iterators so far, and the keys that they skipped.
fn iterated(engine: &Engine) -> f64 {
    let snapshot = engine.metrics_snapshot().unwrap();
    [
        &names::ROCKS_SEEKS,
        &names::ROCKS_NEXTS,
        &names::ROCKS_SKIPS,
    ]
    .map(|name| snapshot.value(name).unwrap())
    .iter()
    .sum()
}

#[test]
fn the_hundredth_deletion_of_a_vbucket_reads_no_more_than_the_first() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = vb(&engine, 0);
    let mut read = Vec::new();
    for round in 0..100 {
        for n in 0..20 {
            put(&first, &format!("{round}-{n}"), "v");
        }
        engine.flush().unwrap();
        engine.step(BackgroundTask::Compactor).unwrap();
        let before = iterated(&engine);
        engine.delete_vbucket(first.id()).unwrap();
        let deleted = iterated(&engine);
        assert_eq!(deleted, before, "deletion {round} looked for its end");
        assert!(first.get("0-0").unwrap().is_none());
        assert_eq!(rows(&first), []);
        let page = first.prefix("", PageForm::Meta).unwrap();
        assert!(page.entries.is_empty());
        read.push(iterated(&engine) - deleted);
    }
    assert!(read[0] > 0.0, "nothing was counted");
    assert_eq!(read[0], read[99], "{read:?}");
    store.finish(engine);
}
