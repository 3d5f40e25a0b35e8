//! iSCSI of the real binary with the initiators that people use: open-iscsi in a guest, with and
//! without a device mapper above it, and QEMU's own.
//!
//! libiscsi's conformance suite is in `iscsi_suite`.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use system_tests::cache::Cache;
use system_tests::debian::Tree;
use system_tests::guest::COMMAND_TIMEOUT;
use system_tests::image::own_program;
use system_tests::iscsi::{map_to_tool, node, port_of, qemu_img, run_qemu_img, target_of};
use system_tests::open_iscsi::{DIGESTS, Initiator};
use system_tests::verify::Report;
use system_tests::{Context, Guest, GuestImage, Node, Qemu, Result};

const ONE: &str = "iqn.2026-11.org.viaduct.test:one";
const TWO: &str = "iqn.2026-11.org.viaduct.test:two";
const SECRET: &str = "the secret of one";
const SECRET_OF_NODE: &str = "the secret of the node";

/// udev's program, with the libraries that open-iscsi has in a guest.
const SCSI_ID: &str = "/opt/open-iscsi/lib/ld.so --library-path /opt/open-iscsi/lib /scsi_id";

/// How long requests may wait while a session is made anew.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// How much of a load is waited for after each thing that is done to it.
const LOAD_MORE: Duration = Duration::from_secs(3);

/// A port that stays the same when a node is started again.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Makes a client and maps these LUs to it at the LUNs 0, 1...
fn client(node: &Node, name: &str, iqn: &str, lus: &[&str]) -> Result<String> {
    node.cli(&["client", "create", name, "--iqn", iqn])?;
    for lu in lus {
        node.cli(&["map", lu, "--to", name, "--via", "iscsi"])?;
    }
    target_of(node, name)
}

fn text_of(node: &Node, arguments: &[&str]) -> Result<String> {
    let output = node.command(arguments)?.output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_guest_logs_in_uses_a_disk_and_comes_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, portal) = node(&dir.path().join("node"), 0)?;
    node.cli(&["lu", "create", "disk", "--size", "64M"])?;
    let target = client(&node, "guest", ONE, &["disk"])?;
    let port = port_of(&portal)?;
    let initiator = Initiator::boot(GuestImage::new().with_package("e2fsprogs"), &["ext4"])?;
    let guest = &initiator.guest;
    initiator.start(ONE, &[])?;
    initiator.log_in(&target, port, None)?;
    let disk = format!("/dev/{}", initiator.disk(&target, 0)?);
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {disk}"))?, (64 << 20).to_string());
    guest.ok(&format!("mkfs.ext4 -q {disk} && mount -o discard {disk} /mnt"))?;
    guest
        .ok("dd if=/dev/urandom of=/mnt/file bs=64k count=200 && sync && md5sum /mnt/file > /a")?;
    guest.ok("echo 3 > /proc/sys/vm/drop_caches && md5sum -c /a")?;
    tools_understand(guest, &disk)?;

    node.cli(&["lu", "resize", "disk", "--size", "96M"])?;
    let name = disk.trim_start_matches("/dev/");
    guest.ok(&format!("echo 1 > /sys/block/{name}/device/rescan"))?;
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {disk}"))?, (96 << 20).to_string());
    guest.ok(&format!("umount /mnt && fsck.ext4 -fn {disk}"))?;
    // Smaller again: the next command is told, and the kernel says what of.
    guest.ok("dmesg -c > /dev/null")?;
    node.cli(&["lu", "resize", "disk", "--size", "80M", "--shrink"])?;
    guest.ok(&format!("dd if={disk} of=/dev/null bs=64k count=1 iflag=direct"))?;
    let said = guest.ok("dmesg")?;
    assert!(said.to_lowercase().contains("capacity data has changed"), "{said}");
    guest.ok(&format!("echo 1 > /sys/block/{name}/device/rescan"))?;
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {disk}"))?, (80 << 20).to_string());
    initiator.admin(&format!("-m node -T {target} --logout"))?;
    initiator.admin(&format!("-m node -T {target} --login"))?;
    let disk = format!("/dev/{}", initiator.disk(&target, 0)?);
    guest.ok(&format!("mount {disk} /mnt && md5sum -c /a && umount /mnt"))?;
    initiator.admin(&format!("-m node -T {target} --logout"))?;
    initiator.guest.quit()?;
    assert!(node.stop()?.success());
    Ok(())
}

