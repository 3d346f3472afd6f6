//! How durable a change is before its write returns.

/// How durable a change is before its write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In memory: lost if the process dies before the next flush ([`crate::Tuning::flush_interval`]).
    Memory,
    /// In RocksDB's log, handed to the operating system: survives the process, but not a power
    /// cut before the next sync ([`crate::Tuning::sync_interval`]).
    Logged,
    /// In RocksDB's log and synced: survives a power cut.
    Synced,
}
