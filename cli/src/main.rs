//! The program `vbstore`: work on a store from the shell. See `vbstore help`.

mod args;
mod asked;
mod dump;
mod exporting;
mod follow;
mod import;
mod input;
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
use clap::Parser;
use output::{Failure, Out, Run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    raise_file_limit();
    init_log();
    let mut out = Out::new(args.is_json());
    let ended = run(args.command, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(failure) => out.report(&failure),
    }
}

fn run(command: Command, out: &mut Out) -> Run {
    let stop = stop::Stop::on_signals().map_err(Failure::from)?;
    match command {
        Command::Import(args) => import::run(&args, out, &stop),
        Command::Get(args) => point::get(&args, out),
        Command::Set(args) => point::set(args, out),
        Command::Del(args) => point::del(&args, out),
        Command::Stats(args) => stats::run(&args, out),
        Command::Dump(args) => dump::run(&args, out, &stop),
        Command::Tail(args) => tail::run(&args, out, &stop),
        Command::Session(args) => session::run(&args, out, &stop),
        Command::Serve(args) => serve::run(&args, out, &stop),
        Command::Watch(args) => watch::run(&args, out, &stop),
        Command::NewBranch(args) => new_branch::run(&args, out),
        Command::Verify(args) => verify::run(&args, out, &stop),
        Command::Stress(args) => stress::run(&args, out, &stop),
    }
}

/// A store keeps many files open; the soft limit is often a quarter of what is allowed.
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
    // Opening says how many are needed, if there are too few.
    if let Err(error) = raised {
        tracing::debug!(%error, "file limit not raised");
    }
}

/// Warnings of the library go to standard error.
fn init_log() {
    let is_color_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(is_color_wanted && std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        // Where nobody reads them any more, saying so would panic.
        .log_internal_errors(false);
    drop(subscriber.try_init());
}
