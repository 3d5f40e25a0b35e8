//! The servers of the iSCSI benchmark: the product and tgt, each with one LU in memory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::Node;
use tempfile::TempDir;

use crate::serve::{Front, Kind};
use crate::servers::{Ours, ServerSpec, Small, Watcher};
use crate::{Result, cpu};

const DEVICE_BYTES: u64 = 256 << 20;
/// The name that `iscsi-perf` is told to use, and that our own initiator uses.
pub const INITIATOR: &str = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-perf";
const TGT_TARGET: &str = "iqn.2026-11.org.viaduct.bench:tgt";
/// tgtd's control port: a test machine may run one of its own.
const TGT_CONTROL: &str = "173";
const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Something that serves one LU.
pub struct Portal {
    pub address: SocketAddr,
    pub target: String,
    pub lun: u16,
    /// Bytes of the LU.
    pub size: u64,
    pub pid: u32,
}

/// A server of ours with an LU in memory.
pub struct Server {
    pub portal: Portal,
    _running: Running,
}

/// What ends with the server.
enum Running {
    Product { _node: Node, _dir: TempDir },
    Small { _server: Small },
}

impl Server {
    pub fn start(which: Ours, cpus: &[usize]) -> Result<Self> {
        match which {
            Ours::Product => Self::product(cpus),
            Ours::Small => Self::small(cpus),
        }
    }

    fn small(cpus: &[usize]) -> Result<Self> {
        let mut server = Small::start(
            &ServerSpec {
                front: Front::Iscsi,
                store: Kind::Memory,
                size: DEVICE_BYTES,
                devices: 1,
                queues: 1,
                cpus: cpus.to_vec(),
                spin: None,
            },
            &Watcher::Nobody,
        )?;
        let portal = server.portal()?;
        Ok(Self { portal, _running: Running::Small { _server: server } })
    }

    /// The product as its user starts it.
    fn product(cpus: &[usize]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let cores = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let builder = Node::on(&dir.path().join("data"));
        let builder = builder.arguments(&["--cores", &cores, "--iscsi", "127.0.0.1:0"]);
        let node = cpu::with(cpus, || Ok(builder.start()?))?;
        let size = DEVICE_BYTES;
        let bytes = size.to_string();
        node.cli(&["lu", "create", "disk", "--size", &bytes, "--backing", "memory"])?;
        node.cli(&["client", "create", "bench", "--iqn", INITIATOR])?;
        node.cli(&["map", "disk", "--to", "bench", "--via", "iscsi"])?;
        let status = node.cli(&["status"])?;
        let portal = status["iscsi"][0].as_str().ok_or("the node shows no portal")?;
        let shown = node.cli(&["client", "show", "bench"])?;
        let target = text_of(&shown, "target").ok_or("the client has no target")?.to_owned();
        let portal = Portal { address: portal.parse()?, target, lun: 0, size, pid: node.pid()? };
        Ok(Self { portal, _running: Running::Product { _node: node, _dir: dir } })
    }
}

/// The first text under this key, however deep.
fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    match value {
        Value::Object(map) => {
            let here = map.get(key).and_then(Value::as_str);
            here.or_else(|| map.values().find_map(|it| text_of(it, key)))
        }
        Value::Array(list) => list.iter().find_map(|it| text_of(it, key)),
        _ => None,
    }
}

/// The peer: tgtd with a file on a tmpfs.
pub struct Tgt {
    pub portal: Portal,
    child: Child,
    image: PathBuf,
}

impl Tgt {
    pub fn start(cpus: &[usize]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let image = PathBuf::from(format!("/dev/shm/viaduct-bench-{}", std::process::id()));
        std::fs::File::create(&image)?.set_len(DEVICE_BYTES)?;
        let mut command = Command::new("tgtd");
        command.args(["-f", "-C", TGT_CONTROL, "--iscsi", &format!("portal={address}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = cpu::with(cpus, || Ok(command.spawn()?))?;
        let (target, size) = (TGT_TARGET.to_owned(), DEVICE_BYTES);
        let portal = Portal { address, target, lun: 1, size, pid: child.id() };
        let tgt = Self { portal, child, image };
        tgt.set_up()?;
        Ok(tgt)
    }

    fn set_up(&self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect(self.portal.address).is_err() {
            if Instant::now() > deadline {
                return Err("tgtd does not listen".into());
            }
            thread::sleep(LOOK_AGAIN);
        }
        let image = self.image.to_str().ok_or("a path that is not text")?;
        admin(&["--op", "new", "--mode", "target", "--tid", "1", "-T", TGT_TARGET])?;
        let unit = ["--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1"];
        admin(&[&unit[..], &["-b", image]].concat())?;
        admin(&["--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL"])
    }
}

fn admin(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("tgtadm");
    command.args(["-C", TGT_CONTROL, "--lld", "iscsi"]).args(arguments);
    let output = command.output().map_err(|error| format!("tgtadm: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("tgtadm {arguments:?}: {errors}").into())
        }
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        // tgtd does not end as long as it has targets. All of it fails only when it is gone.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_file(&self.image));
    }
}
