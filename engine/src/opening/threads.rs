//! Checks that the process may start the threads that an engine needs.
//!
//! If the system refuses RocksDB a thread, RocksDB aborts the process. This check runs before, and
//! returns an error instead.

use crate::error::{Error, Result};
use crate::storage::background_jobs;
use crate::tasks::BackgroundTask;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

/// The threads that RocksDB starts besides its background jobs: a timer, and one that opens files.
const ROCKSDB_OTHERS: usize = 2;

/// The stack of a thread that does nothing, in bytes.
const STACK: usize = 64 << 10;

/// Starts as many threads as an engine needs, and ends them again.
///
/// # Errors
/// [`Error::Io`] if the system refuses a thread.
pub(super) fn check() -> Result<()> {
    let needed = BackgroundTask::ALL.len() + background_jobs() + ROCKSDB_OTHERS;
    let mut started = StartedThreads::default();
    (0..needed).try_for_each(|_| started.start())
}

/// Threads that wait. Dropping this ends and joins them.
#[derive(Default)]
struct StartedThreads(Vec<(JoinHandle<()>, SyncSender<()>)>);

impl StartedThreads {
    fn start(&mut self) -> Result<()> {
        let (end, ended) = sync_channel(0);
        let thread = Builder::new()
            .name("vbstore-probe".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // Nothing is ever sent: this returns when the sender is dropped.
                let _ = ended.recv();
            })
            .map_err(|e| Error::io("start a thread", e))?;
        self.0.push((thread, end));
        Ok(())
    }
}

impl Drop for StartedThreads {
    fn drop(&mut self) {
        for (thread, end) in self.0.drain(..) {
            drop(end);
            drop(thread.join());
        }
    }
}
