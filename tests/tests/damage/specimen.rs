//! A store to damage: files in level 0 and deeper, a log over three files, several vBuckets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vbstore::{
    BackgroundTask, Change, Config, Durability, Engine, Error, ErrorKind, Seqno, SeqnoRange,
    SliceBudget, SliceEnd, VbId,
};
use vbstore_tests::{TestStore, copy_dir, vb};

type Data = BTreeMap<(u16, String), String>;

pub struct Specimen {
    dir: tempfile::TempDir,
    /// Synced changes, which must be there.
    pub synced: Data,
    /// Changes logged after that, which may be there, in the order of their writes.
    pub logged: Vec<(u16, String, String)>,
}

/// The outcome of opening a damaged store.
#[derive(Debug)]
pub enum Verdict {
    /// Everything that was synced is there.
    Whole,
    /// The open was refused, and the files are as they were.
    Refused(Error),
    /// It opened, and reading the damaged part is an error.
    ReadError,
}

fn config() -> Config {
    Config {
        vbuckets: Some(4),
        block_cache_bytes: 8 << 20,
        write_buffer_bytes: Some(1 << 20),
        ..Config::default()
    }
}

fn fill(engine: &Engine, data: &mut Data, number: u16, round: u32, keys: u32, len: usize) {
    for n in 0..keys {
        let (key, value) = (
            format!("key-{n:03}"),
            format!("{round}-{n}-{}", "v".repeat(len)),
        );
        data.insert((number, key.clone()), value.clone());
        vb(engine, number)
            .write(Change::set(key, value), Durability::Memory)
            .unwrap();
    }
    engine.flush().unwrap();
}

