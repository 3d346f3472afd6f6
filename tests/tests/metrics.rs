//! Figures against the truth.

#[path = "metrics/figures.rs"]
mod figures;
#[path = "metrics/registries.rs"]
mod registries;
