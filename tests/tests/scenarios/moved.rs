//! A store is a directory, not a path: it may be moved, replaced or removed while it is open.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use vbstore::{BackgroundTask, Clock, Engine, Error, HealthState, SystemClock};
use vbstore_tests::{TestStore, assert_verified, vb};

/// Returns the names, inodes, lengths and times of all files, to tell whether one was touched.
fn files(dir: &Path) -> Vec<(String, u64, u64, i64, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let of = path.metadata().unwrap();
        if of.is_dir() {
            found.extend(files(&path));
        } else {
            let name = path.to_string_lossy().into_owned();
            found.push((name, of.ino(), of.len(), of.mtime(), of.mtime_nsec()));
        }
    }
    found.sort();
    found
}

fn assert_failed(engine: &Engine, why: &str) {
    let HealthState::Failed { cause } = engine.health() else {
        panic!("{:?}", engine.health());
    };
    assert!(cause.to_string().contains(why), "{cause}");
    let refused = vb(engine, 0).set("refused", "1");
    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
}

#[test]
fn a_store_that_was_replaced_while_open_leaves_the_other_one_alone() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("mine", "1").unwrap();
    let elsewhere = store.path().with_file_name("elsewhere");
    std::fs::rename(store.path(), &elsewhere).unwrap();
    let replacement = Engine::builder(store.path())
        .config(store.config.clone())
        .open()
        .unwrap();
    vb(&replacement, 0).set("theirs", "1").unwrap();
    replacement.close().unwrap();
    drop(replacement);
    let before = files(&store.path());
    // Changes written before the engine notices go to the directory that was opened.
    vb(&engine, 0).set("after", "1").unwrap();

    let noticed = engine.step(BackgroundTask::DirectoryWatcher);

    assert!(matches!(noticed, Err(Error::Failed { .. })), "{noticed:?}");
    assert_failed(&engine, "moved or replaced while the store was open");
    let closed = engine.close();
    assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
    drop(engine);
    assert_eq!(files(&store.path()), before, "the other store was touched");
    let theirs = store.open();
    assert!(vb(&theirs, 0).get("theirs").unwrap().is_some());
    assert!(vb(&theirs, 0).get("mine").unwrap().is_none());
    let mine = Engine::builder(&elsewhere).create(false).open().unwrap();
    for key in ["mine", "after"] {
        assert!(vb(&mine, 0).get(key).unwrap().is_some(), "{key}");
    }
    assert_verified(&mine);
    mine.close().unwrap();
    store.finish(theirs);
}

#[test]
fn a_store_that_was_replaced_is_noticed_at_the_close_at_the_latest() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("mine", "1").unwrap();
    let elsewhere = store.path().with_file_name("elsewhere");
    std::fs::rename(store.path(), &elsewhere).unwrap();
    let tables = || {
        let files = std::fs::read_dir(elsewhere.join("db")).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|e| e == "sst"))
            .count()
    };
    let before = tables();
    let closed = engine.close();
    assert!(matches!(closed, Err(Error::Failed { .. })), "{closed:?}");
    assert_eq!(tables(), before, "RocksDB's memory was moved to files");
    assert!(!store.path().exists());
}

#[test]
fn a_store_that_was_removed_while_open_is_noticed_by_itself() {
    let store = TestStore::threaded();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    std::fs::remove_dir_all(store.path()).unwrap();
    let clock = SystemClock::new();
    while !matches!(engine.health(), HealthState::Failed { .. }) {
        // The engine checks once a second; the limit is long so that a slow machine passes.
        assert!(clock.monotonic() < Duration::from_secs(60), "not noticed");
        std::thread::yield_now();
    }
    // The error depends on when the engine checks: while the files are being removed, or
    // afterwards.
    let path = std::fs::canonicalize(store.path().parent().unwrap()).unwrap();
    let path = path.join("store");
    let causes = ["emptied", "moved or removed"].map(|what| {
        let path = path.display();
        format!("the directory {path} was {what} while the store was open")
    });
    let HealthState::Failed { cause } = engine.health() else {
        panic!("{:?}", engine.health());
    };
    assert!(causes.contains(&cause.to_string()), "{cause}");
    drop(engine);
    assert!(!store.path().exists(), "something was made there again");
}

#[test]
fn a_store_whose_files_were_removed_is_noticed() {
    let store = TestStore::stepped();
    let engine = store.open();
    for entry in std::fs::read_dir(store.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    let noticed = engine.step(BackgroundTask::DirectoryWatcher);
    assert!(noticed.is_err());
    assert_failed(&engine, "emptied while the store was open");
}

#[test]
fn a_store_that_was_moved_is_noticed_by_a_compaction() {
    let store = TestStore::stepped();
    let engine = store.open();
    std::fs::rename(store.path(), store.path().with_file_name("elsewhere")).unwrap();

    let refused = engine.compact(vb(&engine, 0).id());

    assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    assert_failed(&engine, "moved or removed while the store was open");
    engine.close().unwrap_err();
}

#[test]
fn a_store_that_was_moved_is_noticed_before_rocksdbs_memory_is_moved_to_files() {
    for task in [BackgroundTask::Pacer, BackgroundTask::Compactor] {
        let mut store = TestStore::stepped();
        store.config.write_buffer_bytes = Some(1 << 20);
        let engine = store.open();
        // More than fits into the log without a flush to files, and a vBucket to compact.
        for n in 0..16 {
            let value = vec![n; 100_000];
            vb(&engine, 0).set([n], value).unwrap();
        }
        engine.delete_vbucket(vb(&engine, 1).id()).unwrap();
        let elsewhere = store.path().with_file_name("elsewhere");
        std::fs::rename(store.path(), elsewhere).unwrap();

        let noticed = engine.step(task);

        assert!(
            matches!(noticed, Err(Error::Failed { .. })),
            "{task:?}: {noticed:?}"
        );
        assert_failed(&engine, "moved or removed while the store was open");
        engine.close().unwrap_err();
    }
}

#[test]
fn a_store_that_was_opened_by_a_link_is_where_the_link_led() {
    let store = TestStore::stepped();
    let [link, other] = ["link", "other"].map(|name| store.path().with_file_name(name));
    let replacement = Engine::builder(&other)
        .config(store.config.clone())
        .open()
        .unwrap();
    replacement.close().unwrap();
    drop(replacement);
    store.open().close().unwrap();
    std::os::unix::fs::symlink(store.path(), &link).unwrap();
    let engine = Engine::builder(&link)
        .config(store.config.clone())
        .background(false)
        .open()
        .unwrap();
    let before = files(&other);

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&other, &link).unwrap();

    vb(&engine, 0).set("mine", "1").unwrap();
    engine.step(BackgroundTask::DirectoryWatcher).unwrap();
    engine.close().unwrap();
    drop(engine);
    assert_eq!(files(&other), before, "the other store was touched");
    let engine = store.open();
    assert!(vb(&engine, 0).get("mine").unwrap().is_some());
    store.finish(engine);
}
