//! What a consumer asks for, and where it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vbstore_core::{
    FilterDigest, ItemKind, ItemMeta, Position, RollbackReason, Seqno, VbId, Visibility,
};

/// Which changes a stream delivers, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// How durable a change must be. Default: synced.
    pub visibility: Visibility,
    /// Only keys that begin with this. Default: all.
    pub prefix: Bytes,
    /// Keys and metadata without values.
    pub is_keys_only: bool,
    /// Leave deletions out of the first backfill of a stream from 0: its consumer has no key that
    /// could be deleted. Such a stream begins on disk, and leaves out the deletions up to the end of
    /// its first view of it, wherever the changes are; never more, and none after a resume.
    pub skips_first_deletions: bool,
}

impl StreamOptions {
    /// Returns whether a change is delivered. Deletions up to `skips_upto` are left out if the options
    /// say so.
    pub(crate) fn wants(&self, meta: &ItemMeta, key: &[u8], skips_upto: Seqno) -> bool {
        let is_skipped = self.skips_first_deletions
            && meta.kind != ItemKind::Mutation
            && meta.seqno <= skips_upto;
        !is_skipped && key.starts_with(&self.prefix)
    }

    /// Returns whether every change is delivered from now on.
    pub(crate) fn wants_all(&self) -> bool {
        self.prefix.is_empty() && !self.skips_first_deletions
    }

    /// Returns what identifies the filter in positions.
    pub(crate) fn filter(&self) -> FilterDigest {
        FilterDigest::of(&self.prefix, self.is_keys_only)
    }
}

/// Asks for the changes of one vBucket.
#[derive(Clone, Debug)]
pub struct StreamRequest {
    /// The vBucket.
    pub vb: VbId,
    /// Where the consumer is: the default for the beginning, or what [`crate::Consumer::position`]
    /// said.
    pub position: Position,
    /// The stream ends at the first boundary at or above it; [`Seqno::MAX`] for never. A marker is
    /// never cut to a seqno that is no boundary.
    pub end: Seqno,
    /// What it delivers.
    pub options: StreamOptions,
}

impl StreamRequest {
    /// Asks for everything from the beginning.
    #[must_use]
    pub fn from_start(vb: VbId) -> Self {
        Self::resume(vb, Position::default())
    }

    /// Asks for everything after a position.
    #[must_use]
    pub fn resume(vb: VbId, position: Position) -> Self {
        Self {
            vb,
            position,
            end: Seqno::MAX,
            options: StreamOptions::default(),
        }
    }

    /// Ends at the first boundary at or above `end`.
    #[must_use]
    pub fn until(mut self, end: Seqno) -> Self {
        self.end = end;
        self
    }

    /// With these options.
    #[must_use]
    pub fn options(mut self, options: StreamOptions) -> Self {
        self.options = options;
        self
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rollback means that no stream was opened"]
pub enum Opened {
    /// The stream goes on after the position.
    Continue,
    /// No stream was opened: the consumer must first go back to a complete state at or below `to`,
    /// with the whole position saved at that moment, or to nothing and the beginning.
    Rollback {
        /// An upper bound of where to go back to.
        to: Seqno,
        /// Why.
        reason: RollbackReason,
    },
}

/// Where a consumer is in each of its vBuckets: all it needs to go on later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Positions(pub BTreeMap<VbId, Position>);
