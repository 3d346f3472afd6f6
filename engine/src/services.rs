//! The parts of an open engine, put together.
//!
//! Each part is a struct that holds only what it needs. This module lists them, and has no
//! behaviour of its own.
//!
//! # Locks
//! A thread takes locks in this order. Builds with debug assertions check it by
//! [`LockRank`](vbstore_core::lock_order::LockRank).
//!
//! 1. the *lead* of the commit queue: a role rather than a lock, see [`crate::commit`];
//! 2. the *gate* ([`crate::gate`]): read by every operation, written by the close;
//! 3. the *stripes* of the keys of one write, all in one vBucket, in ascending order;
//! 4. the lock of one *vBucket*;
//! 5. the commit *queue*;
//! 6. *leaves*, never two at once: dirty list, ledger, health, witness, tuning, signals.
//!
//! A thread that waits for durability, for memory or for the lead holds none of them. A thread that
//! calls wakers or frees changes holds none either ([`crate::deferred`]).

use crate::commit::{
    Branches, Committer, Deleter, Demand, DirtyList, Flush, LeaderlessSync, MemoryRecovery,
    SyncLedger, Syncs,
};
use crate::config::Config;
use crate::failpoint::MaybeFailpoints;
use crate::gate::Gate;
use crate::health::Health;
use crate::memory::Memory;
use crate::read::{PageReads, PointReads, SliceReads};
use crate::signals::TaskSignals;
use crate::storage::Storage;
use crate::store_dir::{Access, StoreDir, WitnessFile};
use crate::tuning::CurrentTuning;
use crate::vbuckets::VBuckets;
use crate::wakers::Wakers;
use crate::write::Writes;
use std::sync::Arc;
use vbstore_core::lock_order::LockRank;
use vbstore_core::record::StoreState;
use vbstore_core::sync::Mutex;
use vbstore_core::{Clock, StoreUuid, SystemClock, VbCell};
use vbstore_metrics::EngineMetrics;

/// The parts of an open engine, without its handles and threads.
pub(crate) struct Services {
    pub(crate) store: StoreUuid,
    pub(crate) config: Arc<Config>,
    pub(crate) tuning: Arc<CurrentTuning>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
    pub(crate) signals: Arc<TaskSignals>,
    pub(crate) wakers: Wakers,
    /// The limit of all memtables of RocksDB together, in bytes.
    pub(crate) write_buffer_bytes: u64,
    /// Whether the store is a copy that was opened to read. Its vBuckets could not begin their new
    /// branches, so streams are refused: they would announce the branches of the original.
    pub(crate) has_branches_to_begin: bool,

    pub(crate) store_dir: Arc<StoreDir>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) witness: Arc<Mutex<WitnessFile>>,
    pub(crate) vbs: Arc<VBuckets>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) health: Arc<Health>,

    pub(crate) dirty: Arc<DirtyList>,
    pub(crate) ledger: Arc<SyncLedger>,
    pub(crate) demand: Arc<Demand>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) leaderless_sync: LeaderlessSync,
    pub(crate) deleter: Deleter,
    #[cfg(feature = "testing")]
    pub(crate) syncs: Arc<Syncs>,
    #[cfg(feature = "testing")]
    pub(crate) recovery: Arc<MemoryRecovery>,

    pub(crate) writes: Writes,
    pub(crate) points: PointReads,
    pub(crate) pages: PageReads,
    pub(crate) slices: SliceReads,
}

/// A store that was opened, with the options of its engine. The input of [`Services::new`].
pub(crate) struct OpenedStore {
    pub(crate) store: StoreUuid,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
    pub(crate) wakers: Wakers,
    pub(crate) write_buffer_bytes: u64,
    pub(crate) store_dir: StoreDir,
    pub(crate) storage: Storage,
    pub(crate) witness: WitnessFile,
    pub(crate) access: Access,
    pub(crate) has_branches_to_begin: bool,
    pub(crate) store_state: StoreState,
    pub(crate) cells: Vec<VbCell>,
}

