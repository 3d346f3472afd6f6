//! Bounded scans: slices in seqno order and pages in key order. In each, one function opens and
//! closes the db snapshot and the iterator.

use super::database::Storage;
use super::records::{Records, decode_document, decode_index_entry};
use crate::config::SliceBudget;
use crate::error::{Error, Result};
use crate::slice::{SeqnoRange, Slice, SliceEnd, SliceRequest, SliceRow};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use vbstore_core::record::DocumentRecord;
use vbstore_core::{Clock, ItemMeta, Seqno, VbId};
use vbstore_metrics::DbSnapshotHolder;

/// The number of seqnos that one iterator covers. A seek over a long run of deletions can keep a
/// view open for 0.1 to 0.4 s, and the budget is not checked during a seek. So a view can stay open
/// longer than the budget, by the time of one window. In an uncompacted vBucket, a window of 65,536
/// seqnos took 4 to 12 ms, and a window of this size takes 1 to 2 ms (measured,
/// tests/tests/holds.rs).
const WINDOW_SEQNOS: u64 = 8_192;

/// Tracks how much of a budget is left.
struct BudgetMeter<'a> {
    budget: SliceBudget,
    clock: &'a dyn Clock,
    deadline: Duration,
    items: usize,
    bytes: usize,
}

impl<'a> BudgetMeter<'a> {
    fn start(budget: SliceBudget, clock: &'a dyn Clock) -> Self {
        let deadline = clock.monotonic().saturating_add(budget.duration_max);
        Self {
            budget,
            clock,
            deadline,
            items: 0,
            bytes: 0,
        }
    }

    /// Returns whether an item of this size fits. The first item always does, so that a scan makes
    /// progress.
    fn admits(&self, bytes: usize) -> bool {
        self.items == 0
            || (self.items < self.budget.items_max && self.bytes + bytes <= self.budget.bytes_max)
    }

    fn take(&mut self, bytes: usize) {
        self.items += 1;
        self.bytes += bytes;
    }

    fn is_late(&self) -> bool {
        self.clock.monotonic() >= self.deadline
    }
}

impl Storage {
    /// Reads one slice. The time of the budget counts from the moment the view is open. `test_hook`
    /// is called while the view is open. Only a test may block in it.
    pub(crate) fn scan_slice(
        &self,
        holder: DbSnapshotHolder,
        vb: VbId,
        range: SeqnoRange,
        budget: SliceBudget,
        test_hook: impl Fn() -> Result<()>,
    ) -> Result<Slice> {
        let clock = &*self.clock;
        self.with_records(holder, |records| {
            test_hook()?;
            let mut meter = BudgetMeter::start(budget, clock);
            read_slice(records, vb, range, &mut meter)
        })
        .map(UnpackedSlice::pack)
    }

    /// Reads slices for several requests through one view; see [`crate::Engine::scan`]. Keeps the
    /// view open no longer than one slice does: the time of the budget plus one window.
    pub(crate) fn scan_slices(
        &self,
        holder: DbSnapshotHolder,
        requests: &[SliceRequest],
        budget: SliceBudget,
        test_hook: impl Fn() -> Result<()>,
    ) -> Vec<Result<Slice>> {
        let clock = &*self.clock;
        let slices = self.with_records(holder, |records| {
            // One meter for all: the requests share the budget.
            let mut meter = BudgetMeter::start(budget, clock);
            let mut slices: Vec<Result<UnpackedSlice>> = Vec::with_capacity(requests.len());
            for request in requests {
                // The first request is always answered, so that its stream makes progress.
                if !slices.is_empty() && meter.is_late() {
                    break;
                }
                let read = || {
                    test_hook()?;
                    read_slice(
                        records,
                        request.vb,
                        SeqnoRange::above(request.after),
                        &mut meter,
                    )
                };
                // A panic is the outcome of its own request, and must not lose the other slices.
                let panicked = Err(Error::StreamPanicked { vb: request.vb });
                let slice = catch_unwind(AssertUnwindSafe(read)).unwrap_or(panicked);
                let is_cut = |slice: &UnpackedSlice| slice.slice.end == SliceEnd::Budget;
                let is_cut = slice.as_ref().is_ok_and(is_cut);
                slices.push(slice);
                if is_cut {
                    break;
                }
            }
            slices
        });
        slices
            .into_iter()
            .map(|slice| slice.map(UnpackedSlice::pack))
            .collect()
    }
}

