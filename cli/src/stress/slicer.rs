//! A reader of slices, which reads and checks all vBuckets in turn while writers change them.

use super::findings::Findings;
use super::value;
use std::collections::HashSet;
use vbstore::{Clock, Engine, Error, Seqno, SeqnoRange, SliceBudget, SliceEnd, SystemClock, VbId};

pub(super) struct StressSlicer<'a> {
    engine: &'a Engine,
    vb: u16,
    range: SeqnoRange,
    persisted: Seqno,
    clock: SystemClock,
    pub(super) findings: Findings,
}

impl<'a> StressSlicer<'a> {
    pub(super) fn new(engine: &'a Engine, number: u16) -> Self {
        Self {
            engine,
            // Slicers begin at different vBuckets.
            vb: number.wrapping_mul(7) % engine.vbuckets(),
            range: SeqnoRange::above(Seqno::ZERO),
            persisted: Seqno::ZERO,
            clock: SystemClock::new(),
            findings: Findings::default(),
        }
    }

    /// Reads one slice and checks it.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        let id = VbId::new(self.vb);
        let start = self.clock.monotonic();
        let slice = self
            .engine
            .vbucket(id)?
            .scan_slice(self.range, SliceBudget::default())?;
        self.findings
            .count("slice", self.clock.monotonic().saturating_sub(start));
        self.findings.slices += 1;

        let mut last = self.range.after;
        let mut keys = HashSet::with_capacity(slice.len());
        for item in slice.items() {
            let seqno = item.meta.seqno;
            self.findings.slice_items += 1;
            if seqno <= last || seqno > slice.persisted_seqno() || item.prev_seqno >= seqno {
                self.findings
                    .violation(format!("{id}: seqno {seqno} follows {last} in a slice"));
            }
            last = seqno;
            if !keys.insert(item.key) {
                let key = String::from_utf8_lossy(item.key);
                self.findings
                    .violation(format!("{id}: {key} is twice in one slice"));
            }
            if item.meta.kind.is_live()
                && let Err(wrong) = value::check(item.key, item.value)
            {
                self.findings
                    .violation(format!("{id}: the value at seqno {seqno} is {wrong}"));
            }
        }
        if slice.persisted_seqno() < self.persisted || slice.position() < last {
            self.findings.violation(format!(
                "{id}: a slice ended before its last seqno, or was older than the slice before it"
            ));
        }
        let is_whole = slice.end() == SliceEnd::Complete;
        if is_whole && self.range.after == Seqno::ZERO {
            let counts = slice.counts();
            let live = slice
                .items()
                .filter(|item| item.meta.kind.is_live())
                .count();
            if u64::try_from(live).ok() != Some(counts.items) {
                self.findings.violation(format!(
                    "{id}: a slice of the whole vBucket has {live} documents, but counts {counts:?}"
                ));
            }
        }
        self.persisted = slice.persisted_seqno();
        self.range.after = slice.position();
        if is_whole {
            self.vb = (self.vb + 1) % self.engine.vbuckets();
            self.range = SeqnoRange::above(Seqno::ZERO);
            self.persisted = Seqno::ZERO;
        }
        Ok(())
    }
}
