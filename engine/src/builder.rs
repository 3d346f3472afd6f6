//! Opening and creating.

use crate::config::{Config, VBUCKETS_DEFAULT};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::failpoint::{Failpoints, place};
use crate::home::{Home, Marker, Phase, WITNESS, WitnessFile, data_files};
use crate::inner::{Inner, Parts};
use crate::samples::Places;
use crate::storage::options::{FamilyOptions, StorageConfig};
use crate::storage::{Batch, Reach, Storage};
use crate::wakers::Wakers;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vbstore_core::record::VbState;
use vbstore_core::{Clock, FailoverLog, StoreUuid, SystemClock, VbCell, VbId, VbUuid};
use vbstore_metrics::{EngineMetrics, Holder, Registry, Telemetry};

/// File descriptors an engine needs besides those for data files: its own files, RocksDB's log and
/// MANIFEST, and room for the program around it.
const DESCRIPTORS_BASE: u64 = 128;
/// Most data files kept open if the configuration does not say.
const OPEN_FILES_DEFAULT: u64 = 4_096;
/// Least memory for data not yet in files, over all families and for each.
const WRITE_BUFFER_MIN: u64 = 256 << 20;
const WRITE_BUFFER_FAMILY: u64 = 512 << 10;

/// Opens or creates a store.
#[derive(Debug)]
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
    create: bool,
}

/// Whether and how the last engine on this store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastStop {
    Clean,
    Unclean,
}

