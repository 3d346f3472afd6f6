//! Shared by the tests: a store in its own directory, and the checks that end every test.

#![allow(clippy::missing_panics_doc, clippy::must_use_candidate)]

pub mod following;
pub mod golden;
pub mod journal;
pub mod metrics;
pub mod model;
pub mod replica;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use vbstore::failpoint::{Action, Failpoints, place};
use vbstore::{
    Builder, Change, Config, Durability, Engine, Error, ManualClock, SeqnoRange, SliceBudget,
    SliceEnd, VBucket, VbId, WriteReceipt,
};

/// A store in its own directory, with failpoints; [`TestStore::finish`] checks it at the end of a
/// test.
pub struct TestStore {
    dir: tempfile::TempDir,
    pub failpoints: Arc<Failpoints>,
    pub clock: Option<Arc<ManualClock>>,
    pub config: Config,
    pub background: bool,
}

impl TestStore {
    /// Returns a store of four vBuckets without threads: nothing runs unless the test steps it.
    pub fn stepped() -> Self {
        let clock = Some(Arc::new(ManualClock::new()));
        Self {
            clock,
            background: false,
            ..Self::threaded()
        }
    }

    /// Returns a store of four vBuckets with its threads.
    pub fn threaded() -> Self {
        let config = Config {
            vbuckets: Some(4),
            block_cache_bytes: 8 << 20,
            ..Config::default()
        };
        Self {
            dir: tempfile::tempdir().unwrap(),
            failpoints: Arc::default(),
            clock: None,
            config,
            background: true,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn builder(&self) -> Builder {
        let builder = Engine::builder(self.path())
            .config(self.config.clone())
            .failpoints(Arc::clone(&self.failpoints))
            .background(self.background);
        match &self.clock {
            Some(clock) => builder.clock(Arc::clone(clock) as _),
            None => builder,
        }
    }

    pub fn open(&self) -> Engine {
        self.builder().open().unwrap()
    }

    /// Ends a test: asserts that no db snapshot is open and that the data on disk is consistent,
    /// and closes the engine.
    pub fn finish(self, engine: Engine) {
        engine.flush().unwrap();
        assert_at_rest(&engine);
        for vb in vbs(&engine) {
            assert_eq!(vb.readers().unwrap().count, 0, "readers of {}", vb.id());
        }
        engine.close().unwrap();
        drop(engine);
        // Verified after reopening, so that every test covers recovery too.
        let engine = self.open();
        assert_verified(&engine);
        engine.close().unwrap();
    }

    /// Stops the engine as a kill would: the threads stop where they are, nothing is flushed, and
    /// the store is not marked as cleanly closed. The next opening is a recovery.
    pub fn crash(&self, engine: Engine) {
        // A close that fails here leaves the store as a kill does.
        let planted = Error::Busy {
            what: "a planted crash",
        };
        self.failpoints.once(place::CLOSE, Action::Fail(planted));
        assert!(matches!(engine.close(), Err(Error::Busy { .. })));
        drop(engine);
    }
}

/// Asserts that no db snapshot is open, by our count and by RocksDB's.
pub fn assert_at_rest(engine: &Engine) {
    assert_eq!(
        engine.metrics().db_snapshots.open_now(),
        0,
        "db snapshots open"
    );
    assert_eq!(
        engine.rocks_snapshots().unwrap().open,
        0,
        "RocksDB's snapshots open"
    );
}

/// Asserts that `verify` finds no problem in any vBucket.
pub fn assert_verified(engine: &Engine) {
    let mut found = engine.verify_shared().unwrap();
    for vb in vbs(engine) {
        found.add(engine.verify(vb.id()).unwrap());
    }
    assert!(found.is_ok(), "{found:#?}");
}

pub fn vbs(engine: &Engine) -> Vec<VBucket> {
    (0..engine.vbuckets())
        .map(|n| engine.vbucket(VbId::new(n)).unwrap())
        .collect()
}

pub fn vb(engine: &Engine, number: u16) -> VBucket {
    engine.vbucket(VbId::new(number)).unwrap()
}

/// Sets a key with `Durability::Memory`.
pub fn put(vb: &VBucket, key: &str, value: &str) -> WriteReceipt {
    vb.write(Change::set(key, value.to_owned()), Durability::Memory)
        .unwrap()
}

/// Changes the vBucket and returns the number of its branches: the change begins one if one is due.
pub fn branches_after_a_change(vb: &VBucket) -> usize {
    vb.set("new", "1").unwrap();
    vb.failover_log().unwrap().entries().len()
}

/// A change as a slice shows it: seqno, kind, key, value, previous seqno.
pub type Row = (u64, &'static str, String, String, u64);

/// Reads everything that a vBucket has on disk, in slices of `items_max` items.
pub fn rows_in_slices(vb: &VBucket, items_max: usize) -> Vec<Row> {
    let budget = SliceBudget {
        items_max,
        ..SliceBudget::default()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut range = SeqnoRange::above(vbstore::Seqno::ZERO);
    let mut rows = Vec::new();
    loop {
        let slice = vb.scan_slice(range, budget).unwrap();
        assert!(slice.len() <= items_max);
        rows.extend(slice.items().map(|item| {
            let (seqno, kind) = (item.meta.seqno.get(), item.meta.kind.name());
            (
                seqno,
                kind,
                text(item.key),
                text(item.value),
                item.prev_seqno.get(),
            )
        }));
        range.after = slice.position();
        if slice.end() == SliceEnd::Complete {
            return rows;
        }
    }
}

pub fn rows(vb: &VBucket) -> Vec<Row> {
    rows_in_slices(vb, 1_000)
}

/// Copies a directory that does not change meanwhile.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
