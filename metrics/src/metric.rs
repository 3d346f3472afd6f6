//! What is declared of a metric.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A state now.
    Gauge,
    /// Rises only, from 0 when the engine is opened.
    Counter,
    /// How often something was up to which size.
    Histogram,
    /// A sum and a count, without quantiles.
    Summary,
}

/// A label and the values it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// All its values; none if they are not known before.
    pub values: &'static [&'static str],
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with prefix and unit.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, except `store`, which every metric has.
    pub labels: &'static [Label],
    /// What it means, in one line.
    pub help: &'static str,
}

impl Metric {
    /// Returns whether these are the values of its only label, in this order: for a check, when the
    /// program is compiled, that the names of an enum of another crate are those declared here.
    #[must_use]
    pub const fn is_by(&self, names: &[&str]) -> bool {
        let [label] = self.labels else {
            return false;
        };
        label.is_of(names)
    }
}

impl Label {
    /// Returns whether these are its values, in this order; see [`Metric::is_by`].
    #[must_use]
    pub const fn is_of(&self, names: &[&str]) -> bool {
        is_same(self.values, names)
    }
}

/// `==`, which the standard library does not have for constants.
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
