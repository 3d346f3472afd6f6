//! Watches whether the store's directory is still where it was opened.

use crate::error::Result;
use crate::services::Services;
use crate::signals::NextRun;
use std::time::Duration;

/// How often the directory is checked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Fails the engine if the directory was moved, replaced or removed. Otherwise the engine would go
/// on writing to a directory that the next process does not find at the path.
pub(super) fn step(services: &Services) -> Result<NextRun> {
    if services.health.is_failed() {
        return Ok(NextRun::OnSignal);
    }
    services
        .store_dir
        .check()
        .inspect_err(|error| services.health.note(error).run())?;
    Ok(NextRun::NotBefore(INTERVAL))
}
