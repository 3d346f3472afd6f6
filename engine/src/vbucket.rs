//! The handle of one vBucket, with all operations on it.

use crate::change::{Change, WriteReceipt};
use crate::commit::{Ticket, WaitCondition};
use crate::config::SliceBudget;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::handle::EngineHandle;
use crate::read::{Document, KeyRange, Page, PageForm};
use crate::services::Services;
use crate::slice::{SeqnoRange, Slice};
use crate::vbuckets::Vb;
use crate::write::last;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use vbstore_core::record::Counts;
use vbstore_core::{FailoverLog, ItemMeta, Seqno, VbId, VbUuid};
use vbstore_metrics::DbSnapshotHolder;

/// A vBucket of an engine. Cheap to clone; every clone keeps the engine open. All methods may be
/// called from any thread.
///
/// Reads see every change that has a seqno, whether or not it is durable yet. So a crash may lose a
/// change that was read. That can happen even if every write is [`Durability::Synced`], because a
/// reader can be faster than the sync that the writer waits for. [`VBucket::wait_synced`] blocks
/// until the changes that were read are synced.
///
/// Whether a document has expired is decided once per call, and for a conditional change when its
/// condition is checked. The document may expire before the call returns.
#[derive(Clone)]
pub struct VBucket {
    handle: Arc<EngineHandle>,
    vb: Arc<Vb>,
}

impl fmt::Debug for VBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VBucket").field(&self.id()).finish()
    }
}

/// The seqnos that mark the progress of a vBucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seqnos {
    /// The last seqno that was assigned.
    pub high: Seqno,
    /// Everything up to this seqno is in RocksDB's log. A boundary.
    pub persisted: Seqno,
    /// Everything up to this seqno is synced. A boundary.
    pub synced: Seqno,
    /// The highest seqno of a tombstone that was removed for good.
    pub purge: Seqno,
    /// The uuid of the branch that the seqnos belong to.
    pub vb_uuid: VbUuid,
}

/// The counts of a vBucket as of one boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbCounts {
    /// The counts. Exact, even after recovery. An expired document is counted until it is removed.
    pub counts: Counts,
    /// The persisted seqno of the counts: changes that are only in memory are not counted yet.
    pub as_of: Seqno,
}

/// The streams in progress of a vBucket. A stream is in progress from its opening until its end is
/// taken, it is closed, or its consumer is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbReaders {
    /// The number of streams in progress.
    pub count: u64,
    /// The lowest seqno up to which a consumer of such a stream has taken everything; `None` if
    /// there is no stream. Buffered changes count as not taken.
    pub lowest_taken: Option<Seqno>,
    /// The longest time for which one of their consumers has taken nothing from any of its streams,
    /// although there was something to take. Zero if all consumers take. Consumers are checked at
    /// least every quarter of the stall limit.
    pub idle: Duration,
}

impl VBucket {
    pub(crate) fn new(handle: Arc<EngineHandle>, vb: Arc<Vb>) -> Self {
        Self { handle, vb }
    }

    fn services(&self) -> &Services {
        &self.handle.services
    }

    /// Returns the number of the vBucket.
    #[must_use]
    pub fn id(&self) -> VbId {
        self.vb.id()
    }

