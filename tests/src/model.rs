//! A model of the engine as plain data, without storage or threads, to compare the engine with.

use std::collections::BTreeMap;

pub const VBUCKETS: u16 = 2;
/// The time at which the manual clock starts, in seconds since 1970.
pub const START: u32 = 1_000_000;

/// One change in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub seqno: u64,
    pub is_deletion: bool,
    pub value: String,
    pub expiry: u32,
}

/// A change on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnDisk {
    pub entry: Entry,
    pub prev_seqno: u64,
    pub is_boundary: bool,
}

type Checkpoint = Vec<(String, Entry)>;

/// One vBucket.
#[derive(Clone, Debug, Default)]
pub struct VbModel {
    pub high: u64,
    pub persisted: u64,
    /// Seqnos at which branches began, newest first.
    pub branches: Vec<u64>,
    /// Whether a crash came and no change since.
    is_branch_due: bool,
    sealed: Vec<Checkpoint>,
    open: Checkpoint,
    pub disk: BTreeMap<String, OnDisk>,
}

impl VbModel {
    fn new() -> Self {
        Self {
            branches: vec![0],
            ..Self::default()
        }
    }

    /// Returns the newest change of a key, in memory or on disk.
    pub fn newest(&self, key: &str) -> Option<&Entry> {
        let in_memory = self.sealed.iter().flatten().chain(&self.open);
        let newest = in_memory
            .filter(|(k, _)| k == key)
            .map(|(_, entry)| entry)
            .next_back();
        newest.or_else(|| self.disk.get(key).map(|on_disk| &on_disk.entry))
    }

    /// Returns the document that a reader must see.
    pub fn value(&self, key: &str, now: u32) -> Option<&Entry> {
        self.newest(key)
            .filter(|e| !e.is_deletion && (e.expiry == 0 || e.expiry > now))
    }

    fn append(&mut self, key: &str, is_deletion: bool, value: &str, expiry: u32) -> u64 {
        // The first change after a crash begins the branch, at the high seqno before it.
        if std::mem::take(&mut self.is_branch_due) {
            self.branches.insert(0, self.high);
        }
        self.high += 1;
        let value = value.to_owned();
        let entry = Entry {
            seqno: self.high,
            is_deletion,
            value,
            expiry,
        };
        self.open.push((key.to_owned(), entry));
        self.high
    }

    fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        if !open.is_empty() {
            self.sealed.push(open);
        }
    }

    fn flush(&mut self) {
        self.seal();
        for checkpoint in std::mem::take(&mut self.sealed) {
            let last = checkpoint.last().map_or(0, |(_, entry)| entry.seqno);
            let newest: BTreeMap<String, Entry> = checkpoint.into_iter().collect();
            let mut entries: Vec<(String, Entry)> = newest.into_iter().collect();
            entries.sort_by_key(|(_, entry)| entry.seqno);
            for (key, entry) in entries {
                let prev_seqno = self.disk.get(&key).map_or(0, |on_disk| on_disk.entry.seqno);
                let is_boundary = entry.seqno == last;
                self.disk.insert(
                    key,
                    OnDisk {
                        entry,
                        prev_seqno,
                        is_boundary,
                    },
                );
            }
            self.persisted = last;
        }
    }

    fn lose_memory(&mut self) {
        self.sealed.clear();
        self.open.clear();
        self.high = self.persisted;
        self.is_branch_due = true;
    }

    /// Returns the items, tombstones and bytes on disk.
    pub fn counts(&self) -> (u64, u64, u64) {
        let mut counts = (0, 0, 0);
        for (key, on_disk) in &self.disk {
            if on_disk.entry.is_deletion {
                counts.1 += 1;
            } else {
                counts.0 += 1;
                counts.2 += (key.len() + on_disk.entry.value.len()) as u64;
            }
        }
        counts
    }
}

/// A write of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Set {
        value: String,
        expiry: u32,
    },
    Add {
        value: String,
    },
    Replace {
        value: String,
    },
    Delete,
    Touch {
        expiry: u32,
    },
    /// A set with a CAS condition: the right CAS, or a wrong one.
    Cas {
        value: String,
        right: bool,
    },
}

