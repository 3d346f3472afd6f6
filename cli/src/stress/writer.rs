//! A writer: owns keys of its own, so it knows what each of them must hold.

use super::findings::Findings;
use super::value;
use crate::args;
use crate::follow::{Journal, key_hash};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::HashMap;
use vbstore::{
    Cas, Change, Clock, Document, Durability, Engine, Error, PageForm, Seqno, SystemClock, VbId,
    Written,
};

/// What a key must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) seqno: Seqno,
    pub(super) cas: Cas,
    /// The version of its value, `None` if it was deleted.
    pub(super) version: Option<u64>,
}

/// What all keys of a writer must hold.
pub(super) type Model = HashMap<String, Expected>;

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

pub(super) struct Writer<'a> {
    engine: &'a Engine,
    /// For those who follow.
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

impl<'a> Writer<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        args: &args::Stress,
        number: u16,
        journal: Option<&'a Journal>,
    ) -> Self {
        let mut random =
            SmallRng::seed_from_u64(args.seed.wrapping_mul(1_000_003) ^ u64::from(number));
        // Each mix is another: some kinds are rare, some frequent, some absent.
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

    /// Does one operation and checks its answer. An error that no rule allows ends the run.
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
        self.version = self.version.saturating_add(1);
        // Mostly short, now and then as long as allowed.
        let bits = self
            .random
            .random_range(0..=self.value_max.checked_ilog2().unwrap_or(0));
        let len = self
            .random
            .random_range(0..=self.value_max.min(1_u32.checked_shl(bits).unwrap_or(1)));
        (
            self.version,
            value::make(key, self.version, usize::try_from(len).unwrap_or(0)),
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
                let cas = Cas::new(if is_right { cas } else { cas.saturating_add(1) });
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
        self.findings.done.writes = self.findings.done.writes.saturating_add(1);
        match vb.write(change, durability) {
            Ok(written) => {
                if !is_allowed {
                    self.findings
                        .violation(format!("{kind} of {key} was made, expected {expected:?}"));
                }
                self.note(vb.id(), key, written, after);
            }
            Err(Error::NotFound | Error::Exists { .. } | Error::CasMismatch { .. }) => {
                if is_allowed {
                    self.findings
                        .violation(format!("{kind} of {key} refused, expected {expected:?}"));
                }
            }
            // Refused, nothing changed: what a full memory does.
            Err(Error::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
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
        self.findings.done.writes = self.findings.done.writes.saturating_add(1);
        let written = match vb.batch(&changes, durability) {
            Ok(written) => written,
            Err(Error::Busy { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        for ((key, version), written) in after.into_iter().zip(written) {
            self.note(vb.id(), &key, written, Some(version));
        }
        Ok(())
    }

    fn note(&mut self, vb: VbId, key: &str, written: Written, version: Option<u64>) {
        self.findings.done.changes = self.findings.done.changes.saturating_add(1);
        let highest = self.highest.entry(vb).or_default();
        if written.seqno <= *highest {
            let what = format!("{vb}: seqno {} after {highest}", written.seqno);
            self.findings.violation(what);
        }
        *highest = written.seqno;
        if let Some(journal) = self.journal {
            journal.note(
                vb,
                written.seqno,
                key_hash(key.as_bytes()),
                version.is_some(),
            );
        }
        let expected = Expected {
            seqno: written.seqno,
            cas: written.cas,
            version,
        };
        self.model.insert(key.to_owned(), expected);
    }

    fn get(&mut self, key: &str) -> Result<(), Error> {
        self.findings.done.gets = self.findings.done.gets.saturating_add(1);
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
        let reads = u64::try_from(keys.len()).unwrap_or(u64::MAX);
        self.findings.done.gets = self.findings.done.gets.saturating_add(reads);
        for (key, found) in keys.iter().zip(vb.get_many(&keys)?) {
            self.compare(key, found.as_ref());
        }
        Ok(())
    }

    /// Reads a page of keys of this writer and compares what is on it, and what is not.
    fn prefix(&mut self, key: &str) -> Result<(), Error> {
        let vb = self.engine.for_key(key);
        let prefix = key
            .get(..key.len().saturating_sub(2))
            .unwrap_or(key)
            .to_owned();
        self.findings.done.pages = self.findings.done.pages.saturating_add(1);
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
                .violation(format!("{key} is on a page and was never written"));
        }
        Ok(())
    }

    fn compare(&mut self, key: &str, found: Option<&Document>) {
        if let Some(wrong) = difference(key, self.model.get(key), found) {
            self.findings.violation(wrong);
        }
    }
}

/// Returns what is wrong with a key, if anything is.
pub(super) fn difference(
    key: &str,
    expected: Option<&Expected>,
    found: Option<&Document>,
) -> Option<String> {
    let version = expected.and_then(|expected| expected.version);
    match (version, found) {
        (None, None) => None,
        (None, Some(found)) => Some(format!(
            "{key} has a value ({:?}) and should not",
            found.meta
        )),
        (Some(_), None) => Some(format!("{key} is missing, expected {expected:?}")),
        (Some(version), Some(found)) => {
            let meta = &found.meta;
            let is_as_written =
                expected.is_some_and(|e| e.seqno == meta.seqno && e.cas == meta.cas);
            match value::check(key.as_bytes(), &found.value) {
                Err(wrong) => Some(format!("the value of {key} is {wrong}")),
                Ok(other) if other != version => {
                    Some(format!("{key} has version {other}, expected {version}"))
                }
                Ok(_) if !is_as_written => {
                    Some(format!("{key} has {meta:?}, expected {expected:?}"))
                }
                Ok(_) => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vbstore::{ItemKind, ItemMeta};

    #[test]
    fn every_difference_from_what_is_expected_shows() {
        let meta = ItemMeta {
            seqno: Seqno::new(5),
            kind: ItemKind::Mutation,
            cas: Cas::new(9),
            flags: 0,
            expiry: 0,
            datatype: 0,
            value_len: 0,
        };
        let found = Document {
            meta,
            value: value::make("k", 3, 20).into(),
        };
        let expected = Expected {
            seqno: Seqno::new(5),
            cas: Cas::new(9),
            version: Some(3),
        };
        let deleted = Expected {
            version: None,
            ..expected
        };

        assert_eq!(difference("k", Some(&expected), Some(&found)), None);
        assert_eq!(difference("k", Some(&deleted), None), None);
        assert_eq!(difference("k", None, None), None);
        assert!(difference("k", Some(&expected), None).is_some());
        assert!(difference("k", None, Some(&found)).is_some());
        assert!(difference("k", Some(&deleted), Some(&found)).is_some());
        for wrong in [
            Expected {
                version: Some(2),
                ..expected
            },
            Expected {
                seqno: Seqno::new(4),
                ..expected
            },
            Expected {
                cas: Cas::new(8),
                ..expected
            },
        ] {
            assert!(difference("k", Some(&wrong), Some(&found)).is_some());
        }
        let torn = Document {
            meta,
            value: found.value.slice(..10),
        };
        assert!(difference("k", Some(&expected), Some(&torn)).is_some());
    }
}
