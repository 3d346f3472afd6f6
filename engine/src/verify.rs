//! Verification: checks every invariant that can be checked on disk.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::numbers::count;
use crate::storage::{Records, decode_document, decode_index_entry};
use std::collections::BTreeMap;
use vbstore_core::record::{Counts, VbState};
use vbstore_core::{ItemMeta, Seqno, VbId};
use vbstore_metrics::DbSnapshotHolder;

/// The number of problems described one by one for a vBucket. Further ones are only counted.
const PROBLEMS_MAX: usize = 100;

/// One problem found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The vBucket; `None` if the problem belongs to none.
    pub vb: Option<VbId>,
    /// The seqno, if the problem has one.
    pub seqno: Option<Seqno>,
    /// The key, if the problem has one.
    pub key: Option<Vec<u8>>,
    /// A description of the problem.
    pub detail: String,
}

/// The result of verifying one or more vBuckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The number of vBuckets checked.
    pub vbuckets: u64,
    /// The number of documents, counted one by one. Expired ones are included.
    pub items: u64,
    /// The number of tombstones, counted one by one.
    pub tombstones: u64,
    /// The problems found; empty if there are none.
    pub problems: Vec<Problem>,
    /// The number of problems beyond those in `problems`.
    pub more_problems: u64,
}

impl Verification {
    /// Returns whether no problem was found.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty() && self.more_problems == 0
    }

    /// Adds the result of another check.
    pub fn add(&mut self, other: Self) {
        self.vbuckets += other.vbuckets;
        self.items += other.items;
        self.tombstones += other.tombstones;
        self.problems.extend(other.problems);
        self.more_problems += other.more_problems;
    }
}

impl Engine {
    /// Verifies everything that a vBucket has on disk:
    ///
    /// - every record decodes where it is stored, with its checksum;
    /// - documents and index entries agree in both directions and in every field;
    /// - the counts and the high seqno are right, and the high seqno is a boundary;
    /// - the state record and the failover log agree.
    ///
    /// Holds one db snapshot during the whole check and keeps the vBucket's keys in memory, so it
    /// is meant for a store at rest.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Invalid`]. Problems with the data are part of the result, even
    /// if a file cannot be read.
    pub fn verify(&self, vb: VbId) -> Result<Verification> {
        let services = self.services();
        let vb = services.vbs.get(vb)?.id();
        let storage = services.gate.acquire()?;
        Ok(storage.with_records(DbSnapshotHolder::Admin, |records| {
            let mut check = VbCheck {
                vb,
                found: Verification::default(),
            };
            check.found.vbuckets = 1;
            if let Err(error) = check.run(records) {
                // The error ends this check. It is reported as a problem, together with those found
                // before it.
                check.note_error(&error);
            }
            check.found
        }))
    }

    /// Verifies what belongs to no vBucket: the list of superseded entries, which must be empty in
    /// this version.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn verify_shared(&self) -> Result<Verification> {
        let storage = self.services().gate.acquire()?;
        Ok(storage.with_records(DbSnapshotHolder::Admin, |records| {
            let mut found = Verification::default();
            let visited = records.superseded_rows(|key, _| {
                if found.problems.len() >= PROBLEMS_MAX {
                    found.more_problems += 1;
                    return Ok(true);
                }
                found.problems.push(Problem {
                    vb: None,
                    seqno: None,
                    key: Some(key.to_vec()),
                    detail:
                        "an entry in the list of superseded entries, which this version never fills"
                            .into(),
                });
                Ok(true)
            });
            if let Err(error) = visited {
                found.problems.push(Problem {
                    vb: None,
                    seqno: None,
                    key: None,
                    detail: error.to_string(),
                });
            }
            found
        }))
    }
}

/// The part of a document that the check keeps in memory.
struct VisitedDocument {
    meta: ItemMeta,
    is_last_of_checkpoint: bool,
    key: Vec<u8>,
}

struct VbCheck {
    vb: VbId,
    found: Verification,
}

impl VbCheck {
    fn run(&mut self, records: &Records<'_, '_>) -> Result<()> {
        let state = records.state(self.vb)?;
        self.check_failover_log(records, &state);
        let documents = self.read_documents(records, &state)?;
        let counts = self.check_index(records, &documents)?;
        self.found.items = counts.items;
        self.found.tombstones = counts.tombstones;
        if counts != state.counts {
            let detail = format!(
                "the state record has {:?}, but {counts:?} were counted",
                state.counts
            );
            self.note(Some(state.high_seqno), None, detail);
        }
        self.check_high_seqno(&state, &documents);
        Ok(())
    }

    fn check_failover_log(&mut self, records: &Records<'_, '_>, state: &VbState) {
        match records.failover_log(self.vb) {
            Err(error) => self.note_error(&error),
            Ok(log) => {
                let newest = log.entries().first();
                if newest.is_some_and(|entry| entry.uuid != state.uuid) {
                    self.note(
                        None,
                        None,
                        "the state record and the failover log name different branches",
                    );
                }
                if newest.is_some_and(|entry| entry.seqno > state.high_seqno) {
                    self.note(
                        None,
                        None,
                        "the newest branch of the failover log begins above the high seqno",
                    );
                }
            }
        }
    }

