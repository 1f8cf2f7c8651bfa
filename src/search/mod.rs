//! Which requests were there, and who calls what?
//!
//! Answers from an index beside the record: one SQLite file a day, made of the segments alone and made anew whenever it is lost.
//! [`Index`] makes it follow the records, [`Indexer`] does so on a thread of its own, [`Search`] asks it, and [`Follow`] reads
//! what has come since without it. Records are never changed here, and no request waits for anything here.

mod catalogue;
mod database;
mod day;
mod entry;
mod error;
mod filter;
mod follow;
mod graph;
mod index;
mod indexer;
mod look;
mod query;
mod record;
mod schema;
mod tail;
mod times;

pub use crate::search::entry::Cursor;
pub use crate::search::entry::Decision;
pub use crate::search::entry::Ended;
pub use crate::search::entry::Entry;
pub use crate::search::error::SearchError;
pub use crate::search::filter::Filter;
pub use crate::search::filter::OPEN;
pub use crate::search::filter::Sources;
pub use crate::search::follow::Follow;
pub use crate::search::graph::Caller;
pub use crate::search::graph::Flow;
pub use crate::search::graph::GRAPH_EDGES_MAX;
pub use crate::search::graph::Graph;
pub use crate::search::index::FREE_BYTES_MIN;
pub use crate::search::index::Index;
pub use crate::search::index::Step;
pub use crate::search::index::discard;
pub use crate::search::indexer::Indexer;
pub use crate::search::look::COUNT_MAX;
pub use crate::search::look::PAGE_ENTRIES_MAX;
pub use crate::search::look::Page;
pub use crate::search::look::Search;
pub use crate::search::times::time_text;

#[cfg(test)]
mod tests;
