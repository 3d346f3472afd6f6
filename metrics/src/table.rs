//! Macros that declare metrics. Each metric is declared once.
//!
//! - [`metrics!`] declares a table of metrics. Each entry becomes a constant with name, kind,
//!   labels and help. An entry that ends in `=> field: Type` also becomes a field of the table's
//!   struct: its `Default` creates the counter, and its `sample_counted` exports it. An entry
//!   without a field is read from a table of the engine, by code that adds it to the sample
//!   explicitly.
//! - [`group!`] declares the type of a field whose metric has a label: a struct with one counter or
//!   histogram for each value of the label.
//!
//! A new counter is therefore one line, and cannot be left out of a sample by mistake.

use crate::counter::Counter;
use crate::histogram::Histogram;
use crate::metric::Metric;
use crate::snapshot::{LabelPair, MetricsSnapshot, number};

/// A counter or histogram that can be the field of a table.
pub trait Instrument {
    /// Adds the current value to `into`, as a sample of `metric` with these labels.
    fn put(&self, metric: &'static Metric, labels: &[LabelPair], into: &mut MetricsSnapshot);
}

impl Instrument for Counter {
    fn put(&self, metric: &'static Metric, labels: &[LabelPair], into: &mut MetricsSnapshot) {
        into.put_with(metric, labels, number(self.get()));
    }
}

/// A histogram whose metric is in seconds counts microseconds, which are converted at the export.
/// The values of any other histogram are exported unchanged.
impl Instrument for Histogram {
    fn put(&self, metric: &'static Metric, labels: &[LabelPair], into: &mut MetricsSnapshot) {
        let is_time = metric.name.ends_with("_seconds");
        let unit = if is_time { 1e-6 } else { 1.0 };
        into.put_histogram(metric, labels, self, unit);
    }
}

/// Declares the type of a field whose metric has one label.
///
/// ```text
/// group! {
///     /// Operations started, by kind.
///     pub struct Operations: Counter, by "op" {
///         /// Reads of keys. A read of several keys counts each of them.
///         gets = "get",
///     }
/// }
/// ```
///
/// `Operations::LABEL` is the label with all its values. `each` returns every counter with its
/// value of the label.
macro_rules! group {
    (
        $(#[$doc:meta])*
        pub struct $group:ident: $type:ty, by $label:literal {
            $($(#[$field_doc:meta])* $field:ident = $value:literal,)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $group {
            $($(#[$field_doc])* pub $field: $type,)+
        }

        impl $group {
            /// The label with all its values.
            pub const LABEL: $crate::metric::Label = $crate::metric::Label {
                name: $label,
                values: &[$($value),+],
            };

            /// Returns the counter or histogram for a value of the label.
            ///
            /// # Panics
            /// Panics if the label does not declare the value.
            #[must_use]
            pub fn of(&self, value: &str) -> &$type {
                let found = self.each().find(|(of, _)| *of == value);
                let Some((_, instrument)) = found else {
                    panic!("{} does not declare {value}", Self::LABEL.name);
                };
                instrument
            }

            /// Returns every counter or histogram with its value of the label.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &$type)> {
                [$(($value, &self.$field)),+].into_iter()
            }
        }

        impl $crate::table::Instrument for $group {
            fn put(
                &self,
                metric: &'static $crate::metric::Metric,
                labels: &[$crate::snapshot::LabelPair],
                into: &mut $crate::snapshot::MetricsSnapshot,
            ) {
                for (value, instrument) in self.each() {
                    let mut labels = labels.to_vec();
                    labels.push((Self::LABEL.name, value.into()));
                    $crate::table::Instrument::put(instrument, metric, &labels, into);
                }
            }
        }
    };
}

/// Declares a table of metrics, and the struct with the counters of those that have a field.
///
/// ```text
/// metrics! {
///     /// Metrics of the engine.
///     ENGINE:
///     /// Counters of one engine.
///     pub struct EngineMetrics {
///         /// A field that adds its metrics to a sample itself.
///         pub db_snapshots: Arc<DbSnapshots>,
///     }
///     VBUCKETS = Gauge "vbuckets" [] "vBuckets of the store.";
///     SYNCS = Counter "syncs_total" [] "Syncs." => syncs: Counter;
///     BATCH = Histogram "batch_items" [] "Changes."
///         => items: Histogram = Histogram::new(ITEMS_BOUNDS);
/// }
/// ```
macro_rules! metrics {
    (
        $(#[$doc:meta])* $table:ident:
        $(#[$struct_doc:meta])*
        pub struct $struct:ident { $($(#[$own_doc:meta])* pub $own:ident: $own_type:ty,)* }
        $(
            $metric:ident = $kind:ident $name:literal [$($label:expr),*] $help:literal
            $(=> $field:ident: $type:ty $(= $init:expr)?)?;
        )*
    ) => {
        metrics! {
            $(#[$doc])* $table:
            $($metric = $kind $name [$($label),*] $help;)*
        }

        $(#[$struct_doc])*
        #[derive(Debug)]
        pub struct $struct {
            $($(#[$own_doc])* pub $own: $own_type,)*
            $($(#[doc = $help] pub $field: $type,)?)*
        }

        impl Default for $struct {
            fn default() -> Self {
                Self {
                    $($own: Default::default(),)*
                    $($($field: metrics!(@init $($init)?),)?)*
                }
            }
        }

        impl $struct {
            /// Adds all counters of the table to `into`, in the order of the table.
            pub fn sample_counted(&self, into: &mut $crate::snapshot::MetricsSnapshot) {
                $($($crate::table::Instrument::put(&self.$field, &$metric, &[], into);)?)*
            }
        }
    };
    (
        $(#[$doc:meta])* $table:ident:
        $($metric:ident = $kind:ident $name:literal [$($label:expr),*] $help:literal;)*
    ) => {
        $(
            #[doc = $help]
            pub const $metric: $crate::metric::Metric = $crate::metric::Metric {
                name: concat!("vbstore_", $name),
                kind: $crate::metric::MetricKind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        $(#[$doc])*
        pub const $table: &[&$crate::metric::Metric] = &[$(&$metric),*];
    };
    (@init) => { Default::default() };
    (@init $init:expr) => { $init };
}

pub(crate) use {group, metrics};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{self, EngineMetrics, MetricKind};
    use std::time::Duration;

    /// A counter that is declared without a field would have to be sampled by hand, and could be
    /// forgotten.
    #[test]
    fn every_counter_and_histogram_of_the_engine_is_sampled_with_every_label() {
        let mut snapshot = MetricsSnapshot::default();
        EngineMetrics::default().sample(Duration::ZERO, &mut snapshot);
        let counted = names::ENGINE.iter().filter(|m| m.kind != MetricKind::Gauge);
        for metric in counted {
            let samples = snapshot.families.get(metric.name);
            let samples = samples.map_or(0, |family| family.samples.len());
            let wanted: usize = metric.labels.iter().map(|l| l.values.len()).product();
            assert_eq!(samples, wanted, "{}", metric.name);
        }
    }

    #[test]
    fn what_is_counted_is_what_is_sampled() {
        let metrics = EngineMetrics::default();
        metrics.flushed_items.add(7);
        metrics.operations.gets.add(2);
        metrics.flush_failures.io.add(1);
        metrics.write_micros.observe(2_500);
        metrics.batch_items.observe(9);
        let mut snapshot = MetricsSnapshot::default();
        metrics.sample(Duration::ZERO, &mut snapshot);
        let by = |metric, label| snapshot.value_by(metric, &[label]);
        assert_eq!(snapshot.value(&names::PERSIST_ITEMS), Some(7.0));
        assert_eq!(by(&names::OPS, ("op", "get")), Some(2.0));
        assert_eq!(by(&names::OPS, ("op", "write")), Some(0.0));
        assert_eq!(by(&names::PERSIST_FAILURES, ("reason", "io")), Some(1.0));
        let text = serde_json::to_value(&snapshot).unwrap();
        let sum = |name: &str| text["families"][name]["samples"][0]["sum"].clone();
        assert_eq!(sum("vbstore_persist_write_seconds"), 0.0025, "of 2,500 us");
        assert_eq!(sum("vbstore_persist_batch_items"), 9.0);
    }

    #[test]
    fn a_label_is_compared_with_the_names_of_an_enum() {
        let metric = &names::HEALTH_STATE;
        assert!(metric.is_by(&["open", "degraded", "failed", "read_only"]));
        for wrong in [
            &["open", "degraded", "failed"][..],
            &["open", "degraded", "failed", "read_only", "closed"],
            &["open", "failed", "degraded", "read_only"],
            &["open", "degraded", "fail", "read_only"],
        ] {
            assert!(!metric.is_by(wrong), "{wrong:?}");
        }
        assert!(!names::VBUCKETS.is_by(&[]), "it has no label");
    }

    #[test]
    #[should_panic(expected = "vbstore_health does not declare state=unhealthy")]
    fn a_value_that_a_label_does_not_have_is_refused() {
        MetricsSnapshot::default().put_by(&names::HEALTH_STATE, "unhealthy", 1);
    }

    #[test]
    #[should_panic(expected = "vbstore_vbuckets does not have exactly one label")]
    fn a_label_that_a_metric_does_not_have_is_refused() {
        MetricsSnapshot::default().put_by(&names::VBUCKETS, "any", 1);
    }
}
