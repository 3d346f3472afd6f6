//! Streams of vbstore: following the changes of a vBucket from any seqno.
//!
//! A stream reads from memory when it can, by a *cursor* in the checkpoints, and from disk when it
//! must, by a *backfill*: one slice an invocation, each with a db snapshot that lives inside one
//! function call. A consumer that is slow costs disk reads, never memory, disk space or a writer's
//! time.
//!
//! Imports run one way, down this table:
//!
//! | module | what it holds |
//! |---|---|
//! | `streams` | the handle of a program: makes consumers |
//! | `consumer` | opening streams and taking events |
//! | `samples` | figures for scrapes and `metrics_snapshot` |
//! | `workers` | the threads: plan, read, finish; stopping |
//! | `watchdog`, `registry` | consumers that take nothing |
//! | `schedule` | which backfill runs next: `queues`, pure state, and the lock around it |
//! | `backfill` | the part of a stream that reads from disk, and the slice law |
//! | `delivery` | batches, buffers, reading from memory, the mailbox |
//! | `stats`, `stream` | plain data: identity, options, events, figures |

mod backfill;
mod config;
mod consumer;
mod delivery;
mod registry;
mod samples;
mod schedule;
mod stats;
mod stream;
mod streams;
mod watchdog;
mod workers;

pub use config::{ConsumerConfig, Order, StreamsConfig};
pub use consumer::{Consumer, TryRecv};
pub use delivery::Batch;
pub use stats::{StreamStats, StreamsStats};
pub use stream::{
    EndReason, Event, Opened, Positions, StreamEvent, StreamItem, StreamOptions, StreamRequest,
    StreamState,
};
pub use streams::Streams;
pub use vbstore_metrics::StreamCounters;
