//! Writes two things to disk before a change gets its seqno and CAS. One is the branch that the
//! change belongs to, if a branch is due (the protocol is in [`vbstore_core`]'s module `branch`).
//! The other is an upper bound for CAS values.
//!
//! # CAS values after a crash
//! A change that a crash loses must not share its CAS with a later change, even if the clock is
//! behind by then. A CAS is the clock's time, or one more than the vBucket's largest CAS if that is
//! larger. So an upper bound for the clock's part is reserved on disk, an hour ahead. The CAS
//! values of a branch that begins after an unclean stop start above that bound. They also start
//! above every CAS that lost changes could have reached by counting up ([`Cas::above_lost`]).
//!
//! Adding a fixed margin to the clock would not be enough, because a clock may be behind by any
//! amount. One reservation serves the whole store. It costs one sync an hour. CAS values that a
//! caller restored are not covered: the caller is responsible for them.
//!
//! A model checker also compiles and runs this file (`core/tests/branches.rs`).

use super::committer::Committer;
use super::lead::Lead;
use super::syncs::Syncs;
use crate::error::Result;
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::health::Health;
use crate::storage::{RecordBatch, Storage};
use crate::vbuckets::Vb;
use std::collections::BTreeMap;
use std::sync::Arc;
use vbstore_core::lock_order::LockRank;
use vbstore_core::record::StoreState;
use vbstore_core::sync::{AtomicU64, Mutex, Ordering};
use vbstore_core::{Cas, Clock, FailoverLog, VbCell, VbId, VbInner, VbUuid};

/// How far ahead of the clock CAS values are reserved, in microseconds: an hour.
const RESERVED_MICROS: u64 = 3_600_000_000;
/// A reservation with less left than this, in microseconds, is renewed together with the next
/// branch.
const RENEWED_MICROS: u64 = RESERVED_MICROS / 2;

/// Returns the clock's time in microseconds, capped at the largest CAS that can be reserved. A
/// clock that is far in the future would exceed it.
fn micros_of(clock: &dyn Clock) -> u64 {
    clock.wall_micros().min(Cas::RESTORED_MAX.get())
}

/// Returns the largest CAS that a store opened now may take from its clock. If the clock is beyond
/// the range of CAS values, that is the end of the range.
pub(crate) fn reserved_at(clock: &dyn Clock) -> Cas {
    Cas::new(micros_of(clock) + RESERVED_MICROS).min(Cas::RESTORED_MAX)
}

/// Begins branches that are due, and reserves CAS values.
pub(crate) struct Branches {
    committer: Arc<Committer>,
    gate: Arc<Gate>,
    health: Arc<Health>,
    syncs: Arc<Syncs>,
    clock: Arc<dyn Clock>,
    failpoints: MaybeFailpoints,
    unclean_stops: u64,
    /// The synced reservation. Changed with the lead only, after the record was synced.
    cas_reserved: AtomicU64,
    /// vBuckets in which a writer waits for its branch.
    waiting: Mutex<BTreeMap<VbId, Arc<Vb>>>,
}

impl Branches {
    pub(crate) fn new(
        state: StoreState,
        committer: &Arc<Committer>,
        gate: &Arc<Gate>,
        health: &Arc<Health>,
        syncs: &Arc<Syncs>,
        clock: &Arc<dyn Clock>,
        failpoints: &MaybeFailpoints,
    ) -> Self {
        Self {
            committer: Arc::clone(committer),
            gate: Arc::clone(gate),
            health: Arc::clone(health),
            syncs: Arc::clone(syncs),
            clock: Arc::clone(clock),
            failpoints: failpoints.clone(),
            unclean_stops: state.unclean_stops,
            cas_reserved: AtomicU64::new(state.cas_reserved.get()),
            waiting: Mutex::new(LockRank::Leaf, BTreeMap::new()),
        }
    }

    /// Returns whether changes of a vBucket may be given seqnos and CAS values now. Takes no lock.
    pub(crate) fn is_ready(&self, cell: &VbCell) -> bool {
        !cell.is_branch_due() && micros_of(&*self.clock) <= self.cas_reserved().get()
    }

    /// Returns the time to make a CAS from, in microseconds: the clock's, capped at the
    /// reservation.
    pub(crate) fn cas_micros(&self) -> u64 {
        micros_of(&*self.clock).min(self.cas_reserved().get())
    }

