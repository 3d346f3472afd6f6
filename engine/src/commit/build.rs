//! Building one batch from checkpoints.
//!
//! Each vBucket's part is planned first, and put into the batch second. If planning fails for a
//! vBucket, the batch contains nothing of that vBucket, and everything of the others.

use super::retire::{PreviousNeededBy, retire_previous};
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::numbers::count as to_u64;
use crate::storage::{RecordBatch, Storage};
use crate::vbuckets::Vb;
use std::collections::HashMap;
use std::sync::Arc;
use vbstore_core::checkpoint::CheckpointEntry;
use vbstore_core::record::{Counts, DocumentHead, DocumentRecord, VbState};
use vbstore_core::{ItemMeta, SealedCheckpoint, Seqno};
use vbstore_metrics::EngineMetrics;

/// The part of one vBucket in a flush.
pub(super) struct FlushUnit {
    pub(super) vb: Arc<Vb>,
    /// Its checkpoints after the persistence cursor, oldest first.
    pub(super) taken: Vec<Arc<SealedCheckpoint>>,
    /// The vBucket's state. [`build`] replaces the state before the flush by the state after it.
    pub(super) state: VbState,
}

impl FlushUnit {
    /// Returns all changes, each with whether it is the last of its checkpoint.
    fn entries(&self) -> impl Iterator<Item = (&CheckpointEntry, bool)> {
        self.taken.iter().flat_map(|sealed| {
            let end = sealed.end();
            sealed
                .entries()
                .iter()
                .map(move |entry| (entry, entry.item.meta.seqno == end))
        })
    }
}

/// A batch, and the outcome of each unit.
pub(super) struct BuiltBatch<'s> {
    pub(super) batch: RecordBatch<'s>,
    /// The number of changes in the batch.
    pub(super) items: u64,
    /// The number of changes not written because the batch has a newer change of the same key.
    pub(super) replaced: u64,
    /// The vBuckets that are left out of the batch, with the reasons.
    pub(super) failed: Vec<(Arc<Vb>, Error)>,
}

/// A change to be written.
struct BatchRow<'u> {
    entry: &'u CheckpointEntry,
    is_last_of_checkpoint: bool,
    /// The change of the same key on disk that it replaces.
    previous: Option<ItemMeta>,
}

/// One unit's part of the batch.
struct UnitPlan<'u> {
    rows: Vec<BatchRow<'u>>,
    /// The number of changes that a newer change of the same key replaces.
    replaced: u64,
    /// The vBucket's state after the flush.
    state: VbState,
}

/// Builds the batch. Replaces the state of each unit in it by the state after the flush.
pub(super) fn build<'s>(
    storage: &'s Storage,
    units: &mut [FlushUnit],
    failpoints: &MaybeFailpoints,
    metrics: &EngineMetrics,
) -> Result<BuiltBatch<'s>> {
    let mut built = BuiltBatch {
        batch: RecordBatch::new(storage),
        items: 0,
        replaced: 0,
        failed: Vec::new(),
    };
    for unit in units {
        let planned = look_up_purged(storage, unit, failpoints, metrics)
            .and_then(|looked_up| plan(unit, looked_up));
        match planned {
            Ok(plan) => {
                put(&mut built.batch, unit, &plan)?;
                built.items += to_u64(plan.rows.len());
                built.replaced += plan.replaced;
                unit.state = plan.state;
            }
            Err(error) => built.failed.push((Arc::clone(&unit.vb), error)),
        }
    }
    Ok(built)
}

/// Plans a unit's part of the batch. If several checkpoints of the unit change a key, only the
/// newest change is written. On disk it replaces the change that the oldest of them would have
/// replaced. That is correct because the disk shows the unit as a whole or not at all, and at its
/// end only the newest change of a key is left.
fn plan(unit: &FlushUnit, looked_up: Vec<Option<ItemMeta>>) -> Result<UnitPlan<'_>> {
    let mut looked_up = looked_up.into_iter();
    let mut state = unit.state;
    let mut rows = Vec::new();
    let mut replaced = 0;
    let newest = newest_of_each_key(unit);
    // For each key whose older changes in this unit are not written: the change on disk that the
    // oldest of them would have replaced.
    let mut inherited: HashMap<&[u8], Option<ItemMeta>> = HashMap::new();
    for (entry, is_last_of_checkpoint) in unit.entries() {
        let previous = if may_be_purged(entry, unit.state.purge_seqno) {
            next_looked_up(&mut looked_up)
        } else {
            entry.previous
        };
        let item = &entry.item;
        let seqno = item.meta.seqno;
        let previous = inherited.remove(&*item.key).unwrap_or(previous);
        if newest.get(&*item.key).is_some_and(|newest| *newest > seqno) {
            inherited.insert(&item.key, previous);
            replaced += 1;
            continue;
        }
        // Seqnos only rise. Anything else means that memory and disk disagree.
        let prev_seqno = previous.map_or(Seqno::ZERO, |previous| previous.seqno);
        if prev_seqno >= seqno || seqno <= state.high_seqno {
            let after = state.high_seqno;
            let detail =
                format!("seqno {seqno} would follow seqno {after} and replace seqno {prev_seqno}");
            return Err(disagreement(unit, detail));
        }
        state.counts =
            counts_after(state.counts, item.key.len(), previous, item.meta).ok_or_else(|| {
                disagreement(
                    unit,
                    format!("the counts are too low for the change at seqno {seqno}"),
                )
            })?;
        state.high_seqno = seqno;
        rows.push(BatchRow {
            entry,
            is_last_of_checkpoint,
            previous,
        });
    }
    Ok(UnitPlan {
        rows,
        replaced,
        state,
    })
}

