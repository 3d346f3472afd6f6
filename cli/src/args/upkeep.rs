//! Arguments of the commands that maintain a store or install the program: `new-branch`,
//! `compact`, `completions` and `man`.

use clap::Args as ClapArgs;
use std::path::PathBuf;

#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  vbstore new-branch --dir s")]
pub(crate) struct NewBranchArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore compact --dir s
  vbstore compact --dir s --vb 7")]
pub(crate) struct CompactArgs {
    #[arg(long)]
    pub(super) json: bool,
    /// The store's directory.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Only this vBucket.
    #[arg(long)]
    pub(crate) vb: Option<u16>,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  source <(vbstore completions bash)
  vbstore completions fish > ~/.config/fish/completions/vbstore.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  vbstore man | man -l -
  vbstore man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write a page for the program and one for each command to this directory; it is created if
    /// needed. Without it, print the page of the program.
    pub(crate) dir: Option<PathBuf>,
}
