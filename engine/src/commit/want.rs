//! What a thread or a ticket waits for, other than the lead.

use crate::durability::Durability;
use crate::error::Error;
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_core::Seqno;

/// What somebody waits for.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    /// That everything up to a seqno is as durable as this.
    Durable {
        vb: Arc<Vb>,
        generation: u64,
        seqno: Seqno,
        level: Durability,
    },
    /// That there is room in memory for so many bytes.
    Room { bytes: u64 },
}

impl Want {
    pub(super) fn wants_sync(&self) -> bool {
        matches!(
            self,
            Self::Durable {
                level: Durability::Synced,
                ..
            }
        )
    }

    /// Returns for how many bytes room is wanted.
    pub(super) fn room(&self) -> u64 {
        match self {
            Self::Room { bytes } => *bytes,
            Self::Durable { .. } => 0,
        }
    }

    /// Returns the error of a wait whose time is over.
    pub(super) fn time_is_over(&self) -> Error {
        match self {
            Self::Durable {
                vb, seqno, level, ..
            } => Error::NotYetDurable {
                vb: vb.id(),
                seqno: *seqno,
                wanted: *level,
            },
            Self::Room { .. } => Error::Busy {
                what: "memory quota",
            },
        }
    }
}
