//! `serve`: holds a store open and serves its metrics.

use crate::args;
use crate::exporting::{Exporting, Listen};
use crate::output::{DONE, Out, Run};
use crate::stop::Stop;
use crate::{record, store};
use serde_json::json;
use std::time::Duration;
use vbstore::{Streams, StreamsConfig};

/// How often a signal is looked for.
const TICK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &args::Serve, out: &mut Out, stop: &Stop) -> Run {
    let listen = Listen::resolve(&args.serving)?;
    let engine = if args.read_only {
        store::open_read_only(&args.dir)?
    } else {
        store::open_or_create_to_read(&args.dir, args.vbuckets)?
    };
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    let exporting = Exporting::start(listen.as_ref(), &args.serving, &engine)?;
    let url = exporting.as_ref().map(Exporting::url);
    let text = format!("{} is open until it is stopped", args.dir.display());
    out.answer(
        &json!({"dir": record::path(&args.dir), "metrics": url}),
        text,
    )?;
    out.flush()?;
    while !stop.is_asked() {
        std::thread::park_timeout(TICK);
    }
    drop(exporting);
    drop(streams);
    engine.close()?;
    Ok(DONE)
}
