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
//! | `queues` | JSON, [`QueueCount`] by queue of every device; over iSCSI by core |
//! | `portal` | JSON, the address of its iSCSI portal |

use std::io::BufRead;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use clap::{Args, ValueEnum};
use front::vhost_user::{Adapter, Blk, Notice, Observer, Spec};
use rt::os::config::Spin;
use rt::sync::Answer;
use rt::{Config, Core, Remote};
use serde::{Deserialize, Serialize};
use store::file::Options;
use store::{FileStore, MemoryStore, NullStore, Store};
use target::virtio_blk::Id;

use crate::serve_iscsi::Portal;
use crate::{Result, allocator, cpu, limits, serve_pool};

const BLOCK_SIZE: u32 = 512;

#[derive(Args)]
pub struct Arguments {
    #[arg(long, value_enum, default_value_t = Front::VhostBlk)]
    front: Front,
    /// null, memory, file:PATH, or pool:PATH for an LU of a pool that is made of a file
    #[arg(long)]
    store: Kind,
    /// Bytes of each device that is not a file
    #[arg(long, default_value_t = 1 << 30)]
    size: u64,
    /// Sockets are PATH.0, PATH.1 and so on
    #[arg(long, default_value = "disk")]
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
    /// Milliseconds that a core sleeps at most: under valgrind only one thread runs at a time, and
    /// one that sleeps in io_uring_enter does not let the others go on
    #[arg(long)]
    tick_ms: Option<u64>,
}

/// What clients come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Front {
    VhostBlk,
    /// One device; a queue is a session
    Iscsi,
}

/// What keeps the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Memory,
    File(PathBuf),
    /// An LU of a pool on this file, all of it written and sealed.
    Pool(PathBuf),
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        match (name, name.split_once(':')) {
            ("null", _) => Ok(Self::Null),
            ("memory", _) => Ok(Self::Memory),
            (_, Some(("file", path))) => Ok(Self::File(path.into())),
            (_, Some(("pool", path))) => Ok(Self::Pool(path.into())),
            _ => Err(format!("no store {name}: there are null, memory, file:PATH and pool:PATH")),
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
            "portal" => println!("{}", serde_json::to_string(&server.portal()?)?),
            other => return Err(format!("no command {other:?}").into()),
        }
    }
    server.stop()
}

struct Server {
    running: Vec<Running>,
    cores: Vec<Remote>,
    adapters: Vec<Adapter<Blk>>,
    portal: Option<Portal>,
}

/// The thread of a core. The core runs until it is told that all is over.
struct Running {
    over: Answer<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(arguments: &Arguments) -> Result<Self> {
        let (mut running, mut cores) = (Vec::new(), Vec::new());
        for (index, &cpu) in arguments.cores.iter().enumerate() {
            let (thread, remote) = start_core(index, cpu, arguments)?;
            running.push(thread);
            cores.push(remote);
        }
        let mut adapters = Vec::new();
        if arguments.front == Front::Iscsi {
            let portal = Some(Portal::open(&cores, &open(arguments, &cores[0])?)?);
            return Ok(Self { running, cores, adapters, portal });
        }
        for device in 0..arguments.devices {
            // Each device begins on the next core, so that one queue of each spreads as well.
            let mut turned = cores.clone();
            turned.rotate_left(device % cores.len());
            let store = open(arguments, &cores[0])?;
            let spec = Spec {
                name: format!("device {device}"),
                cores: turned.clone(),
                observer: Arc::new(Complain),
                device: Blk {
                    queues: arguments.queues,
                    read_only: false,
                    writeback: Arc::new(AtomicBool::new(true)),
                    id: Id::new(&format!("bench-{device}")),
                    open: Box::new(move |core| store.clone().device(core)),
                },
            };
            let path = socket_of(&arguments.socket, device);
            let socket = UnixListener::bind(&path)
                .map_err(|error| format!("listen on {}: {error}", path.display()))?;
            let started = Adapter::start(&turned[0], socket, spec).wait();
            adapters.push(started.ok_or("the core has ended")??);
        }
        Ok(Self { running, cores, adapters, portal: None })
    }

    fn portal(&self) -> Result<String> {
        Ok(self.portal.as_ref().ok_or("no portal without --front iscsi")?.address())
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
                    allocations: allocator::of_this_thread(),
                }
            });
            counted.wait().ok_or_else(|| "the core has ended".into())
        };
        self.cores.iter().map(count).collect()
    }

    fn queues(&self) -> Result<Vec<QueueCount>> {
        let mut counts = Vec::new();
        let by_core = self.portal.as_ref().map(Portal::requests).transpose()?;
        for (core, requests) in by_core.into_iter().flatten().enumerate() {
            counts.push(QueueCount { device: 0, queue: 0, core, requests });
        }
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

    fn stop(self) -> Result<()> {
        for adapter in &self.adapters {
            adapter.close().wait();
        }
        drop((self.adapters, self.portal));
        for Running { over, thread } in self.running {
            over.give(());
            thread.join().map_err(|_| "a core panicked")??;
        }
        Ok(())
    }
}

fn start_core(index: usize, cpu: usize, arguments: &Arguments) -> Result<(Running, Remote)> {
    let name = format!("{CORE_NAME}{index}");
    let mut config = Config::new(&name);
    if let Some(spin) = arguments.spin {
        config.spin = Spin { bound: Duration::from_micros(spin) };
    }
    let tick = arguments.tick_ms.map(Duration::from_millis);
    let (over, told) = rt::sync::reply();
    let (tell, started) = std::sync::mpsc::channel();
    let thread = thread::Builder::new().name(name).spawn(move || {
        cpu::pin(&[cpu]).map_err(|error| std::io::Error::other(error.to_string()))?;
        Core::block_on(&config, |core| async move {
            // Whoever waits for it is gone only when the server has failed to start.
            let _ = tell.send(core.remote());
            if let Some(tick) = tick {
                core.spawn(tick_for_ever(core.clone(), tick));
            }
            told.await;
        })
    })?;
    let remote = started.recv().map_err(|_| "the core cannot be started");
    match remote {
        Ok(remote) => Ok((Running { over, thread }, remote)),
        Err(error) => {
            thread.join().map_err(|_| "a core panicked")??;
            Err(error.into())
        }
    }
}

/// Lets the other threads of a valgrind run go on, now and then.
async fn tick_for_ever(core: Core, tick: Duration) {
    loop {
        core.sleep(tick).await;
        thread::yield_now();
    }
}

fn open(arguments: &Arguments, core: &Remote) -> Result<Arc<dyn Store>> {
    Ok(match &arguments.store {
        Kind::Null => NullStore::new(arguments.size, BLOCK_SIZE)?,
        Kind::Memory => MemoryStore::new(arguments.size, BLOCK_SIZE)?,
        Kind::File(path) => {
            let path = path.clone();
            let opened = core.call(move |core| async move {
                FileStore::open(&core, &path, Options::default(), || ()).await
            });
            let store = opened.wait().ok_or("the core has ended")??;
            if !store.is_direct() {
                return Err("the file cannot be opened with O_DIRECT: choose another --dir".into());
            }
            store
        }
        Kind::Pool(path) => serve_pool::open(core, path, arguments.size)?,
    })
}

/// How the threads of cores begin their names.
pub const CORE_NAME: &str = "core-";

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
