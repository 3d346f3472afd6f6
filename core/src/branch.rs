//! Beginning a branch of a vBucket's history.
//!
//! After an unclean stop a consumer may have seen changes above a vBucket's recovered high seqno that
//! are lost. Their seqnos will be given to other changes, so those must belong to another branch. The
//! branch begins with the first of them and not when the store is opened: a vBucket that nobody writes
//! to keeps its failover log, however often the store stops, and the positions of its consumers with it.
//! Until then the vBucket ends at its high seqno, and a position beyond it is told to go back.
//!
//! # Protocol
//! - *Due* is remembered on disk: the store counts its unclean stops before anything else is written,
//!   and each failover log says after how many its newest branch began. So a branch that did not begin
//!   before a clean close, or before another stop, is due again at the next open.
//! - A writer that finds a branch due gives up all its locks and takes the lead. The leader *prepares*
//!   the branches of all vBuckets that wait, under their locks one by one, writes their state records
//!   and failover logs in one synced batch without any vBucket's lock, and *publishes* each of them.
//!   Only then is a seqno assigned: nobody can see a change of a branch that a crash could take back.
//! - RocksDB shows a synced batch only after the sync. So whoever reads the new branch from disk before
//!   it is published publishes it: otherwise a consumer could come back with a position of a branch
//!   that the failover log in memory does not know.
//! - Until the batch is written no change is assigned, so nothing else changes the vBucket's state but
//!   whoever has the lead.
//! - An attempt whose batch is not written keeps the name of the branch for the next one. Once the batch
//!   is written the branch is published whatever follows: state record and failover log name the same
//!   branch, in memory as on disk, before anything else can write one of them.

use crate::failover_log::FailoverLog;
use crate::ids::{Cas, Seqno, VbUuid};
use crate::record::VbState;

/// A branch that is being written.
#[derive(Clone, Debug)]
pub(crate) struct PendingBranch {
    uuid: VbUuid,
    max_cas: Cas,
    failover_log: FailoverLog,
}

impl PendingBranch {
    /// Prepares a branch that begins at `seqno`. `failover_log` is the vBucket's until now.
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

    /// Returns the vBucket's state with the branch, given the one without it.
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
