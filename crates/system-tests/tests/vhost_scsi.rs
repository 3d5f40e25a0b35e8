//! SCSI hosts of the real binary in real guests, over vhost-user-scsi: disks used, reserved,
//! resized, plugged and unplugged while the guest runs, and killed under load.
//!
//! QEMU 10 only: the 7.2 of Debian 12 does not connect such a device again.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use system_tests::guest::GuestBuilder;
use system_tests::image::own_program;
use system_tests::verify::Report;
use system_tests::{Guest, GuestImage, Node, Result, loops};

const SOON: Duration = Duration::from_secs(60);
/// How long a guest may wait after the new server listens: QEMU looks every 100 ms.
const STALL_MAX: Duration = Duration::from_secs(1);

/// A node with client `vm`, whose SCSI host is in slot 2.
fn node_with_client(data: &Path) -> Result<Node> {
    let node = Node::on(data).start()?;
    node.cli(&["client", "create", "vm"])?;
    Ok(node)
}

fn add_lu(node: &Node, name: &str, options: &[&str]) -> Result<()> {
    node.cli(&[&["lu", "create", name], options].concat())?;
    map(node, name)
}

fn map(node: &Node, name: &str) -> Result<()> {
    node.cli(&["map", name, "--to", "vm", "--via", "vhost-user-scsi"])?;
    Ok(())
}

/// A guest with a SCSI host on that socket, of as many queues as it has processors.
fn guest(node: &Node, image: GuestImage) -> GuestBuilder {
    let socket = node.socket("vm", 2);
    let chardev = format!("socket,id=scsi-socket,path={},reconnect-ms=100", socket.display());
    let device = "vhost-user-scsi-pci,id=scsi,chardev=scsi-socket,num_queues=2";
    Guest::builder()
        .image(image)
        .module("virtio_scsi")
        .module("sd_mod")
        .arguments(&["-chardev", &chardev, "-device", device])
}

fn verifier() -> Result<GuestImage> {
    Ok(GuestImage::new().with_host_program("verify", &own_program("verify")?))
}

/// Waits in the guest until this is so.
fn until(guest: &Guest, condition: &str) -> Result<()> {
    guest.ok(&format!("while ! {{ {condition}; }}; do usleep 10000; done")).map(drop)
}

/// Waits for the disk of that LUN: a guest looks at disks in any order, so letters tell nothing.
fn disk(guest: &Guest, lun: usize) -> Result<String> {
    let names = format!("/sys/class/scsi_device/*:{lun}/device/block/sd*");
    until(guest, &format!("name=$(basename {names}) && [ -b /dev/$name ]"))?;
    guest.ok(&format!("echo /dev/$(basename {names})"))
}

#[test]
fn a_guest_uses_scsi_disks() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = node_with_client(&dir.path().join("node"))?;
    add_lu(&node, "disk", &["--size", "64M"])?;
    add_lu(&node, "other", &["--size", "16M", "--backing", "memory"])?;
    let image = verifier()?.with_package("e2fsprogs").with_package("sg3-utils");
    let guest = guest(&node, image).module("sg").boot()?;
    let [sd, other] = [disk(&guest, 0)?, disk(&guest, 1)?];
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {sd}"))?, (64 << 20).to_string());
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {other}"))?, (16 << 20).to_string());
    let inquiry = guest.ok(&format!("sg_inq {sd}; sg_vpd -p di {sd}; sg_luns {sd}"))?;
    assert!(inquiry.contains("VIADUCT"), "{inquiry}");
    let report =
        Report::parse(&guest.ok(&format!("verify load {sd} --seconds 2 --fresh"))?)?.check()?;
    println!("{report:?}");
    guest.ok(&format!("mkfs.ext4 -q {sd} && mount -o discard {sd} /mnt"))?;
    guest
        .ok("dd if=/dev/urandom of=/mnt/file bs=64k count=100 && sync && md5sum /mnt/file > /a")?;
    guest.ok("echo 3 > /proc/sys/vm/drop_caches && md5sum -c /a")?;
    guest.ok(&format!("rm /mnt/file && fstrim /mnt && umount /mnt && fsck.ext4 -fn {sd}"))?;

    guest.ok(&format!("sg_persist --out --register --param-sark=abc {sd}"))?;
    guest.ok(&format!("sg_persist --out --reserve --param-rk=abc --prout-type=1 {sd}"))?;
    let held = guest.ok(&format!("sg_persist --in --read-full-status {sd}"))?;
    assert!(held.contains("Key=0xabc") && held.contains("SAS"), "{held}");
    let listed = node.cli(&["reservation", "ls"])?.to_string();
    assert!(listed.contains("naa.3"), "{listed}");
    guest.ok(&format!("sg_persist --out --release --param-rk=abc --prout-type=1 {sd}"))?;

    // Seen without anybody in the guest doing anything.
    node.cli(&["lu", "resize", "disk", "--size", "96M"])?;
    until(&guest, &format!("[ $(blockdev --getsize64 {sd}) = {} ]", 96 << 20))?;
    guest.ok(&format!("dd if={sd} of=/dev/null bs=1M skip=90 count=6 iflag=direct"))?;
    // And so is that it has become smaller.
    node.cli(&["lu", "resize", "disk", "--size", "80M", "--shrink"])?;
    until(&guest, &format!("[ $(blockdev --getsize64 {sd}) = {} ]", 80 << 20))?;
    guest.ok(&format!("dd if={sd} of=/dev/null bs=1M skip=79 count=1 iflag=direct"))?;
    let shown = node.cli(&["client", "show", "vm"])?.to_string();
    assert!(shown.contains("hotplug"), "{shown}");
    guest.quit()?;
    assert!(node.stop()?.success());
    Ok(())
}

