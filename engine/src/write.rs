//! Writing: limits, conditions, assignment.
//!
//! # Protocol
//! 1. Without any lock: limits, health; room in memory is reserved; values are copied.
//! 2. Gate, then the key stripes of all keys: nobody else changes these keys now.
//! 3. The vBucket's generation; then, for every key, its newest change: checkpoint, then disk. A
//!    change that depends on nothing needs it too, because the flush has to know what it replaces.
//!    What cannot be read so refuses the write before it has a seqno, where it changes nothing; in the
//!    flush it would stop changes that were acknowledged.
//!    If a branch is due, or no CAS is reserved, everything is given back, that is made good, and the
//!    write begins again at 1: only a change that may be made begins a branch.
//! 4. The vBucket's lock, for the assignment only: is the generation still the one of step 3? Then
//!    seqno, CAS, append; the vBucket goes onto the dirty list.
//! 5. Everything is given back, and the caller waits for its durability.

use crate::change::{Change, Verb, Written};
use crate::commit::{Branches, Committer, DirtyList, Want};
use crate::config::Config;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::memory::{Memory, Room};
use crate::numbers::count;
use crate::signals::Signals;
use crate::storage::Storage;
use crate::tuning::CurrentTuning;
use crate::vbuckets::Vb;
use crate::wakers::Wakers;
use crate::wakes::Wakes;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use vbstore_core::{
    Appended, Cas, Clock, Item, ItemKind, ItemMeta, Seqno, SystemClock, VbCell, VbInner,
};
use vbstore_metrics::EngineMetrics;

/// A change that may be made: its condition holds while its key's stripe is held.
struct Admitted {
    kind: ItemKind,
    key: Box<[u8]>,
    value: Bytes,
    flags: u32,
    datatype: u8,
    /// The key's newest change, which this one replaces.
    previous: Option<ItemMeta>,
}

/// The newest change of a key, in memory or on disk.
#[derive(Default)]
struct Current {
    meta: Option<ItemMeta>,
    /// The change itself, if it was found in memory.
    in_memory: Option<Arc<Item>>,
}

/// What came of an attempt to write.
enum Attempt {
    /// It is written. What to wait for.
    Written(Vec<Written>, Want),
    /// Nothing was changed: it takes so many bytes of memory.
    NeedsRoom(u64),
    /// Nothing was changed: a branch is due, or no CAS is reserved.
    NeedsBranch,
}

/// Keys that are looked up in memory in one turn of the vBucket's lock, which readers wait for.
const KEYS_IN_A_TURN: usize = 256;

/// Writes: admits changes, gives them their seqnos and appends them in memory.
pub(crate) struct Writes {
    pub(crate) config: Arc<Config>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) branches: Arc<Branches>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) health: Arc<Health>,
    pub(crate) tuning: Arc<CurrentTuning>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Waiting is done in real time, whatever clock the engine was given.
    pub(crate) real: SystemClock,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
    pub(crate) wakers: Wakers,
}

