//! Writes the table in the formats of Grafana and of Prometheus' consoles.

use super::table::{Panel, ROWS};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// An expression for one place.
pub(crate) fn expression(text: &str, store: &str, range: &str) -> String {
    text.replace("$S", store).replace("$R", range)
}

fn target(line: &(&str, &str), index: usize) -> Value {
    let (expr, legend) = line;
    let id = char::from(b'A' + u8::try_from(index % 26).unwrap_or(0));
    json!({
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "expr": expression(expr, "instance=~\"$instance\", store=~\"$store\"", "$__rate_interval"),
        "legendFormat": legend,
        "refId": id.to_string(),
    })
}

fn graph(panel: &Panel, id: usize, x: usize, y: usize) -> Value {
    let targets: Vec<Value> = panel
        .lines
        .iter()
        .enumerate()
        .map(|(index, line)| target(line, index))
        .collect();
    let description = if panel.may_be_empty {
        "May have no data."
    } else {
        ""
    };
    json!({
        "id": id,
        "type": "timeseries",
        "title": panel.title,
        "description": description,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": 7, "w": 8, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    })
}

fn variable(name: &str, metric: &str) -> Value {
    json!({
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": format!("label_values({metric}, {name})"),
        "refresh": 2,
        "includeAll": true,
        "multi": true,
        "current": {"text": "All", "value": "$__all"},
    })
}

/// The dashboard for Grafana 10 or newer.
pub(crate) fn grafana() -> String {
    let (mut panels, mut y, mut id) = (Vec::new(), 0, 1);
    for row in ROWS {
        panels.push(json!({
            "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        }));
        id += 1;
        y += 1;
        for (index, panel) in row.panels.iter().enumerate() {
            panels.push(graph(panel, id, index % 3 * 8, y + index / 3 * 7));
            id += 1;
        }
        y += row.panels.len().div_ceil(3) * 7;
    }
    let dashboard = json!({
        "uid": "vbstore",
        "title": "vbstore",
        "tags": ["vbstore"],
        "schemaVersion": 38,
        "editable": true,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            variable("instance", "vbstore_vbuckets"),
            variable("store", "vbstore_vbuckets"),
        ]},
        "panels": panels,
    });
    format!("{dashboard:#}\n")
}

const HEAD: &str = r#"<!DOCTYPE html>
<html lang="en">
<!-- Written by `cargo run -p vbstore-metrics --example dashboards`; a console template of
     Prometheus: --web.console.templates=metrics/dashboards, then /consoles/vbstore.html -->
<head>
<meta charset="utf-8">
<title>vbstore</title>
<!-- Debian's package and the project's own archive of Prometheus 2 keep these in different places. -->
<link rel="stylesheet" href="{{ pathPrefix }}/classic/static/rickshaw/rickshaw.min.css">
<link rel="stylesheet" href="{{ pathPrefix }}/classic/static/vendor/rickshaw/rickshaw.min.css">
<link rel="stylesheet" href="{{ pathPrefix }}/classic/static/css/prom_console.css">
<script src="{{ pathPrefix }}/classic/static/d3/d3.min.js"></script>
<script src="{{ pathPrefix }}/classic/static/vendor/rickshaw/vendor/d3.v3.js"></script>
<script src="{{ pathPrefix }}/classic/static/rickshaw/rickshaw.min.js"></script>
<script src="{{ pathPrefix }}/classic/static/vendor/rickshaw/rickshaw.min.js"></script>
<script>PATH_PREFIX = "{{ pathPrefix }}";</script>
<script src="{{ pathPrefix }}/classic/static/js/prom_console.js"></script>
<style>
body { font-family: sans-serif; margin: 1em; }
h2 { border-bottom: 1px solid #ccc; margin: 0.6em 0 0.3em; }
.panel { display: inline-block; vertical-align: top; width: 32%; margin: 0 0.4% 0.6em; }
.panel h3 { font-size: 14px; margin: 0 0 0.2em; }
</style>
</head>
<body>
<h1>vbstore{{ range query "count by (store) (vbstore_vbuckets)" }} {{ .Labels.store }}{{ end }}</h1>
"#;

/// Words in a script.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The page for Prometheus itself.
pub(crate) fn console() -> String {
    let mut page = HEAD.to_owned();
    let mut number = 0;
    for row in ROWS {
        let _ = writeln!(page, "<h2>{}</h2>", row.title);
        for panel in row.panels {
            number += 1;
            let list = |of: &dyn Fn(&(&str, &str)) -> String| {
                let items: Vec<String> = panel.lines.iter().map(of).collect();
                items.join(", ")
            };
            let exprs = list(&|line| quoted(&expression(line.0, "store=~\".+\"", "1m")));
            // `[[label]]` is what a template of the console's own scripts looks like.
            let names = list(&|line| {
                let name = line.1.replace("{{", "[[").replace("}}", "]]");
                quoted(&name)
            });
            let _ = writeln!(
                page,
                "<div class=\"panel\"><h3>{}</h3><div id=\"graph{number}\"></div></div>\n\
                 <script>\nnew PromConsole.Graph({{\n  node: document.querySelector('#graph{number}'),\n  \
                 expr: [{exprs}],\n  name: [{names}],\n  min: 0, renderer: 'line', height: 150, duration: 300,\n  \
                 yAxisFormatter: PromConsole.NumberFormatter.humanize,\n  \
                 yHoverFormatter: PromConsole.NumberFormatter.humanize\n}});\n</script>",
                panel.title
            );
        }
    }
    page.push_str("</body>\n</html>\n");
    page
}
