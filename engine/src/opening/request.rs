//! The options of one open, and its result.

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

/// The options of one open, checked by the builder.
pub(crate) struct Request {
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
    /// Adds the options to an opened store.
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
