//! The states of a stream.

/// The state of a stream: where it reads from, or what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamState {
    /// Its backfill waits for other backfills to end. It holds no resources.
    Pending,
    /// Its backfill waits for a worker.
    Ready,
    /// A worker runs its backfill.
    Running,
    /// Its backfill waits for buffer room, for a sync or for a boundary.
    Snoozed,
    /// It reads from memory whenever its consumer asks for events.
    InMemory,
    /// Its batches were dropped, because its consumer took nothing while other consumers were short
    /// of buffer space. It holds no resources, and resumes when its consumer asks for events again.
    Paused,
    /// It has ended, but its consumer has not taken all of its events yet.
    Ended,
}

impl StreamState {
    /// All states.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Ready,
        Self::Running,
        Self::Snoozed,
        Self::InMemory,
        Self::Paused,
        Self::Ended,
    ];

    /// Returns the name used in output and as a metric label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Snoozed => "snoozed",
            Self::InMemory => "in_memory",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }
}
