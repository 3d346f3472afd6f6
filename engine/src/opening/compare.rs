//! Comparing what would be recovered with what the witness vouches for.

use super::request::Request;
use super::states::load;
use crate::error::{Error, Result};
use crate::home::{Access, Home, WITNESS, WitnessFile, data_files};
use crate::storage::{FamilyOptions, Reach, Storage};
use std::sync::Arc;
use vbstore_core::StoreUuid;
use vbstore_core::witness::Witness;

/// How the last engine on this store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastStop {
    Clean,
    Unclean,
}

/// What was found before anything was written.
pub(super) struct Compared {
    pub(super) witness: WitnessFile,
    pub(super) last_stop: LastStop,
    /// The files are others than those that the last engine on this store recorded.
    pub(super) is_copy: bool,
    /// Every vBucket must begin a new branch at once: the store is a copy, or what was synced is lost,
    /// or the caller asked for it.
    pub(super) begins_branches: bool,
}

/// What the files look like from outside, before RocksDB is asked.
pub(super) struct Found {
    /// The files are others than those that the last engine on this store recorded.
    pub(super) is_copy: bool,
    /// They are as the last close left them.
    pub(super) is_as_closed: bool,
    /// RocksDB's log is empty.
    pub(super) is_log_empty: bool,
}

/// Looks at the files, and compares them with what the witness says of them.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn look_at_files(home: &Home, newest: Witness) -> Result<Found> {
    let is_copy = home.files_digest()?.is_copy(newest.files_digest);
    let files = data_files(&home.db())?;
    let is_as_closed = newest.clean_digest == files.digest;
    if newest.clean_digest != 0 && !is_as_closed {
        tracing::warn!(
            file = WITNESS,
            "the data files are not as the last close left them"
        );
    }
    Ok(Found {
        is_copy,
        is_as_closed,
        is_log_empty: files.log_bytes == 0,
    })
}

/// Compares what would be recovered with what the witness vouches for, and reads the records of all
/// vBuckets, before anything is written.
///
/// # Errors
/// [`Error::DataLoss`] and [`Error::Corruption`], unless the loss is accepted.
pub(super) fn compare(
    request: &Request,
    home: &Home,
    store: StoreUuid,
    vbuckets: u16,
    options: &FamilyOptions,
) -> Result<Compared> {
    let look = |reach| {
        let clock = Arc::clone(&request.clock);
        Storage::open_read_only(&home.db(), options, vbuckets, reach, clock)
    };
    let witness = match WitnessFile::open(&home.witness(), store, Access::Write) {
        Ok(witness) => witness,
        Err(error @ Error::Corruption { .. }) if request.accept_data_loss => {
            // What is worse than a lost witness is met here, before anything is written.
            load(&look(Reach::Everything)?, vbuckets)?;
            tracing::warn!(%error, "data loss accepted: the witness is made anew");
            let witness = WitnessFile::create(&home.witness(), store)?;
            home.sync()?;
            return Ok(Compared {
                witness,
                last_stop: LastStop::Unclean,
                is_copy: false,
                begins_branches: true,
            });
        }
        Err(error) => return Err(error),
    };
    let newest = witness.newest();
    let Found {
        is_copy,
        is_as_closed,
        is_log_empty,
    } = look_at_files(home, newest)?;
    if is_copy {
        tracing::warn!(
            %store,
            "the store was copied or put back: every vBucket begins a new branch"
        );
    }
    // After a clean close with an empty log there is nothing to recover, and no need to open every
    // family twice.
    let reach = if is_as_closed && is_log_empty {
        Reach::Records
    } else {
        Reach::Everything
    };
    let seen = look(reach)?;
    let found = seen.rocks_sequence();
    let expected = newest.rocks_sequence;
    let is_short = found < expected;
    if is_short && !request.accept_data_loss {
        return Err(Error::DataLoss { expected, found });
    }
    // Corrupt records are met here, before opening to write changes anything.
    load(&seen, vbuckets)?;
    if is_short {
        tracing::warn!(expected, found, "data loss accepted");
    }
    let last_stop = if is_as_closed && !is_short {
        LastStop::Clean
    } else {
        LastStop::Unclean
    };
    Ok(Compared {
        witness,
        last_stop,
        is_copy,
        begins_branches: is_copy || is_short || request.new_branch,
    })
}
