//! The streams of an engine: workers, watchdog, consumers.
//!
//! # Stop order
//! The figures leave the registry first, so that no scrape outlives what it reads.
//! The last of [`Streams`] and its consumers to be dropped stops the workers and joins them, then
//! drops what waited. Only then is the engine given up: its close never finds a worker at work that
//! these streams started. Closing the engine while streams are open is allowed: each ends with its
//! reason when it next looks, and whatever waits is woken to look.

use crate::account::{Account, Total};
use crate::config::{ConsumerConfig, StreamsConfig};
use crate::consumer::Consumer;
use crate::event::EndReason;
use crate::inbox::Inbox;
use crate::scheduler::{Next, Scheduler};
use crate::shared_slices::SharedSlices;
use crate::stats::{StreamCounters, StreamStats, StreamsStats};
use crate::task::{Backfill, Outcome, Surroundings};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use vbstore_core::Clock;
use vbstore_engine::{Engine, Error, HealthState, Result};
use vbstore_metrics::{MetricsSnapshot, Registration};

/// The streams of an engine. Cheap to clone; every clone, and every consumer, keeps the engine open.
#[derive(Clone, Debug)]
pub struct Streams {
    handle: Arc<StreamsHandle>,
}

/// Stops the workers when the last clone and the last consumer are gone.
#[derive(Debug)]
pub(crate) struct StreamsHandle {
    work: Arc<Work>,
    total: Arc<Total>,
    numbers: AtomicU64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    registration: Arc<Registration>,
}

/// What the workers share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) around: Surroundings,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) total: Arc<Total>,
    pub(crate) limits: Limits,
    consumers: Mutex<HashMap<u64, Listed>>,
    stall_limit: Duration,
    disk_free_min_percent: u8,
    /// When the watchdog looks next.
    watch_at: Mutex<Duration>,
}

/// What was configured, for the figures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) workers: usize,
    pub(crate) backfills: usize,
}

/// A consumer, as the watchdog and the figures know it.
#[derive(Clone, Debug)]
struct Listed {
    name: Arc<str>,
    inbox: Weak<Inbox>,
}

impl Streams {
    /// Starts the workers. One for each engine: two would each have their own limits, and figures.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a field out of bounds, and if the engine has streams already; [`Error::Closed`]; [`Error::Io`] if a thread cannot be started.
    pub fn start(engine: &Engine, config: &StreamsConfig) -> Result<Self> {
        let streams = Self::stepped(engine, config)?;
        let nice = config.workers_nice;
        for number in 0..config.workers {
            let work = Arc::clone(&streams.handle.work);
            let thread = std::thread::Builder::new()
                .name(format!("vbstore-slice-{number}"))
                .spawn(move || {
                    give_way(nice);
                    work.run();
                })
                .map_err(|e| Error::io("start a thread", e))?;
            streams.handle.threads.lock().push(thread);
        }
        Ok(streams)
    }

    /// The same without threads: nothing is read from disk but by [`Self::step`]. For programs that
    /// want to decide what happens when.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a field out of bounds, and if the engine has streams already.
    pub fn stepped(engine: &Engine, config: &StreamsConfig) -> Result<Self> {
        config.validate()?;
        let registration = engine.register_streams()?;
        let clock = engine.clock();
        let watch_at = clock.monotonic().saturating_add(config.stall_limit / 4);
        let work = Work {
            around: Surroundings {
                engine: engine.clone(),
                clock,
                slices: SharedSlices::new(config.shared_bytes_max),
                counters: Arc::default(),
                diverging_after: config.diverging_after,
            },
            scheduler: Scheduler::new(config.workers, config.backfills_max, config.pending_max),
            total: Total::new(config.buffer_bytes_max),
            limits: Limits {
                workers: config.workers,
                backfills: config.backfills_max,
            },
            consumers: Mutex::default(),
            stall_limit: config.stall_limit,
            disk_free_min_percent: config.disk_free_min_percent,
            watch_at: Mutex::new(watch_at),
        };
        let work = Arc::new(work);
        let source: Weak<Work> = Arc::downgrade(&work);
        registration.attach(source);
        Ok(Self {
            handle: Arc::new(StreamsHandle {
                total: Arc::clone(&work.total),
                work,
                numbers: AtomicU64::new(1),
                threads: Mutex::default(),
                registration,
            }),
        })
    }

    /// Runs one invocation of one backfill on this thread. Returns whether there was one.
    #[must_use]
    pub fn step(&self) -> bool {
        let work = &self.handle.work;
        work.watch_if_due();
        let Some(backfill) = work.scheduler.try_next() else {
            return false;
        };
        work.invoke(backfill);
        true
    }

    /// Adds a consumer. Names need not differ; they are what figures and logs show.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a field out of bounds.
    pub fn consumer(&self, name: &str, config: &ConsumerConfig) -> Result<Consumer> {
        config.validate()?;
        let handle = Arc::clone(&self.handle);
        let number = handle.next_number();
        handle.scheduler().add_consumer(number, config);
        let scheduler: Weak<Scheduler> = Arc::downgrade(handle.scheduler());
        let account = Account::new(
            number,
            config.buffer_bytes_max,
            config.drain_percent,
            Arc::clone(&handle.total),
            scheduler,
        );
        let bytes_max = config.buffer_bytes_max;
        let consumer = Consumer::new(handle, number, name, account, bytes_max);
        let listed = Listed {
            name: name.into(),
            inbox: Arc::downgrade(consumer.inbox()),
        };
        self.handle.work.consumers.lock().insert(number, listed);
        Ok(consumer)
    }

