//! The declaration of a metric: name, kind, labels and help.

/// The kind of a metric, as Prometheus defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// A value that may go up and down.
    Gauge,
    /// A value that only increases, from 0 when the engine is opened.
    Counter,
    /// A distribution of values over buckets.
    Histogram,
    /// A sum and a count of values, without quantiles.
    Summary,
}

/// A label and the values it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The name of the label.
    pub name: &'static str,
    /// All values of the label; empty if they are not known in advance.
    pub values: &'static [&'static str],
}

/// The declaration of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name, with the prefix `vbstore_` and the unit.
    pub name: &'static str,
    /// The kind of the metric.
    pub kind: MetricKind,
    /// The labels except `store`, which every metric has.
    pub labels: &'static [Label],
    /// The help text, one line.
    pub help: &'static str,
}

impl Metric {
    /// Returns whether the metric has one label, whose values are `names` in this order. Other
    /// crates assert with it at compile time that an enum of theirs has the names declared here.
    #[must_use]
    pub const fn is_by(&self, names: &[&str]) -> bool {
        let [label] = self.labels else {
            return false;
        };
        label.is_of(names)
    }
}

impl Label {
    /// Returns whether the values of the label are `names` in this order; see [`Metric::is_by`].
    #[must_use]
    pub const fn is_of(&self, names: &[&str]) -> bool {
        is_same(self.values, names)
    }
}

/// Compares two lists. `==` on slices is not available in a `const fn`.
const fn is_same(mut a: &[&str], mut b: &[&str]) -> bool {
    while let ([first, rest @ ..], [other, others @ ..]) = (a, b) {
        let (mut bytes, mut other_bytes) = (first.as_bytes(), other.as_bytes());
        while let ([byte, more @ ..], [other_byte, other_more @ ..]) = (bytes, other_bytes) {
            if *byte != *other_byte {
                return false;
            }
            (bytes, other_bytes) = (more, other_more);
        }
        if !bytes.is_empty() || !other_bytes.is_empty() {
            return false;
        }
        (a, b) = (rest, others);
    }
    a.is_empty() && b.is_empty()
}
