//! Plain data about streams: identity, options, events, metrics. Contains no logic of streaming.

mod event;
mod figures;
mod identity;
mod ids;
mod request;
mod state;

pub(crate) use figures::{Figures, add, get, set};
pub(crate) use identity::Stream;
pub(crate) use ids::{BackfillId, ConsumerId, Ids, StreamId};

pub use event::{EndReason, Event, StreamEvent, StreamItem};
pub use request::{Opened, Positions, StreamOptions, StreamRequest};
pub use state::StreamState;
