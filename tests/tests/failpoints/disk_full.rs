//! A full disk: a small tmpfs is filled during a log write, a flush, a compaction and a write of
//! the witness. Needs root to mount it; prints NOT RUN where that is not possible.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use vbstore::failpoint::{Action, Failpoints, place};
use vbstore::{
    Change, Clock, Config, Durability, Engine, Error, HealthState, Seqno, StreamRequest,
    SystemClock, Tuning, VbId, WriteReceipt,
};
use vbstore_tests::following::{drain, open as open_stream, short, stepped};
use vbstore_tests::{assert_verified, branches_after_a_change, vb};

// RocksDB accepts writes again once the free space reaches the size of its largest memtable: 32
// MiB, or less if the configuration allows less memory. It also preallocates that much for its log.
// The disks here have that much more space than the tests write.

/// An engine heals by itself within this time, or never. RocksDB checks the free space every 5 s
/// (3.0 to 5.5 s were measured); the limit is long so that a slow machine passes.
const HEALS_WITHIN: Duration = Duration::from_secs(120);

struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn new(test: &str, size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "none"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { dir }),
            other => {
                println!("{test}: NOT RUN, no tmpfs can be mounted: {other:?}");
                None
            }
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }

    /// Takes all free space except this many bytes.
    fn fill(&self, left: u64) {
        let size = self.free().saturating_sub(left);
        let file = std::fs::File::create(self.ballast()).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size.max(1)).unwrap();
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.dir.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    fn release(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(
            Command::new("umount")
                .arg("-l")
                .arg(self.dir.path())
                .output(),
        );
    }
}

fn config(write_buffer_bytes: u64) -> Config {
    Config {
        vbuckets: Some(2),
        block_cache_bytes: 4 << 20,
        write_buffer_bytes: Some(write_buffer_bytes),
        tuning: Tuning {
            memory_quota: 64 << 20,
            ..Tuning::default()
        },
        ..Config::default()
    }
}

/// How long a disk must refuse every write to count as full for good: RocksDB may free some space
/// by removing obsolete files, and then heals for a while.
const FULL_FOR_GOOD: Duration = Duration::from_secs(7);