impl Writes {
    /// Makes all of the changes or none. Returns where they went, and what to wait for. The caller
    /// holds no lock.
    pub(crate) fn write(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(Vec<Written>, Want)> {
        self.metrics.operations.writes.add(1);
        let refusals = &self.metrics.refusals;
        self.write_counted(vb, changes, durability)
            .inspect_err(|error| match error {
                Error::DiskFull { .. } => refusals.disk_full.add(1),
                Error::Failed { .. } => refusals.failed.add(1),
                Error::TooLarge { .. } => refusals.too_large.add(1),
                Error::ReadOnly { .. } => refusals.read_only.add(1),
                Error::Busy { .. } => refusals.memory.add(1),
                _ => {}
            })
    }

    fn write_counted(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(Vec<Written>, Want)> {
        self.check_limits(changes)?;
        let mut bytes = changes.iter().map(|change| memory_of(change, None)).sum();
        loop {
            self.health.check()?;
            vb.check()?;
            let room = self.reserve(bytes)?;
            match self.write_within(vb, changes, durability, room)? {
                Attempt::Written(written, want) => return Ok((written, want)),
                Attempt::NeedsRoom(needed) => bytes = needed,
                Attempt::NeedsBranch => self.branches.make_ready(vb)?,
            }
        }
    }

    /// Reserves room in memory; waits a bounded time for it. The caller holds no lock.
    fn reserve(&self, bytes: u64) -> Result<Room> {
        let tuning = self.tuning.get();
        if let Some(room) = self.memory.reserve(bytes, tuning.memory_quota) {
            return Ok(room);
        }
        let start = self.real.monotonic();
        loop {
            let waited = self.real.monotonic().saturating_sub(start);
            let left = tuning.busy_timeout.saturating_sub(waited);
            self.committer.wait(&Want::Room { bytes }, Some(left))?;
            // Others may have been faster.
            if let Some(room) = self.memory.reserve(bytes, self.tuning.get().memory_quota) {
                return Ok(room);
            }
            if left.is_zero() {
                return Err(Error::Busy {
                    what: "memory quota",
                });
            }
        }
    }

    /// Makes all of the changes or none, if they fit into the room and the vBucket is ready for them.
    fn write_within(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
        room: Room,
    ) -> Result<Attempt> {
        let cell = &vb.cell;
        // Copied before anything is locked. A value that is kept has memory of its own: a small part of
        // a large buffer would keep all of it, which no quota sees, and its end would be the program's
        // code, which may run under no lock.
        let values: Vec<Bytes> = changes
            .iter()
            .map(|change| Bytes::copy_from_slice(&change.value))
            .collect();
        let storage = self.gate.lend()?;
        let stripes = vb.stripes.hold(changes.iter().map(Change::key));
        let (admitted, generation) = loop {
            let generation = cell.generation();
            let current = self.read_current(&storage, cell, changes)?;
            // A touch keeps a value that was not known before.
            let of_each = changes.iter().zip(&current);
            let needed: u64 = of_each
                .map(|(change, current)| memory_of(change, current.meta))
                .sum();
            if needed > room.bytes() {
                return Ok(Attempt::NeedsRoom(needed));
            }
            let admitted = self.admit(&storage, cell, changes, current, &values)?;
            // A deletion of the vBucket in between makes what was read worthless.
            if cell.generation() == generation {
                break (admitted, generation);
            }
        };
        if !self.branches.is_ready(cell) {
            return Ok(Attempt::NeedsBranch);
        }
        self.failpoints.pass(place::WRITE_ASSIGN)?;
        let mut inner = cell.lock();
        if cell.generation() != generation {
            return Err(Error::VbGone { vb: cell.id });
        }
        self.health.check()?;
        vb.check()?;
        let (written, mut wakes) =
            self.assign(vb, &mut inner, changes, admitted, durability, room)?;
        wakes.wake(inner.fire(cell, Some(self.clock.monotonic())));
        drop(inner);
        drop(stripes);
        drop(storage);
        wakes.run_with(&self.wakers);

        let seqno = last(&written).seqno;
        Ok(Attempt::Written(
            written,
            Want::Durable {
                vb: Arc::clone(vb),
                generation,
                seqno,
                level: durability,
            },
        ))
    }

    fn check_limits(&self, changes: &[Change]) -> Result<()> {
        let config = &self.config;
        let at_most = |field, size: usize, max: u64| {
            let size = count(size);
            if size > max {
                Err(Error::TooLarge { field, size, max })
            } else {
                Ok(())
            }
        };
        if changes.is_empty() {
            return Err(Error::invalid("batch", "no change in it"));
        }
        at_most("batch", changes.len(), config.batch_items_max)?;
        let mut bytes = 0_usize;
        for change in changes {
            if change.key.is_empty() {
                return Err(Error::invalid("key", "empty"));
            }
            at_most("key", change.key.len(), config.key_bytes_max)?;
            at_most("value", change.value.len(), config.value_bytes_max)?;
            bytes += change.key.len() + change.value.len();
            if let Verb::Restore(kind, cas) = change.verb {
                if !kind.is_live() && !change.value.is_empty() {
                    return Err(Error::invalid("value", "a deletion has none"));
                }
                if cas.get() == 0 || cas > Cas::RESTORED_MAX {
                    let max = Cas::RESTORED_MAX;
                    return Err(Error::invalid("cas", format!("not between 1 and {max}")));
                }
            }
        }
        if changes.len() > 1 {
            at_most("batch bytes", bytes, config.batch_bytes_max)?;
            let keys: HashSet<&[u8]> = changes.iter().map(Change::key).collect();
            if keys.len() != changes.len() {
                return Err(Error::invalid("batch", "the same key twice"));
            }
        }
        Ok(())
    }

    fn admit(
        &self,
        storage: &Storage,
        cell: &VbCell,
        changes: &[Change],
        current: Vec<Current>,
        values: &[Bytes],
    ) -> Result<Vec<Admitted>> {
        let now = self.clock.wall_seconds();
        changes
            .iter()
            .zip(values)
            .zip(current)
            .map(|((change, value), current)| admit_one(storage, cell, change, value, current, now))
            .collect()
    }

    /// Reads the newest change of each key: memory first, then disk, in one batched read. The caller
    /// holds the keys' stripes, so that none of them changes meanwhile; what is found in memory may be
    /// freed before the assignment, and is then the newest on disk.
    #[expect(
        clippy::indexing_slicing,
        reason = "each missing key is noted with its place among the changes"
    )]
    fn read_current(
        &self,
        storage: &Storage,
        cell: &VbCell,
        changes: &[Change],
    ) -> Result<Vec<Current>> {
        let mut found = Vec::with_capacity(changes.len());
        let mut missing: Vec<(usize, &[u8])> = Vec::new();
        for some in changes.chunks(KEYS_IN_A_TURN) {
            let inner = cell.lock();
            for change in some {
                let item = inner.checkpoints.get(&change.key);
                if item.is_none() {
                    missing.push((found.len(), &change.key));
                }
                found.push(Current {
                    meta: item.map(|item| item.meta),
                    in_memory: item.filter(|_| change.verb == Verb::Touch).cloned(),
                });
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        self.metrics.previous_lookups.add(count(missing.len()));
        self.failpoints.pass(place::WRITE_LOOK_UP)?;
        if let [(number, key)] = *missing {
            found[number].meta = storage.index_entry(cell.id, key)?;
            return Ok(found);
        }
        let keys: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        let metas = storage.index_entries(cell.id, &keys)?;
        for ((number, _), meta) in missing.into_iter().zip(metas) {
            found[number].meta = meta;
        }
        Ok(found)
    }

    /// Assigns seqnos and CAS values, appends, and puts the vBucket onto the dirty list. The
    /// changes end up in one checkpoint, and so in one write batch.
    fn assign(
        &self,
        vb: &Arc<Vb>,
        inner: &mut VbInner,
        changes: &[Change],
        admitted: Vec<Admitted>,
        durability: Durability,
        room: Room,
    ) -> Result<(Vec<Written>, Wakes)> {
        let last = inner.checkpoints.high_seqno().get();
        let last = last.checked_add(count(changes.len()));
        if last.is_none_or(|last| last == Seqno::MAX.get()) {
            return Err(Error::invalid("vb", "out of seqnos"));
        }
        assert!(
            !vb.cell.is_branch_due(),
            "a change of {} before its branch",
            vb.id()
        );
        let (micros, seconds) = (self.branches.cas_micros(), self.clock.wall_seconds());
        let vb_uuid = inner.state.uuid;
        let now = self.clock.monotonic();
        let mut written = Vec::with_capacity(changes.len());
        let mut wakes = Wakes::default();
        let (mut added_sum, mut removed_sum): (u64, u64) = (0, 0);
        for (change, admitted) in changes.iter().zip(admitted) {
            let seqno = Seqno::new(inner.checkpoints.high_seqno().get() + 1);
            let cas = match change.verb {
                Verb::Restore(_, cas) => cas,
                _ => inner.max_cas.next(micros),
            };
            inner.max_cas = inner.max_cas.max(cas);
            let is_restored = matches!(change.verb, Verb::Restore(..));
            let meta = ItemMeta {
                seqno,
                kind: admitted.kind,
                cas,
                flags: admitted.flags,
                // The age of a tombstone counts from its deletion.
                expiry: if admitted.kind.is_live() || is_restored {
                    change.expiry
                } else {
                    seconds
                },
                datatype: admitted.datatype,
                value_len: value_len(&admitted.value),
            };
            let item = Item {
                meta,
                key: admitted.key,
                value: admitted.value,
            };
            let sync = durability == Durability::Synced;
            let Appended {
                added,
                removed,
                replaced,
            } = inner
                .checkpoints
                .append(Arc::new(item), admitted.previous, sync, now);
            added_sum += added;
            wakes.replace(replaced);
            removed_sum += removed;
            self.metrics.replaced_items.add(u64::from(removed > 0));
            written.push(Written {
                seqno,
                cas,
                vb_uuid,
            });
        }
        self.metrics.written_items.add(count(written.len()));
        if inner.checkpoints.open_memory() >= self.tuning.get().checkpoint_bytes_max {
            inner.checkpoints.seal();
        }
        if !inner.is_dirty {
            inner.is_dirty = true;
            if self.dirty.mark(vb, now) {
                self.signals.flusher.wake_from_rest();
            }
        }
        // ORDER: on the dirty list first, settled second: who finds no room and nothing to flush then
        // finds the reservation.
        room.settle(added_sum);
        self.memory.subtract(removed_sum);
        Ok((written, wakes))
    }
}

/// Returns the memory that a change takes, in bytes. `current` is its key's newest change, whose value a
/// touch keeps.
fn memory_of(change: &Change, current: Option<ItemMeta>) -> u64 {
    let value = match change.verb {
        Verb::Touch => current.map_or(0, |meta| u64::from(meta.value_len)),
        _ => count(change.value.len()),
    };
    Item::memory_of(count(change.key.len()), value)
}

#[expect(clippy::expect_used, reason = "the limits refuse values above 20 MiB")]
fn value_len(value: &Bytes) -> u32 {
    u32::try_from(value.len()).expect("a value above its limit was admitted")
}

/// Returns where the last change of a batch went.
#[expect(
    clippy::expect_used,
    reason = "the limits refuse a batch without a change"
)]
pub(crate) fn last(written: &[Written]) -> Written {
    *written.last().expect("a batch of no change was written")
}

