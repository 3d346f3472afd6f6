//! Figures that are read when they are scraped.
//!
//! A collector keeps no figures: each scrape asks the source for what its own tables say at that
//! moment, so nothing can drift or go stale. It holds the source weakly: when the engine is gone it
//! yields nothing. A source that fails, or panics, costs its own part of the scrape and is counted.
//!
//! # Locks
//! `Registry::gather` holds the registry's read lock while it calls a collector, so a source must not
//! touch the registry. It takes the engine's locks one by one and for moments.

use crate::counter::Counter;
use crate::db_snapshots::ClockFn;
use crate::metric::{Kind, Metric};
use crate::names::{COLLECTOR_ERRORS, COLLECTOR_SECONDS};
use crate::snapshot::{Bucket, Family, Figure, MetricsSnapshot, Sample};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};

/// Something that has figures to give.
pub trait SampleSource: Send + Sync {
    /// Puts its figures, as they are now, into `into`. What is not known is left out.
    ///
    /// # Errors
    /// Why some are missing; what was put is still used.
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>>;
}

/// Where a store's figures are registered, and under which name. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    store: Arc<str>,
    registry: prometheus::Registry,
    clock: ClockFn,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// The registry has figures of this store already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlreadyRegistered {
    /// The label `store`.
    pub store: String,
    /// Which part.
    pub part: &'static str,
}

impl fmt::Display for AlreadyRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, part } = self;
        write!(f, "the registry has figures of {part} of a store {store:?}")
    }
}

impl std::error::Error for AlreadyRegistered {}

impl Telemetry {
    /// Registers in `registry` and labels everything with `store`. The clock tells how long a scrape
    /// takes.
    #[must_use]
    pub fn new(store: &str, registry: prometheus::Registry, clock: ClockFn) -> Self {
        Self {
            store: store.into(),
            registry,
            clock,
        }
    }

    /// Returns the same for another registry.
    #[must_use]
    pub fn elsewhere(&self, registry: &prometheus::Registry) -> Self {
        Self {
            registry: registry.clone(),
            ..self.clone()
        }
    }

    /// Returns the label `store`.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns the registry.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Registers a part, which yields nothing until [`Registration::attach`]. Takes the registry's
    /// write lock.
    ///
    /// # Errors
    /// [`AlreadyRegistered`].
    pub fn register(
        &self,
        part: &'static str,
        metrics: &'static [&'static Metric],
    ) -> Result<Registration, AlreadyRegistered> {
        let refused = || AlreadyRegistered {
            store: self.store.to_string(),
            part,
        };
        let collector = PartCollector {
            shared: Arc::new(Shared {
                store: Arc::clone(&self.store),
                part,
                metrics,
                descs: describe(&self.store, part, metrics).ok_or_else(refused)?,
                source: OnceLock::new(),
                clock: Arc::clone(&self.clock),
                errors: Counter::default(),
            }),
        };
        let registered = self.registry.register(Box::new(collector.clone()));
        registered.map_err(|_| refused())?;
        Ok(Registration {
            registry: self.registry.clone(),
            collector,
            is_out: Mutex::new(false),
        })
    }
}

/// A part in a registry; it is taken out when this is dropped, if it was not before.
#[must_use]
pub struct Registration {
    registry: prometheus::Registry,
    collector: PartCollector,
    /// Whether it is out. Held while it is taken out, so that whoever comes second waits too.
    is_out: Mutex<bool>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("part", &self.collector.shared.part)
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Says where the figures come from. Only the first call counts.
    pub fn attach(&self, source: Weak<dyn SampleSource>) {
        drop(self.collector.shared.source.set(source));
    }

    /// Takes the part out of the registry. Waits for a scrape that has begun: when this returns, no
    /// scrape borrows the source. Not to be called by a source.
    pub fn unregister(&self) {
        let mut is_out = self.is_out.lock();
        if std::mem::replace(&mut *is_out, true) {
            return;
        }
        if let Err(error) = self.registry.unregister(Box::new(self.collector.clone())) {
            tracing::warn!(%error, "figures were not registered any more");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.unregister();
    }
}

#[derive(Clone)]
struct PartCollector {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<str>,
    part: &'static str,
    metrics: &'static [&'static Metric],
    descs: Vec<Desc>,
    source: OnceLock<Weak<dyn SampleSource>>,
    clock: ClockFn,
    errors: Counter,
}

