//! Whether the engine takes writes.
//!
//! ```text
//! Open -> Degraded (disk full) -> Open        by itself, when a flush writes something again
//! Open, Degraded -> Failed (anything else)    only opening again leaves it
//! ReadOnly                                    from the open to the close
//! ```
//! The first cause of a failure is kept; what fails later because of it does not replace it.

use crate::error::{Cause, Error, Result};
use crate::signals::Signals;
use crate::vbuckets::VBuckets;
use crate::wakes::Wakes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use vbstore_core::lock_order::Rank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::EngineMetrics;

/// Whether the engine takes writes.
#[derive(Clone, Debug)]
pub enum HealthState {
    /// It does.
    Open,
    /// Not now: the disk is full. Reads work. It heals by itself when space returns.
    Degraded {
        /// What the system said first.
        cause: Cause,
    },
    /// No more: a write or a sync failed, or a flush panicked. Reads work. Only opening again
    /// leaves this state.
    Failed {
        /// The first failure.
        cause: Cause,
    },
    /// No: the store was opened with [`crate::Builder::read_only`]. Reads work.
    ReadOnly {
        /// That setting.
        cause: Cause,
    },
}

impl HealthState {
    /// The names of all states.
    pub const NAMES: [&'static str; 4] = ["open", "degraded", "failed", "read_only"];

    /// Returns the name used in output and as a label: one of [`Self::NAMES`].
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

    /// Returns why writes are refused; `None` if they are not.
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

/// The health of one engine. `level` mirrors `state` so that the common case takes no lock; it is
/// stored while the lock of `state` is held.
pub(crate) struct Health {
    /// The engine was opened to read, and nothing changes that.
    is_read_only: bool,
    level: AtomicU8,
    state: Mutex<HealthState>,
    vbs: Arc<VBuckets>,
    signals: Arc<Signals>,
    metrics: Arc<EngineMetrics>,
}

impl Health {
    pub(crate) fn new(
        vbs: Arc<VBuckets>,
        signals: Arc<Signals>,
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
            state: Mutex::new(Rank::Leaf, state),
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

    /// Refuses in an engine that was opened to read; `refused` says what.
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

    /// Refuses unless writes are taken.
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

    /// Records an error of the write path. Returns the streams to wake, if the engine has failed just
    /// now. Wakes the flusher on a change only: the flusher reports its own retries here and must not
    /// end its own pause. The caller holds no vBucket's lock.
    pub(crate) fn note(&self, error: &Error) -> Wakes {
        self.count(error);
        let has_changed = self.enter(error);
        self.tell(has_changed)
    }

    /// Counts an error of the write path that is one vBucket's own.
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

    /// Enters `Failed` because of something that is no error of an operation, such as a panic. Returns
    /// the streams to wake. The caller holds no vBucket's lock.
    pub(crate) fn fail(&self, cause: impl Into<Arc<str>>) -> Wakes {
        self.metrics.flush_failures.other.add(1);
        let has_changed = self.enter_failed(cause);
        self.tell(has_changed)
    }

    fn tell(&self, has_changed: bool) -> Wakes {
        if !has_changed {
            return Wakes::default();
        }
        // Writers are refused from now on, so only the flusher can find out that space is back.
        self.signals.flusher.wake();
        // After a failure they end; while the disk is full, those that wait for a sync make place for
        // others.
        self.all_streams()
    }

    /// Returns every stream that waits, to be woken so that it looks at the health and at the close.
    pub(crate) fn all_streams(&self) -> Wakes {
        let mut wakes = Wakes::default();
        for vb in &*self.vbs {
            wakes.wake(vb.cell.fire_all());
        }
        wakes
    }

    /// Returns whether the error changed the state.
    ///
    /// # Panics
    /// When it is no failure of the store: an operation that came too late, or in another process. As a
    /// failure it would keep the close from flushing what was acknowledged.
    fn enter(&self, error: &Error) -> bool {
        assert!(
            !matches!(error, Error::Closed | Error::Forked { .. }),
            "noted as a failure: {error}"
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
        // Without the lock: a subscriber is the program's code, and may ask for the health.
        drop(state);
        tracing::warn!(%error, "disk full: writes are refused until space returns");
        true
    }

    /// Returns whether the engine had not failed already. One that was opened to read cannot: nothing
    /// that goes wrong in it puts in doubt what it reads.
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
        tracing::error!(%cause, "engine failed: writes are refused until it is opened again");
        true
    }

    /// A flush has written something: space is back.
    pub(crate) fn heal(&self) {
        if !self.is_degraded() {
            return;
        }
        let mut state = self.state.lock();
        if matches!(*state, HealthState::Degraded { .. }) {
            *state = HealthState::Open;
            self.level.store(OPEN, Ordering::Release);
            drop(state);
            tracing::info!("space is back: writes are taken again");
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
    #[should_panic(expected = "noted as a failure")]
    fn a_refusal_of_the_close_is_no_failure() {
        health().enter(&Error::Closed);
    }
}
