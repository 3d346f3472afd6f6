//! Syncs the witness.

use crate::error::{Error, Result};
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
    let unsynced = services.witness.lock().take_unsynced()?;
    let Some(file) = unsynced else {
        return Ok(Next::OnSignal);
    };
    file.sync_data()
        .map_err(|e| Error::io("sync the witness", e))
        .inspect_err(|error| services.health.note(error).run())?;
    Ok(Next::NotBefore(INTERVAL))
}
