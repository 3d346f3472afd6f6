//! Sampling of the metrics of db snapshots.
//!
//! In a file of its own because [`names`] refers to [`DbSnapshots`], and imports must not be
//! circular.

use super::{DbSnapshotHolder, DbSnapshots};
use crate::names;
use crate::snapshot::{MetricsSnapshot, u64_from};
use std::time::Duration;

impl DbSnapshots {
    /// Adds all metrics of db snapshots to `into`, as of one moment. `now` is the time of the
    /// engine's monotonic clock.
    ///
    /// # Panics
    /// Panics if opened minus closed differs from the number open, which is a counting bug.
    pub fn sample(&self, now: Duration, into: &mut MetricsSnapshot) {
        let table = self.table.lock();
        for holder in DbSnapshotHolder::ALL {
            let name = holder.name();
            let of = self.of(holder);
            let open = table.open.values().filter(|(by, _)| *by == holder).count();
            let (open, opened, closed) = (u64_from(open), of.opened.get(), of.closed.get());
            assert_eq!(opened - closed, open, "db snapshots of {name}");
            into.put_by(&names::DB_SNAPSHOTS_OPEN, name, open);
            into.put_by(&names::DB_SNAPSHOTS_OPENED, name, opened);
            into.put_by(&names::DB_SNAPSHOTS_CLOSED, name, closed);
            into.put_by(&names::DB_SNAPSHOT_OVER_LIMIT, name, of.over_limit.get());
            let label = [("holder", name.into())];
            into.put_histogram(&names::DB_SNAPSHOT_HOLD, &label, &of.holds, 1e-6);
        }
        let oldest = table.open.values().next();
        // The db snapshot may have been opened after `now` was read.
        let age = oldest.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(*since));
        into.put_float(&names::DB_SNAPSHOT_OLDEST_AGE, age.as_secs_f64());
    }
}
