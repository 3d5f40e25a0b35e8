//! Virtual disks of the real binary in real guests, over vhost-user-blk: used, resized, killed
//! under load, moved between nodes.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use system_tests::image::own_program;
use system_tests::verify::Report;
use system_tests::{Guest, GuestImage, Node, Qemu, Result, VhostBlk, loops};

const SOON: Duration = Duration::from_secs(60);
/// How long a guest may wait after the new server listens: QEMU 10 looks every 100 ms, 7.2 every
/// second.
const STALL_MAX_V10: Duration = Duration::from_secs(1);
const STALL_MAX_V7_2: Duration = Duration::from_secs(2);

fn verifier() -> Result<GuestImage> {
    Ok(GuestImage::new().with_host_program("verify", &own_program("verify")?))
}

/// A node with LU `disk` mapped to client `vm` in slot 2.
fn node_with_disk(data: &Path, size: &str, options: &[&str]) -> Result<Node> {
    let node = Node::on(data).start()?;
    node.cli(&[&["lu", "create", "disk", "--size", size], options].concat())?;
    map(&node)?;
    Ok(node)
}

fn map(node: &Node) -> Result<()> {
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk"])?;
    Ok(())
}

fn use_a_disk(qemu: Qemu) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = node_with_disk(&dir.path().join("node"), "64M", &[])?;
    let guest = Guest::builder()
        .qemu(qemu)
        .disk(VhostBlk::new(&node.socket("vm", 2)).queues(2))
        .image(verifier()?.with_package("e2fsprogs"))
        .boot()?;
    assert_eq!(guest.ok("blockdev --getsize64 /dev/vda")?, (64 << 20).to_string());
    assert_eq!(guest.ok("ls /sys/block/vda/mq | wc -l")?, "2");
    let shown = node.cli(&["lu", "show", "disk"])?;
    let serial = shown["serial"].as_str().unwrap_or_default();
    assert!(!serial.is_empty());
    assert_eq!(guest.ok("cat /sys/block/vda/serial")?, serial[..serial.len().min(20)]);
    let report = Report::parse(&guest.ok("verify load /dev/vda --seconds 2 --fresh")?)?.check()?;
    println!("QEMU {}: {report:?}", qemu.name());

    guest.ok("mkfs.ext4 -q /dev/vda && mount -o discard /dev/vda /mnt")?;
    guest
        .ok("dd if=/dev/urandom of=/mnt/file bs=64k count=100 && sync && md5sum /mnt/file > /a")?;
    guest.ok("echo 3 > /proc/sys/vm/drop_caches && md5sum -c /a")?;
    guest.ok("rm /mnt/file && fstrim /mnt && umount /mnt && fsck.ext4 -fn /dev/vda")?;

    node.cli(&["lu", "resize", "disk", "--size", "96M"])?;
    let size = "$(blockdev --getsize64 /dev/vda)";
    guest.ok(&format!("while [ {size} != {} ]; do usleep 10000; done", 96 << 20))?;
    guest.ok("dd if=/dev/vda of=/dev/null bs=1M skip=90 count=6 iflag=direct")?;
    guest.quit()?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn a_guest_of_qemu_7_2_uses_a_disk() -> Result<()> {
    use_a_disk(Qemu::V7_2)
}

#[test]
fn a_guest_of_qemu_10_uses_a_disk() -> Result<()> {
    use_a_disk(Qemu::V10)
}

#[test]
fn a_read_only_mapping_takes_no_writes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::on(&dir.path().join("node")).start()?;
    node.cli(&["lu", "create", "disk", "--size", "16M"])?;
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk", "--read-only"])?;
    let guest = Guest::builder().disk(VhostBlk::new(&node.socket("vm", 2))).boot()?;
    assert_eq!(guest.ok("cat /sys/block/vda/ro")?, "1");
    guest.ok("dd if=/dev/vda of=/dev/null bs=1M iflag=direct")?;
    assert_ne!(guest.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct")?.status, 0);
    Ok(())
}

