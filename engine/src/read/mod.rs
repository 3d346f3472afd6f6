//! Reading: single keys, pages in key order, and slices in seqno order.

mod generation;
mod page;
mod point;
mod scan;

pub(crate) use page::PageReads;
pub use page::{KeyRange, Page, PageEntry, PageForm};
pub use point::Document;
pub(crate) use point::PointReads;
pub(crate) use scan::SliceReads;
