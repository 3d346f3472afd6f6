//! Registers an engine's metrics in the program's own registry, renders them in the Prometheus text
//! format, and reads one as plain data.
//!
//! `cargo build --release --workspace --examples` builds it as `release/examples/metrics` in the
//! target directory.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use vbstore::metrics::{names, render};
use vbstore::{Config, Engine, Registry};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // A program passes the registry it has already. Several engines may share it; their names keep
    // their metrics apart.
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

    // This is the response body for the program's web server, with the content type `TEXT_FORMAT`.
    // A program without a web server uses the crate `vbstore-exporter`.
    let text = render(&registry)?;
    for line in text.lines() {
        if line.contains("vbstore_db_snapshots_open{") || line.contains("cursor_max_lag_items") {
            println!("{line}");
        }
    }

    // The same metrics as plain data.
    let snapshot = engine.metrics_snapshot()?;
    let written = snapshot.value(&names::WRITTEN_ITEMS);
    println!("{} changes written", written.unwrap_or_default());
    engine.close()?;
    Ok(())
}
