//! The journal of a child process: the writes it was going to make, and those acknowledged. It is
//! kept on another file system, one file a thread, so it survives a kill of the child and a power
//! cut of the store's disk.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const INTENT: u8 = b'i';
const ACK: u8 = b'a';
/// Bytes of a record: tag, vBucket, key, version, uuid, seqno.
const RECORD_LEN: usize = 1 + 2 + 4 + 8 + 8 + 8;

/// One record. `version` counts the writes of a key; see [`is_deletion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub vb: u16,
    pub key: u32,
    pub version: u64,
    pub uuid: u64,
    pub seqno: u64,
}

/// The journal of one thread of the child. Each record is written with one system call.
pub struct Journal {
    file: File,
}

impl Journal {
    pub fn append_to(dir: &Path, thread: u32) -> Self {
        let path = path(dir, thread);
        Self {
            file: OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .unwrap(),
        }
    }

    /// Records a write before it begins.
    pub fn intend(&mut self, record: Record) {
        self.put(INTENT, record);
    }

    /// Records an acknowledged write, after it has returned.
    pub fn acknowledge(&mut self, record: Record) {
        self.put(ACK, record);
    }

    fn put(&mut self, tag: u8, record: Record) {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&record.vb.to_be_bytes());
        bytes.extend_from_slice(&record.key.to_be_bytes());
        bytes.extend_from_slice(&record.version.to_be_bytes());
        bytes.extend_from_slice(&record.uuid.to_be_bytes());
        bytes.extend_from_slice(&record.seqno.to_be_bytes());
        self.file.write_all(&bytes).unwrap();
    }
}

fn path(dir: &Path, thread: u32) -> PathBuf {
    dir.join(format!("journal-{thread:03}"))
}

/// What the journal says about one key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The last acknowledged write.
    pub acknowledged: Option<Record>,
    /// The version of the last write that was begun.
    pub intended: u64,
}

/// Everything that the children of one store have journalled.
#[derive(Debug, Default)]
pub struct Replayed {
    pub keys: HashMap<(u16, u32), Expected>,
    pub acknowledged: Vec<Record>,
}

/// Reads the journals of all threads. A record cut short at the end of a file is ignored: it was
/// not finished.
pub fn replay(dir: &Path, threads: u32) -> Replayed {
    let mut replayed = Replayed::default();
    for thread in 0..threads {
        let bytes = std::fs::read(path(dir, thread)).unwrap_or_default();
        for record in bytes.chunks_exact(RECORD_LEN) {
            let number = |at: usize| u64::from_be_bytes(record[at..at + 8].try_into().unwrap());
            let parsed = Record {
                vb: u16::from_be_bytes(record[1..3].try_into().unwrap()),
                key: u32::from_be_bytes(record[3..7].try_into().unwrap()),
                version: number(7),
                uuid: number(15),
                seqno: number(23),
            };
            let expected = replayed.keys.entry((parsed.vb, parsed.key)).or_default();
            match record[0] {
                INTENT => expected.intended = parsed.version,
                ACK => {
                    expected.acknowledged = Some(parsed);
                    replayed.acknowledged.push(parsed);
                }
                other => panic!("record of kind {other}"),
            }
        }
    }
    replayed
}

/// Returns the key with this number.
pub fn key(thread: u32, number: u32) -> String {
    format!("thread-{thread:03}-key-{number:05}")
}

/// Returns whether this version of a key is a deletion, as every seventh version is.
pub fn is_deletion(version: u64) -> bool {
    version % 7 == 3
}

/// Returns the value of this version of a key: a checksum, the key and the version.
pub fn value(key: &str, version: u64) -> String {
    let body = format!("{key} v{version} {}", "x".repeat((version % 400) as usize));
    format!("{:08x} {body}", crc32fast::hash(body.as_bytes()))
}

/// Parses the version out of a value; panics if the value is not what was written.
pub fn version_of(key: &str, bytes: &[u8]) -> u64 {
    let text = std::str::from_utf8(bytes).unwrap();
    let (_, body) = text.split_once(' ').unwrap();
    let version = body
        .split(' ')
        .nth(1)
        .unwrap()
        .trim_start_matches('v')
        .parse()
        .unwrap();
    assert_eq!(
        text,
        value(key, version),
        "the value of {key} is not what was written"
    );
    version
}
