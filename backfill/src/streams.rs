//! The entry point of this crate: starts the streams of an engine, and creates consumers.

use crate::backfill::{BackfillContext, BackfillScheduler, SharedSlices};
use crate::config::{ConsumerConfig, StreamsConfig};
use crate::consumer::Consumer;
use crate::registry::ConsumerRegistry;
use crate::stats::StreamsStats;
use crate::stream::Ids;
use crate::watchdog::Watchdog;
use crate::workers::{StreamsHandle, WorkLimits, WorkerContext};
use std::fmt;
use std::sync::{Arc, Weak};
use vbstore_engine::{Engine, Result};
use vbstore_metrics::MetricsSnapshot;
use vbstore_metrics::StreamCounters;

/// The streams of an engine. Creates consumers, and reports metrics.
///
/// Cheap to clone. Every clone, and every consumer, keeps the engine open. The last of them stops
/// the workers when it is dropped.
#[derive(Clone)]
pub struct Streams {
    handle: Arc<StreamsHandle>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("scheduler", &self.work().scheduler)
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// Starts the streams of an engine with their worker threads. An engine can have only one set
    /// of streams, since each set would have its own limits and metrics.
    ///
    /// # Errors
    /// [`vbstore_engine::Error::Invalid`] for a field out of bounds, and if the engine already has
    /// streams; [`vbstore_engine::Error::Closed`]; [`vbstore_engine::Error::Io`] if a thread cannot
    /// be started.
    pub fn start(engine: &Engine, config: &StreamsConfig) -> Result<Self> {
        let streams = Self::stepped(engine, config)?;
        streams.handle.start(config)?;
        Ok(streams)
    }

    /// Creates the streams of an engine without worker threads: only [`Self::step`] and
    /// [`Self::step_group`] read from disk. For programs that control the order of all work, such
    /// as simulations.
    ///
    /// # Errors
    /// The same as for [`Self::start`].
    pub fn stepped(engine: &Engine, config: &StreamsConfig) -> Result<Self> {
        config.validate()?;
        let registration = engine.register_streams()?;
        let clock = engine.clock();
        let scheduler = BackfillScheduler::new(
            config.backfills_max,
            config.pending_max,
            config.buffer_bytes_max,
            Arc::clone(&clock),
        );
        let registry: Arc<ConsumerRegistry> = Arc::default();
        let counters: Arc<StreamCounters> = Arc::default();
        let watchdog = Watchdog::new(
            Arc::clone(&registry),
            Arc::clone(&scheduler),
            Arc::clone(&counters),
            config.stall_limit,
            config.disk_free_min_percent,
            clock.monotonic(),
        );
        let work = Arc::new(WorkerContext {
            context: BackfillContext {
                engine: engine.clone(),
                clock,
                slices: SharedSlices::new(config.shared_bytes_max),
                buffers: Arc::clone(scheduler.buffers()),
                counters,
                diverging_after: config.diverging_after,
            },
            scheduler,
            registry,
            watchdog,
            ids: Ids::default(),
            limits: WorkLimits {
                workers: config.workers,
                backfills: config.backfills_max,
                group: config.backfills_per_snapshot,
            },
        });
        let source: Weak<WorkerContext> = Arc::downgrade(&work);
        registration.attach(source);
        Ok(Self {
            handle: StreamsHandle::new(work, registration),
        })
    }

    fn work(&self) -> &WorkerContext {
        &self.handle.work
    }

    /// Runs one backfill on this thread until it has read one slice, must wait, or is over. Blocks
    /// for the disk read. Returns false if no backfill was ready.
    #[must_use]
    pub fn step(&self) -> bool {
        self.work().step(1)
    }

    /// Like [`Self::step`], for several backfills of one consumer. They share one db snapshot, as
    /// on a worker thread: up to [`StreamsConfig::backfills_per_snapshot`].
    #[must_use]
    pub fn step_group(&self) -> bool {
        self.work().step(self.work().limits.group)
    }

    /// Creates a consumer. `name` appears in metrics and logs, and need not be unique.
    ///
    /// # Errors
    /// [`vbstore_engine::Error::Invalid`] for a field out of bounds;
    /// [`vbstore_engine::Error::Forked`] in a forked child process.
    pub fn consumer(&self, name: &str, config: &ConsumerConfig) -> Result<Consumer> {
        config.validate()?;
        self.engine().check_process()?;
        Ok(Consumer::new(&self.handle, name, config))
    }

    /// Returns the engine that these streams belong to.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.work().context.engine
    }

    /// Returns the counters that all streams share.
    #[must_use]
    pub fn counters(&self) -> &StreamCounters {
        &self.work().context.counters
    }

    /// Returns all metrics of the engine and its streams as plain data. Takes each vBucket's and
    /// each consumer's lock for a moment.
    ///
    /// # Errors
    /// The same as for [`Engine::metrics_snapshot`].
    pub fn metrics_snapshot(&self) -> Result<MetricsSnapshot> {
        let mut snapshot = self.engine().metrics_snapshot()?;
        self.work().put(&mut snapshot);
        Ok(snapshot)
    }

    /// Returns the state of all streams. Takes each consumer's lock for a moment.
    #[must_use]
    pub fn stats(&self) -> StreamsStats {
        let work = self.work();
        let lengths = work.scheduler.lengths();
        let present = work.registry.present();
        StreamsStats {
            pending: lengths.pending,
            ready: lengths.ready,
            running: lengths.running,
            snoozed: lengths.snoozed,
            buffered_bytes: work.scheduler.buffers().used(),
            streams: present
                .iter()
                .flat_map(|present| work.stats_of(&present.name, &present.mailbox))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
