//! Failpoints: places where a test can make an engine fail, panic, abort or wait.
//!
//! Each engine has a registry of its own, so that tests can run side by side. In an engine without
//! one, a place costs one comparison. This is for tests only; a program does not need it.

use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a test waits for a thread to arrive before it fails.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// The names of all places.
pub mod place {
    /// A write is about to look up on disk the changes that it replaces.
    pub const WRITE_LOOK_UP: &str = "write.look_up";
    /// A write has passed its checks, under the stripes of its keys, and has no seqno yet.
    pub const WRITE_ASSIGN: &str = "write.assign";
    /// A flush is about to look up keys on disk again, because their changes replace tombstones
    /// that may have been purged since.
    pub const FLUSH_LOOK_UP: &str = "flush.look_up";
    /// A flush has taken its checkpoints and has not built the batch yet.
    pub const FLUSH_BUILD: &str = "flush.build";
    /// The batch is built and not written yet.
    pub const FLUSH_WRITE: &str = "flush.write";
    /// The batch is written, and synced if a write asked for it. The witness does not record it
    /// yet.
    pub const FLUSH_WITNESS: &str = "flush.witness";
    /// The witness records the batch. The seqnos are not published yet.
    pub const FLUSH_PUBLISH: &str = "flush.publish";
    /// RocksDB's log is about to be synced without a batch.
    pub const SYNC: &str = "sync";
    /// A vBucket is about to be deleted.
    pub const DELETE_VBUCKET: &str = "delete_vbucket.write";
    /// A new store has its marker "creating" and no data.
    pub const CREATE_DB: &str = "create.db";
    /// A new store is complete, except that its marker still says "creating".
    pub const CREATE_READY: &str = "create.ready";
    /// An unclean stop or a copy was detected. Nothing is written about it yet, and no branch is
    /// due.
    pub const OPEN_BRANCH: &str = "open.branch";
    /// A store is about to be opened to read, and its log is about to be synced.
    pub const OPEN_SYNC: &str = "open.sync";
    /// The branches that are due in some vBuckets are about to be written.
    pub const BRANCH_WRITE: &str = "branch.write";
    /// These branches are written and synced, and not published yet. They have begun even if the
    /// step fails here.
    pub const BRANCH_PUBLISH: &str = "branch.publish";
    /// A stream is about to open a db snapshot.
    pub const SLICE_OPEN: &str = "slice.open";
    /// A stream has a db snapshot open.
    pub const SLICE_VIEW: &str = "slice.view";
    /// A page of a read in key order has a db snapshot open, and has found its first key.
    pub const PAGE_VIEW: &str = "page.view";
    /// A stream has released its db snapshot, and has not processed the slice yet.
    pub const SLICE_HAND_ON: &str = "slice.hand_on";
    /// A close has waited for all operations and is about to flush. If it fails here, the directory
    /// is as a kill at this moment would leave it.
    pub const CLOSE: &str = "close.flush";

    /// All places, in the order in which a store reaches them.
    pub const ALL: [&str; 20] = [
        CREATE_DB,
        CREATE_READY,
        OPEN_BRANCH,
        OPEN_SYNC,
        WRITE_LOOK_UP,
        BRANCH_WRITE,
        BRANCH_PUBLISH,
        WRITE_ASSIGN,
        FLUSH_BUILD,
        FLUSH_LOOK_UP,
        FLUSH_WRITE,
        FLUSH_WITNESS,
        FLUSH_PUBLISH,
        SYNC,
        DELETE_VBUCKET,
        SLICE_OPEN,
        SLICE_VIEW,
        PAGE_VIEW,
        SLICE_HAND_ON,
        CLOSE,
    ];
}

/// What happens when a thread reaches a place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// The step fails with this error.
    Fail(Error),
    /// The thread panics there.
    Panic,
    /// The process ends at once, as if it was killed.
    Abort,
    /// The thread waits there until the test lets it go on.
    Wait(Arc<Latch>),
}

