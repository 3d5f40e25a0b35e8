//! A drive of the node as a drive of its clients. The node runs in a guest, whose drive is QEMU's:
//! its tray, its discs and its button are moved from outside; the client is open-iscsi in the same
//! guest, for which that drive is another one.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::disc::{noise, with_content};
use system_tests::guest::Job;
use system_tests::{Context, Error, Guest, GuestImage, Result, node};

const SOON: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const GUEST: &str = "iqn.2026-11.org.viaduct.test:guest";
/// Where a volume of ISO 9660 has its name.
const LABEL: &str = "dd if=/dev/sr1 bs=1 skip=32808 count=32 2>/dev/null";
const DATA: &str = "/tmp/node";
const MODULES: [&str; 6] = ["virtio_scsi", "sr_mod", "isofs", "loop", "virtio_net", "iscsi_tcp"];

/// A guest with a drive of its own, `/dev/sr0`, that holds this.
fn guest(image: &Path) -> Result<Guest> {
    let content = GuestImage::new()
        .with_host_program("viaduct", &node::binary()?)
        .with_package("open-iscsi")
        .with_package("eject");
    let builder = MODULES.into_iter().fold(Guest::builder(), |it, module| it.module(module));
    let drive = format!("if=none,id=disc,media=cdrom,readonly=on,file={}", image.display());
    let guest = builder
        .memory_mib(768)
        .image(content)
        .arguments(&["-device", "virtio-scsi-pci,id=host", "-drive", &drive])
        .arguments(&["-device", "scsi-cd,bus=host.0,drive=disc,id=cd"])
        .boot()?;
    guest.ok("until [ -b /dev/sr0 ]; do usleep 100000; done")?;
    // Else Linux draws the tray in when a drive is opened.
    guest.ok("echo 0 > /proc/sys/dev/cdrom/autoclose")?;
    Ok(guest)
}

/// Starts the node, again or for the first time.
fn start(guest: &Guest) -> Result<Job> {
    let job = guest
        .start(&format!("exec viaduct up --data {DATA} --http off --iscsi 127.0.0.1:3260 2>&1"))?;
    let answers = guest.run(&format!(
        "until VIADUCT_DATA={DATA} viaduct status > /dev/null 2>&1; do usleep 100000; done"
    ));
    answers.context(|| job.stdout_so_far())?;
    Ok(job)
}

fn cli(guest: &Guest, arguments: &str) -> Result<Value> {
    let text = guest.ok(&format!("VIADUCT_DATA={DATA} viaduct {arguments} -o json"))?;
    serde_json::from_str(&text).context(|| format!("viaduct {arguments}"))
}

/// Waits until the drive is seen like this.
fn until(guest: &Guest, key: &str, value: &Value) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let seen = cli(guest, "drive show dvd")?;
        if seen[key] == *value {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("{key} never is {value}: {seen}")));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Logs in, and finds the client's drive: `/dev/sr1`.
fn log_in(guest: &Guest) -> Result<()> {
    let target = cli(guest, "client show guest")?["iscsi"]["target"].clone();
    let target = target.as_str().context(|| "no target".to_owned())?;
    guest.ok("mkdir -p /etc/iscsi /run/lock && touch /etc/iscsi/iscsid.conf")?;
    guest.ok(&format!("echo InitiatorName={GUEST} > /etc/iscsi/initiatorname.iscsi"))?;
    guest.ok("iscsid && while ! grep -q ISCSIADM /proc/net/unix; do usleep 10000; done")?;
    let admin = format!("iscsiadm -m node -T {target} -p 127.0.0.1:3260");
    guest.ok(&format!("{admin} -o new && {admin} --login"))?;
    guest.ok("until [ -b /dev/sr1 ]; do usleep 100000; done").map(drop)
}

fn label(guest: &Guest) -> Result<String> {
    guest.ok(LABEL)
}

/// What QEMU says of its drive.
fn tray_is_open(guest: &mut Guest) -> Result<bool> {
    let drives = guest.qmp("query-block", json!({}))?;
    let drive = drives.as_array().and_then(|all| all.iter().find(|it| it["qdev"] == "cd"));
    let open = drive.and_then(|drive| drive["tray_open"].as_bool());
    open.context(|| format!("no tray in {drives}"))
}

fn put_in(guest: &mut Guest, image: &Path) -> Result<()> {
    let medium = json!({ "id": "cd", "filename": image, "format": "raw", "force": true });
    guest.qmp("blockdev-change-medium", medium).map(drop)
}

