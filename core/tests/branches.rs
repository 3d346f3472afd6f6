//! Model-checks how a branch begins (feature `shuttle`).
//!
//! A model checker runs the shipped sources in many interleavings: the vBucket's part in this crate
//! and the engine's part, included by path. The disk, the lead and the health are replaced by the
//! stand-ins below.

#![cfg(feature = "shuttle")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the stand-ins have the signatures of the engine's parts"
)]

mod checker;

#[path = "../../engine/src/commit/branch.rs"]
#[expect(unexpected_cfgs, reason = "a feature of the engine's crate")]
mod branch;

// Stand-ins for the engine's modules that the included source imports.

mod error {
    use vbstore_core::VbId;

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Error {
        /// A planted failure, or a refusal because of it until the health has recovered.
        DiskFull,
        VbGone(VbId),
    }

    pub(crate) type Result<T> = std::result::Result<T, Error>;
}

mod failpoint {
    use crate::error::{Error, Result};
    use std::sync::Arc;
    use vbstore_core::sync::Mutex;

    pub(crate) mod place {
        pub(crate) const BRANCH_WRITE: &str = "write";
        pub(crate) const BRANCH_SYNC: &str = "sync";
        pub(crate) const BRANCH_PUBLISH: &str = "publish";
        pub(crate) const ALL: [&str; 3] = [BRANCH_WRITE, BRANCH_SYNC, BRANCH_PUBLISH];
    }

    /// The place at which the next attempt fails, once.
    #[derive(Clone)]
    pub(crate) struct MaybeFailpoints(pub(crate) Arc<Mutex<Option<&'static str>>>);

    impl MaybeFailpoints {
        pub(crate) fn pass(&self, at: &'static str) -> Result<()> {
            let planted = self.0.lock().take_if(|place| *place == at);
            planted.map_or(Ok(()), |_| Err(Error::DiskFull))
        }
    }
}

mod storage {
    use crate::error::Result;
    use crate::failpoint::{MaybeFailpoints, place};
    use vbstore_core::record::{StoreState, VbState};
    use vbstore_core::sync::Mutex;
    use vbstore_core::{FailoverLog, VbId};

    /// The synced records of one vBucket.
    pub(crate) struct Disk {
        pub(crate) state: VbState,
        pub(crate) log: FailoverLog,
        /// Every state that was ever written, the oldest first.
        pub(crate) written: Vec<VbState>,
    }

    pub(crate) struct Storage {
        pub(crate) disk: Mutex<Disk>,
        pub(crate) failpoints: MaybeFailpoints,
    }

    #[derive(Default)]
    pub(crate) struct RecordBatch {
        state: Option<VbState>,
        log: Option<FailoverLog>,
    }

    impl RecordBatch {
        pub(crate) fn new(_: &Storage) -> Self {
            Self::default()
        }

        pub(crate) fn put_state(&mut self, _: VbId, state: &VbState) -> Result<()> {
            self.state = Some(*state);
            Ok(())
        }

        pub(crate) fn put_failover_log(&mut self, _: VbId, log: &FailoverLog) -> Result<()> {
            self.log = Some(log.clone());
            Ok(())
        }

        pub(crate) fn put_store_state(&mut self, _: &StoreState) -> Result<()> {
            panic!("no CAS needs to be reserved, as the clock stands still");
        }
    }

    impl Storage {
        /// Like RocksDB, shows a batch to readers only after its sync, and all of it at once.
        pub(crate) fn write(&self, batch: RecordBatch, sync: bool) -> Result<u64> {
            assert!(sync, "the branch is not synced");
            shuttle::thread::yield_now();
            self.failpoints.pass(place::BRANCH_SYNC)?;
            let mut disk = self.disk.lock();
            if let (Some(state), Some(log)) = (batch.state, batch.log) {
                disk.state = state;
                disk.log = log;
                disk.written.push(state);
            }
            Ok(1)
        }
    }
}

mod gate {
    use crate::error::Result;
    use crate::storage::Storage;
    use std::sync::Arc;

    pub(crate) struct Gate(pub(crate) Arc<Storage>);

    impl Gate {
        pub(crate) fn acquire(&self) -> Result<Arc<Storage>> {
            Ok(Arc::clone(&self.0))
        }
    }
}

mod health {
    use crate::error::{Error, Result};
    use vbstore_core::sync::{AtomicBool, Ordering};

    /// Refuses one operation after each error, as if the flusher then found space.
    pub(crate) struct Health(pub(crate) AtomicBool);

