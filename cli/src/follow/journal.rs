//! A journal of the contents of each vBucket at every seqno, as recorded by the writers.

use super::replica::Replica;
use crate::number::u64_from;
use std::collections::BTreeMap;
use std::sync::Mutex;
use vbstore::{Seqno, VbId};

/// The digests of all vBuckets at all seqnos. Writers record their changes in any order; the digest
/// at a seqno is known once every change up to it is recorded.
#[derive(Debug)]
pub(crate) struct Journal {
    vbs: Vec<Mutex<VbDigests>>,
}

#[derive(Debug, Default)]
struct VbDigests {
    /// The digest at each seqno, from 0 on.
    digests: Vec<u64>,
    copy: Replica,
    /// Changes that were recorded before an earlier one, by seqno: the hash of the key, and whether
    /// it has a value.
    early: BTreeMap<u64, (u64, bool)>,
    /// A change was made whose seqno its writer does not know: the digests from there on stay
    /// unknown.
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

    /// Records a change and its seqno.
    pub(crate) fn note(&self, vb: VbId, seqno: Seqno, key: u64, is_live: bool) {
        let Some(mut vb_digests) = self.of(vb) else {
            return;
        };
        vb_digests.early.insert(seqno.get(), (key, is_live));
        loop {
            let next = u64_from(vb_digests.digests.len());
            let Some((key, is_live)) = vb_digests.early.remove(&next) else {
                return;
            };
            vb_digests.copy.apply(key, Seqno::new(next), is_live);
            let digest = vb_digests.copy.digest();
            vb_digests.digests.push(digest);
        }
    }

    /// Records that a change was made whose seqno the writer does not know.
    pub(crate) fn note_unknown(&self, vb: VbId) {
        if let Some(mut vb_digests) = self.of(vb) {
            vb_digests.has_gap = true;
        }
    }

    /// Returns whether the seqno of every recorded change of a vBucket is known.
    pub(crate) fn is_complete(&self, vb: VbId) -> bool {
        self.of(vb).is_some_and(|vb_digests| !vb_digests.has_gap)
    }

    /// Returns the digest at a seqno; `None` if it is not known.
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
    fn a_digest_is_known_when_every_earlier_change_is_recorded() {
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
