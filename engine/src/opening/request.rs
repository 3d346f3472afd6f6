//! What is asked for when a store is opened.

use super::states::Loaded;
use crate::config::Config;
use crate::failpoint::MaybeFailpoints;
use crate::home::{Access, Home, WitnessFile};
use crate::services::Opened;
use crate::storage::Storage;
use crate::wakers::Wakers;
use std::path::PathBuf;
use std::sync::Arc;
use vbstore_core::{Clock, StoreUuid};
use vbstore_metrics::EngineMetrics;

/// What is asked for when a store is opened.
pub(crate) struct Request {
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    pub(crate) failpoints: MaybeFailpoints,
    pub(crate) wakers: Wakers,
    /// What the store is opened for. None of the three below goes with [`Access::Read`].
    pub(crate) access: Access,
    /// A store is made where there is none.
    pub(crate) create: bool,
    /// The store is opened although less is recovered than was synced.
    pub(crate) accept_data_loss: bool,
    /// Every vBucket begins a new branch.
    pub(crate) new_branch: bool,
}

/// A store that is ready to be used.
pub(super) struct Ready {
    pub(super) store: StoreUuid,
    pub(super) write_buffer_bytes: u64,
    pub(super) home: Home,
    pub(super) storage: Storage,
    pub(super) witness: WitnessFile,
    pub(super) loaded: Loaded,
    pub(super) has_branches_to_begin: bool,
}

impl Request {
    /// Returns what an engine is put together from.
    pub(super) fn opened(self, ready: Ready) -> Opened {
        Opened {
            store: ready.store,
            config: self.config,
            clock: self.clock,
            metrics: self.metrics,
            failpoints: self.failpoints,
            wakers: self.wakers,
            write_buffer_bytes: ready.write_buffer_bytes,
            home: ready.home,
            storage: ready.storage,
            witness: ready.witness,
            access: self.access,
            has_branches_to_begin: ready.has_branches_to_begin,
            store_state: ready.loaded.store,
            cells: ready.loaded.into_cells(),
        }
    }
}
