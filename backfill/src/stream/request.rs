//! Stream requests, and the positions from which streams resume.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vbstore_core::{
    FilterDigest, ItemKind, ItemMeta, Position, RollbackReason, Seqno, VbId, Visibility,
};

/// Which changes a stream delivers, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// How durable a change must be before it is delivered. Default: synced.
    pub visibility: Visibility,
    /// Deliver only changes of keys with this prefix. Default: empty, which means all keys.
    pub prefix: Bytes,
    /// Deliver keys and metadata without values.
    pub is_keys_only: bool,
    /// Omit deletions from the first backfill of a stream from 0, since its consumer has no key
    /// that could be deleted.
    ///
    /// Such a stream begins on disk. It omits the deletions up to the end of its first view of the
    /// disk, whether they are read from disk or from memory. Later deletions are always delivered,
    /// and so are all deletions after a resume.
    pub skips_first_deletions: bool,
}

impl StreamOptions {
    /// Returns whether a change is delivered. Deletions up to and including `skips_upto` are not,
    /// if [`Self::skips_first_deletions`] is set.
    pub(crate) fn wants(&self, meta: &ItemMeta, key: &[u8], skips_upto: Seqno) -> bool {
        let is_skipped = self.skips_first_deletions
            && meta.kind != ItemKind::Mutation
            && meta.seqno <= skips_upto;
        !is_skipped && key.starts_with(&self.prefix)
    }

    /// Returns whether no change is filtered out.
    pub(crate) fn wants_all(&self) -> bool {
        self.prefix.is_empty() && !self.skips_first_deletions
    }

    /// Returns the digest that identifies this filter in positions.
    pub(crate) fn filter(&self) -> FilterDigest {
        FilterDigest::of(&self.prefix, self.is_keys_only)
    }
}

/// A request for the changes of one vBucket.
#[derive(Clone, Debug)]
pub struct StreamRequest {
    /// The vBucket to follow.
    pub vb: VbId,
    /// The position to continue from: the default for the beginning, or a value that
    /// [`crate::Consumer::position`] returned.
    pub position: Position,
    /// The seqno to end at; [`Seqno::MAX`] for a stream without end. The stream ends at the first
    /// boundary at or above it, since a snapshot marker can end only at a boundary.
    pub end: Seqno,
    /// Which changes are delivered, and how.
    pub options: StreamOptions,
}

impl StreamRequest {
    /// Requests everything from the beginning, without an end.
    #[must_use]
    pub fn from_start(vb: VbId) -> Self {
        Self::resume(vb, Position::default())
    }

    /// Requests everything after a position, without an end.
    #[must_use]
    pub fn resume(vb: VbId, position: Position) -> Self {
        Self {
            vb,
            position,
            end: Seqno::MAX,
            options: StreamOptions::default(),
        }
    }

    /// Sets the end: the stream ends at the first boundary at or above `end`.
    #[must_use]
    pub fn until(mut self, end: Seqno) -> Self {
        self.end = end;
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rollback means that no stream was opened"]
pub enum OpenOutcome {
    /// The stream is open, and continues after the position.
    Continue,
    /// No stream was opened. The consumer must first roll its copy back to a complete state at or
    /// below `to`, and use the position that it saved with that state. If it has no such state, it
    /// discards its copy and begins from the start.
    Rollback {
        /// The highest seqno that the consumer may keep.
        to: Seqno,
        /// Why the rollback is necessary.
        reason: RollbackReason,
    },
}

/// The positions of a consumer, by vBucket: all that it needs to resume later. Serializes as a map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<VbId, Position>);
