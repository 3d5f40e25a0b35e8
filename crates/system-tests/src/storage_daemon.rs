//! qemu-storage-daemon as a vhost-user-blk server: the peer that the harness and benchmarks are
//! tried against.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::qemu::Qemu;
use crate::{Context, Error, Result};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running daemon with one export; killed when dropped.
#[derive(Debug)]
pub struct StorageDaemon {
    child: Child,
    socket: PathBuf,
}

impl StorageDaemon {
    /// Serves a raw image. It does not lock it: two daemons may serve one image, as in a migration.
    pub fn serve(image: &Path, socket: &Path, queues: u16) -> Result<Self> {
        let image = image.display();
        let node = format!("driver=file,node-name=disk,filename={image},locking=off");
        Self::serve_node(&node, socket, queues, &[])
    }

    /// Serves a block node given in the daemon's own words, called `disk`, with more arguments
    /// before it.
    pub fn serve_node(node: &str, socket: &Path, queues: u16, arguments: &[&str]) -> Result<Self> {
        let cache = Cache::open()?;
        let mut command = Qemu::V10.tool(&cache, "qemu-storage-daemon")?;
        let export = format!(
            "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues={queues},\
             addr.type=unix,addr.path={}",
            socket.display()
        );
        // Written when the export listens; connecting to try would take the only client's place.
        let ready = socket.with_extension("pid");
        drop(std::fs::remove_file(&ready));
        command.args(arguments).arg("--blockdev").arg(node).arg("--export").arg(export);
        command.arg("--pidfile").arg(&ready);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.context(|| "start qemu-storage-daemon".into())?;
        let mut daemon = Self { child, socket: socket.to_path_buf() };
        daemon.wait_listening(&ready)?;
        Ok(daemon)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the daemon; nothing is flushed or told to anybody.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn wait_listening(&mut self, ready: &Path) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !ready.exists() {
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::new(format!("qemu-storage-daemon ended: {status}")));
            }
            if Instant::now() > deadline {
                return Err(Error::new("qemu-storage-daemon does not listen"));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        self.kill();
    }
}
