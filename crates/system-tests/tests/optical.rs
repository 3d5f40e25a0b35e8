//! Virtual optical drives of the real binary: the library, and drives as a guest's kernel sees
//! them.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use system_tests::disc::{noise, with_content as disc};
use system_tests::{Context, Guest, GuestImage, Node, Qemu, Result};

const GUEST: &str = "iqn.2026-11.org.viaduct.test:guest";
const DRIVE_IS_THERE: &str =
    "for i in $(seq 100); do [ -b /dev/sr0 ] && break; usleep 100000; done; [ -b /dev/sr0 ]";
/// Where a volume of ISO 9660 has its name.
const LABEL: &str = "dd if=/dev/sr0 bs=1 skip=32808 count=32 2>/dev/null";

fn text(path: &Path) -> Result<&str> {
    path.to_str().context(|| format!("{} is no text", path.display()))
}

fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// A command that says in a guest whether the file of a mounted disc is this.
fn check_of(dir: &Path, content: &[u8]) -> Result<String> {
    let path = dir.join("wanted");
    fs::write(&path, content)?;
    Ok(format!("echo '{}  /mnt/content' | sha256sum -c", sha256(&path)?))
}

fn drive(node: &Node, name: &str) -> Result<Value> {
    node.cli(&["drive", "show", name])
}

