//! Model-checks the scheduler of backfills with its buffers and watches (feature `shuttle`).
//!
//! A model checker runs the shipped sources in many interleavings. A lost wake-up leaves a thread
//! waiting for ever, which the checker reports as a deadlock.

#![cfg(feature = "shuttle")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod checker;

#[path = "../../backfill/src/delivery/buffers.rs"]
#[expect(
    dead_code,
    reason = "the watchdog and reads from memory are not modelled"
)]
mod buffers;
#[path = "../../backfill/src/stream/ids.rs"]
#[expect(dead_code, reason = "streams have no numbers here")]
mod ids;
#[path = "../../backfill/src/config/order.rs"]
#[expect(unreachable_pub, reason = "public in its own crate")]
mod order;
#[path = "../../backfill/src/schedule/mod.rs"]
#[expect(dead_code, reason = "metrics are not sampled here")]
mod schedule;
#[path = "../../backfill/src/stream/state.rs"]
#[expect(dead_code, unreachable_pub, reason = "public in its own crate")]
mod state;

/// Stand-ins for the modules that the included sources import.
mod config {
    pub(crate) use crate::order::BackfillOrder;
}
mod delivery {
    pub(crate) use crate::buffers::{Buffers, RoomWaker};
}
mod stream {
    pub(crate) use crate::ids::{BackfillId, ConsumerId, Ids};
    pub(crate) use crate::state::StreamState;
}

use buffers::{Buffers, Charge};
use checker::check;
use ids::{BackfillId, ConsumerId, Ids};
use order::BackfillOrder;
use schedule::{
    ConsumerLimits, Group, InvocationOutcome, NextGroup, ScheduledTask, Scheduler, Snooze,
};
use shuttle::thread;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use vbstore_core::lock_order::LockRank;
use vbstore_core::record::VbState;
use vbstore_core::sync::{AtomicBool, Condvar, Mutex, Ordering};
use vbstore_core::{FailoverLog, ManualClock, Seqno, VbCell, VbId, VbUuid, Visibility};

/// Bytes of a slice. The buffers have room for one in total and for one of each consumer.
const SLICE: u64 = 1_000;
/// Number of slices of a backfill.
const SLICES: u32 = 2;

/// The state of one backfill for its consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    Closed,
}

/// The place to which the backfills of a consumer deliver.
#[derive(Default)]
struct Mailbox {
    charges: Vec<Charge>,
    fates: BTreeMap<BackfillId, Fate>,
    /// Whether all of its backfills were submitted.
    is_complete: bool,
}

impl Mailbox {
    fn is_open(&self, id: BackfillId) -> bool {
        self.fates.get(&id) == Some(&Fate::Open)
    }

    fn is_over(&self) -> bool {
        self.is_complete && self.fates.values().all(|fate| *fate != Fate::Open)
    }
}

/// The state that backfills and consumers share. It has no scheduler, because a backfill has none.
struct Shared {
    cell: VbCell,
    mailboxes: [(ConsumerId, Mutex<Mailbox>, Condvar); 2],
    /// The last seqno to sync, and whether it is final.
    demand: Mutex<(u64, bool)>,
    demanded: Condvar,
    /// The backfills that run now.
    running: Mutex<Vec<BackfillId>>,
}

impl Shared {
    fn mailbox(&self, of: ConsumerId) -> &(ConsumerId, Mutex<Mailbox>, Condvar) {
        self.mailboxes.iter().find(|(id, ..)| *id == of).unwrap()
    }

    fn change(&self, of: ConsumerId, change: impl FnOnce(&mut Mailbox) -> Option<Charge>) {
        let (_, mailbox, arrived) = self.mailbox(of);
        let dropped = change(&mut mailbox.lock());
        arrived.notify_all();
        drop(dropped);
    }

    /// Demands a sync of a new seqno and returns it.
    fn write(&self) -> u64 {
        let mut demand = self.demand.lock();
        demand.0 += 1;
        let seqno = demand.0;
        drop(demand);
        self.demanded.notify_all();
        seqno
    }

    /// Syncs what is demanded until the demand is final.
    fn sync(&self) {
        let mut synced = 0;
        loop {
            let mut demand = self.demand.lock();
            while demand.0 == synced && !demand.1 {
                demand = self.demanded.wait_for(demand, Duration::MAX).0;
            }
            if demand.0 == synced {
                return;
            }
            synced = demand.0;
            drop(demand);
            self.cell.publish_synced_to(Seqno::new(synced)).wake();
        }
    }
}

