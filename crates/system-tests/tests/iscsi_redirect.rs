//! Logins that are sent to another portal, with initiators that follow: libiscsi's, and open-iscsi
//! in a guest whose session is asked to leave.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use system_tests::cache::Cache;
use system_tests::debian::Tree;
use system_tests::iscsi::{node, port_of, target_of};
use system_tests::open_iscsi::Initiator;
use system_tests::{Context, GuestImage, Node, Result};

const IQN: &str = "iqn.2026-11.org.viaduct.test:one";
const SECRET: &str = "the-secret-of-one";
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of the disk on the first node, and on the second: by them they are told apart.
const SIZES: [u64; 2] = [64 << 20, 96 << 20];

/// Two nodes that have the same target, because the second one began as a copy of the first; and
/// their portals. The disk of the second is larger.
fn twins(dir: &Path) -> Result<[(Node, String); 2]> {
    let dirs = [dir.join("one"), dir.join("two")];
    let (mut first, _) = node(&dirs[0], 0)?;
    first.cli(&["lu", "create", "disk", "--size", "64M"])?;
    first.cli(&["client", "create", "guest", "--iqn", IQN])?;
    first.cli(&["map", "disk", "--to", "guest", "--via", "iscsi"])?;
    let secret = dir.join("secret");
    fs::write(&secret, SECRET)?;
    first.cli(&["client", "chap", "guest", "--secret-file", &secret.display().to_string()])?;
    first.stop()?;
    let copied = Command::new("cp").arg("-a").args(&dirs).status()?;
    assert!(copied.success());
    let twins = [node(&dirs[0], 0)?, node(&dirs[1], 0)?];
    twins[1].0.cli(&["lu", "resize", "disk", "--size", "96M"])?;
    Ok(twins)
}

/// How large libiscsi finds the disk.
fn capacity(tools: &Tree, portal: &str, target: &str) -> Result<u64> {
    let url = format!("iscsi://guest%{SECRET}@{portal}/{target}/0");
    let output = tools.command("iscsi-readcapacity16")?.args(["-i", IQN, "-s", &url]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let size = said.trim().parse().ok();
    size.context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

fn sessions(node: &Node) -> Result<usize> {
    let shown = node.cli(&["client", "show", "guest"])?;
    Ok(shown["iscsi"]["sessions"].as_array().map_or(0, Vec::len))
}

fn redirected(node: &Node) -> Result<usize> {
    let events = node.cli(&["event", "ls"])?.to_string();
    Ok(events.matches("iscsi-redirected").count())
}

#[test]
fn libiscsi_follows_to_another_node_and_to_another_portal() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [(first, portal), (second, other)] = twins(dir.path())?;
    let target = target_of(&first, "guest")?;
    assert_eq!(target, target_of(&second, "guest")?);
    let tools = Tree::fetch(&Cache::open()?, "libiscsi", &["libiscsi-bin"], None)?;
    let size = |portal: &str| capacity(&tools, portal, &target);
    assert_eq!((size(&portal)?, size(&other)?), (SIZES[0], SIZES[1]));
    first.cli(&["client", "set", "guest", "--redirect", &other])?;
    assert_eq!(size(&portal)?, SIZES[1]);
    assert_eq!((redirected(&first)?, redirected(&second)?), (1, 0));
    first.cli(&["client", "set", "guest", "--redirect", "none"])?;
    assert_eq!(size(&portal)?, SIZES[0]);

    // One node with two portals: whoever comes to the right one is let in.
    drop(second);
    let two = Node::on(&dir.path().join("two"));
    let two = two.arguments(&["--iscsi", "127.0.0.1:0", "--iscsi", "[::1]:0"]).start()?;
    let status = two.cli(&["status"])?;
    let portals: Vec<&str> =
        (0..2).map(|at| status["iscsi"][at].as_str().unwrap_or_default()).collect();
    two.cli(&["client", "set", "guest", "--redirect", portals[1]])?;
    for (at, count) in [(1, 0), (0, 1)] {
        assert_eq!(size(portals[at])?, SIZES[1], "{portals:?}");
        assert_eq!(redirected(&two)?, count);
    }
    Ok(())
}

/// The initiator reaches both nodes under the addresses that they know themselves by.
#[test]
fn open_iscsi_leaves_when_it_is_asked_to_and_comes_back_elsewhere() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [(first, portal), (second, other)] = twins(dir.path())?;
    let target = target_of(&first, "guest")?;
    let initiator = Initiator::boot(GuestImage::new(), &[])?;
    for portal in [&portal, &other] {
        initiator.pass_on(port_of(portal)?)?;
    }
    let account = ["authmethod = CHAP", "username = guest", &format!("password = {SECRET}")]
        .map(|line| format!("node.session.auth.{line}"));
    initiator.start(IQN, &account.each_ref().map(String::as_str))?;
    initiator.admin(&format!("-m node -T {target} -p {portal} -o new"))?;
    initiator.admin(&format!("-m node -T {target} -p {portal} --login"))?;
    let disk = format!("/dev/{}", initiator.disk(&target, 0)?);
    let guest = &initiator.guest;
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {disk}"))?, SIZES[0].to_string());
    first.cli(&["client", "set", "guest", "--redirect", &other])?;
    assert_eq!((sessions(&first)?, sessions(&second)?), (1, 0), "nobody is asked to leave");
    guest.ok(&format!("dd if={disk} of=/dev/null bs=1M count=8 iflag=direct"))?;

    let set = ["client", "set", "guest", "--redirect", &other];
    first.cli(&[&set[..], &["--permanently", "--now"]].concat())?;
    let deadline = Instant::now() + LIMIT;
    while (sessions(&first)?, sessions(&second)?) != (0, 1) {
        assert!(Instant::now() < deadline, "{:?}", first.cli(&["event", "ls"])?);
    }
    assert!(redirected(&first)? > 0);
    // The same disk to the guest, on the other node.
    guest.ok(&format!("dd if={disk} of=/dev/null bs=1M count=8 iflag=direct"))?;
    let name = disk.trim_start_matches("/dev/");
    guest.ok(&format!("echo 1 > /sys/block/{name}/device/rescan"))?;
    assert_eq!(guest.ok(&format!("blockdev --getsize64 {disk}"))?, SIZES[1].to_string());
    initiator.guest.quit()
}