impl Specimen {
    /// Makes a store with this many bytes of unsynced log, and stops it: cleanly if `clean`, else
    /// as a kill would.
    pub fn make(unsynced_bytes: usize, clean: bool) -> Self {
        let mut store = TestStore::stepped();
        store.config = config();
        let engine = store.open();
        let mut synced = Data::new();
        // vBucket 0: a deep level, then level 0 above it.
        fill(&engine, &mut synced, 0, 1, 300, 3_000);
        engine.compact(VbId::new(0)).unwrap();
        fill(&engine, &mut synced, 0, 2, 300, 3_000);
        while engine.disk_usage().unwrap().log > 768 << 10 {
            engine.step(BackgroundTask::Pacer).unwrap();
        }
        // vBucket 1 stays in the log; each compaction of another one begins a new log file.
        fill(&engine, &mut synced, 1, 1, 30, 60);
        fill(&engine, &mut synced, 2, 1, 20, 60);
        engine.compact(VbId::new(2)).unwrap();
        fill(&engine, &mut synced, 1, 2, 30, 60);
        fill(&engine, &mut synced, 3, 1, 20, 60);
        engine.compact(VbId::new(3)).unwrap();
        fill(&engine, &mut synced, 1, 3, 40, 60);
        let mut logged = Vec::new();
        let mut bytes = 0;
        while bytes < unsynced_bytes {
            let (key, value) = (format!("late-{:03}", logged.len()), "w".repeat(40));
            vb(&engine, 1)
                .write(Change::set(key.clone(), value.clone()), Durability::Logged)
                .unwrap();
            // Roughly what document, index entry, state record and batch header take.
            bytes += 350;
            logged.push((1, key, value));
        }
        if clean {
            engine.close().unwrap();
            synced.extend(logged.drain(..).map(|(vb, key, value)| ((vb, key), value)));
        } else {
            store.crash(engine);
        }
        let dir = tempfile::tempdir_in(fast_directory()).unwrap();
        copy_dir(&store.path(), &dir.path().join("store"));
        Self {
            dir,
            synced,
            logged,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Returns the names of RocksDB's files that `pass` accepts, in order.
    pub fn db_files(&self, pass: impl Fn(&str) -> bool) -> Vec<String> {
        let names = std::fs::read_dir(self.path().join("db")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| pass(name)).collect();
        names.sort();
        names
    }

    pub fn logs(&self) -> Vec<String> {
        self.db_files(|name| name.ends_with(".log"))
    }

    pub fn ssts(&self) -> Vec<String> {
        self.db_files(|name| name.ends_with(".sst"))
    }

    /// Damages a copy and tries to open it.
    pub fn damaged(&self, damage: impl FnOnce(&Path)) -> Verdict {
        self.try_open(damage).0
    }

    /// Like `damaged`; also returns how many of the unsynced writes are there.
    pub fn try_open(&self, damage: impl FnOnce(&Path)) -> (Verdict, usize) {
        let copy = tempfile::tempdir_in(fast_directory()).unwrap();
        let path = copy.path().join("store");
        copy_dir(&self.path(), &path);
        damage(&path);
        let before = contents(&path);
        match Engine::builder(&path)
            .config(config())
            .background(false)
            .open()
        {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(
                    before == contents(&path),
                    "a refused open changed the files: {error}"
                );
                (Verdict::Refused(error), 0)
            }
            Ok(engine) => {
                let answer = self.compare(&engine);
                drop(engine);
                answer
            }
        }
    }

    fn compare(&self, engine: &Engine) -> (Verdict, usize) {
        let mut errors = 0;
        let mut logged = 0;
        for ((number, key), value) in &self.synced {
            match vb(engine, *number).get(key) {
                Ok(document) => {
                    let found = document.map(|document| document.value.to_vec());
                    assert_eq!(found.as_deref(), Some(value.as_bytes()), "{number} {key}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    errors += 1;
                }
            }
        }
        for (position, (number, key, value)) in self.logged.iter().enumerate() {
            if let Some(document) = vb(engine, *number).get(key).unwrap() {
                assert_eq!(document.value, value.as_bytes());
                assert_eq!(logged, position, "a hole before {key}");
                logged += 1;
            }
        }
        for number in 0..4 {
            let keys = self.synced.keys().filter(|(vb, _)| *vb == number).count();
            let late = if number == 1 { logged } else { 0 };
            match scan(engine, number) {
                Ok(items) => assert_eq!(items, keys + late, "a scan of vb {number} is short"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    errors += 1;
                }
            }
        }
        let mut found = engine.verify_shared().unwrap();
        for number in 0..4 {
            found.add(engine.verify(VbId::new(number)).unwrap());
        }
        // A block that holds only an older version of a key is read by `verify` alone.
        assert!(
            errors == 0 || !found.is_ok(),
            "reads fail and verify finds nothing"
        );
        let is_whole = errors == 0 && found.is_ok();
        (
            if is_whole {
                Verdict::Whole
            } else {
                Verdict::ReadError
            },
            logged,
        )
    }
}

/// Reads a whole vBucket in slices; returns the number of its changes.
fn scan(engine: &Engine, number: u16) -> Result<usize, Error> {
    let mut range = SeqnoRange::above(Seqno::ZERO);
    let mut items = 0;
    loop {
        let slice = vb(engine, number).scan_slice(range, SliceBudget::default())?;
        items += slice.len();
        range.after = slice.position();
        if slice.end() == SliceEnd::Complete {
            return Ok(items);
        }
    }
}

/// Returns every file with its bytes, except those that name the process which has the store open.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut rest = vec![path.to_owned()];
    while let Some(dir) = rest.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rest.push(path);
            } else if !path.ends_with("VBSTORE.lock") && !path.ends_with("LOCK") {
                all.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    all
}

/// Returns a directory in memory, if there is such a file system: thousands of stores are opened,
/// and the disk is not what is tested.
pub fn fast_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

pub fn flip(path: &Path, byte: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = usize::try_from(byte).unwrap() % bytes.len();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

pub fn cut(path: &Path, len: u64) {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}
