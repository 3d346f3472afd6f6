//! Selection of the changes of a slice that a stream delivers, and of their form.

use super::batch::{Changes, SelectedRows};
use crate::stream::StreamOptions;
use std::sync::Arc;
use vbstore_core::{Seqno, u64_from};
use vbstore_engine::Slice;

/// The changes of a slice that a stream delivers.
pub(crate) struct SelectedChanges {
    /// Everything up to this seqno was examined.
    pub(crate) position: Seqno,
    pub(crate) changes: Changes,
    /// Bytes of the keys and values.
    pub(crate) data_bytes: u64,
    /// Bytes of memory that these changes keep.
    pub(crate) memory: u64,
}

/// Selects the changes of a slice that a stream with these options delivers. The stream has read
/// everything up to `after`. If the options skip first deletions, deletions up to and including
/// `skips_upto` are omitted.
///
/// `room` is the number of bytes that the selected changes may keep in memory. A slice that was
/// read for another stream can be larger. Then the stream takes as many changes as fit, but at
/// least one.
pub(crate) fn choose(
    options: &StreamOptions,
    after: Seqno,
    skips_upto: Seqno,
    slice: &Arc<Slice>,
    room: u64,
) -> SelectedChanges {
    let first = slice.first_above(after);
    // Possible only for a slice of another stream: an own slice was read within its room.
    let is_too_large = slice.memory() > room;
    let mut chosen = SelectedChanges {
        position: slice.position(),
        changes: Changes::None,
        data_bytes: 0,
        memory: 0,
    };
    if options.wants_all() && !options.is_keys_only && !is_too_large {
        // No change needs to be examined individually. Most streams read most of their changes in
        // this way.
        if let Some(chosen) = choose_all(slice, first) {
            return chosen;
        }
    }
    let mut lean_memory = 0;
    let mut wanted = Vec::new();
    for (index, item) in slice.items().enumerate().skip(first) {
        if !options.wants(&item.meta, item.key, skips_upto) {
            continue;
        }
        let value_len = if options.is_keys_only {
            0
        } else {
            item.value.len()
        };
        let data = u64_from(item.key.len() + value_len);
        let memory = lean_memory + data + u64_from(Slice::ROW_BYTES);
        if is_too_large && memory > room && !wanted.is_empty() {
            // The stream continues with this change later, from its next slice.
            let seqno = item.meta.seqno.get();
            chosen.position = Seqno::new(seqno - 1);
            break;
        }
        lean_memory = memory;
        chosen.data_bytes += data;
        wanted.push(index);
    }
    if wanted.is_empty() {
        return chosen;
    }
    if is_most_of(lean_memory, slice) && !is_too_large && !options.is_keys_only {
        let rows = if wanted.len() == slice.len() - first {
            SelectedRows::Range(first..slice.len())
        } else {
            wanted.shrink_to_fit();
            SelectedRows::List(wanted)
        };
        chosen.memory = slice.memory() + rows.memory();
        chosen.changes = Changes::Slice(Arc::clone(slice), rows);
    } else {
        // Copied, so that a few small changes do not keep the whole slice in memory.
        let lean = slice.with_only(&wanted, !options.is_keys_only);
        let rows = SelectedRows::Range(0..lean.len());
        chosen.memory = lean.memory();
        chosen.changes = Changes::Slice(Arc::new(lean), rows);
    }
    chosen
}

/// Selects all changes of a slice from the row `first`, which then share the slice's buffer.
/// `None` if they are too few for that.
fn choose_all(slice: &Arc<Slice>, first: usize) -> Option<SelectedChanges> {
    let data_bytes = slice.data_bytes_from(first);
    let rows = slice.len() - first;
    let lean_memory = data_bytes + u64_from(rows * Slice::ROW_BYTES);
    if rows > 0 && !is_most_of(lean_memory, slice) {
        return None;
    }
    let (changes, memory) = if rows > 0 {
        let rows = SelectedRows::Range(first..slice.len());
        (Changes::Slice(Arc::clone(slice), rows), slice.memory())
    } else {
        (Changes::None, 0)
    };
    Some(SelectedChanges {
        position: slice.position(),
        changes,
        data_bytes,
        memory,
    })
}

/// Returns whether changes that need `lean_memory` bytes by themselves may share the slice's
/// buffer. A few changes of a large slice would keep all of it in memory.
fn is_most_of(lean_memory: u64, slice: &Slice) -> bool {
    lean_memory * 2 >= slice.memory()
}