/// Every page that the unit says it has is decoded, and by the name of what it is.
fn tools_understand(guest: &Guest, disk: &str) -> Result<()> {
    let inquiry = guest.ok(&format!("sg_inq --descriptors {disk} && sg_inq {disk}"))?;
    for word in ["VIADUCT", "Virtual Disk", "SBC-3", "CmdQue=1"] {
        assert!(inquiry.contains(word), "no {word} in {inquiry}");
    }
    // The numbers of the pages stand in the last line, in hexadecimal.
    let pages = guest.ok(&format!("sg_vpd --page=0x00 --raw {disk} | od -An -v -tx1"))?;
    let pages: Vec<&str> = pages.split_whitespace().skip(4).collect();
    assert!(pages.len() > 7, "{pages:?}");
    for page in pages {
        let said = guest.ok(&format!("sg_vpd --page=0x{page} {disk} 2>&1"))?;
        let is_unknown = ["page=0x", "no decode", "Only hex", "malformed", "invalid"];
        assert!(!is_unknown.iter().any(|word| said.contains(word)), "page {page}: {said}");
    }
    let modes = guest.ok(&format!("sg_modes --all {disk}"))?;
    for page in ["Read-Write error recovery", "Caching", "Control", "Informational exceptions"] {
        assert!(modes.contains(page), "no {page} in {modes}");
    }
    let logs = guest.ok(&format!("sg_logs --all {disk}"))?;
    for page in ["Logical block provisioning", "Informational Exceptions"] {
        assert!(logs.contains(page), "no {page} in {logs}");
    }
    guest.ok(&format!("sg_opcodes {disk} && sg_luns {disk} && sg_rtpg --decode {disk}"))?;
    guest.ok(&format!("sg_readcap --16 {disk} && sg_get_lba_status --lba=0 {disk}")).map(drop)
}

/// Shows what `connect` prints to be what to do, word for word.
#[test]
fn a_guest_does_what_connect_prints() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (node, portal) = node(&dir.path().join("node"), 0)?;
    node.cli(&["lu", "create", "disk", "--size", "64M"])?;
    node.cli(&["lu", "create", "boot", "--size", "32M"])?;
    let target = client(&node, "guest", ONE, &["disk", "boot"])?;
    let (own, mutual) = (dir.path().join("own"), dir.path().join("mutual"));
    fs::write(&own, SECRET)?;
    fs::write(&mutual, SECRET_OF_NODE)?;
    let (own, mutual) = (own.display().to_string(), mutual.display().to_string());
    let files = ["--secret-file", &own, "--mutual-secret-file", &mutual];
    node.cli(&[&["client", "chap", "guest"][..], &files].concat())?;

    let text = text_of(&node, &["connect", "guest", "--for", "open-iscsi"])?;
    let lines = || text.lines().map(str::trim);
    let name = lines().find_map(|line| line.strip_prefix("InitiatorName="));
    let name = name.context(|| format!("no name in {text}"))?;
    let accounts: Vec<String> = lines()
        .filter(|line| line.contains(".auth.") && !line.starts_with('#'))
        .map(|line| line.replace("MUTUAL-SECRET", SECRET_OF_NODE).replace("SECRET", SECRET))
        .collect();
    assert_eq!(accounts.len(), 10, "{text}");
    let tree = Tree::fetch(&Cache::open()?, "open-iscsi", &["open-iscsi"], None)?;
    let image = GuestImage::new().with_file("/scsi_id", &tree.path("lib/udev/scsi_id")?, 0o755);
    let initiator = Initiator::boot(image, &[])?;
    let guest = &initiator.guest;
    initiator.pass_on(port_of(&portal)?)?;
    initiator.start(name, &accounts.iter().map(String::as_str).collect::<Vec<_>>())?;
    let commands: Vec<&str> = lines().filter_map(|line| line.strip_prefix("iscsiadm ")).collect();
    assert_eq!(commands.len(), 3, "{text}");
    for command in commands {
        initiator.admin(command)?;
    }
    for (lun, lu) in ["disk", "boot"].iter().enumerate() {
        let disk = initiator.disk(&target, lun as u16)?;
        let device = format!("/sys/block/{disk}/device");
        // What udev, multipath and systemd go by.
        let wwid = guest.ok(&format!("{SCSI_ID} --whitelisted --device=/dev/{disk}"))?;
        let line = lines().find(|line| line.starts_with(&format!("# LU {lu},")));
        let line = line.context(|| format!("no {lu} in {text}"))?;
        assert!(line.contains(&format!("WWID {}:", wwid.trim())), "{wwid} is not in {line}");
        assert!(line.ends_with(&format!("-iscsi-{target}-lun-{lun}")), "{line}");
        for (quoted, file) in [("vendor", "vendor"), ("product", "model")] {
            let word = guest.ok(&format!("cat {device}/{file}"))?;
            let stanza = format!("{quoted} \"{}\"", word.trim());
            assert!(lines().any(|line| line == stanza), "no {stanza} in {text}");
        }
        // The stanza wants ALUA.
        assert_eq!(guest.ok(&format!("cat {device}/dh_state"))?.trim(), "alua");
    }
    Ok(())
}