/// A backfill of several slices, each of which needs room and a sync.
struct Chore {
    id: BackfillId,
    consumer: ConsumerId,
    shared: Arc<Shared>,
    slices: u32,
    in_hand: Option<(Charge, u64)>,
    watcher: Option<Arc<Watcher>>,
}

impl fmt::Debug for Chore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chore").field(&self.id).finish()
    }
}

/// Removes its watch when it is dropped.
struct Watcher {
    shared: Arc<Shared>,
    waker: Waker,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.cell.unwatch(&self.waker);
    }
}

impl ScheduledTask for Chore {
    type Watcher = Watcher;

    fn id(&self) -> BackfillId {
        self.id
    }

    fn consumer(&self) -> ConsumerId {
        self.consumer
    }

    fn set_queued(&mut self) {}

    fn watcher(&mut self, make: impl FnOnce() -> Waker) -> Arc<Watcher> {
        let shared = &self.shared;
        let watcher = self.watcher.get_or_insert_with(|| {
            Arc::new(Watcher {
                shared: Arc::clone(shared),
                waker: make(),
            })
        });
        Arc::clone(watcher)
    }

    fn watch(watcher: &Watcher, visibility: Visibility, above: Seqno) -> bool {
        let cell = &watcher.shared.cell;
        cell.watch(0, visibility, above, &watcher.waker, Duration::ZERO)
    }
}

impl Chore {
    /// Reserves room for a slice if none is in hand. Returns false if there is no room.
    fn plan(&mut self, buffers: &Arc<Buffers>, beside: Option<&Charge>) -> bool {
        if self.in_hand.is_some() {
            return true;
        }
        let charge = match beside {
            Some(charge) => Ok(buffers.beside(charge)),
            None => buffers.reserve(self.consumer, SLICE),
        };
        let Ok(charge) = charge else {
            return false;
        };
        self.in_hand = Some((charge, self.shared.write()));
        true
    }

    /// Delivers the slice in hand if it is synced.
    fn finish(mut self: Box<Self>) -> InvocationOutcome<Self> {
        let Some((mut charge, seqno)) = self.in_hand.take() else {
            return InvocationOutcome::Snooze(self, Snooze::Room);
        };
        if self.shared.cell.synced().get() < seqno {
            self.in_hand = Some((charge, seqno));
            let snooze = Snooze::Durable {
                visibility: Visibility::Synced,
                above: Seqno::new(seqno - 1),
            };
            return InvocationOutcome::Snooze(self, snooze);
        }
        charge.settle(SLICE - 100);
        self.slices -= 1;
        let (id, is_last) = (self.id, self.slices == 0);
        self.shared.change(self.consumer, |mailbox| {
            if !mailbox.is_open(id) {
                return Some(charge);
            }
            mailbox.charges.push(charge);
            if is_last {
                mailbox.fates.insert(id, Fate::Done);
            }
            None
        });
        if is_last {
            InvocationOutcome::Done
        } else {
            InvocationOutcome::Again(self)
        }
    }
}

/// The streams of an engine, without the engine.
struct World {
    scheduler: Arc<Scheduler<Chore>>,
    shared: Arc<Shared>,
    ids: Ids,
    is_stopped: AtomicBool,
}

type Thread = thread::JoinHandle<()>;

impl World {
    /// Makes a scheduler with three places and a queue of one. Makes two consumers, one of each
    /// order, with one permit each.
    fn new() -> Arc<Self> {
        let clock = Arc::new(ManualClock::new());
        let scheduler = Scheduler::new(3, 1, SLICE, clock);
        let (ids, uuid) = (Ids::default(), VbUuid::new(1));
        let consumer = |order| {
            let id = ids.consumer();
            let limits = ConsumerLimits {
                order,
                backfills_max: 2,
                slices_max: 1,
            };
            scheduler.buffers().add_consumer(id, SLICE, 25, 1);
            scheduler.add_consumer(id, limits);
            let mailbox = Mutex::new(LockRank::Leaf, Mailbox::default());
            (id, mailbox, Condvar::new())
        };
        let mailboxes = [BackfillOrder::RoundRobin, BackfillOrder::Sequential].map(consumer);
        let shared = Shared {
            cell: VbCell::new(VbId::new(0), VbState::new(uuid), FailoverLog::new(uuid, 0)),
            mailboxes,
            demand: Mutex::new(LockRank::Leaf, (0, false)),
            demanded: Condvar::new(),
            running: Mutex::new(LockRank::Leaf, Vec::new()),
        };
        Arc::new(Self {
            scheduler,
            shared: Arc::new(shared),
            ids,
            is_stopped: AtomicBool::new(false),
        })
    }

