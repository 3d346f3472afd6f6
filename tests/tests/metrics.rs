//! Compares metrics with what was done.

#[path = "metrics/registries.rs"]
mod registries;
#[path = "metrics/values.rs"]
mod values;
