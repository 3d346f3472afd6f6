//! `watch`: shows the main figures of a running exporter.

mod scraped;
mod show;

use crate::args;
use crate::output::{CommandError, CommandResult, DONE, IO, Output};
use crate::stop::StopFlag;
use scraped::ScrapedMetrics;
use std::io::IsTerminal;
use std::time::Duration;
use vbstore::{Clock, SystemClock};

/// How often a signal is looked for.
const TICK: Duration = Duration::from_millis(50);
/// A scrape takes no longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Cursor home, and what is below it cleared.
const HOME: &str = "\u{1b}[H\u{1b}[J";

pub(crate) fn run(args: &args::WatchArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let url = url_of(&args.url);
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let is_redrawn = !out.is_json && std::io::stdout().is_terminal();
    let clock = SystemClock::new();
    let interval = Duration::from_secs_f64(args.interval);
    let mut before: Option<ScrapedMetrics> = None;
    let (mut shown, mut due) = (0_u64, Duration::ZERO);
    loop {
        let scraped = scrape(&agent, &url, clock.monotonic())?;
        if out.is_json {
            out.line(show::object(&scraped, before.as_ref()))?;
        } else {
            let home = if is_redrawn { HOME } else { "" };
            out.line(format_args!(
                "{home}{}",
                show::screen(&url, &scraped, before.as_ref())
            ))?;
        }
        out.flush()?;
        before = Some(scraped);
        shown += 1;
        if args.count.is_some_and(|count| shown >= count) {
            return Ok(DONE);
        }
        due = due.saturating_add(interval);
        while clock.monotonic() < due {
            if stop.is_asked() {
                return Ok(DONE);
            }
            std::thread::park_timeout(TICK.min(due.saturating_sub(clock.monotonic())));
        }
        if stop.is_asked() {
            return Ok(DONE);
        }
    }
}

/// Completes what was typed: `127.0.0.1:9184` is enough.
fn url_of(typed: &str) -> String {
    let url = if typed.contains("://") {
        typed.to_owned()
    } else {
        format!("http://{typed}")
    };
    let has_path = url
        .split_once("://")
        .is_some_and(|(_, rest)| rest.contains('/'));
    if has_path {
        url
    } else {
        format!("{url}/metrics")
    }
}

fn scrape(agent: &ureq::Agent, url: &str, at: Duration) -> Result<ScrapedMetrics, CommandError> {
    let failed = |why: String| CommandError::new(IO, "io", format!("cannot scrape {url}: {why}"));
    let mut answer = agent.get(url).call().map_err(|e| failed(e.to_string()))?;
    let text = answer.body_mut().read_to_string();
    let text = text.map_err(|e| failed(e.to_string()))?;
    ScrapedMetrics::parse(&text, at).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::url_of;

    #[test]
    fn an_address_is_completed() {
        for (typed, url) in [
            ("127.0.0.1:9184", "http://127.0.0.1:9184/metrics"),
            ("http://h:1", "http://h:1/metrics"),
            ("http://h:1/other", "http://h:1/other"),
        ] {
            assert_eq!(url_of(typed), url);
        }
    }
}