/// Writes until the disk is full for good; returns the acknowledged writes.
fn write_until_full(engine: &Engine, len: usize) -> Vec<(String, WriteReceipt)> {
    let clock = SystemClock::new();
    let mut acknowledged = Vec::new();
    let mut last = clock.monotonic();
    loop {
        let key = format!("key-{:06}", acknowledged.len());
        // Not compressible, so that a value takes its whole length on disk.
        let value: Vec<u8> = (0..len).map(|_| rand::random::<u8>()).collect();
        match vb(engine, 0).write(Change::set(&key, value), Durability::Synced) {
            Ok(written) => {
                acknowledged.push((key, written));
                last = clock.monotonic();
            }
            Err(Error::DiskFull { .. }) if clock.monotonic() - last > FULL_FOR_GOOD => {
                return acknowledged;
            }
            Err(Error::DiskFull { .. }) => std::thread::park_timeout(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
        assert!(acknowledged.len() < 100_000, "the disk never filled");
    }
}

/// Frees the disk, waits until a write is accepted and checks everything, also after reopening.
fn heals(
    disk: &SmallDisk,
    engine: Engine,
    acknowledged: &[(String, WriteReceipt)],
    config: Config,
) {
    assert!(matches!(engine.health(), HealthState::Degraded { .. }));
    let first = acknowledged.first().map(|(key, _)| key.clone());
    if let Some(key) = first {
        assert!(vb(&engine, 0).get(key).unwrap().is_some(), "reads go on");
    }
    disk.release();
    let clock = SystemClock::new();
    loop {
        match vb(&engine, 1).set("after", "1") {
            Ok(_) => break,
            Err(Error::DiskFull { .. }) => std::thread::park_timeout(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
        assert!(
            clock.monotonic() < HEALS_WITHIN,
            "not healed after {:?} with {} bytes free: {:?}",
            clock.monotonic(),
            disk.free(),
            engine.health()
        );
    }
    println!("healed after {:?}", clock.monotonic());
    let check = |engine: &Engine| {
        for (key, written) in acknowledged {
            let meta = vb(engine, 0).get_meta(key).unwrap().unwrap();
            assert_eq!(meta.seqno, written.seqno);
            assert!(vb(engine, 0).get(key).unwrap().is_some());
        }
        assert_verified(engine);
    };
    check(&engine);
    engine.close().unwrap();
    drop(engine);
    let engine = Engine::builder(disk.store()).config(config).open().unwrap();
    check(&engine);
    engine.close().unwrap();
}

#[test]
fn in_a_write_of_the_log() {
    let Some(disk) = SmallDisk::new("in_a_write_of_the_log", "160m") else {
        return;
    };
    // Memory for more than the disk holds, so that nothing is flushed to files before it is full.
    let config = config(256 << 20);
    let engine = Engine::builder(disk.store())
        .config(config.clone())
        .open()
        .unwrap();
    vb(&engine, 0).set("first", "1").unwrap();
    disk.fill(1 << 20);
    let acknowledged = write_until_full(&engine, 20_000);
    assert!(!acknowledged.is_empty());
    heals(&disk, engine, &acknowledged, config);
}

#[test]
fn in_a_flush_to_a_file() {
    let Some(disk) = SmallDisk::new("in_a_flush_to_a_file", "96m") else {
        return;
    };
    let config = config(4 << 20);
    let engine = Engine::builder(disk.store())
        .config(config.clone())
        .open()
        .unwrap();
    // Space for the log of a few memtables but not for the files they become.
    disk.fill(6 << 20);
    let acknowledged = write_until_full(&engine, 50_000);
    heals(&disk, engine, &acknowledged, config);
}

#[test]
fn in_a_compaction() {
    let Some(disk) = SmallDisk::new("in_a_compaction", "256m") else {
        return;
    };
    let config = config(64 << 20);
    let engine = Engine::builder(disk.store())
        .config(config.clone())
        .open()
        .unwrap();
    let mut acknowledged = Vec::new();
    for n in 0..300 {
        let key = format!("kept-{n:04}");
        let value: Vec<u8> = (0..50_000).map(|_| rand::random::<u8>()).collect();
        let change = Change::set(&key, value);
        acknowledged.push((
            key,
            vb(&engine, 0).write(change, Durability::Synced).unwrap(),
        ));
    }
    engine.compact(VbId::new(0)).unwrap();
    disk.fill(4 << 20);
    // A compaction needs a second copy of the vBucket's data. It may fail.
    drop(engine.compact(VbId::new(0)));
    acknowledged.extend(write_until_full(&engine, 50_000));
    heals(&disk, engine, &acknowledged, config);
}

#[test]
fn in_the_witness_and_in_the_creation_of_a_store() {
    let Some(disk) = SmallDisk::new("in_the_witness", "16m") else {
        return;
    };
    // The witness gets its full size when the store is created and is only overwritten later, so a
    // disk with no free byte still takes its records.
    disk.fill(0);
    let refused = Engine::builder(disk.store()).config(config(4 << 20)).open();
    assert!(
        matches!(refused, Err(Error::DiskFull { .. })),
        "{refused:?}"
    );
    disk.release();
    let engine = Engine::builder(disk.store())
        .config(config(4 << 20))
        .open()
        .unwrap();
    vb(&engine, 0).set("first", "1").unwrap();
    disk.fill(0);
    // The log has some preallocated space, so a few writes may succeed, each with its witness.
    let acknowledged = write_until_full(&engine, 100);
    heals(&disk, engine, &acknowledged, config(4 << 20));
}

#[test]
fn an_open_that_finds_no_space_leaves_a_clean_store_clean() {
    let Some(disk) = SmallDisk::new("a clean store on a full disk", "96m") else {
        return;
    };
    let config = config(1 << 20);
    let open = || Engine::builder(disk.store()).config(config.clone()).open();
    let engine = open().unwrap();
    vb(&engine, 0).set("k", "v").unwrap();
    engine.close().unwrap();
    drop(engine);
    // First no space even for a witness; then enough for it and for some of RocksDB's files.
    let mut refused = 0;
    for left in [0, 8 << 10, 16 << 10, 32 << 10, 64 << 10] {
        disk.fill(left);
        match open() {
            Err(Error::DiskFull { .. }) => refused += 1,
            Err(other) => panic!("{left} bytes free: {other:?}"),
            Ok(engine) => drop(engine.close()),
        }
        disk.release();
    }
    assert!(refused >= 2, "refused {refused} times");
    let engine = open().unwrap();
    assert_eq!(
        branches_after_a_change(&vb(&engine, 0)),
        1,
        "the stop counts as unclean"
    );
    assert!(vb(&engine, 0).get("k").unwrap().is_some());
    assert_verified(&engine);
    engine.close().unwrap();
}

#[test]
fn on_a_full_disk_a_store_can_be_opened_to_read_and_is_whole_when_there_is_space_again() {
    for crashes in [false, true] {
        let Some(disk) = SmallDisk::new("a store read on a full disk", "96m") else {
            return;
        };
        let config = config(1 << 20);
        let failpoints = Arc::new(Failpoints::default());
        let builder = || {
            Engine::builder(disk.store())
                .config(config.clone())
                .failpoints(Arc::clone(&failpoints))
        };
        let engine = builder().open().unwrap();
        for number in 0..100 {
            vb(&engine, 1).set(format!("k{number}"), "v").unwrap();
        }
        if crashes {
            let planted = Error::Busy { what: "planted" };
            failpoints.once(place::CLOSE, Action::Fail(planted));
            engine.close().unwrap_err();
        } else {
            engine.close().unwrap();
        }
        drop(engine);
        // Each attempt to open for writing may leave files behind, up to where it fails.
        let mut refused = 0;
        for left in [0, 16 << 10, 64 << 10, 0] {
            disk.fill(left);
            match builder().open() {
                Err(Error::DiskFull { .. }) => refused += 1,
                Err(other) => panic!("{left} bytes free: {other:?}"),
                // With enough space it is an ordinary open, and the following stop a clean one.
                Ok(engine) => drop(engine.close()),
            }
            let engine = builder().read_only().open().unwrap();
            assert_eq!(vb(&engine, 1).get("k7").unwrap().unwrap().value, "v");
            assert_verified(&engine);
            let write = vb(&engine, 1).set("more", "v");
            assert!(matches!(write, Err(Error::ReadOnly { .. })), "{write:?}");
            let (streams, mut consumer) = stepped(&engine);
            let request = StreamRequest::from_start(VbId::new(1)).until(Seqno::new(100));
            open_stream(&mut consumer, &request);
            let events = short(&drain(&engine, &streams, &mut consumer));
            assert_eq!(events.len(), 102);
            assert_eq!(events[101], "end reached_end");
            drop((consumer, streams));
            engine.close().unwrap();
            drop(engine);
            disk.release();
        }
        assert!(refused >= 2, "refused {refused} times");
        let engine = builder().open().unwrap();
        let high = vb(&engine, 1).seqnos().unwrap().high;
        assert_eq!(high.get(), 100);
        assert_eq!(
            branches_after_a_change(&vb(&engine, 1)),
            1 + usize::from(crashes)
        );
        assert_verified(&engine);
        engine.close().unwrap();
    }
}