    pub(crate) struct DeferredWork;

    impl Health {
        pub(crate) fn check(&self) -> Result<()> {
            if self.0.swap(false, Ordering::AcqRel) {
                return Err(Error::DiskFull);
            }
            Ok(())
        }

        pub(crate) fn note(&self, _: &Error) -> DeferredWork {
            self.0.store(true, Ordering::Release);
            DeferredWork
        }
    }
}

mod lead {
    use crate::health::DeferredWork;
    use std::marker::PhantomData;

    pub(crate) struct Lead<'a>(pub(crate) PhantomData<&'a ()>);

    impl Lead<'_> {
        pub(crate) fn run_after(&mut self, _: DeferredWork) {}
    }
}

mod committer {
    use crate::error::Result;
    use crate::lead::Lead;
    use std::marker::PhantomData;
    use vbstore_core::sync::Mutex;

    pub(crate) struct Committer(pub(crate) Mutex<()>);

    impl Committer {
        pub(crate) fn with_lead<R>(
            &self,
            work: impl FnOnce(&mut Lead<'_>) -> Result<R>,
        ) -> Result<R> {
            let led = self.0.lock();
            let outcome = work(&mut Lead(PhantomData));
            drop(led);
            outcome
        }
    }
}

mod syncs {
    use crate::error::Result;
    use crate::lead::Lead;
    use std::time::Duration;

    pub(crate) struct Syncs;

    impl Syncs {
        pub(crate) fn count(&self, _: Duration) {}

        pub(crate) fn record(&self, _: &Lead<'_>, _: u64) -> Result<()> {
            Ok(())
        }

        pub(crate) fn publish_all(&self, _: &mut Lead<'_>) {}
    }
}

mod vbuckets {
    use vbstore_core::{VbCell, VbId};

    pub(crate) struct Vb {
        pub(crate) cell: VbCell,
    }

    impl Vb {
        pub(crate) fn id(&self) -> VbId {
            self.cell.id
        }
    }
}

use branch::{Branches, reserved_at};
use bytes::Bytes;
use checker::check;
use committer::Committer;
use error::{Error, Result};
use failpoint::{MaybeFailpoints, place};
use gate::Gate;
use health::Health;
use shuttle::thread;
use std::sync::Arc;
use std::time::Duration;
use storage::{Disk, RecordBatch, Storage};
use syncs::Syncs;
use vbstore_core::lock_order::LockRank;
use vbstore_core::record::{StoreState, VbState};
use vbstore_core::sync::{AtomicBool, Mutex};
use vbstore_core::vbucket::GenerationEnd;
use vbstore_core::{
    Admission, Cas, Clock, ConsumerActivity, FailoverLog, FilterDigest, Item, ItemKind, ItemMeta,
    ManualClock, Position, Seqno, VbCell, VbId, VbUuid,
};
use vbuckets::Vb;

const VB: VbId = VbId::new(0);
/// The branch and the high seqno after the unclean stop.
const OLD: VbUuid = VbUuid::new(1);
const RECOVERED: Seqno = Seqno::new(5);

struct World {
    vb: Arc<Vb>,
    storage: Arc<Storage>,
    branches: Branches,
    committer: Arc<Committer>,
    health: Arc<Health>,
    reserved: Cas,
}

impl World {
    /// Returns a vBucket after an unclean stop. The first attempt to begin its branch fails at
    /// `fails_at`, if given.
    fn new(fails_at: Option<&'static str>) -> Arc<Self> {
        let state = VbState {
            high_seqno: RECOVERED,
            ..VbState::new(OLD)
        };
        let log = FailoverLog::new(OLD, 0);
        let cell = VbCell::new(VB, state, log.clone()).with_branch_due();
        let failpoints = MaybeFailpoints(Arc::new(Mutex::new(LockRank::Leaf, fails_at)));
        let disk = Disk {
            state,
            log,
            written: Vec::new(),
        };
        let storage = Arc::new(Storage {
            disk: Mutex::new(LockRank::Leaf, disk),
            failpoints: failpoints.clone(),
        });
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
        let reserved = reserved_at(&*clock);
        let store = StoreState {
            unclean_stops: 1,
            cas_reserved: reserved,
        };
        let committer = Arc::new(Committer(Mutex::new(LockRank::Lead, ())));
        let health = Arc::new(Health(AtomicBool::new(false)));
        let gate = Arc::new(Gate(Arc::clone(&storage)));
        let syncs = Arc::new(Syncs);
        let branches = Branches::new(
            store,
            &committer,
            &gate,
            &health,
            &syncs,
            &clock,
            &failpoints,
        );
        Arc::new(Self {
            vb: Arc::new(Vb { cell }),
            storage,
            branches,
            committer,
            health,
            reserved,
        })
    }