/// A load on a disk of a multipath device, as whoever wants no errors has it.
struct Queued<'a> {
    initiator: &'a Initiator,
    target: &'a str,
    sectors: u64,
}

impl Queued<'_> {
    /// Puts the session's disk below the device; what waits there goes on.
    fn put_disk_below(&self, verb: &str) -> Result<()> {
        let disk = self.initiator.disk(self.target, 0)?;
        let number = self.initiator.guest.ok(&format!("cat /sys/block/{disk}/dev"))?;
        let table = format!(
            "0 {} multipath 1 queue_if_no_path 0 1 1 round-robin 0 1 1 {} 1",
            self.sectors,
            number.trim()
        );
        self.initiator.guest.ok(&format!("dmsetup {verb} queued --table '{table}'")).map(drop)
    }
}

/// The server is killed, and the initiator logs out and in, while a load runs that would see every
/// write that is lost; with digests over all that is sent.
#[test]
fn a_load_outlives_the_server_and_the_session() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let (mut node, _) = node(&dir.path().join("node"), port)?;
    node.cli(&["lu", "create", "disk", "--size", "64M"])?;
    let target = client(&node, "guest", ONE, &["disk"])?;
    let image = GuestImage::new().with_host_program("verify", &own_program("verify")?);
    let image = image.with_program("dmsetup");
    let initiator = Initiator::boot(image, &["dm_multipath", "dm_round_robin"])?;
    let guest = &initiator.guest;
    initiator.start(ONE, &DIGESTS)?;
    initiator.log_in(&target, port, None)?;
    initiator.disk(&target, 0)?;
    let connection = "/sys/class/iscsi_connection/connection*";
    assert_eq!(guest.ok(&format!("cat {connection}/header_digest"))?.trim(), "1");
    assert_eq!(guest.ok(&format!("cat {connection}/data_digest"))?.trim(), "1");
    let queued = Queued { initiator: &initiator, target: &target, sectors: (64 << 20) / 512 };
    queued.put_disk_below("create")?;
    let load = guest.start("verify load /dev/dm-0 --fresh")?;
    load.wait_for_text("started", COMMAND_TIMEOUT)?;
    std::thread::sleep(LOAD_MORE);
    node.kill()?;
    node.start()?;
    std::thread::sleep(LOAD_MORE);
    initiator.admin(&format!("-m node -T {target} --logout"))?;
    initiator.admin(&format!("-m node -T {target} --login"))?;
    initiator.disk(&target, 0)?;
    guest.ok("dmsetup suspend --noflush queued")?;
    queued.put_disk_below("reload")?;
    guest.ok("dmsetup resume queued")?;
    std::thread::sleep(LOAD_MORE);
    load.close_input()?;
    let output = load.wait(RECOVERY_MAX)?;
    let report = Report::parse(&output.text())?.check()?;
    println!("{report:?}");
    Ok(())
}

