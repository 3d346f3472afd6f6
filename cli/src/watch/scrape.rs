//! Requests the metrics on a thread of its own: an answer may take seconds, and a signal must be
//! handled meanwhile.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A thread that requests the page when asked to.
pub(super) struct Scraper {
    requests: SyncSender<()>,
    answers: Receiver<Result<String, String>>,
}

impl Scraper {
    pub(super) fn start(url: &str) -> io::Result<Self> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .build()
            .into();
        let (requests, to_do) = sync_channel::<()>(1);
        let (sender, answers) = sync_channel(1);
        let url = url.to_owned();
        // Never joined: it may wait for an answer for seconds, and ends with the process.
        std::thread::Builder::new()
            .name("vbstore-scrape".to_owned())
            .spawn(move || {
                for () in to_do {
                    if sender.send(scrape(&agent, &url)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { requests, answers })
    }

    /// Starts a request. The answer to the previous one must have been received.
    pub(super) fn request(&self) {
        // Fails only if the thread has panicked; then no answer comes either.
        let _ = self.requests.try_send(());
    }

    /// Waits for the page, or for the error. `None` if neither came within `timeout`.
    pub(super) fn answer(&self, timeout: Duration) -> Option<Result<String, String>> {
        self.answers.recv_timeout(timeout).ok()
    }
}

fn scrape(agent: &ureq::Agent, url: &str) -> Result<String, String> {
    let mut answer = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(status) => format!("HTTP status {status}"),
        ureq::Error::Io(error) => format!("no answer: {error}"),
        error => format!("no answer: {error}"),
    })?;
    let page = answer.body_mut().read_to_string();
    page.map_err(|error| format!("no answer: {error}"))
}

/// Completes an address such as `127.0.0.1:9184` to the URL of the metrics.
pub(super) fn url_of(typed: &str) -> String {
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
