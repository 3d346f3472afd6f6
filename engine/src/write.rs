//! Writing: checks limits and conditions, assigns seqnos and appends the changes in memory.
//!
//! # Protocol
//! 1. Without any lock: check the limits and the health, reserve room in memory, and copy the
//!    values.
//! 2. Enter the gate and take the stripes of all keys. From here on no other write changes these
//!    keys.
//! 3. Read the vBucket's generation, and then the newest change of every key, from the checkpoints
//!    or from disk. Even an unconditional change needs this read, because the flush has to know
//!    which change it replaces. If the read fails, the write is refused before it has a seqno, and
//!    nothing is changed. The same failure in a flush would block changes that were already
//!    acknowledged. If a branch is due, or no CAS is reserved, release everything, make the vBucket
//!    ready, and start again at 1. The conditions were checked before that, so a change that is
//!    refused never begins a branch.
//! 4. Take the vBucket's lock, for the assignment only. If the generation is still that of step 3,
//!    assign seqno and CAS, append, and put the vBucket onto the dirty list.
//! 5. Release everything. The caller then waits for durability.

use crate::change::{Change, ChangeOp, WriteReceipt};
use crate::commit::{Branches, Committer, DirtyList, WaitCondition};
use crate::config::Config;
use crate::deferred::DeferredWork;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::memory::{Memory, MemoryReservation};
use crate::numbers::count;
use crate::signals::TaskSignals;
use crate::storage::Storage;
use crate::tuning::CurrentTuning;
use crate::vbuckets::Vb;
use crate::wakers::Wakers;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use vbstore_core::{
    AppendOutcome, Cas, Clock, Item, ItemKind, ItemMeta, Seqno, SystemClock, VbCell, VbInner,
};
use vbstore_metrics::EngineMetrics;

/// A change whose condition was checked and holds. It still holds while the key's stripe is held.
struct AdmittedChange {
    kind: ItemKind,
    key: Box<[u8]>,
    value: Bytes,
    flags: u32,
    datatype: u8,
    /// The key's newest change, which this one replaces.
    previous: Option<ItemMeta>,
}

/// The newest change of a key, from memory or from disk.
#[derive(Default)]
struct CurrentVersion {
    meta: Option<ItemMeta>,
    /// The change itself, if it is in memory and its value may be needed.
    in_memory: Option<Arc<Item>>,
}

/// The result of one attempt to write.
enum WriteAttempt {
    /// The changes were made. Contains the condition to wait for.
    Written(Vec<WriteReceipt>, WaitCondition),
    /// Nothing was changed: the changes need this many bytes of memory.
    NeedsRoom(u64),
    /// Nothing was changed: a branch is due, or no CAS is reserved.
    NeedsBranch,
}

/// Keys looked up in memory per hold of the vBucket's lock. Readers wait for that lock.
const KEYS_PER_LOCK: usize = 256;

/// The write path: admits changes, assigns their seqnos and appends them in memory.
pub(crate) struct Writes {
    pub(crate) config: Arc<Config>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) branches: Arc<Branches>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) health: Arc<Health>,
    pub(crate) tuning: Arc<CurrentTuning>,
    pub(crate) signals: Arc<TaskSignals>,
    pub(crate) clock: Arc<dyn Clock>,
    /// For time-outs, which are in real time even if the engine was given another clock.
    pub(crate) real_clock: SystemClock,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
    pub(crate) wakers: Wakers,
}

