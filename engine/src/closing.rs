//! Closing: the order in which an engine comes to rest.
//!
//! # Protocol
//! The state is `Open`, `Running` on one thread, or `Done` with its outcome, under a lock that is never
//! held while anything else is done. Whoever finds it `Open` runs the close; everybody else waits until
//! it is `Done` and returns the same outcome. Two callers cannot wait, because the close waits for them:
//! program code that a background thread runs in the middle of a step (a subscriber of `tracing`), since
//! the close joins that thread, and program code that the close itself runs (a waker, in an engine without
//! threads). Both get [`Error::Busy`], and the store closes without them: the first puts the close off
//! until its step is over, the second is inside it.

use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::home::data_files;
use crate::own_thread;
use crate::samples::Samples;
use crate::services::Services;
use crate::storage::Storage;
#[cfg(debug_assertions)]
use crate::vbuckets::Vb;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use vbstore_core::VbId;
use vbstore_core::lock_order::assert_none_held;

/// vBuckets whose families are moved to files between two looks at the clock.
const VBUCKETS_AT_ONCE: usize = 16;

/// Closes an engine.
pub(crate) struct Closing {
    services: Arc<Services>,
    samples: Arc<Samples>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    state: Mutex<State>,
    changed: Condvar,
}

enum State {
    Open,
    Running(ThreadId),
    Done(Result<()>),
}

/// Ends a close that is running, also one that panics: nobody waits for ever.
struct Running<'a> {
    closing: &'a Closing,
    outcome: Result<()>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.closing.state.lock() = State::Done(self.outcome.clone());
        self.closing.changed.notify_all();
    }
}

impl Closing {
    pub(crate) fn new(services: Arc<Services>, samples: Arc<Samples>) -> Self {
        Self {
            services,
            samples,
            threads: Mutex::new(Vec::new()),
            state: Mutex::new(State::Open),
            changed: Condvar::new(),
        }
    }

    /// Takes a background thread, to be stopped by the close.
    pub(crate) fn will_stop(&self, thread: JoinHandle<()>) {
        self.threads.lock().push(thread);
    }

