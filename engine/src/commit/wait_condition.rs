//! What a thread or a ticket waits for, other than the lead.

use crate::durability::Durability;
use crate::error::Error;
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_core::Seqno;

/// What a thread or a ticket waits for.
#[derive(Clone, Debug)]
pub(crate) enum WaitCondition {
    /// Everything up to `seqno` is at least as durable as `level`.
    Durable {
        vb: Arc<Vb>,
        generation: u64,
        seqno: Seqno,
        level: Durability,
    },
    /// Memory has room for this many bytes.
    Room { bytes: u64 },
}

impl WaitCondition {
    pub(super) fn wants_sync(&self) -> bool {
        matches!(
            self,
            Self::Durable {
                level: Durability::Synced,
                ..
            }
        )
    }

    /// Returns the bytes of room to wait for; 0 for another condition.
    pub(super) fn room(&self) -> u64 {
        match self {
            Self::Room { bytes } => *bytes,
            Self::Durable { .. } => 0,
        }
    }

    /// Returns the error of a wait that timed out.
    pub(super) fn timeout_error(&self) -> Error {
        match self {
            Self::Durable {
                vb, seqno, level, ..
            } => Error::NotYetDurable {
                vb: vb.id(),
                seqno: *seqno,
                wanted: *level,
            },
            Self::Room { .. } => Error::Busy {
                what: "no room in memory_quota",
            },
        }
    }
}
