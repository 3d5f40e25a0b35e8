//! A node of the product as its user runs it: the release binary, its data directory, its command
//! line.
//!
//! The node tells that it is ready over systemd's notification socket, so no test guesses. It can
//! be killed and started again on the same data, which is what many tests are about.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Context, Error, Result};

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const NOTIFICATION_BYTES_MAX: usize = 4096;
const LOG_TAIL_LINES: usize = 40;

/// Doors that a node opens on fixed ports, and the pool that it makes by itself; tests have only
/// those that they need.
const OFF: [&str; 3] = ["--http", "--iscsi", "--default-pool"];

/// The binary under test: `$VIADUCT_BIN`, or the release build of this workspace.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIADUCT_BIN") {
        return Ok(PathBuf::from(path));
    }
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().skip(1).take(4);
    let places = target.map(|dir| dir.join("release/viaduct"));
    places.into_iter().find(|path| path.is_file()).context(|| {
        "no release build of viaduct: run `cargo build --release`, or set VIADUCT_BIN".into()
    })
}

/// How to run a node.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    data: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl NodeBuilder {
    /// More arguments of `up`; what is named here (`--http ADDRESS`) is not switched off.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the node and waits until it is ready.
    pub fn start(self) -> Result<Node> {
        let mut node = Node { builder: self, child: None };
        node.start()?;
        Ok(node)
    }
}

/// A node, running or between two runs; killed when dropped.
#[derive(Debug)]
pub struct Node {
    builder: NodeBuilder,
    child: Option<Child>,
}

impl Node {
    /// A node on a data directory.
    pub fn on(data: &Path) -> NodeBuilder {
        NodeBuilder { data: data.to_path_buf(), arguments: Vec::new(), environment: Vec::new() }
    }

    pub fn data(&self) -> &Path {
        &self.builder.data
    }

    /// Where the node's log goes.
    pub fn log(&self) -> PathBuf {
        self.builder.data.with_extension("log")
    }

    /// The vhost-user socket of a client's slot.
    pub fn socket(&self, client: &str, slot: u32) -> PathBuf {
        self.builder.data.join(format!("run/{client}-{slot}.sock"))
    }

    /// Starts the node, again or for the first time, and waits until it is ready.
    pub fn start(&mut self) -> Result<()> {
        let notifications = self.builder.data.with_extension("notify");
        drop(std::fs::remove_file(&notifications));
        let socket = UnixDatagram::bind(&notifications)
            .context(|| format!("listen on {}", notifications.display()))?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(binary()?);
        command.arg("up").arg("--data").arg(&self.builder.data);
        for option in OFF {
            if !self.builder.arguments.iter().any(|argument| argument == option) {
                command.args([option, "off"]);
            }
        }
        command.args(&self.builder.arguments);
        command.envs(self.builder.environment.iter().map(|(name, value)| (name, value)));
        command.env("NOTIFY_SOCKET", &notifications);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context(|| "start viaduct".into())?);
        self.wait_ready(&socket)
    }

    fn wait_ready(&mut self, socket: &UnixDatagram) -> Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut message = [0; NOTIFICATION_BYTES_MAX];
        socket.set_read_timeout(Some(LOOK_AGAIN))?;
        while Instant::now() < deadline {
            if let Ok(len) = socket.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..len]).into_owned();
                if text.lines().any(|line| line == "READY=1") {
                    return Ok(());
                }
            }
            if let Some(status) = self.try_wait()? {
                return Err(self.with_log(&format!("viaduct ended: {status}")));
            }
        }
        Err(self.with_log("viaduct does not become ready"))
    }

    /// Runs the command line against this node.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.env("VIADUCT_DATA", &self.builder.data).args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs a command that must succeed; what it prints, as JSON (null if it prints nothing).
    pub fn cli(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.command(arguments)?.args(["-o", "json"]).output()?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            let what = format!("viaduct {}: {}", arguments.join(" "), output.status);
            return Err(self.with_log(&format!("{what}\n{stdout}{stderr}")));
        }
        match stdout.trim() {
            "" => Ok(Value::Null),
            text => serde_json::from_str(text).context(|| format!("viaduct {arguments:?}")),
        }
    }

    /// Runs a command that must fail; its exit code and what it says.
    pub fn cli_fails(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let output = self.command(arguments)?.output()?;
        if output.status.success() {
            return Err(Error::new(format!("viaduct {arguments:?} succeeded")));
        }
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().unwrap_or(-1), stderr))
    }

    /// What the node tells Prometheus.
    pub fn metrics(&self) -> Result<String> {
        let mut api = UnixStream::connect(self.builder.data.join("run/api.sock"))?;
        api.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        api.read_to_string(&mut answer)?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(answer),
            false => Err(self.with_log(&format!("no metrics: {answer}"))),
        }
    }

    /// The process id of the running node.
    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).context(|| "the node does not run".into())
    }

    /// SIGKILL: the process is gone, its requests in the kernel may not be.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM: the node drains and ends by itself.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            thread::sleep(LOOK_AGAIN);
        }
        Err(self.with_log("viaduct does not stop"))
    }

    /// Sends any signal by its name: `STOP` makes a hung node, `CONT` heals it.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid()?.to_string();
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status()?;
        match status.success() {
            true => Ok(()),
            false => Err(Error::new(format!("kill -{name} {pid}: {status}"))),
        }
    }

    fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// What went wrong, and what the node said last.
    pub fn with_log(&self, what: &str) -> Error {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n");
        Error::new(format!("{what}\n--- {} ---\n{tail}", self.log().display()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A test that panics must not leave a node behind; there is nobody to tell of a failure.
        drop(self.kill());
    }
}
