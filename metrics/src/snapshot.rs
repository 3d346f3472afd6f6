//! The values of metrics at one moment, as plain data.

use crate::counter::Counter;
use crate::histogram::Histogram;
use crate::metric::{Metric, MetricKind};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A string that is usually a literal.
pub type MetricText = Cow<'static, str>;

/// The values of metrics at one moment: the same as a scrape exports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsSnapshot {
    /// Metrics by name. A metric whose value is not known is absent.
    pub families: BTreeMap<MetricText, MetricFamily>,
}

/// A metric and its samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricFamily {
    /// The kind of the metric.
    pub kind: MetricKind,
    /// One sample for each combination of labels.
    pub samples: Vec<Sample>,
}

/// One value of a metric, with its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Names and values of the labels, without `store`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<MetricText, MetricText>,
    /// The value.
    #[serde(flatten)]
    pub value: SampleValue,
}

/// The value of a sample, in the unit that the metric's name ends with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleValue {
    /// A gauge or a counter.
    Number {
        /// The value.
        value: f64,
    },
    /// A histogram, or a summary. A summary has no buckets.
    Distribution {
        /// Cumulative counts by upper bound. `count` minus the last of them is the number of values
        /// above all bounds.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        buckets: Vec<HistogramBucket>,
        /// The sum of all values.
        sum: f64,
        /// The number of values.
        count: u64,
    },
}

/// One bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistogramBucket {
    /// The upper bound of the bucket.
    pub upto: f64,
    /// The number of values up to the bound.
    pub count: u64,
}

/// A label and its value.
pub type LabelPair = (&'static str, MetricText);

/// Converts a count to the `f64` that Prometheus uses. Exact up to 2^53.
#[must_use]
pub fn number(value: u64) -> f64 {
    let [a, b, c, d, rest @ ..] = value.to_be_bytes();
    let (high, low) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(rest));
    f64::from(high).mul_add(4_294_967_296.0, f64::from(low))
}

// A wider `usize` would make `u64_from` lose bits.
const _: () = assert!(usize::BITS <= u64::BITS);

/// Converts a length or a count to `u64`. Exact, as the assertion above shows.
#[expect(
    clippy::as_conversions,
    reason = "the standard library has no `From` for it; checked when this is compiled"
)]
#[must_use]
pub const fn u64_from(count: usize) -> u64 {
    count as u64
}

impl MetricsSnapshot {
    /// Adds a sample without labels.
    pub fn put(&mut self, metric: &'static Metric, value: u64) {
        self.put_with(metric, &[], number(value));
    }

    /// Adds a sample without labels whose value is not an integer.
    pub fn put_float(&mut self, metric: &'static Metric, value: f64) {
        self.put_with(metric, &[], value);
    }

    /// Adds the value of a counter, without labels.
    pub fn put_counter(&mut self, metric: &'static Metric, counter: &Counter) {
        self.put(metric, counter.get());
    }

    /// Adds a sample for one value of the metric's only label.
    ///
    /// # Panics
    /// Panics if the metric does not have exactly one label, or the label does not declare `value`.
    pub fn put_by(
        &mut self,
        metric: &'static Metric,
        value: impl Into<MetricText>,
        number_of: u64,
    ) {
        let [label] = metric.labels else {
            panic!("{} does not have exactly one label", metric.name);
        };
        self.put_with(metric, &[(label.name, value.into())], number(number_of));
    }

    /// Adds a sample with labels.
    ///
    /// # Panics
    /// Panics if the labels are not those that the metric declares, in the same order, or if a
    /// label does not declare its value.
    pub fn put_with(&mut self, metric: &'static Metric, labels: &[LabelPair], value: f64) {
        self.add(metric, labels, SampleValue::Number { value });
    }

    /// Adds a histogram. `unit` converts its values to the unit of the metric's name: 1e-6 if it
    /// holds microseconds and the metric is in seconds.
    ///
    /// # Panics
    /// Panics as [`Self::put_with`] does.
    pub fn put_histogram(
        &mut self,
        metric: &'static Metric,
        labels: &[LabelPair],
        histogram: &Histogram,
        unit: f64,
    ) {
        let mut count: u64 = 0;
        let counts = histogram.counts();
        let mut buckets = Vec::with_capacity(histogram.bounds().len());
        let mut bounds = histogram.bounds().iter();
        for of_bucket in counts {
            count += of_bucket;
            if let Some(bound) = bounds.next() {
                let upto = scaled(*bound, unit);
                buckets.push(HistogramBucket { upto, count });
            }
        }
        let sum = scaled(histogram.sum(), unit);
        let value = SampleValue::Distribution {
            buckets,
            sum,
            count,
        };
        self.add(metric, labels, value);
    }

