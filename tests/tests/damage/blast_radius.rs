//! An unreadable block fails the reads and writes that need it, and nothing else.

use rocksdb::{BottommostLevelCompaction, CompactOptions, DB, Options};
use std::path::PathBuf;
use std::sync::Arc;
use vbstore::failpoint::{Action, place};
use vbstore::metrics::names;
use vbstore::{
    BackgroundTask, Change, Counts, Durability, Engine, Error, HealthState, Seqno, StreamRequest,
    VbId,
};
use vbstore_core::record::VbState;
use vbstore_engine::raw::{
    FamilyOptions, StorageConfig, forget_memory, key_family, purge_tombstones, seqno_family,
    stop_compactions,
};
use vbstore_tests::following::{drain, open, short, stepped};
use vbstore_tests::metrics::by;
use vbstore_tests::{TestStore, put, vb};

const DAMAGED: VbId = VbId::new(0);
const KEYS: usize = 3_000;

fn key(n: usize) -> String {
    format!("key-{n:06}")
}

/// Returns a closed store with two full vBuckets, each family of them in one file.
fn in_files() -> TestStore {
    let store = TestStore::stepped();
    let engine = store.open();
    for number in [0, 1] {
        for n in 0..KEYS {
            put(&vb(&engine, number), &key(n), &"v".repeat(100));
        }
        engine.flush().unwrap();
        engine.compact(VbId::new(number)).unwrap();
    }
    engine.close().unwrap();
    drop(engine);
    // RocksDB rewrites such files by itself unless their sequence numbers are zero. They are
    // rewritten here, so that later only the engine reads the corrupt block.
    let config = StorageConfig {
        vbuckets: 4,
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 20,
        open_files_max: 100,
    };
    let options = FamilyOptions::new(config);
    let path = store.path().join("db");
    let db = DB::open_cf_descriptors(&options.database(), path, options.families()).unwrap();
    let mut force = CompactOptions::default();
    force.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    for id in [0, 1].map(VbId::new) {
        for family in [seqno_family(id), key_family(id)] {
            let family = db.cf_handle(&family).unwrap();
            db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &force);
        }
    }
    drop(db);
    store
}

/// Opens the store with RocksDB's compactions off: one that reads a corrupt block stops all writes,
/// which is not what these tests are about.
fn open_quietly(store: &TestStore) -> Engine {
    let engine = store.open();
    stop_compactions(&engine).unwrap();
    engine
}

fn file_of(store: &TestStore, family: &str) -> PathBuf {
    let db_path = store.path().join("db");
    let mut options = Options::default();
    options.set_track_and_verify_wals_in_manifest(true);
    let families = DB::list_cf(&options, &db_path).unwrap();
    let db = DB::open_cf_for_read_only(&options, &db_path, families, false).unwrap();
    let mut files = db.live_files().unwrap();
    files.retain(|file| file.column_family_name == family);
    let [file] = files.as_slice() else {
        panic!("{family} is not in one file");
    };
    db_path.join(file.name.trim_start_matches('/'))
}

/// Flips a bit in each of these bytes; positions are percent of the file.
fn corrupt(path: &PathBuf, percents: &[usize]) {
    let mut bytes = std::fs::read(path).unwrap();
    for percent in percents {
        let at = bytes.len() * percent / 100;
        bytes[at] ^= 0x40;
    }
    std::fs::write(path, bytes).unwrap();
}

fn assert_corrupt<T: std::fmt::Debug>(result: Result<T, Error>, number: u16) {
    match result {
        Err(Error::Corruption { vb, .. }) => assert_eq!(vb, Some(VbId::new(number))),
        other => panic!("{other:?}"),
    }
}

fn assert_failed<T: std::fmt::Debug>(result: Result<T, Error>, number: u16) {
    match result {
        Err(Error::VbFailed { vb, .. }) => assert_eq!(vb, VbId::new(number)),
        other => panic!("{other:?}"),
    }
}

/// Asserts that other vBuckets accept synced writes.
fn assert_others_write(engine: &Engine) {
    for number in 1..4 {
        vb(engine, number).set("other", "v").unwrap();
    }
    assert!(matches!(engine.health(), HealthState::Open));
}

#[test]
fn a_corrupt_index_block_refuses_writes_of_its_keys_and_nothing_else() {
    let store = in_files();
    let path = file_of(&store, &key_family(DAMAGED));
    corrupt(&path, &[33]);
    for _ in 0..2 {
        let engine = open_quietly(&store);
        let damaged = vb(&engine, 0);
        let (bad, good): (Vec<_>, Vec<_>) = (0..KEYS)
            .map(key)
            .partition(|key| damaged.get_meta(key).is_err());
        assert!(!bad.is_empty() && !good.is_empty());
        let high = damaged.seqnos().unwrap().high;
        for key in [&bad[0], &bad[bad.len() / 2], &bad[bad.len() - 1]] {
            for durability in [Durability::Memory, Durability::Logged, Durability::Synced] {
                assert_corrupt(damaged.write(Change::set(key, "new"), durability), 0);
            }
            assert_corrupt(damaged.set_nowait(key, "new").map(|_| ()), 0);
            assert_corrupt(damaged.delete(key), 0);
            assert_corrupt(damaged.touch(key, 0), 0);
            assert_corrupt(damaged.add(key, "new"), 0);
            let batch = [Change::set(&good[0], "new"), Change::set(key, "new")];
            assert_corrupt(damaged.batch(&batch, Durability::Synced), 0);
        }
        assert_eq!(damaged.seqnos().unwrap().high, high, "nothing was changed");
        assert_others_write(&engine);
        damaged.set(&good[0], "new").unwrap();
        damaged.set("a new key", "new").unwrap();
        engine.close().unwrap();
    }
}

