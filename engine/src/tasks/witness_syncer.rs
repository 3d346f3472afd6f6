//! Syncs the witness file.

use crate::error::Result;
use crate::services::Services;
use crate::signals::NextRun;
use std::time::Duration;

/// How long a record of the witness may stay unsynced. After a power cut the witness lacks at most
/// the last second.
const INTERVAL: Duration = Duration::from_secs(1);

/// Syncs the witness if something was recorded, and then wants to be called a second later. If
/// nothing was recorded, it waits for a signal.
pub(super) fn step(services: &Services) -> Result<NextRun> {
    // The sync runs without the lock: a flush leader may record meanwhile.
    let unsynced = services.witness.lock().unsynced();
    let Some(record) = unsynced else {
        return Ok(NextRun::OnSignal);
    };
    record
        .sync()
        .inspect_err(|error| services.health.note(error).run())?;
    services.witness.lock().note_synced(&record);
    Ok(NextRun::NotBefore(INTERVAL))
}
