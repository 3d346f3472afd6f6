//! The operations on one vBucket.

use crate::change::{Change, Written};
use crate::commit::{Ticket, Want};
use crate::config::SliceBudget;
use crate::durability::Durability;
use crate::error::{Error, Result};
use crate::handle::Handle;
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
use vbstore_metrics::Holder;

/// One vBucket of an engine. Cheap to clone; every clone keeps the engine open. All methods may be
/// called from any thread.
///
/// Reads see every change that has been given a seqno, whether or not it is durable yet: a crash may take
/// back what was read, also where every write is [`Durability::Synced`], because a reader can be faster
/// than the sync that the writer waits for. [`VBucket::wait_synced`] waits for what was read.
///
/// Whether a document has expired is judged once in a call, for a conditional change when its condition
/// is; the clock may have passed the expiry when the call returns.
#[derive(Clone)]
pub struct VBucket {
    handle: Arc<Handle>,
    vb: Arc<Vb>,
}

impl fmt::Debug for VBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VBucket").field(&self.id()).finish()
    }
}

/// How far a vBucket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seqnos {
    /// The last one assigned.
    pub high: Seqno,
    /// Everything up to it is in RocksDB's log. A boundary.
    pub persisted: Seqno,
    /// Everything up to it is synced. A boundary.
    pub synced: Seqno,
    /// The highest seqno of a tombstone that was removed for good.
    pub purge: Seqno,
    /// The branch of history they belong to.
    pub vb_uuid: VbUuid,
}

/// What a vBucket holds, as of one boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbCounts {
    /// The counts. Exact, also after recovery. An expired document counts until it is swept.
    pub counts: Counts,
    /// The persisted seqno they are of: changes in memory only are not counted yet.
    pub as_of: Seqno,
}

/// The streams in progress of a vBucket: from their opening until their end is taken, they are closed,
/// or their consumers are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbReaders {
    /// How many there are.
    pub count: u64,
    /// The least seqno up to which one of their consumers has taken everything; `None` if there is no
    /// stream. What is only buffered counts as not taken.
    pub lowest_taken: Option<Seqno>,
    /// For how long one of their consumers has taken nothing, of any of its streams, although there was
    /// something to take: the longest, zero if all take. Noticed when consumers are looked at, at least
    /// every quarter of the stall limit.
    pub idle: Duration,
}

impl VBucket {
    pub(crate) fn new(handle: Arc<Handle>, vb: Arc<Vb>) -> Self {
        Self { handle, vb }
    }

    fn services(&self) -> &Services {
        &self.handle.services
    }

    /// Returns its id.
    #[must_use]
    pub fn id(&self) -> VbId {
        self.vb.id()
    }

