//! The threads of the background tasks.

use super::retry::RETRY;
use super::task::BackgroundTask;
use crate::engine_thread;
use crate::services::Services;
use crate::signals::NextRun;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Starts a thread for each task. Passes each handle to `started` at once: if a later thread cannot
/// be started, the caller still has to stop the earlier ones.
pub(crate) fn start(
    services: &Arc<Services>,
    mut started: impl FnMut(JoinHandle<()>),
) -> std::io::Result<()> {
    for task in BackgroundTask::ALL {
        let services = Arc::clone(services);
        let builder = std::thread::Builder::new().name(task.thread_name().to_owned());
        started(builder.spawn(move || run(task, &services))?);
    }
    Ok(())
}

fn run(task: BackgroundTask, services: &Services) {
    let signal = task.signal(services);
    loop {
        let next = engine_thread::step(|| step(task, services));
        if !next.is_some_and(|next| signal.wait(next)) {
            return;
        }
    }
}

/// Returns when the task wants to be called next, or `None` if it has panicked.
fn step(task: BackgroundTask, services: &Services) -> Option<NextRun> {
    match catch_unwind(AssertUnwindSafe(|| task.step(services))) {
        Ok(Ok(next)) => Some(next),
        Ok(Err(error)) => {
            tracing::debug!(?task, %error, "background task failed");
            Some(NextRun::In(RETRY))
        }
        Err(_) => {
            let cause = format!("{} panicked", task.thread_name());
            services.health.fail(cause).run();
            // Makes the threads in the queue check their conditions again, so that they get the
            // error. Without the flusher, possibly no other thread takes the lead any more.
            if let Err(error) = services.committer.recheck_waiters() {
                tracing::debug!(?task, %error, "cannot wake the waiting threads after the panic");
            }
            None
        }
    }
}
