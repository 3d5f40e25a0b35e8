//! A child process that is spoken to in lines, and killed when nobody wants it any more.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::Result;

const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Option<JoinHandle<String>>,
}

impl Program {
    /// Starts it with its input and outputs connected to us.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let output = child.stdout.take().ok_or("no output of a child")?;
        let error = child.stderr.take().ok_or("no error output of a child")?;
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut text = String::new();
            // What is not text is not shown.
            let _ = BufReader::new(error).read_to_string(&mut text);
            text
        });
        let input = child.stdin.take();
        Ok(Self { name, child, input, lines, errors: Some(errors) })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(line),
            Err(_) => {
                self.kill();
                let errors = self.errors();
                Err(format!("{} ended or did not answer in {limit:?}: {errors}", self.name).into())
            }
        }
    }

    pub fn expect(&mut self, what: &str, limit: Duration) -> Result<()> {
        let line = self.line(limit)?;
        match line == what {
            true => Ok(()),
            false => Err(format!("{} said {line:?} instead of {what:?}", self.name).into()),
        }
    }

    /// Gives it a line and reads its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, line: &str, limit: Duration) -> Result<T> {
        self.tell(line)?;
        self.answer(limit)
    }

    /// Gives it a line.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        Ok(writeln!(input, "{line}")?)
    }

    /// Reads its answer.
    pub fn answer<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        Ok(serde_json::from_str(&self.line(limit)?)?)
    }

    /// Ends its input, waits for its end, and returns what it complained of.
    pub fn finish(mut self, limit: Duration) -> Result<String> {
        self.input.take();
        let status = self.wait(limit)?;
        let errors = self.errors();
        match status.success() {
            true => Ok(errors),
            false => Err(format!("{}: {status}: {errors}", self.name).into()),
        }
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill();
                return Err(format!("{} did not end in {limit:?}", self.name).into());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn kill(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn errors(&mut self) -> String {
        let errors = self.errors.take().map(JoinHandle::join);
        errors.and_then(std::result::Result::ok).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
