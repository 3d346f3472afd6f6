//! Compares metrics with what was done.

#[path = "metrics/figures.rs"]
mod figures;
#[path = "metrics/registries.rs"]
mod registries;