    /// Closes the engine, or waits until it is closed. Returns the same outcome to every caller. The
    /// caller holds no lock; in a step of a background thread it may have the lead.
    ///
    /// # Errors
    /// What went wrong with the last flush; [`Error::Busy`] for the two callers that cannot wait;
    /// [`Error::Forked`].
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        if !own_thread::is_in_step() {
            assert_none_held();
        }
        self.services.gate.opener().check_id()?;
        let me = std::thread::current().id();
        let mut state = self.state.lock();
        loop {
            match &*state {
                State::Done(outcome) => return outcome.clone(),
                State::Running(by) if *by == me => {
                    return Err(Error::Busy {
                        what: "the engine is being closed, and the close itself runs this code",
                    });
                }
                State::Open | State::Running(_) if own_thread::is_in_step() => {
                    drop(state);
                    self.put_off();
                    return Err(Error::Busy {
                        what: "a thread of the engine runs this code, and closes it afterwards",
                    });
                }
                State::Running(_) => self.changed.wait(&mut state),
                State::Open => break,
            }
        }
        *state = State::Running(me);
        drop(state);
        self.run()
    }

    /// Lets a background thread close the engine once its step is over, unless another has begun to.
    fn put_off(self: &Arc<Self>) {
        self.services.gate.begin_closing();
        let closing = Arc::clone(self);
        own_thread::put_off(Box::new(move || {
            let mut state = closing.state.lock();
            if !matches!(*state, State::Open) {
                return;
            }
            *state = State::Running(std::thread::current().id());
            drop(state);
            if let Err(error) = closing.run() {
                tracing::error!(%error, "store not closed cleanly");
            }
        }));
    }

    /// Gives up the threads without waiting for them: this is another process, in which they do not
    /// exist.
    pub(crate) fn leak_threads(&self) {
        std::mem::take(&mut *self.threads.lock()).leak();
    }

    /// Runs the close on this thread, which has set the state to `Running`.
    fn run(&self) -> Result<()> {
        let panicked = Error::failed("the close panicked");
        let mut running = Running {
            closing: self,
            outcome: Err(panicked),
        };
        running.outcome = self.stop_and_close();
        running.outcome.clone()
    }

    fn stop_and_close(&self) -> Result<()> {
        let services = &self.services;
        services.gate.begin_closing();
        self.samples.unregister();
        // Streams that wait find the engine closing and end.
        services.health.all_streams().run();
        // ORDER: threads first, so that nothing runs beside the last flush; see `tasks`.
        services.signals.stop_all();
        let me = std::thread::current().id();
        // Not held while they are joined: a process that is forked meanwhile takes it.
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A background thread that closes the engine after its step ends by itself.
            if thread.thread().id() != me && thread.join().is_err() {
                services.health.fail("a background thread panicked").run();
            }
        }
        self.close_store()
    }

    /// Everything after the threads are stopped.
    fn close_store(&self) -> Result<()> {
        let services = &self.services;
        // Whoever is inside the gate finishes first: no change is appended after the last flush.
        services.gate.wait_until_empty();
        let flushed = services.failpoints.pass(place::CLOSE).and_then(|()| {
            if services.health.is_failed() {
                services.health.check()
            } else {
                services.committer.flush_all()
            }
        });
        #[cfg(debug_assertions)]
        self.check_memory();
        services.committer.close();
        // Wakes whoever still waits for what will not come.
        services.committer.let_all_look()?;

        // From here on nobody uses the storage: reads that were under way are waited for.
        let storage = services.gate.take_storage();
        let closed = storage.map_or(Ok(()), |storage| {
            self.close_storage(storage, flushed.is_ok())
        });
        services.home.unlock();
        flushed.and(closed)
    }

    /// Checks that what is counted of the memory of checkpoints is what they have. Nothing changes it any
    /// more: every operation has left, and the last flush is done. A write that comes now may still reserve
    /// room before the gate refuses it; beside one nothing is checked.
    #[cfg(debug_assertions)]
    fn check_memory(&self) {
        let memory = |vb: &Arc<Vb>| vb.cell.lock().checkpoints.memory();
        let found: u64 = self.services.vbs.iter().map(memory).sum();
        if let Some(counted) = self.services.memory.used_by_checkpoints() {
            assert_eq!(counted, found, "the memory of checkpoints is miscounted");
        }
    }

    fn close_storage(&self, storage: Storage, is_flushed: bool) -> Result<()> {
        let services = &self.services;
        if services.health.is_read_only() {
            // The directory is left as it was found: the store is as clean as it was.
            drop(storage);
            tracing::info!("store closed that was opened to read");
            return Ok(());
        }
        let moved = if is_flushed {
            services
                .home
                .check()
                .and_then(|()| self.move_to_files(&storage))
        } else {
            Ok(())
        };
        storage.stop_background_work();
        let sequence = storage.rocks_sequence();
        drop(storage);
        if !is_flushed {
            return Ok(());
        }
        moved?;
        services.home.check()?;
        // The digest is taken after RocksDB has let go of its files. Synced before the lock is
        // released.
        let digest = data_files(&services.home.db())?.digest;
        // RocksDB may have begun another MANIFEST while the store was open.
        let files = services.home.files_digest()?;
        let mut witness = services.witness.lock();
        witness.note_files(files);
        witness.record(sequence, digest)?;
        witness.sync()?;
        tracing::info!("store closed");
        Ok(())
    }

    /// Moves what RocksDB has in memory to files, as far as the time allows. What is left stays in
    /// its log, and the next open takes longer by recovering it.
    fn move_to_files(&self, storage: &Storage) -> Result<()> {
        let services = &self.services;
        let deadline = services
            .clock
            .monotonic()
            .saturating_add(services.config.close_timeout);
        let in_memory: Vec<VbId> = services
            .vbs
            .iter()
            .filter(|vb| vb.logged_since().is_some())
            .map(|vb| vb.id())
            .collect();
        for some in in_memory.chunks(VBUCKETS_AT_ONCE) {
            if services.clock.monotonic() >= deadline {
                tracing::warn!("close timeout: the next open recovers from the log");
                return Ok(());
            }
            storage.rocks_flush(some.iter().copied())?;
        }
        storage.rocks_flush_records()
    }
}
