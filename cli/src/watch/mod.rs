//! `watch`: shows the main metrics of a running exporter, refreshed at an interval.
//!
//! The first request must succeed. If the server goes away later, the last values stay on the
//! screen, with the time since then, until it is back.

mod layout;
mod scrape;
mod scraped;
mod show;

use crate::args;
use crate::output::{CommandError, CommandResult, DONE, IO, Output};
use crate::stop::StopFlag;
use layout::Size;
use scrape::Scraper;
use scraped::ScrapedMetrics;
use serde_json::json;
use std::time::Duration;
use vbstore::{Clock, SystemClock};

/// How often a stop, an answer and the size of the terminal are checked for.
const TICK: Duration = Duration::from_millis(50);
/// After this long without an answer, the display says that there is none. The answer may still
/// come.
const LATE: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &args::WatchArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let url = scrape::url_of(&args.url);
    let scraper = Scraper::start(&url).map_err(|error| CommandError::thread(&error))?;
    let watch = Watch {
        url,
        scraper,
        clock: SystemClock::new(),
        interval: Duration::from_secs_f64(args.interval),
        is_redrawn: !out.is_json && Output::is_terminal(),
        latest: None,
        previous: None,
        requested_at: None,
        last_error: None,
        drawn: None,
    };
    watch.run(args.count, out, stop)
}

struct Watch {
    url: String,
    scraper: Scraper,
    clock: SystemClock,
    interval: Duration,
    /// Whether each refresh replaces the previous one on the terminal.
    is_redrawn: bool,
    latest: Option<ScrapedMetrics>,
    /// The scrape before the latest one; rates are computed from both.
    previous: Option<ScrapedMetrics>,
    /// When the pending request was sent; `None` if there is none.
    requested_at: Option<Duration>,
    /// Why the last request failed; `None` if it did not.
    last_error: Option<String>,
    /// What was last drawn for: the size of the terminal, and the seconds without an answer.
    drawn: Option<(Size, Option<u64>)>,
}

impl Watch {
    fn run(mut self, count: Option<u64>, out: &mut Output, stop: &StopFlag) -> CommandResult {
        let (mut refreshes, mut due) = (0_u64, Duration::ZERO);
        while !stop.is_asked() {
            let now = self.clock.monotonic();
            if self.requested_at.is_none() && now >= due {
                self.scraper.request();
                self.requested_at = Some(now);
                // Not `due + interval`: requests that a late answer delayed are not made up for.
                due = now.saturating_add(self.interval);
            }
            let Some(answer) = self.answer(due) else {
                if self.is_redrawn {
                    self.draw(false, out)?;
                }
                continue;
            };
            self.requested_at = None;
            self.take(answer)?;
            self.print(out)?;
            refreshes += 1;
            if count.is_some_and(|count| refreshes >= count) {
                self.leave(out)?;
                return match self.last_error {
                    None => Ok(DONE),
                    Some(ref why) => Err(self.failure(why)),
                };
            }
        }
        self.leave(out)?;
        Ok(DONE)
    }

    /// Waits up to [`TICK`] for the pending answer, or else until the next request is due.
    fn answer(&self, due: Duration) -> Option<Result<String, String>> {
        if self.requested_at.is_some() {
            return self.scraper.answer(TICK);
        }
        let left = due.saturating_sub(self.clock.monotonic());
        std::thread::park_timeout(TICK.min(left));
        None
    }

    /// Records the outcome of a request.
    ///
    /// # Errors
    /// The first request found no metrics.
    fn take(&mut self, answer: Result<String, String>) -> Result<(), CommandError> {
        let at = self.clock.monotonic();
        let parsed = answer.and_then(|page| {
            ScrapedMetrics::parse(&page, at).ok_or_else(|| {
                "not a page of vbstore's metrics: give the address that `vbstore serve --metrics` \
                 listens on, such as 127.0.0.1:9184"
                    .to_owned()
            })
        });
        match parsed {
            Ok(scraped) => {
                self.previous = self.latest.replace(scraped);
                self.last_error = None;
            }
            Err(why) if self.latest.is_none() => return Err(self.failure(&why)),
            Err(why) => self.last_error = Some(why),
        }
        Ok(())
    }

    fn failure(&self, why: &str) -> CommandError {
        CommandError::new(IO, "io", format!("{}: {why}", self.url))
    }

    /// Returns the time since the last metrics; `None` while the server answers.
    fn silence(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let is_late = self
            .requested_at
            .is_some_and(|at| now.saturating_sub(at) > LATE);
        let latest = self.latest.as_ref()?;
        (is_late || self.last_error.is_some()).then(|| now.saturating_sub(latest.at))
    }

    fn print(&mut self, out: &mut Output) -> Result<(), CommandError> {
        if self.is_redrawn {
            return self.draw(true, out);
        }
        let silence = self.silence();
        if out.is_json {
            let object = match (&self.latest, silence) {
                (_, Some(silence)) => json!({
                    "health": "no_answer",
                    "no_answer_seconds": silence.as_secs_f64(),
                    "error": self.last_error,
                }),
                (Some(latest), None) => show::object(latest, self.previous.as_ref()),
                (None, None) => return Ok(()),
            };
            out.line(object)?;
        } else {
            for line in self.lines(Size::UNLIMITED, silence) {
                out.line(line)?;
            }
            out.line("")?;
        }
        out.flush()
    }

    /// Redraws the terminal if there are new values, its size changed, or a second without an
    /// answer has passed.
    fn draw(&mut self, has_news: bool, out: &mut Output) -> Result<(), CommandError> {
        if self.latest.is_none() {
            return Ok(());
        }
        let silence = self.silence();
        let drawn = (
            Size::of_terminal(),
            silence.map(|silence| silence.as_secs()),
        );
        if self.drawn == Some(drawn) && !has_news {
            return Ok(());
        }
        let lines = self.lines(drawn.0, silence);
        out.bytes(layout::redrawn(&lines).as_bytes())?;
        out.flush()?;
        self.drawn = Some(drawn);
        Ok(())
    }

    fn lines(&self, size: Size, silence: Option<Duration>) -> Vec<String> {
        let Some(latest) = &self.latest else {
            return Vec::new();
        };
        let mut head = vec![format!("{}  {}", show::state(latest), self.url)];
        if let Some(silence) = silence {
            let text = format!("no answer from {} for {} s", self.url, silence.as_secs());
            head = vec![text];
            head.extend(self.last_error.clone());
        }
        layout::lines(&head, &show::groups(latest, self.previous.as_ref()), size)
    }

    /// Moves the cursor below the last drawing.
    fn leave(&self, out: &mut Output) -> Result<(), CommandError> {
        if self.drawn.is_some() {
            out.line("")?;
        }
        out.flush()
    }
}
