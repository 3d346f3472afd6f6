//! Opens stores whose files are damaged. The result must be an error that says so, or complete
//! data: never silent loss and never a panic. A refused open leaves the files as they were.

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
