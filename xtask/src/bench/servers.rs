//! Servers as child processes: the product, the small server, and the peer; and clients for them.
//!
//! A server keeps to its CPUs with all its threads; a client to others. Sockets lie in a directory
//! of the server's own, which goes with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use system_tests::cache::Cache;
use system_tests::{Node, Qemu};
use tempfile::TempDir;

use crate::client::Outcome;
use crate::iscsi_servers::Portal;
use crate::program::Program;
use crate::serve::{CoreCount, Front, Kind, QueueCount, socket_of};
use crate::{Result, callgrind, cpu, iscsi_client, serve, serve_iscsi};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long a client may need for one `go`, beyond what it was asked to measure.
pub const RUN_LIMIT: Duration = Duration::from_secs(300);

/// Rare enough to add less than one in a hundred instructions.
const CALLGRIND_TICK_MS: u64 = 10;

/// The only slot of each client.
const SLOT: u32 = 2;
/// How the product calls the threads of its cores.
const PRODUCT_CORE: &str = "viaduct-core";

/// What a server serves, and where it may run.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    pub front: Front,
    pub store: Kind,
    /// Bytes of a device that is not a file.
    pub size: u64,
    pub devices: usize,
    pub queues: u16,
    pub cpus: Vec<usize>,
    /// Microseconds of looking before sleeping.
    pub spin: Option<u64>,
}

/// What stands between us and the server, and counts.
#[derive(Clone, Debug)]
pub enum Watcher {
    Nobody,
    Callgrind,
    /// Writes its summary to this file.
    Strace(PathBuf),
}

impl Watcher {
    fn command(&self, program: &Command) -> Command {
        let mut command = match self {
            Self::Nobody => return copy(program),
            Self::Callgrind => callgrind::command(),
            Self::Strace(path) => {
                let mut command = Command::new("strace");
                command.args(["-f", "-c", "-S", "name", "-U", "name,calls", "-o"]).arg(path);
                command
            }
        };
        command.arg(program.get_program()).args(program.get_args());
        environment(program, &mut command);
        command
    }
}

fn copy(program: &Command) -> Command {
    let mut command = Command::new(program.get_program());
    command.args(program.get_args());
    environment(program, &mut command);
    command
}

fn environment(from: &Command, to: &mut Command) {
    to.envs(from.get_envs().filter_map(|(name, value)| Some((name, value?))));
}

fn own(verb: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(verb);
    Ok(command)
}

/// The small server.
pub struct Small {
    program: Program,
    dir: TempDir,
    devices: usize,
    front: Front,
    size: u64,
}

impl Small {
    pub fn start(spec: &ServerSpec, watcher: &Watcher) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let store = match &spec.store {
            Kind::Null => "null".to_owned(),
            Kind::Memory => "memory".to_owned(),
            Kind::File(path) => format!("file:{}", path.display()),
            Kind::Pool(path) => format!("pool:{}", path.display()),
        };
        let cores: Vec<String> = spec.cpus.iter().map(usize::to_string).collect();
        let mut command = own("serve")?;
        let front = match spec.front {
            Front::VhostBlk => "vhost-blk",
            Front::Iscsi => "iscsi",
        };
        command.args(["--front", front]);
        command.args(["--store", &store, "--size", &spec.size.to_string()]);
        command.args(["--devices", &spec.devices.to_string()]);
        command.args(["--queues", &spec.queues.to_string(), "--cores", &cores.join(",")]);
        command.arg("--socket").arg(dir.path().join("disk"));
        if let Some(spin) = spec.spin {
            command.args(["--spin", &spin.to_string()]);
        }
        if let Watcher::Callgrind = watcher {
            command.args(["--tick-ms", &CALLGRIND_TICK_MS.to_string()]);
        }
        let command = watcher.command(&command);
        let mut program = cpu::with(&spec.cpus, || Program::start(command))?;
        program.expect("ready", START_LIMIT)?;
        Ok(Self { program, dir, devices: spec.devices, front: spec.front, size: spec.size })
    }

    /// A client that has connected.
    pub fn connect(&mut self, load: &LoadSpec) -> Result<Client> {
        match self.front {
            Front::VhostBlk => Client::connect(&self.sockets(), load),
            Front::Iscsi => Client::log_in(&self.portal()?, load),
        }
    }

    pub fn portal(&mut self) -> Result<Portal> {
        let address: String = self.program.ask("portal", ANSWER_LIMIT)?;
        let target = serve_iscsi::TARGET.to_owned();
        let (address, pid) = (address.parse()?, self.program.pid());
        Ok(Portal { address, target, lun: 0, size: self.size, pid })
    }

    pub fn sockets(&self) -> Vec<PathBuf> {
        let base = self.dir.path().join("disk");
        (0..self.devices).map(|device| socket_of(&base, device)).collect()
    }

    pub fn cores(&mut self) -> Result<Vec<CoreCount>> {
        self.program.ask("cores", ANSWER_LIMIT)
    }

    pub fn queues(&mut self) -> Result<Vec<QueueCount>> {
        self.program.ask("queues", ANSWER_LIMIT)
    }

    /// Ends it; what it, or who watched it, wrote to its error output.
    pub fn finish(self) -> Result<String> {
        self.program.finish(STOP_LIMIT)
    }
}

