//! What a stream is doing.

/// What a stream is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamState {
    /// Its backfill waits for others to end; it holds nothing.
    Pending,
    /// Its backfill waits for a worker.
    Ready,
    /// A worker reads a slice for it.
    Running,
    /// Its backfill waits for room in the buffer, for a sync or for a boundary.
    Snoozed,
    /// It reads from memory, when its consumer does.
    InMemory,
    /// Its consumer took nothing while others were short of buffers, so what was buffered for it was
    /// dropped. It holds nothing, and reads on when its consumer asks for events again.
    Paused,
    /// It has ended; not all that it delivered is taken yet.
    Ended,
}

impl StreamState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Ready,
        Self::Running,
        Self::Snoozed,
        Self::InMemory,
        Self::Paused,
        Self::Ended,
    ];

    /// Returns the name used in output and as a label.
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
