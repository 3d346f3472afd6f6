//! Opens stores, and finds their vBuckets.

use crate::args::ReadOnlyArgs;
use crate::output::{CommandError, USAGE, warn};
use std::path::Path;
use vbstore::{Builder, Config, Engine, Error, VBucket, VbId};

/// Opens an existing store.
pub(crate) fn open(dir: &Path) -> Result<Engine, CommandError> {
    finish(dir, Engine::builder(dir).create(false))
}

/// Opens an existing store for a command that only reads.
pub(crate) fn open_to_read(dir: &Path, reading: ReadOnlyArgs) -> Result<Engine, CommandError> {
    if reading.read_only {
        return open_read_only(dir);
    }
    open_or_read(dir, Engine::builder(dir).create(false))
}

/// Opens an existing store without writing anything to it.
pub(crate) fn open_read_only(dir: &Path) -> Result<Engine, CommandError> {
    finish(dir, Engine::builder(dir).read_only())
}

/// Opens an existing store, and begins a new branch in every vBucket.
pub(crate) fn open_with_new_branch(dir: &Path) -> Result<Engine, CommandError> {
    finish(dir, Engine::builder(dir).create(false).new_branch())
}

/// Opens a store, or creates one with `vbuckets` vBuckets (`None`: the default).
pub(crate) fn open_or_create(dir: &Path, vbuckets: Option<u16>) -> Result<Engine, CommandError> {
    finish(dir, creating_builder(dir, vbuckets))
}

/// Like [`open_or_create`], for a command that writes no documents: opens read-only if the disk is
/// full.
pub(crate) fn open_or_create_to_read(
    dir: &Path,
    vbuckets: Option<u16>,
) -> Result<Engine, CommandError> {
    open_or_read(dir, creating_builder(dir, vbuckets))
}

fn creating_builder(dir: &Path, vbuckets: Option<u16>) -> Builder {
    let config = Config {
        vbuckets,
        ..Config::default()
    };
    Engine::builder(dir).config(config)
}

fn finish(dir: &Path, builder: Builder) -> Result<Engine, CommandError> {
    builder
        .open()
        .map_err(|error| CommandError::opening(&error, dir))
}

/// Opens a store for reading. If the disk is full, opens it read-only, and prints a warning.
fn open_or_read(dir: &Path, builder: Builder) -> Result<Engine, CommandError> {
    let full = match builder.open() {
        Err(full @ Error::DiskFull { .. }) => full,
        opened => return opened.map_err(|error| CommandError::opening(&error, dir)),
    };
    match Engine::builder(dir).read_only().open() {
        Ok(engine) => {
            let text = format!("{full}; {} is opened read-only", dir.display());
            warn("disk_full", &text);
            Ok(engine)
        }
        // The store was to be created: the full disk is the cause.
        Err(Error::NoStore { .. }) => Err(CommandError::opening(&full, dir)),
        Err(error) => Err(CommandError::opening(&error, dir)),
    }
}

/// Returns vBucket `one`, or all of them.
pub(crate) fn vbuckets(engine: &Engine, one: Option<u16>) -> Result<Vec<VBucket>, CommandError> {
    let numbers = one.map_or_else(|| (0..engine.vbuckets()).collect(), |number| vec![number]);
    numbers.into_iter().map(|n| vbucket(engine, n)).collect()
}

/// Returns a vBucket by its number.
pub(crate) fn vbucket(engine: &Engine, number: u16) -> Result<VBucket, CommandError> {
    let count = engine.vbuckets();
    if number >= count {
        let last = count.saturating_sub(1);
        let text = format!("no vBucket {number}: the store has {count} (0 to {last})");
        return Err(CommandError::new(USAGE, "invalid", text));
    }
    Ok(engine.vbucket(VbId::new(number))?)
}
