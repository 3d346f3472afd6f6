//! Streams of vbstore: a consumer follows the changes of a vBucket from any seqno.
//!
//! A stream reads from memory through a *cursor* in the checkpoints as long as it can. When it
//! cannot, it reads from disk through a *backfill*. A backfill reads one slice per invocation,
//! through a db snapshot that lives inside one function call. A slow consumer therefore costs disk
//! reads, but never memory, disk space or writers' time.
//!
//! Imports run in one direction, down this table:
//!
//! | module | contents |
//! |---|---|
//! | `streams` | the program's handle: creates consumers |
//! | `consumer` | opens streams and takes events |
//! | `samples` | metrics for scrapes and `metrics_snapshot` |
//! | `workers` | the threads: plan, read, finish; stopping |
//! | `watchdog`, `registry` | detection of consumers that take nothing |
//! | `schedule` | which backfill runs next: `queues` (pure state), and the lock around it |
//! | `backfill` | the part of a stream that reads from disk, and the slice law |
//! | `delivery` | batches, buffers, reading from memory, the mailbox |
//! | `stats`, `stream` | plain data: identity, options, events, metrics |

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

pub use config::{BackfillOrder, ConsumerConfig, StreamsConfig};
pub use consumer::{Consumer, TryRecv};
pub use delivery::EventBatch;
pub use stats::{StreamStats, StreamsStats};
pub use stream::{
    EndReason, Event, OpenOutcome, Positions, StreamEvent, StreamItem, StreamOptions,
    StreamRequest, StreamState,
};
pub use streams::Streams;
pub use vbstore_metrics::StreamCounters;
