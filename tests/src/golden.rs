//! The stores under `tests/golden`: made once by the version that introduced a format, opened by
//! every later version.

use crate::vb;
use std::path::PathBuf;
use vbstore::{Cas, Change, Durability, Engine, ItemKind};

/// Returns the directory of the golden stores.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Writes the contents of each golden store. "plain" is written twice, so that one change replaces
/// another.
pub fn write(engine: &Engine) {
    let vb0 = vb(engine, 0);
    let set = |change: Change| vb0.write(change, Durability::Logged).unwrap();
    set(Change::restore(
        ItemKind::Mutation,
        "plain",
        "first",
        Cas::new(100),
    ));
    set(Change::restore(
        ItemKind::Mutation,
        "plain",
        "second",
        Cas::new(101),
    ));
    let everything = Change::restore(
        ItemKind::Mutation,
        "meta",
        &b"\x00\xff binary"[..],
        Cas::new(102),
    );
    set(everything
        .flags(0xdead_beef)
        .datatype(7)
        .expiry(4_000_000_000));
    set(Change::restore(
        ItemKind::Mutation,
        "gone",
        "x",
        Cas::new(103),
    ));
    set(Change::restore(ItemKind::Deletion, "gone", "", Cas::new(104)).expiry(1_700_000_000));
    set(Change::restore(ItemKind::Expiration, "expired", "", Cas::new(105)).expiry(1_700_000_001));
    let batch = [
        Change::restore(ItemKind::Mutation, "batch-1", "one", Cas::new(106)),
        Change::restore(ItemKind::Mutation, "batch-2", "", Cas::new(107)),
    ];
    vb0.batch(&batch, Durability::Synced).unwrap();
    let other = Change::restore(
        ItemKind::Mutation,
        "other",
        "v".repeat(5_000),
        Cas::new(200),
    );
    vb(engine, 1).write(other, Durability::Synced).unwrap();
}
