//! The harness's end of the serial line into a guest: starts commands, collects what they print.
//!
//! One thread reads the line and hands each frame to its command. In a live migration the line goes
//! on from another QEMU's socket: the reader finishes the old stream first, so no byte is lost or
//! swapped. Commands that run in the guest do not notice.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::frame::{Frame, Kind, PIECE_BYTES_MAX};
use crate::{Context, Error, Result};

/// How a command ended, and what it printed.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    /// What the command printed, without white space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim().to_owned()
    }
}

/// One line; clones are the same line.
#[derive(Clone, Debug)]
pub struct Line {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    writer: Option<UnixStream>,
    /// Where the line goes on when the present stream has ended.
    next: Option<UnixStream>,
    is_ready: bool,
    /// Why the line is dead.
    failure: Option<String>,
    last_id: u32,
    commands: BTreeMap<u32, Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Option<i32>,
    pieces_taken: usize,
    input_closed: bool,
}

impl Line {
    /// A line over a connected stream; its agent may not have started yet.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let state = State { writer: Some(stream.try_clone()?), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let reader = Arc::clone(&shared);
        thread::spawn(move || read_all(&reader, stream));
        Ok(Self { shared })
    }

    /// Waits until the agent has said that it listens.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.wait("the agent", timeout, |state| state.is_ready.then_some(()))
    }

    /// Starts a command; its id is what the other calls take.
    pub fn start(&self, command: &str) -> Result<u32> {
        let mut state = self.shared.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.commands.insert(id, Progress::default());
        state.send(&Frame::new(Kind::Run, id, command))?;
        Ok(id)
    }

    /// Gives input to a command, no faster than it is taken.
    pub fn input(&self, id: u32, bytes: &[u8], timeout: Duration) -> Result<()> {
        for piece in bytes.chunks(PIECE_BYTES_MAX) {
            let before = {
                let mut state = self.shared.lock();
                state.send(&Frame::new(Kind::Input, id, piece))?;
                state.commands.get(&id).map_or(0, |command| command.pieces_taken)
            };
            let closed = self.wait("taking input", timeout, |state| {
                let command = state.commands.get(&id)?;
                let is_over = command.input_closed || command.status.is_some();
                (command.pieces_taken > before || is_over).then_some(is_over)
            })?;
            if closed {
                return Err(Error::new("the command closed its input"));
            }
        }
        Ok(())
    }

    pub fn end_input(&self, id: u32) -> Result<()> {
        self.shared.lock().send(&Frame::new(Kind::InputEnd, id, []))
    }

    pub fn signal(&self, id: u32, name: &str) -> Result<()> {
        self.shared.lock().send(&Frame::new(Kind::Signal, id, name))
    }

    /// Waits until the command has printed something that `test` accepts, or has ended.
    pub fn wait_stdout(
        &self,
        id: u32,
        timeout: Duration,
        test: impl Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let seen = self.wait("the expected output", timeout, |state| {
            let command = state.commands.get(&id)?;
            let is_seen = test(&command.stdout);
            (is_seen || command.status.is_some()).then_some(is_seen)
        })?;
        match seen {
            true => Ok(()),
            false => Err(Error::new(format!("ended early: {:?}", self.wait_exit(id, timeout)?))),
        }
    }

    /// Waits for the end of a command and takes what it printed.
    pub fn wait_exit(&self, id: u32, timeout: Duration) -> Result<Output> {
        self.wait("the command's end", timeout, |state| {
            let status = state.commands.get(&id)?.status?;
            let command = state.commands.remove(&id)?;
            Some(Output { status, stdout: command.stdout, stderr: command.stderr })
        })
    }

    pub fn has_ended(&self, id: u32) -> bool {
        self.shared.lock().commands.get(&id).is_none_or(|command| command.status.is_some())
    }

    /// What a command has printed so far.
    pub fn stdout_so_far(&self, id: u32) -> Vec<u8> {
        self.shared.lock().commands.get(&id).map(|it| it.stdout.clone()).unwrap_or_default()
    }

    /// From now on the guest is reached over `stream`; what it said before is read to its end.
    pub fn continue_on(&self, stream: UnixStream) -> Result<()> {
        let mut state = self.shared.lock();
        state.writer = Some(stream.try_clone()?);
        state.next = Some(stream);
        Ok(())
    }

    fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut test: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(value) = test(&mut state) {
                return Ok(value);
            }
            if let Some(failure) = &state.failure {
                return Err(Error::new(format!("waiting for {what}: {failure}")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(format!("waited {timeout:?} for {what} in vain")));
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, frame: &Frame) -> Result<()> {
        if let Some(failure) = &self.failure {
            return Err(Error::new(failure.clone()));
        }
        let writer = self.writer.as_mut().context(|| "the line is closed".into())?;
        frame.write(writer).context(|| "write to the guest".into())
    }

    fn take(&mut self, frame: Frame) {
        if frame.kind == Kind::Ready {
            self.is_ready = true;
        }
        // Frames of a command that nobody waits for any more are dropped.
        let Some(command) = self.commands.get_mut(&frame.id) else { return };
        match frame.kind {
            Kind::Stdout => command.stdout.extend(frame.payload),
            Kind::Stderr => command.stderr.extend(frame.payload),
            Kind::InputTaken => {
                command.pieces_taken += 1;
                command.input_closed |= !frame.payload.is_empty();
            }
            Kind::Exit => {
                let status = frame.payload.try_into().map_or(-1, i32::from_le_bytes);
                command.status = Some(status);
            }
            _ => {}
        }
    }
}