/// The server dies again and again under a verified load; the guest only waits.
#[test]
fn a_killed_server_loses_nothing_over_scsi() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = node_with_client(&dir.path().join("node"))?;
    add_lu(&node, "disk", &["--size", "64M"])?;
    add_lu(&node, "other", &["--size", "16M"])?;
    let guest = guest(&node, verifier()?).boot()?;
    until(&guest, "[ -b /dev/sda ] && [ -b /dev/sdb ]")?;
    let loads = ["a", "b"]
        .map(|disk| guest.start(&format!("verify load /dev/sd{disk} --fresh --threads 8")));
    let [first, second] = loads;
    let loads = [first?, second?];
    for load in &loads {
        load.wait_for_text("started", SOON)?;
    }
    let mut stalls = Vec::new();
    for kill in 1..=loops(5) {
        thread::sleep(Duration::from_millis(u64::from(300 + kill * 37 % 400)));
        node.kill()?;
        node.start()?;
        let begin = Instant::now();
        let before = requests(&node)?;
        while requests(&node)? == before {
            for load in &loads {
                assert!(!load.has_ended(), "kill {kill}: {}", load.stdout_so_far());
            }
            assert!(begin.elapsed() < SOON, "kill {kill}: the guest does not go on");
            thread::sleep(Duration::from_millis(5));
        }
        stalls.push(begin.elapsed());
    }
    for load in &loads {
        load.close_input()?;
        println!("{:?}", Report::parse(&load.wait(SOON)?.text())?.check()?);
    }
    assert_eq!(guest.ok("ls /dev/sd?")?, "/dev/sda\n/dev/sdb");
    let longest = stalls.iter().max().copied().unwrap_or_default();
    println!("{} kills, longest stall {longest:?}", stalls.len());
    assert!(longest <= STALL_MAX, "stalls {stalls:?}");
    Ok(())
}

/// Requests that the node has answered.
fn requests(node: &Node) -> Result<u64> {
    let lines = node.metrics()?;
    let counts = lines.lines().filter(|line| line.starts_with("viaduct_lu_requests_total{"));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

#[test]
fn luns_come_and_go_in_a_running_guest() -> Result<()> {
    const LUNS: usize = 64;
    let dir = tempfile::tempdir()?;
    let node = node_with_client(&dir.path().join("node"))?;
    add_lu(&node, "first", &["--size", "1M", "--backing", "memory"])?;
    let guest = guest(&node, GuestImage::new()).boot()?;
    until(&guest, "[ -b /dev/sda ]")?;
    let disks = "ls -d /sys/block/sd* | wc -l";
    for number in 1..=LUNS {
        let name = format!("lu{number}");
        add_lu(&node, &name, &["--size", &format!("{number}M"), "--backing", "memory"])?;
    }
    until(&guest, &format!("[ $({disks}) = {} ]", LUNS + 1))?;
    // Each at its own LUN, of its own size.
    let sizes = guest.ok("for d in /sys/block/sd*; do \
         echo $(basename $(readlink $d/device)) $(cat $d/size); done")?;
    let seen: BTreeSet<(usize, usize)> = sizes
        .lines()
        .filter_map(|line| {
            let (place, sectors) = line.split_once(' ')?;
            Some((place.rsplit(':').next()?.parse().ok()?, sectors.parse().ok()?))
        })
        .collect();
    let expected = (0..=LUNS).map(|lun| (lun, lun.max(1) * 2048));
    assert_eq!(seen, expected.collect());
    guest.ok(
        "for d in /dev/sd*; do dd if=$d of=/dev/null bs=64k count=1 iflag=direct || exit 1; done",
    )?;
    // While the guest runs, force is asked for.
    let (code, said) = node.cli_fails(&["unmap", "lu1", "--from", "vm"])?;
    assert!(code == 4 && said.contains("--force"), "{code}: {said}");
    for number in 1..=LUNS {
        node.cli(&["unmap", &format!("lu{number}"), "--from", "vm", "--force"])?;
    }
    until(&guest, &format!("[ $({disks}) = 1 ]"))?;
    guest.ok("dd if=/dev/sda of=/dev/null bs=64k iflag=direct")?;
    Ok(())
}