/// The product, as its user starts it: for each device an LU, a client and a mapping.
pub struct Product {
    node: Node,
    devices: usize,
    _dir: TempDir,
}

impl Product {
    pub fn start(spec: &ServerSpec) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let cores: Vec<String> = spec.cpus.iter().map(usize::to_string).collect();
        let builder = Node::on(&dir.path().join("data")).arguments(&["--cores", &cores.join(",")]);
        let builder = match spec.spin {
            Some(spin) => builder.arguments(&["--poll-us", &spin.to_string()]),
            None => builder,
        };
        let node = cpu::with(&spec.cpus, || Ok(builder.start()?))?;
        let (size, slot) = (spec.size.to_string(), SLOT.to_string());
        for device in 0..spec.devices {
            let (lu, client) = (lu_name(device), client_name(device));
            match &spec.store {
                Kind::Null => {
                    node.cli(&["lu", "create", &lu, "--size", &size, "--backing", "null"])?
                }
                Kind::Memory => {
                    node.cli(&["lu", "create", &lu, "--size", &size, "--backing", "memory"])?
                }
                Kind::File(path) => {
                    let path = path.to_str().ok_or("a path that is not text")?;
                    node.cli(&["lu", "adopt", path, "--name", &lu])?
                }
                Kind::Pool(_) => return Err("pools are measured without the whole product".into()),
            };
            node.cli(&["client", "create", &client])?;
            let via = ["--via", "vhost-user-blk", "--slot", &slot];
            node.cli(&[&["map", &lu, "--to", &client], &via[..]].concat())?;
        }
        Ok(Self { node, devices: spec.devices, _dir: dir })
    }
}

fn lu_name(device: usize) -> String {
    format!("disk{device}")
}

fn client_name(device: usize) -> String {
    format!("bench{device}")
}

/// Which server of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Ours {
    /// The release binary, as its user runs it
    Product,
    /// Executor, front and store without a node
    Small,
}

/// One server of ours.
pub enum Server {
    Product(Product),
    Small(Small),
}

impl Server {
    pub fn start(which: Ours, spec: &ServerSpec) -> Result<Self> {
        Ok(match which {
            Ours::Product => Self::Product(Product::start(spec)?),
            Ours::Small => Self::Small(Small::start(spec, &Watcher::Nobody)?),
        })
    }

    pub fn pid(&self) -> Result<u32> {
        match self {
            Self::Product(product) => Ok(product.node.pid()?),
            Self::Small(small) => Ok(small.program.pid()),
        }
    }

    pub fn sockets(&self) -> Vec<PathBuf> {
        match self {
            Self::Product(product) => {
                let socket = |device| product.node.socket(&client_name(device), SLOT);
                (0..product.devices).map(socket).collect()
            }
            Self::Small(small) => small.sockets(),
        }
    }

    /// Whether a thread of this name serves clients.
    pub fn is_core(&self, thread: &str) -> bool {
        match self {
            Self::Product(_) => thread.starts_with(PRODUCT_CORE),
            Self::Small(_) => thread.starts_with(serve::CORE_NAME),
        }
    }
}

/// The peer: qemu-storage-daemon, one export in an I/O thread.
pub struct StorageDaemon {
    child: Child,
    dir: TempDir,
}

/// What the peer's I/O thread does when it has nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Looks on for a while, as QEMU's I/O threads do by themselves.
    Poll,
    /// Sleeps at once: the form in which the prototype was compared.
    Sleep,
}

