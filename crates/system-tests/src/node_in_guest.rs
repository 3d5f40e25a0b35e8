//! A node inside a guest, on the oldest kernel that is supported, with the client there too.
//!
//! The guest has root, block devices and file systems of its own, which the machine that runs the
//! tests need not have.

use std::time::Duration;

use serde_json::Value;

use crate::blk_client::{self, Used};
use crate::guest::{COMMAND_TIMEOUT, Guest, Job};
use crate::image::{GuestImage, own_program};
use crate::line::Output;
use crate::{Context, Error, Result, node};

const MEMORY_MIB: u32 = 768;
/// For a node to drain and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// A guest with the server, its client and e2fsprogs.
pub fn guest() -> Result<Guest> {
    let image = GuestImage::new()
        .with_host_program("viaduct", &node::binary()?)
        .with_host_program("blk-client", &own_program("blk-client")?)
        .with_package("e2fsprogs");
    Guest::builder().memory_mib(MEMORY_MIB).image(image).boot()
}

/// A node running in a guest.
#[derive(Debug)]
pub struct NodeInGuest<'a> {
    guest: &'a Guest,
    data: String,
    job: Job,
}

impl<'a> NodeInGuest<'a> {
    /// Starts a node and waits until it answers.
    pub fn start(guest: &'a Guest, data: &str) -> Result<Self> {
        let job = guest.start(&format!("exec {} 2>&1", command_line(data)))?;
        let answers = format!(
            "until VIADUCT_DATA={data} viaduct status >/dev/null 2>&1; do usleep 50000; done"
        );
        let output = guest.run(&answers)?;
        match job.has_ended() || output.status != 0 {
            false => Ok(Self { guest, data: data.to_owned(), job }),
            true => Err(Error::new(format!("the node does not start: {}", job.stdout_so_far()))),
        }
    }

    /// What the node has said.
    pub fn log(&self) -> String {
        self.job.stdout_so_far()
    }

    /// Runs the command line; what it prints, as JSON.
    pub fn cli(&self, arguments: &str) -> Result<Value> {
        let command = format!("VIADUCT_DATA={} viaduct {arguments} -o json", self.data);
        let text = self.guest.ok(&command).context(|| self.log())?;
        match text.trim() {
            "" => Ok(Value::Null),
            text => serde_json::from_str(text).context(|| format!("viaduct {arguments}")),
        }
    }

    /// Makes a client and maps an LU to it; the client's socket.
    pub fn map(&self, lu: &str, client: &str) -> Result<String> {
        self.cli(&format!("client create {client}"))?;
        self.cli(&format!("map {lu} --to {client} --via vhost-user-blk"))?;
        Ok(format!("{}/run/{client}-2.sock", self.data))
    }

    /// SIGTERM: the node must drain and end well.
    pub fn stop(self) -> Result<()> {
        self.job.signal("TERM")?;
        let output = self.job.wait(STOP_TIMEOUT)?;
        match output.status {
            0 => Ok(()),
            status => Err(Error::new(format!("the node ended with {status}\n{}", output.text()))),
        }
    }
}

/// How a node is started on a data directory.
pub fn command_line(data: &str) -> String {
    format!("viaduct up --data {data} --http off --iscsi off --default-pool off")
}

/// What the client found on a disk, if it found nothing wrong.
pub fn use_disk(guest: &Guest, socket: &str, arguments: &str) -> Result<Used> {
    let output = try_disk(guest, socket, arguments)?;
    if output.status != 0 {
        return Err(Error::new(format!("blk-client use {socket}: {}", output.error_text())));
    }
    let used = blk_client::parse::<Used>(&output.text())?.remove(0);
    match used.violations.is_empty() {
        true => Ok(used),
        false => Err(Error::new(format!("{used:#?}"))),
    }
}

/// The same, whatever comes out.
pub fn try_disk(guest: &Guest, socket: &str, arguments: &str) -> Result<Output> {
    guest.run_for(&format!("blk-client use {socket} {arguments}"), COMMAND_TIMEOUT)
}
