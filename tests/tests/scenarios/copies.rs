//! Copies of a store made of hard links, and files in it that are not the store's.

use std::path::Path;
use vbstore::Engine;
use vbstore_tests::{TestStore, assert_verified, vb};

/// Copies a closed store by hard links.
fn link_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            link_dir(&entry.path(), &target);
        } else {
            std::fs::hard_link(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_copy_of_hard_links_and_the_original_stay_apart() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("before", "1").unwrap();
    engine.close().unwrap();
    drop(engine);
    let copy_path = store.path().with_file_name("copy");
    link_dir(&store.path(), &copy_path);

    // Both open at once, and each goes its own way.
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
    let log = vb(&engine, 0).failover_log().unwrap();
    assert_eq!(log.entries().len(), 1, "taken for an unclean stop");
    store.finish(engine);
}
