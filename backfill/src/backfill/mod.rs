//! A backfill: the part of a stream that reads from disk, one slice an invocation.
//!
//! # The slice law: the order of its steps
//! An invocation is a *plan*, a *read* and a *finish*. One read serves the plans of several backfills
//! through one db snapshot, so that a consumer of many small vBuckets does not open one for each.
//! 1. Plan: what must be waited for comes first, and waiting is returning: a slice in hand that is not
//!    synced yet; a view that would end below what was announced; room in the consumer's buffer.
//!    (The permit to run was given by the scheduler with the invocation itself. A range to be held
//!    would be registered here.) What is left is an [`Ask`], with its charge.
//! 2. Read: the db snapshot is opened, the ranges are scanned up to their budgets, iterators and
//!    snapshot are dropped: all inside [`vbstore_engine::Engine::scan`], in which nothing waits, sends
//!    or calls back.
//! 3. Finish: what the view held besides is checked: branch, purge seqno, its end.
//! 4. If the slice reached the end of its view, the stream's cursor is registered right after it: its
//!    lag at birth is the time of one read.
//! 5. If the view held what is not synced, a sync is asked for and the slice stays in hand; nothing
//!    of it is delivered before that sync, and nothing ever if it fails. It cannot be cut shorter: it
//!    has lost what the unsynced batch replaced.
//! 6. The marker goes first, then the items.
//!
//! Between two invocations a backfill holds no db snapshot, no iterator and no permit.

mod divergence;
mod finish;
mod plan;
mod shared_slices;
mod task;

pub(crate) use plan::{Planned, share_out};
pub(crate) use shared_slices::SharedSlices;
pub(crate) use task::{Backfill, Context, Lifeline, Outcome, Scheduler};
