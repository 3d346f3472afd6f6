//! Opening: what counts as a store, which process owns it, and how the last engine on it ended.

use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;
use vbstore::failpoint::{Action, place};
use vbstore::{Engine, Error, VbId};
use vbstore_tests::{TestStore, branches_after_a_change, put, vb};

#[test]
fn a_second_open_is_refused_by_every_alias_and_names_the_pid() {
    let store = TestStore::threaded();
    let engine = store.open();
    let alias = store.path().with_file_name("alias");
    symlink(store.path(), &alias).unwrap();
    let me = std::process::id();
    let refused = |error: Error| matches!(error, Error::Locked { pid: Some(pid) } if pid == me);

    assert!(refused(store.builder().open().unwrap_err()));
    assert!(refused(Engine::builder(&alias).open().unwrap_err()));
    let roundabout = store.path().join("..").join("store");
    assert!(refused(Engine::builder(roundabout).open().unwrap_err()));
    std::fs::remove_file(store.path().join("VBSTORE.lock")).unwrap();
    assert!(
        refused(store.builder().open().unwrap_err()),
        "after the lock file was unlinked"
    );
    store.finish(engine);
}

#[test]
fn another_process_holds_the_lock_and_is_named() {
    let store = TestStore::threaded();
    store.open().close().unwrap();
    let lock = store.path().join("VBSTORE.lock");
    // A shell that holds the lock as an engine does, and writes its pid into the lock file.
    let script = "exec 9<>\"$0\"; flock -n 9 || exit 7; echo $$ > \"$0\"; echo ready; read -r _";
    let mut holder = Command::new("sh")
        .args(["-c", script])
        .arg(&lock)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = holder.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "ready\n");

    let refused = store.builder().open().unwrap_err();

    assert!(
        matches!(refused, Error::Locked { pid: Some(pid) } if pid == holder.id()),
        "{refused}"
    );
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let engine = store.open();
    store.finish(engine);
}

#[test]
fn a_directory_with_other_files_is_refused_and_left_alone() {
    let store = TestStore::threaded();
    std::fs::create_dir(store.path()).unwrap();
    std::fs::write(store.path().join("notes.txt"), "mine").unwrap();

    let refused = store.builder().open().unwrap_err();

    assert!(
        matches!(refused, Error::Invalid { field: "path", .. }),
        "{refused}"
    );
    let names: Vec<_> = std::fs::read_dir(store.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["notes.txt"]);
}

#[test]
fn a_store_is_created_only_if_that_is_allowed() {
    let store = TestStore::threaded();
    assert!(matches!(
        store.builder().create(false).open(),
        Err(Error::NoStore { .. })
    ));
    assert!(!store.path().exists());
    store.open().close().unwrap();
    let engine = store.builder().create(false).open().unwrap();
    store.finish(engine);
}

#[test]
fn a_directory_that_cannot_be_looked_at_is_not_one_without_a_store() {
    let dir = tempfile::tempdir().unwrap();
    // Root may read any directory, so an overlong name makes the system refuse the path.
    let path = dir.path().join("x".repeat(300));
    let refused = Engine::builder(path).create(false).open();
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("store")] {
        let refused = Engine::builder(path).create(false).open();
        let is_invalid = matches!(refused, Err(Error::Invalid { field: "path", .. }));
        assert!(is_invalid, "{refused:?}");
    }
}

#[test]
fn files_are_the_owners_alone() {
    let store = TestStore::threaded();
    let engine = store.open();
    let mode = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(&store.path()), 0o700);
    assert_eq!(mode(&store.path().join("db")), 0o700);
    for file in ["VBSTORE", "VBSTORE.lock", "WITNESS"] {
        assert_eq!(mode(&store.path().join(file)), 0o600, "{file}");
    }
    store.finish(engine);
}

#[test]
fn the_number_of_vbuckets_is_the_stores() {
    let mut store = TestStore::threaded();
    store.open().close().unwrap();
    store.config.vbuckets = Some(8);
    let refused = store.builder().open().unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Invalid {
                field: "vbuckets",
                ..
            }
        ),
        "{refused}"
    );

    store.config.vbuckets = None;
    let engine = store.open();

    assert_eq!(engine.vbuckets(), 4);
    store.finish(engine);
}

