//! `watch`: shows the main metrics of a running exporter, again and again.
//!
//! The page must be there when it begins. A server that goes away later is waited for: what it
//! answered last stays in view, with how long ago that was.

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

/// How often a signal, an answer and the size of the terminal are looked for.
const TICK: Duration = Duration::from_millis(50);
/// An answer that takes longer than this is missed, although it may still come.
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
        before: None,
        asked_at: None,
        trouble: None,
        drawn: None,
    };
    watch.run(args.count, out, stop)
}

struct Watch {
    url: String,
    scraper: Scraper,
    clock: SystemClock,
    interval: Duration,
    /// Each look takes the place of the one before it on the terminal.
    is_redrawn: bool,
    latest: Option<ScrapedMetrics>,
    /// What the latest are compared with.
    before: Option<ScrapedMetrics>,
    /// When the answer that is waited for was asked for.
    asked_at: Option<Duration>,
    /// Why the last look failed.
    trouble: Option<String>,
    /// What the terminal shows: its size, and for how many seconds there was no answer.
    drawn: Option<(Size, Option<u64>)>,
}

impl Watch {
    fn run(mut self, count: Option<u64>, out: &mut Output, stop: &StopFlag) -> CommandResult {
        let (mut looks, mut due) = (0_u64, Duration::ZERO);
        while !stop.is_asked() {
            let now = self.clock.monotonic();
            if self.asked_at.is_none() && now >= due {
                self.scraper.ask();
                self.asked_at = Some(now);
                // After an answer that came late the next look is a whole interval away.
                due = now.saturating_add(self.interval);
            }
            let Some(answer) = self.answer(due) else {
                if self.is_redrawn {
                    self.draw(false, out)?;
                }
                continue;
            };
            self.asked_at = None;
            self.take(answer)?;
            self.print(out)?;
            looks += 1;
            if count.is_some_and(|count| looks >= count) {
                self.leave(out)?;
                return match self.trouble {
                    None => Ok(DONE),
                    Some(ref why) => Err(self.failure(why)),
                };
            }
        }
        self.leave(out)?;
        Ok(DONE)
    }

    /// Waits a moment for an answer, or for the next look.
    fn answer(&self, due: Duration) -> Option<Result<String, String>> {
        if self.asked_at.is_some() {
            return self.scraper.answer(TICK);
        }
        let left = due.saturating_sub(self.clock.monotonic());
        std::thread::park_timeout(TICK.min(left));
        None
    }

    /// Takes note of what a look found.
    ///
    /// # Errors
    /// The first look found no metrics.
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
                self.before = self.latest.replace(scraped);
                self.trouble = None;
            }
            Err(why) if self.latest.is_none() => return Err(self.failure(&why)),
            Err(why) => self.trouble = Some(why),
        }
        Ok(())
    }

    fn failure(&self, why: &str) -> CommandError {
        CommandError::new(IO, "io", format!("{}: {why}", self.url))
    }

    /// Returns for how long there was no answer, if one is missed.
    fn silence(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        let is_late = self
            .asked_at
            .is_some_and(|at| now.saturating_sub(at) > LATE);
        let latest = self.latest.as_ref()?;
        (is_late || self.trouble.is_some()).then(|| now.saturating_sub(latest.at))
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
                    "error": self.trouble,
                }),
                (Some(latest), None) => show::object(latest, self.before.as_ref()),
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

    /// Draws the terminal anew, if it is to show something else than it does.
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
            let text = format!("no answer from {} since {} s", self.url, silence.as_secs());
            head = vec![text];
            head.extend(self.trouble.clone());
        }
        layout::lines(&head, &show::groups(latest, self.before.as_ref()), size)
    }

    /// Leaves the cursor below what the terminal shows.
    fn leave(&self, out: &mut Output) -> Result<(), CommandError> {
        if self.drawn.is_some() {
            out.line("")?;
        }
        out.flush()
    }
}
