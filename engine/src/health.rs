//! Whether the engine takes writes.
//!
//! ```text
//! Open -> Degraded (disk full) -> Open        by itself, when a flush succeeds again
//! Open, Degraded -> Failed (anything else)    only opening again leaves it
//! ```
//! The first cause of a failure is kept; what fails later because of it does not replace it.

use crate::error::{Cause, Error, Result};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

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
}

impl HealthState {
    /// The names of all states.
    pub const NAMES: [&'static str; 3] = ["open", "degraded", "failed"];

    /// Returns the name used in output and as a label: one of [`Self::NAMES`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        let [open, degraded, failed] = Self::NAMES;
        match self {
            Self::Open => open,
            Self::Degraded { .. } => degraded,
            Self::Failed { .. } => failed,
        }
    }

    /// Returns why writes are refused; `None` if they are not.
    #[must_use]
    pub const fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Open => None,
            Self::Degraded { cause } | Self::Failed { cause } => Some(cause),
        }
    }
}

const OPEN: u8 = 0;
const DEGRADED: u8 = 1;
const FAILED: u8 = 2;

/// The health of one engine. `level` mirrors `state` so that the common case takes no lock; it is
/// stored while the lock of `state` is held.
#[derive(Debug)]
pub(crate) struct Health {
    level: AtomicU8,
    state: Mutex<HealthState>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            level: AtomicU8::new(OPEN),
            state: Mutex::new(HealthState::Open),
        }
    }

    pub(crate) fn state(&self) -> HealthState {
        self.state.lock().clone()
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
        }
    }

    /// Takes note of an error of the write path. Returns whether that changed anything.
    pub(crate) fn note(&self, error: &Error) -> bool {
        match error {
            Error::DiskFull { detail } => {
                let mut state = self.state.lock();
                if matches!(*state, HealthState::Open) {
                    tracing::warn!(%error, "disk full: writes are refused until space returns");
                    *state = HealthState::Degraded {
                        cause: Cause::new(Arc::clone(detail)),
                    };
                    self.level.store(DEGRADED, Ordering::Release);
                    return true;
                }
                false
            }
            _ => self.fail(error.to_string()),
        }
    }

    /// Enters `Failed`. Returns whether it was not there already.
    pub(crate) fn fail(&self, cause: impl Into<Arc<str>>) -> bool {
        let mut state = self.state.lock();
        if matches!(*state, HealthState::Failed { .. }) {
            return false;
        }
        let cause = Cause::new(cause);
        tracing::error!(%cause, "engine failed: writes are refused until it is opened again");
        *state = HealthState::Failed { cause };
        self.level.store(FAILED, Ordering::Release);
        true
    }

    /// A flush has succeeded: space is back.
    pub(crate) fn heal(&self) {
        if !self.is_degraded() {
            return;
        }
        let mut state = self.state.lock();
        if matches!(*state, HealthState::Degraded { .. }) {
            tracing::info!("space is back: writes are taken again");
            *state = HealthState::Open;
            self.level.store(OPEN, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_full() -> Error {
        Error::DiskFull {
            detail: "no space".into(),
        }
    }

    #[test]
    fn a_full_disk_heals_and_a_failure_does_not() {
        let health = Health::new();
        assert!(health.note(&disk_full()));
        assert!(!health.note(&disk_full()));
        assert!(matches!(health.check(), Err(Error::DiskFull { .. })));
        health.heal();
        assert!(health.check().is_ok());

        assert!(health.note(&Error::invalid("first", "cause")));
        assert!(!health.note(&Error::invalid("second", "cause")));
        assert!(!health.note(&disk_full()));
        health.heal();

        let Err(Error::Failed { cause }) = health.check() else {
            panic!("not failed")
        };
        assert_eq!(cause.to_string(), "first: cause");
    }
}
