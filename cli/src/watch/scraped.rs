//! One scrape, read back.

use std::collections::HashMap;
use std::time::Duration;
use vbstore::metrics::names::{self, Metric};

/// Labels and a value.
type LabelledValue = (HashMap<String, String>, f64);

/// The figures of one scrape, added up over stores.
#[derive(Debug)]
pub(super) struct ScrapedMetrics {
    pub(super) at: Duration,
    samples: HashMap<String, Vec<LabelledValue>>,
}

impl ScrapedMetrics {
    /// Reads Prometheus' text format. Sums and counts of histograms are samples like others. `None`
    /// for a page that does not tell the health of a store: it is not one of ours.
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
        let is_ours = samples.contains_key(names::HEALTH_STATE.name);
        is_ours.then_some(Self { at, samples })
    }

    /// Returns the sum of a metric over all its samples; `None` if there is none.
    pub(super) fn sum(&self, metric: &Metric) -> Option<f64> {
        let samples = self.samples.get(metric.name)?;
        Some(samples.iter().map(|(_, value)| value).sum())
    }

    /// Returns the largest of its samples.
    pub(super) fn max(&self, metric: &Metric) -> Option<f64> {
        let samples = self.samples.get(metric.name)?;
        samples.iter().map(|(_, value)| *value).reduce(f64::max)
    }

    /// Returns the smallest of its samples.
    pub(super) fn min(&self, metric: &Metric) -> Option<f64> {
        let samples = self.samples.get(metric.name)?;
        samples.iter().map(|(_, value)| *value).reduce(f64::min)
    }

    /// The same of those with this value of the metric's label.
    pub(super) fn of(&self, metric: &Metric, value: &str) -> Option<f64> {
        let label = metric.labels.first()?.name;
        let samples = self.samples.get(metric.name)?;
        let of = samples
            .iter()
            .filter(|(labels, _)| labels.get(label).is_some_and(|v| v == value));
        of.map(|(_, value)| *value).reduce(|a, b| a + b)
    }

    /// Returns how much a counter rose a second since an earlier scrape. A sample that is less than
    /// it was began again at 0, when its store was opened again; one that was not there counts from
    /// now on.
    pub(super) fn rate(&self, earlier: &Self, metric: &Metric, value: Option<&str>) -> Option<f64> {
        let label = metric.labels.first().map(|label| label.name);
        let is_meant = |labels: &HashMap<String, String>| {
            value.is_none_or(|value| {
                label.is_some_and(|label| labels.get(label).is_some_and(|v| v == value))
            })
        };
        let seconds = self.at.saturating_sub(earlier.at).as_secs_f64();
        let before = earlier.samples.get(metric.name)?;
        let now = self.samples.get(metric.name)?;
        let rises = now.iter().filter(|(labels, _)| is_meant(labels));
        let rises = rises.map(|(labels, now)| {
            let before = before.iter().find(|(of, _)| of == labels);
            match before {
                None => 0.0,
                Some((_, before)) if now < before => *now,
                Some((_, before)) => now - before,
            }
        });
        let rose = rises.reduce(|a, b| a + b)?;
        (seconds > 0.0).then(|| rose / seconds)
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
        assert_eq!(second.of(items, "disk"), Some(11.0));
        assert_eq!(second.rate(&first, items, Some("disk")), Some(4.0));
        assert_eq!(second.rate(&first, items, Some("memory")), Some(0.0));
        assert_eq!(first.rate(&second, items, None), None);
        assert_eq!(first.sum(&names::ITEMS), None);
    }

    #[test]
    fn a_counter_that_went_back_began_again() {
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
    fn a_page_of_something_else_is_none() {
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
