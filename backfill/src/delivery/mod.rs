//! Delivery of events to the consumer: batches, buffers, reading from memory, and the mailbox that
//! workers and reader share.

mod batch;
mod buffers;
mod choose;
mod mailbox;
mod tail;

pub(crate) use buffers::{AWAKE_FOR, Buffers, Charge, RoomWaker};
pub(crate) use choose::{SelectedChanges, choose};
pub(crate) use mailbox::{
    Mailbox, NextSource, ReaderFinding, SourceKind, StreamSummary, TailWaker,
};
pub(crate) use tail::{BATCH_BYTES, PullOutcome, ReadState, Tail, WatchGuard};

pub use batch::EventBatch;
