//! How a registry exports the metrics of a source.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use vbstore_metrics::names::{self, Metric, MetricKind};
use vbstore_metrics::{MetricsSnapshot, Registry, SampleSource, Telemetry, render};

type Give = fn(&mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>>;

struct Fixed(Give);

impl SampleSource for Fixed {
    fn sample(&self, into: &mut MetricsSnapshot) -> Result<(), Box<dyn std::error::Error>> {
        (self.0)(into)
    }
}

fn weak(source: &Arc<Fixed>) -> Weak<dyn SampleSource> {
    let source: Weak<Fixed> = Arc::downgrade(source);
    source
}

fn telemetry(store: &str, registry: &Registry) -> Telemetry {
    let clock = || std::time::Duration::ZERO;
    Telemetry::new(store, registry.clone(), Arc::new(clock))
}

fn registered(
    store: &str,
    registry: &Registry,
    source: &Arc<Fixed>,
) -> vbstore_metrics::Registration {
    let telemetry = telemetry(store, registry);
    let registration = telemetry.register("engine", names::ENGINE).unwrap();
    registration.attach(weak(source));
    registration
}

fn lines(registry: &Registry) -> Vec<String> {
    let text = render(registry).unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let own = samples.filter(|line| !line.starts_with("vbstore_collector"));
    own.map(str::to_owned).collect()
}

#[test]
fn a_scrape_shows_what_the_source_says_at_that_moment() {
    let registry = Registry::new();
    let source = Arc::new(Fixed(|into| {
        into.put(&names::VBUCKETS, 4);
        into.put_by(&names::CURSORS, "stream", 2);
        let sizes = vbstore_metrics::Histogram::new(&[1, 4]);
        sizes.observe(4);
        sizes.observe(9);
        into.put_histogram(&names::PERSIST_BATCH_ITEMS, &[], &sizes, 1.0);
        Ok(())
    }));
    let registration = registered("orders", &registry, &source);
    assert_eq!(
        lines(&registry),
        [
            r#"vbstore_cursors{kind="stream",store="orders"} 2"#,
            r#"vbstore_persist_batch_items_bucket{store="orders",le="1"} 0"#,
            r#"vbstore_persist_batch_items_bucket{store="orders",le="4"} 1"#,
            r#"vbstore_persist_batch_items_bucket{store="orders",le="+Inf"} 2"#,
            r#"vbstore_persist_batch_items_sum{store="orders"} 13"#,
            r#"vbstore_persist_batch_items_count{store="orders"} 2"#,
            r#"vbstore_vbuckets{store="orders"} 4"#,
        ]
    );
    let text = render(&registry).unwrap();
    assert!(text.contains("# TYPE vbstore_persist_batch_items histogram"));
    assert!(text.contains(r#"vbstore_collector_errors_total{part="engine",store="orders"} 0"#));
    drop(registration);
    assert_eq!(render(&registry).unwrap(), "");
}

#[test]
fn a_source_that_is_gone_yields_nothing_and_is_not_kept_alive() {
    let registry = Registry::new();
    let source = Arc::new(Fixed(|into| {
        into.put(&names::VBUCKETS, 4);
        Ok(())
    }));
    let _registration = registered("orders", &registry, &source);
    assert_eq!(Arc::strong_count(&source), 1);
    drop(source);
    assert_eq!(render(&registry).unwrap(), "");
}

#[test]
fn a_source_that_fails_or_panics_is_counted_and_what_it_gave_is_used() {
    let gives: [Give; 2] = [
        |into| {
            into.put(&names::VBUCKETS, 4);
            Err("no more".into())
        },
        |into| {
            into.put(&names::VBUCKETS, 4);
            panic!("planted")
        },
    ];
    for give in gives {
        let registry = Registry::new();
        let source = Arc::new(Fixed(give));
        let _registration = registered("orders", &registry, &source);
        for scrapes in 1..3 {
            let text = render(&registry).unwrap();
            let errors = format!(
                r#"vbstore_collector_errors_total{{part="engine",store="orders"}} {scrapes}"#
            );
            assert!(text.contains(&errors), "{text}");
            assert!(text.contains(r#"vbstore_vbuckets{store="orders"} 4"#));
        }
    }
}

#[test]
fn several_stores_and_parts_share_a_registry_and_the_same_one_twice_is_refused() {
    let registry = Registry::new();
    let source = Arc::new(Fixed(|into| {
        into.put(&names::VBUCKETS, 4);
        Ok(())
    }));
    let orders = registered("orders", &registry, &source);
    let _users = registered("users", &registry, &source);
    let telemetry = telemetry("orders", &registry);
    let refused = telemetry.register("engine", names::ENGINE).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the registry already has the engine metrics of a store named \"orders\""
    );
    let _streams = telemetry.register("streams", names::STREAMS).unwrap();
    assert_eq!(
        lines(&registry),
        [
            r#"vbstore_vbuckets{store="orders"} 4"#,
            r#"vbstore_vbuckets{store="users"} 4"#,
        ]
    );
    drop(orders);
    assert_eq!(lines(&registry), [r#"vbstore_vbuckets{store="users"} 4"#]);
    let _again = registered("orders", &registry, &source);
    assert_eq!(lines(&registry).len(), 2);
}

#[test]
fn names_keep_to_the_conventions() {
    let mut seen = BTreeSet::new();
    let all = || names::ALL.iter().flat_map(|table| table.iter());
    for Metric {
        name,
        kind,
        labels,
        help,
    } in all()
    {
        assert!(seen.insert(*name), "{name} twice");
        assert!(name.starts_with("vbstore_"), "{name}");
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(is_plain), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            *kind == MetricKind::Counter,
            "{name}"
        );
        for bad in [
            "_ms", "_percent", "_count", "_sum", "_bucket", "gauge", "counter",
        ] {
            assert!(!name.ends_with(bad), "{name}");
        }
        assert!(
            help.ends_with('.') && !help.contains('\n'),
            "{name}: {help}"
        );
        for label in *labels {
            let reserved = ["store", "le", "job", "instance", "type", "env", "service"];
            assert!(!reserved.contains(&label.name), "{name}: {}", label.name);
            let values: BTreeSet<_> = label.values.iter().collect();
            assert_eq!(values.len(), label.values.len(), "{name}: {}", label.name);
        }
    }
    // A label has the same values wherever it means the same.
    let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
    for label in all().flat_map(|metric| metric.labels) {
        *by_name.entry(label.name).or_default() += 1;
    }
    assert!(by_name.len() < 20, "{by_name:?}");
    assert!(names::find("vbstore_vbuckets").is_some());
    assert!(names::find("vbstore_nothing").is_none());
}
