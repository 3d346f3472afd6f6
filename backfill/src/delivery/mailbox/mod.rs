//! Where the streams of a consumer meet its reader.
//!
//! # Protocol
//! A stream is in the mailbox from its opening until its `End` is taken. What it is doing is its
//! [`Source`]:
//! ```text
//! Disk(backfill) -> Memory -> Disk(another backfill)    a cursor was dropped
//! Disk, Memory, Paused -> Ended                         taken out with the End
//! Disk, Memory, Ended(ReachedEnd) -> Paused             its consumer takes nothing
//! Paused -> Disk | Memory                               its reader comes back
//! ```
//! - Workers deliver batches, in the order of each stream. What they deliver names the backfill that
//!   read it, and is dropped unless that is the stream's present source: so nothing comes twice, and
//!   nothing comes after an end.
//! - A stream that has joined memory leaves its [`Tail`] here. The reader takes it out, reads with it,
//!   and puts it back together with what it read: so it has one user at a time, and a stream that was
//!   ended meanwhile delivers nothing any more. A stream in memory is read only when none of its
//!   batches waits: its changes come after them.
//! - An end is noted once, as the source `Ended`, by the first of reader, worker and watchdog that finds
//!   it; it is delivered last, and taking it takes the stream out. Until then no other stream of its vBucket can be opened.
//! - The batch whose events the reader takes one by one stays here, in `taking`, so that it can be
//!   dropped as well as those that wait.
//!
//! A stream is registered as a reader of its vBucket from its admission until its `End` is taken, also
//! while it is paused or has an end that was not taken: what it buffered may be dropped, and is read again
//! from what was taken. One that is ended from outside (closed, or stalled) reads nothing any more, and
//! leaves at once, since its consumer may never come for the end. The guard lies beside the stream here,
//! and in nothing that a program can keep.
//!
//! A wake-up of a stream in memory puts it into `memory`. The tail is put back *before* its watch is
//! registered, and a watch that is fulfilled already counts as fired: so the stream is there whenever
//! there may be something to read.
//!
//! # Locks
//! `state` before `taking`. Both are leaves: nothing that takes another lock is called, woken or
//! dropped while one is held. What is taken out is dropped after the lock is released.

mod lifecycle;
mod look;
mod reader;
mod state;
mod waker;

pub(crate) use lifecycle::Next;
pub(crate) use look::{Seen, SeenSource};
pub(crate) use reader::Found;
pub(crate) use state::Mailbox;
pub(crate) use waker::NewsWaker;

#[cfg(test)]
mod tests;