impl Builder {
    pub(crate) fn new(path: &Path) -> Self {
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
            create: true,
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

    /// Whether a store is created where there is none. Default: yes.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
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

    /// Opens the store, or creates it.
    ///
    /// # Errors
    /// [`Error::Invalid`]: a field of the configuration, a name that the registry has already, a path
    /// that is no store, or too few file descriptors. [`Error::Locked`]: somebody else has it open. [`Error::FormatTooNew`].
    /// [`Error::Corruption`], [`Error::DataLoss`]: see there; the data files are as they were.
    /// [`Error::NotFound`]: there is no store, and none was to be created. [`Error::DiskFull`],
    /// [`Error::Io`].
    pub fn open(self) -> Result<Engine> {
        self.config.validate()?;
        if !self.create && !self.path.join(crate::home::MARKER).exists() {
            return Err(Error::NotFound);
        }
        let places = Places::take(self.telemetry())?;
        let home = Home::lock(&self.path)?;
        let marker = home.marker()?;
        let wanted = self.config.vbuckets;
        let background = self.background;
        let inner = match marker {
            Some(Marker {
                phase: Phase::Ready,
                store,
                vbuckets,
            }) => {
                if wanted.is_some_and(|wanted| wanted != vbuckets) {
                    let detail = format!("the store has {vbuckets}, which cannot be changed");
                    return Err(Error::invalid("vbuckets", detail));
                }
                self.open_existing(home, store, vbuckets)?
            }
            None
            | Some(Marker {
                phase: Phase::Creating,
                ..
            }) => {
                if !self.create {
                    // A creation that was cut short left no store.
                    return Err(Error::NotFound);
                }
                let vbuckets = wanted.unwrap_or(VBUCKETS_DEFAULT);
                self.create_new(home, vbuckets)?
            }
        };
        Engine::new(inner, background, places)
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

    fn pass(&self, place: &'static str) -> Result<()> {
        self.failpoints
            .as_ref()
            .map_or(Ok(()), |failpoints| failpoints.hit(place))
    }

    /// Creates a store. The marker says "creating" until everything is there and synced; a creation
    /// that was cut short begins again from nothing.
    fn create_new(self, home: Home, vbuckets: u16) -> Result<Inner> {
        let resources = Resources::find(&self.config, vbuckets, true)?;
        let store = StoreUuid::new(rand::random());
        home.put_marker(&Marker {
            store,
            vbuckets,
            phase: Phase::Creating,
        })?;
        home.clear_for_creation()?;
        self.pass(place::CREATE_DB)?;
        let options = FamilyOptions::new(resources.storage.clone());
        let snapshots = Arc::clone(&self.metrics.db_snapshots);
        let clock = Arc::clone(&self.clock);
        let storage = Storage::create(&home.db(), &options, vbuckets, snapshots, clock)?;

        let mut batch = Batch::new(&storage);
        let mut cells = Vec::with_capacity(usize::from(vbuckets));
        for vb in (0..vbuckets).map(VbId::new) {
            let uuid = VbUuid::from_random(rand::random());
            let (state, log) = (VbState::new(uuid), FailoverLog::new(uuid));
            batch.put_state(vb, &state)?;
            batch.put_failover_log(vb, &log)?;
            cells.push(VbCell::new(vb, state, log));
        }
        let sequence = storage.write(batch, true)?;
        let mut witness = WitnessFile::create(&home.witness(), store)?;
        witness.record(sequence, 0)?;
        witness.sync()?;
        home.sync()?;
        self.pass(place::CREATE_READY)?;
        home.put_marker(&Marker {
            store,
            vbuckets,
            phase: Phase::Ready,
        })?;
        tracing::info!(%store, vbuckets, "store created");
        Ok(self.into_inner(home, storage, witness, cells, store, &resources))
    }

    fn open_existing(self, home: Home, store: StoreUuid, vbuckets: u16) -> Result<Inner> {
        let resources = Resources::find(&self.config, vbuckets, false)?;
        let options = FamilyOptions::new(resources.storage.clone());
        let (mut witness, last_stop) =
            self.compare_with_witness(&home, store, vbuckets, &options)?;
        if last_stop == LastStop::Unclean {
            self.recover(&home, vbuckets, &options, &mut witness)?;
        }
        let promised = witness.newest().rocks_sequence;
        let snapshots = Arc::clone(&self.metrics.db_snapshots);
        let clock = Arc::clone(&self.clock);
        let storage = Storage::open(&home.db(), &options, vbuckets, snapshots, clock)?;
        let found = storage.rocks_sequence();
        if found < promised {
            let expected = promised;
            return Err(Error::DataLoss { expected, found });
        }
        let states = load_states(&storage, vbuckets)?;
        // From here on the directory is no longer as the last close left it.
        witness.record(promised, 0)?;
        witness.sync()?;
        let cells = states
            .into_iter()
            .map(|(vb, state, log)| VbCell::new(vb, state, log))
            .collect();
        tracing::info!(%store, vbuckets, ?last_stop, "store opened");
        Ok(self.into_inner(home, storage, witness, cells, store, &resources))
    }

    /// Lets RocksDB recover what is in its log, and begins the new branches, before the store is
    /// opened to be used.
    fn recover(
        &self,
        home: &Home,
        vbuckets: u16,
        options: &FamilyOptions,
        witness: &mut WitnessFile,
    ) -> Result<()> {
        let clock = Arc::clone(&self.clock);
        let storage = Storage::open_to_recover(&home.db(), options, vbuckets, clock)?;
        let expected = witness.newest().rocks_sequence;
        let found = storage.rocks_sequence();
        if found < expected && !self.accept_data_loss {
            return Err(Error::DataLoss { expected, found });
        }
        let mut states = load_states(&storage, vbuckets)?;
        self.pass(place::OPEN_BRANCH)?;
        let sequence = begin_branches(&storage, &mut states)?;
        witness.record(sequence, 0)?;
        witness.sync()
    }

    /// Compares what would be recovered with what the witness vouches for, and reads the records
    /// of all vBuckets, before anything is written.
    fn compare_with_witness(
        &self,
        home: &Home,
        store: StoreUuid,
        vbuckets: u16,
        options: &FamilyOptions,
    ) -> Result<(WitnessFile, LastStop)> {
        let witness = match WitnessFile::open(&home.witness(), store) {
            Ok(witness) => witness,
            Err(error @ Error::Corruption { .. }) if self.accept_data_loss => {
                // What is worse than a lost witness is met here, before anything is written.
                let clock = Arc::clone(&self.clock);
                let reach = Reach::Everything;
                let seen = Storage::open_read_only(&home.db(), options, vbuckets, reach, clock)?;
                load_states(&seen, vbuckets)?;
                drop(seen);
                tracing::warn!(%error, "data loss accepted: the witness is made anew");
                let witness = WitnessFile::create(&home.witness(), store)?;
                home.sync()?;
                return Ok((witness, LastStop::Unclean));
            }
            Err(error) => return Err(error),
        };
        let newest = witness.newest();
        let files = data_files(&home.db())?;
        let is_as_closed = newest.clean_digest == files.digest;
        if newest.clean_digest != 0 && !is_as_closed {
            tracing::warn!(
                file = WITNESS,
                "the data files are not as the last close left them"
            );
        }
        // After a clean close with an empty log there is nothing to recover, and no need to open
        // every family twice.
        let is_nothing_to_recover = is_as_closed && files.log_bytes == 0;
        let reach = if is_nothing_to_recover {
            Reach::Records
        } else {
            Reach::Everything
        };
        let clock = Arc::clone(&self.clock);
        let seen = Storage::open_read_only(&home.db(), options, vbuckets, reach, clock)?;
        let found = seen.rocks_sequence();
        if found < newest.rocks_sequence {
            let expected = newest.rocks_sequence;
            if !self.accept_data_loss {
                return Err(Error::DataLoss { expected, found });
            }
            load_states(&seen, vbuckets)?;
            tracing::warn!(expected, found, "data loss accepted");
            return Ok((witness, LastStop::Unclean));
        }
        // Spoilt records are met here, before opening to write changes anything.
        load_states(&seen, vbuckets)?;
        let last_stop = if is_as_closed {
            LastStop::Clean
        } else {
            LastStop::Unclean
        };
        Ok((witness, last_stop))
    }

    fn into_inner(
        self,
        home: Home,
        storage: Storage,
        witness: WitnessFile,
        cells: Vec<VbCell>,
        store: StoreUuid,
        resources: &Resources,
    ) -> Inner {
        Inner::new(Parts {
            storage,
            vbs: cells.into_boxed_slice(),
            witness,
            home,
            config: self.config,
            store,
            write_buffer_bytes: resources.write_buffer_bytes,
            clock: self.clock,
            metrics: self.metrics,
            failpoints: self.failpoints,
            wakers: if self.background {
                Wakers::threaded()
            } else {
                Wakers::inline()
            },
        })
    }
}

/// What the machine and the configuration allow.
struct Resources {
    storage: StorageConfig,
    write_buffer_bytes: u64,
}

impl Resources {
    fn find(config: &Config, vbuckets: u16, is_new: bool) -> Result<Self> {
        let families = u64::from(vbuckets).saturating_mul(2);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.unwrap_or(u64::MAX);
        // While a store is created each family keeps its directory open.
        let needed = DESCRIPTORS_BASE.saturating_add(families);
        if limit < needed {
            let to_do = if is_new { "create" } else { "open" };
            let detail = format!(
                "{limit} file descriptors are allowed, {needed} are needed to {to_do} \
                 {vbuckets} vBuckets (see ulimit -n)"
            );
            return Err(Error::invalid("open_files_max", detail));
        }
        let open_files = config
            .open_files_max
            .map_or_else(|| OPEN_FILES_DEFAULT.min(limit / 2), u64::from);
        let write_buffer_bytes = config
            .write_buffer_bytes
            .unwrap_or_else(|| WRITE_BUFFER_MIN.max(families.saturating_mul(WRITE_BUFFER_FAMILY)));
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Self {
            storage: StorageConfig {
                vbuckets,
                block_cache_bytes: size(config.block_cache_bytes),
                write_buffer_bytes: size(write_buffer_bytes),
                open_files_max: i32::try_from(open_files).unwrap_or(i32::MAX),
            },
            write_buffer_bytes,
        })
    }
}

type Loaded = (VbId, VbState, FailoverLog);

fn load_states(storage: &Storage, vbuckets: u16) -> Result<Vec<Loaded>> {
    storage.with_records(Holder::Admin, |records| {
        let mut loaded = Vec::with_capacity(usize::from(vbuckets));
        for vb in (0..vbuckets).map(VbId::new) {
            let state = records.state(vb)?;
            let log = records.failover_log(vb)?;
            if log.entries().first().map(|entry| entry.uuid) != Some(state.uuid) {
                let detail = "state record and failover log disagree about the newest branch";
                return Err(Error::corrupt_record(vb, None, detail));
            }
            loaded.push((vb, state, log));
        }
        Ok(loaded)
    })
}

/// After an unclean stop every vBucket begins a new branch at what was recovered: something above
/// it may have been seen by a consumer and be lost. Synced before the first write or stream.
fn begin_branches(storage: &Storage, states: &mut [Loaded]) -> Result<u64> {
    let mut batch = Batch::new(storage);
    for (vb, state, log) in states {
        state.uuid = VbUuid::from_random(rand::random());
        log.begin(state.uuid, state.high_seqno);
        batch.put_state(*vb, state)?;
        batch.put_failover_log(*vb, log)?;
        tracing::info!(vb = %vb, uuid = %state.uuid, seqno = %state.high_seqno, "new branch");
    }
    storage.write(batch, true)
}
