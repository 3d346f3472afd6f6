//! Starts and stops the child, and checks the store that it left.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use vbstore::{Config, Engine, FailoverEntry, Seqno};
use vbstore_tests::journal::{is_deletion, key, replay, version_of};
use vbstore_tests::{assert_at_rest, assert_verified, vb};

pub const THREADS: u32 = 8;
pub const VBUCKETS: u16 = 16;

pub struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub fn start(store: &Path, journal: &Path, durability: &str, seed: u64) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crash-child"))
            .args([store, journal])
            .args([THREADS.to_string(), VBUCKETS.to_string()])
            .args([durability, &seed.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, lines };
        assert_eq!(running.line(), "open\n", "the child did not open the store");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// Blocks until the child has printed `lines` more lines.
    pub fn wait_for_lines(&mut self, lines: usize) {
        for _ in 0..lines {
            assert_ne!(self.line(), "", "the child stopped by itself");
        }
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a check found missing or changed.
#[derive(Debug, Default)]
pub struct Damage {
    pub lost: Vec<String>,
}

/// State carried from one check of a store to the next.
#[derive(Default)]
pub struct History {
    /// The high seqno and the failover log of each vBucket.
    vbs: HashMap<u16, (Seqno, Vec<FailoverEntry>)>,
}

/// Opens the store that the child left and compares it with the journal. Panics for faults that a
/// missing sync cannot explain; returns acknowledged writes that are missing.
pub fn check(store: &Path, journal: &Path, history: &mut History) -> Damage {
    let config = Config {
        block_cache_bytes: 8 << 20,
        ..Config::default()
    };
    let engine = Engine::builder(store).config(config).open().unwrap();
    let replayed = replay(journal, THREADS);
    let mut damage = Damage::default();
    for ((number, place), expected) in &replayed.keys {
        let key = key(place >> 16, place & 0xffff);
        let document = vb(&engine, *number).get(&key).unwrap();
        let found = document
            .as_ref()
            .map(|document| version_of(&key, &document.value));
        let acknowledged = expected.acknowledged.map_or(0, |record| record.version);
        // The last acknowledged write or any later one may be the newest. A missing value is
        // explained by a deletion among them, or if nothing was acknowledged.
        let is_explained = match found {
            Some(version) => (acknowledged..=expected.intended).contains(&version),
            None => acknowledged == 0 || (acknowledged..=expected.intended).any(is_deletion),
        };
        if !is_explained {
            damage.lost.push(format!(
                "vb {number} {key}: {found:?}, expected {expected:?}"
            ));
        }
        if let (Some(document), Some(record)) = (document, expected.acknowledged)
            && found == Some(record.version)
        {
            assert_eq!(document.meta.seqno.get(), record.seqno, "{key} moved");
        }
    }
    check_seqnos(&replayed.acknowledged);
    check_failover_logs(&engine, history);
    assert_verified(&engine);
    assert_at_rest(&engine);
    engine.close().unwrap();
    damage
}

/// Asserts that no acknowledged seqno was assigned twice, in whatever branch.
fn check_seqnos(acknowledged: &[vbstore_tests::journal::Record]) {
    let mut seen = HashMap::new();
    for record in acknowledged {
        let other = seen.insert((record.vb, record.seqno), *record);
        assert_eq!(other, None, "seqno assigned twice: {record:?}");
    }
}

/// Asserts that the first change after each stop began one branch on top of the previous ones, at
/// the high seqno that the check after the stop found. The change may be lost, its branch never.
fn check_failover_logs(engine: &Engine, history: &mut History) {
    for number in 0..VBUCKETS {
        let log = vb(engine, number).failover_log().unwrap();
        let high = vb(engine, number).seqnos().unwrap().high;
        let entries = log.entries().to_vec();
        assert!(entries[0].seqno <= high);
        if let Some((high_before, before)) = history.vbs.get(&number) {
            if entries == *before {
                assert_eq!(high, *high_before, "vb {number} changed without a branch");
            } else {
                let kept = before.len().min(24);
                assert_eq!(
                    entries[1..=kept],
                    before[..kept],
                    "the log of vb {number} was rewritten"
                );
                assert_eq!(
                    entries[0].seqno, *high_before,
                    "the branch does not begin at the recovered high seqno"
                );
            }
        }
        history.vbs.insert(number, (high, entries));
    }
}
