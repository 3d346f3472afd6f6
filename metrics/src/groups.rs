//! What is counted apart by the values of a label.

use crate::counter::Counter;
use crate::histogram::Histogram;
use crate::table::group;

group! {
    /// Operations begun, by kind.
    pub struct Operations: Counter, by "op" {
        /// Reads of keys; of many at once each counts.
        gets = "get",
        /// Writes; a batch is one.
        writes = "write",
        /// Pages in key order.
        pages = "page",
        /// Slices in seqno order, read by a caller.
        slices = "slice",
    }
}

group! {
    /// How long reads took, by kind.
    pub struct Reads: Histogram, by "op" {
        /// A key; one read in 16 is timed.
        get = "get",
        /// A page in key order.
        page = "page",
        /// A slice in seqno order, read by a caller.
        slice = "slice",
    }
}

group! {
    /// Writes refused for a reason that is not their condition.
    pub struct Refusals: Counter, by "reason" {
        /// Memory was at its quota for the time allowed.
        memory = "memory",
        /// The disk is full.
        disk_full = "disk_full",
        /// The engine has failed.
        failed = "failed",
        /// A key, value or batch is too large.
        too_large = "too_large",
        /// The store was opened with `Builder::read_only`.
        read_only = "read_only",
    }
}

group! {
    /// Waits by what was waited for.
    pub struct ByDurability: Histogram, by "durability" {
        /// To be in memory.
        memory = "memory",
        /// To be in RocksDB's log.
        logged = "logged",
        /// To be synced.
        synced = "synced",
    }
}

group! {
    /// Writes to disk that failed, by why.
    pub struct Failures: Counter, by "reason" {
        /// No space.
        disk_full = "disk_full",
        /// Another error of the file system.
        io = "io",
        /// Corrupt data.
        corruption = "corruption",
        /// Anything else, a panic included.
        other = "other",
    }
}

impl Failures {
    /// Returns how many there were.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.each().map(|(_, counter)| counter.get()).sum()
    }
}

group! {
    /// Streams ended, by reason.
    pub struct StreamEnds: Counter, by "reason" {
        /// The end that was asked for is reached.
        reached_end = "reached_end",
        /// The consumer closed it.
        closed = "closed",
        /// The consumer must first go back.
        rollback = "rollback",
        /// The consumer took nothing for the stall limit, and the disk is short.
        stalled = "stalled",
        /// The vBucket was deleted.
        vbucket_gone = "vbucket_gone",
        /// Something failed.
        error = "error",
        /// The engine was closed.
        shutdown = "shutdown",
        /// Never begun: too many backfills wait.
        refused = "refused",
    }
}

group! {
    /// Rollbacks answered, by reason.
    pub struct Rollbacks: Counter, by "reason" {
        /// Tombstones above the position were removed for good.
        purged = "purged",
        /// The consumer follows a branch that the vBucket does not know.
        unknown_branch = "unknown_branch",
        /// The consumer has changes of its branch that the vBucket has not.
        diverged = "diverged",
        /// Its position was reached with another filter.
        filter_changed = "filter_changed",
    }
}

group! {
    /// Slices read, by why they ended.
    pub struct Slices: Counter, by "end" {
        /// Up to the end of their view.
        complete = "complete",
        /// Up to their budget.
        budget = "budget",
    }
}

group! {
    /// What was handed on, by where it was read.
    pub struct BySource: Counter, by "source" {
        /// From disk.
        disk = "disk",
        /// From memory.
        memory = "memory",
    }
}