/// Stops threads at a place until a test opens it.
#[derive(Debug, Default)]
pub struct Latch {
    state: Mutex<LatchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LatchState {
    arrived: usize,
    is_open: bool,
}

impl Latch {
    /// Blocks until a thread has arrived. Dropping the returned [`Arrival`] lets the thread go on,
    /// so that a test that fails meanwhile ends, instead of waiting for that thread.
    ///
    /// # Panics
    /// If no thread arrives within a minute.
    pub fn wait_for_arrival(&self) -> Arrival<'_> {
        let mut state = self.state.lock();
        let waited =
            self.changed
                .wait_while_for(&mut state, |state| state.arrived == 0, ARRIVAL_MAX);
        assert!(!waited.timed_out(), "no thread arrived within a minute");
        Arrival(self)
    }

    /// Lets every thread go on that waits here or arrives later.
    pub fn open(&self) {
        self.state.lock().is_open = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.arrived += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| !state.is_open);
    }
}

/// A thread that waits at a [`Latch`]. Dropping this lets it go on.
#[derive(Debug)]
#[must_use = "dropping it lets the waiting thread go on"]
pub struct Arrival<'a>(&'a Latch);

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[derive(Debug)]
struct ArmedFailpoint {
    action: Action,
    /// The number of hits that still pass without the action.
    skip: u64,
    /// The number of hits after those at which the action is still taken.
    times: u64,
}

/// The failpoints that an engine was built with, if any.
#[derive(Clone, Debug, Default)]
pub(crate) struct MaybeFailpoints(pub(crate) Option<Arc<Failpoints>>);

impl MaybeFailpoints {
    /// Passes a place, and takes the action that a test has set for it.
    ///
    /// # Errors
    /// The error of [`Action::Fail`].
    pub(crate) fn pass(&self, place: &'static str) -> Result<()> {
        self.0
            .as_ref()
            .map_or(Ok(()), |failpoints| failpoints.hit(place))
    }
}

/// The failpoints of one engine.
#[derive(Debug, Default)]
pub struct Failpoints {
    armed: Mutex<HashMap<&'static str, ArmedFailpoint>>,
    hits: Mutex<HashMap<&'static str, u64>>,
}

impl Failpoints {
    /// Takes `action` once, at the next hit of `place`.
    pub fn once(&self, place: &'static str, action: Action) {
        self.nth(place, 0, 1, action);
    }

    /// Lets `skip` hits of `place` pass, and takes `action` at the next `times` hits.
    pub fn nth(&self, place: &'static str, skip: u64, times: u64, action: Action) {
        self.armed.lock().insert(
            place,
            ArmedFailpoint {
                action,
                skip,
                times,
            },
        );
    }

    /// Removes the action set for `place`.
    pub fn clear(&self, place: &'static str) {
        self.armed.lock().remove(place);
    }

    /// Returns how often a thread has reached `place`.
    #[must_use]
    pub fn hits(&self, place: &'static str) -> u64 {
        self.hits.lock().get(place).copied().unwrap_or(0)
    }

    #[expect(clippy::panic, reason = "a test asks for the panic")]
    fn hit(&self, place: &'static str) -> Result<()> {
        let mut hits = self.hits.lock();
        let count = hits.entry(place).or_insert(0);
        *count += 1;
        drop(hits);

        // Cloned, so that the lock is not held while the action waits or panics.
        let action = {
            let mut armed = self.armed.lock();
            match armed.get_mut(place) {
                None => return Ok(()),
                Some(armed) if armed.skip > 0 => {
                    armed.skip -= 1;
                    return Ok(());
                }
                Some(armed) if armed.times == 0 => return Ok(()),
                Some(armed) => {
                    armed.times -= 1;
                    armed.action.clone()
                }
            }
        };
        match action {
            Action::Fail(error) => Err(error),
            Action::Panic => panic!("failpoint {place}"),
            Action::Abort => std::process::abort(),
            Action::Wait(latch) => {
                latch.pass();
                Ok(())
            }
        }
    }
}