    fn consumers(&self) -> [ConsumerId; 2] {
        self.shared.mailboxes.each_ref().map(|(id, ..)| *id)
    }

    /// Starts a thread. A deadlock report includes its name.
    fn spawn(self: &Arc<Self>, name: &str, run: impl FnOnce(&Self) + Send + 'static) -> Thread {
        let world = Arc::clone(self);
        let thread = thread::Builder::new().name(name.to_owned());
        thread.spawn(move || run(&world)).unwrap()
    }

    /// Opens a stream that reads the disk. Returns its backfill, or `None` if it was refused.
    fn open(&self, consumer: ConsumerId, may_be_refused: bool) -> Option<BackfillId> {
        let id = self.ids.backfill();
        let chore = Box::new(Chore {
            id,
            consumer,
            shared: Arc::clone(&self.shared),
            slices: SLICES,
            in_hand: None,
            watcher: None,
        });
        self.shared.change(consumer, |mailbox| {
            mailbox.fates.insert(id, Fate::Open);
            None
        });
        let Err(refused) = self.scheduler.submit(chore, may_be_refused) else {
            return Some(id);
        };
        let is_stopped = self.is_stopped.load(Ordering::Acquire);
        assert!(may_be_refused || is_stopped, "{refused:?} was refused");
        self.end(consumer, id);
        None
    }

    /// Ends a stream from outside. Returns false if it had ended already.
    fn end(&self, consumer: ConsumerId, id: BackfillId) -> bool {
        let mut was_open = false;
        self.shared.change(consumer, |mailbox| {
            was_open = mailbox.is_open(id);
            if was_open {
                mailbox.fates.insert(id, Fate::Closed);
            }
            None
        });
        was_open
    }

    /// Closes a stream, as a consumer does.
    fn close(&self, consumer: ConsumerId, id: BackfillId) {
        if self.end(consumer, id) {
            self.scheduler.remove(id, consumer);
        }
    }

    /// Marks that no more streams will be opened.
    fn complete(&self, consumer: ConsumerId) {
        self.shared.change(consumer, |mailbox| {
            mailbox.is_complete = true;
            None
        });
    }

    /// Works until the scheduler is stopped.
    fn work(&self) {
        loop {
            match self.scheduler.next(2, Duration::MAX) {
                NextGroup::Run(group) => self.invoke(group),
                NextGroup::Late => unreachable!("time never passes"),
                NextGroup::Stop => return,
            }
        }
    }

    /// Runs one invocation: plans all backfills, then finishes all.
    fn invoke(&self, group: Group<Chore>) {
        let mut planned: Group<Chore> = Vec::new();
        for mut chore in group {
            let mut running = self.shared.running.lock();
            assert!(!running.contains(&chore.id), "{chore:?} runs twice");
            running.push(chore.id);
            drop(running);
            let first = planned.first();
            assert!(first.is_none_or(|first| first.consumer == chore.consumer));
            let beside = first.and_then(|first| first.in_hand.as_ref());
            if chore.plan(self.scheduler.buffers(), beside.map(|(charge, _)| charge)) {
                planned.push(chore);
            } else {
                self.settle(chore);
            }
        }
        for chore in planned {
            self.settle(chore);
        }
        self.scheduler.check();
    }

    fn settle(&self, chore: Box<Chore>) {
        let (id, consumer) = (chore.id, chore.consumer);
        let outcome = chore.finish();
        self.shared.running.lock().retain(|running| *running != id);
        self.scheduler.settle(id, consumer, outcome, || false);
    }

    /// Takes until all streams of the consumer have ended, but at most `times` times.
    fn take(&self, consumer: ConsumerId, times: usize) {
        let (_, mailbox, arrived) = self.shared.mailbox(consumer);
        for _ in 0..times {
            self.scheduler.buffers().visit(consumer, true);
            let mut locked = mailbox.lock();
            while locked.charges.is_empty() && !locked.is_over() {
                locked = arrived.wait_for(locked, Duration::MAX).0;
            }
            let taken = locked.charges.pop();
            drop(locked);
            if taken.is_none() {
                return;
            }
            // Dropping the charge wakes backfills that wait for room.
            drop(taken);
            self.scheduler.buffers().visit(consumer, false);
        }
    }

    /// Drops a consumer, as an embedder does.
    fn leave(&self, consumer: ConsumerId) {
        let mut charges = Vec::new();
        self.shared.change(consumer, |mailbox| {
            charges = std::mem::take(&mut mailbox.charges);
            for fate in mailbox.fates.values_mut() {
                *fate = Fate::Closed;
            }
            None
        });
        drop(charges);
        self.scheduler.remove_consumer(consumer);
        self.scheduler.buffers().remove_consumer(consumer);
    }

