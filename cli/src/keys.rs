//! `keys`: prints the keys of all vBuckets in key order.
//!
//! Each vBucket is read in pages. A heap holds the next key of each vBucket, and yields the
//! smallest.

use crate::args::KeysArgs;
use crate::output::{CommandError, CommandResult, DONE, Output};
use crate::stop::StopFlag;
use crate::{bytes, record, store};
use serde_json::json;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use vbstore::{KeyRange, PageEntry, PageForm, SliceBudget, VBucket};

/// Limits for the keys in memory, over all vBuckets: their number and their bytes.
const ENTRIES_MAX: usize = 1 << 16;
const BYTES_MAX: usize = 16 << 20;
/// Smallest limits for one page, however many vBuckets share the limits above.
const PAGE_ENTRIES_MIN: usize = 16;
const PAGE_BYTES_MIN: usize = 64 << 10;

pub(crate) fn run(args: &KeysArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let range = KeyRange::prefix(bytes::argument("--prefix", &args.prefix, args.base64)?);
    let range = range.starting_at(bytes::argument("--from", &args.from, args.base64)?);
    let engine = store::open_to_read(&args.dir, args.reading)?;
    let vbs = store::vbuckets(&engine, args.vb)?;
    let mut merged = Merged::new(vbs, &range, args.limit)?;
    let mut printed = 0;
    while args.limit.is_none_or(|limit| printed < limit) {
        if stop.is_asked() {
            engine.close()?;
            return Err(CommandError::interrupted(
                "interrupted: not every key was printed",
            ));
        }
        let Some((vb, entry)) = merged.next()? else {
            break;
        };
        print(args, vb, &entry, out)?;
        printed += 1;
    }
    out.flush()?;
    engine.close()?;
    Ok(DONE)
}

fn print(
    args: &KeysArgs,
    vb: u16,
    entry: &PageEntry,
    out: &mut Output,
) -> Result<(), CommandError> {
    if out.is_json {
        let key = if args.base64 {
            json!({"base64": bytes::base64(&entry.key)})
        } else {
            record::text(&entry.key)
        };
        return out.line(json!({
            "key": key,
            "vb": vb,
            "seqno": entry.meta.seqno.get(),
            "cas": entry.meta.cas.get(),
            "expiry": entry.meta.expiry,
            "value_len": entry.meta.value_len,
        }));
    }
    if args.base64 {
        out.line(bytes::base64(&entry.key))
    } else {
        out.line(bytes::line(&entry.key))
    }
}

/// The keys of one vBucket that are not printed yet.
struct Source {
    vb: VBucket,
    page: std::vec::IntoIter<PageEntry>,
    /// The range after the page; `None` if the page is the last.
    rest: Option<KeyRange>,
}

struct Merged {
    sources: Vec<Source>,
    /// The next key of each source that has one.
    heads: BinaryHeap<Reverse<Head>>,
    budget: SliceBudget,
}

/// The next key of a source. Ordered by the key.
struct Head {
    entry: PageEntry,
    /// The index of the source.
    at: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // A key is in one vBucket only, so the index never decides; it makes the order total.
        let by_key = self.entry.key.cmp(&other.entry.key);
        by_key.then(self.at.cmp(&other.at))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

impl Merged {
    /// Reads the first page of each vBucket. No page has more than `limit` keys, as no more are
    /// printed.
    fn new(vbs: Vec<VBucket>, range: &KeyRange, limit: Option<u64>) -> Result<Self, CommandError> {
        let share = |of: usize| of / vbs.len().max(1);
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        let items_max = share(ENTRIES_MAX).max(PAGE_ENTRIES_MIN);
        let budget = SliceBudget {
            items_max: items_max.min(limit.unwrap_or(usize::MAX)).max(1),
            bytes_max: share(BYTES_MAX).max(PAGE_BYTES_MIN),
            ..SliceBudget::default()
        };
        let source = |vb| Source {
            vb,
            page: Vec::new().into_iter(),
            rest: Some(range.clone()),
        };
        let sources: Vec<Source> = vbs.into_iter().map(source).collect();
        let mut merged = Self {
            heads: BinaryHeap::with_capacity(sources.len()),
            sources,
            budget,
        };
        for at in 0..merged.sources.len() {
            merged.advance(at)?;
        }
        Ok(merged)
    }

    /// Pushes the next key of a source onto the heap, if it has one.
    fn advance(&mut self, at: usize) -> Result<(), CommandError> {
        let Some(source) = self.sources.get_mut(at) else {
            return Ok(());
        };
        loop {
            if let Some(entry) = source.page.next() {
                self.heads.push(Reverse(Head { entry, at }));
                return Ok(());
            }
            // A page may be empty without being the last, so this loops.
            let Some(range) = source.rest.take() else {
                return Ok(());
            };
            let page = source
                .vb
                .range_within(&range, PageForm::Meta, self.budget)?;
            source.page = page.entries.into_iter();
            source.rest = page.rest;
        }
    }

    /// Returns the next key in key order, and its vBucket.
    fn next(&mut self) -> Result<Option<(u16, PageEntry)>, CommandError> {
        let Some(Reverse(Head { entry, at })) = self.heads.pop() else {
            return Ok(None);
        };
        self.advance(at)?;
        let vb = self.sources.get(at).map_or(0, |of| of.vb.id().get());
        Ok(Some((vb, entry)))
    }
}
