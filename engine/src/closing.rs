//! Closing an engine: the order of its steps.
//!
//! # Protocol
//! The state is `Open`, `Running` on one thread, or `Done` with the outcome. Its lock is never held
//! while the close does anything else. The first caller finds the state `Open` and runs the close.
//! All others wait until it is `Done`, and return the same outcome.
//!
//! Two kinds of program code cannot wait, because the close waits for them:
//! - code that a background thread runs in the middle of a step, such as a `tracing` subscriber.
//!   The close would join that very thread, so it is deferred until the step is over;
//! - code that the close itself runs, such as a waker in an engine without threads. That close is
//!   running already.
//!
//! Both get [`Error::Busy`] at once. The running close, or the deferred one, then closes the store.

use crate::engine_thread;
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::samples::MetricSources;
use crate::services::Services;
use crate::storage::Storage;
use crate::store_dir::data_files;
#[cfg(debug_assertions)]
use crate::vbuckets::Vb;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use vbstore_core::VbId;
use vbstore_core::lock_order::assert_none_held;

/// The number of vBuckets whose memtables are flushed between two checks of the time-out.
const VBUCKETS_PER_FLUSH: usize = 16;

/// Closes one engine, once.
pub(crate) struct EngineCloser {
    services: Arc<Services>,
    samples: Arc<MetricSources>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    state: Mutex<CloseState>,
    changed: Condvar,
}

enum CloseState {
    Open,
    Running(ThreadId),
    Done(Result<()>),
}

/// The close that is running. Sets the outcome when dropped, also after a panic, so that no caller
/// waits forever.
struct RunningClose<'a> {
    closer: &'a EngineCloser,
    outcome: Result<()>,
}

impl Drop for RunningClose<'_> {
    fn drop(&mut self) {
        *self.closer.state.lock() = CloseState::Done(self.outcome.clone());
        self.closer.changed.notify_all();
    }
}

impl EngineCloser {
    pub(crate) fn new(services: Arc<Services>, samples: Arc<MetricSources>) -> Self {
        Self {
            services,
            samples,
            threads: Mutex::new(Vec::new()),
            state: Mutex::new(CloseState::Open),
            changed: Condvar::new(),
        }
    }

    /// Adds a background thread for the close to join.
    pub(crate) fn add_thread(&self, thread: JoinHandle<()>) {
        self.threads.lock().push(thread);
    }

