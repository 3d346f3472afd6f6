//! Opens a store, writes with each durability, reads in key order, and follows what changed in
//! bounded slices. Built by `cargo build --release --workspace --examples`, into
//! `release/examples/embed` of the target directory.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

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

    // Synced unless something else is asked for.
    let first = vb.set("user::1", "Ann")?;
    vb.write(Change::set("user::2", "Ben"), Durability::Logged)?;
    // Many writes in flight from one thread, then one wait.
    let tickets: Result<Vec<_>, _> = (3..100)
        .map(|n| vb.set_nowait(format!("user::{n}"), "somebody"))
        .collect();
    for ticket in tickets? {
        ticket.wait()?;
    }
    // Only if nobody has changed it since.
    vb.write(
        Change::replace("user::1", "Anna").cas(first.cas),
        Durability::Synced,
    )?;
    vb.delete("user::2")?;

    let page = vb.prefix("user::1", PageForm::Documents)?;
    for entry in &page.entries {
        println!("{}", String::from_utf8_lossy(&entry.key));
    }

    // What changed, in order. Keep the position, and go on from it whenever you like.
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
