//! Begins a branch of a vBucket's history after an unclean stop.
//!
//! A consumer may have seen changes above a vBucket's recovered high seqno which the unclean stop
//! lost. Their seqnos will be assigned to other changes, and those must belong to another branch.
//! The branch begins with the first such change, not when the store is opened. So a vBucket without
//! writes keeps its failover log, however often the store stops, and its consumers keep their
//! positions. Until then the vBucket ends at its high seqno, and a consumer with a position above
//! it must roll back.
//!
//! # Protocol
//! - A branch is *due* if the store has had more unclean stops than when the vBucket's newest
//!   branch began. Both counts are on disk: the store writes its own before anything else, and each
//!   failover log has that of its newest branch. So a branch that did not begin before a clean
//!   close or another stop is due again at the next open.
//! - A writer that finds a branch due releases all its locks and takes the lead. The leader
//!   *prepares* the branches of all vBuckets with waiting writers, locking one vBucket at a time.
//!   It writes their state records and failover logs in one synced batch, with no vBucket locked,
//!   and then *publishes* each branch. Only after that is a seqno assigned, so nobody sees a change
//!   on a branch that a crash could take back.
//! - RocksDB shows a synced batch to readers only after the sync. A stream that reads the new
//!   branch from disk before it is published publishes it. Otherwise its consumer could return with
//!   a position on a branch that the failover log in memory does not contain.
//! - Until the batch is written no change is assigned, so only the leader changes the vBucket's
//!   state.
//! - If the batch is not written, the next attempt uses the same uuid for the branch. Once the
//!   batch is written the branch is published, whatever fails afterwards. So the state record and
//!   the failover log name the same branch, in memory as on disk, before either is written again.

use crate::failover_log::FailoverLog;
use crate::ids::{Cas, Seqno, VbUuid};
use crate::record::VbState;

/// A branch that was prepared and is not published yet.
#[derive(Clone, Debug)]
pub(crate) struct PendingBranch {
    uuid: VbUuid,
    max_cas: Cas,
    failover_log: FailoverLog,
}

impl PendingBranch {
    /// Prepares a branch that begins at `seqno`. `failover_log` is the vBucket's log without it.
    pub(crate) fn new(
        uuid: VbUuid,
        seqno: Seqno,
        mut failover_log: FailoverLog,
        unclean_stops: u64,
        max_cas: Cas,
    ) -> Self {
        failover_log.begin(uuid, seqno, unclean_stops);
        Self {
            uuid,
            max_cas,
            failover_log,
        }
    }

    pub(crate) fn uuid(&self) -> VbUuid {
        self.uuid
    }

    /// Returns `before`, the vBucket's state, with the uuid and the largest CAS of this branch.
    pub(crate) fn state(&self, before: VbState) -> VbState {
        VbState {
            uuid: self.uuid,
            max_cas: self.max_cas,
            ..before
        }
    }

    pub(crate) fn failover_log(&self) -> &FailoverLog {
        &self.failover_log
    }

    pub(crate) fn into_failover_log(self) -> FailoverLog {
        self.failover_log
    }
}
