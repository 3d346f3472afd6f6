//! What becomes of a store whose files are damaged: an error that says so, or everything is there.
//! Never silent loss, never a panic, and a refused open leaves the files as they were.

#[path = "damage/blast_radius.rs"]
mod blast_radius;
#[path = "damage/files.rs"]
mod files;
#[path = "damage/log_tail.rs"]
mod log_tail;
#[path = "damage/planted.rs"]
mod planted;
#[path = "damage/specimen.rs"]
mod specimen;
