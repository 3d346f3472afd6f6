//! Helpers for tests of metrics.

use std::collections::{BTreeMap, BTreeSet};
use vbstore::Registry;
use vbstore::metrics::names::{self, Metric};
use vbstore::metrics::{MetricsSnapshot, render};

/// Scrapes a registry; returns the value of each series by its name and labels as written.
pub fn scrape(registry: &Registry) -> BTreeMap<String, f64> {
    let text = render(registry).unwrap();
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let before = samples.insert(series.to_owned(), value.parse().unwrap());
        assert!(before.is_none(), "{series} twice");
    }
    samples
}

/// Returns the value of a metric with one label.
pub fn by(snapshot: &MetricsSnapshot, metric: &Metric, value: &str) -> f64 {
    let label = metric.labels.first().unwrap().name;
    snapshot
        .value_by(metric, &[(label, value)])
        .unwrap_or_else(|| panic!("{} of {value}", metric.name))
}

/// Asserts that every metric of a table exists with every value of its labels, except those in
/// `but`.
pub fn assert_complete(snapshot: &MetricsSnapshot, table: &[&Metric], but: &[&Metric]) {
    for metric in table.iter().filter(|metric| !but.contains(metric)) {
        let family = snapshot.families.get(metric.name);
        let family = family.unwrap_or_else(|| panic!("{} is missing", metric.name));
        assert_eq!(family.kind, metric.kind);
        let mut seen = BTreeSet::new();
        for sample in &family.samples {
            assert!(seen.insert(&sample.labels), "{} twice", metric.name);
            let labels: BTreeSet<&str> = sample.labels.keys().map(AsRef::as_ref).collect();
            let declared: BTreeSet<&str> = metric.labels.iter().map(|label| label.name).collect();
            assert_eq!(labels, declared, "{}", metric.name);
        }
        let wanted: usize = metric
            .labels
            .iter()
            .map(|l| l.values.len().max(1))
            .product();
        assert_eq!(family.samples.len(), wanted, "{}", metric.name);
        for sample in &family.samples {
            for label in metric.labels {
                let value = sample.labels[label.name].as_ref();
                let is_declared = label.values.is_empty() || label.values.contains(&value);
                assert!(is_declared, "{}: {value}", metric.name);
            }
        }
    }
    for name in snapshot.families.keys() {
        assert!(names::find(name).is_some(), "{name}");
    }
}

/// Asserts that open db snapshots are those opened minus those closed, for each holder.
pub fn assert_identities(snapshot: &MetricsSnapshot) {
    for holder in names::DB_SNAPSHOTS_OPEN.labels[0].values {
        let of = |metric| by(snapshot, metric, holder);
        assert_eq!(
            of(&names::DB_SNAPSHOTS_OPENED) - of(&names::DB_SNAPSHOTS_CLOSED),
            of(&names::DB_SNAPSHOTS_OPEN),
            "{holder}"
        );
    }
}