impl Writes {
    /// Makes all changes or none. Returns their receipts and the condition to wait for. The caller
    /// holds no lock. May block for room in memory, for reads from disk, and for the sync of a new
    /// branch.
    pub(crate) fn write(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(Vec<WriteReceipt>, WaitCondition)> {
        self.metrics.operations.writes.add(1);
        let refusals = &self.metrics.refusals;
        self.write_counted(vb, changes, durability)
            .inspect_err(|error| match error {
                Error::DiskFull { .. } => refusals.disk_full.add(1),
                Error::Failed { .. } => refusals.failed.add(1),
                Error::TooLarge { .. } => refusals.too_large.add(1),
                Error::Busy { .. } => refusals.memory.add(1),
                Error::VbFailed { .. } => refusals.vb_failed.add(1),
                Error::Corruption { .. } | Error::Io { .. } => refusals.unreadable.add(1),
                // Not counted: the condition of the change did not hold, or the engine is closed.
                _ => {}
            })
    }

    fn write_counted(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
    ) -> Result<(Vec<WriteReceipt>, WaitCondition)> {
        self.check_limits(changes)?;
        let mut bytes = changes.iter().map(|change| memory_of(change, None)).sum();
        loop {
            // Checked in every round: the state may change while this thread waits for room.
            self.health.check()?;
            vb.check()?;
            let room = self.reserve(bytes)?;
            match self.write_within(vb, changes, durability, room)? {
                WriteAttempt::Written(written, condition) => return Ok((written, condition)),
                WriteAttempt::NeedsRoom(needed) => bytes = needed,
                WriteAttempt::NeedsBranch => self.branches.make_ready(vb)?,
            }
        }
    }

    /// Reserves room in memory. Blocks for at most `busy_timeout`. The caller holds no lock.
    fn reserve(&self, bytes: u64) -> Result<MemoryReservation> {
        let tuning = self.tuning.get();
        if let Some(room) = self.memory.reserve(bytes, tuning.memory_quota) {
            return Ok(room);
        }
        let start = self.real_clock.monotonic();
        loop {
            let waited = self.real_clock.monotonic().saturating_sub(start);
            let left = tuning.busy_timeout.saturating_sub(waited);
            self.committer
                .wait(&WaitCondition::Room { bytes }, Some(left))?;
            // Another writer may have taken the room, so try again.
            if let Some(room) = self.memory.reserve(bytes, self.tuning.get().memory_quota) {
                return Ok(room);
            }
            if left.is_zero() {
                return Err(Error::Busy {
                    what: "no room in memory_quota",
                });
            }
        }
    }

    /// Makes all changes or none, if they fit into the room and the vBucket is ready for them.
    fn write_within(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
        room: MemoryReservation,
    ) -> Result<WriteAttempt> {
        let cell = &vb.cell;
        // Copies the values, before anything is locked, for two reasons. A `Bytes` may be a small
        // part of a large buffer, and keeping it would keep the whole buffer alive, which the quota
        // does not count. And dropping the caller's buffer may run the program's code, which must
        // not happen under a lock.
        let values: Vec<Bytes> = changes
            .iter()
            .map(|change| Bytes::copy_from_slice(&change.value))
            .collect();
        let storage = self.gate.acquire()?;
        let stripes = vb.stripes.hold(changes.iter().map(Change::key));
        let (admitted, generation) = loop {
            let generation = cell.generation();
            let current = self.read_current(&storage, cell, changes)?;
            // A touch keeps the old value, whose size was unknown until now.
            let pairs = changes.iter().zip(&current);
            let needed: u64 = pairs
                .map(|(change, current)| memory_of(change, current.meta))
                .sum();
            if needed > room.bytes() {
                return Ok(WriteAttempt::NeedsRoom(needed));
            }
            let admitted = self.admit(&storage, cell, changes, current, &values)?;
            // If the vBucket was deleted meanwhile, the changes that were read are outdated: read
            // again.
            if cell.generation() == generation {
                break (admitted, generation);
            }
        };
        if !self.branches.is_ready(cell) {
            return Ok(WriteAttempt::NeedsBranch);
        }
        self.failpoints.pass(place::WRITE_ASSIGN)?;
        let mut inner = cell.lock();
        if cell.generation() != generation {
            return Err(Error::VbGone { vb: cell.id });
        }
        // Checked again: a vBucket fails under this lock, so no change is appended after that.
        self.health.check()?;
        vb.check()?;
        let (written, mut deferred) =
            self.assign(vb, &mut inner, changes, admitted, durability, room)?;
        deferred.wake(inner.fire(cell, Some(self.clock.monotonic())));
        drop(inner);
        drop(stripes);
        drop(storage);
        // Last, because wakers may take any lock.
        deferred.run_with(&self.wakers);

        let seqno = last(&written).seqno;
        Ok(WriteAttempt::Written(
            written,
            WaitCondition::Durable {
                vb: Arc::clone(vb),
                generation,
                seqno,
                level: durability,
            },
        ))
    }

    fn check_limits(&self, changes: &[Change]) -> Result<()> {
        let config = &self.config;
        let check_at_most = |field, size: usize, max: u64| {
            let size = count(size);
            if size > max {
                Err(Error::TooLarge { field, size, max })
            } else {
                Ok(())
            }
        };
        if changes.is_empty() {
            return Err(Error::invalid("batch", "the batch is empty"));
        }
        check_at_most("batch", changes.len(), config.batch_items_max)?;
        let mut bytes = 0_usize;
        for change in changes {
            if change.key.is_empty() {
                return Err(Error::invalid("key", "the key is empty"));
            }
            check_at_most("key", change.key.len(), config.key_bytes_max)?;
            check_at_most("value", change.value.len(), config.value_bytes_max)?;
            bytes += change.key.len() + change.value.len();
            if let ChangeOp::Restore(kind, cas) = change.op {
                if !kind.is_live() && !change.value.is_empty() {
                    return Err(Error::invalid(
                        "value",
                        "a restored tombstone must not have a value",
                    ));
                }
                if cas.get() == 0 || cas > Cas::RESTORED_MAX {
                    let (cas, max) = (cas.get(), Cas::RESTORED_MAX);
                    return Err(Error::invalid(
                        "cas",
                        format!("{cas} is not between 1 and {max}"),
                    ));
                }
            }
        }
        if changes.len() > 1 {
            check_at_most("batch bytes", bytes, config.batch_bytes_max)?;
            let keys: HashSet<&[u8]> = changes.iter().map(Change::key).collect();
            if keys.len() != changes.len() {
                return Err(Error::invalid(
                    "batch",
                    "the batch has two changes of one key",
                ));
            }
        }
        Ok(())
    }

    fn admit(
        &self,
        storage: &Storage,
        cell: &VbCell,
        changes: &[Change],
        current: Vec<CurrentVersion>,
        values: &[Bytes],
    ) -> Result<Vec<AdmittedChange>> {
        let now = self.clock.wall_seconds();
        changes
            .iter()
            .zip(values)
            .zip(current)
            .map(|((change, value), current)| admit_one(storage, cell, change, value, current, now))
            .collect()
    }

    /// Reads the newest change of each key: from memory first, and the rest from disk in one
    /// batched read. The caller holds the keys' stripes, so none of the keys changes meanwhile. A
    /// change found in memory may be flushed and freed before the assignment. It is still the key's
    /// newest change then, but on disk.
    #[expect(
        clippy::indexing_slicing,
        reason = "each missing key is stored with its index among the changes"
    )]
    fn read_current(
        &self,
        storage: &Storage,
        cell: &VbCell,
        changes: &[Change],
    ) -> Result<Vec<CurrentVersion>> {
        let mut found = Vec::with_capacity(changes.len());
        let mut missing: Vec<(usize, &[u8])> = Vec::new();
        for chunk in changes.chunks(KEYS_PER_LOCK) {
            let inner = cell.lock();
            for change in chunk {
                let item = inner.checkpoints.get(&change.key);
                if item.is_none() {
                    missing.push((found.len(), &change.key));
                }
                found.push(CurrentVersion {
                    meta: item.map(|item| item.meta),
                    in_memory: item.filter(|_| change.op == ChangeOp::Touch).cloned(),
                });
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        self.metrics.previous_lookups.add(count(missing.len()));
        self.failpoints.pass(place::WRITE_LOOK_UP)?;
        if let [(index, key)] = *missing {
            found[index].meta = storage.index_entry(cell.id, key)?;
            return Ok(found);
        }
        let keys: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        let metas = storage.index_entries(cell.id, &keys)?;
        for ((index, _), meta) in missing.into_iter().zip(metas) {
            found[index].meta = meta;
        }
        Ok(found)
    }

    /// Assigns seqnos and CAS values, appends the changes, and puts the vBucket onto the dirty
    /// list. The changes end up in one checkpoint, and so in one write batch.
    fn assign(
        &self,
        vb: &Arc<Vb>,
        inner: &mut VbInner,
        changes: &[Change],
        admitted: Vec<AdmittedChange>,
        durability: Durability,
        room: MemoryReservation,
    ) -> Result<(Vec<WriteReceipt>, DeferredWork)> {
        let last = inner.checkpoints.high_seqno().get();
        let last = last.checked_add(count(changes.len()));
        if last.is_none_or(|last| last == Seqno::MAX.get()) {
            return Err(Error::invalid(
                "vb",
                format!("vBucket {} has no seqnos left", vb.id().get()),
            ));
        }
        assert!(
            !vb.cell.is_branch_due(),
            "a change of {} was assigned before its branch",
            vb.id()
        );
        let (micros, seconds) = (self.branches.cas_micros(), self.clock.wall_seconds());
        let vb_uuid = inner.state.uuid;
        let now = self.clock.monotonic();
        let mut written = Vec::with_capacity(changes.len());
        let mut deferred = DeferredWork::default();
        let (mut added_sum, mut removed_sum): (u64, u64) = (0, 0);
        for (change, admitted) in changes.iter().zip(admitted) {
            let seqno = Seqno::new(inner.checkpoints.high_seqno().get() + 1);
            let cas = match change.op {
                ChangeOp::Restore(_, cas) => cas,
                _ => inner.max_cas.next(micros),
            };
            inner.max_cas = inner.max_cas.max(cas);
            let previous = admitted.previous;
            let item = item_of(change, admitted, seqno, cas, seconds);
            let sync = durability == Durability::Synced;
            let AppendOutcome {
                added,
                removed,
                replaced,
            } = inner
                .checkpoints
                .append(Arc::new(item), previous, sync, now);
            added_sum += added;
            deferred.free_replaced(replaced);
            removed_sum += removed;
            self.metrics.replaced_items.add(u64::from(removed > 0));
            written.push(WriteReceipt {
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
                self.signals.flusher.wake_unless_timed();
            }
        }
        // ORDER: dirty list first, settle second. A writer that finds no room looks first for
        // something to flush, and then for reservations in progress. With this order it finds one
        // of the two. Otherwise it could fail with `Busy` although a flush would make room.
        room.settle(added_sum);
        self.memory.subtract(removed_sum);
        Ok((written, deferred))
    }
}

/// Returns the item of an admitted change. `seconds` is the wall clock's time.
fn item_of(
    change: &Change,
    admitted: AdmittedChange,
    seqno: Seqno,
    cas: Cas,
    seconds: u32,
) -> Item {
    let is_restored = matches!(change.op, ChangeOp::Restore(..));
    let meta = ItemMeta {
        seqno,
        kind: admitted.kind,
        cas,
        flags: admitted.flags,
        // A tombstone has no expiry. It stores the time of its deletion here, from which its age
        // counts.
        expiry: if admitted.kind.is_live() || is_restored {
            change.expiry
        } else {
            seconds
        },
        datatype: admitted.datatype,
        value_len: value_len(&admitted.value),
    };
    Item {
        meta,
        key: admitted.key,
        value: admitted.value,
    }
}

/// Returns the memory that a change takes, in bytes. `current` is the newest change of its key,
/// whose value a touch keeps.
fn memory_of(change: &Change, current: Option<ItemMeta>) -> u64 {
    let value = match change.op {
        ChangeOp::Touch => current.map_or(0, |meta| u64::from(meta.value_len)),
        _ => count(change.value.len()),
    };
    Item::memory_of(count(change.key.len()), value)
}

#[expect(clippy::expect_used, reason = "the limits refuse values above 20 MiB")]
fn value_len(value: &Bytes) -> u32 {
    u32::try_from(value.len()).expect("a value above its limit was admitted")
}

/// Returns the result of the last change of a batch.
#[expect(
    clippy::expect_used,
    reason = "the limits refuse a batch without a change"
)]
pub(crate) fn last(written: &[WriteReceipt]) -> WriteReceipt {
    *written
        .last()
        .expect("a batch without a change was written")
}