    fn spawn(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Self) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let world = Arc::clone(self);
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || run(&world)).unwrap()
    }

    /// Writes once, as the engine does: it has looked at its key in the current generation.
    fn write(&self) -> Result<Seqno> {
        let cell = &self.vb.cell;
        let generation = cell.generation();
        loop {
            self.health.check()?;
            if self.branches.is_ready(cell) {
                break;
            }
            self.branches.make_ready(&self.vb)?;
        }
        let mut inner = cell.lock();
        if cell.generation() != generation {
            return Err(Error::VbGone(VB));
        }
        let uuid = inner.state.uuid;
        assert_ne!(uuid, OLD, "a change was assigned on the ended branch");
        let on_disk = self.storage.disk.lock().state.uuid;
        assert_eq!(
            on_disk, uuid,
            "a change was assigned on a branch that is not synced"
        );
        let cas = inner.max_cas.next(self.branches.cas_micros());
        assert!(cas > self.reserved, "the CAS may have been assigned before");
        inner.max_cas = cas;
        let seqno = inner.checkpoints.high_seqno().saturating_add(1);
        let meta = ItemMeta {
            seqno,
            kind: ItemKind::Mutation,
            cas,
            flags: 0,
            expiry: 0,
            datatype: 0,
            value_len: 0,
        };
        let item = Arc::new(Item {
            meta,
            key: seqno.get().to_string().into_bytes().into(),
            value: Bytes::new(),
        });
        inner.checkpoints.append(item, None, false, Duration::ZERO);
        drop(inner);
        Ok(seqno)
    }

    /// Writes until it succeeds, as an embedder does.
    fn write_until_done(&self) {
        while self.write().is_err() {}
    }

    /// Deletes the vBucket, as the engine does.
    fn delete(&self) {
        let deleted = self.committer.with_lead(|_| {
            let cell = &self.vb.cell;
            let uuid = VbUuid::new(99);
            let log = self.branches.first_log(uuid);
            let mut inner = cell.lock();
            let mut state = VbState::new(uuid);
            state.max_cas = self.branches.max_cas(cell, &inner);
            let mut batch = RecordBatch::new(&self.storage);
            batch.put_state(VB, &state)?;
            batch.put_failover_log(VB, &log)?;
            self.storage.write(batch, true)?;
            let (forgotten, fired) =
                cell.begin_generation(&mut inner, state, log, GenerationEnd::Deleted);
            drop(inner);
            fired.wake();
            drop(forgotten);
            Ok(())
        });
        deleted.unwrap();
    }

    /// Checks what a stream may see, in memory and on disk.
    fn look(&self) {
        let cell = &self.vb.cell;
        let inner = cell.lock();
        let (uuid, high) = (inner.state.uuid, inner.checkpoints.high_seqno());
        let newest = *inner.failover_log.entries().first().unwrap();
        drop(inner);
        assert_eq!(
            newest.uuid, uuid,
            "the failover log has another newest branch"
        );
        let written = self.storage.disk.lock().written.clone();
        let is_synced = written.iter().any(|state| state.uuid == uuid);
        assert!(uuid == OLD || is_synced, "the branch is not synced");
        assert!(
            uuid != OLD || high == RECOVERED,
            "a change was assigned before its branch began"
        );

        // A slice reads the generation, then opens its view, then reads the view's branch.
        let generation = cell.generation();
        let seen = self.storage.disk.lock().state;
        if !cell.has_branch(generation, seen.uuid) {
            assert_ne!(
                cell.generation(),
                generation,
                "the disk has an unknown branch"
            );
            return;
        }
        // The consumer returns with a position on the branch that it saw.
        let position = Position {
            vb_uuid: seen.uuid,
            seqno: seen.high_seqno,
            snap_start: seen.high_seqno,
            snap_end: seen.high_seqno,
            ..Position::default()
        };
        let activity = ConsumerActivity::new(Duration::ZERO);
        let answer = cell.admit(
            &position,
            FilterDigest::of(b"", false),
            Seqno::MAX,
            &activity,
        );
        match answer.unwrap() {
            Admission::Admitted { start, reader } => {
                drop(reader);
                if let Some(cursor) = start.cursor {
                    cell.leave(cursor);
                }
            }
            Admission::Refused(resume) => {
                assert_ne!(cell.generation(), generation, "{resume:?}");
            }
        }
    }

