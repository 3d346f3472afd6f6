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
