//! The process that opened a store, and how a fork of it is detected.
//!
//! A forked child has a copy of the engine's memory and file descriptors, but not its threads. A
//! lock that another thread held at the fork stays locked. The child must not use the engine: its
//! writes would destroy the parent's store, and its close would release the parent's lock. So every
//! call checks, before it takes a lock, that it runs in the process that opened the store.

use crate::error::{Error, Result};
use forkguard::Guard;

/// Identifies the process that opened a store.
#[derive(Clone, Debug)]
pub(crate) struct OpenerProcess {
    id: u32,
    /// Detects a fork. The C library calls a handler in the child, so a check is only one load.
    /// Asking for the pid is a system call, which costs twice as much as a read from memory.
    forks: Guard,
}

impl OpenerProcess {
    /// Returns the current process.
    ///
    /// # Errors
    /// [`Error::Io`] if the C library has no memory for the handler.
    pub(crate) fn current() -> Result<Self> {
        let forks = Guard::try_new().map_err(|error| {
            let code = std::io::Error::from_raw_os_error(error.code().get());
            Error::io("watch for forks", code)
        })?;
        Ok(Self {
            id: std::process::id(),
            forks,
        })
    }

    /// Returns whether the current process is a fork of the one that opened the store. Costs one
    /// load.
    pub(crate) fn is_fork(&self) -> bool {
        // Checks a clone, because a guard reports each fork only once, and this method must go on
        // returning true.
        self.forks.clone().detected_fork()
    }

    /// Returns an error unless the current process opened the store. Costs one load.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_fork() {
            return Err(self.refusal());
        }
        Ok(())
    }

    /// Like [`Self::check`], but makes a system call. It also detects a child that was made by a
    /// bare system call, which runs no handler of the C library. For operations that take long
    /// anyway.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn check_id(&self) -> Result<()> {
        if std::process::id() != self.id {
            return Err(self.refusal());
        }
        Ok(())
    }

    fn refusal(&self) -> Error {
        Error::Forked { opened_by: self.id }
    }
}
