//! `completions` and `man`: print what a package installs with the program.

use crate::args::{self, CompletionsArgs, ManArgs};
use crate::output::{CommandError, CommandResult, DONE, IO, Output};
use std::path::Path;

pub(crate) fn completions(args: &CompletionsArgs, out: &mut Output) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "vbstore", &mut script);
    out.bytes(&script)?;
    Ok(DONE)
}

pub(crate) fn man(args: &ManArgs, out: &mut Output) -> CommandResult {
    let command = args::command();
    if let Some(dir) = &args.dir {
        write_pages(command, dir)?;
        return Ok(DONE);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| {
            CommandError::new(IO, "io", format!("cannot write the manual page: {error}"))
        })?;
    out.bytes(&page)?;
    Ok(DONE)
}

fn write_pages(command: clap::Command, dir: &Path) -> Result<(), CommandError> {
    let created = std::fs::create_dir_all(dir);
    created.map_err(|error| CommandError::file("create the directory", dir, &error))?;
    // `help` needs no pages of its own.
    let command = command.disable_help_subcommand(true);
    let written = clap_mangen::generate_to(command, dir);
    written.map_err(|error| CommandError::file("write the manual pages to", dir, &error))
}
