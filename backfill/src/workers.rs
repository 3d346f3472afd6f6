//! The workers: threads that run backfills, or the program that steps them.
//!
//! # Stop order
//! The figures leave the registry first, so that no scrape outlives what it reads. The last of
//! [`crate::Streams`] and its consumers to be dropped stops the workers and joins them, then drops
//! what waited. Only then is the engine given up: its close never finds a worker at work that these
//! streams started. Closing the engine while streams are open is allowed: each ends with its reason
//! when it next looks, and what waits for durability or in memory is woken to look. What waits for room or
//! for a place looks when it gets it.
//!
//! In a process that the program forks the workers are not there, and locks that they held stay locked:
//! dropping the last handle there leaks it, and touches nothing.
//!
//! The last handle may be dropped on any thread, also on one of the workers (by a drop of the program
//! that runs there): then a thread of its own joins them, since no thread can join itself.

use crate::backfill::{Backfill, Context, Lifeline, Outcome, Planned, Scheduler, share_out};
use crate::config::StreamsConfig;
use crate::registry::Registry;
use crate::schedule::{Group, NextGroup, Task};
use crate::stream::{ConsumerId, Ids};
use crate::watchdog::Watchdog;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use vbstore_engine::{Error, HealthState, Result};
use vbstore_metrics::Registration;

/// What the workers share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) context: Context,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) watchdog: Watchdog,
    pub(crate) ids: Ids,
    pub(crate) limits: WorkLimits,
}

/// What was configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkLimits {
    pub(crate) workers: usize,
    pub(crate) backfills: usize,
    /// Backfills that one db snapshot may serve.
    pub(crate) group: usize,
}

/// Stops the workers when the last clone of the streams and the last consumer are gone.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) work: Arc<Work>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    registration: Arc<Registration>,
}

impl Handle {
    pub(crate) fn new(work: Arc<Work>, registration: Arc<Registration>) -> Arc<Self> {
        Arc::new(Self {
            work,
            threads: Mutex::default(),
            registration,
        })
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot be started; those that were are stopped with the handle.
    pub(crate) fn start(&self, config: &StreamsConfig) -> Result<()> {
        let nice = config.workers_nice;
        for number in 0..config.workers {
            let work = Arc::clone(&self.work);
            let thread = std::thread::Builder::new()
                .name(format!("vbstore-slice-{number}"))
                .spawn(move || {
                    give_way(nice);
                    work.run();
                })
                .map_err(|e| Error::io("start a thread", e))?;
            self.threads.lock().push(thread);
        }
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.work.context.engine.check_process().is_err() {
            // The threads are the parent's, and whatever is locked stays locked.
            std::mem::take(self.threads.get_mut()).leak();
            let kept = (Arc::clone(&self.work), Arc::clone(&self.registration));
            Box::leak(Box::new(kept));
            return;
        }
        // ORDER: out of the registry first. That waits for a scrape that has begun, which borrows the
        // work, and the work keeps the engine open: were the scrape the last to let go of it, the
        // engine would be closed inside the scrape, and wait there for the registry for ever.
        self.registration.unregister();
        self.work.scheduler.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        let me = std::thread::current().id();
        if threads.iter().all(|thread| thread.thread().id() != me) {
            join(threads);
            return;
        }
        // The engine must outlive the workers: this thread holds it until they are gone.
        let work = Arc::clone(&self.work);
        let joins = move || {
            join(threads);
            drop(work);
        };
        let thread = std::thread::Builder::new().name("vbstore-streams-stop".to_owned());
        if let Err(error) = thread.spawn(joins) {
            // They stop all the same; the last of them gives the engine up.
            tracing::error!(%error, "no thread to wait for the workers of streams");
        }
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker panicked outside of its slice");
        }
    }
}

/// Lets other threads go before the calling one.
fn give_way(nice: u8) {
    // On Linux this is of one thread, named by its id.
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), i32::from(nice)) {
        tracing::warn!(%error, "workers run at normal priority");
    }
}

