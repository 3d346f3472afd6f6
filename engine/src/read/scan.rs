//! Reading slices in seqno order.

use crate::config::SliceBudget;
use crate::error::{Error, Result};
use crate::failpoint::{MaybeFailpoints, place};
use crate::gate::Gate;
use crate::slice::{SeqnoRange, Slice, SliceRequest};
use crate::vbuckets::{VBuckets, Vb};
use std::sync::Arc;
use vbstore_metrics::DbSnapshotHolder;

pub(crate) struct SliceReads {
    pub(crate) gate: Arc<Gate>,
    pub(crate) vbs: Arc<VBuckets>,
    pub(crate) failpoints: MaybeFailpoints,
}

impl SliceReads {
    /// Reads one slice. Opens a db snapshot, counted under `holder`, and releases it before it
    /// returns.
    ///
    /// # Errors
    /// [`Error::VbGone`] if the vBucket was deleted meanwhile: the files behind the view may be
    /// gone.
    pub(crate) fn read(
        &self,
        holder: DbSnapshotHolder,
        vb: &Vb,
        range: SeqnoRange,
        budget: SliceBudget,
    ) -> Result<Slice> {
        let test_hook = || self.failpoints.pass(place::SLICE_VIEW);
        let storage = self.gate.acquire()?;
        let generation = vb.cell.generation();
        let slice = storage.scan_slice(holder, vb.id(), range, budget, test_hook)?;
        let checked = vb.cell.check_generation(generation);
        checked.map_err(|_| Error::VbGone { vb: vb.id() })?;
        Ok(slice)
    }

    /// Reads slices for several requests through one db snapshot; see [`crate::Engine::scan`].
    pub(crate) fn read_many(
        &self,
        holder: DbSnapshotHolder,
        requests: &[SliceRequest],
        budget: SliceBudget,
    ) -> Result<Vec<Result<Slice>>> {
        let test_hook = || self.failpoints.pass(place::SLICE_VIEW);
        let storage = self.gate.acquire()?;
        let generations: Vec<u64> = requests
            .iter()
            .map(|request| self.vbs.at(request.vb).cell.generation())
            .collect();
        let slices = storage.scan_slices(holder, requests, budget, test_hook);
        let of_each = slices.into_iter().zip(requests).zip(generations);
        let checked = of_each.map(|((slice, request), generation)| {
            let still = self.vbs.at(request.vb).cell.check_generation(generation);
            still.map_err(|_| Error::VbGone { vb: request.vb })?;
            slice
        });
        Ok(checked.collect())
    }
}
