//! The steps of opening a store.
//!
//! 1. *Threads*: check that the process may start the threads that the engine needs.
//! 2. *Directory*: lock it, and read its marker. The marker decides between creating and opening.
//! 3. *Resources*: check the limit of file descriptors, and size RocksDB's memory.
//! 4. To *create*: write everything under the marker "creating", then replace it by "ready".
//! 5. To *open*: compare the data that RocksDB would recover with the witness, before anything is
//!    written. After an unclean stop, let RocksDB recover its log; every vBucket must then begin a
//!    new branch before its next change. In a copied store the new branches begin at once. Only
//!    then open the store for use.
//! 6. To *read*: compare in the same way. Nothing is ever written.

mod compare;
mod create;
mod existing;
mod read_only;
mod recover;
mod request;
mod resources;
mod states;
mod threads;

pub(crate) use request::OpenRequest;

use crate::config::VBUCKETS_DEFAULT;
use crate::error::{Error, Result};
use crate::services::Services;
use crate::store_dir::{Access, CreationPhase, StoreDir, StoreMarker};

/// Opens the store that the request names, or creates it.
pub(crate) fn open(request: OpenRequest) -> Result<Services> {
    threads::check()?;
    let store_dir = StoreDir::lock(&request.path, request.access)?;
    let marker = store_dir.marker()?;
    let wanted = request.config.vbuckets;
    let opened = match marker {
        Some(StoreMarker {
            phase: CreationPhase::Ready,
            store,
            vbuckets,
        }) => {
            if wanted.is_some_and(|wanted| wanted != vbuckets) {
                let detail = format!(
                    "the store has {vbuckets} vBuckets, and their number cannot be changed"
                );
                return Err(Error::invalid("vbuckets", detail));
            }
            match request.access {
                Access::Write => existing::open(request, store_dir, store, vbuckets)?,
                Access::Read => read_only::open(request, store_dir, store, vbuckets)?,
            }
        }
        None
        | Some(StoreMarker {
            phase: CreationPhase::Creating,
            ..
        }) => {
            if !request.create {
                // The marker says "creating": an interrupted creation has left no store.
                return Err(Error::NoStore { path: request.path });
            }
            create::create(request, store_dir, wanted.unwrap_or(VBUCKETS_DEFAULT))?
        }
    };
    Ok(Services::new(opened))
}
