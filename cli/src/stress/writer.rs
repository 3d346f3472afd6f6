//! A writer with keys of its own, so that it knows the expected contents of each.

use super::findings::Findings;
use super::model::{ExpectedValue, Model, difference, outcome};
use super::value;
use crate::args;
use crate::follow::{Journal, key_hash};
use crate::number::{u64_from, usize_from};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use std::time::Duration;
use vbstore::{
    Cas, Change, Clock, Document, Durability, Engine, Error, PageForm, Seqno, SystemClock, VbId,
    WriteReceipt,
};

/// Pause of a writer after a write that was refused because the disk is full.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

const KINDS: [&str; 11] = [
    "set",
    "overwrite",
    "delete",
    "add",
    "replace",
    "cas",
    "touch",
    "batch",
    "get",
    "get_many",
    "prefix",
];

pub(super) struct StressWriter<'a> {
    engine: &'a Engine,
    /// Where changes are recorded for the followers.
    journal: Option<&'a Journal>,
    number: u16,
    keys: u32,
    value_max: u32,
    random: SmallRng,
    weights: [u32; KINDS.len()],
    clock: SystemClock,
    version: u64,
    highest: HashMap<VbId, Seqno>,
    pub(super) model: Model,
    pub(super) findings: Findings,
}

impl<'a> StressWriter<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        args: &args::StressArgs,
        number: u16,
        journal: Option<&'a Journal>,
    ) -> Self {
        let mut random =
            SmallRng::seed_from_u64(args.seed.wrapping_mul(1_000_003) ^ u64::from(number));
        // Each writer has its own mix: some kinds are rare, some frequent, some absent.
        let mut weights = [0; KINDS.len()];
        for weight in &mut weights {
            *weight = [0, 1, 3, 10]
                .get(random.random_range(0..4_usize))
                .copied()
                .unwrap_or(1);
        }
        weights[0] = weights[0].max(1);
        Self {
            engine,
            journal,
            number,
            keys: args.keys,
            value_max: args.value_max,
            random,
            weights,
            clock: SystemClock::new(),
            version: 0,
            highest: HashMap::new(),
            model: Model::new(),
            findings: Findings::default(),
        }
    }

    /// Does one operation and checks its result. An unexpected error is returned, and ends the run.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        let kind = self.draw_kind();
        let number = if kind == "overwrite" {
            self.random.random_range(0..self.keys.clamp(1, 8))
        } else {
            self.random.random_range(0..self.keys)
        };
        let key = self.key(number);
        let start = self.clock.monotonic();
        match kind {
            "get" => self.get(&key)?,
            "get_many" => self.get_many()?,
            "prefix" => self.prefix(&key)?,
            "batch" => self.batch(&key)?,
            _ => self.change(kind, &key)?,
        }
        self.findings
            .count(kind, self.clock.monotonic().saturating_sub(start));
        Ok(())
    }

    fn draw_kind(&mut self) -> &'static str {
        let sum: u32 = self.weights.iter().sum();
        let mut drawn = self.random.random_range(0..sum.max(1));
        for (kind, weight) in KINDS.iter().zip(self.weights) {
            match drawn.checked_sub(weight) {
                Some(rest) => drawn = rest,
                None => return kind,
            }
        }
        "set"
    }

    fn key(&self, number: u32) -> String {
        format!("writer-{:03}-key-{number:07}", self.number)
    }

    fn durability(&mut self) -> Durability {
        match self.random.random_range(0..20) {
            0 => Durability::Synced,
            1..=4 => Durability::Logged,
            _ => Durability::Memory,
        }
    }

    fn next_value(&mut self, key: &str) -> (u64, Vec<u8>) {
        self.version += 1;
        // Mostly short, sometimes up to the longest allowed.
        let bits = self
            .random
            .random_range(0..=self.value_max.checked_ilog2().unwrap_or(0));
        let len = self.random.random_range(0..=self.value_max.min(1 << bits));
        (
            self.version,
            value::make(key, self.version, usize_from(len)),
        )
    }

    fn change(&mut self, kind: &'static str, key: &str) -> Result<(), Error> {
        let expected = self.model.get(key).copied();
        let is_present = expected.is_some_and(|expected| expected.version.is_some());
        let (version, bytes) = self.next_value(key);
        let (change, after, is_allowed) = match kind {
            "delete" => (Change::delete(key), None, is_present),
            "add" => (Change::add(key, bytes), Some(version), !is_present),
            "replace" => (Change::replace(key, bytes), Some(version), is_present),
            "touch" => (
                Change::touch(key, 0),
                expected.and_then(|e| e.version),
                is_present,
            ),
            "cas" => {
                let is_right = self.random.random_range(0..4) > 0;
                let cas = expected.map_or(1, |expected| expected.cas.get());
                let cas = Cas::new(if is_right { cas } else { cas + 1 });
                (
                    Change::set(key, bytes).cas(cas),
                    Some(version),
                    is_present && is_right,
                )
            }
            _ => (Change::set(key, bytes), Some(version), true),
        };
        let vb = self.engine.for_key(key);
        let durability = self.durability();
        self.findings.done.writes += 1;
        match vb.write(change, durability) {
            Ok(written) => {
                if !is_allowed {
                    self.findings.violation(format!(
                        "{kind} of {key} was made, but had to be refused: the key has {expected:?}"
                    ));
                }
                self.note(vb.id(), key, acknowledged(written, after));
            }
            Err(Error::NotFound | Error::Exists { .. } | Error::CasMismatch { .. }) => {
                if is_allowed {
                    self.findings.violation(format!(
                        "{kind} of {key} was refused, but had to be made: the key has {expected:?}"
                    ));
                }
            }
            // The memory for changes is full: the write was refused and nothing changed.
            Err(Error::Busy { .. }) => {}
            Err(Error::DiskFull { .. }) => {
                self.pause_after_refusal();
                self.resolve_refused(vb.id(), key, after)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts a write that a full disk refused, and pauses. The run continues: the engine recovers
    /// by itself when there is space again.
    fn pause_after_refusal(&mut self) {
        self.findings.done.refused += 1;
        std::thread::park_timeout(REFUSED_PAUSE);
    }

    /// Returns whether a write that a full disk refused was made after all, and records it if so.
    /// It may have been given a seqno before it was refused. No other thread writes the key, so a
    /// read decides.
    fn resolve_refused(&mut self, vb: VbId, key: &str, after: Option<u64>) -> Result<bool, Error> {
        self.findings.done.gets += 1;
        let found = self.engine.for_key(key).get(key)?;
        match outcome(key, self.model.get(key), after, found.as_ref()) {
            Ok(None) => Ok(false),
            Ok(Some(made)) => {
                self.note(vb, key, made);
                Ok(true)
            }
            Err(wrong) => {
                self.findings.violation(wrong);
                Ok(false)
            }
        }
    }

    fn batch(&mut self, key: &str) -> Result<(), Error> {
        let vb = self.engine.for_key(key);
        let mut changes = Vec::new();
        let mut after = Vec::new();
        for number in 0..self.keys.min(64) {
            let other = self.key(number);
            if self.engine.for_key(&other).id() == vb.id() && changes.len() < 8 {
                let (version, bytes) = self.next_value(&other);
                changes.push(Change::set(&other, bytes));
                after.push((other, version));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let durability = self.durability();
        self.findings.done.writes += 1;
        let written = match vb.batch(&changes, durability) {
            Ok(written) => written,
            Err(Error::Busy { .. }) => return Ok(()),
            Err(Error::DiskFull { .. }) => {
                self.pause_after_refusal();
                let mut made = Vec::new();
                for (key, version) in &after {
                    made.push(self.resolve_refused(vb.id(), key, Some(*version))?);
                }
                if made.contains(&true) && made.contains(&false) {
                    let what = format!("{}: a refused batch was made in part", vb.id());
                    self.findings.violation(what);
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for ((key, version), written) in after.into_iter().zip(written) {
            self.note(vb.id(), &key, acknowledged(written, Some(version)));
        }
        Ok(())
    }

    /// Records a change that was made.
    fn note(&mut self, vb: VbId, key: &str, made: ExpectedValue) {
        self.findings.done.changes += 1;
        if made.seqno == Seqno::ZERO {
            if let Some(journal) = self.journal {
                journal.note_unknown(vb);
            }
        } else {
            let highest = self.highest.entry(vb).or_default();
            if made.seqno <= *highest {
                let what = format!(
                    "{vb}: a change has seqno {}, which is not above {highest}",
                    made.seqno
                );
                self.findings.violation(what);
            }
            *highest = made.seqno;
            if let Some(journal) = self.journal {
                let is_live = made.version.is_some();
                journal.note(vb, made.seqno, key_hash(key.as_bytes()), is_live);
            }
        }
        self.model.insert(key.to_owned(), made);
    }

    fn get(&mut self, key: &str) -> Result<(), Error> {
        self.findings.done.gets += 1;
        let found = self.engine.for_key(key).get(key)?;
        self.compare(key, found.as_ref());
        Ok(())
    }

    fn get_many(&mut self) -> Result<(), Error> {
        let key = self.key(0);
        let vb = self.engine.for_key(&key);
        let keys: Vec<String> = (0..self.keys.min(200))
            .map(|number| self.key(number))
            .filter(|other| self.engine.for_key(other).id() == vb.id())
            .collect();
        let reads = u64_from(keys.len());
        self.findings.done.gets += reads;
        for (key, found) in keys.iter().zip(vb.get_many(&keys)?) {
            self.compare(key, found.as_ref());
        }
        Ok(())
    }

    /// Reads a page of this writer's keys, and checks that it has all of them and no others.
    fn prefix(&mut self, key: &str) -> Result<(), Error> {
        let vb = self.engine.for_key(key);
        let prefix = key.get(..key.len() - 2).unwrap_or(key).to_owned();
        self.findings.done.pages += 1;
        let page = vb.prefix(prefix.clone(), PageForm::Documents)?;
        let mut found: HashMap<String, Document> = HashMap::new();
        for entry in page.entries {
            let key = String::from_utf8_lossy(&entry.key).into_owned();
            let value = entry.value.unwrap_or_default();
            found.insert(
                key,
                Document {
                    meta: entry.meta,
                    value,
                },
            );
        }
        if page.rest.is_some() {
            return Ok(());
        }
        let mine: Vec<String> = self
            .model
            .keys()
            .filter(|k| k.starts_with(&prefix))
            .cloned()
            .collect();
        for key in mine
            .iter()
            .filter(|key| self.engine.for_key(key).id() == vb.id())
        {
            let document = found.remove(key);
            self.compare(key, document.as_ref());
        }
        for key in found.into_keys() {
            self.findings
                .violation(format!("{key} is on a page, but was never written"));
        }
        Ok(())
    }

    fn compare(&mut self, key: &str, found: Option<&Document>) {
        if let Some(wrong) = difference(key, self.model.get(key), found) {
            self.findings.violation(wrong);
        }
    }
}

/// Returns the expected contents of a key after an acknowledged change.
fn acknowledged(written: WriteReceipt, version: Option<u64>) -> ExpectedValue {
    ExpectedValue {
        seqno: written.seqno,
        cas: written.cas,
        version,
    }
}
