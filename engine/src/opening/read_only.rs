//! Opening a store to read, with nothing written to its directory: on a full disk, for example.
//!
//! RocksDB replays its log into memory. What is in the log may be in the system's memory only, after a
//! process was killed, and streams deliver only what is synced: so the log is synced first. That needs no
//! space, and if it fails, so does the open. Then all that is recovered counts as synced.
//!
//! # Why a consumer's position stays valid when the store is opened to write later
//! - *The high seqnos are the same.* Both opens replay the same log with the same options, up to the same
//!   record: it is synced, and nobody appends to it meanwhile.
//! - *The branch is the same.* After an unclean stop a branch is due, and begins with the first change of a
//!   vBucket, at its recovered high seqno ([`vbstore_core`]'s module `branch`). A position reached here is of
//!   the branch before, at or below that seqno: common history, and the consumer goes on. One that was
//!   further before the stop is told to go back, here and later to the same seqno.
//! - *If the disk loses what it said was synced*, less is recovered later. Where the witness vouches for
//!   it, that is refused; where not, the stop was unclean, the branch begins below the position, and the
//!   consumer is told to go back. A disk that failed a sync of the engine before and succeeds in ours is
//!   such a disk.
//!
//! Not so in a copy: the same branch of the original may have gone on, its positions beyond this store's
//! cannot be told from this store's own, and the branches that would tell them apart cannot be written. So
//! streams of it are refused.

use super::compare::{Found, look_at_files};
use super::request::{Ready, Request};
use super::resources::Resources;
use super::states::load;
use crate::error::{Error, Result};
use crate::failpoint::place;
use crate::home::{Access, Home, WitnessFile, sync_logs};
use crate::services::Opened;
use crate::storage::{FamilyOptions, Storage};
use std::sync::Arc;
use vbstore_core::StoreUuid;

/// Opens a store that is complete, to read.
///
/// # Errors
/// [`Error::DataLoss`] and [`Error::Corruption`] as an open to write; [`Error::Io`] if the log cannot be
/// synced.
pub(super) fn open(
    request: Request,
    home: Home,
    store: StoreUuid,
    vbuckets: u16,
) -> Result<Opened> {
    let resources = Resources::find(&request.config, vbuckets, "open")?;
    let options = FamilyOptions::new(resources.storage);
    let witness = WitnessFile::open(&home.witness(), store, Access::Read)?;
    let Found {
        is_copy,
        is_as_closed,
        ..
    } = look_at_files(&home, witness.newest())?;
    request.failpoints.pass(place::OPEN_SYNC)?;
    sync_logs(&home.db())?;
    let snapshots = Arc::clone(&request.metrics.db_snapshots);
    let clock = Arc::clone(&request.clock);
    let storage = Storage::open_to_read(&home.db(), &options, vbuckets, snapshots, clock)?;
    let (expected, found) = (witness.newest().rocks_sequence, storage.rocks_sequence());
    if found < expected {
        return Err(Error::DataLoss { expected, found });
    }
    let loaded = load(&storage, vbuckets)?;
    if is_copy {
        tracing::warn!(
            %store,
            "the store was copied or put back: its streams are refused until it is opened to write"
        );
    }
    tracing::info!(%store, vbuckets, is_as_closed, "store opened to read");
    Ok(request.opened(Ready {
        store,
        write_buffer_bytes: resources.write_buffer_bytes,
        home,
        storage,
        witness,
        loaded,
        has_branches_to_begin: is_copy,
    }))
}
