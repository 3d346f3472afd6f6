//! Figures against the truth.

#[path = "metrics/registries.rs"]
mod registries;
#[path = "metrics/values.rs"]
mod values;
