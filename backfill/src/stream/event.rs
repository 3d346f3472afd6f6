//! What a stream delivers.

use bytes::Bytes;
use std::fmt;
use vbstore_core::show;
use vbstore_core::{ItemKind, ItemMeta, Marker, RollbackReason, Seqno, VbId};
use vbstore_engine::Error;

/// A change, as a stream delivers it. Key and value are cheap: a slice from disk has one buffer for
/// all of them, which stays in memory as long as one of them does. [`Self::detach`] copies one out.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamItem {
    /// What is known of it.
    pub meta: ItemMeta,
    /// Its key.
    pub key: Bytes,
    /// Its value; empty for a tombstone, and if the stream delivers keys only.
    pub value: Bytes,
}

impl fmt::Debug for StreamItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamItem")
            .field("meta", &self.meta)
            .field("key", &show::Key(&self.key))
            .field("value", &show::Length::of(&self.value))
            .finish()
    }
}

impl StreamItem {
    /// Returns a copy that keeps nothing else in memory.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self {
            meta: self.meta,
            key: Bytes::copy_from_slice(&self.key),
            value: Bytes::copy_from_slice(&self.value),
        }
    }
}

/// Why a stream ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum EndReason {
    /// The end that was asked for is reached.
    ReachedEnd,
    /// The consumer closed it.
    Closed,
    /// The consumer must first go back to a complete state at or below `to`.
    Rollback {
        /// An upper bound of where to go back to.
        to: Seqno,
        /// Why.
        reason: RollbackReason,
    },
    /// The consumer took nothing for the stall limit, and the disk is short.
    Stalled,
    /// The vBucket was deleted.
    VbucketGone,
    /// Something failed; the first cause.
    Error(Error),
    /// The engine was closed.
    Shutdown,
}

const _: () = assert!(
    vbstore_metrics::StreamEnds::LABEL.is_of(&[
        EndReason::NAMES[0],
        EndReason::NAMES[1],
        EndReason::NAMES[2],
        EndReason::NAMES[3],
        EndReason::NAMES[4],
        EndReason::NAMES[5],
        EndReason::NAMES[6],
        // Of a stream that was never opened.
        "refused",
    ]),
    "the label of the metric has other reasons"
);

impl EndReason {
    /// The names of all reasons.
    pub const NAMES: [&'static str; 7] = [
        Self::ReachedEnd.name(),
        Self::Closed.name(),
        "rollback",
        Self::Stalled.name(),
        Self::VbucketGone.name(),
        "error",
        Self::Shutdown.name(),
    ];

    /// Returns the name used in output and as a label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ReachedEnd => "reached_end",
            Self::Closed => "closed",
            Self::Rollback { .. } => "rollback",
            Self::Stalled => "stalled",
            Self::VbucketGone => "vbucket_gone",
            Self::Error(_) => "error",
            Self::Shutdown => "shutdown",
        }
    }
}

impl From<Error> for EndReason {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => Self::Shutdown,
            Error::VbGone { .. } => Self::VbucketGone,
            error => Self::Error(error),
        }
    }
}

/// What happened in a vBucket, or to its stream. Complete on purpose: a consumer must not pass over
/// a kind of event that it does not know.
#[derive(Clone, Debug)]
pub enum Event {
    /// The changes above its start up to its end follow. Once they are taken, the consumer's copy
    /// equals the vBucket at its end. A newer marker takes the place of this one.
    SnapshotMarker(Marker),
    /// A key was given a value.
    Mutation(StreamItem),
    /// A key was deleted.
    Deletion(StreamItem),
    /// A key was removed because its expiry had passed.
    Expiration(StreamItem),
    /// Everything up to this seqno is covered; no further change matched.
    SeqnoAdvanced(Seqno),
    /// The last event of a stream.
    End(EndReason),
}

impl Event {
    pub(crate) fn of(item: StreamItem) -> Self {
        match item.meta.kind {
            ItemKind::Mutation => Self::Mutation(item),
            ItemKind::Deletion => Self::Deletion(item),
            ItemKind::Expiration => Self::Expiration(item),
        }
    }

    /// Returns the name used in output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SnapshotMarker(_) => "snapshot_marker",
            Self::Mutation(_) => "mutation",
            Self::Deletion(_) => "deletion",
            Self::Expiration(_) => "expiration",
            Self::SeqnoAdvanced(_) => "seqno_advanced",
            Self::End(_) => "end",
        }
    }

    /// Returns the change, if it is one.
    #[must_use]
    pub const fn item(&self) -> Option<&StreamItem> {
        match self {
            Self::Mutation(item) | Self::Deletion(item) | Self::Expiration(item) => Some(item),
            Self::SnapshotMarker(_) | Self::SeqnoAdvanced(_) | Self::End(_) => None,
        }
    }
}

/// An event and the vBucket it is of.
#[derive(Clone, Debug)]
pub struct StreamEvent {
    /// The vBucket.
    pub vb: VbId,
    /// What happened.
    pub event: Event,
}
