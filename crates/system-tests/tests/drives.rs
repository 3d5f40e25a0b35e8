//! Virtual drives of two clients' SCSI hosts, as their kernels see them over vhost-user-scsi: what
//! is in them, who locks them, the operator's button, and a server that dies meanwhile.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::debian::output_of;
use system_tests::disc::{noise, with_content};
use system_tests::{Context, Guest, GuestImage, Node, Result};

const SOON: Duration = Duration::from_secs(60);
/// How long the operator waits for clients that lock a medium.
const LETTING_GO: Duration = Duration::from_secs(5);
/// Where a volume of ISO 9660 has its name.
const LABEL: &str = "dd if=/dev/sr0 bs=1 skip=32808 count=32 2>/dev/null";
const MOUNT: &str = "mount -t iso9660 -o ro /dev/sr0 /mnt";
const CLIENTS: [&str; 2] = ["one", "two"];

/// A guest with the SCSI host of a client. Its kernel asks the drive for events, as udev makes it,
/// and what it says of them is in `/tmp/events`.
fn guest(node: &Node, client: &str) -> Result<Guest> {
    let socket = node.socket(client, 2);
    let chardev = format!("socket,id=scsi-socket,path={},reconnect-ms=100", socket.display());
    let device = "vhost-user-scsi-pci,chardev=scsi-socket,num_queues=2";
    let builder = Guest::builder().image(GuestImage::new().with_package("eject"));
    let builder = ["virtio_scsi", "sr_mod", "isofs"]
        .into_iter()
        .fold(builder, |it, module| it.module(module));
    let guest = builder.arguments(&["-chardev", &chardev, "-device", device]).boot()?;
    guest.ok("until [ -b /dev/sr0 ]; do usleep 10000; done")?;
    // Else Linux draws the tray in when the drive is opened.
    guest.ok("echo 0 > /proc/sys/dev/cdrom/autoclose")?;
    guest.ok("uevent env >> /tmp/events 2>&1 &")?;
    guest.ok("echo 500 > /sys/block/sr0/events_poll_msecs")?;
    Ok(guest)
}

/// Waits for an event of the drive, and forgets those so far.
fn event(guest: &Guest, name: &str) -> Result<()> {
    guest.ok(&format!("until grep -q {name}=1 /tmp/events; do usleep 100000; done"))?;
    guest.ok(": > /tmp/events").map(drop)
}

/// The kernels of the guests say that there is another medium, and show this one.
fn all_see(guests: &[Guest], label: &str) -> Result<()> {
    for guest in guests {
        event(guest, "DISK_MEDIA_CHANGE")?;
        assert_eq!(guest.ok(LABEL)?.trim(), label);
    }
    Ok(())
}

fn add(node: &Node, dir: &Path, label: &str, content: &[u8]) -> Result<()> {
    let image = with_content(dir, label, content)?;
    let path = image.to_str().context(|| "a path that is no text".into())?;
    node.cli(&["media", "add", path, "--name", &label.to_lowercase()]).map(drop)
}

fn drive(node: &Node) -> Result<Value> {
    node.cli(&["drive", "show", "dvd"])
}

/// The operator's button while both guests have the medium mounted: they are told, and what they do
/// about it decides.
fn the_button(node: &Node, guests: &[Guest; 2]) -> Result<()> {
    assert_eq!(drive(node)?["locked_by"].as_array().map(Vec::len), Some(2));
    let (code, said) = node.cli_fails(&["drive", "load", "dvd", "second"])?;
    assert_eq!(code, 5, "{said}");
    assert_eq!(said.matches("naa.3").count(), 2, "{said}");
    for guest in guests {
        event(guest, "DISK_EJECT_REQUEST")?;
        // As udev does; Linux tells of a wish again only when somebody has opened the drive.
        guest.ok("ls /mnt/content && : < /dev/sr0")?;
    }
    // This time they let go.
    let let_go = "until grep -q DISK_EJECT_REQUEST=1 /tmp/events; do usleep 100000; done; \
                  umount /mnt && : > /tmp/events";
    let jobs = [guests[0].start(let_go)?, guests[1].start(let_go)?];
    let begin = Instant::now();
    node.cli(&["drive", "load", "dvd", "second"])?;
    assert!(begin.elapsed() < LETTING_GO, "{:?}", begin.elapsed());
    for job in jobs {
        assert_eq!(job.wait(SOON)?.status, 0);
    }
    Ok(())
}