    /// Returns the failover log of a vBucket whose only branch is `uuid`, beginning at seqno 0.
    pub(super) fn first_log(&self, uuid: VbUuid) -> FailoverLog {
        FailoverLog::new(uuid, self.unclean_stops)
    }

    /// Returns an upper bound of the CAS values that a vBucket has given out, to be carried over
    /// its deletion.
    pub(super) fn max_cas(&self, cell: &VbCell, inner: &VbInner) -> Cas {
        if cell.is_branch_due() {
            inner.max_cas.above_lost(self.cas_reserved())
        } else {
            inner.max_cas
        }
    }

    /// Makes [`Self::is_ready`] true if it is not. Blocks for the lead and for one sync, which
    /// serves all vBuckets that wait. The caller holds no lock.
    ///
    /// # Errors
    /// [`crate::Error::DiskFull`], [`crate::Error::Failed`], [`crate::Error::Closed`].
    pub(crate) fn make_ready(&self, vb: &Arc<Vb>) -> Result<()> {
        self.waiting.lock().insert(vb.id(), Arc::clone(vb));
        self.committer.with_lead(|lead| {
            if self.is_ready(&vb.cell) {
                return Ok(());
            }
            // A previous leader may have taken this vBucket off the list, and then failed.
            let mut waiting = std::mem::take(&mut *self.waiting.lock());
            waiting.insert(vb.id(), Arc::clone(vb));
            // These errors are not recorded in the health, because they come from the health itself
            // or from a close.
            let storage = self.gate.acquire()?;
            self.health.check()?;
            self.begin(lead, &storage, &waiting).inspect_err(|error| {
                lead.run_after(self.health.note(error));
            })
        })
    }

    /// Returns the number of vBuckets in which a writer waits.
    #[cfg(feature = "testing")]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    fn begin(
        &self,
        lead: &mut Lead<'_>,
        storage: &Storage,
        waiting: &BTreeMap<VbId, Arc<Vb>>,
    ) -> Result<()> {
        let mut batch = RecordBatch::new(storage);
        let mut begun = Vec::new();
        for (id, vb) in waiting {
            let uuid = VbUuid::from_random(rand::random());
            let stops = self.unclean_stops;
            let Some((state, log)) = vb.cell.prepare_branch(uuid, stops, self.cas_reserved())
            else {
                // No branch is due: the vBucket waits for CAS values only, its branch has begun, or
                // it was deleted meanwhile.
                continue;
            };
            batch.put_state(*id, &state)?;
            batch.put_failover_log(*id, &log)?;
            begun.push((vb, state));
        }
        let reserved = self.renewed();
        if let Some(cas_reserved) = reserved {
            batch.put_store_state(&StoreState {
                unclean_stops: self.unclean_stops,
                cas_reserved,
            })?;
        }
        self.failpoints.pass(place::BRANCH_WRITE)?;
        let start = self.clock.monotonic();
        let sequence = storage.write(batch, true)?;
        self.syncs.count(start);
        // From here on the branches are on disk and have begun, whatever fails below. If memory
        // kept the old branch, the next flush would write a state that contradicts the failover
        // log.
        let witnessed = self.syncs.record(lead, sequence);
        let passed = self.failpoints.pass(place::BRANCH_PUBLISH);
        for (vb, state) in begun {
            vb.cell.publish_branch();
            let (uuid, seqno) = (state.uuid, state.high_seqno);
            tracing::info!(vb = %vb.id(), %uuid, %seqno, "new branch");
        }
        if let Some(reserved) = reserved {
            self.cas_reserved.store(reserved.get(), Ordering::Release);
        }
        witnessed?;
        passed?;
        // The sync covered every earlier batch too.
        self.syncs.publish_all(lead);
        Ok(())
    }

    fn cas_reserved(&self) -> Cas {
        Cas::new(self.cas_reserved.load(Ordering::Acquire))
    }

    /// Returns the new reservation, if little is left of the current one and it can be extended.
    fn renewed(&self) -> Option<Cas> {
        let reserved = self.cas_reserved();
        let left = reserved.get().saturating_sub(micros_of(&*self.clock));
        let next = reserved_at(&*self.clock);
        (left < RENEWED_MICROS && next > reserved).then_some(next)
    }
}
