//! What a stream is, and what it was asked for: plain data, shared by all that work for it.

use super::figures::Figures;
use super::ids::{ConsumerId, StreamId};
use super::request::StreamOptions;
use std::sync::Arc;
use vbstore_core::{Reader, Seqno, VbId};

/// One stream. Holds neither the engine nor its consumer, so that a batch that the program keeps holds
/// neither.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    pub(crate) consumer: ConsumerId,
    pub(crate) vb: VbId,
    /// Which life of the vBucket it is of.
    pub(crate) generation: u64,
    pub(crate) options: StreamOptions,
    /// The end that was asked for.
    pub(crate) end: Seqno,
    /// What its consumer has taken, as its vBucket knows it. What keeps it registered there is in the
    /// mailbox.
    pub(crate) reader: Arc<Reader>,
    pub(crate) figures: Figures,
}
