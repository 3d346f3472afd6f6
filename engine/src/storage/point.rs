//! Point reads, which take no db snapshot.
//!
//! Reading a document takes two steps, first the index entry and then the document. A flush may
//! replace both in between. Then the document is gone, or has another key, and the read starts
//! over. After a few attempts it reads both through one view, where this cannot happen.

use super::database::Storage;
use super::error_map::map;
use super::records::{decode_document, decode_index_entry};
use crate::error::{Error, Result};
use bytes::Bytes;
use rocksdb::ReadOptions;
use vbstore_core::{ItemMeta, Seqno, VbId};
use vbstore_metrics::DbSnapshotHolder;

/// The number of attempts of a read that races with writers, before it opens a view.
const ROUNDS_MAX: usize = 3;

/// A document as it is on disk.
#[derive(Clone, Debug)]
pub(crate) struct StoredDocument {
    pub(crate) meta: ItemMeta,
    pub(crate) value: Bytes,
}

impl Storage {
    /// Returns the metadata of a key's newest change on disk.
    pub(crate) fn index_entry(&self, vb: VbId, key: &[u8]) -> Result<Option<ItemMeta>> {
        let record = self
            .db
            .get_pinned_cf(self.key_family(vb)?, key)
            .map_err(|e| map(&e, "read an index entry").in_vbucket(vb))?;
        record
            .map(|record| decode_index_entry(vb, key, &record))
            .transpose()
    }

    /// Like [`Self::index_entry`] for many keys of a vBucket, in one batched read and in their
    /// order.
    pub(crate) fn index_entries(&self, vb: VbId, keys: &[&[u8]]) -> Result<Vec<Option<ItemMeta>>> {
        let family = self.key_family(vb)?;
        let wanted = keys.iter().map(|key| (family, *key));
        let records = self.db.multi_get_cf_opt(wanted, &ReadOptions::default());
        keys.iter()
            .zip(records)
            .map(|(key, record)| {
                let record = record.map_err(|e| map(&e, "read index entries").in_vbucket(vb))?;
                record
                    .map(|record| decode_index_entry(vb, key, &record))
                    .transpose()
            })
            .collect()
    }

    /// Returns the newest change of a key on disk with its value.
    pub(crate) fn document(&self, vb: VbId, key: &[u8]) -> Result<Option<StoredDocument>> {
        for _ in 0..ROUNDS_MAX {
            let Some(meta) = self.index_entry(vb, key)? else {
                return Ok(None);
            };
            if let Some(document) = self.document_at(vb, key, meta)? {
                return Ok(Some(document));
            }
        }
        self.document_in_one_view(vb, key)
    }

    /// Returns the document of an index entry, or `None` if it was replaced meanwhile.
    pub(crate) fn document_at(
        &self,
        vb: VbId,
        key: &[u8],
        meta: ItemMeta,
    ) -> Result<Option<StoredDocument>> {
        // A tombstone has no value, so its index entry says everything.
        if !meta.kind.is_live() {
            return Ok(Some(StoredDocument {
                meta,
                value: Bytes::new(),
            }));
        }
        let record = self
            .db
            .get_pinned_cf(self.seqno_family(vb)?, meta.seqno.to_key())
            .map_err(|e| map(&e, "read a document").in_vbucket(vb))?;
        record.map_or(Ok(None), |record| {
            own_document(vb, key, meta.seqno, &record)
        })
    }

    /// Like [`Self::document_at`] for many keys, in one batched read and in their order. All must
    /// be live.
    pub(crate) fn documents_at(
        &self,
        vb: VbId,
        keys: &[(&[u8], ItemMeta)],
    ) -> Result<Vec<Option<StoredDocument>>> {
        let family = self.seqno_family(vb)?;
        let wanted = keys.iter().map(|(_, meta)| (family, meta.seqno.to_key()));
        let records = self.db.multi_get_cf_opt(wanted, &ReadOptions::default());
        keys.iter()
            .zip(records)
            .map(|((key, meta), record)| {
                let record = record.map_err(|e| map(&e, "read documents").in_vbucket(vb))?;
                record.map_or(Ok(None), |record| {
                    own_document(vb, key, meta.seqno, &record)
                })
            })
            .collect()
    }

    fn document_in_one_view(&self, vb: VbId, key: &[u8]) -> Result<Option<StoredDocument>> {
        self.with_records(DbSnapshotHolder::Admin, |records| {
            let Some(meta) = records.index_entry(vb, key)? else {
                return Ok(None);
            };
            if !meta.kind.is_live() {
                return Ok(Some(StoredDocument {
                    meta,
                    value: Bytes::new(),
                }));
            }
            let record = records.document_record(vb, meta.seqno)?;
            let document = match record {
                Some(record) => own_document(vb, key, meta.seqno, &record)?,
                None => None,
            };
            document.map(Some).ok_or_else(|| {
                let key = String::from_utf8_lossy(key);
                let detail = format!("the document of key {key:?} is missing");
                Error::corrupt_record(vb, Some(meta.seqno), detail)
            })
        })
    }
}

/// Copies a document from its record. Returns `None` if it has another key.
fn own_document(
    vb: VbId,
    key: &[u8],
    seqno: Seqno,
    record: &[u8],
) -> Result<Option<StoredDocument>> {
    let document = decode_document(vb, seqno, record)?;
    if document.key != key {
        return Ok(None);
    }
    Ok(Some(StoredDocument {
        meta: document.head.meta,
        value: Bytes::copy_from_slice(document.value),
    }))
}