/// Two initiators of one guest at one LU.
struct Two {
    initiator: Initiator,
    targets: [String; 2],
}

impl Two {
    fn boot(node: &Node, port: u16) -> Result<Self> {
        node.cli(&["lu", "create", "shared", "--size", "64M", "--shareable"])?;
        let targets =
            [client(node, "one", ONE, &["shared"])?, client(node, "two", TWO, &["shared"])?];
        let initiator = Initiator::boot(GuestImage::new(), &[])?;
        initiator.start(ONE, &[])?;
        initiator.admin("-m iface -I second -o new")?;
        initiator
            .admin(&format!("-m iface -I second -o update -n iface.initiatorname -v {TWO}"))?;
        initiator.log_in(&targets[0], port, None)?;
        initiator.log_in(&targets[1], port, Some("second"))?;
        Ok(Self { initiator, targets })
    }

    fn disks(&self) -> Result<[String; 2]> {
        let [first, second] = &self.targets;
        let disks = [self.initiator.disk(first, 0)?, self.initiator.disk(second, 0)?];
        Ok(disks.map(|disk| format!("/dev/{disk}")))
    }

    fn persist(&self, arguments: &str) -> Result<String> {
        self.initiator.guest.ok(&format!("sg_persist {arguments}"))
    }

    fn writes(&self, disk: &str) -> Result<bool> {
        let command = format!("dd if=/dev/zero of={disk} bs=4k count=1 oflag=direct");
        Ok(self.initiator.guest.run(&command)?.status == 0)
    }
}

#[test]
fn two_initiators_share_a_disk_by_reservations() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let port = free_port()?;
    let (mut node, _) = node(&dir.path().join("node"), port)?;
    let two = Two::boot(&node, port)?;
    let [first, second] = two.disks()?;
    let guest = &two.initiator.guest;
    let wwid = |disk: &str| guest.ok(&format!("sg_vpd --page=di_lu --quiet {disk}"));
    assert_eq!(wwid(&first)?, wwid(&second)?, "it is one disk");
    guest.ok(&format!("echo hello | dd of={first} bs=4k conv=sync oflag=direct"))?;
    assert!(guest.ok(&format!("dd if={second} bs=4k count=1 iflag=direct"))?.contains("hello"));
    assert!(two.writes(&second)?);

    two.persist(&format!("--out --register --param-sark=0x111 {first}"))?;
    two.persist(&format!("--out --reserve --param-rk=0x111 --prout-type=5 {first}"))?;
    let held = two.persist(&format!("--in --read-reservation {second}"))?;
    assert!(held.contains("Key=0x111") && held.contains("registrants only"), "{held}");
    assert!(two.writes(&first)? && !two.writes(&second)?);
    guest.ok(&format!("dd if={second} of=/dev/null bs=4k count=1 iflag=direct"))?;
    let refused = guest
        .run(&format!("sg_persist --out --reserve --param-rk=0x111 --prout-type=5 {second}"))?;
    assert_ne!(refused.status, 0, "who is not registered reserves nothing");
    let seen = node.cli(&["reservation", "ls"])?.to_string();
    assert!(seen.contains("0x0000000000000111") && seen.contains(ONE), "{seen}");

    two.persist(&format!("--out --register --param-sark=0x222 {second}"))?;
    assert!(two.writes(&second)?, "registered now");
    let preempt = "--out --preempt --param-rk=0x222 --param-sark=0x111 --prout-type=5";
    two.persist(&format!("{preempt} {second}"))?;
    let told = guest.run(&format!("sg_turs {first}"))?.error_text();
    assert!(told.contains("Registrations preempted"), "{told}");
    let held = two.persist(&format!("--in --read-reservation {first}"))?;
    assert!(held.contains("Key=0x222"), "{held}");
    assert!(two.writes(&second)? && !two.writes(&first)?);
    let keys = two.persist(&format!("--in --read-keys {second}"))?;
    assert!(keys.contains("0x222") && !keys.contains("0x111"), "{keys}");

    let through = "--out --register --param-rk=0x222 --param-sark=0x333 --param-aptpl";
    two.persist(&format!("{through} {second}"))?;
    node.kill()?;
    node.start()?;
    // Sessions come back, and each tells once that something has happened.
    guest.ok(&format!(
        "for i in $(seq 200); do sg_turs {first} && sg_turs {second} && exit 0; usleep 200000; \
         done; exit 1"
    ))?;
    let held = two.persist(&format!("--in --read-reservation {second}"))?;
    assert!(held.contains("Key=0x333") && held.contains("registrants only"), "{held}");
    assert!(two.writes(&second)? && !two.writes(&first)?);
    node.cli(&["reservation", "clear", "shared"])?;
    assert!(two.writes(&first)? && two.writes(&second)?);
    Ok(())
}

