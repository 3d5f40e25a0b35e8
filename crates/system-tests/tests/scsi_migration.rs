//! A guest with a SCSI host moves between nodes: a disk under a verified load, another one, and a
//! disc in the virtual DVD drive that it has mounted.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use system_tests::disc::{noise, with_content};
use system_tests::guest::GuestBuilder;
use system_tests::image::own_program;
use system_tests::verify::Report;
use system_tests::{Guest, GuestImage, Node, Result, loops};

const SOON: Duration = Duration::from_secs(60);
/// Of the disks, at their LUNs.
const SIZES: [u64; 2] = [64 << 20, 16 << 20];

/// A node that serves the same images as the others, with the same disc in its drive.
fn node(dir: &Path, name: &str, images: &[String], disc: &str) -> Result<Node> {
    let node = Node::on(&dir.join(name)).start()?;
    node.cli(&["client", "create", "vm"])?;
    for (lun, image) in images.iter().enumerate() {
        let name = format!("disk{lun}");
        let serial = format!("serial{lun}");
        node.cli(&["lu", "adopt", image, "--name", &name, "--serial", &serial, "--shareable"])?;
    }
    node.cli(&["media", "add", disc, "--name", "disc"])?;
    // In the drive before the drive is shown: else the guest is told that it was exchanged.
    node.cli(&["drive", "create", "dvd", "--medium", "disc"])?;
    for name in ["disk0", "disk1", "dvd"] {
        node.cli(&["map", name, "--to", "vm", "--via", "vhost-user-scsi"])?;
    }
    Ok(node)
}

fn at(builder: &GuestBuilder, node: &Node) -> GuestBuilder {
    let socket = node.socket("vm", 2);
    let chardev = format!("socket,id=scsi-socket,path={},reconnect-ms=100", socket.display());
    let device = "vhost-user-scsi-pci,id=scsi,chardev=scsi-socket,num_queues=2";
    builder.clone().arguments(&["-chardev", &chardev, "-device", device])
}

/// The disk at a LUN: a guest looks at disks in any order.
fn disk(guest: &Guest, lun: usize) -> Result<String> {
    let names = format!("/sys/class/scsi_device/*:{lun}/device/block/sd*");
    let is_there = format!("name=$(basename {names}) && [ -b /dev/$name ]");
    guest.ok(&format!("until {{ {is_there}; }}; do usleep 10000; done"))?;
    guest.ok(&format!("echo /dev/$(basename {names})"))
}

#[test]
fn a_guest_moves_between_nodes_with_its_scsi_host() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut images = Vec::new();
    for (lun, size) in SIZES.into_iter().enumerate() {
        let image = dir.path().join(format!("shared{lun}.img"));
        File::create(&image)?.set_len(size)?;
        images.push(image.display().to_string());
    }
    let disc = with_content(dir.path(), "DISC", &noise(2 << 20, 3))?.display().to_string();
    let nodes =
        [node(dir.path(), "here", &images, &disc)?, node(dir.path(), "there", &images, &disc)?];
    let image = GuestImage::new().with_host_program("verify", &own_program("verify")?);
    let builder = ["virtio_scsi", "sd_mod", "sr_mod", "isofs"]
        .into_iter()
        .fold(Guest::builder().memory_mib(256).image(image), |it, module| it.module(module));
    let mut guest = at(&builder, &nodes[0]).boot()?;
    let disks = [disk(&guest, 0)?, disk(&guest, 1)?];
    guest
        .ok("until [ -b /dev/sr0 ]; do usleep 10000; done; mount -t iso9660 -o ro /dev/sr0 /mnt")?;
    guest.ok(&format!(
        "echo the second disk > /second && dd if=/second of={} conv=sync",
        disks[1]
    ))?;
    guest.ok("md5sum /mnt/content > /sum")?;
    let load =
        guest.start(&format!("verify load {} --fresh --memory-mib 4 --threads 4", disks[0]))?;
    load.wait_for_text("started", SOON)?;
    for moves in 1..=loops(3) {
        let (moved, report) = guest.migrate(&at(&builder, &nodes[moves as usize % 2]))?;
        println!("move {moves}: {report:?}");
        guest = moved;
        assert!(!load.has_ended(), "move {moves}: {}", load.stdout_so_far());
        // All LUNs are there, with what the guest had in them.
        guest.ok("echo 3 > /proc/sys/vm/drop_caches && md5sum -c /sum")?;
        let read = format!("dd if={} bs=512 count=1 iflag=direct", disks[1]);
        assert!(guest.ok(&read)?.starts_with("the second disk"), "move {moves}");
        for (disk, size) in disks.iter().zip(SIZES) {
            assert_eq!(guest.ok(&format!("blockdev --getsize64 {disk}"))?, size.to_string());
        }
        let served = nodes[moves as usize % 2].cli(&["client", "show", "vm"])?.to_string();
        assert!(served.contains("running"), "move {moves}: {served}");
    }
    load.close_input()?;
    println!("{:?}", Report::parse(&load.wait(SOON)?.text())?.check()?);
    guest.ok("umount /mnt && eject /dev/sr0 || true")?;
    guest.quit()
}
