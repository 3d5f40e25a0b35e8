//! The server inside a guest: on the oldest kernel that it supports, Debian's 6.1, and over a block
//! device that carries requests out seconds after the process that made them is dead.
//!
//! The clients are in the same guest: a vhost-user-blk client of ours, and the command line.

use std::time::Duration;

use serde_json::Value;
use system_tests::blk_client::{self, Round, Used};
use system_tests::guest::Job;
use system_tests::image::own_program;
use system_tests::{Context, Error, Guest, GuestImage, Result, loops, node};

const MEMORY_MIB: u32 = 768;
const SOON: Duration = Duration::from_secs(60);
/// Longest time in which a client goes on once the dead server's requests have ended.
const STALL_MAX_MS: u64 = 1000;
/// A round takes about five seconds.
const ROUND_MAX: Duration = Duration::from_secs(30);
const BLOCKS_OF_64_MIB: u64 = (64 << 20) / 4096;

fn guest() -> Result<Guest> {
    let image = GuestImage::new()
        .with_host_program("viaduct", &node::binary()?)
        .with_host_program("blk-client", &own_program("blk-client")?)
        .with_package("e2fsprogs");
    Guest::builder().memory_mib(MEMORY_MIB).image(image).boot()
}

/// Makes `/dev/nullb0`, a block device in the guest's memory.
fn make_device(guest: &Guest) -> Result<String> {
    guest.ok("modprobe null_blk nr_devices=1 memory_backed=1 gb=1 irqmode=0")?;
    guest.ok("cat /sys/block/nullb0/dev")
}

fn up(data: &str) -> String {
    format!("viaduct up --data {data} --http off --poll-us 0")
}

/// Runs the command line in the guest; what it prints, as JSON.
fn cli(guest: &Guest, data: &str, arguments: &str) -> Result<Value> {
    let text = guest.ok(&format!("VIADUCT_DATA={data} viaduct {arguments} -o json"))?;
    match text.trim() {
        "" => Ok(Value::Null),
        text => serde_json::from_str(text).context(|| format!("viaduct {arguments}")),
    }
}

/// Starts a node in the guest and waits until it answers.
fn start(guest: &Guest, data: &str) -> Result<Job> {
    let job = guest.start(&format!("exec {} 2>&1", up(data)))?;
    let waits =
        format!("until VIADUCT_DATA={data} viaduct status >/dev/null 2>&1; do usleep 50000; done");
    let output = guest.run(&waits)?;
    match job.has_ended() || output.status != 0 {
        false => Ok(job),
        true => Err(Error::new(format!("the node does not start: {}", job.stdout_so_far()))),
    }
}

fn map(guest: &Guest, data: &str, lu: &str, client: &str) -> Result<String> {
    cli(guest, data, &format!("client create {client}"))?;
    cli(guest, data, &format!("map {lu} --to {client} --via vhost-user-blk"))?;
    Ok(format!("{data}/run/{client}-2.sock"))
}

/// What the client found, if it found nothing wrong.
fn use_disk(guest: &Guest, socket: &str, arguments: &str) -> Result<Used> {
    let text = guest.ok(&format!("blk-client use {socket} {arguments}"))?;
    let used = blk_client::parse::<Used>(&text)?.remove(0);
    match used.violations.is_empty() {
        true => Ok(used),
        false => Err(Error::new(format!("{used:#?}"))),
    }
}

/// A whole life of a node with its data directory there: disks of both kinds, a graceful stop, a
/// restart, all data still there.
fn live(guest: &Guest, data: &str) -> Result<()> {
    let node = start(guest, data)?;
    cli(guest, data, "lu create file --size 64M")?;
    cli(guest, data, "lu adopt /dev/nullb0 --name device")?;
    let file = map(guest, data, "file", "one")?;
    let device = map(guest, data, "device", "two")?;
    let used = use_disk(guest, &file, "")?;
    assert_eq!((used.blocks, used.writes, used.reads), (BLOCKS_OF_64_MIB, 256, 256));
    assert_eq!(use_disk(guest, &device, "")?.blocks, (1 << 30) / 4096);
    println!("{}: {}", guest.ok("uname -r")?, cli(guest, data, "status")?);

    node.signal("TERM")?;
    let ended = node.wait(SOON)?;
    println!("{}", ended.text());
    assert_eq!(ended.status, 0, "{}", ended.text());
    let node = start(guest, data)?;
    for socket in [&file, &device] {
        assert_eq!(use_disk(guest, socket, "--again")?.reads, 256);
    }
    node.signal("TERM")?;
    assert_eq!(node.wait(SOON)?.status, 0);
    Ok(())
}

#[test]
fn a_server_runs_on_the_oldest_kernel() -> Result<()> {
    let guest = guest()?;
    assert!(guest.ok("uname -r")?.starts_with("6.1."));
    make_device(&guest)?;
    // A file system in memory takes no direct I/O there, ext4 does.
    live(&guest, "/tmp/node")?;
    guest.ok("truncate -s 256M /tmp/image && mkfs.ext4 -q /tmp/image")?;
    guest.ok("modprobe loop && mount -o loop /tmp/image /mnt")?;
    live(&guest, "/mnt/node")?;
    Ok(())
}

/// The kernel carries out what a killed server had asked for, late; its successor waits for that.
#[test]
fn late_requests_of_a_killed_server_harm_nobody() -> Result<()> {
    let guest = guest()?;
    let device = make_device(&guest)?;
    let (cgroup, data) = ("/sys/fs/cgroup", "/tmp/node");
    guest.ok(&format!(
        "mount -t cgroup2 none {cgroup} && echo +io > {cgroup}/cgroup.subtree_control && \
         mkdir {cgroup}/lane"
    ))?;
    let node = start(&guest, data)?;
    cli(&guest, data, "lu adopt /dev/nullb0 --name device")?;
    cli(&guest, data, "lu create other --size 16M --backing memory")?;
    let socket = map(&guest, data, "device", "vm")?;
    let neighbour = map(&guest, data, "other", "neighbour")?;
    node.signal("TERM")?;
    assert_eq!(node.wait(SOON)?.status, 0);

    let rounds = loops(4);
    let command = format!(
        "blk-client late {socket} --lane {cgroup}/lane --device {device} \
         --neighbour {neighbour} --rounds {rounds} --log /tmp/log -- {}",
        up(data)
    );
    let output = guest.run_for(&command, SOON + rounds * ROUND_MAX)?;
    let log = guest.ok("tail -n 30 /tmp/log")?;
    assert_eq!(output.status, 0, "{}\n{}\n{log}", output.text(), output.error_text());
    let rounds_done = blk_client::parse::<Round>(&output.text())?;
    println!("{log}");
    for round in &rounds_done {
        println!("{round:?}, stall {} ms", round.stall_ms());
    }
    assert_eq!(rounds_done.len(), rounds as usize);
    for round in &rounds_done {
        assert!(round.violations.is_empty(), "{round:#?}\n{log}");
        assert!(round.first_answer_ms >= round.released_ms, "{round:#?}");
        assert!(round.stall_ms() <= STALL_MAX_MS, "{round:#?}");
    }
    // A server that is killed at once may have asked for nothing; most have.
    let late = rounds_done.iter().filter(|round| round.late_requests > 0).count();
    assert!(late * 2 > rounds_done.len(), "{rounds_done:#?}");
    Ok(())
}