#[test]
fn a_document_that_only_a_touch_reads_refuses_the_touch() {
    let store = in_files();
    corrupt(&file_of(&store, &seqno_family(DAMAGED)), &[10, 50, 90]);
    let engine = open_quietly(&store);
    let damaged = vb(&engine, 0);
    let bad: Vec<_> = (0..KEYS)
        .map(key)
        .filter(|key| damaged.get(key).is_err())
        .collect();
    assert!(!bad.is_empty());
    for key in &bad {
        assert_corrupt(damaged.touch(key, 0), 0);
    }
    // The document is not needed to replace it.
    damaged.set(&bad[0], "new").unwrap();
    assert_eq!(damaged.get(&bad[0]).unwrap().unwrap().value, "new");
    assert_others_write(&engine);
    engine.close().unwrap();
}

fn out_of_memory() -> Action {
    let source = Arc::new(std::io::Error::from(std::io::ErrorKind::OutOfMemory));
    Action::Fail(Error::Io {
        context: "read an index entry".into(),
        source,
    })
}

#[test]
fn a_read_that_fails_refuses_the_write_that_needs_it_once_or_for_ever() {
    let store = TestStore::stepped();
    let engine = store.open();
    let first = vb(&engine, 0);
    put(&first, "in memory", "v");
    for times in [1, u64::MAX] {
        let action = out_of_memory();
        store.failpoints.nth(place::WRITE_LOOK_UP, 0, times, action);
        let high = first.seqnos().unwrap().high;
        assert!(matches!(first.set("new", "v"), Err(Error::Io { .. })));
        assert_eq!(first.seqnos().unwrap().high, high);
        assert!(matches!(engine.health(), HealthState::Open));
        // A key that is in memory needs no read.
        first.set("in memory", "w").unwrap();
    }
    let snapshot = engine.metrics_snapshot().unwrap();
    assert_eq!(by(&snapshot, &names::WRITES_REJECTED, "unreadable"), 2.0);
    store.failpoints.clear(place::WRITE_LOOK_UP);
    first.set("new", "v").unwrap();
    store.finish(engine);
}

/// Corrupts the counts on disk, so that no document of the vBucket can be replaced.
fn corrupt_counts(store: &TestStore, ids: &[VbId]) {
    let db_path = store.path().join("db");
    let options = Options::default();
    let families = DB::list_cf(&options, &db_path).unwrap();
    let db = DB::open_cf(&options, &db_path, families).unwrap();
    for id in ids {
        let at = VbState::storage_key(*id);
        let mut state = VbState::decode(*id, &db.get(&at).unwrap().unwrap()).unwrap();
        state.counts = Counts::default();
        let mut record = Vec::new();
        state.encode(*id, &mut record);
        db.put(&at, record).unwrap();
    }
}

#[test]
fn vbuckets_that_cannot_be_flushed_are_left_out_and_all_others_are_written() {
    let store = TestStore::stepped();
    let engine = store.open();
    for number in 0..4 {
        put(&vb(&engine, number), "key", "v");
    }
    engine.close().unwrap();
    drop(engine);
    let failing = [VbId::new(0), VbId::new(2)];
    corrupt_counts(&store, &failing);

    let engine = store.open();
    let (streams, mut consumer) = stepped(&engine);
    open(&mut consumer, &StreamRequest::from_start(failing[0]));
    assert_eq!(
        short(&drain(&engine, &streams, &mut consumer)),
        ["0..1 disk", "key@1"]
    );
    // Acknowledged before the flush finds the fault.
    for number in 0..4 {
        put(&vb(&engine, number), "key", "new");
    }
    let ticket = vb(&engine, 2).set_nowait("other", "v").unwrap();
    let flushed = engine.flush();

    assert_failed(flushed, 0);
    assert_failed(ticket.wait().map(|_| ()), 2);
    for number in [1, 3] {
        let seqnos = vb(&engine, number).seqnos().unwrap();
        assert_eq!((seqnos.high, seqnos.synced), (Seqno::new(2), Seqno::new(2)));
        vb(&engine, number).set("more", "v").unwrap();
    }
    for number in [0, 2] {
        let failed = vb(&engine, number);
        assert_eq!(failed.seqnos().unwrap().synced, Seqno::new(1));
        // Reads still return the change, and further writes are refused with the cause.
        assert_eq!(failed.get("key").unwrap().unwrap().value, "new");
        for durability in [Durability::Memory, Durability::Synced] {
            assert_failed(failed.write(Change::set("more", "v"), durability), number);
        }
    }
    assert!(matches!(engine.health(), HealthState::Open));
    assert_eq!(
        short(&drain(&engine, &streams, &mut consumer)),
        ["end error"]
    );
    // The deletion removes everything, the inconsistent counts included.
    engine.delete_vbucket(failing[0]).unwrap();
    vb(&engine, 0).set("key", "again").unwrap();
    assert_failed(engine.flush(), 2);
    drop((consumer, streams));
    assert_failed(engine.close(), 2);
    drop(engine);

    let engine = store.open();
    assert_eq!(vb(&engine, 0).get("key").unwrap().unwrap().value, "again");
    assert_eq!(vb(&engine, 1).get("key").unwrap().unwrap().value, "new");
    assert_eq!(vb(&engine, 2).get("key").unwrap().unwrap().value, "v");
    vb(&engine, 2).set("a new key", "v").unwrap();
    engine.close().unwrap();
}

