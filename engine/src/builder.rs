//! The builder that opens or creates a store.

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::failpoint::{Failpoints, MaybeFailpoints};
use crate::handle::EngineHandle;
use crate::opening::{self, OpenRequest};
use crate::samples::Registrations;
use crate::store_dir::{Access, has_marker};
use crate::wakers::Wakers;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vbstore_core::{Clock, SystemClock};
use vbstore_metrics::{EngineMetrics, Registry, Telemetry};

/// Collects the options of an engine and opens or creates its store. Made by [`Engine::builder`].
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent switch"
)]
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
    /// `None` until [`Builder::create`] is called: then `read_only` decides.
    create: Option<bool>,
}

impl Engine {
    /// Returns a builder for the store in the directory `path`. Touches no file.
    #[must_use]
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        Builder::new(path.as_ref())
    }

    /// Opens the store in the directory `path` with the default options, or creates it.
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

    /// Sets the label `store` of all metrics, which tells the engines of one program apart.
    /// Default: the name of the directory.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the registry for the metrics of the engine and of its streams. They stay registered
    /// until the engine is closed. Default: a new registry, see [`Engine::telemetry`].
    #[must_use]
    pub fn registry(mut self, registry: &Registry) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Sets the source of time. Default: the system's clocks.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Sets the counters that the engine adds to. Default: new ones, see [`Engine::metrics`].
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<EngineMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Sets the failpoints, which are for tests. Default: none.
    #[must_use]
    pub fn failpoints(mut self, failpoints: Arc<Failpoints>) -> Self {
        self.failpoints = Some(failpoints);
        self
    }

    /// Sets whether the engine runs its background tasks on threads of its own. Default: true.
    /// Without threads the program calls [`Engine::step`]. Writes that wait for durability flush by
    /// themselves in both cases.
    #[must_use]
    pub fn background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Sets whether a missing store is created. Default: true, or false with
    /// [`read_only`](Self::read_only).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = Some(create);
        self
    }

    /// Opens the store even if less is recovered than was synced, or if its witness cannot be read.
    /// Every vBucket begins a new branch, so that consumers that saw lost changes are rolled back.
    /// Default: such a store is refused with [`Error::DataLoss`] or [`Error::Corruption`].
    #[must_use]
    pub fn accept_data_loss(mut self) -> Self {
        self.accept_data_loss = true;
        self
    }

    /// Begins a new branch of history in every vBucket, durable when [`open`](Self::open) returns.
    ///
    /// Needed for a store that was set back to an earlier state in a way that the engine cannot
    /// detect, such as restoring a disk image. Consumers that have seen later changes are then
    /// rolled back. The engine detects a copied store by itself. Default: no new branch.
    #[must_use]
    pub fn new_branch(mut self) -> Self {
        self.new_branch = true;
        self
    }

    /// Opens an existing store without ever writing to its directory, for example on a full disk or
    /// a read-only file system. All reads work: keys, pages, slices, streams, [`Engine::verify`]
    /// and metrics. A call that would change the store fails with [`Error::ReadOnly`]. Default:
    /// off.
    ///
    /// Any number of engines, in one process or several, may have a store open to read. But no
    /// engine may have it open to read while another has it open to write. The lock file must exist
    /// and be readable. A copy made of hard links shares the lock file until one of the two stores
    /// is opened to write. Until then a reader of one keeps the other from being opened to write.
    ///
    /// After an unclean stop, each such open replays RocksDB's log into memory. It syncs the log
    /// first, so that no crash takes back changes that streams have delivered. The position of a
    /// consumer stays valid when the store is opened to write later. A *copied* or restored store
    /// is the exception: its vBuckets must begin new branches first, which needs a write. It can be
    /// read, but its streams fail with [`Error::ReadOnly`].
    ///
    /// The engine does not check whether the directory is moved or replaced meanwhile: it goes on
    /// reading the directory that it opened.
    ///
    /// Cannot be combined with `create(true)`, [`Self::new_branch`] or [`Self::accept_data_loss`],
    /// which write.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Checks that no option contradicts `read_only`.
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
                "this option writes to the store and cannot be combined with read_only",
            )),
        }
    }

    /// Opens the store, or creates it. Reads the disk, and blocks until a log left by an unclean
    /// stop is recovered.
    ///
    /// # Errors
    /// - [`Error::Invalid`]: a field of the configuration is out of bounds, options contradict each
    ///   other, the registry already has an engine of this name, the path is a file, or a directory
    ///   that holds something other than a store, or the process may not open enough files.
    /// - [`Error::Locked`]: another engine has the store open.
    /// - [`Error::NoStore`]: there is no store, and none may be created.
    /// - [`Error::Corruption`], [`Error::DataLoss`], [`Error::FormatTooNew`]: the data files were
    ///   not changed.
    /// - [`Error::DiskFull`], [`Error::Io`].
    pub fn open(self) -> Result<Engine> {
        self.config.validate()?;
        self.check()?;
        let create = self.create.unwrap_or(!self.read_only);
        if !create && !has_marker(&self.path)? {
            return Err(Error::NoStore { path: self.path });
        }
        // Before the store is opened, so that a name in use fails before anything is written.
        let registrations = Registrations::take(self.telemetry())?;
        let services = opening::open(OpenRequest {
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
        Ok(Engine::new(EngineHandle::new(
            services,
            self.background,
            registrations,
        )?))
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
