//! Backfills: the part of a stream that reads from disk, one slice per invocation.
//!
//! # The slice law: the order of the steps
//! An invocation consists of a *plan*, a *read* and a *finish*. One read serves the plans of
//! several backfills through one db snapshot, so that a consumer of many small vBuckets does not
//! open a db snapshot for each.
//! 1. Plan: the backfill first checks everything that it may have to wait for. It waits by
//!    returning, never by blocking. It waits for the sync of a slice in hand, for a view that
//!    reaches the announced end, and for room in the consumer's buffer. (The scheduler granted the
//!    permit to run together with the invocation. A seqno range to be protected from removal would
//!    be registered here.) The result is a [`SliceRequest`] with its buffer charge.
//! 2. Read: the db snapshot is opened, the ranges are scanned up to their budgets, and iterators
//!    and db snapshot are dropped. All of this happens inside [`vbstore_engine::Engine::scan`],
//!    which never waits, sends or calls back.
//! 3. Finish: the metadata of the view is checked: its branch, its purge seqno and its end.
//! 4. If the slice reached the end of its view, the stream's cursor is registered immediately, so
//!    that its initial lag is only the time of one read.
//! 5. If the view held unsynced changes, a sync is requested, and the slice stays in hand until the
//!    sync is done. If the sync fails, the slice is never delivered. It cannot be truncated to its
//!    synced part, because the changes that the unsynced batch replaced are missing from it.
//! 6. The marker is delivered first, then the items.
//!
//! Between two invocations a backfill holds no db snapshot, no iterator and no permit.
//!
//! [`SliceRequest`]: vbstore_engine::SliceRequest

mod divergence;
mod finish;
mod plan;
mod shared_slices;
mod task;

pub(crate) use plan::{PlanOutcome, distribute_charge};
pub(crate) use shared_slices::SharedSlices;
pub(crate) use task::{Backfill, BackfillContext, BackfillOutcome, BackfillScheduler, EndOnPanic};
