//! `new-branch`: begins a new branch of history in every vBucket.

use crate::args::NewBranch;
use crate::output::{DONE, Out, Run};
use crate::store;
use serde_json::json;

pub(crate) fn run(args: &NewBranch, out: &mut Out) -> Run {
    let engine = store::open_with_new_branch(&args.dir)?;
    let vbuckets = engine.vbuckets();
    engine.close()?;
    let text = format!("a new branch has begun in {vbuckets} vBuckets");
    out.answer(&json!({"vbuckets": vbuckets}), text)?;
    Ok(DONE)
}