    /// Returns the document of a key, or `None` if it has none or it has expired.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Document>> {
        self.services().points.get(&self.vb, key.as_ref())
    }

    /// Returns what is known of a key's newest change without reading its document. Tombstones and
    /// expired documents are returned too: [`ItemMeta::is_present`] tells.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn get_meta(&self, key: impl AsRef<[u8]>) -> Result<Option<ItemMeta>> {
        self.services().points.get_meta(&self.vb, key.as_ref())
    }

    /// Returns the documents of many keys, in their order, with the reads from disk batched. The
    /// keys are read one by one: this is no consistent view of all of them.
    ///
    /// # Errors
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Document>>> {
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        self.services().points.get_many(&self.vb, &keys)
    }

    /// Returns a page of this vBucket's keys in key order, with the budget of the engine's tuning. A range
    /// of keys is spread over all vBuckets ([`crate::Engine::for_key`]): to see all of it, read each.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that ends before it begins; [`Error::Corruption`],
    /// [`Error::Io`], [`Error::Closed`].
    pub fn range(&self, range: &KeyRange, form: PageForm) -> Result<Page> {
        self.range_within(range, form, self.services().tuning.get().slice_budget)
    }

    /// The same with a budget of its own. At least one key is looked at.
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

    /// Returns a page of this vBucket's keys that begin with `prefix`; go on with [`Page::rest`]. The keys
    /// of a prefix are spread over all vBuckets ([`crate::Engine::for_key`]): to see all, read each.
    ///
    /// # Errors
    /// As [`Self::range`].
    pub fn prefix(&self, prefix: impl Into<Bytes>, form: PageForm) -> Result<Page> {
        self.range(&KeyRange::prefix(prefix), form)
    }

    /// Makes one change with this durability and waits for it. The first change of a vBucket after an
    /// unclean stop of the store begins a new branch of its history, which is synced before the change
    /// is made, whatever its durability.
    ///
    /// # Errors
    /// Nothing was changed: [`Error::Invalid`], [`Error::TooLarge`], [`Error::NotFound`],
    /// [`Error::Exists`], [`Error::CasMismatch`], [`Error::Busy`], [`Error::ReadOnly`]; [`Error::Corruption`] or [`Error::Io`]
    /// if the state of a key cannot be read. Nothing was changed, or it may be there later:
    /// [`Error::DiskFull`], [`Error::Failed`], [`Error::VbFailed`], [`Error::Closed`], [`Error::VbGone`].
    pub fn write(&self, change: Change, durability: Durability) -> Result<Written> {
        let written = self.write_and_wait(&[change], durability)?;
        Ok(last(&written))
    }

    /// Makes one change and returns a ticket to wait with. One thread can keep many in flight. Waits for
    /// room in memory, and where [`Self::write`] syncs a new branch; not for the change's durability.
    ///
    /// # Errors
    /// As [`Self::write`], except for those of waiting.
    pub fn write_nowait(&self, change: Change, durability: Durability) -> Result<Ticket> {
        self.batch_nowait(&[change], durability)
    }

    /// Makes all of the changes or none, in one step: no reader, no recovery and no consumer sees
    /// a part of them. A key may be in it once. The seqnos are consecutive, in the given order.
    ///
    /// # Errors
    /// As [`Self::write`]; one refused change refuses all.
    pub fn batch(&self, changes: &[Change], durability: Durability) -> Result<Vec<Written>> {
        self.write_and_wait(changes, durability)
    }

    fn write_and_wait(&self, changes: &[Change], durability: Durability) -> Result<Vec<Written>> {
        let services = self.services();
        let start = services.clock.monotonic();
        let (written, want) = services.writes.write(&self.vb, changes, durability)?;
        services.committer.wait(&want, None)?;
        let waits = &services.metrics.durable_wait;
        let waits = match durability {
            Durability::Memory => &waits.memory,
            Durability::Logged => &waits.logged,
            Durability::Synced => &waits.synced,
        };
        waits.observe_time(services.clock.monotonic().saturating_sub(start));
        Ok(written)
    }

    /// Like [`Self::batch`], without waiting. The ticket completes when all changes are as durable as
    /// asked.
    ///
    /// # Errors
    /// As [`Self::batch`], except for those of waiting.
    pub fn batch_nowait(&self, changes: &[Change], durability: Durability) -> Result<Ticket> {
        let services = self.services();
        let (written, want) = services.writes.write(&self.vb, changes, durability)?;
        let committer = Arc::clone(&services.committer);
        let demand = Arc::clone(&services.demand);
        Ok(Ticket::new(committer, demand, want, last(&written)))
    }

    /// Sets the value of a key, with the engine's default durability.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.write(Change::set(key, value), self.default_durability())
    }

    /// Inserts a document, with the engine's default durability.
    ///
    /// # Errors
    /// [`Error::Exists`] if the key has one; as [`Self::write`].
    pub fn add(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.write(Change::add(key, value), self.default_durability())
    }

    /// Replaces a document, with the engine's default durability.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the key has none; as [`Self::write`].
    pub fn replace(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.write(Change::replace(key, value), self.default_durability())
    }

    /// Deletes the document of a key, with the engine's default durability.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written> {
        self.write(Change::delete(key), self.default_durability())
    }

    /// Gives a key's document another expiry, with the engine's default durability.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn touch(&self, key: impl AsRef<[u8]>, expiry: u32) -> Result<Written> {
        self.write(Change::touch(key, expiry), self.default_durability())
    }

    /// As [`Self::set`], without waiting.
    ///
    /// # Errors
    /// As [`Self::write_nowait`].
    pub fn set_nowait(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Ticket> {
        self.write_nowait(Change::set(key, value), self.default_durability())
    }

    /// As [`Self::delete`], without waiting.
    ///
    /// # Errors
    /// As [`Self::write_nowait`].
    pub fn delete_nowait(&self, key: impl AsRef<[u8]>) -> Result<Ticket> {
        self.write_nowait(Change::delete(key), self.default_durability())
    }

    fn default_durability(&self) -> Durability {
        self.services().config.durability
    }

    /// Waits until everything up to `seqno` is synced; asks for the sync.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a seqno that was not assigned yet; [`Error::NotYetDurable`] when the
    /// time is over; [`Error::DiskFull`], [`Error::Failed`], [`Error::Closed`], [`Error::VbGone`].
    pub fn wait_synced(&self, seqno: Seqno, timeout: Duration) -> Result<()> {
        self.services().gate.check_process()?;
        let cell = &self.vb.cell;
        let generation = cell.generation();
        let high = cell.lock().checkpoints.high_seqno();
        if seqno > high {
            return Err(Error::invalid(
                "seqno",
                format!("{seqno} is above the high seqno {high}"),
            ));
        }
        let level = Durability::Synced;
        let want = Want::Durable {
            vb: Arc::clone(&self.vb),
            generation,
            seqno,
            level,
        };
        self.services().committer.wait(&want, Some(timeout))
    }

    /// Returns how far the vBucket has come.
    ///
    /// # Errors
    /// [`Error::Forked`]; the engine may be closed.
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

    /// Returns what the vBucket holds.
    ///
    /// # Errors
    /// [`Error::Forked`]; the engine may be closed.
    pub fn counts(&self) -> Result<VbCounts> {
        self.services().gate.check_process()?;
        let inner = self.vb.cell.lock();
        Ok(VbCounts {
            counts: inner.state.counts,
            as_of: inner.state.high_seqno,
        })
    }

    /// Returns which streams of it are in progress. Takes the vBucket's lock for a moment, then as long
    /// as it has streams.
    ///
    /// # Errors
    /// [`Error::Forked`]; the engine may be closed.
    pub fn readers(&self) -> Result<VbReaders> {
        self.services().gate.check_process()?;
        let readers = Arc::clone(&self.vb.cell.lock().readers);
        let figures = readers.figures();
        let now = self.services().clock.monotonic();
        let idle = figures.idle_since.map(|since| now.saturating_sub(since));
        Ok(VbReaders {
            count: figures.count,
            lowest_taken: figures.lowest_taken,
            idle: idle.unwrap_or_default(),
        })
    }

    /// Returns the branches of its history, newest first.
    ///
    /// # Errors
    /// [`Error::Forked`]; the engine may be closed.
    pub fn failover_log(&self) -> Result<FailoverLog> {
        self.services().gate.check_process()?;
        Ok(self.vb.cell.lock().failover_log.clone())
    }

    /// Reads a bounded run of what is on disk, in seqno order. Opens a db snapshot and gives it
    /// back before it returns. What it shows may not be synced yet: compare
    /// [`Slice::persisted_seqno`] with [`Seqnos::synced`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a range that ends before it begins or a budget out of bounds;
    /// [`Error::Corruption`], [`Error::Io`], [`Error::Closed`].
    pub fn scan_slice(&self, range: SeqnoRange, budget: SliceBudget) -> Result<Slice> {
        let services = self.services();
        budget.validate()?;
        if range.to < range.after {
            return Err(Error::invalid("range", "ends before it begins"));
        }
        services.metrics.operations.slices.add(1);
        let start = services.clock.monotonic();
        let slice = services.slices.read(Holder::Slice, &self.vb, range, budget);
        let took = services.clock.monotonic().saturating_sub(start);
        services.metrics.reads.slice.observe_time(took);
        slice
    }
}
