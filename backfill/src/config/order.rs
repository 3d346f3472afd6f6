//! The order in which a consumer's backfills run.

/// The order in which a consumer's backfills run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BackfillOrder {
    /// The backfills take turns, one slice each.
    #[default]
    RoundRobin,
    /// Each backfill runs to its end before the next one begins. A waiting one holds no resources.
    Sequential,
}
