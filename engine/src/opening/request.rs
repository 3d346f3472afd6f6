//! What is asked for when a store is opened.

use crate::config::Config;
use crate::failpoint::MaybeFailpoints;
use crate::home::Access;
use crate::wakers::Wakers;
use std::path::PathBuf;
use std::sync::Arc;
use vbstore_core::Clock;
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
