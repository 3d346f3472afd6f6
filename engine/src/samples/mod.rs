//! Sampling the engine's metrics, for scrapes and `metrics_snapshot`.
//!
//! A source lives as long as the engine's handle; the registry holds it weakly. It takes the
//! vBuckets' locks one after the other, each briefly. So the metrics of different vBuckets are of
//! slightly different moments. So are the published seqnos of a vBucket and what is read under its
//! lock. The sums over RocksDB's families are computed under a lock of their own for up to 10 ms.
//! Only scrapes take that lock.

mod rocks;
mod tables;
mod vbuckets;

use crate::error::{Error, Result};
use crate::services::Services;
use rocks::RocksSource;
use std::sync::{Arc, Weak};
use tables::TablesSource;
use vbstore_core::lock_order::LockRank;
use vbstore_core::sync::Mutex;
use vbstore_metrics::{
    AlreadyRegistered, MetricsSnapshot, Registration, Registry, SampleSource, Telemetry, names,
};
use vbuckets::VbucketsSource;

/// The engine's registrations, made before it is opened so that a duplicate name fails the open.
pub(crate) struct Registrations {
    telemetry: Telemetry,
    tables: Registration,
    rocks: Registration,
}

impl Registrations {
    pub(crate) fn take(telemetry: Telemetry) -> Result<Self> {
        let tables = telemetry.register("engine", names::ENGINE);
        let rocks = telemetry.register("rocksdb", names::ROCKS);
        Ok(Self {
            tables: tables.map_err(|e| refused(&e))?,
            rocks: rocks.map_err(|e| refused(&e))?,
            telemetry,
        })
    }
}

fn refused(error: &AlreadyRegistered) -> Error {
    Error::invalid("name", error.to_string())
}

/// The metric sources of an open engine.
pub(crate) struct MetricSources {
    telemetry: Telemetry,
    tables: Arc<TablesSource>,
    rocks: Arc<RocksSource>,
    vbuckets: Arc<VbucketsSource>,
    own: [Registration; 2],
    /// Registrations of streams and of single vBuckets. Held weakly: their owners may drop them
    /// early, or keep them longer than the engine.
    others: Mutex<Vec<Weak<Registration>>>,
}

impl MetricSources {
    pub(crate) fn new(services: &Arc<Services>, registrations: Registrations) -> Self {
        let tables = Arc::new(TablesSource::new(Arc::clone(services)));
        let rocks = Arc::new(RocksSource::new(Arc::clone(services)));
        let vbuckets = Arc::new(VbucketsSource::new(Arc::clone(services)));
        registrations.tables.attach(weak(&tables));
        registrations.rocks.attach(weak(&rocks));
        Self {
            telemetry: registrations.telemetry,
            tables,
            rocks,
            vbuckets,
            own: [registrations.tables, registrations.rocks],
            others: Mutex::new(LockRank::Leaf, Vec::new()),
        }
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Registers the metrics of single vBuckets in a registry of their own.
    pub(crate) fn register_vbuckets(&self, registry: &Registry) -> Result<Arc<Registration>> {
        let telemetry = self.telemetry.elsewhere(registry);
        let registration = telemetry
            .register("vbuckets", names::BY_VBUCKET)
            .map_err(|e| refused(&e))?;
        registration.attach(weak(&self.vbuckets));
        Ok(self.keep(registration))
    }

    /// Registers the metrics of streams in the engine's registry.
    pub(crate) fn register_streams(&self) -> Result<Arc<Registration>> {
        let registered = self.telemetry.register("streams", names::STREAMS);
        let twice = |_| Error::invalid("engine", "its streams are registered already");
        Ok(self.keep(registered.map_err(twice)?))
    }

    fn keep(&self, registration: Registration) -> Arc<Registration> {
        let registration = Arc::new(registration);
        let mut others = self.others.lock();
        others.retain(|other| other.strong_count() > 0);
        others.push(Arc::downgrade(&registration));
        drop(others);
        registration
    }

    pub(crate) fn snapshot(&self) -> Result<MetricsSnapshot> {
        let mut snapshot = MetricsSnapshot::default();
        self.tables.put(&mut snapshot)?;
        self.rocks.put(&mut snapshot)?;
        Ok(snapshot)
    }

    /// Removes all registrations from their registries; see [`Registration::unregister`].
    pub(crate) fn unregister(&self) {
        self.own.iter().for_each(Registration::unregister);
        let others = std::mem::take(&mut *self.others.lock());
        for other in others.iter().filter_map(Weak::upgrade) {
            other.unregister();
        }
    }
}

fn weak<S: SampleSource + 'static>(source: &Arc<S>) -> Weak<dyn SampleSource> {
    let source: Weak<S> = Arc::downgrade(source);
    source
}
