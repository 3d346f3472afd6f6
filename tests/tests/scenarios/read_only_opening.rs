//! Opening a store read-only: what is refused, which engines may have it open at once, and what was
//! lost.

use crate::read_only::{fill, open_to_read, read_everything, seen};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use vbstore::failpoint::{Action, place};
use vbstore::{Change, Durability, Engine, Error, ErrorKind};
use vbstore_tests::{TestStore, copy_dir, vb};

#[test]
fn settings_that_write_do_not_go_with_it() {
    let store = TestStore::threaded();
    store.open().close().unwrap();
    let before = seen(&store.path());
    for (wanted, builder) in [
        ("create", store.builder().create(true).read_only()),
        ("new_branch", store.builder().read_only().new_branch()),
        (
            "accept_data_loss",
            store.builder().read_only().accept_data_loss(),
        ),
    ] {
        let refused = builder.open().unwrap_err();
        let Error::Invalid { field, .. } = &refused else {
            panic!("{wanted}: {refused:?}");
        };
        assert_eq!(*field, wanted);
        assert!(refused.to_string().contains("read_only"), "{refused}");
    }
    let mut other = store.config.clone();
    other.vbuckets = Some(8);
    let refused = store
        .builder()
        .config(other)
        .read_only()
        .open()
        .unwrap_err();
    assert!(
        matches!(
            refused,
            Error::Invalid {
                field: "vbuckets",
                ..
            }
        ),
        "{refused:?}"
    );
    assert_eq!(seen(&store.path()), before);
    let engine = store.builder().create(false).read_only().open().unwrap();
    engine.close().unwrap();
}

#[test]
fn nothing_is_made_where_there_is_no_store() {
    let store = TestStore::threaded();
    let parent = store.path().parent().unwrap().to_owned();
    let no_store = |path: &Path| {
        let refused = Engine::builder(path).read_only().open().unwrap_err();
        let path_said = matches!(&refused, Error::NoStore { path: said } if said == path);
        assert!(path_said, "{refused:?}");
    };
    no_store(&store.path());
    assert!(!store.path().exists());
    let (empty, foreign, file) = (
        parent.join("empty"),
        parent.join("foreign"),
        parent.join("file"),
    );
    std::fs::create_dir(&empty).unwrap();
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("notes.txt"), "mine").unwrap();
    std::fs::write(&file, "mine").unwrap();
    // A creation that was cut short leaves no store.
    let planted = Error::Busy { what: "planted" };
    store
        .failpoints
        .once(place::CREATE_READY, Action::Fail(planted));
    store.builder().open().unwrap_err();

    let before = seen(&parent);
    for path in [&empty, &foreign, &store.path()] {
        no_store(path);
    }
    for path in [file.clone(), file.join("store")] {
        let refused = Engine::builder(path).read_only().open().unwrap_err();
        let is_invalid = matches!(refused, Error::Invalid { field: "path", .. });
        assert!(is_invalid, "{refused:?}");
    }
    assert_eq!(seen(&parent), before);
}

/// A shell that holds the lock as an engine of another process does; `options` are those of
/// `flock`.
struct OtherProcess {
    child: Child,
    _said: BufReader<std::process::ChildStdout>,
}

