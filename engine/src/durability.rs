//! The levels of durability that a write can ask for.

use vbstore_metrics::ByDurability;

/// The durability that a change has when its write returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In memory: lost if the process dies before the next flush
    /// ([`crate::Tuning::flush_interval`]).
    Memory,
    /// In RocksDB's log, and handed to the operating system. Survives the end of the process, but
    /// not a power cut before the next sync ([`crate::Tuning::sync_interval`]).
    Logged,
    /// In RocksDB's log, and synced to the disk: survives a power cut.
    Synced,
}

const _: () = assert!(
    ByDurability::LABEL.is_of(&[
        Durability::Memory.name(),
        Durability::Logged.name(),
        Durability::Synced.name(),
    ]),
    "the label of the metric has other durabilities"
);

impl Durability {
    /// All levels, from the least to the most durable.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Logged, Self::Synced];

    /// Returns the name used in output, in commands and as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Logged => "logged",
            Self::Synced => "synced",
        }
    }

    /// Returns the level with this name, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}
