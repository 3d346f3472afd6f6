//! The events of a stream.

use bytes::Bytes;
use std::fmt;
use vbstore_core::show;
use vbstore_core::{ItemKind, ItemMeta, RollbackReason, Seqno, SnapshotMarker, VbId};
use vbstore_engine::Error;

/// One change, as a stream delivers it.
///
/// Cloning is cheap. All keys and values of a slice from disk share one buffer, which stays in
/// memory as long as one of them does. [`Self::detach`] makes a copy that does not keep that
/// buffer.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamItem {
    /// Its seqno, kind, CAS and other metadata.
    pub meta: ItemMeta,
    /// The document's key.
    pub key: Bytes,
    /// The value; empty for a tombstone, and if the stream delivers keys only.
    pub value: Bytes,
}

impl fmt::Debug for StreamItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamItem")
            .field("meta", &self.meta)
            .field("key", &show::DebugKey(&self.key))
            .field("value", &show::DebugLength::of(&self.value))
            .finish()
    }
}

impl StreamItem {
    /// Returns a copy with buffers of its own, which does not keep the rest of its slice in memory.
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
    /// The stream reached the end that was requested.
    ReachedEnd,
    /// The consumer closed the stream.
    Closed,
    /// The stream cannot continue: the consumer must first roll back to a complete state at or
    /// below `to`.
    Rollback {
        /// The highest seqno that the consumer may keep.
        to: Seqno,
        /// Why the rollback is necessary.
        reason: RollbackReason,
    },
    /// The consumer took nothing for the stall limit, and the disk is short of space.
    Stalled,
    /// The vBucket was deleted.
    VbucketGone,
    /// The stream failed; this is the first cause.
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
        // Label of a stream that was refused at its opening; it has no `EndReason`.
        "refused",
    ]),
    "the label of the metric does not list the same reasons"
);

const _: () = {
    let [purged, unknown, diverged, filter] = RollbackReason::ALL;
    assert!(
        vbstore_metrics::Rollbacks::LABEL.is_of(&[
            purged.name(),
            unknown.name(),
            diverged.name(),
            filter.name(),
        ]),
        "the label of the metric does not list the same rollback reasons"
    );
};

impl EndReason {
    /// The names of all reasons, as [`Self::name`] returns them.
    pub const NAMES: [&'static str; 7] = [
        Self::ReachedEnd.name(),
        Self::Closed.name(),
        "rollback",
        Self::Stalled.name(),
        Self::VbucketGone.name(),
        "error",
        Self::Shutdown.name(),
    ];

    /// Returns the name used in output and as a metric label.
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

/// A change in a vBucket, or something that happened to its stream.
///
/// The enum is exhaustive on purpose: a consumer must not skip a kind of event that it does not
/// know.
#[derive(Clone, Debug)]
pub enum Event {
    /// A snapshot marker: the changes above its start, up to and including its end, follow. Once
    /// the consumer has taken them, its copy equals the vBucket at that end. A newer marker
    /// replaces this one.
    SnapshotMarker(SnapshotMarker),
    /// A document was created or replaced.
    Mutation(StreamItem),
    /// A document was deleted.
    Deletion(StreamItem),
    /// A document was removed because its expiry had passed.
    Expiration(StreamItem),
    /// Everything up to this seqno is covered; no further change matched.
    SeqnoAdvanced(Seqno),
    /// The stream ended; no event of it follows.
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

    /// Returns the change, if the event is one.
    #[must_use]
    pub const fn item(&self) -> Option<&StreamItem> {
        match self {
            Self::Mutation(item) | Self::Deletion(item) | Self::Expiration(item) => Some(item),
            Self::SnapshotMarker(_) | Self::SeqnoAdvanced(_) | Self::End(_) => None,
        }
    }
}

/// An event together with its vBucket.
#[derive(Clone, Debug)]
pub struct StreamEvent {
    /// The vBucket that the event belongs to.
    pub vb: VbId,
    /// The event itself.
    pub event: Event,
}
