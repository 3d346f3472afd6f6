//! Every shipped expression uses only metrics that exist, and the dashboards match their table.

#![expect(clippy::unwrap_used, reason = "a test")]

#[path = "../examples/dashboards/table.rs"]
mod table;
#[path = "../examples/dashboards/write.rs"]
mod write;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use vbstore_metrics::names::{self, Metric, MetricKind};

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Returns the words of an expression that look like metrics of vbstore, with the text before and
/// after each.
fn words(text: &str) -> Vec<(&str, &str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in text.match_indices("vbstore_") {
        let (before, rest) = text.split_at(at);
        if before.ends_with(is_part) {
            continue;
        }
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        found.push((before, word, after));
    }
    found
}

fn find(word: &str) -> Option<&'static Metric> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
        let metric = names::find(word.strip_suffix(suffix)?)?;
        let has_parts = matches!(metric.kind, MetricKind::Histogram | MetricKind::Summary);
        has_parts.then_some(metric)
    });
    names::find(word).or(of_histogram)
}

/// Labels that an expression groups by or ignores, and that no metric declares.
fn wrong_groups(text: &str) -> Vec<String> {
    let known: BTreeSet<&str> = names::ALL
        .iter()
        .flat_map(|table| table.iter())
        .flat_map(|metric| metric.labels)
        .map(|label| label.name)
        .chain(["le", "store", "instance", "job"])
        .collect();
    let mut wrong = Vec::new();
    for word in [" by (", " without (", " ignoring (", " on ("] {
        for (at, _) in text.match_indices(word) {
            let (_, rest) = text.split_at(at + word.len());
            let labels = rest.split(')').next().unwrap_or_default();
            let labels = labels.split(',').map(str::trim);
            let unknown = labels.filter(|label| !known.contains(label));
            wrong.extend(unknown.map(|label| format!("{word}{label})")));
        }
    }
    wrong
}

/// Returns what is wrong with the names and labels in a text.
fn wrong(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (before, word, after) in words(text) {
        if before.ends_with(':') {
            // A series of recording.yml.
            continue;
        }
        let Some(metric) = find(word) else {
            wrong.push(format!("no metric {word}"));
            continue;
        };
        if metric.kind == MetricKind::Histogram && metric.name == word {
            wrong.push(format!("{word} is a histogram"));
        }
        let labels = after.strip_prefix('{').and_then(|a| a.split_once('}'));
        for matcher in labels.map_or("", |(labels, _)| labels).split(',') {
            let Some((label, value)) = matcher.split_once('=') else {
                continue;
            };
            let label = label.trim().trim_end_matches('!');
            if ["store", "instance", "job"].contains(&label) {
                continue;
            }
            let Some(label) = metric.labels.iter().find(|of| of.name == label) else {
                wrong.push(format!("{word} has no label {label}"));
                continue;
            };
            let values = value.trim_matches(['~', '"', ' ']).split('|');
            for value in values.filter(|value| !label.values.contains(value)) {
                wrong.push(format!("{word}: {} is never {value}", label.name));
            }
        }
    }
    wrong
}

#[test]
fn the_committed_dashboards_are_those_of_the_table() {
    let dir = crate_dir().join("dashboards");
    for (file, text) in [
        ("grafana.json", write::grafana()),
        ("vbstore.html", write::console()),
    ] {
        assert!(
            read(&dir.join(file)) == text,
            "{file} differs from the table: run `make dashboards`"
        );
    }
}

#[test]
fn every_expression_uses_metrics_that_exist() {
    let dir = crate_dir();
    let mut texts: Vec<String> = ["alerts.yml", "recording.yml", "tests/alerts.yml"]
        .iter()
        .map(|file| read(&dir.join("rules").join(file)))
        .collect();
    for line in table::ROWS
        .iter()
        .flat_map(|row| row.panels)
        .flat_map(|panel| panel.lines)
    {
        texts.push(write::expression(line.0, "store=~\".+\"", "1m"));
    }
    texts.push(read(&dir.join("../docs/runbook.md")));
    texts.push(write::grafana().replace("\\\"", "\""));
    let mut seen = BTreeSet::new();
    for text in &texts {
        let text = text.replace("\\\"", "\"");
        assert_eq!(wrong(&text), Vec::<String>::new());
        assert_eq!(wrong_groups(&text), Vec::<String>::new());
        seen.extend(words(&text).iter().map(|(_, word, _)| (*word).to_owned()));
    }
    assert!(seen.len() > 60, "{} metrics are used", seen.len());
}

#[test]
fn the_rule_finds_what_breaks_it() {
    assert_eq!(wrong("rate(vbstore_ops_total{op=\"get\"}[1m])").len(), 0);
    assert_eq!(wrong("vbstore_nothing > 0"), ["no metric vbstore_nothing"]);
    assert_eq!(wrong("vbstore_ops_total{op=\"fly\"}").len(), 1);
    assert_eq!(wrong("vbstore_ops_total{kind=\"get\"}").len(), 1);
    assert_eq!(wrong("vbstore_persist_sync_seconds").len(), 1);
    assert_eq!(wrong("vbstore_persist_sync_seconds_sum").len(), 0);
    assert_eq!(wrong("vbstore_items_sum").len(), 1);
    assert_eq!(wrong_groups("sum by (holder, le) (x)").len(), 0);
    assert_eq!(wrong_groups("sum by (hodler) (x)"), [" by (hodler)"]);
}

#[test]
fn every_alert_has_its_paragraph_and_its_test() {
    let dir = crate_dir();
    let alerts = read(&dir.join("rules/alerts.yml"));
    let tests = read(&dir.join("rules/tests/alerts.yml"));
    let runbook = read(&dir.join("../docs/runbook.md"));
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 20);
    for name in &names {
        let paragraph = runbook.split(&format!("## {name}\n")).nth(1);
        let paragraph = paragraph.unwrap_or_else(|| panic!("{name} is not in the runbook"));
        assert!(paragraph.trim().len() > 80, "{name}");
        let fires = format!("alertname: {name}\n        exp_alerts:\n          - exp_labels");
        assert!(tests.contains(&fires), "{name} is never seen to fire");
        let quiet = format!("alertname: {name}, exp_alerts: []");
        assert!(tests.contains(&quiet), "{name} is never seen to be quiet");
    }
    for line in runbook.lines().filter_map(|l| l.strip_prefix("## ")) {
        assert!(names.contains(&line), "{line} is not an alert");
    }
}
