//! Opening a store, step by step.
//!
//! 1. *Directory*: it is locked, and its marker says whether a store is created or opened.
//! 2. *Resources*: are there enough file descriptors and threads, and how much memory may RocksDB take?
//! 3. To create: everything is made under the marker "creating", which becomes "ready" last.
//! 4. To open: what would be recovered is *compared* with the witness before anything is written;
//!    after an unclean stop RocksDB *recovers* its log and new branches are due; only then is the store
//!    opened to be used. In a store that was copied they begin at once.
//! 5. To *read*: compared in the same way, with nothing written before, meanwhile or after.

mod compare;
mod create;
mod existing;
mod read_only;
mod recover;
mod request;
mod resources;
mod states;
mod threads;

pub(crate) use request::Request;

use crate::config::VBUCKETS_DEFAULT;
use crate::error::{Error, Result};
use crate::home::{Access, Home, Marker, Phase};
use crate::services::Services;

/// Opens the store, or creates it.
pub(crate) fn open(request: Request) -> Result<Services> {
    threads::check()?;
    let home = Home::lock(&request.path, request.access)?;
    let marker = home.marker()?;
    let wanted = request.config.vbuckets;
    let opened = match marker {
        Some(Marker {
            phase: Phase::Ready,
            store,
            vbuckets,
        }) => {
            if wanted.is_some_and(|wanted| wanted != vbuckets) {
                let detail = format!("the store has {vbuckets}, which cannot be changed");
                return Err(Error::invalid("vbuckets", detail));
            }
            match request.access {
                Access::Write => existing::open(request, home, store, vbuckets)?,
                Access::Read => read_only::open(request, home, store, vbuckets)?,
            }
        }
        None
        | Some(Marker {
            phase: Phase::Creating,
            ..
        }) => {
            if !request.create {
                // A creation that was cut short left no store.
                return Err(Error::NoStore { path: request.path });
            }
            create::create(request, home, wanted.unwrap_or(VBUCKETS_DEFAULT))?
        }
    };
    Ok(Services::new(opened))
}
