//! `compact`: releases the space of deleted and overwritten documents.

use crate::args::CompactArgs;
use crate::output::{CommandResult, DONE, Output, PROBLEM, progress};
use crate::stop::StopFlag;
use crate::store;
use serde_json::json;
use vbstore::{Engine, Error, VBucket};

pub(crate) fn run(args: &CompactArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let engine = store::open(&args.dir)?;
    let vbs = store::vbuckets(&engine, args.vb)?;
    let before = engine.disk_usage()?;
    let compacted = compact(&engine, &vbs, stop)?;
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

/// Compacts one vBucket after the other until a stop is requested. Returns the number compacted.
fn compact(engine: &Engine, vbs: &[VBucket], stop: &StopFlag) -> Result<usize, Error> {
    let bar = progress();
    let mut compacted = 0;
    for vb in vbs {
        // Not inside a vBucket: RocksDB's bindings cannot cancel a compaction.
        if stop.is_asked() {
            break;
        }
        let (number, all) = (vb.id().get(), vbs.len());
        bar.set_message(format!("vBucket {number}: {compacted} of {all}"));
        bar.tick();
        engine.compact(vb.id())?;
        compacted += 1;
    }
    bar.finish_and_clear();
    Ok(compacted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_a_compaction_before_the_next_vbucket() {
        let dir = tempfile::tempdir().unwrap();
        let engine = store::open_or_create(dir.path(), Some(4)).unwrap();
        let vbs = store::vbuckets(&engine, None).unwrap();
        let stop = StopFlag::by_hand();
        assert_eq!(compact(&engine, &vbs, &stop).unwrap(), 4);
        stop.ask();
        assert_eq!(compact(&engine, &vbs, &stop).unwrap(), 0);
        engine.close().unwrap();
    }
}
