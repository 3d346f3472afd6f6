//! Opening stores.

use crate::output::Failure;
use std::path::Path;
use vbstore::{Builder, Config, Engine, VBucket, VbId};

/// Opens a store that must be there.
pub(crate) fn open(dir: &Path) -> Result<Engine, Failure> {
    finish(dir, Engine::builder(dir).create(false))
}

/// Opens a store that must be there, and begins a new branch in every vBucket.
pub(crate) fn open_with_new_branch(dir: &Path) -> Result<Engine, Failure> {
    finish(dir, Engine::builder(dir).create(false).new_branch())
}

/// Opens a store, or makes one with so many vBuckets.
pub(crate) fn open_or_create(dir: &Path, vbuckets: Option<u16>) -> Result<Engine, Failure> {
    let config = Config {
        vbuckets,
        ..Config::default()
    };
    finish(dir, Engine::builder(dir).config(config))
}

fn finish(dir: &Path, builder: Builder) -> Result<Engine, Failure> {
    builder
        .open()
        .map_err(|error| Failure::opening(&error, dir))
}

/// Returns the vBuckets that are meant: one, or all.
pub(crate) fn vbuckets(engine: &Engine, one: Option<u16>) -> Result<Vec<VBucket>, Failure> {
    let numbers = one.map_or_else(|| (0..engine.vbuckets()).collect(), |number| vec![number]);
    let vbs = numbers.into_iter().map(|n| engine.vbucket(VbId::new(n)));
    Ok(vbs.collect::<Result<Vec<VBucket>, _>>()?)
}
