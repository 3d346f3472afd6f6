//! Writing: limits, conditions, assignment.
//!
//! # Protocol
//! 1. Without any lock: limits, health, room in memory.
//! 2. Gate, then the key stripes of all keys: nobody else changes these keys now.
//! 3. If a change depends on its key's state: the vBucket's generation, then checkpoint, then disk. If a
//!    branch is due, or no CAS is reserved, everything is given back, that is made good, and the write
//!    begins again at 1: only a change that may be made begins a branch.
//! 4. The vBucket's lock, for the assignment only: is the generation still the one of step 3? Then
//!    seqno, CAS, append; the vBucket goes onto the dirty list.
//! 5. Everything is given back, and the caller waits for its durability.

use crate::change::{Change, Verb, Written};
use crate::commit::{Branches, Committer, DirtyList, Want};
use crate::config::{Config, Durability};
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::memory::Memory;
use crate::numbers::count;
use crate::signals::Signals;
use crate::storage::Storage;
use crate::stripes::Stripes;
use crate::tuning::CurrentTuning;
use crate::vbuckets::Vb;
use crate::wakes::Wakes;
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;
use vbstore_core::{
    Appended, Cas, Clock, Item, ItemKind, ItemMeta, Previous, Seqno, VbCell, VbInner,
};
use vbstore_metrics::EngineMetrics;

/// A change that may be made: its condition holds while its key's stripe is held.
struct Admitted {
    kind: ItemKind,
    key: Box<[u8]>,
    value: Bytes,
    flags: u32,
    datatype: u8,
    /// What is known of the key's newest change on disk.
    on_disk: Previous,
}

/// The newest change of a key, in memory or on disk.
struct Current {
    meta: Option<ItemMeta>,
    /// In memory only if it was found there.
    value: Option<Bytes>,
    on_disk: Previous,
}

/// Writes: admits changes, gives them their seqnos and appends them in memory.
pub(crate) struct Writes {
    pub(crate) config: Arc<Config>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) stripes: Stripes,
    pub(crate) committer: Arc<Committer>,
    pub(crate) branches: Arc<Branches>,
    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) health: Arc<Health>,
    pub(crate) tuning: Arc<CurrentTuning>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
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
        loop {
            self.health.check()?;
            self.wait_for_room()?;
            if let Some(done) = self.write_if_ready(vb, changes, durability)? {
                return Ok(done);
            }
            self.branches.make_ready(vb)?;
        }
    }

    /// Makes the changes, or returns `None` if the vBucket has to be made ready for them first.
    fn write_if_ready(
        &self,
        vb: &Arc<Vb>,
        changes: &[Change],
        durability: Durability,
    ) -> Result<Option<(Vec<Written>, Want)>> {
        let cell = &vb.cell;
        let storage = self.gate.lend()?;
        let stripes = self.stripes.hold(cell.id, changes.iter().map(Change::key));
        let (admitted, generation) = loop {
            let generation = cell.generation();
            let admitted = self.admit(&storage, cell, changes)?;
            // A deletion of the vBucket in between makes what was read worthless.
            if cell.generation() == generation {
                break (admitted, generation);
            }
        };
        if !self.branches.is_ready(cell) {
            return Ok(None);
        }
        self.failpoints.pass(place::WRITE_ASSIGN)?;
        let mut inner = cell.lock();
        if cell.generation() != generation {
            return Err(Error::VbGone { vb: cell.id });
        }
        self.health.check()?;
        let mut wakes = Wakes::default();
        let written = self.assign(vb, &mut inner, changes, admitted, durability, &mut wakes)?;
        wakes.wake(inner.fire(cell, Some(self.clock.monotonic())));
        drop(inner);
        drop(stripes);
        drop(storage);
        wakes.run();

        let seqno = last(&written).seqno;
        Ok(Some((
            written,
            Want::Durable {
                vb: Arc::clone(vb),
                generation,
                seqno,
                level: durability,
            },
        )))
    }

    /// Waits a bounded time while memory is at its quota.
    fn wait_for_room(&self) -> Result<()> {
        let tuning = self.tuning.get();
        if self.memory.used() < tuning.memory_quota {
            return Ok(());
        }
        self.committer.wait(&Want::Room, Some(tuning.busy_timeout))
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

    fn admit(&self, storage: &Storage, cell: &VbCell, changes: &[Change]) -> Result<Vec<Admitted>> {
        let now = self.clock.wall_seconds();
        changes
            .iter()
            .map(|change| admit_one(storage, cell, change, now))
            .collect()
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
        wakes: &mut Wakes,
    ) -> Result<Vec<Written>> {
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
        let mut removed_sum: u64 = 0;
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
                .append(Arc::new(item), admitted.on_disk, sync, now);
            self.memory.add(added);
            wakes.replace(replaced);
            removed_sum += removed;
            self.metrics.replaced_items.add(u64::from(removed > 0));
            written.push(Written {
                seqno,
                cas,
                vb_uuid,
            });
        }
        self.memory.subtract(removed_sum);
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
        Ok(written)
    }
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
fn admit_one(storage: &Storage, cell: &VbCell, change: &Change, now: u32) -> Result<Admitted> {
    let mut admitted = Admitted {
        kind: ItemKind::Mutation,
        key: change.key.clone(),
        value: change.value.clone(),
        flags: change.flags,
        datatype: change.datatype,
        on_disk: Previous::Unknown,
    };
    if let Verb::Restore(kind, _) = change.verb {
        admitted.kind = kind;
    }
    if !change.reads() {
        return Ok(admitted);
    }
    let current = read_current(storage, cell, &change.key)?;
    admitted.on_disk = current.on_disk;
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
            admitted.value = match current.value {
                Some(value) => value,
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

/// Reads the newest change of a key: memory first, then disk. The caller holds the key's stripe.
fn read_current(storage: &Storage, cell: &VbCell, key: &[u8]) -> Result<Current> {
    let in_memory = cell.lock().checkpoints.get(key).cloned();
    if let Some(item) = in_memory {
        return Ok(Current {
            meta: Some(item.meta),
            value: Some(item.value.clone()),
            // It may be freed before the assignment, and is then the newest on disk.
            on_disk: Previous::Known(item.meta),
        });
    }
    let meta = storage.index_entry(cell.id, key)?;
    let on_disk = meta.map_or(Previous::None, Previous::Known);
    Ok(Current {
        meta,
        value: None,
        on_disk,
    })
}
