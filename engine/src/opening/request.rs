//! The options of one open, and its result.

use super::states::LoadedRecords;
use crate::config::Config;
use crate::failpoint::MaybeFailpoints;
use crate::services::OpenedStore;
use crate::storage::Storage;
use crate::store_dir::{Access, StoreDir, WitnessFile};
use crate::wakers::Wakers;
use std::path::PathBuf;
use std::sync::Arc;
use vbstore_core::{Clock, StoreUuid};
use vbstore_metrics::EngineMetrics;

/// The options of one open, checked by the builder.
pub(crate) struct OpenRequest {
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
    pub(crate) wakers: Wakers,
    /// The access to the store. With [`Access::Read`], all three options below are false.
    pub(crate) access: Access,
    /// A missing store is created.
    pub(crate) create: bool,
    /// The store is opened even if less is recovered than was synced.
    pub(crate) accept_data_loss: bool,
    /// Every vBucket begins a new branch.
    pub(crate) new_branch: bool,
}

/// An opened store, without the options of its engine.
pub(super) struct ReadyStore {
    pub(super) store: StoreUuid,
    pub(super) write_buffer_bytes: u64,
    pub(super) store_dir: StoreDir,
    pub(super) storage: Storage,
    pub(super) witness: WitnessFile,
    pub(super) loaded: LoadedRecords,
    pub(super) has_branches_to_begin: bool,
}

impl OpenRequest {
    /// Adds the options to an opened store.
    pub(super) fn into_opened(self, ready: ReadyStore) -> OpenedStore {
        OpenedStore {
            store: ready.store,
            config: self.config,
            clock: self.clock,
            metrics: self.metrics,
            failpoints: self.failpoints,
            wakers: self.wakers,
            write_buffer_bytes: ready.write_buffer_bytes,
            store_dir: ready.store_dir,
            storage: ready.storage,
            witness: ready.witness,
            access: self.access,
            has_branches_to_begin: ready.has_branches_to_begin,
            store_state: ready.loaded.store,
            cells: ready.loaded.into_cells(),
        }
    }
}
