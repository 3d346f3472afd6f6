//! Compares the data that an open would recover with the data that the witness records as synced.

use super::request::OpenRequest;
use super::states::load;
use crate::error::{Error, Result};
use crate::storage::{FamilyOptions, OpenScope, Storage};
use crate::store_dir::{Access, StoreDir, WITNESS, WitnessFile, data_files};
use std::sync::Arc;
use vbstore_core::StoreUuid;
use vbstore_core::witness::Witness;

/// How the last engine that wrote to this store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastStop {
    Clean,
    Unclean,
}

/// The result of [`compare`], which writes nothing to the data files.
pub(super) struct Comparison {
    pub(super) witness: WitnessFile,
    pub(super) last_stop: LastStop,
    /// The files are not the ones that the last engine recorded.
    pub(super) is_copy: bool,
    /// Every vBucket must begin a new branch at once, because the store is a copy, because synced
    /// changes are lost, or because the caller asked for it.
    pub(super) begins_branches: bool,
}

/// The results of comparing the names, sizes and inodes of the files, before RocksDB is opened.
pub(super) struct FilesFound {
    /// The files are not the ones that the last engine recorded.
    pub(super) is_copy: bool,
    /// The data files have the names and sizes that the last close recorded.
    pub(super) is_as_closed: bool,
    pub(super) is_log_empty: bool,
}

/// Compares the files with the record of them in the witness.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn inspect_files(store_dir: &StoreDir, newest: Witness) -> Result<FilesFound> {
    let is_copy = store_dir.files_digest()?.is_copy(newest.files_digest);
    let files = data_files(&store_dir.db())?;
    let is_as_closed = newest.clean_digest == files.digest;
    if newest.clean_digest != 0 && !is_as_closed {
        tracing::warn!(
            file = WITNESS,
            "the data files have changed since the last close"
        );
    }
    Ok(FilesFound {
        is_copy,
        is_as_closed,
        is_log_empty: files.log_bytes == 0,
    })
}

/// Compares the data that an open would recover with the data that the witness records as synced,
/// and reads the records of all vBuckets. Writes nothing to the data files.
///
/// # Errors
/// [`Error::DataLoss`] if less would be recovered, and [`Error::Corruption`] for an unreadable
/// witness, unless the loss is accepted. [`Error::Corruption`] for records that cannot be read.
pub(super) fn compare(
    request: &OpenRequest,
    store_dir: &StoreDir,
    store: StoreUuid,
    vbuckets: u16,
    options: &FamilyOptions,
) -> Result<Comparison> {
    let inspect = |scope| {
        let clock = Arc::clone(&request.clock);
        Storage::open_read_only(&store_dir.db(), options, vbuckets, scope, clock)
    };
    let witness = match WitnessFile::open(&store_dir.witness(), store, Access::Write) {
        Ok(witness) => witness,
        Err(error @ Error::Corruption { .. }) if request.accept_data_loss => {
            // If the records are corrupt too, this fails before anything is written.
            load(&inspect(OpenScope::Everything)?, vbuckets)?;
            tracing::warn!(%error, "data loss accepted: a new witness is written");
            return without_witness(store_dir, store);
        }
        Err(error) => return Err(error),
    };
    let newest = witness.newest();
    let FilesFound {
        is_copy,
        is_as_closed,
        is_log_empty,
    } = inspect_files(store_dir, newest)?;
    if is_copy {
        tracing::warn!(
            %store,
            "the store was copied or restored: every vBucket begins a new branch"
        );
    }
    // After a clean close with an empty log there is nothing to recover. Then only the records are
    // read here, so that not all column families are opened twice.
    let scope = if is_as_closed && is_log_empty {
        OpenScope::Records
    } else {
        OpenScope::Everything
    };
    let inspected = inspect(scope)?;
    let found = inspected.rocks_sequence();
    let expected = newest.rocks_sequence;
    let has_lost_data = found < expected;
    if has_lost_data && !request.accept_data_loss {
        return Err(Error::DataLoss { expected, found });
    }
    // If a record is corrupt, this fails before the open changes anything.
    load(&inspected, vbuckets)?;
    if has_lost_data {
        tracing::warn!(
            expected,
            found,
            "data loss accepted: less is recovered than was synced"
        );
    }
    let last_stop = if is_as_closed && !has_lost_data {
        LastStop::Clean
    } else {
        LastStop::Unclean
    };
    Ok(Comparison {
        witness,
        last_stop,
        is_copy,
        begins_branches: is_copy || has_lost_data || request.new_branch,
    })
}

/// Writes a new witness in place of one that cannot be read. What was synced is not known, so every
/// vBucket begins a new branch.
fn without_witness(store_dir: &StoreDir, store: StoreUuid) -> Result<Comparison> {
    let witness = WitnessFile::create(&store_dir.witness(), store)?;
    store_dir.sync()?;
    Ok(Comparison {
        witness,
        last_stop: LastStop::Unclean,
        is_copy: false,
        begins_branches: true,
    })
}
