//! The mailbox: where the streams of a consumer meet its reader.
//!
//! # Protocol
//! A stream is in the mailbox from its opening until its `End` is taken. Its state is its
//! [`EventSource`]:
//! ```text
//! Disk(backfill) -> Memory -> Disk(another backfill)    a cursor was dropped
//! Disk, Memory, Paused -> Ended                         removed with the End
//! Disk, Memory, Ended(ReachedEnd) -> Paused             its consumer takes nothing
//! Paused -> Disk | Memory                               its reader returns
//! ```
//! - Workers deliver the batches of each stream in order. A delivery names the backfill that read
//!   it, and is dropped unless that backfill is the stream's current source. So nothing is
//!   delivered twice, and nothing after an end.
//! - A stream that has joined memory leaves its [`Tail`] here. The reader takes the tail out, reads
//!   with it, and puts it back together with the batch that it read. So a tail has one user at a
//!   time, and a stream that was ended meanwhile delivers nothing more. A stream is read from
//!   memory only when none of its batches waits, since those changes come first.
//! - An end is recorded once, as the source `Ended`, by the reader, a worker or the watchdog,
//!   whichever finds it first. It is delivered last, and taking it removes the stream. Until then,
//!   no other stream of the vBucket can be opened.
//! - The batch whose events the reader takes one by one stays here, in `current`, so that it can be
//!   dropped like the waiting ones.
//!
//! A stream is registered as a reader of its vBucket from its admission until its `End` is taken.
//! That includes the time while it is paused, or while its end waits to be taken. Its buffered
//! batches may be dropped; the stream then reads again from the position that was taken. A stream
//! that is ended from outside (closed or stalled) reads nothing more. It is unregistered
//! immediately, since its consumer may never take the end. Only the mailbox holds the guard, so a
//! batch that the program keeps does not keep the stream registered.
//!
//! A wake-up of a stream that reads from memory adds the stream to the queue `memory`. The tail is
//! put back *before* its watch is registered, and a watch that is already fulfilled counts as
//! fired. So the stream is in that queue whenever there may be something to read.
//!
//! # Locks
//! The order is `state` before `current`. Both are leaves: while one is held, nothing is called,
//! woken or dropped that takes another lock. Whatever is taken out is dropped after the lock is
//! released.

mod lifecycle;
mod reader;
mod state;
mod summary;
mod waker;

pub(crate) use lifecycle::NextSource;
pub(crate) use reader::ReaderFinding;
pub(crate) use state::Mailbox;
pub(crate) use summary::{SourceKind, StreamSummary};
pub(crate) use waker::TailWaker;

#[cfg(test)]
mod tests;