impl Services {
    /// Makes the parts and connects them.
    #[expect(
        clippy::too_many_lines,
        reason = "one list: each part with what it needs"
    )]
    pub(crate) fn new(opened: OpenedStore) -> Self {
        let OpenedStore {
            store,
            config,
            clock,
            metrics,
            failpoints,
            wakers,
            write_buffer_bytes,
            store_dir,
            storage,
            witness,
            access,
            has_branches_to_begin,
            store_state,
            cells,
        } = opened;
        let tuning = Arc::new(CurrentTuning::new(config.tuning.clone()));
        let config = Arc::new(config);
        let signals = Arc::new(TaskSignals::default());
        let gate = Arc::new(Gate::new(storage, store_dir.opener()));
        let witness = Arc::new(Mutex::new(LockRank::Leaf, witness));
        let vbs = Arc::new(VBuckets::new(cells));
        let memory = Arc::new(Memory::new());
        let health = Arc::new(Health::new(
            Arc::clone(&vbs),
            Arc::clone(&signals),
            Arc::clone(&metrics),
            access == Access::Read,
        ));

        let dirty = Arc::new(DirtyList::new());
        let ledger = Arc::new(SyncLedger::new());
        let demand = Arc::new(Demand::new(Arc::clone(&signals)));
        let recovery = Arc::new(MemoryRecovery::new(
            Arc::clone(&vbs),
            Arc::clone(&memory),
            Arc::clone(&tuning),
            Arc::clone(&demand),
            Arc::clone(&metrics),
        ));
        let syncs = Arc::new(Syncs {
            ledger: Arc::clone(&ledger),
            witness: Arc::clone(&witness),
            signals: Arc::clone(&signals),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            failpoints: failpoints.clone(),
        });
        let flush = Flush {
            gate: Arc::clone(&gate),
            dirty: Arc::clone(&dirty),
            demand: Arc::clone(&demand),
            syncs: Arc::clone(&syncs),
            recovery: Arc::clone(&recovery),
            health: Arc::clone(&health),
            tuning: Arc::clone(&tuning),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            failpoints: failpoints.clone(),
        };
        let committer = Arc::new(Committer::new(
            flush,
            Arc::clone(&gate),
            Arc::clone(&vbs),
            Arc::clone(&health),
            Arc::clone(&memory),
            Arc::clone(&tuning),
            wakers.clone(),
        ));
        let leaderless_sync = LeaderlessSync {
            committer: Arc::clone(&committer),
            syncs: Arc::clone(&syncs),
            gate: Arc::clone(&gate),
            health: Arc::clone(&health),
            clock: Arc::clone(&clock),
            failpoints: failpoints.clone(),
        };
        let branches = Arc::new(Branches::new(
            store_state,
            &committer,
            &gate,
            &health,
            &syncs,
            &clock,
            &failpoints,
        ));
        let deleter = Deleter {
            committer: Arc::clone(&committer),
            gate: Arc::clone(&gate),
            health: Arc::clone(&health),
            memory: Arc::clone(&memory),
            syncs: Arc::clone(&syncs),
            branches: Arc::clone(&branches),
            clock: Arc::clone(&clock),
            signals: Arc::clone(&signals),
            failpoints: failpoints.clone(),
        };
        let writes = Writes {
            config: Arc::clone(&config),
            gate: Arc::clone(&gate),
            committer: Arc::clone(&committer),
            branches,
            dirty: Arc::clone(&dirty),
            memory: Arc::clone(&memory),
            health: Arc::clone(&health),
            tuning: Arc::clone(&tuning),
            signals: Arc::clone(&signals),
            clock: Arc::clone(&clock),
            real_clock: SystemClock::new(),
            metrics: Arc::clone(&metrics),
            failpoints: failpoints.clone(),
            wakers: wakers.clone(),
        };
        let points = PointReads::new(&gate, &clock, &metrics);
        let pages = PageReads {
            gate: Arc::clone(&gate),
            clock: Arc::clone(&clock),
            failpoints: failpoints.clone(),
        };
        let slices = SliceReads {
            gate: Arc::clone(&gate),
            vbs: Arc::clone(&vbs),
            failpoints: failpoints.clone(),
        };
        Self {
            store,
            config,
            tuning,
            clock,
            metrics,
            failpoints,
            signals,
            wakers,
            write_buffer_bytes,
            has_branches_to_begin,
            store_dir: Arc::new(store_dir),
            gate,
            witness,
            vbs,
            memory,
            health,
            dirty,
            ledger,
            demand,
            committer,
            leaderless_sync,
            deleter,
            #[cfg(feature = "testing")]
            syncs,
            #[cfg(feature = "testing")]
            recovery,
            writes,
            points,
            pages,
            slices,
        }
    }
}
