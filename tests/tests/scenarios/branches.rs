//! Branches of history: when they begin, and what they protect.

use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Latch, place};
use vbstore::metrics::names;
use vbstore::{BackgroundTask, Cas, Change, Durability, Engine, Error, ItemKind, VBucket, VbId};
use vbstore_engine::raw;
use vbstore_tests::{TestStore, branches_after_a_change, copy_dir, put, vb};

fn branches(vb: &VBucket) -> usize {
    vb.failover_log().unwrap().entries().len()
}

/// Returns the seqnos at which the branches began, newest first.
fn seqnos(vb: &VBucket) -> Vec<u64> {
    let log = vb.failover_log().unwrap();
    log.entries().iter().map(|e| e.seqno.get()).collect()
}

/// Returns how often RocksDB has synced its log.
fn log_syncs(engine: &Engine) -> f64 {
    let snapshot = engine.metrics_snapshot().unwrap();
    snapshot.value(&names::ROCKS_LOG_SYNCS).unwrap()
}

fn crashed(store: &TestStore, engine: Engine) -> Engine {
    store.crash(engine);
    store.open()
}

#[test]
fn an_unchanged_vbucket_keeps_its_branch_however_often_the_store_stops() {
    let store = TestStore::stepped();
    let mut engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let log = vb(&engine, 0).failover_log().unwrap();
    for _ in 0..27 {
        engine = crashed(&store, engine);
        vb(&engine, 1).set("k", "v").unwrap();
    }
    assert_eq!(vb(&engine, 0).failover_log().unwrap(), log);
    assert_eq!(branches(&vb(&engine, 1)), 25);
    // The first change begins one branch, however many stops came before it.
    vb(&engine, 0).set("k", "w").unwrap();
    assert_eq!(seqnos(&vb(&engine, 0)), [1, 0]);
    store.finish(engine);
}

#[test]
fn a_branch_that_is_due_stays_so_over_clean_closes_until_it_begins() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let mut engine = crashed(&store, engine);
    for _ in 0..3 {
        engine.close().unwrap();
        drop(engine);
        engine = store.open();
        assert_eq!(branches(&vb(&engine, 0)), 1);
    }
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2);
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2, "once");
    engine.close().unwrap();
    drop(engine);
    let engine = store.open();
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        2,
        "after a clean close"
    );
    store.finish(engine);
}

#[test]
fn a_branch_is_synced_before_its_first_change_though_that_is_in_memory_only() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let engine = crashed(&store, engine);
    let syncs = log_syncs(&engine);
    let written = put(&vb(&engine, 0), "lost", "v");
    // Counts syncs: only a power cut would show that the branch is not synced.
    assert_eq!(log_syncs(&engine), syncs + 1.0);
    put(&vb(&engine, 0), "lost", "w");
    assert_eq!(
        log_syncs(&engine),
        syncs + 1.0,
        "for the first change alone"
    );
    assert_eq!(
        vb(&engine, 0).failover_log().unwrap().entries()[0].uuid,
        written.vb_uuid
    );

    let engine = crashed(&store, engine);

    assert_eq!(vb(&engine, 0).get("lost").unwrap(), None);
    assert_eq!(vb(&engine, 0).seqnos().unwrap().vb_uuid, written.vb_uuid);
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 3);
    assert_eq!(seqnos(&vb(&engine, 0)), [1, 1, 0]);
    store.finish(engine);
}

#[test]
fn a_write_that_is_refused_begins_no_branch() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let engine = crashed(&store, engine);
    let vb0 = vb(&engine, 0);
    assert!(matches!(vb0.add("k", "w"), Err(Error::Exists { .. })));
    assert!(matches!(vb0.delete("missing"), Err(Error::NotFound)));
    let mismatch = Change::set("k", "w").cas(Cas::new(7));
    assert!(vb0.write(mismatch, Durability::Memory).is_err());
    assert!(vb0.set("", "w").is_err());
    assert_eq!(branches(&vb0), 1);
    assert_eq!(store.failpoints.hits(place::BRANCH_WRITE), 0);
    drop(vb0);
    store.finish(engine);
}

#[test]
fn every_kind_of_change_begins_the_branch() {
    let changes = [
        Change::set("k", "w"),
        Change::touch("k", 0),
        Change::delete("k"),
        Change::replace("k", "w"),
        Change::add("new", "w"),
    ];
    for change in changes {
        let store = TestStore::stepped();
        let engine = store.open();
        vb(&engine, 0).set("k", "v").unwrap();
        let engine = crashed(&store, engine);
        let what = format!("{change:?}");
        vb(&engine, 0).write(change, Durability::Logged).unwrap();
        assert_eq!(seqnos(&vb(&engine, 0)), [1, 0], "{what}");
        store.finish(engine);
    }
}

