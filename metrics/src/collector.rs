//! Collectors that read their values at each scrape.
//!
//! A collector stores no values. Each scrape reads the engine's tables through the source, so a
//! value cannot drift or become stale. The collector holds the source weakly: once the engine is
//! gone, it exports nothing. If a source fails or panics, only its part of the scrape is missing,
//! and the failure is counted.
//!
//! # Locks
//! `Registry::gather` holds the registry's read lock while it calls a collector, so a source must
//! not use the registry. A source takes the engine's locks one at a time and holds each briefly.

use crate::counter::Counter;
use crate::db_snapshots::ClockFn;
use crate::metric::{Metric, MetricKind};
use crate::names::{COLLECTOR_ERRORS, COLLECTOR_SECONDS};
use crate::snapshot::{HistogramBucket, MetricFamily, MetricsSnapshot, Sample, SampleValue};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};

/// A source of metric values.
pub trait SampleSource: Send + Sync {
    /// Adds the current values to `into`. A value that is not known is left out.
    ///
    /// # Errors
    /// Returns why some values are missing; those already added are still exported.
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>>;
}

/// The registry for a store's metrics, and the value of their `store` label. Cheap to clone.
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

/// The registry already has metrics with this `store` label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlreadyRegistered {
    /// The value of the label `store`.
    pub store: String,
    /// The part that was to be registered: `engine`, `rocksdb`, `streams` or `vbuckets`.
    pub part: &'static str,
}

impl fmt::Display for AlreadyRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, part } = self;
        write!(
            f,
            "the registry already has the {part} metrics of a store named {store:?}"
        )
    }
}

impl std::error::Error for AlreadyRegistered {}

impl Telemetry {
    /// Returns a telemetry that registers in `registry` and adds the label `store` to every metric.
    /// `clock` measures the duration of scrapes.
    #[must_use]
    pub fn new(store: &str, registry: prometheus::Registry, clock: ClockFn) -> Self {
        Self {
            store: store.into(),
            registry,
            clock,
        }
    }

    /// Returns a telemetry with the same label for another registry.
    #[must_use]
    pub fn elsewhere(&self, registry: &prometheus::Registry) -> Self {
        Self {
            registry: registry.clone(),
            ..self.clone()
        }
    }

    /// Returns the value of the label `store`.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns the registry that metrics are registered in.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        &self.registry
    }

    /// Registers a part, which exports nothing until [`Registration::attach`] is called. Takes the
    /// registry's write lock.
    ///
    /// # Errors
    /// Returns [`AlreadyRegistered`] if the registry has this part of a store with the same label.
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
            shared: Arc::new(CollectorState {
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
            is_unregistered: Mutex::new(false),
        })
    }
}

/// A registered part. Dropping it unregisters the part.
#[must_use]
pub struct Registration {
    registry: prometheus::Registry,
    collector: PartCollector,
    /// Whether the part was unregistered. The lock is held while the part is unregistered, so that
    /// a second caller also waits until no scrape uses the source.
    is_unregistered: Mutex<bool>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("part", &self.collector.shared.part)
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Sets the source of the values. Only the first call has an effect.
    pub fn attach(&self, source: Weak<dyn SampleSource>) {
        drop(self.collector.shared.source.set(source));
    }

    /// Removes the part from the registry. Blocks until a scrape in progress has finished: once
    /// this returns, no scrape uses the source. A source must not call this, since it would wait
    /// for itself.
    pub fn unregister(&self) {
        let mut is_unregistered = self.is_unregistered.lock();
        if std::mem::replace(&mut *is_unregistered, true) {
            return;
        }
        if let Err(error) = self.registry.unregister(Box::new(self.collector.clone())) {
            tracing::warn!(%error, "metrics were already unregistered");
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
    shared: Arc<CollectorState>,
}

struct CollectorState {
    store: Arc<str>,
    part: &'static str,
    metrics: &'static [&'static Metric],
    descs: Vec<Desc>,
    source: OnceLock<Weak<dyn SampleSource>>,
    clock: ClockFn,
    errors: Counter,
}

/// Returns the descriptions by which a registry distinguishes collectors, or `None` if a metric or
/// label has an invalid name.
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
                tracing::debug!(part = shared.part, %error, "some metrics are missing from this scrape");
            }
            Err(_) => {
                shared.errors.add(1);
                tracing::error!(part = shared.part, "collecting metrics panicked");
            }
        }
        snapshot.put_by(&COLLECTOR_ERRORS, shared.part, shared.errors.get());
        // The clock of a test may go back.
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

/// Converts a family to its exported form. Uses only the methods of `prometheus` that are the same
/// with and without its feature `protobuf`, which another crate of the program may enable.
fn encode(metric: &Metric, family: &MetricFamily, store: &str) -> proto::MetricFamily {
    let mut encoded = proto::MetricFamily::default();
    encoded.set_name(metric.name.to_owned());
    encoded.set_help(metric.help.to_owned());
    encoded.set_field_type(match metric.kind {
        MetricKind::Gauge => proto::MetricType::GAUGE,
        MetricKind::Counter => proto::MetricType::COUNTER,
        MetricKind::Histogram => proto::MetricType::HISTOGRAM,
        MetricKind::Summary => proto::MetricType::SUMMARY,
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
    match (&sample.value, metric.kind) {
        (SampleValue::Number { value }, MetricKind::Counter) => {
            let mut counter = proto::Counter::default();
            counter.set_value(*value);
            encoded.set_counter(counter);
        }
        (SampleValue::Number { value }, _) => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(*value);
            encoded.set_gauge(gauge);
        }
        (SampleValue::Distribution { sum, count, .. }, MetricKind::Summary) => {
            let mut summary = proto::Summary::default();
            summary.set_sample_sum(*sum);
            summary.set_sample_count(*count);
            encoded.set_summary(summary);
        }
        (
            SampleValue::Distribution {
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

fn encode_bucket(bucket: &HistogramBucket) -> proto::Bucket {
    let mut encoded = proto::Bucket::default();
    encoded.set_upper_bound(bucket.upto);
    encoded.set_cumulative_count(bucket.count);
    encoded
}

/// Returns the metrics of a registry in Prometheus' text format. Serve the text with the content
/// type [`prometheus::TEXT_FORMAT`].
///
/// # Errors
/// Fails if a metric in the registry cannot be encoded, which no metric of vbstore causes.
pub fn render(registry: &prometheus::Registry) -> Result<String, prometheus::Error> {
    prometheus::TextEncoder::new().encode_to_string(&registry.gather())
}
