//! Reading in key order, in bounded pages.
//!
//! # Protocol
//! A page shows the vBucket as of one seqno, including changes that are only in memory. ORDER:
//! collect from memory first, open the view of the disk second.
//!
//! 1. Under the vBucket's lock, collect the newest changes in memory of the first keys of the
//!    range. H is the high seqno of that moment. The page's budget bounds how much is collected,
//!    however much is in memory.
//! 2. Open the view, and read no further than the last collected key. The view shows everything up
//!    to a boundary E.
//!
//! If E >= H, the view contains all collected changes or newer ones, and the page is the vBucket at
//! E. Otherwise the changes between E and H were in memory, and nothing above H is on disk, so the
//! page is the vBucket at H. In both cases, if memory and disk have a change of one key, the newer
//! change belongs on the page.
//!
//! There is one exception. A change above H may have been a deletion whose tombstone has been
//! purged since. Then the purge seqno is above H, and the page is read again.

use crate::config::SliceBudget;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::storage::{PageRow, PageScan, Storage};
use crate::vbuckets::Vb;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use vbstore_core::show;
use vbstore_core::{Checkpoints, Clock, Item, ItemMeta, Seqno};

/// A range of keys in key order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    from: Bytes,
    to: Option<Bytes>,
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRange")
            .field("from", &show::DebugKey(&self.from))
            .field("to", &self.to.as_deref().map(show::DebugKey))
            .finish()
    }
}

impl KeyRange {
    /// Returns the range of all keys.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Returns the range of keys from `from` (inclusive) to `to` (exclusive; `None` for no end).
    #[must_use]
    pub fn new(from: impl Into<Bytes>, to: Option<Bytes>) -> Self {
        Self {
            from: from.into(),
            to,
        }
    }

    /// Returns the range of keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let from: Bytes = prefix.into();
        // The first key after all with the prefix: drop trailing 0xff bytes, increment the last
        // byte.
        let mut to = from.to_vec();
        while to.pop_if(|last| *last == 0xff).is_some() {}
        let to = to.pop().map(|last| {
            to.push(last + 1);
            Bytes::from(to)
        });
        Self { from, to }
    }

    /// Returns the part of this range that starts at `from`. It is empty if `from` is past the end.
    #[must_use]
    pub fn starting_at(mut self, from: impl Into<Bytes>) -> Self {
        let from = from.into();
        let from = self
            .to
            .as_ref()
            .map_or(from.clone(), |to| from.min(to.clone()));
        // `max` keeps a range whose end is before its start unchanged, so that reading it fails.
        self.from = from.max(self.from);
        self
    }

    /// Returns the first key of the range, which need not exist.
    #[must_use]
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    fn contains(&self, key: &[u8]) -> bool {
        key >= &*self.from && self.to.as_ref().is_none_or(|to| key < &**to)
    }
}

/// What a page contains of each document. Without values, only the key family is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageForm {
    /// Keys and metadata.
    Meta,
    /// Keys, metadata and values.
    Documents,
}

/// A document in a page.
#[derive(Clone, PartialEq, Eq)]
pub struct PageEntry {
    /// The key of the document.
    pub key: Bytes,
    /// Seqno, kind, CAS, flags, expiry, datatype and value length.
    pub meta: ItemMeta,
    /// The value; `None` if it was not requested.
    pub value: Option<Bytes>,
}

impl fmt::Debug for PageEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageEntry")
            .field("meta", &self.meta)
            .field("key", &show::DebugKey(&self.key))
            .field("value", &self.value.as_deref().map(show::DebugLength::of))
            .finish()
    }
}

/// A bounded run of documents in key order. Deleted and expired ones are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The documents in key order.
    pub entries: Vec<PageEntry>,
    /// The seqno as of which the page shows the vBucket. The next page may show a later seqno.
    pub as_of: Seqno,
    /// The rest of the range; `None` if the range is complete. An empty page may have a rest, if
    /// everything that it visited was deleted or expired.
    pub rest: Option<KeyRange>,
}

/// Attempts to read a page while the vBucket is deleted, or its tombstones are purged.
const TRIES_MAX: u32 = 3;

/// Reads pages in key order.
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
            return Err(Error::invalid("range", "the end is before the start"));
        }
        let storage = self.gate.acquire()?;
        let with_values = form == PageForm::Documents;

        let PageSources {
            mut in_memory,
            high_seqno,
            scan,
            next,
        } = self.read_sources(vb, &storage, range, with_values, budget)?;

        // The page ends where the first of the two sources ended. Beyond it the sources would not
        // match.
        if let Some(next) = &next {
            in_memory.retain(|item| *item.key < **next);
        }
        let merged = merge(scan.rows, in_memory, with_values);
        // Each source respects the budget, but both together may exceed it.
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
    ) -> Result<PageSources> {
        for _ in 0..TRIES_MAX {
            // ORDER: memory first, view second; see the module docs.
            let inner = vb.cell.lock();
            let generation = vb.cell.generation();
            let high_seqno = inner.checkpoints.high_seqno();
            let (in_memory, memory_next) = collect(&inner.checkpoints, range, with_values, budget);
            drop(inner);
            let memory_next = memory_next.map(|item| Bytes::copy_from_slice(&item.key));
            let to = memory_next.as_ref().or(range.to.as_ref());
            let to = to.map(|to| &**to);
            let test_hook = || self.failpoints.pass(place::PAGE_VIEW);
            let scan = storage.scan_page(vb.id(), &range.from, to, with_values, budget, test_hook);
            if vb.cell.generation() != generation {
                // Deleted meanwhile: memory and view are of different generations, and the view may
                // lack documents that its index has; see `read::generation`.
                continue;
            }
            let mut scan = scan?;
            // Otherwise a tombstone above `high_seqno` was purged meanwhile; see the module docs.
            if scan.purge_seqno <= high_seqno {
                let next = scan.next.take().or(memory_next);
                return Ok(PageSources {
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

/// The two sources of a page: changes in memory, and a view of the disk that is newer.
struct PageSources {
    /// In key order.
    in_memory: Vec<Arc<Item>>,
    high_seqno: Seqno,
    scan: PageScan,
    /// The first key of the range that a source has not visited; `None` if both have visited all.
    next: Option<Bytes>,
}

/// Collects the changes in memory of the first keys of the range, within the budget. Also returns
/// the first change that did not fit. The caller holds the vBucket's lock.
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

/// Returns the newer of the two changes of each key, tombstones included.
fn merge(
    on_disk: Vec<PageRow>,
    in_memory: Vec<Arc<Item>>,
    with_values: bool,
) -> BTreeMap<Bytes, PageEntry> {
    let mut merged: BTreeMap<Bytes, PageEntry> = on_disk
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
    merged
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
