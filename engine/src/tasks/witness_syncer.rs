//! Syncs the witness.

use crate::error::Result;
use crate::services::Services;
use crate::signals::Next;
use std::time::Duration;

/// How long a record of the witness may stay unsynced: after a power cut the witness vouches for
/// everything except the last second.
const INTERVAL: Duration = Duration::from_secs(1);

/// Syncs the witness if something was recorded, then wants to be called a second later; with
/// nothing recorded it waits for a signal.
pub(super) fn step(services: &Services) -> Result<Next> {
    // Synced without the lock: whoever leads a flush records meanwhile.
    let unsynced = services.witness.lock().unsynced();
    let Some(record) = unsynced else {
        return Ok(Next::OnSignal);
    };
    record
        .sync()
        .inspect_err(|error| services.health.note(error).run())?;
    services.witness.lock().note_synced(&record);
    Ok(Next::NotBefore(INTERVAL))
}
