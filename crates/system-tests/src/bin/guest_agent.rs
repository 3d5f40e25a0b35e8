//! The agent inside a guest: runs the commands that come over the serial line, any number at once.
//!
//! Started by `/init` with the line as input and output. Output of a command is passed on as it
//! comes. The agent ends when the line does, and the guest with it. It knows nothing of tests.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use system_tests::frame::{Frame, Kind, PIECE_BYTES_MAX};

/// What a shell reports when it cannot run a command.
const STATUS_CANNOT_RUN: i32 = 127;
/// Added to the number of the signal that ended a command, as shells do.
const STATUS_SIGNAL_BASE: i32 = 128;

/// The line back to the harness; whole frames only.
type Line = Arc<Mutex<io::Stdout>>;

fn main() -> io::Result<()> {
    let line: Line = Arc::new(Mutex::new(io::stdout()));
    say(&line, &Frame::new(Kind::Ready, 0, []));
    let mut running: BTreeMap<u32, Running> = BTreeMap::new();
    let mut input = io::stdin().lock();
    while let Some(frame) = Frame::read(&mut input)? {
        match (frame.kind, running.get(&frame.id)) {
            (Kind::Run, None) => match Running::start(&frame, &line) {
                Ok(command) => drop(running.insert(frame.id, command)),
                Err(error) => {
                    say(&line, &Frame::new(Kind::Stderr, frame.id, error.to_string()));
                    say(&line, &exit(frame.id, STATUS_CANNOT_RUN));
                }
            },
            // A send fails when the command has closed its input, which is its right.
            (Kind::Input, Some(command)) => drop(command.input.send(Some(frame.payload))),
            (Kind::InputEnd, Some(command)) => drop(command.input.send(None)),
            (Kind::Signal, Some(command)) => command.signal(&frame.payload)?,
            (kind, _) => return Err(io::Error::other(format!("unexpected {kind:?}"))),
        }
    }
    Ok(())
}

struct Running {
    process_group: u32,
    input: Sender<Option<Vec<u8>>>,
}

impl Running {
    fn start(frame: &Frame, line: &Line) -> io::Result<Self> {
        let id = frame.id;
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(String::from_utf8_lossy(&frame.payload).as_ref())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let process_group = child.id();
        let (input, pieces) = mpsc::channel();
        if let Some(stdin) = child.stdin.take() {
            let line = Arc::clone(line);
            thread::spawn(move || feed(id, stdin, &pieces, &line));
        }
        let line = Arc::clone(line);
        thread::spawn(move || watch(id, child, &line));
        Ok(Self { process_group, input })
    }

    fn signal(&self, name: &[u8]) -> io::Result<()> {
        let name = String::from_utf8_lossy(name);
        let group = format!("-{}", self.process_group);
        Command::new("/bin/kill").arg(format!("-{name}")).arg("--").arg(group).status().map(drop)
    }
}

/// Gives pieces of input to the command until the end of input.
fn feed(id: u32, mut stdin: ChildStdin, pieces: &Receiver<Option<Vec<u8>>>, line: &Line) {
    while let Ok(Some(piece)) = pieces.recv() {
        // A command may close its input early; the harness still needs its answers.
        if stdin.write_all(&piece).and_then(|()| stdin.flush()).is_err() {
            say(line, &Frame::new(Kind::InputTaken, id, *b"closed"));
            continue;
        }
        say(line, &Frame::new(Kind::InputTaken, id, []));
    }
}

/// Passes on what the command prints, and at last how it ended.
fn watch(id: u32, mut child: Child, line: &Line) {
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    thread::scope(|scope| {
        for (stream, kind) in streams.into_iter().zip([Kind::Stdout, Kind::Stderr]) {
            scope.spawn(move || pass_on(id, kind, stream, line));
        }
    });
    let status = child.wait().map_or(STATUS_CANNOT_RUN, status_of);
    say(line, &exit(id, status));
}

fn pass_on(id: u32, kind: Kind, stream: Option<Box<dyn Read + Send>>, line: &Line) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        say(line, &Frame::new(kind, id, &buffer[..len]));
    }
}

fn status_of(status: ExitStatus) -> i32 {
    let signal = status.signal().map(|signal| STATUS_SIGNAL_BASE + signal);
    status.code().or(signal).unwrap_or(STATUS_CANNOT_RUN)
}

fn exit(id: u32, status: i32) -> Frame {
    Frame::new(Kind::Exit, id, status.to_le_bytes())
}

/// A line that is gone ends the agent: there is nobody left to tell.
fn say(line: &Line, frame: &Frame) {
    let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
    if frame.write(&mut *line).is_err() {
        std::process::exit(1);
    }
}
