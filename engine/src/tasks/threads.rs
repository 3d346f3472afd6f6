//! A thread for each background task.

use super::retry::RETRY;
use super::task::BackgroundTask;
use crate::services::Services;
use crate::signals::Next;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Starts a thread for each task.
pub(crate) fn start(services: &Arc<Services>) -> std::io::Result<Vec<JoinHandle<()>>> {
    BackgroundTask::ALL
        .into_iter()
        .map(|task| {
            let services = Arc::clone(services);
            let builder = std::thread::Builder::new().name(task.thread_name().to_owned());
            builder.spawn(move || run(task, &services))
        })
        .collect()
}

fn run(task: BackgroundTask, services: &Services) {
    let signal = task.signal(services);
    loop {
        let outcome = catch_unwind(AssertUnwindSafe(|| task.step(services)));
        let next = match outcome {
            Ok(Ok(next)) => next,
            Ok(Err(error)) => {
                tracing::debug!(?task, %error, "background task failed");
                Next::In(RETRY)
            }
            Err(_) => {
                let cause = format!("{} panicked", task.thread_name());
                services.health.fail(cause).run();
                return;
            }
        };
        if !signal.wait(next) {
            return;
        }
    }
}