#[test]
fn writers_that_wait_for_branches_at_once_share_a_sync() {
    let mut store = TestStore::threaded();
    store.config.vbuckets = Some(16);
    let engine = crashed(&store, store.open());
    let gate = Arc::new(Latch::default());
    store
        .failpoints
        .once(place::BRANCH_WRITE, Action::Wait(Arc::clone(&gate)));
    std::thread::scope(|scope| {
        let write = |number| {
            let vb = vb(&engine, number);
            move || put(&vb, "k", "v")
        };
        scope.spawn(write(0));
        let arrival = gate.wait_for_arrival();
        for number in 1..16 {
            scope.spawn(write(number));
        }
        while raw::waiting_for_branch(&engine) < 15 {
            std::thread::yield_now();
        }
        drop(arrival);
    });
    assert_eq!(store.failpoints.hits(place::BRANCH_WRITE), 2);
    for number in 0..16 {
        assert_eq!(seqnos(&vb(&engine, number)), [0, 0]);
    }
    store.finish(engine);
}

#[test]
fn a_branch_that_cannot_be_written_refuses_the_change_and_begins_later() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let engine = crashed(&store, engine);
    let full = Error::DiskFull {
        detail: "planted".into(),
    };
    store
        .failpoints
        .once(place::BRANCH_WRITE, Action::Fail(full));
    let vb0 = vb(&engine, 0);

    assert!(matches!(vb0.set("k", "w"), Err(Error::DiskFull { .. })));

    assert_eq!(branches(&vb0), 1);
    assert_eq!(vb0.get("k").unwrap().unwrap().value, "v");
    engine.step(BackgroundTask::Flusher).unwrap();
    vb0.set("k", "w").unwrap();
    assert_eq!(seqnos(&vb0), [1, 0]);
    drop(vb0);
    store.finish(engine);
}

#[test]
fn deleting_a_vbucket_makes_its_branch_no_longer_due() {
    let store = TestStore::stepped();
    let engine = store.open();
    put(&vb(&engine, 0), "lost", "v");
    let engine = crashed(&store, engine);
    engine.delete_vbucket(VbId::new(0)).unwrap();
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 1);
    engine.close().unwrap();
    drop(engine);
    let engine = store.open();
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        1,
        "after a clean close"
    );
    let engine = crashed(&store, engine);
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2);
    store.finish(engine);
}

#[test]
fn no_cas_of_a_lost_write_is_reused_though_the_clock_went_back() {
    for (name, between) in [
        ("at once", 0),
        ("after a clean close", 1),
        ("after a deletion of the vBucket", 2),
        ("after clean closes and a deletion", 3),
    ] {
        let store = TestStore::stepped();
        let clock = Arc::clone(store.clock.as_ref().unwrap());
        let engine = store.open();
        vb(&engine, 0).set("k", "v").unwrap();
        // Beyond the CAS that was reserved when the store was created.
        clock.advance(Duration::from_secs(7_200));
        let mut lost = put(&vb(&engine, 0), "k", "lost").cas;
        assert_eq!(lost.get(), vbstore::Clock::wall_micros(&*clock), "{name}");
        for _ in 0..1_000 {
            lost = put(&vb(&engine, 0), "k", "lost").cas;
        }
        clock.set_wall_micros(1_000);
        let mut engine = crashed(&store, engine);
        if between & 1 == 1 {
            for _ in 0..2 {
                engine.close().unwrap();
                drop(engine);
                engine = store.open();
            }
        }
        if between & 2 == 2 {
            engine.delete_vbucket(VbId::new(0)).unwrap();
        }
        let other = put(&vb(&engine, 0), "k", "another").cas;
        assert!(other > lost, "{name}: {other} after {lost}");
        let next = put(&vb(&engine, 0), "k", "another").cas;
        assert_eq!(next.get(), other.get() + 1, "{name}");
        store.finish(engine);
    }
}

#[test]
fn no_cas_of_a_lost_write_is_reused_above_one_that_was_restored() {
    let store = TestStore::stepped();
    let engine = store.open();
    // Far above the clock, so that each following CAS is one more than the previous one.
    let restored = Change::restore(ItemKind::Mutation, "k", "v", Cas::RESTORED_MAX);
    vb(&engine, 0).write(restored, Durability::Synced).unwrap();
    let mut lost = Cas::RESTORED_MAX;
    for n in 1..=1_000 {
        lost = put(&vb(&engine, 0), "k", "lost").cas;
        assert_eq!(lost.get(), Cas::RESTORED_MAX.get() + n);
    }
    let engine = crashed(&store, engine);
    let other = put(&vb(&engine, 0), "k", "another").cas;
    assert!(other > lost, "{other} after {lost}");
    store.finish(engine);
}

