//! The order of a consumer's backfills.

/// In which order a consumer's backfills run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// One slice each in turn.
    #[default]
    RoundRobin,
    /// One after another, each to its end. A stream that waits its turn holds nothing.
    Sequential,
}
