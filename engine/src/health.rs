//! The health of an engine: whether it takes writes, and why not.
//!
//! ```text
//! Open -> Degraded (disk full) -> Open        by itself, once a flush succeeds again
//! Open, Degraded -> Failed (other errors)     until the store is opened again
//! ReadOnly                                    from the open to the close
//! ```
//! The first cause of a failure is kept. Later failures, which may follow from it, do not replace
//! it.

use crate::deferred::DeferredWork;
use crate::error::{Cause, Error, Result};
use crate::signals::TaskSignals;
use crate::vbuckets::VBuckets;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::EngineMetrics;

/// Whether the engine takes writes. Reads work in every state.
#[derive(Clone, Debug)]
pub enum HealthState {
    /// The engine takes writes.
    Open,
    /// The disk is full. The engine refuses writes until there is space, and then takes them again
    /// by itself.
    Degraded {
        /// The first error, with the system's message.
        cause: Cause,
    },
    /// A write or a sync failed, or the engine panicked. The engine refuses writes until the store
    /// is opened again.
    Failed {
        /// The first failure.
        cause: Cause,
    },
    /// The store was opened with [`crate::Builder::read_only`]. The engine refuses writes.
    ReadOnly {
        /// A text that names that setting.
        cause: Cause,
    },
}

impl HealthState {
    /// The names of all states.
    pub const NAMES: [&'static str; 4] = ["open", "degraded", "failed", "read_only"];

    /// Returns the name used in output and as a metric label, one of [`Self::NAMES`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        let [open, degraded, failed, read_only] = Self::NAMES;
        match self {
            Self::Open => open,
            Self::Degraded { .. } => degraded,
            Self::Failed { .. } => failed,
            Self::ReadOnly { .. } => read_only,
        }
    }

    /// Returns why writes are refused, or `None` if they are not.
    #[must_use]
    pub const fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Open => None,
            Self::Degraded { cause } | Self::Failed { cause } | Self::ReadOnly { cause } => {
                Some(cause)
            }
        }
    }
}

const OPEN: u8 = 0;
const DEGRADED: u8 = 1;
const FAILED: u8 = 2;
const READ_ONLY: u8 = 3;

/// The health of one engine.
///
/// `level` mirrors `state`, so that the common check takes no lock. It is stored while the lock of
/// `state` is held, so the two always end up equal.
pub(crate) struct Health {
    /// Whether the engine was opened to read. Never changes.
    is_read_only: bool,
    level: AtomicU8,
    state: Mutex<HealthState>,
    vbs: Arc<VBuckets>,
    signals: Arc<TaskSignals>,
    metrics: Arc<EngineMetrics>,
}

impl Health {
    pub(crate) fn new(
        vbs: Arc<VBuckets>,
        signals: Arc<TaskSignals>,
        metrics: Arc<EngineMetrics>,
        is_read_only: bool,
    ) -> Self {
        let (level, state) = if is_read_only {
            let cause = Cause::new("the store was opened with read_only");
            (READ_ONLY, HealthState::ReadOnly { cause })
        } else {
            (OPEN, HealthState::Open)
        };
        Self {
            is_read_only,
            level: AtomicU8::new(level),
            state: Mutex::new(LockRank::Leaf, state),
            vbs,
            signals,
            metrics,
        }
    }

    pub(crate) fn state(&self) -> HealthState {
        self.state.lock().clone()
    }

