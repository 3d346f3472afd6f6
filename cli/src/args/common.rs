//! Arguments that several commands share.

use clap::{Args as ClapArgs, ValueEnum};
use vbstore::Durability;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Flushed within 100 ms, synced within 1 s.
    Memory,
    /// Survives a kill of the process; synced within 1 s.
    Logged,
    /// Survives a power failure.
    Synced,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Self {
        match arg {
            DurabilityArg::Memory => Self::Memory,
            DurabilityArg::Logged => Self::Logged,
            DurabilityArg::Synced => Self::Synced,
        }
    }
}

/// How a store is opened by a command that only reads.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct ReadOnlyArgs {
    /// Open the store read-only: nothing is written to its directory.
    ///
    /// Any number of programs can have a store open read-only at the same time. Works on a full
    /// disk and on a read-only file system. On a full disk, stores are opened read-only even
    /// without this option.
    #[arg(long)]
    pub(crate) read_only: bool,
}