    /// Returns the number of branches that began, counted by their uuids on disk.
    fn branches_begun(&self) -> usize {
        let disk = self.storage.disk.lock();
        let mut names: Vec<VbUuid> = disk.written.iter().map(|state| state.uuid).collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// Checks that memory and disk agree when nothing runs.
    fn check_at_rest(&self) {
        let inner = self.vb.cell.lock();
        let disk = self.storage.disk.lock();
        assert_eq!(inner.state.uuid, disk.state.uuid);
        assert_eq!(inner.failover_log, disk.log);
        assert!(!self.vb.cell.is_branch_due());
    }
}

fn join(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Two writers need the same branch while streams look. One attempt may fail.
fn two_writers(fails_at: Option<&'static str>) {
    let world = World::new(fails_at);
    let mut threads = Vec::new();
    for name in ["writer", "other writer"] {
        threads.push(world.spawn(name, World::write_until_done));
    }
    threads.push(world.spawn("reader", |world| (0..3).for_each(|_| world.look())));
    join(threads);
    world.look();
    world.check_at_rest();
    assert_eq!(
        world.branches_begun(),
        1,
        "the writers began more than one branch"
    );
    let inner = world.vb.cell.lock();
    let branches: Vec<Seqno> = inner
        .failover_log
        .entries()
        .iter()
        .map(|e| e.seqno)
        .collect();
    assert_eq!(branches, [RECOVERED, Seqno::ZERO]);
    assert_eq!(inner.checkpoints.high_seqno(), Seqno::new(7));
}

/// The vBucket is deleted while its branch begins. What begins after the deletion does not belong
/// to the old history.
fn deleted_in_between(fails_at: Option<&'static str>) {
    let world = World::new(fails_at);
    let threads = [
        world.spawn("writer", move |world| {
            let written = world.write();
            assert!(fails_at.is_some() || written != Err(Error::DiskFull));
            world.write_until_done();
        }),
        world.spawn("deleter", World::delete),
        world.spawn("reader", |world| (0..3).for_each(|_| world.look())),
    ];
    join(threads);
    world.write_until_done();
    world.look();
    world.check_at_rest();
    let inner = world.vb.cell.lock();
    assert_eq!(inner.state.uuid, VbUuid::new(99));
    assert_eq!(
        inner.failover_log.entries().len(),
        1,
        "a branch of the deleted generation began"
    );
}

/// The first attempt of the only writer fails. No branch has begun then, and the next attempt
/// begins the same branch.
fn an_attempt_fails(at: &'static str) {
    let world = World::new(Some(at));
    let reader = world.spawn("reader", |world| (0..3).for_each(|_| world.look()));
    assert_eq!(world.write(), Err(Error::DiskFull));
    let inner = world.vb.cell.lock();
    assert_eq!(inner.checkpoints.high_seqno(), RECOVERED);
    if at != place::BRANCH_PUBLISH {
        assert!(world.vb.cell.is_branch_due());
        assert_eq!((inner.state.uuid, world.branches_begun()), (OLD, 0));
    }
    drop(inner);
    assert_eq!(
        world.write(),
        Err(Error::DiskFull),
        "refused until the health has recovered"
    );
    assert_eq!(world.write(), Ok(Seqno::new(6)));
    join([reader]);
    world.check_at_rest();
    assert_eq!(
        world.branches_begun(),
        1,
        "the next attempt used another uuid"
    );
}

#[test]
fn two_writers_begin_one_branch_and_nobody_sees_it_before_its_sync() {
    check(10_000, || two_writers(None));
}

#[test]
fn a_deletion_in_between_ends_the_branch_that_was_due() {
    check(10_000, || {
        deleted_in_between(None);
        // Fails after the branch is on disk and before it is published.
        deleted_in_between(Some(place::BRANCH_PUBLISH));
    });
}

#[test]
fn an_attempt_that_fails_begins_nothing_and_the_next_begins_the_same_branch() {
    check(5_000, || {
        for at in place::ALL {
            an_attempt_fails(at);
        }
    });
}

#[test]
fn a_failure_for_one_writer_is_no_branch_for_the_other() {
    check(5_000, || {
        for at in place::ALL {
            two_writers(Some(at));
        }
    });
}