    /// Returns whether the engine was opened to read. Takes no lock.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Returns an error in an engine that was opened to read. `refused` names the refused
    /// operation.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    pub(crate) fn check_writable(&self, refused: &'static str) -> Result<()> {
        if self.is_read_only {
            return Err(Error::ReadOnly { refused });
        }
        Ok(())
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.level.load(Ordering::Acquire) == DEGRADED
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.level.load(Ordering::Acquire) == FAILED
    }

    /// Returns an error unless the engine takes writes. Takes a lock only to return the error.
    pub(crate) fn check(&self) -> Result<()> {
        if self.level.load(Ordering::Acquire) == OPEN {
            return Ok(());
        }
        match &*self.state.lock() {
            HealthState::Open => Ok(()),
            HealthState::Degraded { cause } => Err(Error::DiskFull {
                detail: cause.text(),
            }),
            HealthState::Failed { cause } => Err(Error::Failed {
                cause: cause.clone(),
            }),
            HealthState::ReadOnly { .. } => self.check_writable("a change"),
        }
    }

    /// Records an error of the write path in the metrics and in the health. The caller holds no
    /// vBucket's lock. Returns the streams to wake, which are none unless the state changed.
    ///
    /// Wakes the flusher only if the state changed: the flusher reports its own retries here, and
    /// must not end its own pause.
    pub(crate) fn note(&self, error: &Error) -> DeferredWork {
        self.count(error);
        let has_changed = self.enter(error);
        self.wake_if(has_changed)
    }

    /// Counts an error of the write path that affects only one vBucket. The health stays as it is.
    pub(crate) fn count(&self, error: &Error) {
        let failures = &self.metrics.flush_failures;
        let counter = match error {
            Error::DiskFull { .. } => &failures.disk_full,
            Error::Io { .. } => &failures.io,
            Error::Corruption { .. } => &failures.corruption,
            _ => &failures.other,
        };
        counter.add(1);
    }

    /// Enters `Failed` for a cause that is not an [`Error`], such as a panic. The caller holds no
    /// vBucket's lock. Returns the streams to wake.
    pub(crate) fn fail(&self, cause: impl Into<Arc<str>>) -> DeferredWork {
        self.metrics.flush_failures.other.add(1);
        let has_changed = self.enter_failed(cause);
        self.wake_if(has_changed)
    }

    /// Wakes the flusher and returns the streams to wake, if the state has changed.
    fn wake_if(&self, has_changed: bool) -> DeferredWork {
        if !has_changed {
            return DeferredWork::default();
        }
        // Writers are refused from now on, so only the flusher can notice new space on the disk.
        self.signals.flusher.wake();
        // After a failure streams end. While the disk is full, streams that wait for a sync must
        // let other streams run.
        self.all_stream_wakes()
    }

    /// Returns the wake-ups of all streams that wait. Once awake, they check the health and whether
    /// the engine is closing.
    pub(crate) fn all_stream_wakes(&self) -> DeferredWork {
        let mut deferred = DeferredWork::default();
        for vb in &*self.vbs {
            deferred.wake(vb.cell.fire_all());
        }
        deferred
    }

    /// Enters the state that the error leads to, and returns whether that changed the state.
    ///
    /// # Panics
    /// If the error does not come from the store: the operation ran after the close or in a fork.
    /// Entering `Failed` for it would keep the close from flushing acknowledged changes.
    fn enter(&self, error: &Error) -> bool {
        assert!(
            !matches!(error, Error::Closed | Error::Forked { .. }),
            "not a failure of the store: {error}"
        );
        let detail = match error {
            Error::DiskFull { detail } => detail,
            Error::Failed { cause } => return self.enter_failed(cause.text()),
            _ => return self.enter_failed(error.to_string()),
        };
        let mut state = self.state.lock();
        if !matches!(*state, HealthState::Open) {
            return false;
        }
        *state = HealthState::Degraded {
            cause: Cause::new(Arc::clone(detail)),
        };
        self.level.store(DEGRADED, Ordering::Release);
        // Logged without the lock: a `tracing` subscriber is the program's code, and may ask for
        // the health.
        drop(state);
        tracing::warn!(%error, "the disk is full: writes are refused until there is space");
        true
    }

    /// Enters `Failed`, and returns whether the state changed. A store that was opened to read does
    /// not enter it: no error of such a store makes its data doubtful.
    fn enter_failed(&self, cause: impl Into<Arc<str>>) -> bool {
        let mut state = self.state.lock();
        if matches!(
            *state,
            HealthState::Failed { .. } | HealthState::ReadOnly { .. }
        ) {
            return false;
        }
        let cause = Cause::new(cause);
        *state = HealthState::Failed {
            cause: cause.clone(),
        };
        self.level.store(FAILED, Ordering::Release);
        drop(state);
        tracing::error!(
            %cause,
            "the engine has failed: it refuses writes until the store is opened again"
        );
        true
    }

    /// Enters `Open` from `Degraded`: a flush has succeeded, so there is space again.
    pub(crate) fn heal(&self) {
        if !self.is_degraded() {
            return;
        }
        let mut state = self.state.lock();
        if matches!(*state, HealthState::Degraded { .. }) {
            *state = HealthState::Open;
            self.level.store(OPEN, Ordering::Release);
            drop(state);
            tracing::info!("the disk has space again: writes are accepted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vbstore_core::record::VbState;
    use vbstore_core::{FailoverLog, VbCell, VbId, VbUuid};

    fn disk_full() -> Error {
        Error::DiskFull {
            detail: "no space".into(),
        }
    }

    fn health() -> Health {
        let uuid = VbUuid::new(1);
        let cell = VbCell::new(VbId::new(0), VbState::new(uuid), FailoverLog::new(uuid, 0));
        let vbs = Arc::new(VBuckets::new(vec![cell]));
        Health::new(vbs, Arc::default(), Arc::default(), false)
    }

    #[test]
    fn a_full_disk_heals_and_a_failure_does_not() {
        let health = health();
        assert!(health.enter(&disk_full()));
        assert!(!health.enter(&disk_full()));
        assert!(matches!(health.check(), Err(Error::DiskFull { .. })));
        health.heal();
        assert!(health.check().is_ok());

        assert!(health.enter(&Error::invalid("first", "cause")));
        assert!(!health.enter(&Error::invalid("second", "cause")));
        assert!(!health.enter(&disk_full()));
        health.heal();

        let Err(Error::Failed { cause }) = health.check() else {
            panic!("not failed")
        };
        assert_eq!(cause.to_string(), "first: cause");
    }

    #[test]
    #[should_panic(expected = "not a failure of the store")]
    fn a_refusal_of_the_close_is_not_a_failure() {
        health().enter(&Error::Closed);
    }
}
