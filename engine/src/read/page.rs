//! Reading in key order, in bounded pages.
//!
//! A page shows the vBucket as of one seqno, memory included. ORDER: memory's newest changes of the
//! first keys of the range are collected first, under the lock, as many as the page may have, at the
//! high seqno H of that moment; the view of the disk is opened second, reads no further than they go,
//! and shows everything up to a boundary E. If E >= H the view has all of them, or newer ones, and the
//! page is the vBucket at E; otherwise whatever lies between E and H was in memory, nothing above H is
//! on disk, and the page is the vBucket at H. Either way the newer of the two changes of a key is the
//! right one. A change above H may have been a deletion that was also purged since: then the purge seqno
//! is above H, and the page is read again.
//!
//! What is collected under the lock is bounded by the page's budget, whatever is in memory.

use crate::config::SliceBudget;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::storage::{PageScan, Storage};
use crate::vbuckets::Vb;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use vbstore_core::show;
use vbstore_core::{Checkpoints, Clock, Item, ItemMeta, Seqno};

/// Which keys are asked for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    from: Bytes,
    to: Option<Bytes>,
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRange")
            .field("from", &show::Key(&self.from))
            .field("to", &self.to.as_deref().map(show::Key))
            .finish()
    }
}

impl KeyRange {
    /// Returns all keys.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns the keys from `from` (included) to `to` (not included; `None` for no end).
    #[must_use]
    pub fn new(from: impl Into<Bytes>, to: Option<Bytes>) -> Self {
        Self {
            from: from.into(),
            to,
        }
    }

    /// Returns the keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from: Bytes = prefix.into();
        // The first key after all that begin with the prefix: without trailing 0xff, last byte up.
        let mut to = from.to_vec();
        while to.pop_if(|last| *last == 0xff).is_some() {}
        let to = to.pop().map(|last| {
            to.push(last + 1);
            Bytes::from(to)
        });
        Self { from, to }
    }

    /// Returns the part of this range from `from` on: an empty range at its end if it ends before.
    #[must_use]
    pub fn starting_at(mut self, from: impl Into<Bytes>) -> Self {
        let from = from.into();
        let from = self
            .to
            .as_ref()
            .map_or(from.clone(), |to| from.min(to.clone()));
        // A range that ends before it begins stays the mistake that it is.
        self.from = from.max(self.from);
        self
    }

    /// Returns the first key of the range.
    #[must_use]
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    fn contains(&self, key: &[u8]) -> bool {
        key >= &*self.from && self.to.as_ref().is_none_or(|to| key < &**to)
    }
}

/// How much of each document a page holds. Keys and metadata need the key family alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageForm {
    /// Keys and metadata.
    Meta,
    /// Keys, metadata and values.
    Documents,
}

/// One key of a page.
#[derive(Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// The key.
    pub key: Bytes,
    /// What is known of its document.
    pub meta: ItemMeta,
    /// The value, `None` if it was not asked for.
    pub value: Option<Bytes>,
}

impl fmt::Debug for PageEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageEntry")
            .field("meta", &self.meta)
            .field("key", &show::Key(&self.key))
            .field("value", &self.value.as_deref().map(show::Length::of))
            .finish()
    }
}

/// A bounded run of keys in key order, without deleted and expired ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub entries: Vec<PageEntry>,
    /// The seqno as of which the page shows the vBucket. Another page may show a later one.
    pub as_of: Seqno,
    /// What is left of the range, `None` if nothing is. A page may be empty and have a rest, when
    /// all it passed over was deleted.
    pub rest: Option<KeyRange>,
}

/// Times a page is read again because the vBucket was deleted meanwhile.
const TRIES_MAX: u32 = 3;

/// Reads in key order.
pub(crate) struct PageReads {
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) failpoints: MaybeFailpoints,
}

impl PageReads {
    pub(crate) fn page(
        &self,
        vb: &Vb,
        range: &KeyRange,
        form: PageForm,
        budget: SliceBudget,
    ) -> Result<Page> {
        budget.validate()?;
        if range.to.as_ref().is_some_and(|to| *to < range.from) {
            return Err(Error::invalid("range", "ends before it begins"));
        }
        let storage = self.gate.lend()?;
        let with_values = form == PageForm::Documents;

        let Sources {
            mut in_memory,
            high_seqno,
            scan,
            next,
        } = self.read_sources(vb, &storage, range, with_values, budget)?;

        // The page ends where the first of the two ended, so what memory has beyond is for the next page.
        if let Some(next) = &next {
            in_memory.retain(|item| *item.key < **next);
        }
        let mut merged: BTreeMap<Bytes, PageEntry> = scan
            .rows
            .into_iter()
            .map(|row| {
                (
                    row.key.clone(),
                    PageEntry {
                        key: row.key,
                        meta: row.meta,
                        value: row.value,
                    },
                )
            })
            .collect();
        for item in in_memory {
            let is_newer = merged
                .get(&*item.key)
                .is_none_or(|disk| disk.meta.seqno < item.meta.seqno);
            if is_newer {
                let key = Bytes::copy_from_slice(&item.key);
                let value = with_values.then(|| item.value.clone());
                let entry = PageEntry {
                    key: key.clone(),
                    meta: item.meta,
                    value,
                };
                merged.insert(key, entry);
            }
        }
        // What memory added may be over the budget again.
        let mut rest = next;
        let (mut items, mut bytes) = (0_usize, 0_usize);
        let now = self.clock.wall_seconds();
        let mut entries = Vec::with_capacity(merged.len());
        for (key, entry) in merged {
            bytes += key.len() + entry.value.as_ref().map_or(0, Bytes::len);
            if items > 0 && (items >= budget.items_max || bytes > budget.bytes_max) {
                rest = Some(key);
                break;
            }
            items += 1;
            if entry.meta.is_present(now) {
                entries.push(entry);
            }
        }
        let rest = rest.map(|from| KeyRange {
            from,
            to: range.to.clone(),
        });
        Ok(Page {
            entries,
            as_of: high_seqno.max(scan.persisted_seqno),
            rest,
        })
    }

