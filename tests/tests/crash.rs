//! A child process that writes is killed, or its disk is cut off; every acknowledged write must be
//! there afterwards.

#[path = "crash/child.rs"]
mod child;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/power_cut.rs"]
mod power_cut;
