//! One vBucket: its cell inside the engine, and the operations on it.

mod handle;
mod page;
mod read;
mod write;

pub use handle::{Seqnos, VBucket, VbCounts};
pub use page::{KeyRange, Page, PageEntry, PageForm};
pub use read::Document;
