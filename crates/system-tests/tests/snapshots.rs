//! Snapshots and clones in the real binary, with a real guest: its filesystem is frozen while it is
//! written, cloned into another disk of the same guest, gone back to, and survives killed servers.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::image::own_program;
use system_tests::verify::Report;
use system_tests::{Context, Error, Guest, GuestImage, Node, Result};

const SOON: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A node with pool `fast` and client `vm`, whose SCSI host is in slot 2.
fn node_with_pool(data: &Path) -> Result<Node> {
    let node = Node::on(data).start()?;
    let shape = ["--slab-size", "4M", "--extent-size", "64K"];
    node.cli(&[&["pool", "create", "fast", "--size", "1G"][..], &shape].concat())?;
    node.cli(&["client", "create", "vm"])?;
    Ok(node)
}

fn create(node: &Node, name: &str, size: &str) -> Result<()> {
    node.cli(&["lu", "create", name, "--size", size, "--pool", "fast"]).map(drop)
}

fn map(node: &Node, name: &str) -> Result<()> {
    node.cli(&["map", name, "--to", "vm", "--via", "vhost-user-scsi"]).map(drop)
}

/// A guest with a SCSI host of two queues.
fn guest(node: &Node) -> Result<Guest> {
    let image = GuestImage::new().with_host_program("verify", &own_program("verify")?);
    let socket = node.socket("vm", 2);
    let chardev = format!("socket,id=scsi-socket,path={},reconnect-ms=100", socket.display());
    let device = "vhost-user-scsi-pci,id=scsi,chardev=scsi-socket,num_queues=2";
    Guest::builder()
        .image(image.with_package("e2fsprogs"))
        .module("virtio_scsi")
        .module("sd_mod")
        .arguments(&["-chardev", &chardev, "-device", device])
        .boot()
}

/// Waits in the guest until this is so.
fn until(guest: &Guest, condition: &str) -> Result<()> {
    guest.ok(&format!("while ! {{ {condition}; }}; do usleep 10000; done")).map(drop)
}

/// Waits for the disk of that LUN.
fn disk(guest: &Guest, lun: usize) -> Result<String> {
    let names = format!("/sys/class/scsi_device/*:{lun}/device/block/sd*");
    until(guest, &format!("name=$(basename {names}) && [ -b /dev/$name ]"))?;
    guest.ok(&format!("echo /dev/$(basename {names})"))
}

fn allocated(node: &Node, lu: &str) -> Result<u64> {
    let shown = node.cli(&["lu", "show", lu])?;
    shown["allocated"].as_u64().context(|| format!("{shown}"))
}

