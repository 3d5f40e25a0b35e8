//! The small server: executor, front and store without the node around them.
//!
//! Figures that are counted (instructions, system calls, allocations, messages) are taken here, so
//! that nothing but the data path is in them. It is driven over its standard input, one command a
//! line, and answers with one line each; at the end of its input it closes everything and ends.
//!
//! | command | answer |
//! |---|---|
//! | (start) | `ready` |
//! | `cores` | JSON, [`CoreCount`] by core; costs every core one message |
//! | `queues` | JSON, [`QueueCount`] by queue of every device |

use std::io::BufRead;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use front::vhost_user::{Adapter, Notice, Observer, Spec};
use rt::os::config::Spin;
use rt::{Config, Core, Remote};
use serde::{Deserialize, Serialize};
use store::{MemoryStore, NullStore, Store};
use target::virtio_blk::Id;

use crate::{Result, allocations, limits};

const BLOCK_SIZE: u32 = 512;

#[derive(Args)]
pub struct Arguments {
    /// null, memory or file:PATH
    #[arg(long)]
    store: Kind,
    /// Bytes of each device that is not a file
    #[arg(long, default_value_t = 1 << 30)]
    size: u64,
    /// Sockets are PATH.0, PATH.1 and so on
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, default_value_t = 1)]
    devices: usize,
    #[arg(long, default_value_t = 1)]
    queues: u16,
    /// CPUs, one core on each
    #[arg(long, value_delimiter = ',', default_value = "0")]
    cores: Vec<usize>,
    /// Microseconds of looking before sleeping
    #[arg(long)]
    spin: Option<u64>,
}

/// What keeps the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Memory,
    File(PathBuf),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match (name, name.split_once(':')) {
            ("null", _) => Ok(Self::Null),
            ("memory", _) => Ok(Self::Memory),
            (_, Some(("file", path))) => Ok(Self::File(path.into())),
            _ => Err(format!("no store {name}: there are null, memory and file:PATH")),
        }
    }
}

/// What a core has counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreCount {
    pub messages: u64,
    pub system_calls: u64,
    pub sleeps: u64,
    pub operations: u64,
    pub allocations: u64,
}

/// What a queue has done so far, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCount {
    pub device: usize,
    pub queue: u16,
    pub core: usize,
    pub requests: u64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    limits::raise_open_files()?;
    let server = Server::start(arguments)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        match line?.trim() {
            "cores" => println!("{}", serde_json::to_string(&server.cores()?)?),
            "queues" => println!("{}", serde_json::to_string(&server.queues()?)?),
            other => return Err(format!("no command {other:?}").into()),
        }
    }
    server.stop();
    Ok(())
}

struct Server {
    cores: Vec<Remote>,
    adapters: Vec<Adapter>,
}

impl Server {
    fn start(arguments: &Arguments) -> Result<Self> {
        let mut cores = Vec::new();
        for (index, &cpu) in arguments.cores.iter().enumerate() {
            let mut config = Config::new(core_name(index));
            config.cpu = Some(cpu);
            if let Some(spin) = arguments.spin {
                config.spin = Spin { bound: Duration::from_micros(spin) };
            }
            cores.push(rt::os::start(config)?);
        }
        let mut adapters = Vec::new();
        for device in 0..arguments.devices {
            // Each device begins on the next core, so that one queue of each spreads as well.
            let mut turned = cores.clone();
            turned.rotate_left(device % cores.len());
            let store = open(arguments)?;
            let spec = Spec {
                name: format!("device {device}"),
                queues: arguments.queues,
                read_only: false,
                writeback: Arc::new(AtomicBool::new(true)),
                id: Id::new(&format!("bench-{device}")),
                cores: turned.clone(),
                open: Box::new(move |core| store.clone().device(core)),
                observer: Arc::new(Complain),
            };
            let path = socket_of(&arguments.socket, device);
            let socket = UnixListener::bind(&path)
                .map_err(|error| format!("listen on {}: {error}", path.display()))?;
            let started = Adapter::start(&turned[0], socket, spec).wait();
            adapters.push(started.ok_or("the core has ended")??);
        }
        Ok(Self { cores, adapters })
    }

    fn cores(&self) -> Result<Vec<CoreCount>> {
        let count = |core: &Remote| {
            let counted = core.call(|core| async move {
                let stats = core.stats();
                CoreCount {
                    messages: stats.messages,
                    system_calls: stats.system_calls,
                    sleeps: stats.sleeps,
                    operations: stats.operations,
                    allocations: allocations::of_this_thread(),
                }
            });
            counted.wait().ok_or_else(|| "the core has ended".into())
        };
        self.cores.iter().map(count).collect()
    }

    fn queues(&self) -> Result<Vec<QueueCount>> {
        let mut counts = Vec::new();
        for (device, adapter) in self.adapters.iter().enumerate() {
            let info = adapter.info().wait().ok_or("the core has ended")?;
            for queue in info.session.iter().flat_map(|session| &session.queues) {
                let core = self.cores.iter().position(|core| core.id() == queue.core);
                counts.push(QueueCount {
                    device,
                    queue: queue.index,
                    core: core.ok_or("a queue on no core of ours")?,
                    requests: queue.stats.iter().map(|stats| stats.requests).sum(),
                });
            }
        }
        Ok(counts)
    }

    fn stop(self) {
        for adapter in &self.adapters {
            adapter.close().wait();
        }
        drop(self.adapters);
        for core in &self.cores {
            core.send(Core::stop);
        }
    }
}

fn open(arguments: &Arguments) -> Result<Arc<dyn Store>> {
    Ok(match &arguments.store {
        Kind::Null => NullStore::new(arguments.size, BLOCK_SIZE)?,
        Kind::Memory => MemoryStore::new(arguments.size, BLOCK_SIZE)?,
        Kind::File(path) => return Err(format!("no file store yet: {}", path.display()).into()),
    })
}

/// The name of a core's thread, by which measurements find it.
pub fn core_name(index: usize) -> String {
    format!("core-{index}")
}

/// The socket of a device.
pub fn socket_of(base: &std::path::Path, device: usize) -> PathBuf {
    let mut path = base.as_os_str().to_owned();
    path.push(format!(".{device}"));
    path.into()
}

/// What goes wrong is told; a benchmark whose requests fail measures nothing.
struct Complain;

impl Observer for Complain {
    fn notice(&self, adapter: &str, notice: Notice) {
        if !matches!(notice, Notice::Connected { .. } | Notice::Disconnected { .. }) {
            eprintln!("{adapter}: {notice:?}");
        }
    }
}
