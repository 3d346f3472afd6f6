//! How a metric is declared: once, with everything that is made of it.
//!
//! - [`metrics!`] makes a table of metrics: for each entry the constant with its name, kind, labels and
//!   help. An entry that ends in `=> field: Type` is counted by us: it is also a field of the struct
//!   that the table names, made by its `Default`, and put into a snapshot by its `sample_counted`. An
//!   entry without a field is read from a table of the engine's, which puts it by hand.
//! - [`group!`] makes the type of a field whose metric has a label: one counter or histogram for each
//!   value of the label, under a field of its own.
//!
//! So a new counter is one line, and cannot be forgotten where figures are sampled.

use crate::counter::Counter;
use crate::histogram::Histogram;
use crate::metric::Metric;
use crate::snapshot::{MetricsSnapshot, Pair, number};

/// Something that counts, as the field of a table.
pub trait Instrument {
    /// Puts what was counted into `into`, as a sample of `metric` with these labels.
    fn put(&self, metric: &'static Metric, labels: &[Pair], into: &mut MetricsSnapshot);
}

impl Instrument for Counter {
    fn put(&self, metric: &'static Metric, labels: &[Pair], into: &mut MetricsSnapshot) {
        into.put_with(metric, labels, number(self.get()));
    }
}

/// What is measured in seconds is counted in microseconds; everything else is counted as it is.
impl Instrument for Histogram {
    fn put(&self, metric: &'static Metric, labels: &[Pair], into: &mut MetricsSnapshot) {
        let is_time = metric.name.ends_with("_seconds");
        let unit = if is_time { 1e-6 } else { 1.0 };
        into.put_histogram(metric, labels, self, unit);
    }
}

/// Declares the type of a field for a metric with one label.
///
/// ```text
/// group! {
///     /// Operations begun, by kind.
///     pub struct Operations: Counter, by "op" {
///         /// Reads of keys; of many at once each counts.
///         gets = "get",
///     }
/// }
/// ```
///
/// `Operations::LABEL` is the label with all its values; `each` returns the counters with their values.
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

            /// Returns the one of a value of the label.
            ///
            /// # Panics
            /// If the label does not have it.
            #[must_use]
            pub fn of(&self, value: &str) -> &$type {
                let found = self.each().find(|(of, _)| *of == value);
                let Some((_, instrument)) = found else {
                    panic!("{} has not {value}", Self::LABEL.name);
                };
                instrument
            }

            /// Returns each with its value of the label.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &$type)> {
                [$(($value, &self.$field)),+].into_iter()
            }
        }

        impl $crate::table::Instrument for $group {
            fn put(
                &self,
                metric: &'static $crate::metric::Metric,
                labels: &[$crate::snapshot::Pair],
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

/// Declares a table of metrics, and the struct that holds those which are counted.
///
/// ```text
/// metrics! {
///     /// The engine's own tables.
///     ENGINE:
///     /// What one engine counts.
///     pub struct EngineMetrics {
///         /// Fields that put what they have by themselves.
///         pub db_snapshots: Arc<DbSnapshots>,
///     }
///     VBUCKETS = Gauge "vbuckets" [] "vBuckets of the store.";
///     SYNCS = Counter "syncs_total" [] "Syncs." => syncs: Counter;
///     BATCH = Histogram "batch_items" [] "Changes." => items: Histogram = Histogram::new(ITEMS_BOUNDS);
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
            /// Puts everything that the table counts into `into`, in the order of the table.
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
                kind: $crate::metric::Kind::$kind,
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
    use crate::names::{self, EngineMetrics, Kind};
    use std::time::Duration;

    /// A counter that is declared and has no field would have to be put by hand, and would be
    /// forgotten there.
    #[test]
    fn every_counter_and_histogram_of_the_engine_is_sampled_with_every_label() {
        let mut snapshot = MetricsSnapshot::default();
        EngineMetrics::default().sample(Duration::ZERO, &mut snapshot);
        let counted = names::ENGINE.iter().filter(|m| m.kind != Kind::Gauge);
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
    #[should_panic(expected = "vbstore_health has not state=unwell")]
    fn a_value_that_a_label_does_not_have_is_refused() {
        MetricsSnapshot::default().put_by(&names::HEALTH_STATE, "unwell", 1);
    }

    #[test]
    #[should_panic(expected = "vbstore_vbuckets has not one label")]
    fn a_label_that_a_metric_does_not_have_is_refused() {
        MetricsSnapshot::default().put_by(&names::VBUCKETS, "any", 1);
    }
}
