//! Input from files and pipes. Pipes are read on a separate thread, so that a signal is noticed
//! while no data arrives.

use crate::number::u64_from;
use crate::stop::StopFlag;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Maximum length of a line in memory. The rest of a longer line is skipped.
pub(crate) const LINE_MAX: usize = 64 << 20;

/// Interval at which a stop is checked while no data arrives.
const POLL: Duration = Duration::from_millis(100);
/// Size of one read from a pipe, and number of such pieces that may be queued: 1 MiB in total.
const PIECE_BYTES: usize = 1 << 16;
const PIECES_MAX: usize = 16;

/// Returns whether an input is a file that can be read again from any place, unlike a pipe.
pub(crate) fn is_regular(path: &Path) -> io::Result<bool> {
    Ok(path != Path::new("-") && std::fs::metadata(path)?.is_file())
}

/// Opens an input; `-` is standard input.
pub(crate) fn open(path: &Path, stop: &StopFlag) -> io::Result<Box<dyn BufRead>> {
    if is_regular(path)? {
        return Ok(Box::new(BufReader::with_capacity(
            1 << 18,
            File::open(path)?,
        )));
    }
    // Opening /dev/stdin by name fails if it is a socket.
    if path == Path::new("-") || path == Path::new("/dev/stdin") {
        return Ok(Box::new(PipeReader::stdin(stop)?));
    }
    let path = path.to_owned();
    // Opening a named pipe blocks until it has a writer, so the thread opens it.
    Ok(Box::new(PipeReader::start(stop, move || File::open(path))?))
}

/// Reads one line with its line feed, and appends it to `line`, which must not be longer than
/// [`LINE_MAX`]. Returns the number of input bytes consumed, 0 at the end. If `line` becomes longer
/// than [`LINE_MAX`], it is truncated to one byte more, and the rest of the line is skipped.
pub(crate) fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    let limit = LINE_MAX + 1 - line.len();
    let mut some = (&mut *input).take(u64_from(limit));
    let read = some.read_until(b'\n', line)?;
    let is_cut = line.len() > LINE_MAX && line.last() != Some(&b'\n');
    let passed_over = if is_cut { skip_line(input)? } else { 0 };
    Ok(u64_from(read) + passed_over)
}

/// Skips the rest of a line and returns its length.
fn skip_line(input: &mut dyn BufRead) -> io::Result<u64> {
    let mut skipped: u64 = 0;
    loop {
        let available = input.fill_buf()?;
        if available.is_empty() {
            return Ok(skipped);
        }
        let end = available
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|at| at + 1);
        let step = end.unwrap_or(available.len());
        input.consume(step);
        skipped += u64_from(step);
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

/// A pipe that is read on a separate thread. After a stop, it reports its end as soon as no data is
/// queued, possibly within a line. So callers check the stop before they use a line.
#[derive(Debug)]
pub(crate) struct PipeReader {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    /// Number of bytes of the piece that were consumed.
    consumed: usize,
    stop: StopFlag,
}

impl PipeReader {
    pub(crate) fn stdin(stop: &StopFlag) -> io::Result<Self> {
        Self::start(stop, || Ok(io::stdin()))
    }

    fn start<R, F>(stop: &StopFlag, open: F) -> io::Result<Self>
    where
        R: Read,
        F: FnOnce() -> io::Result<R> + Send + 'static,
    {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        // Never joined: it may block in a read forever, and ends with the process.
        std::thread::Builder::new()
            .name("vbstore-input".to_owned())
            .spawn(move || match open() {
                Ok(input) => pump(input, &sender),
                // If the receiver is gone, the error is not needed either.
                Err(error) => drop(sender.send(Err(error))),
            })?;
        Ok(Self {
            pieces,
            piece: Vec::new(),
            consumed: 0,
            stop: stop.clone(),
        })
    }
}

/// Forwards data as it arrives, until the end, an error, or until the receiver is gone.
fn pump(mut input: impl Read, sender: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let sent = match input.read(&mut piece) {
            Ok(0) => return,
            Ok(read) => {
                piece.truncate(read);
                sender.send(Ok(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                drop(sender.send(Err(error)));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

impl BufRead for PipeReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.consumed >= self.piece.len() {
            match self.pieces.recv_timeout(POLL) {
                Ok(piece) => {
                    self.piece = piece?;
                    self.consumed = 0;
                }
                Err(RecvTimeoutError::Timeout) if !self.stop.is_asked() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(self.piece.get(self.consumed..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.consumed += amount;
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_beyond_the_limit_is_cut_and_passed_over() {
        let mut input = vec![b'x'; LINE_MAX + 10];
        input.extend(b"\nshort\nlast");
        let mut input = &input[..];
        let mut line = Vec::new();

        let read = read_line(&mut input, &mut line).unwrap();
        assert_eq!((read, line.len()), (u64_from(LINE_MAX) + 11, LINE_MAX + 1));
        for expected in [&b"short\n"[..], b"last", b""] {
            line.clear();
            let read = read_line(&mut input, &mut line).unwrap();
            assert_eq!((read, &line[..]), (u64_from(expected.len()), expected));
        }
    }

    #[test]
    fn a_pipe_hands_on_what_comes_and_ends_when_it_is_asked_to_stop() {
        let (reader, mut writer) = io::pipe().unwrap();
        let stop = StopFlag::by_hand();
        let mut input = PipeReader::start(&stop, move || Ok(reader)).unwrap();
        let mut line = Vec::new();
        io::Write::write_all(&mut writer, b"one\ntw").unwrap();
        read_line(&mut input, &mut line).unwrap();
        assert_eq!(line, b"one\n");

        // The writer is still open: without the stop this would block forever.
        stop.ask();
        line.clear();
        read_line(&mut input, &mut line).unwrap();
        assert_eq!(line, b"tw");
        assert!(stop.is_asked());
        drop(writer);
    }
}
