//! A directory that cannot be written to. Needs root to mount one; says so where it cannot run.
//!
//! Alone in its process: while another test starts a program, that has copies of all open files for a
//! moment, and a file system with a file that is open for writing cannot be made read-only.

use std::process::Command;
use vbstore::{Config, Engine, Error, ErrorKind};
use vbstore_tests::vb;

fn mount(args: &[&str], at: &std::path::Path) -> bool {
    Command::new("mount")
        .args(args)
        .arg(at)
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn a_read_only_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    if !mount(&["-t", "tmpfs", "-o", "size=64m", "none"], dir.path()) {
        println!("a_read_only_directory_is_refused: NOT RUN, no tmpfs can be mounted");
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
    assert!(mount(&["-o", "remount,ro"], dir.path()));

    for path in [store.clone(), dir.path().join("new")] {
        let refused = open(&path).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
        assert_eq!(refused.kind(), ErrorKind::Failed);
    }

    assert!(mount(&["-o", "remount,rw"], dir.path()));
    let engine = open(&store).unwrap();
    assert_eq!(vb(&engine, 0).get("k").unwrap().unwrap().value, "v");
    assert_eq!(
        vb(&engine, 0).failover_log().unwrap().entries().len(),
        1,
        "still a clean stop"
    );
    engine.close().unwrap();
    drop(engine);
    drop(Command::new("umount").arg("-l").arg(dir.path()).output());
}
