//! A consumer that keeps a copy of a vBucket, and the history that the copy is compared with.

use std::collections::BTreeMap;
use std::sync::Mutex;
use vbstore::{Event, Position, Seqno, SnapshotMarker, StreamEvent, StreamOptions, WriteReceipt};

/// Every change of one vBucket, as its writers saw it. Shared between threads.
#[derive(Default)]
pub struct History {
    changes: Mutex<BTreeMap<u64, (String, Option<String>)>>,
}

/// Keys, each with its seqno and value.
pub type Copy = BTreeMap<String, (u64, String)>;

impl History {
    pub fn note(&self, written: WriteReceipt, key: &str, value: Option<&str>) {
        let change = (key.to_owned(), value.map(str::to_owned));
        let before = self
            .changes
            .lock()
            .unwrap()
            .insert(written.seqno.get(), change);
        assert!(before.is_none(), "seqno {} twice", written.seqno);
    }

    /// Removes the changes above `high`, which a crash has lost.
    pub fn cut(&self, high: Seqno) {
        self.changes
            .lock()
            .unwrap()
            .retain(|seqno, _| *seqno <= high.get());
    }

    /// Returns what the vBucket holds at a seqno.
    pub fn at(&self, seqno: Seqno, options: &StreamOptions) -> Copy {
        let mut copy = Copy::new();
        for (at, (key, value)) in self.changes.lock().unwrap().range(..=seqno.get()) {
            if !key.as_bytes().starts_with(&options.prefix) {
                continue;
            }
            match value {
                Some(value) => {
                    let value = if options.is_keys_only { "" } else { value };
                    copy.insert(key.clone(), (*at, value.to_owned()))
                }
                None => copy.remove(key),
            };
        }
        copy
    }
}

/// A copy of one vBucket, maintained from stream events. It asserts every rule that streams
/// promise.
#[derive(Clone, Default)]
pub struct Replica {
    pub copy: Copy,
    pub position: Position,
    pub options: StreamOptions,
    /// Complete states by seqno, each with its whole position.
    pub saved: BTreeMap<u64, (Copy, Position)>,
    marker: Option<SnapshotMarker>,
    /// Number of complete markers that were compared with the history.
    pub compared: u64,
}

impl Replica {
    pub fn new(options: StreamOptions) -> Self {
        Self {
            options,
            ..Self::default()
        }
    }

    /// Begins a stream: the next marker may start at the requested position.
    pub fn begin_stream(&mut self, position: Position) {
        self.position = position;
        self.marker = None;
    }

    /// Applies an event, and compares the copy with the history at the end of each marker.
    pub fn take(&mut self, event: &StreamEvent, position: Position, history: &History) {
        let seqno = match &event.event {
            Event::SnapshotMarker(marker) => {
                self.take_marker(*marker);
                self.position = position;
                return;
            }
            Event::End(_) => {
                self.position = position;
                return;
            }
            Event::SeqnoAdvanced(seqno) => *seqno,
            Event::Mutation(item) | Event::Deletion(item) | Event::Expiration(item) => {
                let key = String::from_utf8(item.key.to_vec()).unwrap();
                assert!(key.as_bytes().starts_with(&self.options.prefix));
                if item.meta.kind.is_live() {
                    let value = String::from_utf8(item.value.to_vec()).unwrap();
                    self.copy.insert(key, (item.meta.seqno.get(), value));
                } else {
                    self.copy.remove(&key);
                }
                item.meta.seqno
            }
        };
        let marker = self.marker.expect("a change before its marker");
        assert!(
            seqno > self.position.seqno,
            "{seqno} after {}",
            self.position.seqno
        );
        assert!(
            seqno > marker.start && seqno <= marker.end,
            "{seqno} outside of {marker:?}"
        );
        assert_eq!(position.seqno, seqno);
        self.position = position;
        if seqno == marker.end {
            let expected = history.at(seqno, &self.options);
            assert_eq!(self.copy, expected, "at {seqno}, after {marker:?}");
            self.compared += 1;
            self.saved
                .insert(seqno.get(), (self.copy.clone(), position));
        }
    }

    fn take_marker(&mut self, marker: SnapshotMarker) {
        if let Some(before) = self.marker {
            assert!(marker.end >= before.end, "{marker:?} after {before:?}");
            let is_complete = self.position.seqno == before.end;
            let start = if is_complete {
                before.end
            } else {
                before.start
            };
            assert_eq!(marker.start, start, "{marker:?} after {before:?}");
        } else if self.position.seqno == self.position.snap_end {
            assert_eq!(marker.start, self.position.seqno, "first marker");
        } else {
            assert_eq!(marker.start, self.position.snap_start, "first marker");
            assert!(marker.end >= self.position.snap_end, "first marker");
        }
        assert!(marker.start <= marker.end);
        if let Some(purge) = marker.purge_seqno {
            assert!(purge <= marker.end);
        }
        self.marker = Some(marker);
    }

    /// Rolls back to the newest complete state at or below `to`, or to an empty copy.
    pub fn roll_back(&mut self, to: Seqno) {
        self.saved.retain(|seqno, _| *seqno <= to.get());
        let last = self.saved.values().next_back().cloned();
        (self.copy, self.position) = last.unwrap_or_default();
        self.marker = None;
    }
}
