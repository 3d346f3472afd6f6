//! Opens a store to read, without writing to its directory: on a full disk, for example.
//!
//! RocksDB replays its log into memory. After a process was killed, the end of the log may be in
//! the operating system's memory only. But streams deliver only synced changes. So the log is
//! synced first. That needs no disk space. If it fails, the open fails. After it, everything
//! recovered counts as synced.
//!
//! # Why a consumer's position stays valid when the store is opened to write later
//! - *The high seqnos are the same.* Both opens replay the same log with the same options, up to
//!   the same record. The log is synced, and no process appends to it meanwhile.
//! - *The branch is the same.* After an unclean stop, a branch is due: it begins with the next
//!   change of a vBucket, at its recovered high seqno (see the module `branch` of
//!   [`vbstore_core`]). A position reached here belongs to the branch before, at or below that
//!   seqno. That is common history, so the consumer continues. A consumer that was beyond that
//!   seqno before the stop is rolled back to the same seqno, in this open and in a later one.
//! - *If the disk loses data that it reported as synced*, less is recovered later. If the witness
//!   records that data as synced, the open fails with [`Error::DataLoss`]. Otherwise the stop was
//!   unclean: the branch begins below the position, and the consumer is rolled back. One example is
//!   a disk on which the last sync of the previous engine failed, although this sync succeeds.
//!
//! None of this holds in a copy. The original may have continued on the same branch with other
//! changes, so one position can belong to two histories. New branches would tell the histories
//! apart, but cannot be written here. So streams of a copy are refused.

use super::compare::{FilesFound, inspect_files};
use super::request::{OpenRequest, ReadyStore};
use super::resources::Resources;
use super::states::load;
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::services::OpenedStore;
use crate::storage::{FamilyOptions, Storage};
use crate::store_dir::{Access, StoreDir, WitnessFile, sync_logs};
use std::sync::Arc;
use vbstore_core::StoreUuid;

/// Opens a complete store to read.
///
/// # Errors
/// [`Error::DataLoss`] and [`Error::Corruption`] as for an open to write; [`Error::Io`] if the log
/// cannot be synced.
pub(super) fn open(
    request: OpenRequest,
    store_dir: StoreDir,
    store: StoreUuid,
    vbuckets: u16,
) -> Result<OpenedStore> {
    let resources = Resources::find(&request.config, vbuckets, "open")?;
    let options = FamilyOptions::new(resources.storage);
    let witness = WitnessFile::open(&store_dir.witness(), store, Access::Read)?;
    let FilesFound {
        is_copy,
        is_as_closed,
        ..
    } = inspect_files(&store_dir, witness.newest())?;
    request.failpoints.pass(place::OPEN_SYNC)?;
    sync_logs(&store_dir.db())?;
    let snapshots = Arc::clone(&request.metrics.db_snapshots);
    let clock = Arc::clone(&request.clock);
    let storage = Storage::open_to_read(&store_dir.db(), &options, vbuckets, snapshots, clock)?;
    let (expected, found) = (witness.newest().rocks_sequence, storage.rocks_sequence());
    if found < expected {
        return Err(Error::DataLoss { expected, found });
    }
    let loaded = load(&storage, vbuckets)?;
    if is_copy {
        tracing::warn!(
            %store,
            "the store was copied or restored: it has no streams until it is opened to write once"
        );
    }
    tracing::info!(%store, vbuckets, is_as_closed, "the store is open to read");
    Ok(request.into_opened(ReadyStore {
        store,
        write_buffer_bytes: resources.write_buffer_bytes,
        store_dir,
        storage,
        witness,
        loaded,
        has_branches_to_begin: is_copy,
    }))
}
