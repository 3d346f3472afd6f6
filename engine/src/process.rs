//! The process that opened a store.
//!
//! A child that a program forks has a copy of the engine's memory and its file descriptors, but not
//! its threads, and locks that another thread held stay locked. Whatever it did would be wrong: what
//! it writes would destroy the parent's store, and closing would release the parent's lock. So every
//! call asks, before it takes a lock, whether it is still in the process that opened the store.

use crate::error::{Error, Result};
use forkguard::Guard;

/// The process that opened a store.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    id: u32,
    /// Notices a fork by a handler that the C library calls in the child: asking costs one load.
    /// Asking for the process's id costs a system call, twice as much as a read from memory.
    forks: Guard,
}

impl Opener {
    /// Returns this process.
    ///
    /// # Errors
    /// [`Error::Io`] if the C library has no memory for the handler.
    pub(crate) fn this() -> Result<Self> {
        let forks = Guard::try_new().map_err(|error| {
            let code = std::io::Error::from_raw_os_error(error.code().get());
            Error::io("watch for forks", code)
        })?;
        Ok(Self {
            id: std::process::id(),
            forks,
        })
    }

    /// Returns whether this is another process.
    pub(crate) fn is_other(&self) -> bool {
        self.forks.clone().detected_fork()
    }

    /// Refuses in every other process.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_other() {
            return Err(self.refusal());
        }
        Ok(())
    }

    /// Like [`Self::check`], also for a child that was made by a bare system call, past the C library.
    /// For what takes long enough that a system call more does not matter.
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
