//! `import`: writes the records of an input to a store.
//!
//! [`source`] opens the input and decompresses it, [`records`] splits it into records, [`importer`]
//! writes them, and [`progress`] saves the progress in a file.

mod followers;
mod importer;
mod place;
mod plan;
mod progress;
mod records;
mod report;
mod source;

use crate::args::ImportArgs;
use crate::output::{CommandError, CommandResult, DONE, IO, Output, PROBLEM};
use crate::stop::StopFlag;
use crate::store;
use clap::ValueEnum;
use followers::{FollowersOutcome, ImportFollowers};
use importer::Importer;
use place::Skipped;
use progress::{ImportProgress, InputIdentity, ProgressFile};
use records::{Plan, Records, Refused};
use source::Source;
use std::path::Path;

pub(crate) fn run(args: &ImportArgs, out: &mut Output, stop: &StopFlag) -> CommandResult {
    let plan = plan::plan(args)?;
    let format = args
        .format
        .to_possible_value()
        .map_or_else(String::new, |v| v.get_name().to_owned());
    let input = InputIdentity::of(args, &format)
        .map_err(|e| CommandError::new(IO, "io", format!("{}: {e}", args.file.display())))?;
    refuse_input_as_state(args)?;
    // Before the store is created, so that an unreadable input leaves no empty store.
    let mut records = open(args, &plan, stop)?;
    let engine = store::open_or_create(&args.dir, args.vbuckets)?;
    let file = ProgressFile::of(&args.dir, args.state.as_deref());
    let none = ImportProgress::none(input, engine.store_uuid().to_string());
    let start = match if args.resume { file.load()? } else { None } {
        Some(earlier) => match resume(earlier, &none, &mut records, stop)? {
            Resumed::At(progress) => progress,
            Resumed::Anew => {
                records = open(args, &plan, stop)?;
                none
            }
            Resumed::AtTheBeginning => none,
        },
        None => none,
    };
    let mut importer = Importer::new(args, &engine, file, start)?;
    let ended = import(args, &engine, &mut importer, &mut records, stop);
    let closed = engine.close();
    // The error of the import comes first: the close of a failed engine fails too.
    let ended = ended.and_then(|followed| {
        closed?;
        Ok(followed)
    });
    let followed = ended.as_ref().ok().and_then(Option::as_ref);
    let is_fine =
        ended.is_ok() && importer.is_fine() && followed.is_none_or(FollowersOutcome::is_ok);
    let reported = importer.report(out, is_fine, followed);
    // The error is printed before the report, because standard output may be closed.
    ended?;
    reported?;
    Ok(if is_fine { DONE } else { PROBLEM })
}

/// Runs the import, together with the consumers that follow the store.
fn import(
    args: &ImportArgs,
    engine: &vbstore::Engine,
    importer: &mut Importer<'_>,
    records: &mut Records,
    stop: &StopFlag,
) -> Result<Option<FollowersOutcome>, CommandError> {
    let Some(beside) = ImportFollowers::of(engine, args)? else {
        importer.run(records, stop, None)?;
        return Ok(None);
    };
    let import = || importer.run(records, stop, Some(&beside));
    beside.run(args, import).map(Some)
}

fn open(args: &ImportArgs, plan: &Plan, stop: &StopFlag) -> Result<Records, CommandError> {
    let source = Source::open(&args.file, stop)?;
    Records::new(source, plan).map_err(|refused| match refused {
        Refused::Io(error) => CommandError::new(IO, "io", error.to_string()),
        Refused::Header(what) => CommandError::usage(what),
    })
}

/// Where an import with `--resume` begins.
enum Resumed {
    /// At the saved place. The records before it have been read and compared.
    At(ImportProgress),
    /// At the beginning. The input has to be opened again, because it was read past that.
    Anew,
    /// At the beginning. Nothing has been read yet.
    AtTheBeginning,
}

/// Continues an earlier import, or begins a new one if the earlier one was finished.
fn resume(
    earlier: ImportProgress,
    this: &ImportProgress,
    records: &mut Records,
    stop: &StopFlag,
) -> Result<Resumed, CommandError> {
    if earlier.store != this.store {
        return Err(CommandError::usage(
            "the earlier import wrote to another store: without --resume, the whole input is imported \
             into this one",
        ));
    }
    let is_pipe = this.input.is_pipe();
    if earlier.input != this.input {
        if earlier.is_finished {
            return Ok(Resumed::AtTheBeginning);
        }
        return Err(CommandError::usage(format!(
            "the interrupted import was of another input: {}, up to line {}. Finish it with the same \
             command and --resume, or omit --resume to begin with this one, {}",
            earlier.input.describe(),
            earlier.last_line(),
            this.input.describe()
        )));
    }
    if is_pipe && earlier.is_finished {
        // A finished pipe may be sent again, or more of it. Stored records are recognised.
        return Ok(Resumed::AtTheBeginning);
    }
    let skipped = records.skip_to(&earlier.place(), earlier.layout);
    if stop.is_asked() {
        return Err(CommandError::new(
            PROBLEM,
            "interrupted",
            "interrupted before anything was imported",
        ));
    }
    let skipped = skipped.map_err(|error| CommandError::new(IO, "io", error.to_string()))?;
    let what = match skipped {
        Skipped::Same => return Ok(Resumed::At(earlier)),
        Skipped::Different | Skipped::Shorter if earlier.is_finished => return Ok(Resumed::Anew),
        Skipped::Different => "differs from the one",
        Skipped::Shorter => "is shorter than the imported part of the one",
    };
    let what = if is_pipe {
        format!("the stream {what}")
    } else {
        format!("the file {what}")
    };
    Err(CommandError::usage(format!(
        "{what} whose import was interrupted at line {}: without --resume, it is imported from the \
         beginning",
        earlier.last_line()
    )))
}

/// Refuses a state file that is the input itself, which saving the progress would overwrite.
fn refuse_input_as_state(args: &ImportArgs) -> Result<(), CommandError> {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let Some(state) = args.state.as_deref().and_then(real) else {
        return Ok(());
    };
    if real(&args.file) == Some(state) {
        return Err(CommandError::usage("--state names the input file"));
    }
    Ok(())
}