    fn read_sources(
        &self,
        vb: &Vb,
        storage: &Storage,
        range: &KeyRange,
        with_values: bool,
        budget: SliceBudget,
    ) -> Result<Sources> {
        for _ in 0..TRIES_MAX {
            // ORDER: memory first, view second; see above.
            let inner = vb.cell.lock();
            let generation = vb.cell.generation();
            let high_seqno = inner.checkpoints.high_seqno();
            let (in_memory, memory_next) = collect(&inner.checkpoints, range, with_values, budget);
            drop(inner);
            let memory_next = memory_next.map(|item| Bytes::copy_from_slice(&item.key));
            let to = memory_next.as_ref().or(range.to.as_ref());
            let to = to.map(|to| &**to);
            let seam = || self.failpoints.pass(place::PAGE_VIEW);
            let scan = storage.scan_page(vb.id(), &range.from, to, with_values, budget, seam);
            if vb.cell.generation() != generation {
                // Deleted in between: memory and view are of two lives of the vBucket, and the view may have
                // lost documents that its index still has; see `read::life`.
                continue;
            }
            let mut scan = scan?;
            // Else it was purged in between; see above.
            if scan.purge_seqno <= high_seqno {
                let next = scan.next.take().or(memory_next);
                return Ok(Sources {
                    in_memory,
                    high_seqno,
                    scan,
                    next,
                });
            }
        }
        Err(Error::VbGone { vb: vb.id() })
    }
}

/// What a page is made from: changes in memory, and a view of the disk that is newer.
struct Sources {
    /// In key order.
    in_memory: Vec<Arc<Item>>,
    high_seqno: Seqno,
    scan: PageScan,
    /// The first key of the range that one of the two has not looked at; `None` if both have looked at
    /// all.
    next: Option<Bytes>,
}

/// Takes memory's changes of the first keys of the range, within the budget, and the one after them. The
/// caller holds the vBucket's lock.
fn collect(
    checkpoints: &Checkpoints,
    range: &KeyRange,
    with_values: bool,
    budget: SliceBudget,
) -> (Vec<Arc<Item>>, Option<Arc<Item>>) {
    let mut taken: Vec<Arc<Item>> = Vec::new();
    let mut next = None;
    let mut bytes = 0;
    checkpoints.visit_from(&range.from, |item| {
        if !range.contains(&item.key) {
            return false;
        }
        bytes += item.key.len() + if with_values { item.value.len() } else { 0 };
        let is_over = taken.len() >= budget.items_max || bytes > budget.bytes_max;
        if is_over && !taken.is_empty() {
            next = Some(Arc::clone(item));
            return false;
        }
        taken.push(Arc::clone(item));
        true
    });
    (taken, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_range_is_a_range() {
        let range = KeyRange::new("b", Some("d".into()));
        assert_eq!(range.clone().starting_at("a"), range);
        let rest = range.clone().starting_at("c");
        assert_eq!(rest, KeyRange::new("c", Some("d".into())));
        for beyond in ["d", "e"] {
            let empty = range.clone().starting_at(beyond);
            assert_eq!(empty, KeyRange::new("d", Some("d".into())), "{beyond}");
        }
        let open = KeyRange::all().starting_at("z");
        assert_eq!(open, KeyRange::new("z", None));
    }

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        let range = KeyRange::prefix(&b"ab"[..]);
        assert!(range.contains(b"ab") && range.contains(b"ab\xff\xff"));
        assert!(!range.contains(b"ac") && !range.contains(b"aa"));

        let range = KeyRange::prefix(&b"a\xff"[..]);
        assert!(range.contains(b"a\xff\xff") && !range.contains(b"b"));

        let range = KeyRange::prefix(&b"\xff\xff"[..]);
        assert_eq!(range.to, None);
        assert!(range.contains(b"\xff\xff\xff") && !range.contains(b"\xff\xfe"));
        assert_eq!(KeyRange::prefix(Bytes::new()), KeyRange::all());
    }
}
