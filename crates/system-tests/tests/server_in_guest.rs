//! The server inside a guest: on the oldest kernel that it supports, Debian's 6.1, and over a block
//! device that carries requests out seconds after the process that made them is dead, or none for a
//! while.
//!
//! The clients are in the same guest: a vhost-user-blk client of ours, and the command line.

use std::time::Duration;

use system_tests::blk_client::{self, Round};
use system_tests::node_in_guest::{NodeInGuest, command_line, guest, try_disk, use_disk};
use system_tests::{Error, Guest, Result, loops, until};

/// A round takes about three seconds.
const ROUND_MAX: Duration = Duration::from_secs(60);
const BLOCK_BYTES: u64 = 4096;
/// It is a second or two, and a guest takes longer.
const REOPEN_MAX: Duration = Duration::from_secs(60);

/// Makes `/dev/nullb0`, a block device in the guest's memory; its number.
fn make_device(guest: &Guest) -> Result<String> {
    guest.ok("modprobe null_blk nr_devices=1 memory_backed=1 discard=1 gb=1 irqmode=0")?;
    guest.ok("cat /sys/block/nullb0/dev")
}

/// A whole life of a node with its data directory there: disks of both kinds, a graceful stop, a
/// restart, all data still there.
fn live(guest: &Guest, data: &str) -> Result<()> {
    let node = NodeInGuest::start(guest, data)?;
    node.cli("lu create file --size 64M")?;
    node.cli("lu adopt /dev/nullb0 --name device")?;
    let sockets = [node.map("file", "one")?, node.map("device", "two")?];
    for (socket, bytes) in sockets.iter().zip([64 << 20, 1 << 30]) {
        let used = use_disk(guest, socket, "")?;
        assert_eq!((used.blocks, used.writes, used.reads), (bytes / BLOCK_BYTES, 256, 272));
    }
    let status = node.cli("status")?;
    assert_eq!(status["phase"], "running", "{status}");
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
    println!("{status}\n{}", node.log());
    node.stop()?;
    let node = NodeInGuest::start(guest, data)?;
    for socket in &sockets {
        assert_eq!(use_disk(guest, socket, "--again")?.reads, 256);
    }
    node.stop()
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
    live(&guest, "/mnt/node")
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
    let node = NodeInGuest::start(&guest, data)?;
    node.cli("lu adopt /dev/nullb0 --name device")?;
    node.cli("lu create other --size 16M --backing memory")?;
    let (socket, neighbour) = (node.map("device", "vm")?, node.map("other", "neighbour")?);
    node.stop()?;

    let rounds = loops(4);
    let command = format!(
        "blk-client late {socket} --lane {cgroup}/lane --device {device} \
         --neighbour {neighbour} --rounds {rounds} --log /tmp/log -- {}",
        command_line(data)
    );
    let output = guest.run_for(&command, (1 + rounds) * ROUND_MAX)?;
    let log = guest.ok("tail -n 30 /tmp/log")?;
    assert_eq!(output.status, 0, "{}\n{}\n{log}", output.text(), output.error_text());
    let rounds_done = blk_client::parse::<Round>(&output.text())?;
    for round in &rounds_done {
        println!("{round:?}, stall {} ms", round.stall_ms());
    }
    assert_eq!(rounds_done.len(), rounds as usize);
    for round in &rounds_done {
        assert!(round.violations.is_empty(), "{round:#?}\n{log}");
        let is_late = round.late_requests > 0;
        assert!(!is_late || round.first_answer_ms >= round.released_ms, "{round:#?}");
        assert!(round.stall_ms() <= round.stall_max_ms(), "{round:#?}");
    }
    // A server that is killed at once may have asked for nothing; most have.
    let late = rounds_done.iter().filter(|round| round.late_requests > 0).count();
    assert!(late * 2 > rounds_done.len(), "{rounds_done:#?}");
    Ok(())
}

/// A disk answers nothing but errors for a while; whoever uses an LU on it goes on as soon as it
/// works, without anybody doing anything.
#[test]
fn an_lu_goes_on_when_its_disk_does() -> Result<()> {
    let guest = guest()?;
    guest.ok("modprobe scsi_debug dev_size_mb=96 delay=0 && modprobe sd_mod")?;
    let disk = guest
        .ok("for i in $(seq 50); do ls /sys/bus/pseudo/drivers/scsi_debug/adapter*/\
        host*/target*/*:*/block 2>/dev/null && break; sleep 0.1; done")?;
    let disk = disk.trim();
    let node = NodeInGuest::start(&guest, "/tmp/node")?;
    node.cli(&format!("pool create one --pv /dev/{disk}"))?;
    node.cli("lu create disk --size 16M --pool one")?;
    let socket = node.map("disk", "vm")?;
    use_disk(&guest, &socket, "")?;
    for round in 1..3 {
        guest.ok(&format!("echo offline > /sys/block/{disk}/device/state"))?;
        let tried = try_disk(&guest, &socket, "")?;
        assert_ne!(tried.status, 0, "{}", tried.text());
        assert_ne!(node.cli("lu show disk")?["state"], "online", "{}", node.log());
        // This needs a record of its own, and not only a place for data.
        let error = node.cli("snapshot create disk@now").unwrap_err().to_string();
        assert!(error.contains("cannot be taken"), "{error}");
        guest.ok(&format!("echo running > /sys/block/{disk}/device/state"))?;
        let opened = || -> Result<usize> {
            Ok(node.cli("event ls")?.to_string().matches("lu-reopened").count())
        };
        until("the LU is opened again", REOPEN_MAX, || Ok(opened()? == round))
            .map_err(|late| Error::new(format!("{late}\n{}", node.log())))?;
        use_disk(&guest, &socket, "")?;
        let is_online = || Ok(node.cli("lu show disk")?["state"] == "online");
        until("the LU is online", REOPEN_MAX, is_online)?;
        assert_eq!(opened()?, round);
    }
    node.stop()
}
