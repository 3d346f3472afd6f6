//! The retry delay of background tasks.

use std::time::Duration;

/// Short enough that writes resume well within the promised 15 s after a full disk has space again.
pub(super) const RETRY: Duration = Duration::from_millis(500);
