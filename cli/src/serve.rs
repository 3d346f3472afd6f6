//! `serve`: keeps a store open and serves its metrics.

use crate::args;
use crate::exporting::{Listen, RunningExporter};
use crate::output::{CommandResult, DONE, Output};
use crate::stop::StopFlag;
use crate::{record, store};
use serde_json::json;
use std::time::Duration;
use vbstore::{Streams, StreamsConfig};

/// How often a stop is checked for.
const TICK: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &args::ServeArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let listen = Listen::resolve(&args.serving)?;
    let engine = if args.read_only {
        store::open_read_only(&args.dir)?
    } else {
        store::open_or_create_to_read(&args.dir, args.vbuckets)?
    };
    let streams = Streams::start(&engine, &StreamsConfig::default())?;
    let exporter = RunningExporter::start(listen.as_ref(), &args.serving, &engine)?;
    let url = exporter.as_ref().map(RunningExporter::url);
    let text = format!(
        "{} is open until the program is stopped (SIGINT, SIGTERM)",
        args.dir.display()
    );
    out.answer(
        &json!({"dir": record::path(&args.dir), "metrics": url}),
        text,
    )?;
    out.flush()?;
    while !stop.is_asked() {
        std::thread::park_timeout(TICK);
    }
    // The exporter reads the metrics of the engine: it ends before the engine is closed.
    drop(exporter);
    drop(streams);
    engine.close()?;
    Ok(DONE)
}