/// Files in the library.
fn files(node: &Node) -> Result<Vec<String>> {
    let entries = fs::read_dir(node.data().join("media"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[test]
fn media_are_what_was_in_the_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::on(&dir.path().join("node")).start()?;
    let image = disc(dir.path(), "FIRST", &noise(3 << 20, 1))?;
    let added = node.cli(&["media", "add", text(&image)?, "--name", "first"])?;
    let sum = sha256(&image)?;
    assert_eq!((&added["label"], &added["sha256"]), (&"FIRST".into(), &sum.clone().into()));
    assert_eq!(added["boots"], Value::Array(Vec::new()));
    let copy = node.data().join(format!("media/{}.iso", added["uuid"].as_str().unwrap_or("?")));
    assert_eq!(sha256(&copy)?, sum);

    let refused = |arguments: &[&str]| node.cli_fails(arguments);
    let add = |name: &str, content: &[u8], more: &[&str]| {
        let path = dir.path().join(name);
        fs::write(&path, content)?;
        refused(&[&["media", "add", text(&path)?], more].concat())
    };
    let (code, said) = add("letter.txt", b"Dear guest", &[])?;
    assert!(code == 2 && said.contains("neither an ISO 9660 nor a UDF volume"), "{said}");
    let (code, said) = add("disk.qcow2", b"QFI\xfb", &["--force"])?;
    assert!(code == 2 && said.contains("is a qcow2 image"), "{said}");
    let (code, said) = add("empty", b"", &["--force"])?;
    assert!(code == 2 && said.contains("has 0 bytes"), "{said}");
    let (code, said) = add("half", &fs::read(&image)?[..1 << 20], &[])?;
    assert!(code == 2 && said.contains("was cut off"), "{said}");
    let (code, said) = add("a b.iso", &fs::read(&image)?, &[])?;
    assert!(code == 2 && said.contains("no name can be made of"), "{said}");
    let (code, said) = refused(&["media", "add", text(&image)?, "--name", "first"])?;
    assert!(code == 4 && said.contains("has a medium 'first' already"), "{said}");
    let (code, said) = refused(&["media", "add", "/nowhere/at.iso"])?;
    assert!(code == 3 && said.contains("there is no file /nowhere/at.iso"), "{said}");
    let (code, said) = refused(&["media", "add", text(&copy)?, "--name", "again"])?;
    assert!(code == 2 && said.contains("the node's own data directory"), "{said}");
    assert_eq!(files(&node)?.len(), 1);

    let odd = dir.path().join("odd.raw");
    fs::write(&odd, noise(5000, 2))?;
    let added = node.cli(&["media", "add", text(&odd)?, "--force"])?;
    assert_eq!((&added["size"], &added["padding"]), (&6144.into(), &1144.into()));
    assert_eq!(added["sha256"], sha256(&odd)?.as_str());

    node.cli(&["drive", "create", "dvd", "--medium", "first"])?;
    let (code, said) = node.cli_fails(&["media", "rm", "first"])?;
    assert!(code == 4 && said.contains("loaded in drive dvd"), "{said}");
    node.kill()?;
    node.start()?;
    assert_eq!(drive(&node, "dvd")?["medium"], "first");
    node.cli(&["drive", "eject", "dvd"])?;
    node.cli(&["media", "rm", "first"])?;
    assert_eq!(node.cli(&["media", "ls"])?[0]["name"], "odd");
    assert_eq!(files(&node)?.len(), 1);
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn a_copy_that_is_interrupted_leaves_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::on(&dir.path().join("node")).start()?;
    let image = disc(dir.path(), "LARGE", &noise(96 << 20, 1))?;
    let begun = |node: &Node| -> Result<std::process::Child> {
        let child = node.command(&["media", "add", text(&image)?, "--name", "large"])?.spawn()?;
        while files(node)?.is_empty() {
            std::thread::yield_now();
        }
        Ok(child)
    };
    // The command is interrupted.
    let mut child = begun(&node)?;
    child.kill()?;
    assert!(child.wait()?.signal().is_some(), "it was done before it was interrupted");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !files(&node)?.is_empty() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!(files(&node)?, [""; 0]);
    assert_eq!(node.cli(&["media", "ls"])?, Value::Array(Vec::new()));
    // The node is killed.
    let mut child = begun(&node)?;
    node.kill()?;
    assert!(!child.wait()?.success());
    assert_eq!(files(&node)?.len(), 1);
    node.start()?;
    assert_eq!(files(&node)?, [""; 0]);
    assert_eq!(node.cli(&["media", "ls"])?, Value::Array(Vec::new()));
    Ok(())
}

#[test]
fn drives_share_their_names_with_lus() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::on(&dir.path().join("node")).start()?;
    node.cli(&["lu", "create", "disk", "--size", "16M"])?;
    node.cli(&["drive", "create", "dvd"])?;
    node.cli(&["client", "create", "one", "--iqn", GUEST])?;
    node.cli(&["client", "create", "two"])?;
    for (arguments, code, part) in [
        (&["drive", "create", "disk"][..], 4, "LU 'disk' exists already"),
        (&["lu", "create", "dvd", "--size", "1M"], 4, "drive 'dvd' exists already"),
        (&["drive", "create", "dvd2", "--medium", "x"], 3, "there is no medium 'x'"),
        (&["drive", "load", "dvd", "x"], 3, "there is no medium 'x'"),
        (&["drive", "eject", "disk"], 3, "there is no drive 'disk'"),
        (&["map", "dvd", "--to", "one", "--via", "vhost-user-blk"], 2, "disks only"),
    ] {
        let (exit, said) = node.cli_fails(arguments)?;
        assert!(exit == code && said.contains(part), "{arguments:?}: {exit} {said}");
    }
    node.cli(&["drive", "eject", "dvd"])?;
    node.cli(&["drive", "rm", "dvd"])?;
    Ok(())
}

/// A guest with the drives and disks of its client, which it reaches as 10.0.2.2.
fn guest(node: &Node) -> Result<Guest> {
    let status = node.cli(&["status"])?;
    let portal = status["iscsi"][0].as_str().context(|| format!("no portal in {status}"))?;
    let port = portal.rsplit_once(':').map(|(_, port)| port).context(|| portal.to_owned())?;
    let target = node.cli(&["client", "show", "guest"])?["iscsi"]["target"].clone();
    let target = target.as_str().context(|| "no target".to_owned())?;
    let image = GuestImage::new().with_package("open-iscsi").with_package("eject");
    let mut builder = Guest::builder().qemu(Qemu::V10).image(image);
    for module in ["virtio_net", "iscsi_tcp", "sr_mod", "isofs"] {
        builder = builder.module(module);
    }
    let network = ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="];
    let guest = builder.arguments(&network).boot()?;
    guest.ok("ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up")?;
    guest.ok("mkdir -p /etc/iscsi /run/lock && touch /etc/iscsi/iscsid.conf")?;
    guest.ok(&format!("echo InitiatorName={GUEST} > /etc/iscsi/initiatorname.iscsi"))?;
    guest.ok("iscsid && while ! grep -q ISCSIADM /proc/net/unix; do usleep 10000; done")?;
    let admin = format!("iscsiadm -m node -T {target} -p 10.0.2.2:{port}");
    guest.ok(&format!("{admin} -o new && {admin} --login"))?;
    guest.ok(DRIVE_IS_THERE)?;
    // Else Linux draws the tray in when the drive is opened.
    guest.ok("echo 0 > /proc/sys/dev/cdrom/autoclose")?;
    Ok(guest)
}

fn restarted_and_forced(node: &mut Node, guest: &Guest) -> Result<()> {
    // An open tray is open after a restart, and what is put in closes it.
    guest.ok("eject /dev/sr0")?;
    node.kill()?;
    node.start()?;
    assert_eq!(drive(node, "dvd")?["tray"], "open");
    assert_ne!(guest.run("mount -t iso9660 -o ro /dev/sr0 /mnt")?.status, 0);
    let (code, said) = node.cli_fails(&["media", "rm", "second"])?;
    assert!(code == 4 && said.contains("loaded in drive dvd"), "{said}");
    node.cli(&["drive", "load", "dvd", "first"])?;
    assert_eq!(drive(node, "dvd")?["tray"], "closed");
    assert_eq!(guest.ok(LABEL)?.trim(), "FIRST");

    // A locked tray opens by force.
    guest.ok("eject -i on /dev/sr0")?;
    assert_eq!(node.cli_fails(&["drive", "eject", "dvd"])?.0, 5);
    assert_eq!(guest.ok(LABEL)?.trim(), "FIRST");
    let emptied = node.cli(&["drive", "eject", "dvd", "--force"])?;
    assert_eq!(emptied["medium"], Value::Null);
    assert_ne!(guest.run("mount -t iso9660 -o ro /dev/sr0 /mnt")?.status, 0);
    guest.ok("eject -i off /dev/sr0")?;
    node.cli(&["media", "rm", "second"])?;
    Ok(())
}

#[test]
fn a_guest_and_the_operator_share_a_drive() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("node");
    // The same after a restart, and none that Linux gives to somebody else meanwhile.
    let portal = format!("127.0.0.1:{}", 20_000 + std::process::id() % 10_000);
    let mut node = Node::on(&data).arguments(&["--iscsi", &portal]).start()?;
    let content = noise(5 << 20, 7);
    let (first, second) = (disc(dir.path(), "FIRST", &content)?, disc(dir.path(), "SECOND", b"2")?);
    node.cli(&["media", "add", text(&first)?, "--name", "first"])?;
    node.cli(&["media", "add", text(&second)?, "--name", "second"])?;
    node.cli(&["drive", "create", "dvd", "--medium", "first"])?;
    node.cli(&["client", "create", "guest", "--iqn", GUEST])?;
    node.cli(&["map", "dvd", "--to", "guest", "--via", "iscsi"])?;
    let guest = guest(&node)?;

    // It is mounted, and read from end to end.
    let check = check_of(dir.path(), &content)?;
    guest.ok(&format!("mount -t iso9660 -o ro /dev/sr0 /mnt && {check}"))?;
    assert_eq!(guest.ok("cat /sys/block/sr0/ro /sys/block/sr0/removable")?, "1\n1");
    assert_eq!(guest.ok("blockdev --getss /dev/sr0")?, "2048");

    // What is mounted is locked: the operator is told so, and nothing happens to it.
    assert_eq!(drive(&node, "dvd")?["locked_by"].as_array().map(Vec::len), Some(1));
    let (code, said) = node.cli_fails(&["drive", "load", "dvd", "second"])?;
    assert!(
        code == 5 && said.contains("locked in drive 'dvd' by") && said.contains(GUEST),
        "{said}"
    );
    guest.ok(&format!("echo 3 > /proc/sys/vm/drop_caches && {check} && umount /mnt"))?;

    // Another medium is seen as such.
    node.cli(&["drive", "load", "dvd", "second"])?;
    assert_eq!(guest.ok(LABEL)?.trim(), "SECOND");
    guest.ok("mount -t iso9660 -o ro /dev/sr0 /mnt && grep -q 2 /mnt/content && umount /mnt")?;
    let size = fs::metadata(&second)?.len();
    assert_eq!(guest.ok("blockdev --getsize64 /dev/sr0")?, size.to_string());

    // The guest opens the tray and closes it.
    guest.ok("eject /dev/sr0")?;
    let view = drive(&node, "dvd")?;
    assert_eq!((&view["tray"], &view["medium"]), (&"open".into(), &"second".into()));
    assert_ne!(guest.run("mount -t iso9660 -o ro /dev/sr0 /mnt")?.status, 0);
    guest.ok("eject -t /dev/sr0")?;
    assert_eq!(drive(&node, "dvd")?["tray"], "closed");
    assert_eq!(guest.ok(LABEL)?.trim(), "SECOND");

    restarted_and_forced(&mut node, &guest)?;

    // Killed in the middle of reading, it is back before the guest gives up.
    node.cli(&["drive", "load", "dvd", "first"])?;
    guest.ok("mount -t iso9660 -o ro /dev/sr0 /mnt && echo 3 > /proc/sys/vm/drop_caches")?;
    let reading = guest.start(&format!("{check} && umount /mnt"))?;
    node.kill()?;
    node.start()?;
    let read = reading.wait(std::time::Duration::from_secs(60))?;
    assert_eq!(read.status, 0, "{read:?}");
    guest.quit()?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn one_medium_is_in_several_drives_at_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::on(&dir.path().join("node")).arguments(&["--iscsi", "127.0.0.1:0"]).start()?;
    let content = noise(1 << 20, 3);
    let image = disc(dir.path(), "SHARED", &content)?;
    node.cli(&["media", "add", text(&image)?, "--name", "shared"])?;
    node.cli(&["client", "create", "guest", "--iqn", GUEST])?;
    node.cli(&["client", "create", "other", "--iqn", "iqn.2026-11.org.viaduct.test:other"])?;
    for drive in ["one", "two"] {
        node.cli(&["drive", "create", drive, "--medium", "shared"])?;
        node.cli(&["map", drive, "--to", "guest", "--via", "iscsi"])?;
    }
    let (code, said) = node.cli_fails(&["map", "one", "--to", "other", "--via", "iscsi"])?;
    assert!(code == 4 && said.contains("drive 'one' is not shareable"), "{said}");
    let guest = guest(&node)?;
    guest.ok("while ! [ -b /dev/sr1 ]; do usleep 100000; done; mkdir /other")?;
    let check = check_of(dir.path(), &content)?;
    let other = check.replace("/mnt", "/other");
    guest.ok("mount -t iso9660 -o ro /dev/sr0 /mnt && mount -t iso9660 -o ro /dev/sr1 /other")?;
    guest.ok(&format!("{check} && {other} && umount /other"))?;
    node.cli(&["drive", "eject", "two"])?;
    guest.ok(&format!("echo 3 > /proc/sys/vm/drop_caches && {check} && umount /mnt"))?;
    guest.quit()?;
    Ok(())
}
