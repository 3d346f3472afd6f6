//! From checkpoints to one batch.

use super::retire::{PreviousNeededBy, retire_previous};
use crate::error::{Error, Result};
use crate::numbers::count as number_of;
use crate::storage::{Batch, Storage};
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_core::checkpoint::Entry;
use vbstore_core::record::{Counts, Document, DocumentHead, VbState};
use vbstore_core::{ItemMeta, Previous, Sealed, Seqno, VbId};
use vbstore_metrics::EngineMetrics;

/// What one vBucket brings to a flush.
pub(super) struct Unit {
    pub(super) vb: Arc<Vb>,
    /// Its checkpoints after the persistence cursor, oldest first.
    pub(super) taken: Vec<Arc<Sealed>>,
    /// Its state: before the flush when taken, after it when built.
    pub(super) state: VbState,
}

impl Unit {
    fn entries(&self) -> impl Iterator<Item = (&Entry, bool)> {
        self.taken.iter().flat_map(|sealed| {
            let end = sealed.end();
            sealed
                .entries()
                .iter()
                .map(move |entry| (entry, entry.item.meta.seqno == end))
        })
    }
}

/// Builds the batch and brings each unit's state up to it.
pub(super) fn build<'s>(
    storage: &'s Storage,
    units: &mut [Unit],
    metrics: &EngineMetrics,
) -> Result<Batch<'s>> {
    let mut looked_up = look_up_unknown(storage, units, metrics)?.into_iter();
    let mut batch = Batch::new(storage);
    let needed_by = PreviousNeededBy::Nobody;
    for unit in units {
        let vb = unit.vb.id();
        let mut counts = unit.state.counts;
        let mut high_seqno = unit.state.high_seqno;
        for (entry, is_last_of_checkpoint) in unit.entries() {
            let previous = match known(entry, unit.state.purge_seqno) {
                Previous::None => None,
                Previous::Known(meta) => Some(meta),
                Previous::Unknown => next_looked_up(&mut looked_up),
            };
            let item = &entry.item;
            let seqno = item.meta.seqno;
            let prev_seqno = previous.map_or(Seqno::ZERO, |previous| previous.seqno);
            if prev_seqno >= seqno || seqno <= high_seqno {
                let detail = format!(
                    "seqno {seqno} would be written after {high_seqno}, replacing {prev_seqno}"
                );
                return Err(disagreement(unit, detail));
            }
            counts = count(counts, item.key.len(), previous, item.meta)
                .ok_or_else(|| disagreement(unit, format!("counts do not allow seqno {seqno}")))?;
            let head = DocumentHead {
                meta: item.meta,
                is_last_of_checkpoint,
                prev_seqno,
            };
            batch.put_document(
                vb,
                &Document {
                    head,
                    key: &item.key,
                    value: &item.value,
                },
            )?;
            batch.put_index(vb, &item.key, item.meta)?;
            if let Some(previous) = previous {
                retire_previous(&mut batch, vb, previous.seqno, seqno, needed_by)?;
            }
            high_seqno = seqno;
        }
        unit.state.counts = counts;
        unit.state.high_seqno = high_seqno;
        batch.put_state(vb, &unit.state)?;
    }
    Ok(batch)
}

/// Returns what was looked up for the next entry whose previous change was not known: they come in the
/// order in which they were looked up.
#[expect(
    clippy::expect_used,
    reason = "each entry that is not known was looked up"
)]
fn next_looked_up(looked_up: &mut impl Iterator<Item = Option<ItemMeta>>) -> Option<ItemMeta> {
    looked_up.next().expect("fewer look-ups than entries")
}

/// What is known of the change that an entry replaces on disk. A tombstone may have been purged since
/// that was noted; up to the purge seqno the disk has to be asked.
fn known(entry: &Entry, purge_seqno: Seqno) -> Previous {
    match entry.previous {
        Previous::Known(meta) if !meta.kind.is_live() && meta.seqno <= purge_seqno => {
            Previous::Unknown
        }
        previous => previous,
    }
}

/// Looks up, in one batched read over all families, what memory and writers did not know.
fn look_up_unknown(
    storage: &Storage,
    units: &[Unit],
    metrics: &EngineMetrics,
) -> Result<Vec<Option<ItemMeta>>> {
    let mut keys: Vec<(VbId, &[u8])> = Vec::new();
    for unit in units {
        let purge_seqno = unit.state.purge_seqno;
        let unknown = unit
            .entries()
            .filter(|(entry, _)| known(entry, purge_seqno) == Previous::Unknown);
        keys.extend(unknown.map(|(entry, _)| (unit.vb.id(), &*entry.item.key)));
    }
    metrics.previous_lookups.add(number_of(keys.len()));
    if keys.is_empty() {
        Ok(Vec::new())
    } else {
        storage.index_entries(&keys)
    }
}

/// Returns the counts after a change, or `None` if they cannot have been right before.
fn count(
    counts: Counts,
    key_len: usize,
    previous: Option<ItemMeta>,
    new: ItemMeta,
) -> Option<Counts> {
    let bytes = |meta: ItemMeta| number_of(key_len) + u64::from(meta.value_len);
    let mut after = counts;
    match previous {
        None => {}
        Some(old) if old.kind.is_live() => {
            after.items = after.items.checked_sub(1)?;
            after.bytes = after.bytes.checked_sub(bytes(old))?;
        }
        Some(_) => after.tombstones = after.tombstones.checked_sub(1)?,
    }
    if new.kind.is_live() {
        after.items = after.items.checked_add(1)?;
        after.bytes = after.bytes.checked_add(bytes(new))?;
    } else {
        after.tombstones = after.tombstones.checked_add(1)?;
    }
    Some(after)
}

/// What is wrong with what is on disk, or with what is about to be.
fn disagreement(unit: &Unit, detail: impl Into<String>) -> Error {
    Error::corrupt_record(unit.vb.id(), None, detail)
}
