//! Delivery of what was read to the consumer: batches, buffers, and the mailbox that workers and
//! reader share.

mod batch;
mod buffers;
mod choose;
mod mailbox;
mod tail;

pub(crate) use buffers::{AWAKE_FOR, Buffers, Charge, OnRoom};
pub(crate) use choose::{Chosen, choose};
pub(crate) use mailbox::{Found, Mailbox, NewsWaker, Next, Seen, SeenSource};
pub(crate) use tail::{BATCH_BYTES, Pulled, Reading, Tail, Watcher};

pub use batch::Batch;
