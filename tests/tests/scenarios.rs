//! What an embedder does with an engine, story by story.

#[path = "scenarios/branches.rs"]
mod branches;
#[path = "scenarios/closing.rs"]
mod closing;
#[path = "scenarios/copies.rs"]
mod copies;
#[path = "scenarios/deleting_vbuckets.rs"]
mod deleting_vbuckets;
#[path = "scenarios/durability.rs"]
mod durability;
#[path = "scenarios/limits.rs"]
mod limits;
#[path = "scenarios/opening.rs"]
mod opening;
#[path = "scenarios/reading.rs"]
mod reading;
#[path = "scenarios/slices.rs"]
mod slices;
#[path = "scenarios/syncing.rs"]
mod syncing;
#[path = "scenarios/writing.rs"]
mod writing;