/// The point at which a flush fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    BeforeBuild,
    BeforeWrite,
}

#[derive(Clone, Debug)]
pub enum Step {
    Write {
        vb: u16,
        key: String,
        write: Write,
    },
    Batch {
        vb: u16,
        writes: Vec<(String, Write)>,
    },
    Flush,
    FailedFlush(Failure),
    Reopen,
    Crash,
    DeleteVbucket(u16),
    Advance {
        seconds: u32,
    },
}

/// The outcome that the last step must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    NotFound,
    Exists,
    CasMismatch,
    DiskFull,
}

/// The whole engine.
#[derive(Clone, Debug)]
pub struct Model {
    pub vbs: Vec<VbModel>,
    pub now: u32,
    pub is_degraded: bool,
    pub outcome: Outcome,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            vbs: (0..VBUCKETS).map(|_| VbModel::new()).collect(),
            now: START,
            is_degraded: false,
            outcome: Outcome::Ok,
        }
    }
}

impl Model {
    fn judge(&self, vb: u16, key: &str, write: &Write) -> Outcome {
        let present = self.vbs[usize::from(vb)].value(key, self.now).is_some();
        match write {
            Write::Set { .. } => Outcome::Ok,
            Write::Add { .. } if present => Outcome::Exists,
            Write::Add { .. } => Outcome::Ok,
            _ if !present => Outcome::NotFound,
            Write::Cas { right: false, .. } => Outcome::CasMismatch,
            _ => Outcome::Ok,
        }
    }

    fn make(&mut self, vb: u16, key: &str, write: &Write) {
        let now = self.now;
        let vb = &mut self.vbs[usize::from(vb)];
        match write {
            Write::Set { value, expiry } => vb.append(key, false, value, *expiry),
            Write::Add { value } | Write::Replace { value } | Write::Cas { value, .. } => {
                vb.append(key, false, value, 0)
            }
            Write::Delete => vb.append(key, true, "", now),
            Write::Touch { expiry } => {
                let value = vb.newest(key).unwrap().value.clone();
                vb.append(key, false, &value, *expiry)
            }
        };
    }

    pub fn apply(&mut self, step: &Step) {
        self.outcome = Outcome::Ok;
        match step {
            // A full disk refuses every write until a flush succeeds.
            Step::Write { .. } | Step::Batch { .. } | Step::DeleteVbucket(_)
                if self.is_degraded =>
            {
                self.outcome = Outcome::DiskFull;
            }
            Step::Write { vb, key, write } => {
                self.outcome = self.judge(*vb, key, write);
                if self.outcome == Outcome::Ok {
                    self.make(*vb, key, write);
                }
            }
            Step::Batch { vb, writes } => {
                let refused = writes
                    .iter()
                    .map(|(key, write)| self.judge(*vb, key, write));
                self.outcome = refused
                    .into_iter()
                    .find(|o| *o != Outcome::Ok)
                    .unwrap_or(Outcome::Ok);
                if self.outcome == Outcome::Ok {
                    for (key, write) in writes {
                        self.make(*vb, key, write);
                    }
                }
            }
            Step::Flush => self.flush(),
            Step::FailedFlush(_) => {
                // With nothing to flush the failpoint is not reached.
                if self.vbs.iter().any(|vb| vb.persisted < vb.high) {
                    // The failed flush has sealed its checkpoints; the next flush takes them again.
                    self.vbs.iter_mut().for_each(VbModel::seal);
                    self.is_degraded = true;
                    self.outcome = Outcome::DiskFull;
                } else {
                    self.flush();
                }
            }
            Step::Reopen => self.flush(),
            Step::Crash => {
                self.vbs.iter_mut().for_each(VbModel::lose_memory);
                self.is_degraded = false;
            }
            Step::DeleteVbucket(vb) => self.vbs[usize::from(*vb)] = VbModel::new(),
            Step::Advance { seconds } => self.now += seconds,
        }
    }

    fn flush(&mut self) {
        self.vbs.iter_mut().for_each(VbModel::flush);
        self.is_degraded = false;
    }
}
