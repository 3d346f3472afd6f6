//! Prints the report at the end of an import, whether it succeeded or failed.

use super::followers::FollowersOutcome;
use super::records::Record;
use crate::output::{CommandError, Output};
use serde_json::{Value, json};

/// The most rejected records that are listed one by one.
const REJECTED_MAX: usize = 100;

/// Counts of what an import did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) already_there: u64,
    /// The last line of the acknowledged part of the input.
    pub(super) line: u64,
    pub(super) rejected: u64,
    /// The number of lines in the rejected records.
    rejected_lines: u64,
    /// The number of records rejected by the earlier import that this one resumes.
    pub(super) rejected_before: u64,
    listed: Vec<Rejected>,
}

#[derive(Debug)]
struct Rejected {
    first_line: u64,
    last_line: u64,
    reason: String,
}

/// How an import ended.
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
    /// Returns the counts of an import that continues after `line`.
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
            out.line(format_args!("and {unlisted} more rejected records"))?;
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
            (false, false) => ", interrupted: the same command with --resume continues the import",
            (false, true) => {
                ", interrupted: the same command with --resume continues the import if it reads the \
                 same stream again"
            }
        };
        out.line(format_args!(
            "imported {} records, {} bytes in {:.2} s, up to line {}; {} already stored, \
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