/// The stream of one QEMU, then of the next.
struct Chain<'a> {
    shared: &'a Shared,
    stream: UnixStream,
}

impl Read for Chain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let ended = match self.stream.read(buffer) {
                Ok(0) => Ok(0),
                // A QEMU that was killed with input unread is as gone as any other.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
                result => return result,
            };
            match self.shared.lock().next.take() {
                Some(next) => self.stream = next,
                None => return ended,
            }
        }
    }
}

fn read_all(shared: &Shared, stream: UnixStream) {
    let mut chain = Chain { shared, stream };
    let failure = loop {
        match Frame::read(&mut chain) {
            Ok(Some(frame)) => shared.lock().take(frame),
            Ok(None) => break "the guest is gone".to_owned(),
            Err(error) => break format!("the guest's line broke: {error}"),
        }
        shared.changed.notify_all();
    };
    shared.lock().failure = Some(failure);
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_command_prints_and_ends() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let line = Line::new(ours).unwrap();
        let id = line.start("echo hi").unwrap();
        let frame = Frame::read(&mut guest).unwrap().unwrap();
        assert_eq!((frame.kind, frame.payload.as_slice()), (Kind::Run, &b"echo hi"[..]));
        Frame::new(Kind::Stdout, id, *b"hi\n").write(&mut guest).unwrap();
        Frame::new(Kind::Exit, id, 3_i32.to_le_bytes()).write(&mut guest).unwrap();
        let output = line.wait_exit(id, SOON).unwrap();
        assert_eq!((output.status, output.text().as_str()), (3, "hi"));
    }

    #[test]
    fn the_line_goes_on_in_the_middle_of_a_frame() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let (next, mut next_guest) = UnixStream::pair().unwrap();
        let line = Line::new(ours).unwrap();
        let id = line.start("true").unwrap();
        let mut bytes = Vec::new();
        Frame::new(Kind::Stdout, id, *b"whole").write(&mut bytes).unwrap();
        Frame::new(Kind::Exit, id, 0_i32.to_le_bytes()).write(&mut bytes).unwrap();
        let (before, after) = bytes.split_at(11);
        io::Write::write_all(&mut next_guest, after).unwrap();
        io::Write::write_all(&mut guest, before).unwrap();
        line.continue_on(next).unwrap();
        drop(guest);
        assert_eq!(line.wait_exit(id, SOON).unwrap().text(), "whole");
    }

    #[test]
    fn a_dead_guest_ends_all_waiting() {
        let (ours, guest) = UnixStream::pair().unwrap();
        let line = Line::new(ours).unwrap();
        let id = line.start("sleep 100").unwrap();
        drop(guest);
        let error = line.wait_exit(id, SOON).unwrap_err().to_string();
        assert!(error.contains("the guest is gone"), "{error}");
    }
}