/// The server dies again and again under a verified load; the guest only waits.
fn kills(qemu: Qemu, sample: u32, stall_max: Duration) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = node_with_disk(&dir.path().join("node"), "64M", &[])?;
    let guest = Guest::builder()
        .qemu(qemu)
        .disk(VhostBlk::new(&node.socket("vm", 2)).queues(2))
        .image(verifier()?)
        .boot()?;
    let load = guest.start("verify load /dev/vda --fresh --threads 16")?;
    load.wait_for_text("started", SOON)?;
    let mut stalls = Vec::new();
    for kill in 1..=loops(sample) {
        thread::sleep(Duration::from_millis(u64::from(300 + kill * 37 % 400)));
        node.kill()?;
        node.start()?;
        let begin = Instant::now();
        let before = requests(&node)?;
        while requests(&node)? == before {
            assert!(!load.has_ended(), "kill {kill}: {}", load.stdout_so_far());
            assert!(begin.elapsed() < SOON, "kill {kill}: the guest does not go on");
            thread::sleep(Duration::from_millis(5));
        }
        stalls.push(begin.elapsed());
    }
    load.close_input()?;
    let report = Report::parse(&load.wait(SOON)?.text())?.check()?;
    let longest = stalls.iter().max().copied().unwrap_or_default();
    println!("QEMU {}: {} kills, longest stall {longest:?}, {report:?}", qemu.name(), stalls.len());
    assert!(longest <= stall_max, "stalls {stalls:?}");
    Ok(())
}

/// Requests that the node has answered.
fn requests(node: &Node) -> Result<u64> {
    let lines = node.metrics()?;
    let counts = lines.lines().filter(|line| line.starts_with("viaduct_lu_requests_total{"));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
}

#[test]
fn a_killed_server_loses_nothing_for_qemu_10() -> Result<()> {
    kills(Qemu::V10, 5, STALL_MAX_V10)
}

#[test]
fn a_killed_server_loses_nothing_for_qemu_7_2() -> Result<()> {
    kills(Qemu::V7_2, 2, STALL_MAX_V7_2)
}

/// Two nodes on one image; the guest moves between their QEMUs with its load.
#[test]
fn a_guest_moves_between_nodes_with_its_load() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("shared.img");
    File::create(&image)?.set_len(64 << 20)?;
    let image = image.to_string_lossy().into_owned();
    let mut nodes = Vec::new();
    for name in ["here", "there"] {
        let node = Node::on(&dir.path().join(name)).start()?;
        node.cli(&["lu", "adopt", &image, "--name", "disk", "--shareable"])?;
        map(&node)?;
        nodes.push(node);
    }
    let builder = Guest::builder().memory_mib(256).image(verifier()?);
    let at =
        |index: usize| builder.clone().disk(VhostBlk::new(&nodes[index].socket("vm", 2)).queues(2));
    let mut guest = at(0).boot()?;
    let load = guest.start("verify load /dev/vda --fresh --memory-mib 4 --threads 4")?;
    load.wait_for_text("started", SOON)?;
    for moves in 1..=loops(3) {
        let (moved, report) = guest.migrate(&at(moves as usize % 2))?;
        println!("move {moves}: {report:?}");
        guest = moved;
        assert!(!load.has_ended(), "move {moves}: {}", load.stdout_so_far());
        assert_eq!(guest.ok("echo alive")?, "alive");
    }
    load.close_input()?;
    let report = Report::parse(&load.wait(SOON)?.text())?.check()?;
    println!("{report:?}");
    Ok(())
}

/// A guest without shared memory cannot be served; the operator is told why and what to do.
#[test]
fn memory_that_is_not_shared_is_explained() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = node_with_disk(&dir.path().join("node"), "16M", &[])?;
    let booted = Guest::builder()
        .shared_memory(false)
        .disk(VhostBlk::new(&node.socket("vm", 2)).reconnect(false))
        .boot_within(Duration::from_secs(15));
    // QEMU may refuse to start or start with a dead device; either way the node says why.
    println!("{}", booted.err().map(|error| error.to_string()).unwrap_or_default());
    for place in [["event", "ls"].as_slice(), &["client", "show", "vm"]] {
        let text = node.cli(place)?.to_string();
        println!("{text}");
        assert!(text.contains("memory") && text.contains("share"), "{place:?}: {text}");
    }
    Ok(())
}
