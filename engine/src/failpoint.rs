//! Places where a test can make an engine fail, stop or wait.
//!
//! A registry belongs to one engine, so that tests run side by side. An engine that was given none
//! pays one branch a place. This is a seam for tests; a program has no use for it.

use crate::error::{Error, Result};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a gate waits for somebody to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// Every place there is.
pub mod place {
    /// A write is about to look up on disk what its changes replace.
    pub const WRITE_LOOK_UP: &str = "write.look_up";
    /// A write has been admitted under its keys' stripes and has no seqno yet.
    pub const WRITE_ASSIGN: &str = "write.assign";
    /// A flush is about to look up on disk what some changes of a vBucket replace: deletions that were
    /// removed for good since.
    pub const FLUSH_LOOK_UP: &str = "flush.look_up";
    /// A flush has taken its checkpoints and has not yet built the batch.
    pub const FLUSH_BUILD: &str = "flush.build";
    /// The batch is built and not yet written.
    pub const FLUSH_WRITE: &str = "flush.write";
    /// The batch is written, and synced if that was asked for; the witness does not know it.
    pub const FLUSH_WITNESS: &str = "flush.witness";
    /// The witness knows the batch; nobody has been told.
    pub const FLUSH_PUBLISH: &str = "flush.publish";
    /// RocksDB's log is about to be synced without a batch.
    pub const SYNC: &str = "sync";
    /// A vBucket is about to be deleted.
    pub const DELETE_VBUCKET: &str = "delete_vbucket.write";
    /// A new store has its marker "creating" and no data.
    pub const CREATE_DB: &str = "create.db";
    /// A new store is complete but for its marker.
    pub const CREATE_READY: &str = "create.ready";
    /// An unclean stop, or a copy, was found, and nothing is written of it: no branch is due yet.
    pub const OPEN_BRANCH: &str = "open.branch";
    /// A store is about to be opened to read, and its log to be synced.
    pub const OPEN_SYNC: &str = "open.sync";
    /// The branches that are due in some vBuckets are about to be written.
    pub const BRANCH_WRITE: &str = "branch.write";
    /// They are written and synced, and nobody has been told. Failing here keeps none of them from having
    /// begun.
    pub const BRANCH_PUBLISH: &str = "branch.publish";
    /// A stream is about to open a view of the disk.
    pub const SLICE_OPEN: &str = "slice.open";
    /// A stream has a view of the disk open.
    pub const SLICE_VIEW: &str = "slice.view";
    /// A page of a read in key order has a view of the disk open, and has found its first key.
    pub const PAGE_VIEW: &str = "page.view";
    /// A stream has given its view back and has not yet handed on what it read.
    pub const SLICE_HAND_ON: &str = "slice.hand_on";
    /// A close has waited for everybody and is about to flush. Failing here leaves what a kill at
    /// this moment would leave.
    pub const CLOSE: &str = "close.flush";

    /// All of them, in the order in which a store meets them.
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

/// What happens at a place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// The step fails with this error.
    Fail(Error),
    /// The thread panics.
    Panic,
    /// The process ends at once, as if it had been killed.
    Abort,
    /// The thread waits until the gate is opened.
    Wait(Arc<Gate>),
}

/// Holds threads up until it is opened.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    arrived: usize,
    is_open: bool,
}

impl Gate {
    /// Blocks until a thread has arrived. What is returned opens the gate when it is dropped, so that
    /// a test that fails meanwhile fails, and does not wait for ever for the thread at the gate.
    ///
    /// # Panics
    /// When none arrives within a minute: whoever was to come sleeps.
    pub fn wait_for_arrival(&self) -> Arrival<'_> {
        let mut state = self.state.lock();
        let waited =
            self.changed
                .wait_while_for(&mut state, |state| state.arrived == 0, ARRIVAL_MAX);
        assert!(!waited.timed_out(), "no thread arrives at the gate");
        Arrival(self)
    }

    /// Lets everyone through, now and later.
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

/// A thread waits at a gate, which opens when this is dropped.
#[derive(Debug)]
#[must_use = "the gate opens when it is dropped"]
pub struct Arrival<'a>(&'a Gate);

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[derive(Debug)]
struct Armed {
    action: Action,
    /// Hits that pass before the action is taken.
    skip: u64,
    /// Hits at which it is taken.
    times: u64,
}

/// The failpoints that an engine was given, or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct MaybeFailpoints(pub(crate) Option<Arc<Failpoints>>);

impl MaybeFailpoints {
    /// Passes a place: whatever a test planted there happens.
    pub(crate) fn pass(&self, place: &'static str) -> Result<()> {
        self.0
            .as_ref()
            .map_or(Ok(()), |failpoints| failpoints.hit(place))
    }
}

/// The failpoints of one engine.
#[derive(Debug, Default)]
pub struct Failpoints {
    armed: Mutex<HashMap<&'static str, Armed>>,
    hits: Mutex<HashMap<&'static str, u64>>,
}

impl Failpoints {
    /// Takes `action` at the next hit of `place`, once.
    pub fn once(&self, place: &'static str, action: Action) {
        self.nth(place, 0, 1, action);
    }

    /// Lets `skip` hits of `place` pass and takes `action` at the `times` hits after them.
    pub fn nth(&self, place: &'static str, skip: u64, times: u64, action: Action) {
        self.armed.lock().insert(
            place,
            Armed {
                action,
                skip,
                times,
            },
        );
    }

    /// Takes no action at `place` any more.
    pub fn clear(&self, place: &'static str) {
        self.armed.lock().remove(place);
    }

    /// Returns how often `place` was reached.
    #[must_use]
    pub fn hits(&self, place: &'static str) -> u64 {
        self.hits.lock().get(place).copied().unwrap_or(0)
    }

    #[expect(clippy::panic, reason = "a test asked for it")]
    fn hit(&self, place: &'static str) -> Result<()> {
        let mut hits = self.hits.lock();
        let count = hits.entry(place).or_insert(0);
        *count += 1;
        drop(hits);

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
            Action::Wait(gate) => {
                gate.pass();
                Ok(())
            }
        }
    }
}
