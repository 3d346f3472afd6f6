//! A read view of the disk at one point in time, lent to one closure.
//!
//! The db snapshot is a local variable of [`with_view`], which opens it first and releases it
//! before it returns. The view cannot leave the closure: the closure must accept a view of *any*
//! lifetime, so its result cannot borrow from the view. Compile-fail tests check each way in which
//! a view could leave.

use rocksdb::{
    ColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, ReadOptions, SingleThreaded,
    SnapshotWithThreadMode,
};

type Db = DBWithThreadMode<SingleThreaded>;

/// A read view of all families at one point in time.
pub(crate) struct ReadView<'v> {
    snapshot: &'v SnapshotWithThreadMode<'v, Db>,
}

/// The key and value of a row.
pub(crate) type RawRow<'r> = (&'r [u8], &'r [u8]);

/// The rows of one family within bounds, in key order.
pub(crate) struct RowIterator<'v> {
    inner: DBRawIteratorWithThreadMode<'v, Db>,
}

/// Opens a db snapshot, lends it to `use_view`, and releases it before it returns, even if
/// `use_view` panics.
pub(crate) fn with_view<R>(db: &Db, use_view: impl for<'v> FnOnce(&ReadView<'v>) -> R) -> R {
    let snapshot = db.snapshot();
    let view = ReadView {
        snapshot: &snapshot,
    };
    use_view(&view)
}

impl<'v> ReadView<'v> {
    /// Returns the value stored under a key.
    ///
    /// # Errors
    /// RocksDB's error if the key's block cannot be read.
    pub(crate) fn get(
        &self,
        family: &ColumnFamily,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, rocksdb::Error> {
        self.snapshot.get_cf(family, key)
    }

    /// Returns the rows with `from <= key < to`, positioned at the first. Tuned for a scan: blocks
    /// read are not added to the cache, checksums are verified, and files that only this scan still
    /// needed are removed in the background.
    pub(crate) fn rows(
        &self,
        family: &ColumnFamily,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> RowIterator<'v> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        options.fill_cache(false);
        options.set_auto_readahead_size(true);
        options.set_verify_checksums(true);
        options.set_background_purge_on_iterator_cleanup(true);
        let mut inner = self.snapshot.raw_iterator_cf_opt(family, options);
        inner.seek_to_first();
        RowIterator { inner }
    }
}

impl RowIterator<'_> {
    /// Returns the key and value of the current row, or `None` at the end.
    ///
    /// # Errors
    /// RocksDB's error if the scan stopped at a block that cannot be read. Without this check, such
    /// a stop would look like the end.
    pub(crate) fn current(&self) -> Result<Option<RawRow<'_>>, rocksdb::Error> {
        match self.inner.item() {
            Some(row) => Ok(Some(row)),
            None => self.inner.status().map(|()| None),
        }
    }

    /// Moves to the next row. Must not be called at the end.
    pub(crate) fn advance(&mut self) {
        self.inner.next();
    }
}
