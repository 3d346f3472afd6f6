//! `dump`: every change as JSON lines, built on slices and pages. Nothing is held between two of
//! them, however slowly the output is read.

use crate::args::{DumpArgs, DumpOrder};
use crate::output::{CommandError, CommandResult, DONE, Output, PROBLEM};
use crate::stop::StopFlag;
use crate::{record, store};
use vbstore::{KeyRange, PageForm, Seqno, SeqnoRange, SliceBudget, SliceEnd, VBucket};

pub(crate) fn run(args: &DumpArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let engine = store::open_to_read(&args.dir, args.reading, out)?;
    for vb in store::vbuckets(&engine, args.vb)? {
        let is_whole = match args.by {
            DumpOrder::Seqno => by_seqno(&vb, args.from, out, stop)?,
            DumpOrder::Key => by_key(&vb, args.from, out, stop)?,
        };
        if !is_whole {
            return Ok(PROBLEM);
        }
    }
    out.flush()?;
    engine.close()?;
    Ok(DONE)
}

/// Returns whether it was not interrupted.
fn by_seqno(
    vb: &VBucket,
    from: u64,
    out: &mut Output,
    stop: &StopFlag,
) -> Result<bool, CommandError> {
    let mut range = SeqnoRange::above(Seqno::new(from.saturating_sub(1)));
    loop {
        let slice = vb.scan_slice(range, SliceBudget::default())?;
        for item in slice.items() {
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
        if stop.is_asked() {
            return Ok(false);
        }
    }
}

fn by_key(
    vb: &VBucket,
    from: u64,
    out: &mut Output,
    stop: &StopFlag,
) -> Result<bool, CommandError> {
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        if stop.is_asked() {
            return Ok(false);
        }
        let page = vb.range(&range, PageForm::Documents)?;
        for entry in page
            .entries
            .iter()
            .filter(|entry| entry.meta.seqno.get() >= from)
        {
            let value = entry.value.as_deref().unwrap_or_default();
            out.line(record::object(vb.id(), entry.meta, &entry.key, value, None))?;
        }
        next = page.rest;
    }
    Ok(true)
}
