//! A view of the disk as of one moment, lent to one closure.
//!
//! The db snapshot is a local variable of [`with_view`]: opened in its first lines and given back
//! before it returns. What is lent cannot leave: the closure must accept a view of *any* lifetime,
//! so its result cannot borrow from it. Compile-fail cases in the tests pin each way out.

use rocksdb::{
    ColumnFamily, DBRawIteratorWithThreadMode, DBWithThreadMode, ReadOptions, SingleThreaded,
    SnapshotWithThreadMode,
};

type Db = DBWithThreadMode<SingleThreaded>;

/// A read view of all families as of one moment.
pub(crate) struct View<'v> {
    snapshot: &'v SnapshotWithThreadMode<'v, Db>,
}

/// Key and value of a row.
pub(crate) type Row<'r> = (&'r [u8], &'r [u8]);

/// The rows of one family within bounds, in key order.
pub(crate) struct Rows<'v> {
    inner: DBRawIteratorWithThreadMode<'v, Db>,
}

/// Opens a db snapshot, lends it to `use_view`, and gives it back before it returns, also when
/// `use_view` panics.
pub(crate) fn with_view<R>(db: &Db, use_view: impl for<'v> FnOnce(&View<'v>) -> R) -> R {
    let snapshot = db.snapshot();
    let view = View {
        snapshot: &snapshot,
    };
    use_view(&view)
}

impl<'v> View<'v> {
    /// Returns the value stored under a key.
    ///
    /// # Errors
    /// RocksDB's, when the key's block cannot be read.
    pub(crate) fn get(
        &self,
        family: &ColumnFamily,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, rocksdb::Error> {
        self.snapshot.get_cf(family, key)
    }

    /// Returns the rows with `from <= key < to`, positioned at the first. Meant for a scan: blocks
    /// do not stay in the cache, checksums are verified, and files that the scan was the last to
    /// need are removed in the background.
    pub(crate) fn rows(&self, family: &ColumnFamily, from: &[u8], to: Option<&[u8]>) -> Rows<'v> {
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
        Rows { inner }
    }
}

impl Rows<'_> {
    /// Returns the row it stands at: key and value. `None` at the end.
    ///
    /// # Errors
    /// RocksDB's, when the scan stopped because a block cannot be read: an iterator that ends is
    /// not one that has seen everything.
    pub(crate) fn current(&self) -> Result<Option<Row<'_>>, rocksdb::Error> {
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