/// A slice whose buffers may have spare capacity.
struct UnpackedSlice {
    /// The slice without its data.
    slice: Slice,
    data: Vec<u8>,
}

impl UnpackedSlice {
    /// Shrinks the buffers to their lengths, so that the counted memory is the allocated memory.
    /// May copy the slice, so it must not run while the view is open.
    fn pack(self) -> Slice {
        let Self { mut slice, data } = self;
        slice.rows.shrink_to_fit();
        slice.data = Bytes::from(data.into_boxed_slice());
        slice
    }
}

/// Reads a slice through a db snapshot that stays open.
#[cfg(feature = "testing")]
pub type ReadHeld<'a> = dyn FnMut(VbId, SeqnoRange, SliceBudget) -> Result<Slice> + 'a;

#[cfg(feature = "testing")]
impl Storage {
    /// Opens one view and lends a function that reads slices through it, for as long as `work`
    /// takes. The engine itself never keeps a view open that long. This is for benches that measure
    /// the cost of doing so.
    pub(crate) fn with_held_view<R>(&self, work: impl FnOnce(&mut ReadHeld<'_>) -> R) -> R {
        let clock = &*self.clock;
        self.with_records(DbSnapshotHolder::Admin, |records| {
            work(&mut |vb, range, budget| {
                read_slice(records, vb, range, &mut BudgetMeter::start(budget, clock))
                    .map(UnpackedSlice::pack)
            })
        })
    }
}

/// What to do with the next row of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowDecision {
    /// Add it to the slice.
    Take,
    /// End the slice before it: the budget is used up.
    Stop,
}

/// A slice that is being read: the rows so far, and the rest of the budget.
struct SliceBuilder<'m, 'c> {
    meter: &'m mut BudgetMeter<'c>,
    rows: Vec<SliceRow>,
    data: Vec<u8>,
}

impl<'m, 'c> SliceBuilder<'m, 'c> {
    fn new(meter: &'m mut BudgetMeter<'c>) -> Self {
        Self {
            meter,
            rows: Vec::new(),
            data: Vec::new(),
        }
    }

    /// Decides what to do with the next row. This is the only place that decides it.
    fn decide(&self, document: &DocumentRecord<'_>) -> RowDecision {
        let is_late = || !self.rows.is_empty() && self.meter.is_late();
        if !self.meter.admits(size_of_row(document)) || is_late() {
            RowDecision::Stop
        } else {
            RowDecision::Take
        }
    }

    fn take(&mut self, document: &DocumentRecord<'_>) {
        self.meter.take(size_of_row(document));
        let key = append(&mut self.data, document.key);
        let value = append(&mut self.data, document.value);
        let head = document.head;
        self.rows.push(SliceRow {
            meta: head.meta,
            prev_seqno: head.prev_seqno,
            is_last_of_checkpoint: head.is_last_of_checkpoint,
            key,
            value,
        });
    }
}

fn size_of_row(document: &DocumentRecord<'_>) -> usize {
    document.key.len() + document.value.len()
}

