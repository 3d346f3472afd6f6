//! Reading by key: memory first, then disk. No db snapshot is opened, except by a read that lost
//! several races with writers in a row.

use super::generation::in_one_generation;
use crate::error::Result;
use crate::gate::Gate;
use crate::numbers::count;
use crate::vbuckets::Vb;
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vbstore_core::show;
use vbstore_core::{Clock, ItemMeta};
use vbstore_metrics::EngineMetrics;

/// A document as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Seqno, kind, CAS, flags, expiry, datatype and value length.
    pub meta: ItemMeta,
    /// The value of the document.
    pub value: Bytes,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("meta", &self.meta)
            .field("value", &show::DebugLength::of(&self.value))
            .finish()
    }
}

/// One of this many reads is timed.
const TIMED_OF: u64 = 16;

/// Keys of [`PointReads::get_many`] that are looked up per hold of the vBucket's lock. Writers and
/// flushes wait for that lock.
const KEYS_PER_LOCK: usize = 256;

/// Reads documents and metadata by key.
pub(crate) struct PointReads {
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<EngineMetrics>,
    /// The number of calls of [`Self::get`], to time one of every [`TIMED_OF`].
    ticks: AtomicU64,
}

impl PointReads {
    pub(crate) fn new(
        gate: &Arc<Gate>,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<EngineMetrics>,
    ) -> Self {
        Self {
            gate: Arc::clone(gate),
            clock: Arc::clone(clock),
            metrics: Arc::clone(metrics),
            ticks: AtomicU64::new(0),
        }
    }

    pub(crate) fn get(&self, vb: &Vb, key: &[u8]) -> Result<Option<Document>> {
        self.metrics.operations.gets.add(1);
        // Not every read is timed, because two clock readings take a tenth of the time of a read
        // from memory.
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
        if !tick.is_multiple_of(TIMED_OF) {
            return self.get_untimed(vb, key);
        }
        let start = self.clock.monotonic();
        let document = self.get_untimed(vb, key);
        let took = self.clock.monotonic().saturating_sub(start);
        self.metrics.reads.get.observe_time(took);
        document
    }

    fn get_untimed(&self, vb: &Vb, key: &[u8]) -> Result<Option<Document>> {
        let storage = self.gate.acquire()?;
        let now = self.clock.wall_seconds();
        let in_memory = vb.cell.lock().checkpoints.get(key).cloned();
        let document = if let Some(item) = in_memory {
            Some(Document {
                meta: item.meta,
                value: item.value.clone(),
            })
        } else {
            let stored = in_one_generation(vb, || storage.document(vb.id(), key))?;
            stored.map(|stored| Document {
                meta: stored.meta,
                value: stored.value,
            })
        };
        Ok(document.filter(|document| document.meta.is_present(now)))
    }

    pub(crate) fn get_meta(&self, vb: &Vb, key: &[u8]) -> Result<Option<ItemMeta>> {
        self.metrics.operations.gets.add(1);
        let storage = self.gate.acquire()?;
        let in_memory = vb.cell.lock().checkpoints.get(key).map(|item| item.meta);
        match in_memory {
            Some(meta) => Ok(Some(meta)),
            None => storage.index_entry(vb.id(), key),
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "each missing key is noted with its place among those found"
    )]
    /// As `get`, key by key, with the look-ups on disk batched.
    pub(crate) fn get_many(&self, vb: &Vb, keys: &[&[u8]]) -> Result<Vec<Option<Document>>> {
        self.metrics.operations.gets.add(count(keys.len()));
        let storage = self.gate.acquire()?;
        let now = self.clock.wall_seconds();
        let mut found: Vec<Option<Document>> = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for chunk in keys.chunks(KEYS_PER_LOCK) {
            let inner = vb.cell.lock();
            for key in chunk {
                let item = inner.checkpoints.get(key);
                if item.is_none() {
                    missing.push((found.len(), *key));
                }
                found.push(item.map(|item| Document {
                    meta: item.meta,
                    value: item.value.clone(),
                }));
            }
        }

        let looked_up: Vec<&[u8]> = missing.iter().map(|(_, key)| *key).collect();
        let entries = storage.index_entries(vb.id(), &looked_up)?;
        let live = missing
            .iter()
            .zip(entries)
            .filter_map(|((index, key), meta)| Some((*index, *key, meta?)))
            .filter(|(_, _, meta)| meta.is_present(now))
            .collect::<Vec<_>>();
        let wanted: Vec<(&[u8], ItemMeta)> =
            live.iter().map(|(_, key, meta)| (*key, *meta)).collect();
        for ((index, key, _), stored) in live.iter().zip(storage.documents_at(vb.id(), &wanted)?) {
            // `None` if the document was replaced meanwhile: read it again on its own.
            let stored = match stored {
                Some(stored) => Some(stored),
                None => in_one_generation(vb, || storage.document(vb.id(), key))?,
            };
            found[*index] = stored.map(|stored| Document {
                meta: stored.meta,
                value: stored.value,
            });
        }
        for place in &mut found {
            place.take_if(|document| !document.meta.is_present(now));
        }
        Ok(found)
    }
}