fn bad_devices_are_refused(guest: &Guest) -> Result<()> {
    for (options, part) in [
        ("--device /dev/sr7", "there is no drive /dev/sr7"),
        ("--device /etc/passwd", "/etc/passwd is no drive"),
        ("--device /dev/null", "/dev/null is no drive"),
        ("--device /dev/sr0", "/dev/sr0 is drive 'dvd' already"),
        ("--device /dev/sr0 --medium disc", "cannot be used with"),
    ] {
        let refused =
            guest.run(&format!("VIADUCT_DATA={DATA} viaduct drive create bad {options}"))?;
        let said = refused.error_text();
        assert!(refused.status != 0 && said.contains(part), "{options}: {said}");
    }
    let load = guest.run(&format!("VIADUCT_DATA={DATA} viaduct drive load dvd disc"))?;
    assert!(load.error_text().contains("has what is in /dev/sr0"), "{}", load.error_text());
    Ok(())
}

/// A block device that is no drive: an image on a loop device, which comes later.
fn a_loop_device_is_a_disc(guest: &Guest) -> Result<()> {
    guest.ok("dd if=/dev/sr1 of=/tmp/copy bs=64k 2>/dev/null; [ -b /dev/loop0 ]")?;
    cli(guest, "drive create loop --device /dev/loop0")?;
    cli(guest, "map loop --to guest --via iscsi")?;
    guest.ok("iscsiadm -m session --rescan")?;
    guest.ok("until [ -b /dev/sr2 ]; do usleep 100000; done")?;
    assert_ne!(guest.run("dd if=/dev/sr2 of=/dev/null count=1")?.status, 0);
    guest.ok("losetup -r /dev/loop0 /tmp/copy")?;
    guest.ok("until cmp /dev/sr2 /tmp/copy 2>/dev/null; do usleep 100000; done").map(drop)
}

#[test]
fn a_drive_of_the_node_is_one_of_its_client() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let first = with_content(dir.path(), "FIRST", &noise(1 << 20, 1))?;
    let second = with_content(dir.path(), "SECOND", b"2")?;
    let mut guest = guest(&first)?;
    let node = start(&guest)?;
    let created = cli(&guest, "drive create dvd --device /dev/sr0 --shareable")?;
    assert_eq!(created["device"], "/dev/sr0");
    bad_devices_are_refused(&guest)?;
    until(&guest, "loaded", &json!(true))?;
    cli(&guest, &format!("client create guest --iqn {GUEST}"))?;
    cli(&guest, "map dvd --to guest --via iscsi")?;
    log_in(&guest)?;

    // The disc in it is read through the node as it is there.
    assert_eq!(label(&guest)?.trim(), "FIRST");
    guest.ok("cmp /dev/sr0 /dev/sr1")?;
    a_loop_device_is_a_disc(&guest)?;

    // Another one is put in there.
    put_in(&mut guest, &second)?;
    guest.ok(&format!("until {LABEL} | grep -q SECOND; do usleep 100000; done"))?;

    // The client ejects it, and the tray there opens.
    guest.ok("eject /dev/sr1")?;
    until(&guest, "tray", &json!("open"))?;
    let deadline = Instant::now() + SOON;
    while !tray_is_open(&mut guest)? {
        assert!(Instant::now() < deadline, "the tray does not open: {}", node.stdout_so_far());
        thread::sleep(LOOK_AGAIN);
    }
    guest.ok("eject -t /dev/sr1")?;
    until(&guest, "loaded", &json!(true))?;
    assert!(!tray_is_open(&mut guest)?);
    assert_eq!(label(&guest)?.trim(), "SECOND");

    // The node is killed, and back: so is what is in the drive.
    node.signal("KILL")?;
    // A request to a drive may keep it, and its data directory, for a while.
    node.wait(SOON)?;
    let node = start(&guest)?;
    until(&guest, "loaded", &json!(true))?;
    assert_eq!(label(&guest)?.trim(), "SECOND");

    // What a client locks is held in the drive there; the operator is told who does.
    guest.ok("eject -i on /dev/sr1")?;
    let refused = guest.run(&format!("VIADUCT_DATA={DATA} viaduct drive eject dvd"))?;
    assert!(refused.status == 5, "{}", refused.error_text());
    assert!(refused.error_text().contains(GUEST), "{}", refused.error_text());
    guest.ok("eject -i off /dev/sr1")?;
    cli(&guest, "drive eject dvd")?;
    until(&guest, "tray", &json!("open"))?;
    println!("{}", node.stdout_so_far());
    guest.quit()?;
    Ok(())
}
