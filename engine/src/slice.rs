//! A slice: a bounded run of a vBucket's changes in seqno order, read from disk.

use crate::numbers::count;
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use vbstore_core::record::Counts;
use vbstore_core::show;
use vbstore_core::{ItemMeta, Seqno, VbId, VbUuid};

/// A range of seqnos: above `after`, up to and including `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqnoRange {
    /// The position of the reader, which has everything up to it.
    pub after: Seqno,
    /// The last seqno to read; [`Seqno::MAX`] for no upper limit.
    pub to: Seqno,
}

impl SeqnoRange {
    /// Returns the range of everything above a position.
    #[must_use]
    pub const fn above(after: Seqno) -> Self {
        Self {
            after,
            to: Seqno::MAX,
        }
    }
}

/// A request of a stream for a slice: the changes of one vBucket above a seqno.
#[derive(Clone, Copy, Debug)]
pub struct SliceRequest {
    /// The vBucket to read.
    pub vb: VbId,
    /// Only changes above this seqno are read.
    pub after: Seqno,
}

/// Why a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SliceEnd {
    /// The slice contains everything up to the end of the range, or to the end of the view.
    Complete,
    /// The budget of items, bytes or time was used up.
    Budget,
}

/// One change in a slice.
#[derive(Clone, Copy)]
pub struct SliceItem<'a> {
    /// Seqno, kind, CAS, flags, expiry, datatype and value length.
    pub meta: ItemMeta,
    /// The seqno of the change of the same key that it replaced; 0 if it replaced none.
    pub prev_seqno: Seqno,
    /// Whether the seqno is a boundary.
    pub is_last_of_checkpoint: bool,
    /// The key of the document.
    pub key: &'a [u8],
    /// The value, empty for a tombstone.
    pub value: &'a [u8],
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice")
            .field("position", &self.position)
            .field("end", &self.end)
            .field("persisted_seqno", &self.persisted_seqno)
            .field("items", &self.rows.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SliceItem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SliceItem")
            .field("meta", &self.meta)
            .field("prev_seqno", &self.prev_seqno)
            .field("key", &show::DebugKey(self.key))
            .field("value", &show::DebugLength::of(self.value))
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SliceRow {
    pub(crate) meta: ItemMeta,
    pub(crate) prev_seqno: Seqno,
    pub(crate) is_last_of_checkpoint: bool,
    pub(crate) key: Range<usize>,
    pub(crate) value: Range<usize>,
}

/// A bounded run of a vBucket's changes in seqno order, as one view of the disk showed them.
/// Immutable and owned: it holds no RocksDB resource. Cheap to share in an `Arc`.
#[derive(Clone)]
pub struct Slice {
    pub(crate) persisted_seqno: Seqno,
    pub(crate) purge_seqno: Seqno,
    pub(crate) vb_uuid: VbUuid,
    pub(crate) counts: Counts,
    pub(crate) position: Seqno,
    pub(crate) end: SliceEnd,
    pub(crate) rows: Vec<SliceRow>,
    pub(crate) data: Bytes,
}

impl Slice {
    /// Returns the last seqno in the view. It is a boundary.
    #[must_use]
    pub const fn persisted_seqno(&self) -> Seqno {
        self.persisted_seqno
    }

    /// Returns the vBucket's purge seqno in the view.
    #[must_use]
    pub const fn purge_seqno(&self) -> Seqno {
        self.purge_seqno
    }

    /// Returns the uuid of the vBucket's newest branch in the view.
    #[must_use]
    pub const fn vb_uuid(&self) -> VbUuid {
        self.vb_uuid
    }

    /// Returns the vBucket's counts in the view.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the seqno up to which the range has been read. Every change at or below it is in
    /// this slice or an earlier one. The next slice continues from here.
    #[must_use]
    pub const fn position(&self) -> Seqno {
        self.position
    }

    /// Returns why the slice ended.
    #[must_use]
    pub const fn end(&self) -> SliceEnd {
        self.end
    }

    /// Returns the number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether the slice contains no change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the changes in seqno order.
    pub fn items(&self) -> impl ExactSizeIterator<Item = SliceItem<'_>> {
        self.rows.iter().map(|row| self.item_of(row))
    }

    /// Returns the change at an index, or `None` if the slice is shorter.
    #[must_use]
    pub fn item(&self, index: usize) -> Option<SliceItem<'_>> {
        self.rows.get(index).map(|row| self.item_of(row))
    }

    fn item_of(&self, row: &SliceRow) -> SliceItem<'_> {
        SliceItem {
            meta: row.meta,
            prev_seqno: row.prev_seqno,
            is_last_of_checkpoint: row.is_last_of_checkpoint,
            // In bounds: both ranges were taken from this buffer when it was filled.
            key: self.data.get(row.key.clone()).unwrap_or_default(),
            value: self.data.get(row.value.clone()).unwrap_or_default(),
        }
    }

    /// Returns bytes of this slice, such as a key or a value in it, without copying them. The
    /// result keeps the slice's whole buffer in memory. Copies bytes that are not part of this
    /// slice.
    #[must_use]
    pub fn share(&self, bytes: &[u8]) -> Bytes {
        let (ours, theirs) = (self.data.as_ptr_range(), bytes.as_ptr_range());
        if bytes.is_empty() {
            Bytes::new()
        } else if ours.start <= theirs.start && theirs.end <= ours.end {
            self.data.slice_ref(bytes)
        } else {
            Bytes::copy_from_slice(bytes)
        }
    }

    /// Returns the index of the first change above `seqno`; the length if there is none.
    #[must_use]
    pub fn first_above(&self, seqno: Seqno) -> usize {
        self.rows.partition_point(|row| row.meta.seqno <= seqno)
    }

    /// Returns the total size in bytes of the keys and values from `index` on. Takes constant time.
    #[must_use]
    pub fn data_bytes_from(&self, index: usize) -> u64 {
        // Keys and values are stored one after the other, in the order of the changes.
        let start = self.rows.get(index).map(|row| row.key.start);
        count(start.map_or(0, |start| self.data.len() - start))
    }

    /// Returns a slice with only some of the changes, and with their values only if `with_values`
    /// is set. It has a buffer of its own. Everything else is as in this slice.
    #[must_use]
    pub fn with_only(&self, indexes: &[usize], with_values: bool) -> Self {
        let wanted = || indexes.iter().filter_map(|index| self.rows.get(*index));
        let size = |row: &SliceRow| row.key.len() + if with_values { row.value.len() } else { 0 };
        let mut data = Vec::with_capacity(wanted().map(size).sum());
        let mut put = |bytes: &[u8]| {
            let start = data.len();
            data.extend_from_slice(bytes);
            start..data.len()
        };
        let mut rows = Vec::with_capacity(indexes.len());
        let lean = wanted().map(|row| {
            let item = self.item_of(row);
            SliceRow {
                key: put(item.key),
                value: put(if with_values { item.value } else { &[] }),
                ..row.clone()
            }
        });
        rows.extend(lean);
        Self {
            rows,
            data: Bytes::from(data),
            ..self.clone()
        }
    }

    /// The memory of one change besides its key and value, in bytes.
    pub const ROW_BYTES: usize = size_of::<SliceRow>();

    /// Returns the memory of the slice in bytes. Exact, since both buffers are allocated to their
    /// length.
    #[must_use]
    pub fn memory(&self) -> u64 {
        count(self.data.len() + self.rows.len() * Self::ROW_BYTES)
    }
}
