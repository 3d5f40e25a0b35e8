//! The harness itself, tried on a server that is not ours: qemu-storage-daemon.
//!
//! If these fail, no other system test means anything: both QEMUs boot and run programs, the write
//! verifier works through a real virtio-blk disk, a guest moves between two QEMUs with its load.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use system_tests::image::own_program;
use system_tests::verify::Report;
use system_tests::{Guest, GuestImage, Qemu, Result, StorageDaemon, VhostBlk, loops};

const DISK_BYTES: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(60);

fn disk(dir: &Path) -> Result<std::path::PathBuf> {
    let path = dir.join("disk.img");
    File::create(&path)?.set_len(DISK_BYTES)?;
    Ok(path)
}

fn verifier() -> Result<GuestImage> {
    Ok(GuestImage::new().with_host_program("verify", &own_program("verify")?))
}

/// A guest with one disk on a storage daemon does what a user would do with it.
fn use_a_disk(qemu: Qemu) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let daemon = StorageDaemon::serve(&disk(dir.path())?, &dir.path().join("a.sock"), 2)?;
    let begin = Instant::now();
    let guest = Guest::builder()
        .qemu(qemu)
        .disk(VhostBlk::new(daemon.socket()).queues(2))
        .image(verifier()?)
        .boot()?;
    println!("QEMU {}: booted in {:?}", qemu.name(), begin.elapsed());
    assert_eq!(guest.ok("blockdev --getsize64 /dev/vda")?, DISK_BYTES.to_string());
    assert_eq!(guest.ok("ls /sys/block/vda/mq | wc -l")?, "2");
    let output = guest.run("echo out; echo err >&2; exit 7")?;
    assert_eq!(
        (output.status, output.text(), output.error_text()),
        (7, "out".into(), "err".into())
    );
    let output = guest.run("verify load /dev/vda --seconds 2 --fresh")?;
    let report = Report::parse(&output.text())?.check()?;
    println!("{report:?}");
    Ok(())
}

#[test]
fn qemu_7_2_boots_and_uses_a_disk() -> Result<()> {
    use_a_disk(Qemu::V7_2)
}

#[test]
fn qemu_10_boots_and_uses_a_disk() -> Result<()> {
    use_a_disk(Qemu::V10)
}

#[test]
fn debian_programs_run_in_a_guest() -> Result<()> {
    let image = GuestImage::new().with_program("fio").with_package("e2fsprogs");
    let dir = tempfile::tempdir()?;
    let guest = Guest::builder().memory_mib(768).drive(&disk(dir.path())?).image(image).boot()?;
    guest.ok("mkfs.ext4 -q /dev/vda && mount /dev/vda /mnt")?;
    let fio = "fio --name=x --filename=/mnt/file --size=1M --rw=randwrite --bs=4k --direct=1 \
               --ioengine=libaio --iodepth=8 --verify=crc32c --output-format=terse";
    guest.ok(fio)?;
    guest.ok("umount /mnt && fsck.ext4 -fn /dev/vda")?;
    Ok(())
}

#[test]
fn files_and_long_input_reach_a_guest_whole() -> Result<()> {
    let guest = Guest::builder().boot()?;
    let content: Vec<u8> = (0..10_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    guest.put("/tmp/file", &content)?;
    assert_eq!(guest.run("cat /tmp/file")?.stdout, content);
    let job = guest.start("cat; echo end")?;
    job.input(b"first\n")?;
    job.wait_for_text("first", SOON)?;
    assert!(!job.has_ended());
    job.close_input()?;
    assert_eq!(job.wait(SOON)?.text(), "first\nend");
    let job = guest.start("sleep 1000")?;
    job.signal("KILL")?;
    assert_eq!(job.wait(SOON)?.status, 137);
    Ok(())
}

#[test]
fn a_guest_that_panics_is_quoted() -> Result<()> {
    let guest = Guest::builder().boot()?;
    let error = guest.run("echo c > /proc/sysrq-trigger").unwrap_err().to_string();
    assert!(error.contains("the guest is gone") && error.contains("sysrq"), "{error}");
    Ok(())
}

#[test]
fn a_disk_is_plugged_and_unplugged() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let daemon = StorageDaemon::serve(&disk(dir.path())?, &dir.path().join("a.sock"), 1)?;
    let mut guest = Guest::builder().hotplug_ports(1).boot()?;
    guest.plug("late", 0, &VhostBlk::new(daemon.socket()))?;
    guest.ok(
        "while ! [ -b /dev/vda ]; do usleep 10000; done; dd if=/dev/vda of=/dev/null count=8",
    )?;
    guest.unplug("late", SOON)?;
    guest.ok("while [ -b /dev/vda ]; do usleep 10000; done")?;
    Ok(())
}

/// Two servers on one image, as two nodes on shared storage; the guest goes from one to the other
/// and back.
#[test]
fn a_guest_moves_with_its_load() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let image = disk(dir.path())?;
    let here = dir.path().join("here.sock");
    let there = dir.path().join("there.sock");
    let daemons =
        [StorageDaemon::serve(&image, &here, 1)?, StorageDaemon::serve(&image, &there, 1)?];
    let builder = Guest::builder().memory_mib(256).image(verifier()?);
    let at = |index: usize| builder.clone().disk(VhostBlk::new(daemons[index].socket()));
    let mut guest = at(0).boot()?;
    let load = guest.start("verify load /dev/vda --fresh --memory-mib 4 --threads 4")?;
    load.wait_for_text("started", SOON)?;
    for moves in 1..=loops(1) {
        let (moved, report) = guest.migrate(&at(moves as usize % 2))?;
        println!("move {moves}: {report:?}");
        guest = moved;
        assert!(!load.has_ended(), "{}", load.stdout_so_far());
        assert_eq!(guest.ok("echo alive")?, "alive");
    }
    load.close_input()?;
    let verdict = Report::parse(&load.wait(SOON)?.text())?.check()?;
    println!("{verdict:?}");
    Ok(())
}