#[test]
fn a_clean_stop_keeps_the_branch_and_an_unclean_one_begins_a_new_one() {
    let store = TestStore::threaded();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    let uuid = vb(&engine, 0).seqnos().unwrap().vb_uuid;
    engine.close().unwrap();

    let engine = store.open();
    assert_eq!(vb(&engine, 0).seqnos().unwrap().vb_uuid, uuid);
    store.crash(engine);

    let engine = store.open();
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2);
    let log = vb(&engine, 0).failover_log().unwrap();
    let entries: Vec<_> = log
        .entries()
        .iter()
        .map(|e| (e.uuid == uuid, e.seqno.get()))
        .collect();
    assert_eq!(entries, [(false, 1), (true, 0)]);
    assert_eq!(
        branches_after_a_change(&vb(&engine, 1)),
        2,
        "also where nothing was"
    );
    assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "v");
    store.finish(engine);
}

#[test]
fn changes_that_were_never_flushed_are_gone_after_a_crash_and_nothing_else() {
    let store = TestStore::stepped();
    let engine = store.open();
    vb(&engine, 0).set("synced", "v").unwrap();
    put(&vb(&engine, 0), "memory", "v");
    store.crash(engine);

    let engine = store.open();
    assert!(vb(&engine, 0).get("synced").unwrap().is_some());
    assert_eq!(vb(&engine, 0).get("memory").unwrap(), None);
    assert_eq!(vb(&engine, 0).seqnos().unwrap().high.get(), 1);
    store.finish(engine);
}

#[test]
fn a_creation_cut_short_at_any_place_begins_again() {
    for place in [place::CREATE_DB, place::CREATE_READY] {
        let store = TestStore::threaded();
        let planted = Error::Busy { what: "planted" };
        store.failpoints.once(place, Action::Fail(planted));
        assert!(
            matches!(store.builder().open(), Err(Error::Busy { .. })),
            "{place}"
        );
        assert!(store.path().join("VBSTORE").exists());

        let engine = store.open();

        vb(&engine, 0).set("k", "v").unwrap();
        store.finish(engine);
    }
}

#[test]
fn an_open_cut_short_before_the_new_branch_begins_it_the_next_time() {
    let store = TestStore::threaded();
    let engine = store.open();
    vb(&engine, 0).set("k", "v").unwrap();
    store.crash(engine);
    for _ in 0..3 {
        store.failpoints.once(
            place::OPEN_BRANCH,
            Action::Fail(Error::Busy { what: "planted" }),
        );
        assert!(store.builder().open().is_err());
    }

    let engine = store.open();

    // RocksDB has replaced files of its own in each opening, which does not make the store a copy.
    assert_eq!(vb(&engine, 0).failover_log().unwrap().entries().len(), 1);

    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2);
    store.finish(engine);
}

#[test]
fn deleted_vbuckets_and_reopening_often_keep_the_log_bounded() {
    let store = TestStore::threaded();
    for _ in 0..30 {
        let engine = store.open();
        branches_after_a_change(&vb(&engine, 0));
        store.crash(engine);
    }
    let engine = store.open();
    assert_eq!(vb(&engine, 0).failover_log().unwrap().entries().len(), 25);
    engine.delete_vbucket(VbId::new(0)).unwrap();
    assert_eq!(vb(&engine, 0).failover_log().unwrap().entries().len(), 1);
    store.finish(engine);
}

#[test]
fn a_path_without_a_store_gets_an_error_that_a_stranger_understands() {
    let store = TestStore::stepped();
    let missing = store.builder().create(false).open().unwrap_err();
    let said = format!("there is no store in {}", store.path().display());
    assert_eq!(missing.to_string(), said);

    let file = store.path().with_file_name("file");
    std::fs::write(&file, "text").unwrap();
    for path in [file.clone(), file.join("store")] {
        let refused = Engine::open(&path).unwrap_err();
        assert!(
            matches!(refused, Error::Invalid { field: "path", .. }),
            "{refused:?}"
        );
        let said = format!("the path {} is not a directory", path.display());
        assert_eq!(refused.to_string(), said);
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"text");

    let engine = store.open();
    let unknown = engine.vbucket(VbId::new(99)).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "no vBucket 99: the store has 4 (0 to 3)"
    );
    store.finish(engine);
}
