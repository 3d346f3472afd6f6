//! Every step of the write path made to fail, to panic, to abort or to wait.

#[path = "failpoints/disk_full.rs"]
mod disk_full;
#[path = "failpoints/matrix.rs"]
mod matrix;
