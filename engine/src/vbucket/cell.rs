//! What the engine keeps of one vBucket.

use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use vbstore_core::record::VbState;
use vbstore_core::{Cas, Checkpoints, FailoverLog, Seqno, VbId};

/// One vBucket inside the engine.
///
/// `persisted` and `synced` are raised by whoever leads the flush, after the write they speak of
/// has returned. A deletion stores `generation` first and then sets them back to 0, so whoever
/// reads one of them and *then* finds the generation unchanged has read it of that generation.
#[derive(Debug)]
pub(crate) struct VbCell {
    pub(crate) id: VbId,
    persisted: AtomicU64,
    synced: AtomicU64,
    /// Counts deletions since the engine was opened.
    generation: AtomicU64,
    /// The log position (bytes written by the engine) plus one at the first write since both
    /// families were last moved to files; 0 if there was none.
    pub(crate) rocks_unflushed_since: AtomicU64,
    pub(crate) lock: Mutex<VbInner>,
}

/// What the vBucket's lock guards.
#[derive(Debug)]
pub(crate) struct VbInner {
    pub(crate) checkpoints: Checkpoints,
    /// As of the last flush.
    pub(crate) state: VbState,
    pub(crate) failover_log: FailoverLog,
    pub(crate) max_cas: Cas,
    /// Whether the vBucket is on the dirty list.
    pub(crate) is_dirty: bool,
}

impl VbCell {
    pub(crate) fn new(id: VbId, state: VbState, failover_log: FailoverLog) -> Self {
        Self {
            id,
            persisted: AtomicU64::new(state.high_seqno.get()),
            synced: AtomicU64::new(state.high_seqno.get()),
            generation: AtomicU64::new(0),
            rocks_unflushed_since: AtomicU64::new(0),
            lock: Mutex::new(VbInner {
                checkpoints: Checkpoints::new(state.high_seqno),
                max_cas: state.max_cas,
                state,
                failover_log,
                is_dirty: false,
            }),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(crate) fn persisted(&self) -> Seqno {
        Seqno::new(self.persisted.load(Ordering::Acquire))
    }

    pub(crate) fn synced(&self) -> Seqno {
        Seqno::new(self.synced.load(Ordering::Acquire))
    }

    pub(crate) fn set_persisted(&self, seqno: Seqno) {
        self.persisted.store(seqno.get(), Ordering::Release);
    }

    pub(crate) fn set_synced(&self, seqno: Seqno) {
        self.synced.store(seqno.get(), Ordering::Release);
    }

    /// Begins a new life of the vBucket. Called under its lock.
    pub(crate) fn begin_generation(&self) {
        // ORDER: see the type's comment.
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.set_persisted(Seqno::ZERO);
        self.set_synced(Seqno::ZERO);
    }

    /// Refuses if the vBucket was deleted since `generation` was read.
    pub(crate) fn check_generation(&self, generation: u64) -> Result<()> {
        if self.generation() == generation {
            Ok(())
        } else {
            Err(Error::VbGone { vb: self.id })
        }
    }
}
