//! `compact`: releases the space of deleted and overwritten documents.

use crate::args::CompactArgs;
use crate::output::{CommandResult, DONE, Output, PROBLEM, progress};
use crate::stop::StopFlag;
use crate::store;
use serde_json::json;

pub(crate) fn run(args: &CompactArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let engine = store::open(&args.dir)?;
    let vbs = store::vbuckets(&engine, args.vb)?;
    let before = engine.disk_usage()?;
    let bar = progress();
    let mut compacted = 0_usize;
    for vb in &vbs {
        if stop.is_asked() {
            break;
        }
        bar.set_message(format!(
            "vBucket {}: {compacted} of {}",
            vb.id().get(),
            vbs.len()
        ));
        bar.tick();
        engine.compact(vb.id())?;
        compacted += 1;
    }
    bar.finish_and_clear();
    let after = engine.disk_usage()?;
    engine.close()?;
    let is_whole = compacted == vbs.len();
    let object = json!({
        "ok": is_whole,
        "compacted": compacted,
        "vbuckets": vbs.len(),
        "bytes_before": before.total,
        "bytes_after": after.total,
        "live_bytes_before": before.live_sst,
        "live_bytes_after": after.live_sst,
    });
    let text = format!(
        "compacted {compacted} of {} vBuckets: {} bytes before, {} bytes after{}",
        vbs.len(),
        before.total,
        after.total,
        if is_whole { "" } else { "; interrupted" },
    );
    out.answer(&object, text)?;
    Ok(if is_whole { DONE } else { PROBLEM })
}
