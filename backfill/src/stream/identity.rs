//! The identity of a stream and its request: plain data, shared by everything that works for it.

use super::ids::{ConsumerId, StreamId};
use super::metrics::StreamMetrics;
use super::request::StreamOptions;
use std::sync::Arc;
use vbstore_core::{Reader, Seqno, VbId};

/// One stream. Holds no reference to the engine or the consumer, so a batch that the program keeps
/// does not keep them alive.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) consumer: ConsumerId,
    pub(crate) vb: VbId,
    /// The generation of the vBucket that it follows: a deleted and recreated vBucket has a new
    /// one.
    pub(crate) generation: u64,
    pub(crate) options: StreamOptions,
    /// The end that was requested.
    pub(crate) end: Seqno,
    /// What its consumer has taken, as its vBucket sees it. The guard that keeps the stream
    /// registered there is in the mailbox.
    pub(crate) reader: Arc<Reader>,
    pub(crate) metrics: StreamMetrics,
}