    /// Returns the document of a key, or `None` if there is none or it has expired. Reads memory
    /// first, then the disk.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Document>> {
        self.services().points.get(&self.vb, key.as_ref())
    }

    /// Returns the metadata of a key's newest change without reading its document. Includes
    /// tombstones and expired documents: [`ItemMeta::is_present`] tells them apart.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn get_meta(&self, key: impl AsRef<[u8]>) -> Result<Option<ItemMeta>> {
        self.services().points.get_meta(&self.vb, key.as_ref())
    }

    /// Returns the documents of many keys in the order of `keys`, with batched reads from disk. The
    /// keys are read one by one, so the result is not a consistent view of all of them.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Document>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        self.services().points.get_many(&self.vb, &keys)
    }

    /// Returns a page of this vBucket's keys in key order, limited by the slice budget of the
    /// engine's tuning. A range of keys is spread over all vBuckets ([`crate::Engine::for_key`]),
    /// so each has to be read to see the whole range.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that ends before it begins; [`Error::Corruption`],
    /// [`Error::Io`], [`Error::Closed`].
    pub fn range(&self, range: &KeyRange, form: PageForm) -> Result<Page> {
        self.range_within(range, form, self.services().tuning.get().slice_budget)
    }

    /// Like [`Self::range`], with the given budget. Visits at least one key.
    ///
    /// # Errors
    /// As [`Self::range`], and [`Error::Invalid`] for a budget out of bounds.
    pub fn range_within(
        &self,
        range: &KeyRange,
        form: PageForm,
        budget: SliceBudget,
    ) -> Result<Page> {
        let services = self.services();
        services.metrics.operations.pages.add(1);
        let start = services.clock.monotonic();
        let page = services.pages.page(&self.vb, range, form, budget);
        let took = services.clock.monotonic().saturating_sub(start);
        services.metrics.reads.page.observe_time(took);
        page
    }

    /// Returns a page of this vBucket's keys that begin with `prefix`. Continue with
    /// [`Page::rest`]. The keys with a prefix are spread over all vBuckets
    /// ([`crate::Engine::for_key`]), so each has to be read to see them all.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub fn prefix(&self, prefix: impl Into<Bytes>, form: PageForm) -> Result<Page> {
        self.range(&KeyRange::prefix(prefix), form)
    }

    /// Makes one change and blocks until it is as durable as requested. The first change of a
    /// vBucket after an unclean stop of the store begins a new branch of its history. That branch
    /// is synced before the change is made, whatever the durability of the change.
    ///
    /// # Errors
    /// Nothing was changed: [`Error::Invalid`], [`Error::TooLarge`], [`Error::NotFound`],
    /// [`Error::Exists`], [`Error::CasMismatch`], [`Error::Busy`], [`Error::ReadOnly`];
    /// [`Error::Corruption`] or [`Error::Io`] if the current state of the key cannot be read.
    ///
    /// Nothing was changed, or the change may still take effect: [`Error::DiskFull`],
    /// [`Error::Failed`], [`Error::VbFailed`], [`Error::Closed`], [`Error::VbGone`].
    pub fn write(&self, change: Change, durability: Durability) -> Result<WriteReceipt> {
        let written = self.write_and_wait(&[change], durability)?;
        Ok(last(&written))
    }

    /// Makes one change and returns a ticket to wait with. One thread can keep many writes in
    /// flight. May block for room in memory, and for the sync of a new branch as in
    /// [`Self::write`], but not for the durability of the change.
    ///
    /// # Errors
    /// As [`Self::write`], except for the errors of waiting.
    pub fn write_nowait(&self, change: Change, durability: Durability) -> Result<Ticket> {
        self.batch_nowait(&[change], durability)
    }

    /// Makes all changes or none, atomically: no reader, no recovery and no consumer sees only a
    /// part of them. A batch may contain a key only once. The seqnos are consecutive, in the given
    /// order.
    ///
    /// # Errors
    /// As [`Self::write`]; if one change is refused, none is made.
    pub fn batch(&self, changes: &[Change], durability: Durability) -> Result<Vec<WriteReceipt>> {
        self.write_and_wait(changes, durability)
    }

    fn write_and_wait(
        &self,
        changes: &[Change],
        durability: Durability,
    ) -> Result<Vec<WriteReceipt>> {
        let services = self.services();
        let start = services.clock.monotonic();
        let (written, condition) = services.writes.write(&self.vb, changes, durability)?;
        services.committer.wait(&condition, None)?;
        let waits = &services.metrics.durable_wait;
        let waits = match durability {
            Durability::Memory => &waits.memory,
            Durability::Logged => &waits.logged,
            Durability::Synced => &waits.synced,
        };
        waits.observe_time(services.clock.monotonic().saturating_sub(start));
        Ok(written)
    }

    /// Like [`Self::batch`], without waiting. The ticket completes when all changes are as durable
    /// as requested.
    ///
    /// # Errors
    /// As [`Self::batch`], except for the errors of waiting.
    pub fn batch_nowait(&self, changes: &[Change], durability: Durability) -> Result<Ticket> {
        let services = self.services();
        let (written, condition) = services.writes.write(&self.vb, changes, durability)?;
        let committer = Arc::clone(&services.committer);
        let demand = Arc::clone(&services.demand);
        Ok(Ticket::new(committer, demand, condition, last(&written)))
    }

    /// Sets the value of a key, with the engine's default durability.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<WriteReceipt> {
        self.write(Change::set(key, value), self.default_durability())
    }

    /// Inserts a document, with the engine's default durability. Fails if the key has one.
    ///
    /// # Errors
    /// [`Error::Exists`] if the key has a document; otherwise as [`Self::write`].
    pub fn add(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<WriteReceipt> {
        self.write(Change::add(key, value), self.default_durability())
    }

    /// Replaces a document, with the engine's default durability. Fails if the key has none.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key has no document; otherwise as [`Self::write`].
    pub fn replace(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<WriteReceipt> {
        self.write(Change::replace(key, value), self.default_durability())
    }

    /// Deletes the document of a key, with the engine's default durability. Fails if the key has
    /// none.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key has no document; otherwise as [`Self::write`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<WriteReceipt> {
        self.write(Change::delete(key), self.default_durability())
    }

    /// Changes the expiry of a document (seconds since 1970, 0 for never), with the engine's
    /// default durability.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key has no document; otherwise as [`Self::write`].
    pub fn touch(&self, key: impl AsRef<[u8]>, expiry: u32) -> Result<WriteReceipt> {
        self.write(Change::touch(key, expiry), self.default_durability())
    }

    /// Like [`Self::set`], without waiting.
    ///
    /// # Errors
    /// As [`Self::write_nowait`].
    pub fn set_nowait(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Ticket> {
        self.write_nowait(Change::set(key, value), self.default_durability())
    }

    /// Like [`Self::delete`], without waiting.
    ///
    /// # Errors
    /// As [`Self::write_nowait`].
    pub fn delete_nowait(&self, key: impl AsRef<[u8]>) -> Result<Ticket> {
        self.write_nowait(Change::delete(key), self.default_durability())
    }

    fn default_durability(&self) -> Durability {
        self.services().config.durability
    }

    /// Blocks until everything up to `seqno` is synced. May sync on this thread.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a seqno that is not assigned yet; [`Error::NotYetDurable`] after the
    /// time-out; [`Error::DiskFull`], [`Error::Failed`], [`Error::Closed`], [`Error::VbGone`].
    pub fn wait_synced(&self, seqno: Seqno, timeout: Duration) -> Result<()> {
        self.services().gate.check_process()?;
        let cell = &self.vb.cell;
        // Reads both under one lock. Otherwise a deletion in between would make this compare the
        // seqno of one generation with the high seqno of the next, and return `Invalid` instead of
        // `VbGone`.
        let (generation, high) = {
            let inner = cell.lock();
            (cell.generation(), inner.checkpoints.high_seqno())
        };
        if seqno > high {
            return Err(Error::invalid(
                "seqno",
                format!("{seqno} is not assigned yet: the high seqno is {high}"),
            ));
        }
        let level = Durability::Synced;
        let condition = WaitCondition::Durable {
            vb: Arc::clone(&self.vb),
            generation,
            seqno,
            level,
        };
        self.services().committer.wait(&condition, Some(timeout))
    }

    /// Returns the vBucket's high, persisted, synced and purge seqnos. Does not read the disk.
    ///
    /// # Errors
    /// [`Error::Forked`]. Works after the engine was closed.
    pub fn seqnos(&self) -> Result<Seqnos> {
        self.services().gate.check_process()?;
        let cell = &self.vb.cell;
        let inner = cell.lock();
        Ok(Seqnos {
            high: inner.checkpoints.high_seqno(),
            persisted: cell.persisted(),
            synced: cell.synced(),
            purge: inner.state.purge_seqno,
            vb_uuid: inner.state.uuid,
        })
    }

    /// Returns the numbers of documents and tombstones and their size. Does not read the disk.
    ///
    /// # Errors
    /// [`Error::Forked`]. Works after the engine was closed.
    pub fn counts(&self) -> Result<VbCounts> {
        self.services().gate.check_process()?;
        let inner = self.vb.cell.lock();
        Ok(VbCounts {
            counts: inner.state.counts,
            as_of: inner.state.high_seqno,
        })
    }

    /// Returns the progress of the streams of the vBucket. Takes the vBucket's lock briefly, and
    /// then time proportional to the number of its streams.
    ///
    /// # Errors
    /// [`Error::Forked`]. Works after the engine was closed.
    pub fn readers(&self) -> Result<VbReaders> {
        self.services().gate.check_process()?;
        let readers = Arc::clone(&self.vb.cell.lock().readers);
        let readers = readers.stats();
        let now = self.services().clock.monotonic();
        let idle = readers.idle_since.map(|since| now.saturating_sub(since));
        Ok(VbReaders {
            count: readers.count,
            lowest_taken: readers.lowest_taken,
            idle: idle.unwrap_or_default(),
        })
    }

    /// Returns the branches of the vBucket's history, newest first.
    ///
    /// # Errors
    /// [`Error::Forked`]. Works after the engine was closed.
    pub fn failover_log(&self) -> Result<FailoverLog> {
        self.services().gate.check_process()?;
        Ok(self.vb.cell.lock().failover_log.clone())
    }

    /// Reads a bounded run of changes from disk, in seqno order. Opens a db snapshot and releases
    /// it before it returns. The changes may not be synced yet: compare [`Slice::persisted_seqno`]
    /// with [`Seqnos::synced`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that ends before it begins, or a budget out of bounds;
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn scan_slice(&self, range: SeqnoRange, budget: SliceBudget) -> Result<Slice> {
        let services = self.services();
        budget.validate()?;
        if range.to < range.after {
            return Err(Error::invalid("range", "the end is before the start"));
        }
        services.metrics.operations.slices.add(1);
        let start = services.clock.monotonic();
        let slice = services
            .slices
            .read(DbSnapshotHolder::Slice, &self.vb, range, budget);
        let took = services.clock.monotonic().saturating_sub(start);
        services.metrics.reads.slice.observe_time(took);
        slice
    }
}
