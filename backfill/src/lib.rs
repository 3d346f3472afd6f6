//! Streams of vbstore: following the changes of a vBucket from any seqno.
//!
//! A stream reads from memory when it can, by a *cursor* in the checkpoints, and from disk when it
//! must, by a *backfill*: one slice an invocation, each with a db snapshot that lives inside one
//! function call. A consumer that is slow costs disk reads, never memory, disk space or a writer's
//! time.
//!
//! | module | what it holds |
//! |---|---|
//! | `streams` | the handle: workers, watchdog, consumers |
//! | `consumer` | opening streams and taking events |
//! | `request`, `event`, `batch` | what goes in and what comes out |
//! | `task` | a backfill and the slice law |
//! | `tail` | reading from memory |
//! | `inbox` | where workers and a consumer's reader meet |
//! | `scheduler` | which backfill runs next |
//! | `account` | how much may be buffered |
//! | `shared_slices` | slices that serve more than one stream |

mod account;
mod batch;
mod config;
mod consumer;
mod event;
mod inbox;
mod request;
mod samples;
mod scheduler;
mod shared_slices;
mod stats;
mod stream;
mod streams;
mod tail;
mod task;

pub use batch::Batch;
pub use config::{ConsumerConfig, Order, StreamsConfig};
pub use consumer::{Consumer, TryRecv};
pub use event::{EndReason, Event, StreamEvent, StreamItem};
pub use request::{Opened, Positions, StreamOptions, StreamRequest};
pub use stats::{StreamCounters, StreamStats, StreamsStats};
pub use stream::StreamState;
pub use streams::Streams;
