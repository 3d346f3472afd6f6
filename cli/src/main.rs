//! The program `vbstore`, which works on a store from the shell. See `vbstore help`.

mod args;
mod asked;
mod bytes;
mod compact;
mod docs;
mod dump;
mod exporting;
mod follow;
mod import;
mod input;
mod keys;
mod new_branch;
mod number;
mod output;
mod point;
mod record;
mod serve;
mod session;
mod stats;
mod stop;
mod store;
mod stress;
mod tail;
mod verify;
mod watch;

use args::{Args, Command};
use output::{CommandError, CommandResult, IO, Output};
use std::process::ExitCode;
use stop::StopFlag;

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    if args.is_json() {
        output::print_json_errors();
    }
    output::start_log();
    raise_file_limit();
    match StopFlag::on_signals() {
        Ok(stop) => run_and_report(args, &stop),
        Err(error) => {
            let text = format!("cannot install the signal handlers: {error}");
            output::report(&CommandError::new(IO, "io", text))
        }
    }
}

fn run_and_report(args: Args, stop: &StopFlag) -> ExitCode {
    let mut out = Output::new(args.is_json(), stop.clone());
    let ended = run(args.command, &mut out, stop).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => out.report(&failure),
    }
}

fn run(command: Command, out: &mut Output, stop: &StopFlag) -> CommandResult {
    match command {
        Command::Import(args) => import::run(&args, out, stop),
        Command::Get(args) => point::get(&args, out),
        Command::Set(args) => point::set(&args, out, stop),
        Command::Del(args) => point::del(&args, out),
        Command::Keys(args) => keys::run(&args, out, stop),
        Command::Stats(args) => stats::run(&args, out),
        Command::Dump(args) => dump::run(&args, out, stop),
        Command::Tail(args) => tail::run(&args, out, stop),
        Command::Session(args) => session::run(&args, out, stop),
        Command::Serve(args) => serve::run(&args, out, stop),
        Command::Watch(args) => watch::run(&args, out, stop),
        Command::NewBranch(args) => new_branch::run(&args, out),
        Command::Compact(args) => compact::run(&args, out, stop),
        Command::Verify(args) => verify::run(&args, out, stop),
        Command::Stress(args) => stress::run(&args, out, stop),
        Command::Completions(args) => docs::completions(&args, out),
        Command::Man(args) => docs::man(&args, out),
    }
}

/// Raises the soft limit of open files to the hard limit: a store keeps many files open, and the
/// soft limit is often only a fraction of what is allowed.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
    // Not an error yet: if the limit is too low for the store, opening it fails and names both.
    if let Err(error) = raised {
        tracing::debug!(%error, "file limit not raised");
    }
}