/// Waits until an LU takes no more than that.
fn until_smaller(node: &Node, lu: &str, most: u64) -> Result<()> {
    let begin = Instant::now();
    while allocated(node, lu)? > most {
        if begin.elapsed() > SOON {
            let left = allocated(node, lu)?;
            return Err(Error::new(format!("LU {lu} takes {left}, and not {most}")));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

fn names(list: &Value, name: &str) -> Vec<String> {
    let all = list.as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|it| it[name].as_str().map(str::to_owned)).collect()
}

/// A clone of what was frozen is another disk of the same guest, mapped while that is not
/// connected. What is done there stays there.
fn clone_beside(node: &mut Node, guest: &Guest) -> Result<String> {
    node.cli(&["clone", "disk@one", "copy"])?;
    map(node, "copy")?;
    let copy = disk(guest, 2)?;
    guest
        .ok(&format!("mount {copy} /clone && sed s,/mnt,/clone, /a | md5sum -c && rm /clone/a"))?;
    guest.ok("[ ! -e /clone/b ] && dd if=/dev/urandom of=/clone/c bs=64k count=100 && sync")?;
    node.kill()?;
    node.start()?;
    guest.ok("[ -e /clone/c ] && [ ! -e /clone/a ] && umount /clone")?;
    guest.ok(&format!("fsck.ext4 -fn {copy}"))?;
    let (code, refused) = node.cli_fails(&["snapshot", "rm", "disk@one"])?;
    assert!(code == 4 && refused.contains("copy"), "{refused}");
    Ok(copy)
}

/// To one snapshot and to the other, under a guest that knows of it.
fn go_back_and_forth(node: &Node, guest: &Guest, sd: &str) -> Result<()> {
    let (code, refused) = node.cli_fails(&["snapshot", "rollback", "disk@one"])?;
    assert!(code == 4 && refused.contains("vm") && refused.contains("--force"), "{refused}");
    guest.ok("umount /mnt")?;
    node.cli(&["snapshot", "rollback", "disk@one", "--force"])?;
    guest.ok(&format!("mount {sd} /mnt && md5sum -c /a && [ ! -e /mnt/b ] && umount /mnt"))?;
    node.cli(&["snapshot", "rollback", "disk@two", "--force"])?;
    guest.ok(&format!("mount {sd} /mnt && [ -e /mnt/b ] && [ ! -e /mnt/a ] && umount /mnt"))?;
    guest.ok(&format!("fsck.ext4 -fn {sd}")).map(drop)
}

/// What the guest has discarded is kept by snapshots only. All of them go, in any order, and their
/// space comes back, also over a kill.
fn remove_all(node: &mut Node, guest: &Guest, (sd, copy): (&str, &str)) -> Result<()> {
    guest.ok(&format!("mount {sd} /mnt && fstrim /mnt && umount /mnt"))?;
    guest.ok(&format!("echo 1 > /sys/block/$(basename {copy})/device/delete"))?;
    node.cli(&["unmap", "copy", "--from", "vm", "--force"])?;
    node.cli(&["lu", "rm", "copy"])?;
    let full = allocated(node, "disk")?;
    node.cli(&["snapshot", "rm", "disk@one", "busy@one"])?;
    node.kill()?;
    node.start()?;
    node.cli(&["snapshot", "rm", "disk@two"])?;
    until_smaller(node, "disk", full - (11 << 20))?;
    guest.ok(&format!("fsck.ext4 -fn {sd}")).map(drop)
}

#[test]
fn a_guest_goes_back_and_forth_over_killed_servers() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = node_with_pool(&dir.path().join("node"))?;
    for (name, size) in [("disk", "200M"), ("busy", "64M")] {
        create(&node, name, size)?;
        map(&node, name)?;
    }
    let guest = guest(&node)?;
    let (sd, busy) = (disk(&guest, 0)?, disk(&guest, 1)?);
    let load = guest.start(&format!("verify load {busy} --fresh --threads 8"))?;
    load.wait_for_text("started", SOON)?;
    guest.ok(&format!("mkfs.ext4 -q -E nodiscard {sd} && mount {sd} /mnt && mkdir /clone"))?;
    guest.ok("dd if=/dev/urandom of=/mnt/a bs=64k count=200 && sync && md5sum /mnt/a > /a")?;

    // Two LUs at one instant, of which one is under load.
    let taken = node.cli(&["snapshot", "create", "disk@one", "busy@one"])?;
    assert_eq!(names(&taken, "name"), ["one", "one"], "{taken}");
    guest.ok("rm /mnt/a && dd if=/dev/urandom of=/mnt/b bs=64k count=200 && sync")?;
    node.cli(&["snapshot", "create", "disk@two"])?;

    // What answers is not what was frozen without being named.
    node.kill()?;
    node.start()?;
    let listed = node.cli(&["snapshot", "ls"])?;
    assert_eq!(names(&listed, "name").len(), 3, "{listed}");
    assert!(listed[0]["own"].as_u64() > Some(12 << 20), "{listed}");

    let copy = clone_beside(&mut node, &guest)?;
    go_back_and_forth(&node, &guest, &sd)?;
    remove_all(&mut node, &guest, (&sd, &copy))?;
    load.close_input()?;
    println!("{:?}", Report::parse(&load.wait(SOON)?.text())?.check()?);
    guest.quit()?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn what_cannot_be_done_says_why() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = node_with_pool(&dir.path().join("node"))?;
    create(&node, "disk", "64M")?;
    node.cli(&["lu", "create", "file", "--size", "64M", "--backing", "file"])?;
    node.cli(&["snapshot", "create", "disk@a"])?;
    let cases: [(&[&str], i32, &str); 9] = [
        (&["snapshot", "create", "disk"], 2, "LU@NAME"),
        (&["snapshot", "create", "disk@a"], 4, "exists already"),
        (&["snapshot", "create", "disk@b", "disk@c"], 2, "named twice"),
        (&["snapshot", "create", "nothing@a"], 3, "no LU 'nothing'"),
        (&["snapshot", "create", "file@a"], 4, "in no pool"),
        (&["snapshot", "rm", "disk@b"], 3, "no snapshot 'disk@b'"),
        (&["snapshot", "rollback", "disk@b"], 3, "no snapshot 'disk@b'"),
        (&["clone", "disk@b", "copy"], 3, "no snapshot 'disk@b'"),
        (&["lu", "rm", "disk"], 4, "has 1 snapshot"),
    ];
    for (arguments, code, said) in cases {
        let (found, error) = node.cli_fails(arguments)?;
        assert!(found == code && error.contains(said), "{arguments:?}: {found}, {error}");
    }
    // Of several, none is taken where one cannot be.
    node.cli_fails(&["snapshot", "create", "disk@b", "file@b"])?;
    assert_eq!(names(&node.cli(&["snapshot", "ls"])?, "name"), ["a"]);
    node.cli(&["clone", "disk@a", "copy"])?;
    node.cli(&["snapshot", "create", "copy@a"])?;
    node.cli(&["clone", "copy@a", "copy2"])?;
    assert!(node.stop()?.success());
    node.start()?;
    let status = node.cli(&["status"])?;
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
    for lu in ["copy2", "copy@a", "copy", "disk@a", "disk"] {
        let noun = if lu.contains('@') { "snapshot" } else { "lu" };
        node.cli(&[noun, "rm", lu])?;
    }
    node.cli(&["pool", "rm", "fast"])?;
    assert!(node.stop()?.success());
    Ok(())
}
