//! Writes the dashboards from their table, into metrics/dashboards.

mod table;
mod write;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    std::fs::write(dir.join("grafana.json"), write::grafana())?;
    std::fs::write(dir.join("vbstore.html"), write::console())
}
