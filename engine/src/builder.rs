//! The options of opening and creating a store.

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::failpoint::{Failpoints, MaybeFailpoints};
use crate::handle::Handle;
use crate::home::{Access, has_marker};
use crate::opening::{self, Request};
use crate::samples::Places;
use crate::wakers::Wakers;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vbstore_core::{Clock, SystemClock};
use vbstore_metrics::{EngineMetrics, Registry, Telemetry};

/// Opens or creates a store.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Builder {
    path: PathBuf,
    config: Config,
    name: Option<String>,
    registry: Option<Registry>,
    clock: Arc<dyn Clock>,
    metrics: Arc<EngineMetrics>,
    failpoints: Option<Arc<Failpoints>>,
    background: bool,
    accept_data_loss: bool,
    new_branch: bool,
    read_only: bool,
    /// `None` if nothing was said.
    create: Option<bool>,
}

impl Engine {
    /// Begins to open the store in a directory, or to create it.
    #[must_use]
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    /// Opens the store in a directory with the default configuration, or creates it.
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }
}

impl Builder {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            config: Config::default(),
            name: None,
            registry: None,
            clock: Arc::new(SystemClock::new()),
            metrics: Arc::default(),
            failpoints: None,
            background: true,
            accept_data_loss: false,
            new_branch: false,
            read_only: false,
            create: None,
        }
    }

    /// Sets the configuration.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the label `store` of all figures, which tells several engines of one program apart. Default:
    /// the name of the directory.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the registry that the engine's figures, and those of its streams, are registered in until it
    /// is closed. Default: one of its own, see [`Engine::telemetry`].
    #[must_use]
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Sets where time comes from. Default: the system's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets where the engine counts. Default: counters of its own, see [`Engine::metrics`].
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<EngineMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Sets the failpoints. Default: none. For tests.
    #[must_use]
    pub fn failpoints(mut self, failpoints: Arc<Failpoints>) -> Self {
        self.failpoints = Some(failpoints);
        self
    }

    /// Whether the engine has threads of its own. Default: yes. Without, whoever opened it calls
    /// [`Engine::step`]; writes that wait flush for themselves in any case.
    #[must_use]
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Whether a store is created where there is none. Default: yes, unless it is to be opened
    /// [read-only](Self::read_only).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = Some(create);
        self
    }

    /// Opens the store although less is recovered than was synced, or although its witness cannot
    /// be read. Every vBucket begins a new branch, so that no consumer is told that what was lost
    /// is there. Default: no, such a store is refused with [`Error::DataLoss`].
    #[must_use]
    pub fn accept_data_loss(mut self) -> Self {
        self.accept_data_loss = true;
        self
    }

    /// Begins a new branch of history in every vBucket, durable when the store is open. Needed for a
    /// store that was set back to an earlier state in a way that the engine cannot notice, such as by
    /// putting back the image of a disk: consumers that were further are then told to go back. A store
    /// that was copied is noticed. Default: no.
    #[must_use]
    pub fn new_branch(mut self) -> Self {
        self.new_branch = true;
        self
    }

    /// Opens a store that exists without writing anything to its directory, now or later: on a full disk,
    /// or where it cannot be written to at all. Everything that reads works: keys, pages, slices, streams,
    /// [`Engine::verify`], figures. What would change the store is refused with [`Error::ReadOnly`].
    /// Default: no.
    ///
    /// Any number of engines, in one process or several, may have a store open to read; none of them while
    /// one has it open to write, and the other way. The lock file must be there and be readable. A copy
    /// made of hard links shares it until one of the two is opened to write, and cannot be opened to write
    /// meanwhile either.
    ///
    /// After an unclean stop, what is in RocksDB's log is replayed into memory at each such open, and the
    /// log is synced first, so that no crash takes back what streams deliver. A position that a consumer
    /// has reached stays valid when the store is opened to write. A store that was *copied* or put back
    /// is the exception: its vBuckets must begin new branches first, which cannot be written, so that it
    /// can be read, and each stream of it is refused with [`Error::ReadOnly`].
    ///
    /// That the directory is moved or replaced meanwhile is not watched: what is read is what was opened.
    ///
    /// Does not go with `create(true)`, [`Self::new_branch`] and [`Self::accept_data_loss`], which write.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Refuses settings that contradict each other.
    fn check(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        let asked = [
            ("create", self.create == Some(true)),
            ("new_branch", self.new_branch),
            ("accept_data_loss", self.accept_data_loss),
        ];
        match asked.into_iter().find(|(_, is_asked)| *is_asked) {
            None => Ok(()),
            Some((field, _)) => Err(Error::invalid(
                field,
                "it writes to the store, and read_only was asked for too",
            )),
        }
    }

    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a field of the configuration, settings that contradict each other, a name that
    /// the registry has already, a path that is no store, or too few file descriptors. [`Error::Locked`]:
    /// somebody else has it open. [`Error::FormatTooNew`].
    /// [`Error::Corruption`], [`Error::DataLoss`]: see there; the data files are as they were.
    /// [`Error::NoStore`]: there is no store, and none was to be created. [`Error::DiskFull`],
    /// [`Error::Io`].
    pub fn open(self) -> Result<Engine> {
        self.config.validate()?;
        self.check()?;
        let create = self.create.unwrap_or(!self.read_only);
        if !create && !has_marker(&self.path)? {
            return Err(Error::NoStore { path: self.path });
        }
        let places = Places::take(self.telemetry())?;
        let services = opening::open(Request {
            path: self.path,
            config: self.config,
            clock: self.clock,
            metrics: self.metrics,
            failpoints: MaybeFailpoints(self.failpoints),
            wakers: if self.background {
                Wakers::threaded()
            } else {
                Wakers::inline()
            },
            access: if self.read_only {
                Access::Read
            } else {
                Access::Write
            },
            create,
            accept_data_loss: self.accept_data_loss,
            new_branch: self.new_branch,
        })?;
        Ok(Engine::new(Handle::new(services, self.background, places)?))
    }

    fn telemetry(&self) -> Telemetry {
        let of_directory = || {
            let name = self.path.file_name()?;
            Some(name.to_string_lossy().into_owned())
        };
        let name = self.name.clone().or_else(of_directory);
        let registry = self.registry.clone().unwrap_or_default();
        let clock = Arc::clone(&self.clock);
        let clock = Arc::new(move || clock.monotonic());
        Telemetry::new(name.as_deref().unwrap_or("store"), registry, clock)
    }
}
