//! Opens a store, writes with two durabilities, reads in key order, and reads the changes in
//! bounded slices.
//!
//! `cargo build --release --workspace --examples` builds it as `release/examples/embed` in the
//! target directory.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use vbstore::{
    Change, Config, Durability, Engine, PageForm, Seqno, SeqnoRange, SliceBudget, SliceEnd,
};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let config = Config {
        vbuckets: Some(1),
        ..Config::default()
    };
    let engine = Engine::builder(dir.path().join("store"))
        .config(config)
        .open()?;
    let vb = engine.for_key("any");

    // A write is synced by default; `Logged` waits for RocksDB's log only.
    let first = vb.set("user::1", "Ann")?;
    vb.write(Change::set("user::2", "Ben"), Durability::Logged)?;
    // One thread can have many writes in flight and wait for all of them together.
    let tickets: Result<Vec<_>, _> = (3..100)
        .map(|n| vb.set_nowait(format!("user::{n}"), "somebody"))
        .collect();
    for ticket in tickets? {
        ticket.wait()?;
    }
    // Replaces the document only if it was not changed since `first`.
    vb.write(
        Change::replace("user::1", "Anna").cas(first.cas),
        Durability::Synced,
    )?;
    vb.delete("user::2")?;

    let page = vb.prefix("user::1", PageForm::Documents)?;
    for entry in &page.entries {
        println!("{}", String::from_utf8_lossy(&entry.key));
    }

    // The newest change of each key, in the order of seqnos. A program may keep the position and
    // continue from it at any time.
    let mut range = SeqnoRange::above(Seqno::ZERO);
    let budget = SliceBudget {
        items_max: 20,
        ..SliceBudget::default()
    };
    loop {
        let slice = vb.scan_slice(range, budget)?;
        range.after = slice.position();
        println!("{} changes up to seqno {}", slice.len(), range.after);
        if slice.end() == SliceEnd::Complete {
            break;
        }
    }
    engine.close()?;
    Ok(())
}
