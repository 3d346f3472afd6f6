//! Choosing what of a slice is delivered, and in which form.

use super::batch::{Changes, Rows};
use crate::stream::StreamOptions;
use std::sync::Arc;
use vbstore_core::{Seqno, u64_from};
use vbstore_engine::Slice;

/// What is delivered of a slice.
pub(crate) struct Chosen {
    /// Everything up to here was looked at.
    pub(crate) position: Seqno,
    pub(crate) changes: Changes,
    /// Bytes of keys and values.
    pub(crate) data_bytes: u64,
    /// The memory it keeps, in bytes.
    pub(crate) memory: u64,
}

/// Chooses what a stream with these options, which has read everything up to `after`, delivers of a
/// slice. Deletions up to `skips_upto` are left out if the options say so. `room` is what it may keep in
/// memory, in bytes: of a slice that was read for another stream, which may be larger, it takes as much
/// as fits, and at least one change.
pub(crate) fn choose(
    options: &StreamOptions,
    after: Seqno,
    skips_upto: Seqno,
    slice: &Arc<Slice>,
    room: u64,
) -> Chosen {
    let first = slice.first_above(after);
    // A slice that was read for this stream was read within its room.
    let is_too_large = slice.memory() > room;
    let mut chosen = Chosen {
        position: slice.position(),
        changes: Changes::None,
        data_bytes: 0,
        memory: 0,
    };
    if options.wants_all() && !options.is_keys_only && !is_too_large {
        // No change has to be looked at by itself. This is most of what most streams read.
        let data = slice.data_bytes_from(first);
        let rows = slice.len() - first;
        let lean_memory = data + u64_from(rows * Slice::ROW_BYTES);
        if rows == 0 || is_most_of(lean_memory, slice) {
            chosen.data_bytes = data;
            if rows > 0 {
                chosen.memory = slice.memory();
                let rows = Rows::Range(first..slice.len());
                chosen.changes = Changes::Slice(Arc::clone(slice), rows);
            }
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
            // Everything before this one was looked at.
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
            Rows::Range(first..slice.len())
        } else {
            wanted.shrink_to_fit();
            Rows::List(wanted)
        };
        chosen.memory = slice.memory() + rows.memory();
        chosen.changes = Changes::Slice(Arc::clone(slice), rows);
    } else {
        let lean = slice.with_only(&wanted, !options.is_keys_only);
        let rows = Rows::Range(0..lean.len());
        chosen.memory = lean.memory();
        chosen.changes = Changes::Slice(Arc::new(lean), rows);
    }
    chosen
}

/// Returns whether changes that take this much by themselves, in bytes, may share the slice's buffer: few
/// of many would keep all of it in memory.
fn is_most_of(lean_memory: u64, slice: &Slice) -> bool {
    lean_memory * 2 >= slice.memory()
}