    /// Stops the workers and the syncs, and waits for all threads.
    fn stop(self: Arc<Self>, threads: Vec<Thread>) {
        self.is_stopped.store(true, Ordering::Release);
        self.scheduler.stop();
        self.shared.demand.lock().1 = true;
        self.shared.demanded.notify_all();
        for thread in threads {
            thread.join().unwrap();
        }
        self.scheduler.check();
        assert!(
            self.shared.running.lock().is_empty(),
            "a backfill still runs"
        );
        for (_, mailbox, _) in &self.shared.mailboxes {
            let charges = std::mem::take(&mut mailbox.lock().charges);
            drop(charges);
        }
        let buffers = Arc::clone(self.scheduler.buffers());
        let shared = Arc::clone(&self.shared);
        drop(self);
        // Dropping the scheduler drops everything it still held.
        assert_eq!(buffers.used(), 0, "bytes are charged to nothing");
        assert_eq!(shared.cell.watches(), 0, "a watch was left behind");
    }

    /// Waits for the threads that end by themselves, stops the others, and checks that nothing is
    /// left.
    fn stop_after(self: Arc<Self>, ending: Vec<Thread>, serving: Vec<Thread>) {
        for thread in ending {
            thread.join().unwrap();
        }
        for (_, mailbox, _) in &self.shared.mailboxes {
            let mailbox = mailbox.lock();
            assert!(mailbox.is_over(), "{:?}", mailbox.fates);
        }
        let scheduler = Arc::clone(&self.scheduler);
        // A backfill that is over for its consumer may still be with a worker; stopping waits for
        // that.
        self.stop(serving);
        scheduler.assert_nothing_left();
    }

    /// Starts the threads that serve the streams: two workers and the syncs.
    fn serve(self: &Arc<Self>) -> Vec<Thread> {
        vec![
            self.spawn("worker", Self::work),
            self.spawn("worker", Self::work),
            self.spawn("syncer", |world| world.shared.sync()),
        ]
    }
}

/// Streams are opened, read to their ends and closed beside each other.
fn to_their_ends() {
    let world = World::new();
    let serving = world.serve();
    let mut ending = Vec::new();
    for consumer in world.consumers() {
        ending.push(world.spawn("opener", move |world| {
            world.open(consumer, false);
            let closed = world.open(consumer, false);
            world.open(consumer, false);
            world.open(consumer, true);
            world.complete(consumer);
            world.close(consumer, closed.unwrap());
        }));
        ending.push(world.spawn("reader", move |world| world.take(consumer, usize::MAX)));
    }
    // A change of the health wakes every watch.
    ending.push(world.spawn("health", |world| world.shared.cell.fire_all().wake()));
    world.stop_after(ending, serving);
}

/// One consumer is dropped; the other one gets the room that it leaves.
fn one_leaves() {
    let world = World::new();
    let serving = world.serve();
    let consumers = world.consumers();
    for consumer in consumers {
        world.open(consumer, false);
        world.open(consumer, false);
        world.complete(consumer);
    }
    let [stays, leaves] = consumers;
    let leaving = world.spawn("leaving reader", move |world| {
        world.take(leaves, 1);
        world.leave(leaves);
    });
    let staying = world.spawn("reader", move |world| {
        world.take(stays, usize::MAX);
        let mailbox = world.shared.mailbox(stays).1.lock();
        assert!(mailbox.fates.values().all(|fate| *fate == Fate::Done));
    });
    world.stop_after(vec![leaving, staying], serving);
}

/// Everything is stopped at an arbitrary moment.
fn stopped_at_any_moment() {
    let world = World::new();
    let mut threads = world.serve();
    for consumer in world.consumers() {
        threads.push(world.spawn("consumer", move |world| {
            world.open(consumer, false);
            world.open(consumer, true);
            // The mailbox is empty if the workers were stopped first.
            world.scheduler.buffers().visit(consumer, false);
            let (_, mailbox, _) = world.shared.mailbox(consumer);
            let taken = mailbox.lock().charges.pop();
            drop(taken);
        }));
    }
    thread::yield_now();
    world.stop(threads);
}

#[test]
fn no_backfill_is_forgotten_or_run_twice() {
    check(10_000, to_their_ends);
}

#[test]
fn a_consumer_that_leaves_keeps_nothing_from_the_others() {
    check(10_000, one_leaves);
}

#[test]
fn stopping_ends_workers_and_drops_what_waits() {
    check(10_000, stopped_at_any_moment);
}
