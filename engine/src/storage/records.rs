//! A view of the disk in our terms: states, failover logs, documents and index entries.

use super::database::Storage;
use super::error_map::map;
use super::options;
use super::view::{Rows, View, with_view};
use crate::error::{Error, Result};
use vbstore_core::record::{Document, IndexEntry, StoreState, VbState};
use vbstore_core::{FailoverLog, ItemMeta, Seqno, VbId};
use vbstore_metrics::{ClockFn, Holder};

/// The records as of one moment. Lent by [`Storage::with_records`].
pub(crate) struct Records<'a, 'v> {
    storage: &'a Storage,
    view: &'a View<'v>,
}

impl Storage {
    /// Lends a view of the disk to `read`; the db snapshot behind it is counted, opened after this
    /// call begins and given back before it returns. While it is open the caller must not wait for
    /// a lock, send, call back or sleep.
    pub(crate) fn with_records<R>(
        &self,
        holder: Holder,
        read: impl for<'a, 'v> FnOnce(&Records<'a, 'v>) -> R,
    ) -> R {
        // ORDER: counted first, opened second; given back first, uncounted second.
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
    /// Returns the state of a vBucket.
    pub(crate) fn state(&self, vb: VbId) -> Result<VbState> {
        let record = self.named(&VbState::storage_key(vb))?;
        let record =
            record.ok_or_else(|| Error::corrupt_record(vb, None, "state record missing"))?;
        VbState::decode(vb, &record)
            .map_err(|e| Error::corrupt_record(vb, None, format!("state record: {e}")))
    }

    /// Returns the failover log of a vBucket.
    pub(crate) fn failover_log(&self, vb: VbId) -> Result<FailoverLog> {
        let record = self.named(&FailoverLog::storage_key(vb))?;
        let record =
            record.ok_or_else(|| Error::corrupt_record(vb, None, "failover log missing"))?;
        FailoverLog::decode(vb, &record)
            .map_err(|e| Error::corrupt_record(vb, None, format!("failover log: {e}")))
    }

    /// Returns the state of the store; the default if it was made before there was such a record.
    pub(crate) fn store_state(&self) -> Result<StoreState> {
        let Some(record) = self.named(StoreState::STORAGE_KEY)? else {
            return Ok(StoreState::default());
        };
        StoreState::decode(&record)
            .map_err(|e| Error::corrupt_file("db", format!("record of the store: {e}")))
    }

    fn named(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let family = self.storage.family(options::DEFAULT)?;
        self.view
            .get(family, key)
            .map_err(|e| map(&e, "read a record"))
    }

    /// Returns the newest change of a key.
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

    /// Returns the record of the document at a seqno.
    pub(crate) fn document_record(&self, vb: VbId, seqno: Seqno) -> Result<Option<Vec<u8>>> {
        let family = self.storage.seqno_family(vb)?;
        self.view
            .get(family, &seqno.to_key())
            .map_err(|e| map(&e, "read a document"))
    }

    /// Calls `visit` with seqno and record of each document with `from <= seqno < to`, in order,
    /// until it returns false. Returns whether all were visited.
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
            let seqno = Seqno::from_key(key)
                .ok_or_else(|| Error::corrupt_record(vb, None, "seqno key of a wrong length"))?;
            visit(seqno, record)
        })
    }

    /// Calls `visit` with key and record of each index entry with `from <= key < to`, in order,
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
        walk(&mut rows, "scan the superseded list", visit)
    }
}

/// Visits rows until one refuses; an end that is an error is one.
fn walk(
    rows: &mut Rows<'_>,
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

/// Reads a document's record; one that does not decode is corruption at its seqno.
pub(crate) fn decode_document(vb: VbId, seqno: Seqno, record: &[u8]) -> Result<Document<'_>> {
    Document::decode(vb, seqno, record)
        .map_err(|e| Error::corrupt_record(vb, Some(seqno), format!("document: {e}")))
}

/// Reads an index entry's record; one that does not decode is corruption.
pub(crate) fn decode_index_entry(vb: VbId, key: &[u8], record: &[u8]) -> Result<ItemMeta> {
    IndexEntry::decode(vb, key, record)
        .map(|entry| entry.0)
        .map_err(|e| {
            let key = String::from_utf8_lossy(key);
            Error::corrupt_record(vb, None, format!("index entry of key {key:?}: {e}"))
        })
}
