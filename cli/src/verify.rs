//! `verify`: checks the whole store on disk.

use crate::args;
use crate::number::u64_from;
use crate::output::{CommandResult, DONE, Output, PROBLEM, progress};
use crate::stop::StopFlag;
use crate::{record, store};
use serde_json::{Value, json};
use vbstore::{Engine, Problem, VbId, Verification};

pub(crate) fn run(args: &args::VerifyArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let engine = store::open_to_read(&args.dir, args.reading)?;
    let bar = progress();
    let mut found = engine.verify_shared()?;
    let mut is_whole = true;
    for number in 0..engine.vbuckets() {
        if stop.is_asked() {
            is_whole = false;
            break;
        }
        bar.set_message(format!("vBucket {number} of {}", engine.vbuckets()));
        bar.tick();
        found.add(engine.verify(VbId::new(number))?);
    }
    bar.finish_and_clear();
    engine.close()?;
    let is_ok = found.is_ok() && is_whole;
    if !out.is_json {
        for problem in &found.problems {
            out.line(problem_line(problem))?;
        }
    }
    let text = format!(
        "{}: {} vBuckets, {} items, {} tombstones, {} problems{}",
        if is_ok { "ok" } else { "NOT OK" },
        found.vbuckets,
        found.items,
        found.tombstones,
        problem_count(&found),
        if is_whole {
            ""
        } else {
            ", interrupted: not every vBucket was checked"
        },
    );
    out.answer(&object(&found, is_ok), text)?;
    Ok(if is_ok { DONE } else { PROBLEM })
}

/// Checks a whole store at once; for `session` and `stress`.
pub(crate) fn all(engine: &Engine) -> Result<Verification, vbstore::Error> {
    let mut found = engine.verify_shared()?;
    for number in 0..engine.vbuckets() {
        found.add(engine.verify(VbId::new(number))?);
    }
    Ok(found)
}

fn problem_count(found: &Verification) -> u64 {
    u64_from(found.problems.len()) + found.more_problems
}

/// Returns the result of a check as one JSON object.
pub(crate) fn object(found: &Verification, is_ok: bool) -> Value {
    let problems: Vec<Value> = found
        .problems
        .iter()
        .map(|problem| {
            json!({
                "vb": problem.vb.map(VbId::get),
                "seqno": problem.seqno.map(vbstore::Seqno::get),
                "key": problem.key.as_deref().map(record::text),
                "detail": problem.detail,
            })
        })
        .collect();
    json!({
        "ok": is_ok,
        "vbuckets": found.vbuckets,
        "items": found.items,
        "tombstones": found.tombstones,
        "problems": problems,
        "more_problems": found.more_problems,
    })
}

/// Returns a problem as a line of text: where it is, and what is wrong.
fn problem_line(problem: &Problem) -> String {
    let vb = problem
        .vb
        .map_or_else(|| "shared".to_owned(), |vb| vb.to_string());
    let seqno = problem
        .seqno
        .map_or_else(String::new, |seqno| format!(" seqno {seqno}"));
    let key = problem.key.as_deref().map_or_else(String::new, |key| {
        format!(" key {:?}", String::from_utf8_lossy(key))
    });
    format!("{vb}{seqno}{key}: {}", problem.detail)
}
