//! Shared by the benches: RocksDB by itself, with the same families and options as the engine.

use rocksdb::{ColumnFamily, DB, WriteBatch, WriteOptions};
use std::path::Path;
use vbstore::{Config, Durability, Engine, VbId};
use vbstore_core::record::{DocumentHead, DocumentRecord, IndexEntry};
use vbstore_core::{Cas, ItemKind, ItemMeta, Seqno};
use vbstore_engine::raw::{FamilyOptions, StorageConfig, key_family, seqno_family};

/// Number of vBuckets in every bench.
pub const VBUCKETS: u16 = 16;

/// Opens an engine with threads and the default tuning.
pub fn engine(path: &Path, durability: Durability) -> anyhow::Result<Engine> {
    let config = Config {
        vbuckets: Some(VBUCKETS),
        durability,
        ..Config::default()
    };
    Ok(Engine::builder(path).config(config).open()?)
}

/// RocksDB by itself, the lower bound to compare the engine with.
pub struct Raw {
    db: DB,
    sync: bool,
}

impl Raw {
    /// Creates a database with the engine's families and options.
    pub fn create(path: &Path, sync: bool) -> anyhow::Result<Self> {
        let options = FamilyOptions::new(StorageConfig {
            vbuckets: VBUCKETS,
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 256 << 20,
            open_files_max: 1_000,
        });
        let mut database = options.database();
        database.create_if_missing(true);
        database.create_missing_column_families(true);
        let db = DB::open_cf_descriptors(&database, path, options.families())?;
        Ok(Self { db, sync })
    }

    fn family(&self, name: &str) -> anyhow::Result<&ColumnFamily> {
        self.db
            .cf_handle(name)
            .ok_or_else(|| anyhow::anyhow!("no family {name}"))
    }

    /// Puts the two records that the engine writes for a new key, in one batch.
    pub fn put(&self, vb: VbId, seqno: u64, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let meta = ItemMeta {
            seqno: Seqno::new(seqno),
            kind: ItemKind::Mutation,
            cas: Cas::new(seqno),
            flags: 0,
            expiry: 0,
            datatype: 0,
            value_len: u32::try_from(value.len())?,
        };
        let head = DocumentHead {
            meta,
            is_last_of_checkpoint: true,
            prev_seqno: Seqno::ZERO,
        };
        let mut record = Vec::new();
        DocumentRecord { head, key, value }.encode(vb, &mut record)?;
        let mut batch = WriteBatch::default();
        batch.put_cf(
            self.family(&seqno_family(vb))?,
            Seqno::new(seqno).to_key(),
            &record,
        );
        IndexEntry(meta).encode(vb, key, &mut record);
        batch.put_cf(self.family(&key_family(vb))?, key, &record);
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        Ok(self.db.write_opt(batch, &options)?)
    }

    /// Reads every record of a vBucket's seqno family with one iterator; returns the sum of its
    /// bytes.
    pub fn scan(&self, vb: VbId) -> anyhow::Result<u64> {
        let mut options = rocksdb::ReadOptions::default();
        options.fill_cache(false);
        let mut rows = self
            .db
            .raw_iterator_cf_opt(self.family(&seqno_family(vb))?, options);
        let mut sum = 0_u64;
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            sum += checksum(key) + checksum(value);
            rows.next();
        }
        rows.status()?;
        Ok(sum)
    }

    /// Flushes both families of a vBucket to files.
    pub fn flush(&self, vb: VbId) -> anyhow::Result<()> {
        self.db.flush_cf(self.family(&seqno_family(vb))?)?;
        Ok(self.db.flush_cf(self.family(&key_family(vb))?)?)
    }
}

/// Sums up bytes; the result is used, so the compiler cannot optimise the read away.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum + u64::from(*byte))
}
