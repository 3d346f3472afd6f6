//! The workers: threads that run backfills. Streams without threads ([`crate::Streams::stepped`])
//! are run by the program, step by step.
//!
//! # Stop order
//! When the last handle ([`crate::Streams`] or a consumer) is dropped, it first unregisters the
//! metrics of the streams, so that no scrape outlives what it reads. Then it stops the workers,
//! joins them, and drops the waiting backfills. Only then is the engine released, so its close
//! never finds a worker of these streams at work.
//!
//! The engine may be closed while streams are open. Each stream then ends with the reason
//! `Shutdown` when it next uses the engine. Streams that wait for durability, or for changes in
//! memory, are woken for that. Streams that wait for buffer room or a slot end when they get it.
//!
//! In a forked child process the worker threads do not exist, and locks that they held stay locked.
//! There, dropping the last handle leaks it and touches nothing.
//!
//! The last handle may be dropped on any thread. It may even be a worker, if program code that runs
//! there drops the handle. Since a thread cannot join itself, a separate thread then joins the
//! workers.

use crate::backfill::{
    Backfill, BackfillContext, BackfillOutcome, BackfillScheduler, EndOnPanic, PlanOutcome,
    distribute_charge,
};
use crate::config::StreamsConfig;
use crate::registry::ConsumerRegistry;
use crate::schedule::{Group, NextGroup, ScheduledTask};
use crate::stream::{ConsumerId, Ids};
use crate::watchdog::Watchdog;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use vbstore_engine::{Error, HealthState, Result};
use vbstore_metrics::Registration;

/// Everything that the workers share.
#[derive(Debug)]
pub(crate) struct WorkerContext {
    pub(crate) context: BackfillContext,
    pub(crate) scheduler: Arc<BackfillScheduler>,
    pub(crate) registry: Arc<ConsumerRegistry>,
    pub(crate) watchdog: Watchdog,
    pub(crate) ids: Ids,
    pub(crate) limits: WorkLimits,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkLimits {
    pub(crate) workers: usize,
    pub(crate) backfills: usize,
    /// Maximum number of backfills per db snapshot.
    pub(crate) group: usize,
}

/// Owns the worker threads. Dropped with the last clone of the streams and the last consumer, it
/// stops them.
#[derive(Debug)]
pub(crate) struct StreamsHandle {
    pub(crate) work: Arc<WorkerContext>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    registration: Arc<Registration>,
}

impl StreamsHandle {
    pub(crate) fn new(work: Arc<WorkerContext>, registration: Arc<Registration>) -> Arc<Self> {
        Arc::new(Self {
            work,
            threads: Mutex::default(),
            registration,
        })
    }

    /// Starts the worker threads.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started. Those already started are stopped when the
    /// handle is dropped.
    pub(crate) fn start(&self, config: &StreamsConfig) -> Result<()> {
        let nice = config.workers_nice;
        for number in 0..config.workers {
            let work = Arc::clone(&self.work);
            let thread = std::thread::Builder::new()
                .name(format!("vbstore-slice-{number}"))
                .spawn(move || {
                    set_niceness(nice);
                    work.run();
                })
                .map_err(|e| Error::io("start a worker thread of the streams", e))?;
            self.threads.lock().push(thread);
        }
        Ok(())
    }
}

impl Drop for StreamsHandle {
    fn drop(&mut self) {
        if self.work.context.engine.check_process().is_err() {
            // The threads belong to the parent process, and a lock that one of them held at the
            // fork stays locked here. Leak everything that could touch either.
            std::mem::take(self.threads.get_mut()).leak();
            let kept = (Arc::clone(&self.work), Arc::clone(&self.registration));
            Box::leak(Box::new(kept));
            return;
        }
        // ORDER: leave the metrics registry first. This waits for a running scrape, whose reference
        // to `work` keeps the engine open. Otherwise the scrape could be the last to release the
        // engine. It would then close the engine inside the scrape, and the close would wait for
        // the registry forever.
        self.registration.unregister();
        self.work.scheduler.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        let this_thread = std::thread::current().id();
        if threads
            .iter()
            .all(|thread| thread.thread().id() != this_thread)
        {
            join(threads);
            return;
        }
        // The engine must outlive the workers, so the joining thread holds it until they have
        // ended.
        let work = Arc::clone(&self.work);
        let joins = move || {
            join(threads);
            drop(work);
        };
        let thread = std::thread::Builder::new().name("vbstore-streams-stop".to_owned());
        if let Err(error) = thread.spawn(joins) {
            // The workers stop anyway, and the last of them releases the engine.
            tracing::error!(%error, "cannot start a thread that joins the stream workers");
        }
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a stream worker panicked outside a slice");
        }
    }
}