/// Returns the seqno of each key's newest change. Returns an empty map for one checkpoint, which
/// has only one change per key.
fn newest_of_each_key(unit: &FlushUnit) -> HashMap<&[u8], Seqno> {
    if unit.taken.len() < 2 {
        return HashMap::new();
    }
    let entries = unit.entries();
    entries
        .map(|(entry, _)| (&*entry.item.key, entry.item.meta.seqno))
        .collect()
}

/// Adds the plan of a unit to the batch.
fn put(batch: &mut RecordBatch<'_>, unit: &FlushUnit, plan: &UnitPlan<'_>) -> Result<()> {
    let vb = unit.vb.id();
    let needed_by = PreviousNeededBy::Nothing;
    for row in &plan.rows {
        let item = &row.entry.item;
        let head = DocumentHead {
            meta: item.meta,
            is_last_of_checkpoint: row.is_last_of_checkpoint,
            prev_seqno: row.previous.map_or(Seqno::ZERO, |previous| previous.seqno),
        };
        let document = DocumentRecord {
            head,
            key: &item.key,
            value: &item.value,
        };
        batch.put_document(vb, &document)?;
        batch.put_index(vb, &item.key, item.meta)?;
        if let Some(previous) = row.previous {
            retire_previous(batch, vb, previous.seqno, item.meta.seqno, needed_by)?;
        }
    }
    batch.put_state(vb, &plan.state)
}

/// Returns the next result of [`look_up_purged`]. The results are in the order of the entries that
/// needed a look-up.
#[expect(
    clippy::expect_used,
    reason = "each entry whose previous change may be purged was looked up"
)]
fn next_looked_up(looked_up: &mut impl Iterator<Item = Option<ItemMeta>>) -> Option<ItemMeta> {
    looked_up
        .next()
        .expect("fewer look-ups than entries that need one")
}

/// Returns whether the change that an entry replaces may have been purged since the entry was made.
/// A tombstone at or below the purge seqno may be gone, so the disk must be read.
fn may_be_purged(entry: &CheckpointEntry, purge_seqno: Seqno) -> bool {
    let previous = entry.previous;
    previous.is_some_and(|meta| !meta.kind.is_live() && meta.seqno <= purge_seqno)
}

/// Reads, in one batched read, the changes on disk for all entries whose previous change may have
/// been purged.
fn look_up_purged(
    storage: &Storage,
    unit: &FlushUnit,
    failpoints: &MaybeFailpoints,
    metrics: &EngineMetrics,
) -> Result<Vec<Option<ItemMeta>>> {
    let purge_seqno = unit.state.purge_seqno;
    let purged = unit
        .entries()
        .filter(|(entry, _)| may_be_purged(entry, purge_seqno));
    let keys: Vec<&[u8]> = purged.map(|(entry, _)| &*entry.item.key).collect();
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    metrics.previous_lookups.add(to_u64(keys.len()));
    failpoints.pass(place::FLUSH_LOOK_UP)?;
    storage.index_entries(unit.vb.id(), &keys)
}

/// Returns the counts after a change, or `None` if `counts` are too low to be right.
fn counts_after(
    counts: Counts,
    key_len: usize,
    previous: Option<ItemMeta>,
    new: ItemMeta,
) -> Option<Counts> {
    let bytes = |meta: ItemMeta| to_u64(key_len) + u64::from(meta.value_len);
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

/// Returns the error for a unit that contradicts the vBucket's state on disk.
fn disagreement(unit: &FlushUnit, detail: impl Into<String>) -> Error {
    Error::corrupt_record(unit.vb.id(), None, detail)
}
