//! What vbstore measures about itself, and how Prometheus gets it.
//!
//! An engine is handed an [`EngineMetrics`] and keeps it up to date; whoever holds a clone reads it.
//! There is no global state. Everything that opens and closes is counted by a guard, so that a leak
//! shows as a number. What can be read from the engine's own tables is counted nowhere: a
//! [`SampleSource`] reads it when it is asked, for a scrape ([`Telemetry`]) or as plain data
//! ([`MetricsSnapshot`]). All names are in [`names`].

mod collector;
mod counter;
mod db_snapshots;
mod groups;
mod histogram;
mod metric;
pub mod names;
mod snapshot;
mod table;

pub use collector::{AlreadyRegistered, Registration, SampleSource, Telemetry, render};
pub use counter::Counter;
pub use db_snapshots::{
    ClockFn, DbSnapshotGuard, DbSnapshots, HOLD_BOUNDS_MICROS, HOLD_LIMIT, Holder, LongHold,
    WaitedFn,
};
pub use groups::{
    ByDurability, BySource, Failures, Operations, Reads, Refusals, Rollbacks, Slices, StreamEnds,
};
pub use histogram::{BYTES_BOUNDS, Histogram, ITEMS_BOUNDS, LATENCY_BOUNDS_MICROS};
pub use names::{EngineMetrics, StreamCounters};
pub use prometheus::{Registry, TEXT_FORMAT};
pub use snapshot::{Bucket, Family, Figure, MetricsSnapshot, Pair, Sample, Text, number, u64_from};
pub use table::Instrument;