/// Sets the niceness of the calling thread. A failure only costs priority, so it is logged and
/// ignored.
fn set_niceness(nice: u8) {
    // On Linux the priority is per thread, and a thread id is accepted as a process id.
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), i32::from(nice)) {
        tracing::warn!(%error, "cannot lower the priority of a stream worker");
    }
}

impl WorkerContext {
    /// Runs groups of backfills until the scheduler stops. The body of a worker thread.
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

    /// Runs one invocation of up to `group_max` backfills of one consumer on this thread. Returns
    /// false if none was ready.
    pub(crate) fn step(&self, group_max: usize) -> bool {
        self.look_if_due();
        let group = self.scheduler.try_next(group_max);
        let any = !group.is_empty();
        self.invoke(group);
        any
    }

    /// Runs the watchdog if it is due. Returns the time until it is due again.
    fn look_if_due(&self) -> Duration {
        let now = self.context.clock.monotonic();
        self.watchdog.look_if_due(now, &self.context.engine)
    }

    /// Plans a group, reads for it through one db snapshot, and finishes it. A panic in one
    /// backfill's part ends that backfill's stream, but no other.
    fn invoke(&self, group: Group<Backfill>) {
        let context = &self.context;
        let mut planned = Vec::with_capacity(group.len());
        let mut asks = Vec::with_capacity(group.len());
        for backfill in group {
            let one = Invocation::of(&backfill);
            // The first planned backfill reserved buffer space for the whole group.
            let first_plan = planned.first().map(|(_, _, plan)| plan);
            match self.catch_panic(&one, || backfill.plan(first_plan, context)) {
                Some(PlanOutcome::Read(backfill, plan)) => {
                    asks.push(plan.ask);
                    planned.push((one, backfill, plan));
                }
                Some(PlanOutcome::Settled(outcome)) => self.settle(&one, outcome),
                None => self.settle(&one, BackfillOutcome::Done),
            }
        }
        let Some((_, _, first)) = planned.first() else {
            return;
        };
        let budget = first.budget(context.engine.tuning().slice_budget);
        let start = context.clock.monotonic();
        // ORDER: number the view before it is opened; see `SharedSlices`.
        let view = context.slices.begin_view();
        let read = context.engine.scan(&asks, budget);
        let took = context.clock.monotonic().saturating_sub(start);
        context.counters.slice_micros.observe_time(took);
        // If the read as a whole failed, it failed for every backfill.
        let slices = read.unwrap_or_else(|error| vec![Err(error); planned.len()]);
        // ORDER: settle the backfills that were not read before those that were, last one first.
        // Each goes to the front of the queue, so they run next, in their original order.
        for (one, backfill, plan) in planned.drain(slices.len()..).rev() {
            drop(plan);
            self.settle(&one, BackfillOutcome::Unread(backfill));
        }
        if let Some(((_, _, first), others)) = planned.split_first_mut() {
            distribute_charge(first, others.iter_mut().map(|(_, _, plan)| plan), &slices);
        }
        for ((one, backfill, plan), slice) in planned.into_iter().zip(slices) {
            if matches!(slice, Err(Error::StreamPanicked { .. })) {
                context.counters.panics.add(1);
            }
            let outcome = self.catch_panic(&one, || backfill.finish(plan, view, slice, context));
            self.settle(&one, outcome.unwrap_or(BackfillOutcome::Done));
        }
    }

    /// Runs one backfill's part of an invocation. If it panics, the backfill's stream is ended, and
    /// `None` is returned.
    fn catch_panic<R>(&self, one: &Invocation, part: impl FnOnce() -> R) -> Option<R> {
        let done = catch_unwind(AssertUnwindSafe(part));
        if done.is_err() {
            self.context.counters.panics.add(1);
            tracing::error!("reading a slice panicked");
            one.end_on_panic.end();
        }
        done.ok()
    }

    /// Returns a backfill to the scheduler with the outcome of its invocation.
    fn settle(&self, one: &Invocation, outcome: BackfillOutcome) {
        let (id, engine) = (one.end_on_panic.id(), &self.context.engine);
        let is_disk_full = || matches!(engine.health(), HealthState::Degraded { .. });
        self.scheduler
            .settle(id, one.consumer, outcome, is_disk_full);
    }
}

/// The data of a backfill that the worker keeps during an invocation, since a panic loses the
/// backfill itself.
struct Invocation {
    consumer: ConsumerId,
    end_on_panic: EndOnPanic,
}

impl Invocation {
    fn of(backfill: &Backfill) -> Self {
        Self {
            consumer: backfill.consumer(),
            end_on_panic: backfill.end_on_panic(),
        }
    }
}
