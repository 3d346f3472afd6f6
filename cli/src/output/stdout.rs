//! Standard output that a signal can interrupt.
//!
//! A write to a pipe that is not read, or to a stopped terminal, may block forever. So a second
//! thread makes the writes, and the thread of the command can check for a stop meanwhile. After a
//! stop it waits [`GRACE`] longer in all, for a reader that is only slow, and then abandons the
//! output.

use crate::stop::StopFlag;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// How often a stop is checked for while a write blocks.
const POLL: Duration = Duration::from_millis(50);
/// How long to wait for blocked writes after a stop, for all of them together.
const GRACE: Duration = Duration::from_millis(500);

/// The error of a write that was abandoned because of a stop.
#[derive(Debug)]
pub(super) struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted while standard output was blocked: not everything was printed")
    }
}

impl std::error::Error for Abandoned {}

/// A writer to a file descriptor that abandons a blocked write soon after a stop was requested.
#[derive(Debug)]
pub(super) struct Interruptible {
    stop: StopFlag,
    /// Started by the first write.
    writer: Option<Writer>,
    /// Time spent waiting for blocked writes since the stop.
    waited: Duration,
    is_abandoned: bool,
}

/// The thread that writes. For each piece it returns the result, and the piece for reuse.
#[derive(Debug)]
struct Writer {
    pieces: SyncSender<Vec<u8>>,
    outcomes: Receiver<(Vec<u8>, io::Result<()>)>,
    /// The buffer of the previous piece.
    spare: Vec<u8>,
}

impl Writer {
    fn start(file: File) -> io::Result<Self> {
        let (pieces, to_write) = sync_channel::<Vec<u8>>(1);
        let (answers, outcomes) = sync_channel(1);
        // Never joined: it may block in a write forever, and ends with the process.
        std::thread::Builder::new()
            .name("vbstore-output".to_owned())
            .spawn(move || {
                let mut file = file;
                for piece in to_write {
                    let outcome = file.write_all(&piece);
                    if answers.send((piece, outcome)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            pieces,
            outcomes,
            spare: Vec::new(),
        })
    }
}

impl Interruptible {
    /// Returns a writer to standard output.
    pub(super) fn stdout(stop: StopFlag) -> Self {
        Self {
            stop,
            writer: None,
            waited: Duration::ZERO,
            is_abandoned: false,
        }
    }

    /// Returns a writer to another file.
    #[cfg(test)]
    fn to(file: File, stop: StopFlag) -> Self {
        let mut this = Self::stdout(stop);
        this.writer = Some(Writer::start(file).unwrap());
        this
    }
}

impl Write for Interruptible {
    /// Returns when all of `bytes` is written. The thread never has more than this one piece, so
    /// after a flush of the buffer nothing is left unwritten.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let abandoned = || Err(io::Error::other(Abandoned));
        if self.is_abandoned {
            return abandoned();
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                none.insert(Writer::start(file)?)
            }
        };
        let gone = || io::Error::other("the thread that writes standard output has ended");
        let mut piece = std::mem::take(&mut writer.spare);
        piece.clear();
        piece.extend_from_slice(bytes);
        writer.pieces.send(piece).map_err(|_| gone())?;
        loop {
            match writer.outcomes.recv_timeout(POLL) {
                Ok((piece, outcome)) => {
                    writer.spare = piece;
                    return outcome.map(|()| bytes.len());
                }
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
                Err(RecvTimeoutError::Timeout) if self.stop.is_asked() => {
                    self.waited = self.waited.saturating_add(POLL);
                    if self.waited >= GRACE {
                        self.is_abandoned = true;
                        return abandoned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn is_abandoned(error: &io::Error) -> bool {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        matches!(inner, Some(Abandoned))
    }

    #[test]
    fn a_blocked_write_is_abandoned_after_a_stop_and_so_are_later_ones() {
        let (_reader, writer) = io::pipe().unwrap();
        let stop = StopFlag::by_hand();
        let mut out = Interruptible::to(File::from(OwnedFd::from(writer)), stop.clone());
        stop.ask();
        // More than the buffer of a pipe holds.
        let error = out.write_all(&vec![b'x'; 1 << 20]).unwrap_err();
        assert!(is_abandoned(&error), "{error}");
        let error = out.write_all(b"y").unwrap_err();
        assert!(is_abandoned(&error), "{error}");
    }

    #[test]
    fn a_reader_gets_everything_even_after_a_stop() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stop = StopFlag::by_hand();
        stop.ask();
        let mut out = Interruptible::to(File::from(OwnedFd::from(writer)), stop);
        let sent = vec![b'x'; 1 << 20];
        let mut read = Vec::new();
        std::thread::scope(|scope| {
            let reading = std::thread::Builder::new()
                .name("reader".to_owned())
                .spawn_scoped(scope, || reader.read_to_end(&mut read).unwrap())
                .unwrap();
            out.write_all(&sent).unwrap();
            // Lets the thread end, and the pipe with it.
            drop(out);
            reading.join().unwrap();
        });
        assert_eq!(read, sent);
    }
}
