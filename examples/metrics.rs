//! Registers an engine's figures in a registry of the program's own, writes them as Prometheus reads
//! them, and reads some of them as plain data. Built by `cargo build --release --workspace
//! --examples`, into `release/examples/figures` of the target directory.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use vbstore::metrics::{names, render};
use vbstore::{Config, Engine, Registry};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // A program that has a registry gives its own; several engines may share one, by name.
    let registry = Registry::new();
    let config = Config {
        vbuckets: Some(1),
        ..Config::default()
    };
    let engine = Engine::builder(dir.path().join("store"))
        .config(config)
        .name("orders")
        .registry(&registry)
        .open()?;
    engine.for_key("order::1").set("order::1", "a book")?;

    // What a web server of the program answers, with the content type `TEXT_FORMAT`; a program that has
    // none uses the crate `vbstore-exporter`.
    let text = render(&registry)?;
    for line in text.lines() {
        if line.contains("vbstore_db_snapshots_open{") || line.contains("cursor_max_lag_items") {
            println!("{line}");
        }
    }

    // The same figures as plain data.
    let snapshot = engine.metrics_snapshot()?;
    let written = snapshot.value(&names::WRITTEN_ITEMS);
    println!("{} changes written", written.unwrap_or_default());
    engine.close()?;
    Ok(())
}