impl OtherProcess {
    fn lock(store: &TestStore, options: &str) -> Self {
        let lock = store.path().join("VBSTORE.lock");
        let script =
            format!("exec 9<\"$0\"; flock -n {options} 9 || exit 7; echo ready; read -r _ || true");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .arg(lock)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, _said: said }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn any_number_may_read_and_none_of_them_beside_one_that_writes() {
    let store = TestStore::threaded();
    let engine = store.open();
    fill(&engine);
    let me = std::process::id();
    let is_mine = |error: Error| matches!(error, Error::Locked { pid: Some(pid) } if pid == me);
    assert!(is_mine(store.builder().read_only().open().unwrap_err()));
    engine.close().unwrap();
    drop(engine);

    // In this process.
    let (first, second) = (open_to_read(&store), open_to_read(&store));
    assert!(is_mine(store.builder().open().unwrap_err()));
    first.close().unwrap();
    assert!(is_mine(store.builder().open().unwrap_err()));
    read_everything(&second);
    // In another process.
    let exclusive = Command::new("flock")
        .args(["-n", "-x"])
        .arg(store.path().join("VBSTORE.lock"))
        .arg("true")
        .status()
        .unwrap();
    assert!(!exclusive.success(), "the lock is not held any more");
    let reader = OtherProcess::lock(&store, "-s");
    let third = open_to_read(&store);
    third.close().unwrap();
    second.close().unwrap();
    let refused = store.builder().open().unwrap_err();
    // The file holds the pid of the engine that wrote last, which is this process.
    assert!(
        matches!(refused, Error::Locked { pid: None }),
        "{refused:?}"
    );
    reader.end();
    let writer = OtherProcess::lock(&store, "-x");
    assert!(is_mine(store.builder().read_only().open().unwrap_err()));
    writer.end();
    drop((first, second, third));

    let engine = store.open();
    store.finish(engine);
}

#[test]
fn a_store_without_its_lock_file_says_what_to_do() {
    let store = TestStore::threaded();
    store.open().close().unwrap();
    std::fs::remove_file(store.path().join("VBSTORE.lock")).unwrap();
    let before = seen(&store.path());
    let refused = store.builder().read_only().open().unwrap_err();
    assert!(
        matches!(
            &refused,
            Error::Invalid {
                field: "read_only",
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("VBSTORE.lock"), "{refused}");
    assert_eq!(seen(&store.path()), before);
    store.open().close().unwrap();
    open_to_read(&store).close().unwrap();
}

#[test]
fn a_log_that_cannot_be_synced_refuses_the_open() {
    let store = TestStore::threaded();
    let engine = store.open();
    vb(&engine, 1)
        .write(Change::set("k", "v"), Durability::Logged)
        .unwrap();
    store.crash(engine);
    let before = seen(&store.path());
    let hits = store.failpoints.hits(place::OPEN_SYNC);
    let planted = Error::Busy { what: "planted" };
    store
        .failpoints
        .once(place::OPEN_SYNC, Action::Fail(planted));
    let refused = store.builder().read_only().open().unwrap_err();
    assert!(matches!(refused, Error::Busy { .. }), "{refused:?}");
    assert_eq!(store.failpoints.hits(place::OPEN_SYNC), hits + 1);
    assert_eq!(seen(&store.path()), before);
    // No lock is left.
    let engine = store.open();
    assert_eq!(vb(&engine, 1).get("k").unwrap().unwrap().value, "v");
    store.finish(engine);
}

#[test]
fn what_was_lost_or_is_damaged_is_said_as_in_an_open_to_write() {
    let store = TestStore::stepped();
    let engine = store.open();
    fill(&engine);
    store.crash(engine);
    let undamaged = store.path().with_file_name("undamaged");
    copy_dir(&store.path(), &undamaged);
    let refused = |damage: &dyn Fn(&Path), is_right: &dyn Fn(&Error) -> bool| {
        std::fs::remove_dir_all(store.path()).unwrap();
        copy_dir(&undamaged, &store.path());
        damage(&store.path());
        let before = seen(&store.path());
        let refused = store.builder().read_only().open().unwrap_err();
        assert!(is_right(&refused), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
        assert_eq!(seen(&store.path()), before);
    };
    let cut_log = |dir: &Path| {
        for entry in std::fs::read_dir(dir.join("db")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "log") {
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len().min(200))
                    .unwrap();
            }
        }
    };
    refused(
        &cut_log,
        &|error| matches!(error, Error::DataLoss { expected, found } if found < expected),
    );
    let names = |error: &Error, name: &str| matches!(error, Error::Corruption { file: Some(file), .. } if file == name);
    let corrupt = |name: &'static str| {
        move |dir: &Path| std::fs::write(dir.join(name), "nothing of ours").unwrap()
    };
    refused(&corrupt("WITNESS"), &|error| names(error, "WITNESS"));
    refused(&corrupt("VBSTORE"), &|error| names(error, "VBSTORE"));
    refused(&corrupt("db/CURRENT"), &|error| {
        matches!(error, Error::Corruption { .. })
    });
}
