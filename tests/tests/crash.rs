//! A child that writes is killed, or its disk is cut off; what it was told must be there.

#[path = "crash/child.rs"]
mod child;
#[path = "crash/kill.rs"]
mod kill;
#[path = "crash/power_cut.rs"]
mod power_cut;
