//! A view of the disk in the engine's terms: states, failover logs, documents and index entries.

use super::database::Storage;
use super::error_map::map;
use super::options;
use super::view::{ReadView, RowIterator, with_view};
use crate::error::{Error, Result};
use vbstore_core::record::{DocumentRecord, IndexEntry, StoreState, VbState};
use vbstore_core::{FailoverLog, ItemMeta, Seqno, VbId};
use vbstore_metrics::{ClockFn, DbSnapshotHolder};

/// The records of a store at one point in time. Lent by [`Storage::with_records`].
pub(crate) struct Records<'a, 'v> {
    storage: &'a Storage,
    view: &'a ReadView<'v>,
}

impl Storage {
    /// Lends a view of the disk to `read`. The db snapshot is opened by this call, counted in the
    /// metrics under `holder`, and released before the call returns. Meanwhile `read` must not wait
    /// for a lock, send, call back or sleep: an open db snapshot keeps old data on disk.
    pub(crate) fn with_records<R>(
        &self,
        holder: DbSnapshotHolder,
        read: impl for<'a, 'v> FnOnce(&Records<'a, 'v>) -> R,
    ) -> R {
        // ORDER: count first, open second; release first, uncount second.
        let _guard = self
            .db_snapshots
            .open(holder, ClockFn::clone(&self.clock_fn));
        with_view(&self.db, |view| {
            read(&Records {
                storage: self,
                view,
            })
        })
    }
}

impl Records<'_, '_> {
    /// Returns the state of a vBucket. A missing record is corruption.
    pub(crate) fn state(&self, vb: VbId) -> Result<VbState> {
        let record = self.named(&VbState::storage_key(vb))?;
        let record =
            record.ok_or_else(|| Error::corrupt_record(vb, None, "the state record is missing"))?;
        VbState::decode(vb, &record)
            .map_err(|e| Error::corrupt_record(vb, None, format!("state record: {e}")))
    }

    /// Returns the failover log of a vBucket. A missing record is corruption.
    pub(crate) fn failover_log(&self, vb: VbId) -> Result<FailoverLog> {
        let record = self.named(&FailoverLog::storage_key(vb))?;
        let record =
            record.ok_or_else(|| Error::corrupt_record(vb, None, "the failover log is missing"))?;
        FailoverLog::decode(vb, &record)
            .map_err(|e| Error::corrupt_record(vb, None, format!("failover log: {e}")))
    }

    /// Returns the state of the store, or the default for a store from before this record existed.
    pub(crate) fn store_state(&self) -> Result<StoreState> {
        let Some(record) = self.named(StoreState::STORAGE_KEY)? else {
            return Ok(StoreState::default());
        };
        StoreState::decode(&record)
            .map_err(|e| Error::corrupt_file("db", format!("state record of the store: {e}")))
    }

    fn named(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let family = self.storage.family(options::DEFAULT)?;
        self.view
            .get(family, key)
            .map_err(|e| map(&e, "read a record"))
    }

    /// Returns the metadata of a key's newest change, or `None` if the key was never changed.
    pub(crate) fn index_entry(&self, vb: VbId, key: &[u8]) -> Result<Option<ItemMeta>> {
        let family = self.storage.key_family(vb)?;
        let record = self
            .view
            .get(family, key)
            .map_err(|e| map(&e, "read an index entry"))?;
        record
            .map(|record| decode_index_entry(vb, key, &record))
            .transpose()
    }

    /// Returns the encoded record of the document at a seqno.
    pub(crate) fn document_record(&self, vb: VbId, seqno: Seqno) -> Result<Option<Vec<u8>>> {
        let family = self.storage.seqno_family(vb)?;
        self.view
            .get(family, &seqno.to_key())
            .map_err(|e| map(&e, "read a document"))
    }

    /// Calls `visit` with the seqno and record of each document with `from <= seqno < to`, in
    /// order, until it returns false. Returns whether all were visited.
    pub(crate) fn documents(
        &self,
        vb: VbId,
        from: Seqno,
        to: Seqno,
        mut visit: impl FnMut(Seqno, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let family = self.storage.seqno_family(vb)?;
        let mut rows = self.view.rows(family, &from.to_key(), Some(&to.to_key()));
        walk(&mut rows, "scan documents", |key, record| {
            let seqno = Seqno::from_key(key).ok_or_else(|| {
                Error::corrupt_record(vb, None, "the key of a document is not a seqno")
            })?;
            visit(seqno, record)
        })
    }

    /// Calls `visit` with the key and record of each index entry with `from <= key < to`, in order,
    /// until it returns false. Returns whether all were visited.
    pub(crate) fn index_records(
        &self,
        vb: VbId,
        from: &[u8],
        to: Option<&[u8]>,
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let mut rows = self.view.rows(self.storage.key_family(vb)?, from, to);
        walk(&mut rows, "scan the index", visit)
    }

    /// Calls `visit` with each row of the list of superseded entries.
    pub(crate) fn superseded_rows(
        &self,
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let mut rows = self
            .view
            .rows(self.storage.family(options::SUPERSEDED)?, &[], None);
        walk(&mut rows, "scan the superseded entries", visit)
    }
}

/// Visits rows until `visit` returns false. Returns whether all were visited. A block that cannot
/// be read is an error, not the end.
fn walk(
    rows: &mut RowIterator<'_>,
    context: &str,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
) -> Result<bool> {
    while let Some((key, value)) = rows.current().map_err(|e| map(&e, context))? {
        if !visit(key, value)? {
            return Ok(false);
        }
        rows.advance();
    }
    Ok(true)
}

/// Decodes the record of a document. Returns a corruption error with its seqno if that fails.
pub(crate) fn decode_document(vb: VbId, seqno: Seqno, record: &[u8]) -> Result<DocumentRecord<'_>> {
    DocumentRecord::decode(vb, seqno, record)
        .map_err(|e| Error::corrupt_record(vb, Some(seqno), format!("document: {e}")))
}

/// Decodes the record of an index entry. Returns a corruption error with its key if that fails.
pub(crate) fn decode_index_entry(vb: VbId, key: &[u8], record: &[u8]) -> Result<ItemMeta> {
    IndexEntry::decode(vb, key, record)
        .map(|entry| entry.0)
        .map_err(|e| {
            let key = String::from_utf8_lossy(key);
            Error::corrupt_record(vb, None, format!("index entry of key {key:?}: {e}"))
        })
}
