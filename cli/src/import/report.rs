//! What an import says at its end, whatever that is.

use super::followers::FollowersOutcome;
use super::records::Record;
use crate::output::{CommandError, Output};
use serde_json::{Value, json};

/// Rejected records that are listed one by one.
const REJECTED_MAX: usize = 100;

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) already_there: u64,
    /// The last line of which it and all before it are acknowledged.
    pub(super) line: u64,
    pub(super) rejected: u64,
    /// Lines in them.
    rejected_lines: u64,
    /// Rejected by the import that this one goes on with.
    pub(super) rejected_before: u64,
    listed: Vec<Rejected>,
}

#[derive(Debug)]
struct Rejected {
    first_line: u64,
    last_line: u64,
    reason: String,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended<'a> {
    pub(super) is_finished: bool,
    /// Whether the exit code is 0.
    pub(super) is_fine: bool,
    pub(super) is_pipe: bool,
    pub(super) seconds: f64,
    pub(super) followed: Option<&'a FollowersOutcome>,
}

impl Counts {
    /// Those of an import that goes on behind a line.
    pub(super) fn behind(line: u64, rejected_before: u64) -> Self {
        Self {
            line,
            rejected_before,
            ..Self::default()
        }
    }

    pub(super) fn reject(&mut self, record: &Record, reason: String) {
        self.rejected += 1;
        self.rejected_lines += (record.last_line + 1).saturating_sub(record.first_line);
        if self.listed.len() < REJECTED_MAX {
            self.listed.push(Rejected {
                first_line: record.first_line,
                last_line: record.last_line,
                reason,
            });
        }
    }

    pub(super) fn print(&self, ended: Ended<'_>, out: &mut Output) -> Result<(), CommandError> {
        if out.is_json {
            return out.line(self.to_json(ended));
        }
        for rejected in &self.listed {
            let Rejected {
                first_line,
                last_line,
                reason,
            } = rejected;
            if first_line == last_line {
                out.line(format_args!("rejected line {first_line}: {reason}"))?;
            } else {
                out.line(format_args!(
                    "rejected lines {first_line} to {last_line}: {reason}"
                ))?;
            }
        }
        let unlisted = self.rejected - crate::number::u64_from(self.listed.len());
        if unlisted > 0 {
            out.line(format_args!("and {unlisted} more that are not listed"))?;
        }
        if let Some(outcome) = ended.followed {
            out.line(format_args!("followed: {}", outcome.to_json()))?;
        }
        let rejected = if self.rejected_lines > self.rejected {
            format!("{} rejected ({} lines)", self.rejected, self.rejected_lines)
        } else {
            format!("{} rejected", self.rejected)
        };
        let before = match self.rejected_before {
            0 => String::new(),
            before => format!(" and {before} before this command"),
        };
        let cut = match (ended.is_finished, ended.is_pipe) {
            (true, _) => "",
            (false, false) => ", cut short: the same command with --resume goes on",
            (false, true) => {
                ", cut short: the same command with --resume goes on if it is given the same stream again"
            }
        };
        out.line(format_args!(
            "imported {} records, {} bytes in {:.2} s, up to line {}; {} already there, \
             {rejected}{before}{cut}",
            self.records, self.bytes, ended.seconds, self.line, self.already_there
        ))
    }

    fn to_json(&self, ended: Ended<'_>) -> Value {
        let listed = self.listed.iter().map(|rejected| {
            json!({
                "line": rejected.first_line,
                "last_line": rejected.last_line,
                "reason": rejected.reason,
            })
        });
        json!({
            "ok": ended.is_fine,
            "finished": ended.is_finished,
            "records": self.records,
            "already_there": self.already_there,
            "bytes": self.bytes,
            "seconds": ended.seconds,
            "lines": self.line,
            "rejected_count": self.rejected,
            "rejected_lines": self.rejected_lines,
            "rejected_before": self.rejected_before,
            "rejected": listed.collect::<Value>(),
            "followed": ended.followed.map(FollowersOutcome::to_json),
        })
    }
}
