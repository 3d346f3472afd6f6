//! Reading in seqno order, by slices.

use crate::config::SliceBudget;
use crate::error::Result;
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::slice::{Ask, SeqnoRange, Slice};
use crate::vbuckets::Vb;
use std::sync::Arc;
use vbstore_metrics::Holder;

/// Reads slices.
pub(crate) struct SliceReads {
    pub(crate) gate: Arc<Gate>,
    pub(crate) failpoints: MaybeFailpoints,
}

impl SliceReads {
    /// Reads one slice. Opens a db snapshot, which is counted under `holder`, and drops it before it
    /// returns.
    pub(crate) fn read(
        &self,
        holder: Holder,
        vb: &Vb,
        range: SeqnoRange,
        budget: SliceBudget,
    ) -> Result<Slice> {
        let seam = || self.failpoints.pass(place::SLICE_VIEW);
        let storage = self.gate.lend()?;
        storage.scan_slice(holder, vb.id(), range, budget, seam)
    }

    /// Reads slices for several asks through one db snapshot; see [`crate::Engine::scan`].
    pub(crate) fn read_many(
        &self,
        holder: Holder,
        asks: &[Ask],
        budget: SliceBudget,
    ) -> Result<Vec<Result<Slice>>> {
        let seam = || self.failpoints.pass(place::SLICE_VIEW);
        Ok(self.gate.lend()?.scan_slices(holder, asks, budget, seam))
    }
}
