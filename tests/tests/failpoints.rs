//! Makes every step of the write path fail, panic, abort or wait.

#[path = "failpoints/disk_full.rs"]
mod disk_full;
#[path = "failpoints/matrix.rs"]
mod matrix;