/// Checks the condition of one change and returns what to append. The caller holds the key's
/// stripe. May read the disk, for the value that a touch keeps.
fn admit_one(
    storage: &Storage,
    cell: &VbCell,
    change: &Change,
    value: &Bytes,
    current: CurrentVersion,
    now: u32,
) -> Result<AdmittedChange> {
    let mut admitted = AdmittedChange {
        kind: ItemKind::Mutation,
        key: change.key.clone(),
        value: value.clone(),
        flags: change.flags,
        datatype: change.datatype,
        previous: current.meta,
    };
    if let ChangeOp::Restore(kind, _) = change.op {
        admitted.kind = kind;
    }
    let present = current.meta.filter(|meta| meta.is_present(now));
    if let Some(expected) = change.expected_cas {
        let found = present.ok_or(Error::NotFound)?.cas;
        if found != expected {
            return Err(Error::CasMismatch { expected, found });
        }
    }
    match (change.op, present) {
        (ChangeOp::Set | ChangeOp::Restore(..), _)
        | (ChangeOp::Add, None)
        | (ChangeOp::Replace, Some(_)) => {}
        (ChangeOp::Add, Some(meta)) => return Err(Error::Exists { cas: meta.cas }),
        (ChangeOp::Replace | ChangeOp::Delete | ChangeOp::Touch, None) => {
            return Err(Error::NotFound);
        }
        (ChangeOp::Delete, Some(_)) => admitted.kind = ItemKind::Deletion,
        (ChangeOp::Touch, Some(meta)) => {
            admitted.flags = meta.flags;
            admitted.datatype = meta.datatype;
            admitted.value = match current.in_memory {
                Some(item) => item.value.clone(),
                // The stripe is held, so no write can replace the document. Only a deletion of the
                // whole vBucket can remove it, and then the generation has changed.
                None => storage
                    .document_at(cell.id, &change.key, meta)?
                    .map(|document| document.value)
                    .ok_or(Error::VbGone { vb: cell.id })?,
            };
        }
    }
    Ok(admitted)
}