    /// Returns the engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        self.handle.engine()
    }

    /// Returns what all streams count.
    #[must_use]
    pub fn counters(&self) -> &StreamCounters {
        &self.handle.work.around.counters
    }

    /// Returns everything that is measured, the engine's figures included, as plain data. Takes each
    /// vBucket's and each consumer's lock for a moment.
    ///
    /// # Errors
    /// As [`Engine::metrics_snapshot`].
    pub fn metrics_snapshot(&self) -> Result<MetricsSnapshot> {
        let mut snapshot = self.engine().metrics_snapshot()?;
        self.handle.work.put(&mut snapshot);
        Ok(snapshot)
    }

    /// Returns how all streams are doing. Takes each consumer's lock for a moment.
    #[must_use]
    pub fn stats(&self) -> StreamsStats {
        let work = &self.handle.work;
        let now = work.around.clock.monotonic();
        let lengths = work.scheduler.lengths();
        let mut streams = Vec::new();
        for Listed { name, inbox } in work.listed() {
            let Some(inbox) = inbox.upgrade() else {
                continue;
            };
            let seen = inbox.look(now, false);
            streams.extend(seen.iter().map(|seen| StreamStats::of(&name, seen, now)));
        }
        StreamsStats {
            pending: lengths.pending,
            ready: lengths.ready,
            running: lengths.running,
            snoozed: lengths.snoozed,
            buffered_bytes: self.handle.total.used(),
            streams,
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

impl StreamsHandle {
    pub(crate) fn engine(&self) -> &Engine {
        &self.work.around.engine
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.work.around.clock
    }

    pub(crate) fn shared_clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.work.around.clock)
    }

    pub(crate) fn slices(&self) -> &Arc<SharedSlices> {
        &self.work.around.slices
    }

    pub(crate) fn scheduler(&self) -> &Arc<Scheduler> {
        &self.work.scheduler
    }

    pub(crate) fn counters(&self) -> &Arc<StreamCounters> {
        &self.work.around.counters
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn forget_consumer(&self, number: u64) {
        self.work.consumers.lock().remove(&number);
    }
}

impl Drop for StreamsHandle {
    fn drop(&mut self) {
        // ORDER: out of the registry first. That waits for a scrape that has begun, which borrows the
        // work, and the work keeps the engine open: were the scrape the last to let go of it, the
        // engine would be closed inside the scrape, and wait there for the registry for ever.
        self.registration.unregister();
        self.work.scheduler.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked outside of its slice");
            }
        }
    }
}

impl Work {
    fn run(&self) {
        loop {
            let left = self.watch_if_due();
            match self.scheduler.next(left) {
                Next::Run(backfill) => self.invoke(backfill),
                Next::Late => {}
                Next::Stop => return,
            }
        }
    }

    /// Runs one invocation. A panic in it ends its stream and no other.
    fn invoke(&self, backfill: Box<Backfill>) {
        let stream = Arc::clone(&backfill.stream);
        let clock = &self.around.clock;
        let start = clock.monotonic();
        let outcome = catch_unwind(AssertUnwindSafe(|| backfill.run(&self.around)));
        let took = clock.monotonic().saturating_sub(start);
        self.around.counters.slice_micros.observe_time(took);
        let outcome = outcome.unwrap_or_else(|_| {
            self.around.counters.panics.add(1);
            tracing::error!(vb = %stream.vb(), "reading a slice panicked");
            if let Some(inbox) = stream.inbox.upgrade() {
                let error = Error::StreamPanicked { vb: stream.vb() };
                inbox.end(stream.number, EndReason::Error(error));
            }
            Outcome::Done
        });
        self.scheduler.settle(&stream, outcome);
    }

    /// Returns the inboxes of all consumers.
    pub(crate) fn inboxes(&self) -> Vec<Arc<Inbox>> {
        let consumers = self.consumers.lock();
        let inboxes = consumers.values();
        inboxes
            .filter_map(|listed| listed.inbox.upgrade())
            .collect()
    }

    fn listed(&self) -> Vec<Listed> {
        self.consumers.lock().values().cloned().collect()
    }

    /// Looks for stalled streams if it is time; returns how long until it is again.
    fn watch_if_due(&self) -> Duration {
        let now = self.around.clock.monotonic();
        let mut watch_at = self.watch_at.lock();
        if now < *watch_at {
            return watch_at.saturating_sub(now);
        }
        // A stall is found within a quarter of the limit after it is one.
        let interval = self.stall_limit / 4;
        *watch_at = now.saturating_add(interval);
        drop(watch_at);
        self.watch(now);
        interval
    }

    fn watch(&self, now: Duration) {
        let mut is_short = None;
        for Listed { name, inbox } in self.listed() {
            let Some(inbox) = inbox.upgrade() else {
                continue;
            };
            for seen in inbox.look(now, true) {
                let stream = &seen.stream;
                let is_stalled = seen
                    .idle_since
                    .is_some_and(|since| now.saturating_sub(since) >= self.stall_limit);
                let was_stalled = stream.figures.is_stalled.swap(is_stalled, Ordering::AcqRel);
                if !is_stalled {
                    continue;
                }
                if !was_stalled {
                    tracing::warn!(consumer = %name, vb = %stream.vb(), "stream stalled");
                }
                if *is_short.get_or_insert_with(|| self.is_disk_short()) {
                    inbox.end(stream.number, EndReason::Stalled);
                    self.scheduler.remove(stream.consumer, stream.number);
                }
            }
        }
    }

    fn is_disk_short(&self) -> bool {
        let engine = &self.around.engine;
        if matches!(engine.health(), HealthState::Degraded { .. }) {
            return true;
        }
        engine
            .disk_free_percent()
            .is_ok_and(|free| free < self.disk_free_min_percent)
    }
}
