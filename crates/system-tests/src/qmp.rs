//! QEMU's control socket (QMP): one command at a time, events kept until asked for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Context, Error, Result};

/// QEMU answers commands at once; longer means that its main loop hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode.
    pub fn new(stream: UnixStream) -> Result<Self> {
        let reader = BufReader::new(stream.try_clone()?);
        let mut qmp = Self { stream, reader, events: VecDeque::new() };
        let greeting = qmp.read(Instant::now() + ANSWER_TIMEOUT)?;
        if greeting.get("QMP").is_none() {
            return Err(Error::new(format!("not a QMP greeting: {greeting}")));
        }
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes a command and returns what it returned.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).context(|| format!("QMP {command}"))?;
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let mut message = self.read(deadline).context(|| format!("QMP {command}"))?;
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = message.get("error") {
                return Err(Error::new(format!("QMP {command}: {error}")));
            }
            self.events.push_back(message);
        }
    }

    /// Waits for the next event of this name; events before it of other names stay.
    pub fn wait_event(&mut self, name: &str, timeout: Duration) -> Result<Value> {
        let is_it = |event: &Value| event.get("event").is_some_and(|event| event == name);
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(at) = self.events.iter().position(is_it) {
                return self.events.remove(at).context(|| "an event just seen".into());
            }
            let event = self.read(deadline).context(|| format!("wait for the event {name}"))?;
            self.events.push_back(event);
        }
    }

    fn read(&mut self, deadline: Instant) -> Result<Value> {
        let left = deadline.saturating_duration_since(Instant::now());
        // A time-out of zero would mean none.
        self.reader.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut line = String::new();
        let len = self.reader.read_line(&mut line).context(|| "read".into())?;
        if len == 0 {
            return Err(Error::new("QEMU is gone"));
        }
        Ok(serde_json::from_str(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_between_command_and_answer_are_kept() {
        let (ours, qemu) = UnixStream::pair().unwrap();
        let peer = std::thread::spawn(move || {
            let mut lines = BufReader::new(qemu.try_clone().unwrap()).lines();
            let say = |text: &str| writeln!(&qemu, "{text}").unwrap();
            say(r#"{"QMP": {}}"#);
            lines.next();
            say(r#"{"return": {}}"#);
            lines.next();
            say(r#"{"event": "STOP"}"#);
            say(r#"{"return": {"status": "paused"}}"#);
            lines.next();
            say(r#"{"error": {"desc": "no"}}"#);
        });
        let mut qmp = Qmp::new(ours).unwrap();
        let status = qmp.execute("query-status", json!({})).unwrap();
        assert_eq!(status["status"], "paused");
        qmp.wait_event("STOP", Duration::from_secs(5)).unwrap();
        assert!(qmp.execute("nonsense", json!({})).is_err());
        peer.join().unwrap();
        assert!(qmp.wait_event("RESUME", Duration::from_secs(5)).is_err());
    }
}
