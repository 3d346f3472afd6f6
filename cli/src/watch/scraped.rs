//! The metrics of one scrape.

use std::collections::HashMap;
use std::time::Duration;
use vbstore::metrics::names::{self, Metric};

/// Labels and a value.
type LabelledValue = (HashMap<String, String>, f64);

/// The samples of one scrape, by metric. One page may hold several stores; values are added up over
/// them.
#[derive(Debug)]
pub(super) struct ScrapedMetrics {
    /// When the answer arrived, on the monotonic clock.
    pub(super) at: Duration,
    samples: HashMap<String, Vec<LabelledValue>>,
}

impl ScrapedMetrics {
    /// Parses Prometheus' text format. Of histograms, the sums and counts are kept as samples, and
    /// the buckets left out. Returns `None` for a page without the health of a store: it is not one
    /// of vbstore's.
    pub(super) fn parse(text: &str, at: Duration) -> Option<Self> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = prometheus_parse::Scrape::parse(lines).ok()?;
        let mut samples: HashMap<String, Vec<LabelledValue>> = HashMap::new();
        for sample in scrape.samples {
            use prometheus_parse::Value;
            let (Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value)) =
                sample.value
            else {
                continue;
            };
            let labels: HashMap<String, String> = sample
                .labels
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            samples
                .entry(sample.metric)
                .or_default()
                .push((labels, value));
        }
        let is_vbstore = samples.contains_key(names::HEALTH_STATE.name);
        is_vbstore.then_some(Self { at, samples })
    }

    /// Returns the sum of all samples of a metric; `None` if there are none.
    pub(super) fn sum(&self, metric: &Metric) -> Option<f64> {
        let samples = self.samples.get(metric.name)?;
        Some(samples.iter().map(|(_, value)| value).sum())
    }

    /// Returns the largest sample of a metric.
    pub(super) fn max(&self, metric: &Metric) -> Option<f64> {
        let samples = self.samples.get(metric.name)?;
        samples.iter().map(|(_, value)| *value).reduce(f64::max)
    }

    /// Returns the smallest sample of a metric.
    pub(super) fn min(&self, metric: &Metric) -> Option<f64> {
        let samples = self.samples.get(metric.name)?;
        samples.iter().map(|(_, value)| *value).reduce(f64::min)
    }

    /// Returns the sum of the samples whose first label has this value.
    pub(super) fn sum_of(&self, metric: &Metric, value: &str) -> Option<f64> {
        let label = metric.labels.first()?.name;
        let samples = self.samples.get(metric.name)?;
        let matching = samples
            .iter()
            .filter(|(labels, _)| labels.get(label).is_some_and(|v| v == value));
        matching.map(|(_, value)| *value).reduce(|a, b| a + b)
    }

    /// Returns the rise of a counter per second since an earlier scrape, for samples whose first
    /// label has this value, or for all. A sample that fell was reset to 0, as the store was
    /// reopened: it counts in full. A new sample counts from the next scrape on.
    pub(super) fn rate(&self, earlier: &Self, metric: &Metric, value: Option<&str>) -> Option<f64> {
        let label = metric.labels.first().map(|label| label.name);
        let is_wanted = |labels: &HashMap<String, String>| {
            value.is_none_or(|value| {
                label.is_some_and(|label| labels.get(label).is_some_and(|v| v == value))
            })
        };
        let seconds = self.at.saturating_sub(earlier.at).as_secs_f64();
        let before = earlier.samples.get(metric.name)?;
        let now = self.samples.get(metric.name)?;
        let rises = now.iter().filter(|(labels, _)| is_wanted(labels));
        let rises = rises.map(|(labels, now)| {
            let before = before.iter().find(|(of, _)| of == labels);
            match before {
                None => 0.0,
                Some((_, before)) if now < before => *now,
                Some((_, before)) => now - before,
            }
        });
        let rise = rises.reduce(|a, b| a + b)?;
        (seconds > 0.0).then(|| rise / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_rates_are_over_all_stores() {
        let scrape = |at, a, b| {
            let text = format!(
                "# TYPE vbstore_health gauge\n\
                 vbstore_health{{state=\"open\",store=\"a\"}} 1\n\
                 # TYPE vbstore_stream_items_total counter\n\
                 vbstore_stream_items_total{{source=\"disk\",store=\"a\"}} {a}\n\
                 vbstore_stream_items_total{{source=\"disk\",store=\"b\"}} {b}\n\
                 vbstore_stream_items_total{{source=\"memory\",store=\"b\"}} 1\n"
            );
            ScrapedMetrics::parse(&text, Duration::from_secs(at)).unwrap()
        };
        let (first, second) = (scrape(0, 1, 2), scrape(2, 5, 6));
        let items = &names::STREAM_ITEMS;
        assert_eq!(second.sum(items), Some(12.0));
        assert_eq!(second.max(items), Some(6.0));
        assert_eq!(second.sum_of(items, "disk"), Some(11.0));
        assert_eq!(second.rate(&first, items, Some("disk")), Some(4.0));
        assert_eq!(second.rate(&first, items, Some("memory")), Some(0.0));
        assert_eq!(first.rate(&second, items, None), None);
        assert_eq!(first.sum(&names::ITEMS), None);
    }

    #[test]
    fn a_counter_that_fell_was_reset() {
        let scrape = |at, of_a: u32, of_b: u32| {
            let text = format!(
                "# TYPE vbstore_health gauge\n\
                 vbstore_health{{state=\"open\",store=\"a\"}} 1\n\
                 # TYPE vbstore_stream_items_total counter\n\
                 vbstore_stream_items_total{{source=\"disk\",store=\"a\"}} {of_a}\n\
                 vbstore_stream_items_total{{source=\"disk\",store=\"b\"}} {of_b}\n"
            );
            ScrapedMetrics::parse(&text, Duration::from_secs(at)).unwrap()
        };
        let (before, after) = (scrape(0, 1_000, 10), scrape(2, 6, 20));
        let items = &names::STREAM_ITEMS;
        assert_eq!(after.rate(&before, items, None), Some(8.0));
        assert_eq!(after.rate(&before, items, Some("disk")), Some(8.0));
    }

    #[test]
    fn a_page_of_another_program_is_refused() {
        for page in [
            "",
            "<html><body>It works</body></html>",
            "# TYPE up gauge\nup 1\n",
            "# TYPE vbstore_vb_items gauge\nvbstore_vb_items{vb=\"0\"} 1\n",
        ] {
            assert!(
                ScrapedMetrics::parse(page, Duration::ZERO).is_none(),
                "{page}"
            );
        }
    }
}
