//! `new-branch`: begins a new branch of history in every vBucket.

use crate::args::NewBranchArgs;
use crate::output::{CommandResult, DONE, Output};
use crate::store;
use serde_json::json;

pub(crate) fn run(args: &NewBranchArgs, out: &mut Output) -> CommandResult {
    let engine = store::open_with_new_branch(&args.dir)?;
    let vbuckets = engine.vbuckets();
    engine.close()?;
    let text = format!("began a new branch in {vbuckets} vBuckets");
    out.answer(&json!({"vbuckets": vbuckets}), text)?;
    Ok(DONE)
}