impl Work {
    fn run(&self) {
        loop {
            let left = self.look_if_due();
            match self.scheduler.next(self.limits.group, left) {
                NextGroup::Run(group) => self.invoke(group),
                NextGroup::Late => {}
                NextGroup::Stop => return,
            }
        }
    }

    /// Runs one invocation, of up to `group_max` backfills of one consumer, on this thread. Returns
    /// whether there was one.
    pub(crate) fn step(&self, group_max: usize) -> bool {
        self.look_if_due();
        let group = self.scheduler.try_next(group_max);
        let any = !group.is_empty();
        self.invoke(group);
        any
    }

    fn look_if_due(&self) -> Duration {
        let now = self.context.clock.monotonic();
        self.watchdog.look_if_due(now, &self.context.engine)
    }

    /// Plans, reads through one db snapshot, and finishes. A panic in one backfill's part ends its
    /// stream and no other.
    fn invoke(&self, group: Group<Backfill>) {
        let context = &self.context;
        let mut planned = Vec::with_capacity(group.len());
        let mut asks = Vec::with_capacity(group.len());
        for backfill in group {
            let one = Invoked::of(&backfill);
            // The first that is to be read has reserved for all.
            let beside = planned.first().map(|(_, _, plan)| plan);
            match self.guard(&one, || backfill.plan(beside, context)) {
                Some(Planned::Read(backfill, plan)) => {
                    asks.push(plan.ask);
                    planned.push((one, backfill, plan));
                }
                Some(Planned::Settled(outcome)) => self.settle(&one, outcome),
                None => self.settle(&one, Outcome::Done),
            }
        }
        let Some((_, _, first)) = planned.first() else {
            return;
        };
        let budget = first.budget(context.engine.tuning().slice_budget);
        let start = context.clock.monotonic();
        // ORDER: numbered before it is opened; see `SharedSlices`.
        let view = context.slices.begin_view();
        let read = context.engine.scan(&asks, budget);
        let took = context.clock.monotonic().saturating_sub(start);
        context.counters.slice_micros.observe_time(took);
        // An error of the read is an error of each.
        let slices = read.unwrap_or_else(|error| vec![Err(error); planned.len()]);
        // ORDER: those whose turn did not come are settled first, the last of them first. Each goes to the
        // front, so that they are read next, in their order, before those that were read now.
        for (one, backfill, plan) in planned.drain(slices.len()..).rev() {
            drop(plan);
            self.settle(&one, Outcome::Unread(backfill));
        }
        if let Some(((_, _, first), others)) = planned.split_first_mut() {
            share_out(first, others.iter_mut().map(|(_, _, plan)| plan), &slices);
        }
        for ((one, backfill, plan), slice) in planned.into_iter().zip(slices) {
            if matches!(slice, Err(Error::StreamPanicked { .. })) {
                context.counters.panics.add(1);
            }
            let outcome = self.guard(&one, || backfill.finish(plan, view, slice, context));
            self.settle(&one, outcome.unwrap_or(Outcome::Done));
        }
    }

    /// Runs a backfill's part of an invocation; `None` if it panicked, which has ended its stream.
    fn guard<R>(&self, one: &Invoked, part: impl FnOnce() -> R) -> Option<R> {
        let done = catch_unwind(AssertUnwindSafe(part));
        if done.is_err() {
            self.context.counters.panics.add(1);
            tracing::error!("reading a slice panicked");
            one.lifeline.end();
        }
        done.ok()
    }

    fn settle(&self, one: &Invoked, outcome: Outcome) {
        let (id, engine) = (one.lifeline.id(), &self.context.engine);
        let is_disk_full = || matches!(engine.health(), HealthState::Degraded { .. });
        self.scheduler
            .settle(id, one.consumer, outcome, is_disk_full);
    }
}

/// What is known of a backfill while an invocation has it.
struct Invoked {
    consumer: ConsumerId,
    lifeline: Lifeline,
}

impl Invoked {
    fn of(backfill: &Backfill) -> Self {
        Self {
            consumer: backfill.consumer(),
            lifeline: backfill.lifeline(),
        }
    }
}