/// Checks the condition of one change. The caller holds its key's stripe.
fn admit_one(
    storage: &Storage,
    cell: &VbCell,
    change: &Change,
    value: &Bytes,
    current: Current,
    now: u32,
) -> Result<Admitted> {
    let mut admitted = Admitted {
        kind: ItemKind::Mutation,
        key: change.key.clone(),
        value: value.clone(),
        flags: change.flags,
        datatype: change.datatype,
        previous: current.meta,
    };
    if let Verb::Restore(kind, _) = change.verb {
        admitted.kind = kind;
    }
    let present = current.meta.filter(|meta| meta.is_present(now));
    if let Some(expected) = change.expected_cas {
        let found = present.ok_or(Error::NotFound)?.cas;
        if found != expected {
            return Err(Error::CasMismatch { expected, found });
        }
    }
    match (change.verb, present) {
        (Verb::Set | Verb::Restore(..), _) | (Verb::Add, None) | (Verb::Replace, Some(_)) => {}
        (Verb::Add, Some(meta)) => return Err(Error::Exists { cas: meta.cas }),
        (Verb::Replace | Verb::Delete | Verb::Touch, None) => return Err(Error::NotFound),
        (Verb::Delete, Some(_)) => admitted.kind = ItemKind::Deletion,
        (Verb::Touch, Some(meta)) => {
            admitted.flags = meta.flags;
            admitted.datatype = meta.datatype;
            admitted.value = match current.in_memory {
                Some(item) => item.value.clone(),
                // The stripe is held, so the document cannot be replaced. Deleting the whole
                // vBucket can take it away, and then the generation has changed.
                None => storage
                    .document_at(cell.id, &change.key, meta)?
                    .map(|document| document.value)
                    .ok_or(Error::VbGone { vb: cell.id })?,
            };
        }
    }
    Ok(admitted)
}
