//! What a vBucket held at every seqno, told by its writers.

use super::replica::Replica;
use crate::number::u64_from;
use std::collections::BTreeMap;
use std::sync::Mutex;
use vbstore::{Seqno, VbId};

/// The digests of all vBuckets at all seqnos. Writers tell in any order; what is known is what has
/// no gap below it.
#[derive(Debug)]
pub(crate) struct Journal {
    vbs: Vec<Mutex<VbDigests>>,
}

#[derive(Debug, Default)]
struct VbDigests {
    /// The digest at each seqno, from 0 on.
    digests: Vec<u64>,
    copy: Replica,
    /// Told before what comes before it.
    early: BTreeMap<u64, (u64, bool)>,
    /// A change was made at a seqno that nobody knows: nothing above it will ever be known.
    has_gap: bool,
}

impl Journal {
    pub(crate) fn new(vbuckets: u16) -> Self {
        let empty = || {
            Mutex::new(VbDigests {
                digests: vec![Replica::default().digest()],
                ..VbDigests::default()
            })
        };
        Self {
            vbs: (0..vbuckets).map(|_| empty()).collect(),
        }
    }

    /// Notes a change that was given a seqno.
    pub(crate) fn note(&self, vb: VbId, seqno: Seqno, key: u64, is_live: bool) {
        let Some(mut told) = self.of(vb) else {
            return;
        };
        told.early.insert(seqno.get(), (key, is_live));
        loop {
            let next = u64_from(told.digests.len());
            let Some((key, is_live)) = told.early.remove(&next) else {
                return;
            };
            told.copy.apply(key, Seqno::new(next), is_live);
            let digest = told.copy.digest();
            told.digests.push(digest);
        }
    }

    /// Notes that a change was made whose seqno the writer was not told.
    pub(crate) fn note_unknown(&self, vb: VbId) {
        if let Some(mut told) = self.of(vb) {
            told.has_gap = true;
        }
    }

    /// Returns whether every change of a vBucket that was made has been noted.
    pub(crate) fn is_complete(&self, vb: VbId) -> bool {
        self.of(vb).is_some_and(|told| !told.has_gap)
    }

    /// Returns the digest at a seqno, `None` if it is not known yet.
    pub(crate) fn digest_at(&self, vb: VbId, seqno: Seqno) -> Option<u64> {
        let at = usize::try_from(seqno.get()).ok()?;
        self.of(vb)?.digests.get(at).copied()
    }

    fn of(&self, vb: VbId) -> Option<std::sync::MutexGuard<'_, VbDigests>> {
        // A writer that panicked has ended the run anyway.
        self.vbs.get(vb.index())?.lock().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_gap_below_it_is_not_known_yet() {
        let journal = Journal::new(1);
        let vb = VbId::new(0);
        journal.note(vb, Seqno::new(2), 7, true);
        assert_eq!(journal.digest_at(vb, Seqno::new(2)), None);
        journal.note(vb, Seqno::new(1), 8, true);
        let mut copy = Replica::default();
        assert_eq!(journal.digest_at(vb, Seqno::ZERO), Some(copy.digest()));
        copy.apply(8, Seqno::new(1), true);
        assert_eq!(journal.digest_at(vb, Seqno::new(1)), Some(copy.digest()));
        copy.apply(7, Seqno::new(2), true);
        assert_eq!(journal.digest_at(vb, Seqno::new(2)), Some(copy.digest()));
        assert!(journal.is_complete(vb));
        journal.note_unknown(vb);
        assert!(!journal.is_complete(vb));
    }
}