    /// Adds a summary without labels. `unit` converts `sum` to the unit of the metric's name.
    pub fn put_summary(&mut self, metric: &'static Metric, sum: u64, count: u64, unit: f64) {
        let value = SampleValue::Distribution {
            buckets: Vec::new(),
            sum: scaled(sum, unit),
            count,
        };
        self.add(metric, &[], value);
    }

    fn add(&mut self, metric: &'static Metric, labels: &[LabelPair], value: SampleValue) {
        let declared = metric.labels.iter().map(|label| label.name);
        assert!(
            declared.eq(labels.iter().map(|(name, _)| *name)),
            "{} does not declare the labels {labels:?}",
            metric.name
        );
        for (label, (_, value)) in metric.labels.iter().zip(labels) {
            assert!(
                label.values.is_empty() || label.values.contains(&value.as_ref()),
                "{} does not declare {}={value}",
                metric.name,
                label.name
            );
        }
        let labels = labels
            .iter()
            .map(|(name, value)| (MetricText::Borrowed(*name), value.clone()))
            .collect();
        let family = self.families.entry(MetricText::Borrowed(metric.name));
        let family = family.or_insert_with(|| MetricFamily {
            kind: metric.kind,
            samples: Vec::new(),
        });
        family.samples.push(Sample { labels, value });
    }

    /// Returns the value of a metric without labels, or `None` if it is absent, a histogram or a
    /// summary.
    #[must_use]
    pub fn value(&self, metric: &Metric) -> Option<f64> {
        self.value_by(metric, &[])
    }

    /// Returns the value of the sample that has exactly these labels, or `None` if it is absent, a
    /// histogram or a summary.
    #[must_use]
    pub fn value_by(&self, metric: &Metric, labels: &[(&str, &str)]) -> Option<f64> {
        let family = self.families.get(metric.name)?;
        let is_wanted = |sample: &&Sample| {
            sample.labels.len() == labels.len()
                && labels
                    .iter()
                    .all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value))
        };
        match family.samples.iter().find(is_wanted)?.value {
            SampleValue::Number { value } => Some(value),
            SampleValue::Distribution { .. } => None,
        }
    }

    /// Returns the sum of a metric over all its samples, 0 if there are none. For a histogram or a
    /// summary, sums the numbers of values.
    #[must_use]
    pub fn sum(&self, metric: &Metric) -> f64 {
        let family = self.families.get(metric.name);
        let samples = family.map_or(&[][..], |family| &family.samples);
        let value = |sample: &Sample| match sample.value {
            SampleValue::Number { value } => value,
            SampleValue::Distribution { count, .. } => number(count),
        };
        samples.iter().map(value).sum()
    }
}

/// Returns `count * unit` without binary rounding noise: 250 us become 0.00025 s.
///
/// Dividing by 1e6 rounds once, while 1e-6 is itself not exact as an `f64`.
fn scaled(count: u64, unit: f64) -> f64 {
    let inverse = unit.recip().round();
    if unit < 1.0 {
        number(count) / inverse
    } else {
        number(count) * unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    #[test]
    fn whole_numbers_are_exact() {
        for value in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 53) - 1] {
            assert_eq!(format!("{}", number(value)), format!("{value}"));
        }
    }

    #[test]
    fn a_snapshot_survives_json() {
        let mut snapshot = MetricsSnapshot::default();
        snapshot.put(&names::VBUCKETS, 7);
        snapshot.put_by(&names::CURSORS, "stream", 3);
        let histogram = Histogram::latency();
        histogram.observe(250);
        histogram.observe(251);
        snapshot.put_histogram(&names::PERSIST_SYNC, &[], &histogram, 1e-6);

        let text = serde_json::to_string(&snapshot).unwrap();
        let back: MetricsSnapshot = serde_json::from_str(&text).unwrap();

        assert_eq!(back, snapshot);
        assert!(text.contains("0.00025"), "{text}");
        assert_eq!(back.value(&names::VBUCKETS), Some(7.0));
        assert_eq!(
            back.value_by(&names::CURSORS, &[("kind", "stream")]),
            Some(3.0)
        );
        assert_eq!(back.value(&names::CURSORS), None);
    }
}
