//! What vbstore counts about itself.
//!
//! An engine is handed an [`EngineMetrics`] and keeps it up to date; whoever holds a clone reads
//! it. There is no global state. Everything that opens and closes is counted by a guard, so that a
//! leak shows as a number.

mod counters;
mod db_snapshots;

pub use counters::{Counter, EngineMetrics};
pub use db_snapshots::{
    ClockFn, DbSnapshotGuard, DbSnapshots, HOLD_BOUNDS_MICROS, Holder, LongHold, WaitedFn,
};
