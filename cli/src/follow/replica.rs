//! A copy of a vBucket that holds only what a comparison needs: the seqno of each key.

use crate::output::CommandError;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use vbstore::{KeyRange, PageForm, Seqno, VBucket};

/// Returns the hash that stands for a key.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The keys that have a value, with their seqnos. Two copies with the same digest are equal, except
/// for a collision of 64-bit hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    /// Hash of the key to seqno.
    live: HashMap<u64, u64>,
    digest: u64,
}

impl Replica {
    /// Returns a copy of the current contents of a vBucket.
    pub(crate) fn of(vb: &VBucket) -> Result<Self, CommandError> {
        let mut copy = Self::default();
        let mut next = Some(KeyRange::all());
        while let Some(range) = next {
            let page = vb.range(&range, PageForm::Meta)?;
            for entry in &page.entries {
                copy.apply(key_hash(&entry.key), entry.meta.seqno, true);
            }
            next = page.rest;
        }
        Ok(copy)
    }

    pub(crate) fn apply(&mut self, key: u64, seqno: Seqno, is_live: bool) {
        let before = if is_live {
            self.live.insert(key, seqno.get())
        } else {
            self.live.remove(&key)
        };
        // The digest is the sum over all entries, so the order of the changes does not matter.
        if let Some(before) = before {
            self.digest = self.digest.wrapping_sub(entry(key, before));
        }
        if is_live {
            self.digest = self.digest.wrapping_add(entry(key, seqno.get()));
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

fn entry(key: u64, seqno: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, seqno).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_the_contents_and_not_on_the_order_of_changes() {
        let (mut a, mut b) = (Replica::default(), Replica::default());
        a.apply(1, Seqno::new(1), true);
        a.apply(2, Seqno::new(2), true);
        a.apply(1, Seqno::new(3), true);
        b.apply(1, Seqno::new(3), true);
        assert_ne!(a.digest(), b.digest());
        b.apply(2, Seqno::new(2), true);
        assert_eq!(a.digest(), b.digest());
        a.apply(2, Seqno::new(4), false);
        assert_ne!(a.digest(), b.digest());
        a.apply(1, Seqno::new(5), false);
        assert_eq!(a.digest(), Replica::default().digest());
    }
}
