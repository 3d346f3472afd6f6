//! Metrics of a vbstore engine, and their export to Prometheus.
//!
//! An engine updates its [`EngineMetrics`]; there is no global state. Resources that are opened and
//! closed are counted by guards, so that a leak shows up as a value that does not return to zero.
//! State that can be read from the engine's own tables has no counter: a [`SampleSource`] reads the
//! tables on demand, either for a scrape ([`Telemetry`]) or as plain data ([`MetricsSnapshot`]).
//! [`names`] lists every metric.

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
    ClockFn, DbSnapshotGuard, DbSnapshotHolder, DbSnapshots, HOLD_BOUNDS_MICROS, HOLD_LIMIT,
    LongHold, WaitedFn,
};
pub use groups::{
    ByDurability, BySource, Failures, Operations, Reads, Refusals, Rollbacks, Slices, StreamEnds,
};
pub use histogram::{BYTES_BOUNDS, Histogram, ITEMS_BOUNDS, LATENCY_BOUNDS_MICROS};
pub use names::{EngineMetrics, StreamCounters};
pub use prometheus::{Registry, TEXT_FORMAT};
pub use snapshot::{
    HistogramBucket, LabelPair, MetricFamily, MetricText, MetricsSnapshot, Sample, SampleValue,
    number, u64_from,
};
pub use table::Instrument;
