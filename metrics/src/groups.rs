//! Groups of counters or histograms, one for each value of a label.

use crate::counter::Counter;
use crate::histogram::Histogram;
use crate::table::group;

group! {
    /// Operations started, by kind.
    pub struct Operations: Counter, by "op" {
        /// Reads of keys. A read of several keys counts each of them.
        gets = "get",
        /// Writes. A batch counts once.
        writes = "write",
        /// Pages read in key order.
        pages = "page",
        /// Slices in seqno order that the program read.
        slices = "slice",
    }
}

group! {
    /// Durations of reads, by kind.
    pub struct Reads: Histogram, by "op" {
        /// Reads of a key. One read in 16 is timed.
        get = "get",
        /// Reads of a page in key order.
        page = "page",
        /// Reads of a slice in seqno order by the program.
        slice = "slice",
    }
}

group! {
    /// Refused writes, by reason. A write whose condition (CAS, add, replace) fails does not count.
    pub struct Refusals: Counter, by "reason" {
        /// The memory quota was used up, and no memory was freed in the time allowed.
        memory = "memory",
        /// The disk was full.
        disk_full = "disk_full",
        /// The engine had failed.
        failed = "failed",
        /// A key, value or batch was too large.
        too_large = "too_large",
        /// The vBucket had failed: its changes cannot be written to disk.
        vb_failed = "vb_failed",
        /// The document that the write replaces could not be read.
        unreadable = "unreadable",
    }
}

group! {
    /// Durations of waits for durability, by level.
    pub struct ByDurability: Histogram, by "durability" {
        /// Waits until a change is in memory.
        memory = "memory",
        /// Waits until a change is in RocksDB's log.
        logged = "logged",
        /// Waits until a change is synced.
        synced = "synced",
    }
}

group! {
    /// Failed writes to disk, by cause.
    pub struct Failures: Counter, by "reason" {
        /// The disk was full.
        disk_full = "disk_full",
        /// The file system returned another error.
        io = "io",
        /// RocksDB reported corruption.
        corruption = "corruption",
        /// Any other cause, including a panic.
        other = "other",
    }
}

impl Failures {
    /// Returns the number of failures with any cause.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.each().map(|(_, counter)| counter.get()).sum()
    }
}

group! {
    /// Ended streams, by reason.
    pub struct StreamEnds: Counter, by "reason" {
        /// The stream reached the requested end.
        reached_end = "reached_end",
        /// The consumer closed the stream.
        closed = "closed",
        /// The consumer has to roll back first.
        rollback = "rollback",
        /// The consumer took nothing for the stall limit while the disk was short of space.
        stalled = "stalled",
        /// The vBucket was deleted.
        vbucket_gone = "vbucket_gone",
        /// An error ended the stream.
        error = "error",
        /// The engine was closed.
        shutdown = "shutdown",
        /// The stream was never opened, because too many backfills were pending.
        refused = "refused",
    }
}

group! {
    /// Requests answered with a rollback, by reason.
    pub struct Rollbacks: Counter, by "reason" {
        /// Tombstones above the position have been purged.
        purged = "purged",
        /// The vBucket's failover log does not contain the consumer's branch.
        unknown_branch = "unknown_branch",
        /// The consumer has changes of its branch that the vBucket does not have.
        diverged = "diverged",
        /// The position was reached with another filter.
        filter_changed = "filter_changed",
    }
}

group! {
    /// Slices read for streams, by why they ended.
    pub struct Slices: Counter, by "end" {
        /// The slice reached the end of its view.
        complete = "complete",
        /// The slice used up its budget.
        budget = "budget",
    }
}

group! {
    /// Changes or bytes read for streams, by source.
    pub struct BySource: Counter, by "source" {
        /// Read from disk.
        disk = "disk",
        /// Read from memory.
        memory = "memory",
    }
}
