//! A directory that cannot be written to: opening it for writing is refused, opening it read-only
//! works. Needs root to mount one; prints NOT RUN where that is not possible.
//!
//! It is the only test in its process. A process that another test starts has copies of all open
//! files for a moment, and a file system cannot be remounted read-only while a file is open for
//! writing.

use std::process::Command;
use std::sync::Arc;
use vbstore::failpoint::{Action, Failpoints, place};
use vbstore::{Config, Engine, Error, ErrorKind, Seqno, StreamRequest};
use vbstore_tests::following::{drain, open as open_stream, short, stepped};
use vbstore_tests::{assert_verified, branches_after_a_change, vb};

fn mount(args: &[&str], at: &std::path::Path) -> bool {
    Command::new("mount")
        .args(args)
        .arg(at)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Reads the contents of the stores of this file, also as a stream.
fn read_all(engine: &Engine) {
    assert_eq!(vb(engine, 0).get("k").unwrap().unwrap().value, "v");
    assert_verified(engine);
    let (streams, mut consumer) = stepped(engine);
    let request = StreamRequest::from_start(vb(engine, 0).id()).until(Seqno::new(1));
    open_stream(&mut consumer, &request);
    let events = drain(engine, &streams, &mut consumer);
    assert_eq!(short(&events), ["0..1 disk", "k@1", "end reached_end"]);
}

#[test]
fn a_read_only_directory_is_refused_to_write_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=64m", "none"], dir.path()) {
        println!("a_read_only_directory: NOT RUN, no tmpfs can be mounted");
        return;
    }
    let config = Config {
        vbuckets: Some(2),
        write_buffer_bytes: Some(1 << 20),
        ..Config::default()
    };
    let store = dir.path().join("store");
    let open = |path: &std::path::Path| Engine::builder(path).config(config.clone()).open();
    let engine = open(&store).unwrap();
    vb(&engine, 0).set("k", "v").unwrap();
    engine.close().unwrap();
    drop(engine);
    // A second store, whose last stop was unclean.
    let crashed = dir.path().join("crashed");
    let failpoints = Arc::new(Failpoints::default());
    let builder = Engine::builder(&crashed).config(config.clone());
    let engine = builder.failpoints(Arc::clone(&failpoints)).open().unwrap();
    vb(&engine, 0).set("k", "v").unwrap();
    let planted = Error::Busy { what: "planted" };
    failpoints.once(place::CLOSE, Action::Fail(planted));
    engine.close().unwrap_err();
    drop(engine);
    assert!(mount(&["-o", "remount,ro"], dir.path()));

    for path in [store.clone(), crashed.clone(), dir.path().join("new")] {
        let refused = open(&path).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Failed);
    }
    for path in [&store, &crashed] {
        let builder = Engine::builder(path).config(config.clone());
        let engine = builder.read_only().open().unwrap();
        read_all(&engine);
        engine.close().unwrap();
    }

    assert!(mount(&["-o", "remount,rw"], dir.path()));
    let engine = open(&store).unwrap();
    assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "v");
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        1,
        "the stop counts as unclean"
    );
    engine.close().unwrap();
    drop(engine);
    let engine = open(&crashed).unwrap();
    assert_eq!(branches_after_a_change(&vb(&engine, 0)), 2);
    engine.close().unwrap();
    drop(engine);
    drop(Command::new("umount").arg("-l").arg(dir.path()).output());
}
