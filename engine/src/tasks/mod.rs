//! Background tasks: a named thread each, or stepped by hand.
//!
//! A task is a function that does what is due and says when it wants to be called next. It never
//! sleeps and never waits for another task. A panic in it fails the engine and ends its thread.
//!
//! Stop order, written here because closing depends on it: all threads are told to stop and joined
//! *before* the close takes the lead for the last flush, so that nothing runs beside it.

mod flusher;
mod pacer;
mod signal;
mod syncer;
mod witness_syncer;

pub(crate) use signal::{Signal, Signals};

use crate::error::Result;
use crate::inner::Inner;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A background task of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackgroundTask {
    /// Flushes what nobody waits for, and tries again while the disk is full.
    Flusher,
    /// Syncs what streams wait for, and what no writer asked to sync.
    Syncer,
    /// Syncs the witness once a second.
    WitnessSyncer,
    /// Moves the oldest data of RocksDB's memory to files, a few families at a time.
    Pacer,
}

/// When a task wants to be called next; earlier if it is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// After this time.
    In(Duration),
    /// Not before this time, signalled or not.
    NotBefore(Duration),
    /// When it is signalled.
    OnSignal,
}

impl BackgroundTask {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Flusher,
        Self::Syncer,
        Self::WitnessSyncer,
        Self::Pacer,
    ];

    fn thread_name(self) -> &'static str {
        match self {
            Self::Flusher => "vbstore-flusher",
            Self::Syncer => "vbstore-syncer",
            Self::WitnessSyncer => "vbstore-witness",
            Self::Pacer => "vbstore-pacer",
        }
    }

    fn signal(self, inner: &Inner) -> &Signal {
        match self {
            Self::Flusher => &inner.signals.flusher,
            Self::Syncer => &inner.signals.syncer,
            Self::WitnessSyncer => &inner.signals.witness,
            Self::Pacer => &inner.signals.pacer,
        }
    }

    /// Does what is due. An error has been noted in the health.
    pub(crate) fn step(self, inner: &Inner) -> Result<Next> {
        match self {
            Self::Flusher => flusher::step(inner),
            Self::Syncer => syncer::step(inner),
            Self::WitnessSyncer => witness_syncer::step(inner),
            Self::Pacer => pacer::step(inner),
        }
    }
}

/// Starts a thread for each task.
pub(crate) fn start(inner: &Arc<Inner>) -> std::io::Result<Vec<JoinHandle<()>>> {
    BackgroundTask::ALL
        .into_iter()
        .map(|task| {
            let inner = Arc::clone(inner);
            let builder = std::thread::Builder::new().name(task.thread_name().to_owned());
            builder.spawn(move || run(task, &inner))
        })
        .collect()
}

/// How soon a task that failed is called again: often enough that a full disk is noticed to have
/// space again well within the 15 s that are promised.
const RETRY: Duration = Duration::from_millis(500);

fn run(task: BackgroundTask, inner: &Inner) {
    let signal = task.signal(inner);
    loop {
        let outcome = catch_unwind(AssertUnwindSafe(|| task.step(inner)));
        let next = match outcome {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::debug!(?task, %error, "background task failed");
                Next::In(RETRY)
            }
            Err(_) => {
                inner.fail(format!("{} panicked", task.thread_name()));
                return;
            }
        };
        if !signal.wait(next) {
            return;
        }
    }
}
