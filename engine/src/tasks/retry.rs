//! How soon a task that failed is called again.

use std::time::Duration;

/// Often enough that a full disk is noticed to have space again well within the 15 s that are
/// promised.
pub(super) const RETRY: Duration = Duration::from_millis(500);
