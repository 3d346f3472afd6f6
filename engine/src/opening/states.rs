//! The records of all vBuckets.

use crate::error::{Error, Result};
use crate::storage::Storage;
use vbstore_core::record::VbState;
use vbstore_core::{FailoverLog, VbCell, VbId};
use vbstore_metrics::Holder;

/// The records of one vBucket.
pub(super) struct Loaded {
    pub(super) vb: VbId,
    pub(super) state: VbState,
    pub(super) log: FailoverLog,
}

impl Loaded {
    pub(super) fn into_cell(self) -> VbCell {
        VbCell::new(self.vb, self.state, self.log)
    }
}

/// Reads the records of all vBuckets.
///
/// # Errors
/// [`Error::Corruption`] if one is missing, cannot be decoded, or disagrees with another.
pub(super) fn load(storage: &Storage, vbuckets: u16) -> Result<Vec<Loaded>> {
    storage.with_records(Holder::Admin, |records| {
        let mut loaded = Vec::with_capacity(usize::from(vbuckets));
        for vb in (0..vbuckets).map(VbId::new) {
            let state = records.state(vb)?;
            let log = records.failover_log(vb)?;
            if log.entries().first().map(|entry| entry.uuid) != Some(state.uuid) {
                let detail = "state record and failover log disagree about the newest branch";
                return Err(Error::corrupt_record(vb, None, detail));
            }
            loaded.push(Loaded { vb, state, log });
        }
        Ok(loaded)
    })
}
