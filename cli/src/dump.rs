//! `dump`: prints the latest change of each key as JSON lines.
//!
//! Reads slices or pages, and prints each before it reads the next. No db snapshot is open
//! meanwhile, however slowly the output is read.

use crate::args::{DumpArgs, DumpOrder};
use crate::output::{CommandError, CommandResult, DONE, Output};
use crate::stop::StopFlag;
use crate::{record, store};
use std::os::unix::ffi::OsStrExt;
use vbstore::{KeyRange, PageForm, Seqno, SeqnoRange, SliceBudget, SliceEnd, VBucket};

pub(crate) fn run(args: &DumpArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let prefix = args.prefix.as_bytes();
    let engine = store::open_to_read(&args.dir, args.reading)?;
    for vb in store::vbuckets(&engine, args.vb)? {
        let is_whole = match args.by {
            DumpOrder::Seqno => by_seqno(&vb, args.from, prefix, out, stop)?,
            DumpOrder::Key => by_key(&vb, args.from, prefix, out, stop)?,
        };
        if !is_whole {
            engine.close()?;
            return Err(CommandError::interrupted(
                "interrupted: not everything was printed",
            ));
        }
    }
    out.flush()?;
    engine.close()?;
    Ok(DONE)
}

/// Prints the changes of a vBucket in seqno order. Returns `false` if it was interrupted.
fn by_seqno(
    vb: &VBucket,
    from: u64,
    prefix: &[u8],
    out: &mut Output,
    stop: &StopFlag,
) -> Result<bool, CommandError> {
    let mut range = SeqnoRange::above(Seqno::new(from.saturating_sub(1)));
    loop {
        let slice = vb.scan_slice(range, SliceBudget::default())?;
        for item in slice.items() {
            if stop.is_asked() {
                return Ok(false);
            }
            if !item.key.starts_with(prefix) {
                continue;
            }
            let prev = Some(item.prev_seqno);
            out.line(record::object(
                vb.id(),
                item.meta,
                item.key,
                item.value,
                prev,
            ))?;
        }
        range.after = slice.position();
        if slice.end() == SliceEnd::Complete {
            return Ok(true);
        }
    }
}

/// Prints the documents of a vBucket in key order. Returns `false` if it was interrupted.
fn by_key(
    vb: &VBucket,
    from: u64,
    prefix: &[u8],
    out: &mut Output,
    stop: &StopFlag,
) -> Result<bool, CommandError> {
    let mut next = Some(KeyRange::prefix(prefix.to_vec()));
    while let Some(range) = next {
        let page = vb.range(&range, PageForm::Documents)?;
        for entry in page
            .entries
            .iter()
            .filter(|entry| entry.meta.seqno.get() >= from)
        {
            if stop.is_asked() {
                return Ok(false);
            }
            let value = entry.value.as_deref().unwrap_or_default();
            out.line(record::object(vb.id(), entry.meta, &entry.key, value, None))?;
        }
        next = page.rest;
    }
    Ok(true)
}
