//! Writes until it is killed: `crash-child STORE JOURNAL THREADS VBUCKETS DURABILITY SEED`.
//!
//! Each thread has its own keys. It journals the write it is about to do, writes, and journals the
//! acknowledgement. After every `STRIDE` acknowledgements it prints a line, so that the parent
//! knows how far it is.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use vbstore::{Change, Config, Durability, Engine, Error, Tuning, VbId};
use vbstore_tests::journal::{Journal, Record, is_deletion, key, replay, value};

const KEYS: u32 = 40;
/// Acknowledgements between two lines of output.
const STRIDE: u64 = 10;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (store, journal) = (PathBuf::from(&args[1]), PathBuf::from(&args[2]));
    let threads: u32 = args[3].parse().unwrap();
    let vbuckets: u16 = args[4].parse().unwrap();
    let durability = match args[5].as_str() {
        "synced" => Durability::Synced,
        "logged" => Durability::Logged,
        other => panic!("durability {other}"),
    };
    let seed: u64 = args[6].parse().unwrap();
    let config = Config {
        vbuckets: Some(vbuckets),
        block_cache_bytes: 8 << 20,
        // Small, so that families are flushed to files and the log is switched within a second.
        write_buffer_bytes: Some(256 << 10),
        tuning: Tuning {
            sync_interval: Duration::from_secs(3_600),
            ..Tuning::default()
        },
        ..Config::default()
    };
    let before = replay(&journal, threads);
    let engine = Engine::builder(&store).config(config).open().unwrap();
    println!("open");
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let mut versions: HashMap<(u16, u32), u64> = before
                .keys
                .iter()
                // The last intended write may be on disk though it was not acknowledged.
                .map(|(place, expected)| (*place, expected.intended))
                .collect();
            let mut journal = Journal::append_to(&journal, thread);
            let mut random = SmallRng::seed_from_u64(seed ^ u64::from(thread) << 32);
            let (engine, acknowledged) = (&engine, &acknowledged);
            scope.spawn(move || {
                loop {
                    let vb = random.random_range(0..vbuckets);
                    let number = random.random_range(0..KEYS);
                    let place = (vb, thread << 16 | number);
                    let version = versions.get(&place).copied().unwrap_or(0) + 1;
                    versions.insert(place, version);
                    let mut record = Record {
                        vb,
                        key: place.1,
                        version,
                        uuid: 0,
                        seqno: 0,
                    };
                    // Journalled first, so that a write which a kill interrupts is known to the
                    // check.
                    journal.intend(record);
                    let key = key(thread, number);
                    let bucket = engine.vbucket(VbId::new(vb)).unwrap();
                    let change = if is_deletion(version) {
                        Change::delete(&key)
                    } else {
                        Change::set(&key, value(&key, version))
                    };
                    match bucket.write(change, durability) {
                        Ok(written) => {
                            record.uuid = written.vb_uuid.get();
                            record.seqno = written.seqno.get();
                            journal.acknowledge(record);
                        }
                        // The previous write of this key was lost in a kill, so there is nothing to
                        // delete.
                        Err(Error::NotFound) => continue,
                        // The disk was cut off: no write is acknowledged from here on.
                        Err(_) => return,
                    }
                    let count = acknowledged.fetch_add(1, Ordering::Relaxed) + 1;
                    if count % STRIDE == 0 {
                        let mut out = std::io::stdout().lock();
                        if writeln!(out, "{count}").and_then(|()| out.flush()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}
