//! Closing: the order in which an engine comes to rest.

use crate::error::Result;
use crate::failpoint::place;
use crate::home::data_files;
use crate::samples::Samples;
use crate::services::Services;
use crate::storage::Storage;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use vbstore_core::VbId;

/// vBuckets whose families are moved to files between two looks at the clock.
const VBUCKETS_AT_ONCE: usize = 16;

/// Closes an engine.
pub(crate) struct Closing {
    services: Arc<Services>,
    samples: Arc<Samples>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    has_begun: AtomicBool,
}

impl Closing {
    pub(crate) fn new(services: Arc<Services>, samples: Arc<Samples>) -> Self {
        Self {
            services,
            samples,
            threads: Mutex::new(Vec::new()),
            has_begun: AtomicBool::new(false),
        }
    }

    /// Takes the background threads, to be stopped by the close.
    pub(crate) fn will_stop(&self, threads: Vec<JoinHandle<()>>) {
        *self.threads.lock() = threads;
    }

    /// Closes the engine; does nothing the second time.
    pub(crate) fn close(&self) -> Result<()> {
        if self.has_begun.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let services = &self.services;
        services.gate.begin_closing();
        self.samples.unregister();
        // Streams that wait find the engine closing and end.
        services.health.all_streams().run();
        // ORDER: threads first, so that nothing runs beside the last flush; see `tasks`.
        services.signals.stop_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
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

    fn close_storage(&self, storage: Storage, is_flushed: bool) -> Result<()> {
        let services = &self.services;
        let moved = if is_flushed {
            self.move_to_files(&storage)
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
