//! Project rules for the layout of the crates and the text of the sources. Each rule is a function
//! over text or over cargo's metadata, and is tested with a snippet that breaks it.

#[path = "house/crates.rs"]
mod crates;
#[path = "house/files.rs"]
mod files;
#[path = "house/imports.rs"]
mod imports;
#[path = "house/manifests.rs"]
mod manifests;
#[path = "house/prose.rs"]
mod prose;
#[path = "house/sources.rs"]
mod sources;
#[path = "house/tokens.rs"]
mod tokens;
#[path = "house/versions.rs"]
mod versions;
