//! What is handed from a stream to its consumer at once: a marker, changes, an advance, an end.

use crate::account::Charge;
use crate::event::{EndReason, Event, StreamItem};
use crate::request::StreamOptions;
use crate::stream::StreamShared;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use vbstore_core::{Item, ItemKind, ItemMeta, Marker, Seqno, VbId};
use vbstore_engine::{Slice, SliceItem};

/// Several events of one stream, in their order, in the form they were read in: the fast way to
/// take them. Taking it takes all of its events.
#[derive(Debug)]
pub struct Batch {
    pub(crate) stream: Arc<StreamShared>,
    pub(crate) marker: Option<Marker>,
    pub(crate) changes: Changes,
    /// There is nothing to deliver up to here.
    pub(crate) advance: Option<Seqno>,
    pub(crate) end: Option<EndReason>,
    /// What it takes of the consumer's buffer.
    pub(crate) charge: Option<Charge>,
}

/// The changes of a batch, as they were read.
#[derive(Debug)]
pub(crate) enum Changes {
    None,
    /// From disk: some of a slice that may be shared.
    Slice(Arc<Slice>, Rows),
    /// From memory.
    Items(Vec<Arc<Item>>),
}

/// Which changes of a slice.
#[derive(Debug)]
pub(crate) enum Rows {
    Range(Range<usize>),
    List(Vec<usize>),
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Range(range) => range.len(),
            Self::List(list) => list.len(),
        }
    }

    fn get(&self, index: usize) -> Option<usize> {
        match self {
            Self::Range(range) => {
                Some(range.start.checked_add(index)?).filter(|at| *at < range.end)
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

    /// Returns the seqno of the last change.
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

impl StreamOptions {
    /// Whether a change is delivered. `skips_upto` is the seqno up to which deletions are left out.
    pub(crate) fn wants(&self, meta: &ItemMeta, key: &[u8], skips_upto: Seqno) -> bool {
        let is_skipped = self.skips_first_deletions
            && meta.kind != ItemKind::Mutation
            && meta.seqno <= skips_upto;
        !is_skipped && key.starts_with(&self.prefix)
    }

    /// Whether everything is delivered, whatever it is.
    pub(crate) fn wants_all(&self) -> bool {
        self.prefix.is_empty() && !self.skips_first_deletions
    }
}

impl Batch {
    pub(crate) fn nothing(stream: Arc<StreamShared>) -> Self {
        Self {
            end: None,
            ..Self::ended(stream, EndReason::Closed)
        }
    }

    pub(crate) fn ended(stream: Arc<StreamShared>, reason: EndReason) -> Self {
        Self {
            stream,
            marker: None,
            changes: Changes::None,
            advance: None,
            end: Some(reason),
            charge: None,
        }
    }

    /// Returns whether it has no event; none that is handed out has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the vBucket it is of.
    #[must_use]
    pub fn vb(&self) -> VbId {
        self.stream.vb()
    }

    /// Returns how many events it has.
    #[must_use]
    pub fn len(&self) -> usize {
        let others = [
            self.marker.is_some(),
            self.advance.is_some(),
            self.end.is_some(),
        ];
        let others = others.into_iter().filter(|is_there| *is_there).count();
        self.changes.len().saturating_add(others)
    }

    /// Returns the marker it begins with, if it does.
    #[must_use]
    pub fn marker(&self) -> Option<&Marker> {
        self.marker.as_ref()
    }

    /// Returns its events in their order.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let event = self.event(at)?;
            at += 1;
            Some(event)
        })
    }

    /// Returns an event by its index.
    pub(crate) fn event(&self, index: usize) -> Option<Event> {
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
