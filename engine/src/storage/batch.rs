//! One write to disk, in terms of the engine's records.

use super::database::Storage;
use super::ends::{KEYS_END, SEQNOS_END};
use super::error_map::map;
use super::options::DEFAULT;
use crate::error::{Error, Result};
use crate::numbers::count;
use rocksdb::{WriteBatch, WriteOptions};
use vbstore_core::record::{DocumentRecord, IndexEntry, StoreState, VbState};
use vbstore_core::{FailoverLog, ItemMeta, Seqno, VbId};

/// A key that no record has. A flush deletes it to find out whether a full disk has space again.
const PROBE_KEY: &[u8] = b"probe";

/// Collects the records of one write.
pub(crate) struct RecordBatch<'s> {
    storage: &'s Storage,
    inner: WriteBatch,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for RecordBatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordBatch")
            .field("operations", &self.inner.len())
            .finish_non_exhaustive()
    }
}

impl<'s> RecordBatch<'s> {
    pub(crate) fn new(storage: &'s Storage) -> Self {
        Self {
            storage,
            inner: WriteBatch::default(),
            scratch: Vec::new(),
        }
    }

    /// Returns the size of the batch in RocksDB's log, in bytes.
    pub(crate) fn size(&self) -> u64 {
        count(self.inner.size_in_bytes())
    }

    /// Puts a document under its seqno.
    pub(crate) fn put_document(&mut self, vb: VbId, document: &DocumentRecord<'_>) -> Result<()> {
        let seqno = document.head.meta.seqno;
        document
            .encode(vb, &mut self.scratch)
            .map_err(|e| Error::corrupt_record(vb, Some(seqno), e.0))?;
        self.inner.put_cf(
            self.storage.seqno_family(vb)?,
            seqno.to_key(),
            &self.scratch,
        );
        Ok(())
    }

    /// Deletes the document at a seqno. Does not use RocksDB's `SingleDelete`, which requires that
    /// a key is written only once: a seqno is written again after a rollback.
    pub(crate) fn delete_document(&mut self, vb: VbId, seqno: Seqno) -> Result<()> {
        self.inner
            .delete_cf(self.storage.seqno_family(vb)?, seqno.to_key());
        Ok(())
    }

    /// Puts the index entry of a key, so that this is the key's newest change.
    pub(crate) fn put_index(&mut self, vb: VbId, key: &[u8], meta: ItemMeta) -> Result<()> {
        IndexEntry(meta).encode(vb, key, &mut self.scratch);
        self.inner
            .put_cf(self.storage.key_family(vb)?, key, &self.scratch);
        Ok(())
    }

    /// Deletes the index entry of a key. For purging.
    #[cfg(feature = "testing")]
    pub(crate) fn delete_index(&mut self, vb: VbId, key: &[u8]) -> Result<()> {
        self.inner.delete_cf(self.storage.key_family(vb)?, key);
        Ok(())
    }

    /// Puts the state record of a vBucket.
    pub(crate) fn put_state(&mut self, vb: VbId, state: &VbState) -> Result<()> {
        state.encode(vb, &mut self.scratch);
        let family = self.storage.family(DEFAULT)?;
        self.inner
            .put_cf(family, VbState::storage_key(vb), &self.scratch);
        Ok(())
    }

    /// Puts the failover log of a vBucket.
    pub(crate) fn put_failover_log(&mut self, vb: VbId, log: &FailoverLog) -> Result<()> {
        log.encode(vb, &mut self.scratch);
        let family = self.storage.family(DEFAULT)?;
        self.inner
            .put_cf(family, FailoverLog::storage_key(vb), &self.scratch);
        Ok(())
    }

    /// Puts the state record of the store.
    pub(crate) fn put_store_state(&mut self, state: &StoreState) -> Result<()> {
        state.encode(&mut self.scratch);
        let family = self.storage.family(DEFAULT)?;
        self.inner
            .put_cf(family, StoreState::STORAGE_KEY, &self.scratch);
        Ok(())
    }

    /// Puts the deletion of a record that no store has. The batch then writes to the log without
    /// changing any data.
    pub(crate) fn put_probe(&mut self) -> Result<()> {
        self.inner
            .delete_cf(self.storage.family(DEFAULT)?, PROBE_KEY);
        Ok(())
    }

    /// Deletes every document and every index entry of a vBucket. Reads nothing, because the data
    /// may be damaged, and because a search for the vBucket's last key slows down with each earlier
    /// deletion.
    pub(crate) fn clear_vbucket(&mut self, vb: VbId) -> Result<()> {
        let storage = self.storage;
        let begin: &[u8] = &[];
        self.inner
            .delete_range_cf(storage.seqno_family(vb)?, begin, SEQNOS_END.as_slice());
        self.inner
            .delete_range_cf(storage.key_family(vb)?, begin, KEYS_END.as_slice());
        Ok(())
    }
}

impl Storage {
    /// Writes a batch atomically: all of it or nothing is in the log. With `sync` it is synced
    /// before any reader sees it. Returns RocksDB's sequence number after it. The batch is consumed
    /// even if the write fails.
    pub(crate) fn write(&self, batch: RecordBatch<'_>, sync: bool) -> Result<u64> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db
            .write_opt(batch.inner, &options)
            .map_err(|e| map(&e, "write"))?;
        Ok(self.rocks_sequence())
    }
}