    /// Closes the engine, or waits until it is closed. Returns the same outcome to every caller.
    /// The caller holds no lock, but may hold the lead in a step of a background thread.
    ///
    /// # Errors
    /// The error of the last flush; [`Error::Busy`] for the two callers that cannot wait;
    /// [`Error::Forked`].
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        if !engine_thread::is_in_step() {
            assert_none_held();
        }
        self.services.gate.opener().check_id()?;
        let me = std::thread::current().id();
        let mut state = self.state.lock();
        loop {
            match &*state {
                CloseState::Done(outcome) => return outcome.clone(),
                CloseState::Running(by) if *by == me => {
                    return Err(Error::Busy {
                        what: "the engine is being closed, and the close itself called this code",
                    });
                }
                CloseState::Open | CloseState::Running(_) if engine_thread::is_in_step() => {
                    drop(state);
                    self.defer();
                    return Err(Error::Busy {
                        what: "this thread closes the engine after its current step",
                    });
                }
                CloseState::Running(_) => self.changed.wait(&mut state),
                CloseState::Open => break,
            }
        }
        *state = CloseState::Running(me);
        drop(state);
        self.run()
    }

    /// Makes this background thread close the engine once its step is over, unless a close has
    /// begun by then.
    fn defer(self: &Arc<Self>) {
        self.services.gate.begin_closing();
        let closer = Arc::clone(self);
        engine_thread::defer(Box::new(move || {
            let mut state = closer.state.lock();
            if !matches!(*state, CloseState::Open) {
                return;
            }
            *state = CloseState::Running(std::thread::current().id());
            drop(state);
            if let Err(error) = closer.run() {
                tracing::error!(%error, "the store was not closed cleanly");
            }
        }));
    }

    /// Leaks the handles of the threads. Called in a fork, where the threads do not exist and
    /// cannot be joined.
    pub(crate) fn leak_threads(&self) {
        std::mem::take(&mut *self.threads.lock()).leak();
    }

    /// Runs the close on this thread. The caller has set the state to `Running`.
    fn run(&self) -> Result<()> {
        // If the close panics, the guard reports this as the outcome.
        let panicked = Error::failed("the close panicked");
        let mut running = RunningClose {
            closer: self,
            outcome: Err(panicked),
        };
        running.outcome = self.stop_and_close();
        running.outcome.clone()
    }

    fn stop_and_close(&self) -> Result<()> {
        let services = &self.services;
        services.gate.begin_closing();
        self.samples.unregister();
        // Streams that wait wake up, find the engine closing, and end.
        services.health.all_stream_wakes().run();
        // ORDER: the threads are stopped before the last flush, so that nothing runs beside it; see
        // `tasks`.
        services.signals.stop_all();
        let me = std::thread::current().id();
        // Releases the lock before the threads are joined. A process forked meanwhile would find it
        // locked, and would block in `leak_threads`.
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // This thread may be one of them: a background thread that closes the engine after its
            // step. It cannot join itself, and ends right after the close.
            if thread.thread().id() != me && thread.join().is_err() {
                services.health.fail("a background thread panicked").run();
            }
        }
        self.close_store()
    }

    /// Does the rest of the close, once the threads are stopped.
    fn close_store(&self) -> Result<()> {
        let services = &self.services;
        // Operations inside the gate finish first, so that no change is appended after the last
        // flush.
        services.gate.wait_until_empty();
        let flushed = services.failpoints.pass(place::CLOSE).and_then(|()| {
            if services.health.is_failed() {
                // A failed engine is not flushed: the outcome of the close is its first failure.
                services.health.check()
            } else {
                services.committer.flush_all()
            }
        });
        #[cfg(debug_assertions)]
        self.check_memory();
        services.committer.mark_closed();
        // Wakes the threads that still wait for durability. Their changes will not become durable
        // any more.
        let rechecked = services.committer.recheck_waiters();

        // Waits for running reads. After this the close alone uses the storage.
        let storage = services.gate.take_storage();
        let closed = storage.map_or(Ok(()), |storage| {
            self.close_storage(storage, flushed.is_ok())
        });
        services.store_dir.unlock();
        flushed.and(rechecked).and(closed)
    }

    /// Checks that the memory counted for checkpoints is what the checkpoints hold. Both are final:
    /// every operation has left the gate, and the last flush is done. Only a late write may still
    /// reserve memory until the gate refuses it. If one does, the check is skipped.
    #[cfg(debug_assertions)]
    fn check_memory(&self) {
        let memory = |vb: &Arc<Vb>| vb.cell.lock().checkpoints.memory();
        let found: u64 = self.services.vbs.iter().map(memory).sum();
        if let Some(counted) = self.services.memory.used_by_checkpoints() {
            assert_eq!(
                counted, found,
                "the memory counted for checkpoints differs from what they hold"
            );
        }
    }

    fn close_storage(&self, storage: Storage, is_flushed: bool) -> Result<()> {
        let services = &self.services;
        if services.health.is_read_only() {
            // The directory stays unchanged, so a clean store stays clean and an unclean one
            // unclean.
            drop(storage);
            tracing::info!("the read-only store is closed");
            return Ok(());
        }
        let memtables_flushed = if is_flushed {
            services
                .store_dir
                .check()
                .and_then(|()| self.flush_memtables(&storage))
        } else {
            Ok(())
        };
        storage.stop_background_work();
        let sequence = storage.rocks_sequence();
        drop(storage);
        if !is_flushed {
            // Not recorded as a clean close: the next open recovers from the log.
            return Ok(());
        }
        // An error of the flush is returned only now, so that RocksDB is closed in any case.
        memtables_flushed?;
        // Checked again: the directory may have been replaced since `flush_memtables` began.
        services.store_dir.check()?;
        // ORDER: the digest is taken after RocksDB has closed its files, and is synced before the
        // lock is released.
        let digest = data_files(&services.store_dir.db())?.digest;
        // RocksDB may have replaced its MANIFEST since the digest of the open was recorded.
        let files = services.store_dir.files_digest()?;
        let mut witness = services.witness.lock();
        witness.note_files(files);
        witness.record(sequence, digest)?;
        witness.sync()?;
        tracing::info!("the store is closed");
        Ok(())
    }

    /// Flushes RocksDB's memtables to files until the time-out. The data of the others stays in
    /// RocksDB's log, from which the next open recovers it.
    fn flush_memtables(&self, storage: &Storage) -> Result<()> {
        let services = &self.services;
        let deadline = services
            .clock
            .monotonic()
            .saturating_add(services.config.close_timeout);
        let in_memory: Vec<VbId> = services
            .vbs
            .iter()
            .filter(|vb| vb.oldest_log_position().is_some())
            .map(|vb| vb.id())
            .collect();
        for chunk in in_memory.chunks(VBUCKETS_PER_FLUSH) {
            if services.clock.monotonic() >= deadline {
                tracing::warn!(
                    "close_timeout has passed: the next open recovers the rest from the log"
                );
                return Ok(());
            }
            storage.rocks_flush(chunk.iter().copied())?;
        }
        storage.rocks_flush_records()
    }
}