/// The guests' own buttons: one tray for both, which opens unless one of them locks it.
fn the_tray(node: &Node, [one, two]: &[Guest; 2]) -> Result<()> {
    two.ok("eject -i on /dev/sr0")?;
    // Linux does not tell `eject` that the drive has refused.
    one.run("eject /dev/sr0")?;
    assert_eq!(drive(node)?["tray"], "closed");
    assert_eq!(one.ok(LABEL)?.trim(), "SECOND");
    two.ok("eject -i off /dev/sr0")?;
    one.ok("eject /dev/sr0")?;
    assert_eq!(drive(node)?["tray"], "open");
    assert_ne!(two.run(MOUNT)?.status, 0);
    two.ok("eject -t /dev/sr0")?;
    assert_eq!(drive(node)?["tray"], "closed");
    Ok(())
}

#[test]
fn two_guests_and_the_operator_share_a_drive() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::on(&dir.path().join("node")).start()?;
    let content = noise(5 << 20, 7);
    add(&node, dir.path(), "FIRST", &content)?;
    add(&node, dir.path(), "SECOND", b"2")?;
    node.cli(&["drive", "create", "dvd", "--medium", "first", "--shareable"])?;
    for client in CLIENTS {
        node.cli(&["client", "create", client])?;
        node.cli(&["map", "dvd", "--to", client, "--via", "vhost-user-scsi"])?;
    }
    let guests = [guest(&node, CLIENTS[0])?, guest(&node, CLIENTS[1])?];
    std::fs::write(dir.path().join("content"), &content)?;
    let sum = output_of(Command::new("sha256sum").arg(dir.path().join("content")))?;
    let sum = format!("{}  /mnt/content\n", sum.split(' ').next().unwrap_or_default());
    for guest in &guests {
        guest.put("/tmp/sum", sum.as_bytes())?;
        assert_eq!(guest.ok("cat /sys/block/sr0/ro /sys/block/sr0/removable")?, "1\n1");
        // First, for Linux unlocks the tray where it fails to open.
        assert_ne!(guest.run("dd if=/dev/zero of=/dev/sr0 count=1")?.status, 0);
        guest.ok(MOUNT)?;
        guest.ok("sha256sum -c /tmp/sum")?;
        guest.ok(": > /tmp/events")?;
    }
    the_button(&node, &guests)?;
    all_see(&guests, "SECOND")?;
    the_tray(&node, &guests)?;
    all_see(&guests, "SECOND")?;

    node.cli(&["drive", "eject", "dvd"])?;
    assert_eq!(
        (&drive(&node)?["medium"], &drive(&node)?["tray"]),
        (&json!(null), &json!("closed"))
    );
    for guest in &guests {
        assert_ne!(guest.run(MOUNT)?.status, 0);
    }
    node.cli(&["drive", "load", "dvd", "first"])?;
    all_see(&guests, "FIRST")?;

    // The server dies while both read; neither notices more than a pause.
    let mut jobs = Vec::new();
    for guest in &guests {
        guest.ok(&format!("{MOUNT} && echo 3 > /proc/sys/vm/drop_caches"))?;
        let job = guest.start("echo begun; sha256sum -c /tmp/sum && umount /mnt")?;
        job.wait_for_text("begun", SOON)?;
        jobs.push(job);
    }
    node.kill()?;
    assert!(jobs.iter().all(|job| !job.has_ended()));
    node.start()?;
    for job in jobs {
        let output = job.wait(SOON)?;
        assert_eq!(output.status, 0, "{output:?}");
    }
    assert_eq!(drive(&node)?["locked_by"], json!([]));
    Ok(())
}