impl StorageDaemon {
    pub fn start(spec: &ServerSpec, idle: Idle, watcher: &Watcher) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ready = dir.path().join("pid");
        let size = spec.size;
        // Its memory is no memory: reads fill the buffer with zeroes, writes are forgotten.
        let node = match &spec.store {
            Kind::Null => format!("driver=null-co,node-name=disk,size={size},read-zeroes=off"),
            Kind::Memory => format!("driver=null-co,node-name=disk,size={size},read-zeroes=on"),
            // It has no thin LUs of its own kind that go on after a crash: the file itself.
            Kind::File(path) | Kind::Pool(path) => format!(
                "driver=file,node-name=disk,filename={},locking=off,aio=io_uring,cache.direct=on",
                path.display()
            ),
        };
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={},iothread=io,\
             addr.type=unix,addr.path={}",
            spec.queues,
            dir.path().join("disk").display()
        );
        let mut command = Qemu::V10.tool(&Cache::open()?, "qemu-storage-daemon")?;
        let thread = match idle {
            Idle::Poll => "iothread,id=io",
            Idle::Sleep => "iothread,id=io,poll-max-ns=0",
        };
        command.args(["--object", thread, "--blockdev", &node, "--export", &export]);
        command.arg("--pidfile").arg(&ready);
        let mut command = watcher.command(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let started = cpu::with(&spec.cpus, || Ok(command.spawn()?));
        let child = started.map_err(|error| format!("qemu-storage-daemon: {error}"))?;
        let mut daemon = Self { child, dir };
        daemon.wait_listening(&ready)?;
        Ok(daemon)
    }

    /// Its process id as it says itself: a watcher may stand before it.
    pub fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.dir.path().join("pid"))?;
        Ok(text.trim().parse()?)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Ends it as its user would, so that a watcher tells what it saw.
    pub fn finish(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()?)?).ok_or("no pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("qemu-storage-daemon does not end".into());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    fn wait_listening(&mut self, ready: &Path) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !ready.exists() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("qemu-storage-daemon ended: {status}").into());
            }
            if Instant::now() > deadline {
                return Err("qemu-storage-daemon does not listen".into());
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A load on a server.
#[derive(Clone, Debug, Default)]
pub struct LoadSpec {
    pub write: bool,
    pub sequential: bool,
    pub block: usize,
    pub depth: usize,
    pub queues: u16,
    pub lockstep: bool,
    /// By each queue; a time if there is none.
    pub requests: Option<u64>,
    pub seconds: f64,
    pub warmup: f64,
    pub fill: bool,
    pub cpus: Vec<usize>,
    pub server: Option<u32>,
}

/// A client that is connected and waits for `go`.
pub struct Client(Program);

impl Client {
    pub fn connect(sockets: &[PathBuf], load: &LoadSpec) -> Result<Self> {
        let mut command = own("client")?;
        for socket in sockets {
            command.arg("--socket").arg(socket);
        }
        let cpus: Vec<String> = load.cpus.iter().map(usize::to_string).collect();
        command.args(["--direction", if load.write { "write" } else { "read" }]);
        command.args(["--block", &load.block.to_string(), "--depth", &load.depth.to_string()]);
        command.args(["--queues", &load.queues.to_string(), "--cpus", &cpus.join(",")]);
        command.args(["--seconds", &load.seconds.to_string()]);
        command.args(["--warmup", &load.warmup.to_string()]);
        for (flag, given) in [
            ("--sequential", load.sequential),
            ("--lockstep", load.lockstep),
            ("--fill", load.fill),
        ] {
            if given {
                command.arg(flag);
            }
        }
        if let Some(requests) = load.requests {
            command.args(["--requests", &requests.to_string()]);
        }
        if let Some(pid) = load.server {
            command.args(["--server", &pid.to_string()]);
        }
        let mut program = cpu::with(&load.cpus, || Program::start(command))?;
        program.expect("ready", RUN_LIMIT)?;
        Ok(Self(program))
    }

    /// Sessions of our own initiator, one for each queue.
    pub fn log_in(portal: &Portal, load: &LoadSpec) -> Result<Self> {
        let mut program = Program::start(iscsi_client::command(portal, load)?)?;
        program.expect("ready", RUN_LIMIT)?;
        Ok(Self(program))
    }

    pub fn go(&mut self) -> Result<Outcome> {
        self.start()?;
        self.outcome()
    }

    pub fn start(&mut self) -> Result<()> {
        self.0.tell("go")
    }

    pub fn outcome(&mut self) -> Result<Outcome> {
        self.0.answer(RUN_LIMIT)
    }

    pub fn finish(self) -> Result<()> {
        self.0.finish(STOP_LIMIT).map(drop)
    }
}