fn read_slice(
    records: &Records<'_, '_>,
    vb: VbId,
    range: SeqnoRange,
    meter: &mut BudgetMeter<'_>,
) -> Result<UnpackedSlice> {
    let state = records.state(vb)?;
    let last = range.to.min(state.high_seqno);
    let mut position = range.after;
    let mut taken = SliceBuilder::new(meter);
    let mut end = SliceEnd::Complete;

    while position < last {
        let from = position.saturating_add(1);
        // Exclusive. No overflow: `last` is below Seqno::MAX, which is never assigned.
        let to = from
            .saturating_add(WINDOW_SEQNOS)
            .min(last.saturating_add(1));
        let is_window_read = records.documents(vb, from, to, |seqno, record| {
            let document = decode_document(vb, seqno, record)?;
            match taken.decide(&document) {
                RowDecision::Take => taken.take(&document),
                RowDecision::Stop => return Ok(false),
            }
            position = seqno;
            Ok(true)
        })?;
        if !is_window_read {
            end = SliceEnd::Budget;
            break;
        }
        // The rest of the window has no documents, so the position moves to its end.
        position = Seqno::new(to.get().saturating_sub(1));
        if position < last && taken.meter.is_late() {
            end = SliceEnd::Budget;
            break;
        }
    }
    let slice = Slice {
        persisted_seqno: state.high_seqno,
        purge_seqno: state.purge_seqno,
        vb_uuid: state.uuid,
        counts: state.counts,
        position,
        end,
        rows: taken.rows,
        data: Bytes::new(),
    };
    let data = taken.data;
    Ok(UnpackedSlice { slice, data })
}

fn append(data: &mut Vec<u8>, bytes: &[u8]) -> std::ops::Range<usize> {
    let start = data.len();
    data.extend_from_slice(bytes);
    start..data.len()
}

/// One key of a page, read from disk.
pub(crate) struct PageRow {
    pub(crate) meta: ItemMeta,
    pub(crate) key: Bytes,
    /// Set if values were requested and the key is live.
    pub(crate) value: Option<Bytes>,
}

/// A page read from disk: every key from the start of the range to `next`, tombstones included.
pub(crate) struct PageScan {
    pub(crate) rows: Vec<PageRow>,
    pub(crate) persisted_seqno: Seqno,
    pub(crate) purge_seqno: Seqno,
    /// The first key that was not read; `None` if all were.
    pub(crate) next: Option<Bytes>,
}

impl Storage {
    /// Reads the keys with `from <= key < to` through one view, up to the budget. `test_hook` is
    /// called while the view is open, at the first key. Only a test may block in it.
    pub(crate) fn scan_page(
        &self,
        vb: VbId,
        from: &[u8],
        to: Option<&[u8]>,
        with_values: bool,
        budget: SliceBudget,
        test_hook: impl Fn() -> Result<()>,
    ) -> Result<PageScan> {
        let clock = &*self.clock;
        self.with_records(DbSnapshotHolder::Page, |records| {
            let mut meter = BudgetMeter::start(budget, clock);
            let state = records.state(vb)?;
            let mut rows: Vec<PageRow> = Vec::new();
            let mut next = None;
            records.index_records(vb, from, to, |key, record| {
                if rows.is_empty() {
                    test_hook()?;
                }
                let meta = decode_index_entry(vb, key, record)?;
                let value_len = if with_values { meta.value_len } else { 0 };
                let size = key
                    .len()
                    .saturating_add(usize::try_from(value_len).unwrap_or(0));
                if !meter.admits(size) || (!rows.is_empty() && meter.is_late()) {
                    next = Some(Bytes::copy_from_slice(key));
                    return Ok(false);
                }
                meter.take(size);
                let value = if with_values && meta.kind.is_live() {
                    Some(value_of(records, vb, key, meta)?)
                } else {
                    None
                };
                rows.push(PageRow {
                    meta,
                    key: Bytes::copy_from_slice(key),
                    value,
                });
                Ok(true)
            })?;
            Ok(PageScan {
                rows,
                persisted_seqno: state.high_seqno,
                purge_seqno: state.purge_seqno,
                next,
            })
        })
    }
}

fn value_of(records: &Records<'_, '_>, vb: VbId, key: &[u8], meta: ItemMeta) -> Result<Bytes> {
    let missing = || {
        let key = String::from_utf8_lossy(key);
        let detail = format!("the document of key {key:?} is missing");
        Error::corrupt_record(vb, Some(meta.seqno), detail)
    };
    let record = records
        .document_record(vb, meta.seqno)?
        .ok_or_else(missing)?;
    let document = decode_document(vb, meta.seqno, &record)?;
    if document.key != key {
        return Err(missing());
    }
    Ok(Bytes::copy_from_slice(document.value))
}