    fn read_documents(
        &mut self,
        records: &Records<'_, '_>,
        state: &VbState,
    ) -> Result<BTreeMap<Seqno, VisitedDocument>> {
        let mut documents = BTreeMap::new();
        let vb = self.vb;
        records.documents(vb, Seqno::ZERO, Seqno::MAX, |seqno, record| {
            match decode_document(vb, seqno, record) {
                Err(error) => self.note_error(&error),
                Ok(document) => {
                    if seqno > state.high_seqno {
                        let detail = format!("document above the high seqno {}", state.high_seqno);
                        self.note(Some(seqno), Some(document.key), detail);
                    }
                    documents.insert(
                        seqno,
                        VisitedDocument {
                            meta: document.head.meta,
                            is_last_of_checkpoint: document.head.is_last_of_checkpoint,
                            key: document.key.to_vec(),
                        },
                    );
                }
            }
            Ok(true)
        })?;
        Ok(documents)
    }

    /// Reads the index and returns the counts it adds up to. Each entry must have its document, and
    /// each document its entry.
    fn check_index(
        &mut self,
        records: &Records<'_, '_>,
        documents: &BTreeMap<Seqno, VisitedDocument>,
    ) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut unclaimed: BTreeMap<Seqno, &VisitedDocument> =
            documents.iter().map(|(s, d)| (*s, d)).collect();
        let vb = self.vb;
        records.index_records(vb, &[], None, |key, record| {
            let meta = match decode_index_entry(vb, key, record) {
                Ok(meta) => meta,
                // The document of this entry is reported, too, because no valid entry refers to it.
                Err(error) => {
                    self.note(None, Some(key), error.to_string());
                    return Ok(true);
                }
            };
            if meta.kind.is_live() {
                counts.items += 1;
                counts.bytes += count(key.len()) + u64::from(meta.value_len);
            } else {
                counts.tombstones += 1;
            }
            if self.check_entry(key, meta, documents.get(&meta.seqno)) {
                unclaimed.remove(&meta.seqno);
            }
            Ok(true)
        })?;
        for (seqno, document) in unclaimed {
            self.check_unclaimed(seqno, document);
        }
        Ok(counts)
    }

    /// Compares an index entry with the document at its seqno. Returns whether the document has the
    /// entry's key.
    fn check_entry(
        &mut self,
        key: &[u8],
        meta: ItemMeta,
        document: Option<&VisitedDocument>,
    ) -> bool {
        let detail = match document {
            None => "index entry without a document".to_owned(),
            Some(document) if document.key != key => {
                let other = String::from_utf8_lossy(&document.key);
                format!("index entry whose document has the key {other:?}")
            }
            Some(document) => {
                if document.meta != meta {
                    let in_document = document.meta;
                    let detail =
                        format!("the index entry has {meta:?}, its document has {in_document:?}");
                    self.note(Some(meta.seqno), Some(key), detail);
                }
                return true;
            }
        };
        self.note(Some(meta.seqno), Some(key), detail);
        false
    }

    /// Reports a document that no index entry refers to. That is always a problem, because a
    /// replaced document is deleted in the batch that replaces it. This is the only place that
    /// decides it.
    fn check_unclaimed(&mut self, seqno: Seqno, document: &VisitedDocument) {
        let detail = "document without an index entry";
        self.note(Some(seqno), Some(&document.key), detail);
    }

    /// Checks the document at the high seqno. It must exist and be the last of its checkpoint: the
    /// high seqno is never purged, and it is always a boundary.
    fn check_high_seqno(&mut self, state: &VbState, documents: &BTreeMap<Seqno, VisitedDocument>) {
        let high = state.high_seqno;
        if high == Seqno::ZERO {
            // Nothing was ever written.
            return;
        }
        match documents.get(&high) {
            None => self.note(Some(high), None, "the high seqno has no document"),
            Some(document) if !document.is_last_of_checkpoint => {
                let key = document.key.clone();
                self.note(Some(high), Some(&key), "the high seqno is not a boundary");
            }
            Some(_) => {}
        }
        let newest_cas = documents.values().map(|document| document.meta.cas).max();
        if newest_cas.is_some_and(|cas| cas > state.max_cas) {
            self.note(
                Some(high),
                None,
                "the CAS of a document is above the largest CAS in the state record",
            );
        }
    }

    /// Adds a problem of this vBucket, or only counts it if there are too many.
    fn note(&mut self, seqno: Option<Seqno>, key: Option<&[u8]>, detail: impl Into<String>) {
        if self.found.problems.len() >= PROBLEMS_MAX {
            self.found.more_problems += 1;
            return;
        }
        let (key, detail) = (key.map(<[u8]>::to_vec), detail.into());
        self.found.problems.push(Problem {
            vb: Some(self.vb),
            seqno,
            key,
            detail,
        });
    }

    fn note_error(&mut self, error: &Error) {
        let seqno = match error {
            Error::Corruption { seqno, .. } => *seqno,
            _ => None,
        };
        self.note(seqno, None, error.to_string());
    }
}
