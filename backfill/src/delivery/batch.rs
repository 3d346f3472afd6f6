//! Batches: events of one stream that are delivered to its consumer together.

use super::buffers::Charge;
use crate::stream::{EndReason, Event, Stream, StreamItem};
use bytes::Bytes;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use vbstore_core::{Item, Position, Seqno, SnapshotMarker, VbId, u64_from};
use vbstore_engine::{Slice, SliceItem};

/// Several events of one stream, in order, in the form in which they were read: a snapshot marker,
/// changes, an advance and an end, each of them optional.
///
/// This is the fastest way to take events. Taking a batch takes all of its events. A batch keeps
/// only the memory of its changes, and keeps neither the engine nor the stream open.
pub struct EventBatch {
    pub(crate) stream: Arc<Stream>,
    pub(crate) marker: Option<SnapshotMarker>,
    pub(crate) changes: Changes,
    /// Everything up to this seqno is covered; no further change matched.
    pub(crate) advance: Option<Seqno>,
    end: Option<EndReason>,
    /// Number of events that were taken one by one.
    taken: usize,
    /// The space that the batch uses in the consumer's buffer; `None` if it uses none, or if the
    /// program owns the batch.
    pub(crate) charge: Option<Charge>,
}

/// The changes of a batch, in the form in which they were read.
pub(crate) enum Changes {
    None,
    /// From disk: some rows of a slice, which other streams may share.
    Slice(Arc<Slice>, SelectedRows),
    /// From memory: the items of the checkpoints.
    Items(Vec<Arc<Item>>),
}

/// The selected changes of a slice.
#[derive(Debug)]
pub(crate) enum SelectedRows {
    Range(Range<usize>),
    List(Vec<usize>),
}

impl fmt::Debug for EventBatch {
    /// Omits keys and values: they can be megabytes, and they belong to the program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBatch")
            .field("vb", &self.vb())
            .field("marker", &self.marker())
            .field("events", &self.len())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl SelectedRows {
    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    /// Returns the memory of the selection itself, in bytes.
    pub(super) fn memory(&self) -> u64 {
        match self {
            Self::Range(_) => 0,
            Self::List(list) => u64_from(list.len() * size_of::<usize>()),
        }
    }

    fn get(&self, index: usize) -> Option<usize> {
        match self {
            Self::Range(range) => {
                let at = range.start.checked_add(index)?;
                Some(at).filter(|at| *at < range.end)
            }
            Self::List(list) => list.get(index).copied(),
        }
    }
}

impl Changes {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Slice(_, rows) => rows.len(),
            Self::Items(items) => items.len(),
        }
    }

    /// Returns the seqno of the last change, if there is one.
    pub(crate) fn last_seqno(&self) -> Option<Seqno> {
        let last = self.len().checked_sub(1)?;
        match self {
            Self::None => None,
            Self::Slice(slice, rows) => Some(slice.item(rows.get(last)?)?.meta.seqno),
            Self::Items(items) => Some(items.get(last)?.meta.seqno),
        }
    }

    fn get(&self, index: usize, with_value: bool) -> Option<StreamItem> {
        match self {
            Self::None => None,
            Self::Slice(slice, rows) => {
                let SliceItem {
                    meta, key, value, ..
                } = slice.item(rows.get(index)?)?;
                Some(StreamItem {
                    meta,
                    key: slice.share(key),
                    value: slice.share(if with_value { value } else { &[] }),
                })
            }
            Self::Items(items) => items.get(index).map(|item| StreamItem {
                meta: item.meta,
                // The item owns its key alone, so the key must be copied; its value is shared.
                key: Bytes::copy_from_slice(&item.key),
                value: if with_value {
                    item.value.clone()
                } else {
                    Bytes::new()
                },
            }),
        }
    }
}

impl EventBatch {
    pub(crate) fn new(
        stream: Arc<Stream>,
        marker: Option<SnapshotMarker>,
        changes: Changes,
        advance: Option<Seqno>,
        charge: Option<Charge>,
    ) -> Self {
        Self {
            stream,
            marker,
            changes,
            advance,
            end: None,
            taken: 0,
            charge,
        }
    }

    /// Returns the last batch of a stream, which contains only its end.
    pub(crate) fn ended(stream: Arc<Stream>, reason: EndReason) -> Self {
        Self {
            end: Some(reason),
            ..Self::new(stream, None, Changes::None, None, None)
        }
    }

    /// Returns whether the batch has no events. A batch that a program receives has at least one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the vBucket of its stream.
    #[must_use]
    pub fn vb(&self) -> VbId {
        self.stream.vb
    }

    /// Returns the number of events in the batch, without those that were taken one by one before.
    #[must_use]
    pub fn len(&self) -> usize {
        let others = usize::from(self.marker.is_some())
            + usize::from(self.advance.is_some())
            + usize::from(self.end.is_some());
        self.changes.len() + others - self.taken
    }

    /// Returns the snapshot marker that the batch begins with, if there is one.
    #[must_use]
    pub fn marker(&self) -> Option<&SnapshotMarker> {
        self.marker.as_ref().filter(|_| self.taken == 0)
    }

    /// Returns an iterator over the events, in order.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let mut at = self.taken;
        std::iter::from_fn(move || {
            let event = self.event(at)?;
            at += 1;
            Some(event)
        })
    }

    /// Takes the next event, if one is left.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        let event = self.event(self.taken)?;
        self.taken += 1;
        Some(event)
    }

    /// Moves a position past all events of the batch.
    pub(crate) fn take_into(&self, position: &mut Position) {
        if let Some(marker) = &self.marker {
            position.take_marker(marker);
        }
        if let Some(seqno) = self.changes.last_seqno() {
            position.take_seqno(seqno);
        }
        if let Some(seqno) = self.advance {
            position.take_seqno(seqno);
        }
    }

    /// Returns the event at `index`, counted from the beginning of the batch. The order is marker,
    /// changes, advance, end.
    fn event(&self, index: usize) -> Option<Event> {
        let mut index = index;
        if let Some(marker) = self.marker {
            match index.checked_sub(1) {
                None => return Some(Event::SnapshotMarker(marker)),
                Some(rest) => index = rest,
            }
        }
        let with_value = !self.stream.options.is_keys_only;
        if let Some(item) = self.changes.get(index, with_value) {
            return Some(Event::of(item));
        }
        index = index.checked_sub(self.changes.len())?;
        if let Some(seqno) = self.advance {
            match index.checked_sub(1) {
                None => return Some(Event::SeqnoAdvanced(seqno)),
                Some(rest) => index = rest,
            }
        }
        self.end.clone().filter(|_| index == 0).map(Event::End)
    }
}