#[test]
fn a_write_at_the_quota_goes_on_beside_vbuckets_that_cannot_be_flushed() {
    let mut store = TestStore::stepped();
    let engine = store.open();
    put(&vb(&engine, 0), "key", "v");
    engine.close().unwrap();
    drop(engine);
    corrupt_counts(&store, &[VbId::new(0)]);
    store.config.tuning.memory_quota = 1 << 20;
    // One value fills a flush.
    store.config.tuning.flush_bytes_max = 64 << 10;
    let engine = store.open();
    let write = |number, key: &str, size: usize| {
        let change = Change::set(key, vec![7; size]);
        vb(&engine, number).write(change, Durability::Memory)
    };
    write(0, "key", 100 << 10).unwrap();
    write(1, "large", 500 << 10).unwrap();

    // The first flush leaves out everything that it took; the second has something to write.
    write(1, "larger", 600 << 10).unwrap();

    assert_failed(engine.flush(), 0);
    assert!(vb(&engine, 1).get("large").unwrap().is_some());
    engine.close().unwrap_err();
}

#[test]
fn a_look_up_that_fails_in_a_flush_concerns_its_vbucket_alone() {
    let store = TestStore::stepped();
    let engine = store.open();
    for number in [0, 1] {
        let vb = vb(&engine, number);
        put(&vb, "gone", "v");
        vb.delete("gone").unwrap();
        put(&vb, "last", "v");
    }
    engine.flush().unwrap();
    forget_memory(&engine, true).unwrap();
    for number in [0, 1] {
        put(&vb(&engine, number), "gone", "back");
        // The flush has to look up on disk what this change replaces.
        assert_eq!(
            purge_tombstones(&engine, VbId::new(number), Seqno::new(2)).unwrap(),
            1
        );
    }
    store.failpoints.once(place::FLUSH_LOOK_UP, out_of_memory());

    assert_failed(engine.flush(), 0);

    assert_failed(vb(&engine, 0).set("more", "v"), 0);
    let snapshot = engine.metrics_snapshot().unwrap();
    assert_eq!(by(&snapshot, &names::WRITES_REJECTED, "vb_failed"), 1.0);
    assert_eq!(vb(&engine, 1).seqnos().unwrap().synced, Seqno::new(4));
    assert_others_write(&engine);
    engine.close().unwrap_err();
}

#[test]
fn a_vbucket_with_corrupt_blocks_can_be_deleted() {
    let store = in_files();
    corrupt(&file_of(&store, &seqno_family(DAMAGED)), &[5, 50]);
    corrupt(&file_of(&store, &key_family(DAMAGED)), &[5, 50]);
    let engine = open_quietly(&store);
    engine.delete_vbucket(DAMAGED).unwrap();
    assert!(vb(&engine, 0).get(key(0)).unwrap().is_none());
    vb(&engine, 0).set(key(1), "v").unwrap();
    assert_others_write(&engine);
    engine.close().unwrap();
}

#[test]
fn a_flush_that_leaves_everything_out_does_not_find_space_on_a_full_disk() {
    let store = TestStore::stepped();
    let engine = store.open();
    let vb0 = vb(&engine, 0);
    put(&vb0, "gone", "v");
    vb0.delete("gone").unwrap();
    put(&vb0, "last", "v");
    engine.flush().unwrap();
    forget_memory(&engine, true).unwrap();
    put(&vb0, "gone", "back");
    purge_tombstones(&engine, VbId::new(0), Seqno::new(2)).unwrap();
    let full = Error::DiskFull {
        detail: "planted".into(),
    };
    store
        .failpoints
        .once(place::FLUSH_WRITE, Action::Fail(full));
    assert!(matches!(engine.flush(), Err(Error::DiskFull { .. })));
    store.failpoints.once(place::FLUSH_LOOK_UP, out_of_memory());

    engine.step(BackgroundTask::Flusher).unwrap();

    let health = engine.health();
    assert!(matches!(health, HealthState::Degraded { .. }), "{health:?}");
    engine.step(BackgroundTask::Flusher).unwrap();
    assert!(matches!(engine.health(), HealthState::Open));
    drop(vb0);
    engine.close().unwrap_err();
}
