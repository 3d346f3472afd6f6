//! Plain data about streams: identity, options, events, metrics. Contains no logic of streaming.

mod event;
mod identity;
mod ids;
mod metrics;
mod request;
mod state;

pub(crate) use identity::Stream;
pub(crate) use ids::{BackfillId, ConsumerId, Ids, StreamId};
pub(crate) use metrics::{StreamMetrics, add, get, set};

pub use event::{EndReason, Event, StreamEvent, StreamItem};
pub use request::{OpenOutcome, Positions, StreamOptions, StreamRequest};
pub use state::StreamState;
