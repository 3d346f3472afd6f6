//! Background tasks: a named thread each, or stepped by hand.
//!
//! A task is a function that does what is due and says when it wants to be called next. It never
//! sleeps and never waits for another task. A panic in it fails the engine and ends its thread.
//!
//! Stop order, written here because closing depends on it: all threads are told to stop and joined
//! *before* the close takes the lead for the last flush, so that nothing runs beside it.

mod compactor;
mod directory_watcher;
mod flusher;
mod pacer;
mod retry;
mod syncer;
mod task;
mod threads;
mod witness_syncer;

pub use task::BackgroundTask;
pub(crate) use threads::start;