/// `connect --for qemu`, and qemu-img over `iscsi://`.
#[test]
fn qemu_is_a_client_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (node, portal) = node(&dir.path().join("node"), 0)?;
    node.cli(&["lu", "create", "disk", "--size", "4M"])?;
    node.cli(&["lu", "create", "fresh", "--size", "64M"])?;
    node.cli(&["lu", "create", "shared", "--size", "8M", "--shareable"])?;
    let target = client(&node, "guest", ONE, &["disk", "fresh", "shared"])?;
    let secret = dir.path().join("secret");
    fs::write(&secret, SECRET)?;
    node.cli(&["client", "chap", "guest", "--secret-file", &secret.display().to_string()])?;
    image_tool_copies(dir.path(), &portal, &target)?;

    let text = text_of(&node, &["connect", "guest", "--for", "qemu"])?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    let words: Vec<String> = words
        .map(|word| word.replace("file=FILE", &format!("file={}", secret.display())))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let image = GuestImage::new().with_host_program("verify", &own_program("verify")?);
    let builder = Guest::builder().qemu(Qemu::V10).image(image).arguments(&words);
    let guest = builder.module("virtio_scsi").module("sd_mod").boot()?;
    guest.ok("for i in $(seq 100); do [ -e /dev/sdc ] && exit 0; usleep 100000; done; exit 1")?;
    let image_path = dir.path().join("image").display().to_string();
    let image = Command::new("md5sum").arg(&image_path).output()?;
    let image = String::from_utf8_lossy(&image.stdout).into_owned();
    let sum = image.split(' ').next().unwrap_or_default();
    // The guest names them in whatever order it has found them.
    let of_size = |sectors: u64| {
        let is_it = format!("[ $(cat $disk/size) = {sectors} ] && echo ${{disk##*/}}");
        let look = format!("for disk in /sys/block/sd*; do {is_it}; done; true");
        guest.ok(&look).map(|name| name.trim().to_owned())
    };
    let (disk, fresh) = (of_size(4 << 11)?, of_size(64 << 11)?);
    assert!(guest.ok(&format!("md5sum /dev/{disk}"))?.starts_with(sum), "{image}");
    let load = format!("verify load /dev/{fresh} --seconds 3 --fresh");
    Report::parse(&guest.ok(&load)?)?.check()?;

    // What another client writes is there, though this QEMU has seen that nothing was: at 32 KiB
    // and more it asks which blocks are written, and without `cache.direct` it believes it forever.
    let shared = format!("dd if=/dev/{} bs=32k count=128 iflag=direct | md5sum", of_size(8 << 11)?);
    assert!(!guest.ok(&shared)?.starts_with(sum));
    map_to_tool(&node, &["shared"])?;
    qemu_img(&node, 0, &["convert", "-n", "--target-image-opts", "-f", "raw", &image_path])?;
    assert!(guest.ok(&shared)?.starts_with(sum), "what another client has written");
    guest.quit()
}