#[test]
fn no_cas_that_is_missing_in_a_copy_is_reused_though_the_clock_went_back() {
    for is_copy in [true, false] {
        let store = TestStore::stepped();
        let clock = Arc::clone(store.clock.as_ref().unwrap());
        let engine = store.open();
        vb(&engine, 0).set("k", "v").unwrap();
        engine.close().unwrap();
        drop(engine);
        let kept = store.path().with_file_name("kept");
        copy_dir(&store.path(), &kept);
        let engine = store.open();
        // Within the CAS that was reserved when the copy was made.
        clock.advance(Duration::from_secs(3_500));
        let lost = put(&vb(&engine, 0), "k", "lost").cas;
        assert_eq!(lost.get(), vbstore::Clock::wall_micros(&*clock));
        clock.set_wall_micros(1_000);
        let engine = if is_copy {
            engine.close().unwrap();
            drop(engine);
            std::fs::remove_dir_all(store.path()).unwrap();
            std::fs::rename(&kept, store.path()).unwrap();
            store.open()
        } else {
            // The engine cannot see this loss. Only the caller knows of it, and asks for new
            // branches.
            store.crash(engine);
            store.builder().new_branch().open().unwrap()
        };
        assert_eq!(branches(&vb(&engine, 0)), 2, "is_copy: {is_copy}");
        let other = put(&vb(&engine, 0), "k", "another").cas;
        assert!(other > lost, "is_copy {is_copy}: {other} after {lost}");
        store.finish(engine);
    }
}

#[test]
fn a_clock_that_runs_ahead_of_its_reservation_costs_one_sync() {
    let store = TestStore::stepped();
    let engine = store.open();
    let clock = store.clock.as_ref().unwrap();
    put(&vb(&engine, 0), "k", "v");
    assert_eq!(store.failpoints.hits(place::BRANCH_WRITE), 0);
    clock.advance(Duration::from_secs(3_601));
    for number in 0..4 {
        let cas = put(&vb(&engine, number), "k", "v").cas;
        assert_eq!(cas.get(), vbstore::Clock::wall_micros(&**clock));
    }
    assert_eq!(store.failpoints.hits(place::BRANCH_WRITE), 1);
    assert_eq!(branches(&vb(&engine, 0)), 1);
    store.finish(engine);
}

#[test]
fn a_branch_that_is_on_disk_has_begun_though_what_follows_it_found_the_disk_full() {
    for place in [place::BRANCH_PUBLISH, place::FLUSH_WITNESS] {
        let store = TestStore::stepped();
        let engine = store.open();
        vb(&engine, 0).set("k", "v").unwrap();
        let engine = crashed(&store, engine);
        let full = Error::DiskFull {
            detail: "planted".into(),
        };
        store.failpoints.once(place, Action::Fail(full));
        let refused = vb(&engine, 0).set("k", "w");
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{place}");
        // The flusher finds free space again, by writing something.
        engine.step(BackgroundTask::Flusher).unwrap();
        engine.close().unwrap();
        drop(engine);

        let engine = store.open();

        assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "v");
        assert_eq!(seqnos(&vb(&engine, 0)), [1, 0], "{place}");
        assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2, "{place}");
        store.finish(engine);
    }
}

#[test]
fn a_clock_off_the_scale_is_reserved_once() {
    for micros in [(1 << 62) + 1, u64::MAX] {
        let store = TestStore::stepped();
        let clock = Arc::clone(store.clock.as_ref().unwrap());
        let engine = store.open();
        put(&vb(&engine, 0), "k", "v");
        clock.set_wall_micros(micros);
        let endless = Error::Busy {
            what: "a planted end of what would not end",
        };
        store
            .failpoints
            .nth(place::BRANCH_WRITE, 1, 1, Action::Fail(endless));
        for n in 0..3 {
            assert_eq!(put(&vb(&engine, 0), "k", "v").cas.get(), (1 << 62) + n);
        }
        engine.close().unwrap();
        drop(engine);
        let engine = store.open();
        assert_eq!(put(&vb(&engine, 0), "k", "v").cas.get(), (1 << 62) + 3);
        assert_eq!(store.failpoints.hits(place::BRANCH_WRITE), 1);
        store.finish(engine);
    }
}
