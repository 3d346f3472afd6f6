//! Group commit.
//!
//! The thread that needs a change on disk flushes the changes of all writers; [`committer`] has the
//! protocol. This module also contains the flush itself, syncs, tickets, the start of branches and
//! the deletion of vBuckets.

mod branch;
mod build;
mod committer;
mod delete;
mod demand;
mod dirty;
mod flush;
mod lead;
mod leaderless_sync;
#[cfg(feature = "testing")]
mod purge;
mod queue;
mod recovery;
mod retire;
mod sync_ledger;
mod syncs;
mod ticket;
mod wait_condition;

pub(crate) use branch::{Branches, reserved_at};
pub(crate) use committer::Committer;
pub(crate) use delete::Deleter;
pub(crate) use demand::Demand;
pub(crate) use dirty::DirtyList;
pub(crate) use flush::Flush;
pub(crate) use leaderless_sync::LeaderlessSync;
#[cfg(feature = "testing")]
pub(crate) use purge::Purger;
pub(crate) use recovery::MemoryRecovery;
pub(crate) use sync_ledger::SyncLedger;
pub(crate) use syncs::Syncs;
pub use ticket::Ticket;
pub(crate) use wait_condition::WaitCondition;