/// Writes an image to the LU and compares what is there.
fn image_tool_copies(dir: &Path, portal: &str, target: &str) -> Result<()> {
    let image = dir.join("image");
    let bytes: Vec<u8> =
        (0..1_u32 << 20).flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(&image, bytes)?;
    let key = dir.join("secret").display().to_string();
    let object = format!("secret,id=chap,file={key}");
    let options = format!(
        "driver=iscsi,transport=tcp,portal={portal},target={target},lun=0,user=guest,\
         password-secret=chap,initiator-name={ONE}"
    );
    let image = image.display().to_string();
    run_qemu_img(&[
        "convert",
        "--object",
        &object,
        "-n",
        "--target-image-opts",
        "-f",
        "raw",
        &image,
        &options,
    ])?;
    run_qemu_img(&[
        "compare",
        "--object",
        &object,
        "--image-opts",
        &format!("driver=file,filename={image}"),
        &options,
    ])
}

/// Asks for the capacity of the disk with this secret.
fn capacity(tools: &Tree, portal: &str, target: &str, (iqn, secret): (&str, &str)) -> Result<bool> {
    let url = format!("iscsi://guest%{secret}@{portal}/{target}/0");
    let mut command = tools.command("iscsi-readcapacity16")?;
    Ok(command.args(["-i", iqn, &url]).output()?.status.success())
}

#[test]
fn wrong_secrets_are_soon_refused_and_told_of_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (node, portal) = node(&dir.path().join("node"), 0)?;
    node.cli(&["lu", "create", "disk", "--size", "64M"])?;
    let target = client(&node, "guest", ONE, &["disk"])?;
    node.cli(&["client", "add-iqn", "guest", TWO])?;
    let secret = dir.path().join("secret");
    fs::write(&secret, "the-right-secret")?;
    node.cli(&["client", "chap", "guest", "--secret-file", &secret.display().to_string()])?;
    let tools = Tree::fetch(&Cache::open()?, "libiscsi", &["libiscsi-bin"], None)?;
    let tries = |who| capacity(&tools, &portal, &target, who);
    assert!(tries((ONE, "the-right-secret"))?);
    for _ in 0..8 {
        assert!(!tries((ONE, "a-wrong-secret!"))?);
    }
    assert!(!tries((ONE, "the-right-secret"))?, "not before a while");
    assert!(tries((TWO, "the-right-secret"))?, "nobody else is hurt");
    let events = text_of(&node, &["event", "ls"])?;
    let of = |kind: &str| events.lines().filter(|line| line.contains(kind)).count();
    assert_eq!((of("login refused"), of("its logins are refused")), (4, 1), "{events}");
    let paused = events.lines().find(|line| line.contains("its logins are refused"));
    let paused = paused.unwrap_or_default();
    assert!(paused.contains(ONE) && paused.contains(&target), "{paused}");
    assert!(paused.contains("127.0.0.1"), "{paused}");
    Ok(())
}

/// A store that fails under an iSCSI client is the LU's trouble, as with every other transport.
#[test]
fn a_full_store_is_seen_at_the_lu() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (node, portal) = node(&dir.path().join("node"), 0)?;
    let image = dir.path().join("image");
    fs::write(&image, vec![0; 4 << 20])?;
    let path = image.display().to_string();
    node.cli(&["lu", "adopt", &path, "--name", "disk"])?;
    let target = client(&node, "guest", ONE, &["disk"])?;
    let tools = Tree::fetch(&Cache::open()?, "libiscsi", &["libiscsi-bin"], None)?;
    // The image loses its end while it is served: what lies there can no longer be read.
    fs::File::options().write(true).open(&image)?.set_len(1 << 20)?;
    let url = format!("iscsi://{portal}/{target}/0");
    let mut read = tools.command("iscsi-perf")?;
    drop(read.args(["-i", ONE, "-t", "2", "-b", "8", "-r", &url]).output()?);
    let shown = node.cli(&["lu", "show", "disk"])?;
    assert_ne!(shown["state"], "online", "{shown}");
    let shown = shown.to_string();
    assert!(shown.contains("problem"), "{shown}");
    Ok(())
}