/// Returns the descriptions by which a registry tells collectors apart, or `None` if a name is none.
fn describe(store: &str, part: &str, metrics: &[&Metric]) -> Option<Vec<Desc>> {
    let desc = |metric: &Metric, fixed: &[(&str, &str)]| {
        let names = metric.labels.iter().map(|label| label.name.to_owned());
        let names = names.filter(|name| fixed.iter().all(|(fixed, _)| name != fixed));
        let fixed: HashMap<String, String> = fixed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (name, help) = (metric.name.to_owned(), metric.help.to_owned());
        Desc::new(name, help, names.collect(), fixed).ok()
    };
    let own = metrics
        .iter()
        .map(|metric| desc(metric, &[("store", store)]));
    let of_collector = [&COLLECTOR_SECONDS, &COLLECTOR_ERRORS]
        .map(|metric| desc(metric, &[("store", store), ("part", part)]));
    own.chain(of_collector).collect()
}

impl Collector for PartCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.shared.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let shared = &self.shared;
        let Some(source) = shared.source.get().and_then(Weak::upgrade) else {
            return Vec::new();
        };
        let (start, mut snapshot) = ((shared.clock)(), MetricsSnapshot::default());
        let sampled = catch_unwind(AssertUnwindSafe(|| source.sample(&mut snapshot)));
        match sampled {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                shared.errors.add(1);
                tracing::debug!(part = shared.part, %error, "figures are missing");
            }
            Err(_) => {
                shared.errors.add(1);
                tracing::error!(part = shared.part, "collecting figures panicked");
            }
        }
        snapshot.put_by(&COLLECTOR_ERRORS, shared.part, shared.errors.get());
        // A clock of a test may be set back.
        let took = (shared.clock)().saturating_sub(start).as_secs_f64();
        let part = [("part", shared.part.into())];
        snapshot.put_with(&COLLECTOR_SECONDS, &part, took);
        let own = shared.metrics.iter().copied();
        own.chain([&COLLECTOR_SECONDS, &COLLECTOR_ERRORS])
            .filter_map(|metric| {
                let family = snapshot.families.get(metric.name)?;
                Some(encode(metric, family, &shared.store))
            })
            .collect()
    }
}

/// Uses only what is the same with and without the feature `protobuf` of the crate.
fn encode(metric: &Metric, family: &Family, store: &str) -> proto::MetricFamily {
    let mut encoded = proto::MetricFamily::default();
    encoded.set_name(metric.name.to_owned());
    encoded.set_help(metric.help.to_owned());
    encoded.set_field_type(match metric.kind {
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
        Kind::Summary => proto::MetricType::SUMMARY,
    });
    let samples = family.samples.iter();
    let samples: Vec<proto::Metric> = samples.map(|s| encode_sample(metric, s, store)).collect();
    encoded.set_metric(samples);
    encoded
}

fn encode_sample(metric: &Metric, sample: &Sample, store: &str) -> proto::Metric {
    let mut labels: Vec<(&str, &str)> = sample
        .labels
        .iter()
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .collect();
    labels.push(("store", store));
    labels.sort_unstable();
    let pairs: Vec<proto::LabelPair> = labels
        .into_iter()
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        })
        .collect();
    let mut encoded = proto::Metric::from_label(pairs);
    match (&sample.figure, metric.kind) {
        (Figure::Number { value }, Kind::Counter) => {
            let mut counter = proto::Counter::default();
            counter.set_value(*value);
            encoded.set_counter(counter);
        }
        (Figure::Number { value }, _) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*value);
            encoded.set_gauge(gauge);
        }
        (Figure::Distribution { sum, count, .. }, Kind::Summary) => {
            let mut summary = proto::Summary::default();
            summary.set_sample_sum(*sum);
            summary.set_sample_count(*count);
            encoded.set_summary(summary);
        }
        (
            Figure::Distribution {
                buckets,
                sum,
                count,
            },
            _,
        ) => {
            let mut histogram = proto::Histogram::default();
            let buckets: Vec<proto::Bucket> = buckets.iter().map(encode_bucket).collect();
            histogram.set_bucket(buckets);
            histogram.set_sample_sum(*sum);
            histogram.set_sample_count(*count);
            encoded.set_histogram(histogram);
        }
    }
    encoded
}

fn encode_bucket(bucket: &Bucket) -> proto::Bucket {
    let mut encoded = proto::Bucket::default();
    encoded.set_upper_bound(bucket.upto);
    encoded.set_cumulative_count(bucket.count);
    encoded
}

/// Returns what a registry has, in Prometheus' text format; serve it with the content type
/// [`prometheus::TEXT_FORMAT`].
///
/// # Errors
/// If a name or a help text cannot be written; none of ours.
pub fn render(registry: &prometheus::Registry) -> Result<String, prometheus::Error> {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather())
}
