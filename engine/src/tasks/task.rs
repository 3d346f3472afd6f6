//! The list of background tasks.

use super::{compactor, directory_watcher, flusher, pacer, syncer, witness_syncer};
use crate::error::Result;
use crate::services::Services;
use crate::signals::{NextRun, TaskSignal};

/// A background task of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackgroundTask {
    /// Flushes changes that no thread waits for, and retries while the disk is full.
    Flusher,
    /// Syncs changes that streams wait for, and changes that no writer asked to sync.
    Syncer,
    /// Syncs the witness once a second.
    WitnessSyncer,
    /// Flushes RocksDB's oldest memtables to files, a few families at a time.
    Pacer,
    /// Checks once a second whether the store's directory was moved, replaced or removed.
    DirectoryWatcher,
    /// Releases the disk space of deleted vBuckets, one at a time.
    Compactor,
}

impl BackgroundTask {
    /// All background tasks.
    pub const ALL: [Self; 6] = [
        Self::Flusher,
        Self::Syncer,
        Self::WitnessSyncer,
        Self::Pacer,
        Self::DirectoryWatcher,
        Self::Compactor,
    ];

    pub(super) fn thread_name(self) -> &'static str {
        match self {
            Self::Flusher => "vbstore-flusher",
            Self::Syncer => "vbstore-syncer",
            Self::WitnessSyncer => "vbstore-witness",
            Self::Pacer => "vbstore-pacer",
            Self::DirectoryWatcher => "vbstore-dir",
            Self::Compactor => "vbstore-compact",
        }
    }

    pub(super) fn signal(self, services: &Services) -> &TaskSignal {
        let signals = &services.signals;
        match self {
            Self::Flusher => &signals.flusher,
            Self::Syncer => &signals.syncer,
            Self::WitnessSyncer => &signals.witness,
            Self::Pacer => &signals.pacer,
            Self::DirectoryWatcher => &signals.directory,
            Self::Compactor => &signals.compactor,
        }
    }

    /// Does the work that is due. A returned error has already been recorded in the health.
    pub(crate) fn step(self, services: &Services) -> Result<NextRun> {
        match self {
            Self::Flusher => flusher::step(services),
            Self::Syncer => syncer::step(services),
            Self::WitnessSyncer => witness_syncer::step(services),
            Self::Pacer => pacer::step(services),
            Self::DirectoryWatcher => directory_watcher::step(services),
            Self::Compactor => compactor::step(services),
        }
    }
}
