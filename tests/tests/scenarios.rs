//! What an embedder does with an engine, one subject a file.

#[path = "scenarios/bounded.rs"]
mod bounded;
#[path = "scenarios/branches.rs"]
mod branches;
#[path = "scenarios/closing.rs"]
mod closing;
#[path = "scenarios/copies.rs"]
mod copies;
#[path = "scenarios/debugging.rs"]
mod debugging;
#[path = "scenarios/deleting_vbuckets.rs"]
mod deleting_vbuckets;
#[path = "scenarios/durability.rs"]
mod durability;
#[path = "scenarios/forks.rs"]
mod forks;
#[path = "scenarios/last_handle.rs"]
mod last_handle;
#[path = "scenarios/limits.rs"]
mod limits;
#[path = "scenarios/moved.rs"]
mod moved;
#[path = "scenarios/opening.rs"]
mod opening;
#[path = "scenarios/read_only.rs"]
mod read_only;
#[path = "scenarios/read_only_opening.rs"]
mod read_only_opening;
#[path = "scenarios/reading.rs"]
mod reading;
#[path = "scenarios/slices.rs"]
mod slices;
#[path = "scenarios/syncing.rs"]
mod syncing;
#[path = "scenarios/writing.rs"]
mod writing;
