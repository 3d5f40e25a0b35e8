//! Bad input, as users and their machines make it: a full disk, memory that is cut, two machines on
//! one socket, directories that cannot be used. The operator is told who and what to do, and
//! nobody else is disturbed.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use system_tests::image::own_program;
use system_tests::node_in_guest::{NodeInGuest, guest, try_disk, use_disk};
use system_tests::verify::Report;
use system_tests::{Error, Guest, GuestImage, Node, Result, VhostBlk};

const SOON: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A guest that cannot use its disk is not waited for.
const BOOT_IN_VAIN: Duration = Duration::from_secs(15);

fn verifier() -> Result<GuestImage> {
    Ok(GuestImage::new().with_host_program("verify", &own_program("verify")?))
}

/// A node with an LU in memory for each client, in slot 2.
fn node_for(data: &Path, clients: &[&str]) -> Result<Node> {
    let node = Node::on(data).start()?;
    for client in clients {
        node.cli(&["lu", "create", client, "--size", "32M", "--backing", "memory"])?;
        node.cli(&["client", "create", client])?;
        node.cli(&["map", client, "--to", client, "--via", "vhost-user-blk"])?;
    }
    Ok(node)
}

/// Waits until some event has all these words.
fn wait_for_event(node: &Node, words: &[&str]) -> Result<String> {
    let deadline = Instant::now() + SOON;
    loop {
        let events = node.cli(&["event", "ls"])?;
        let events = events.as_array().cloned().unwrap_or_default();
        let mut texts = events.iter().map(ToString::to_string);
        if let Some(event) = texts.find(|text| words.iter().all(|word| text.contains(word))) {
            return Ok(event);
        }
        if Instant::now() > deadline {
            return Err(Error::new(format!("no event with {words:?}: {events:#?}")));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

#[test]
fn a_full_disk_is_told_and_the_client_goes_on_when_there_is_room() -> Result<()> {
    let guest = guest()?;
    guest.ok("mkdir /small && mount -t tmpfs -o size=24M small /small")?;
    let node = NodeInGuest::start(&guest, "/small/node")?;
    node.cli("lu create full --size 64M")?;
    node.cli("lu create other --size 64M --backing memory")?;
    let (full, other) = (node.map("full", "vm")?, node.map("other", "neighbour")?);
    guest.run("cat /dev/zero > /small/rest")?;

    let output = try_disk(&guest, &full, "")?;
    assert!(output.status != 0 && output.error_text().contains("IOERR"), "{output:?}");
    use_disk(&guest, &other, "")?;
    let client = node.cli("client show vm")?.to_string();
    for words in ["no space left", "on the filesystem of its file"] {
        assert!(client.contains(words), "{client}");
        assert!(node.cli("event ls")?.to_string().contains(words), "{}", node.log());
    }
    println!("{client}");
    assert_eq!(node.cli("lu show full")?["state"], "degraded", "{}", node.log());

    guest.ok("rm /small/rest")?;
    use_disk(&guest, &full, "")?;
    // The health of an LU in trouble is looked at once a second.
    let deadline = Instant::now() + SOON;
    loop {
        let status = node.cli("status")?;
        if status["problems"].as_array().is_some_and(Vec::is_empty) {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        thread::sleep(LOOK_AGAIN);
    }
    assert_eq!(node.cli("lu show full")?["state"], "online");
    node.stop()
}

#[test]
fn a_second_machine_on_a_socket_is_refused_by_name() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = node_for(&dir.path().join("node"), &["vm"])?;
    let disk = VhostBlk::new(&node.socket("vm", 2));
    let first = Guest::builder().disk(disk.clone()).image(verifier()?).boot()?;
    let load = first.start("verify load /dev/vda --fresh --threads 2")?;
    load.wait_for_text("started", SOON)?;
    let second = Guest::builder().disk(disk.reconnect(false)).boot_within(BOOT_IN_VAIN);
    println!("{}", second.err().map(|error| error.to_string()).unwrap_or_default());
    let uses = format!("which process {} uses", first.pid());
    wait_for_event(&node, &["client-refused", "client vm", &uses, "viaduct client create"])?;
    load.close_input()?;
    Report::parse(&load.wait(SOON)?.text())?.check()?;
    Ok(())
}

/// A machine that loses its memory dies of it; one that goes on is cut off by name.
#[test]
fn memory_that_is_cut_harms_only_its_own_machine() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = node_for(&dir.path().join("node"), &["cut", "whole"])?;
    let (socket, memory) = (node.socket("cut", 2), dir.path().join("memory"));
    let disk = VhostBlk::new(&socket).reconnect(false);
    let guest = Guest::builder().disk(disk).memory_file(&memory).image(verifier()?).boot()?;
    let load = guest.start("verify load /dev/vda --fresh --threads 16")?;
    load.wait_for_text("started", SOON)?;
    File::options().write(true).open(&memory)?.set_len(0)?;
    wait_for_event(&node, &["client-disconnected", "client cut"])?;

    blk_client(&["cut"], &socket)?;
    println!("{}", wait_for_event(&node, &["queue-broken", "client cut", "memory", "restart"])?);
    let client = node.cli(&["client", "show", "cut"])?.to_string();
    assert!(client.contains("truncated the memory"), "{client}");
    for client in ["whole", "cut"] {
        blk_client(&["use"], &node.socket(client, 2))?;
    }
    Ok(())
}

/// Runs the client on this machine.
fn blk_client(arguments: &[&str], socket: &Path) -> Result<()> {
    let output = Command::new(own_program("blk-client")?).args(arguments).arg(socket).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::new(String::from_utf8_lossy(&output.stderr))),
    }
}

/// What a node says that does not start.
fn refusal(data: &Path, arguments: &[&str]) -> Result<String> {
    match Node::on(data).arguments(arguments).start() {
        Ok(_) => Err(Error::new(format!("a node starts on {}", data.display()))),
        Err(error) => Ok(error.to_string()),
    }
}

#[test]
fn nodes_live_side_by_side_and_say_what_is_in_their_way() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let place = |name: &str| dir.path().join(name);
    let one = node_for(&place("one"), &["vm"])?;
    let two = node_for(&place("two"), &["vm"])?;
    let pid = one.pid()?.to_string();
    let image = place("image").to_string_lossy().into_owned();
    File::create(&image)?.set_len(16 << 20)?;
    one.cli(&["lu", "adopt", &image, "--name", "image"])?;
    let (code, text) = two.cli_fails(&["lu", "adopt", &image, "--name", "image"])?;
    assert!(code == 4 && text.contains(&image) && text.contains("--shareable"), "{text}");

    let text = refusal(&place("one"), &[])?;
    assert!(text.contains("in use") && text.contains(&pid) && text.contains("--data"), "{text}");

    drop(two);
    fs::write(place("two").join("format"), "viaduct 2\n")?;
    let text = refusal(&place("two"), &[])?;
    assert!(text.contains("format 2") && text.contains("formats up to 1"), "{text}");
    assert!(text.contains("start the release of viaduct that wrote it"), "{text}");
    Ok(())
}
