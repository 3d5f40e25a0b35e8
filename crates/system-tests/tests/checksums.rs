//! Pools with checksums in the real binary: servers that are killed leave them right, and what has
//! rotted on a disk is mended from another one, or an error.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::blk_client;
use system_tests::iscsi::{holds, map_to_tool, node};
use system_tests::{Error, Node, Result, loops};

const SOON: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const BLOCK: usize = 4096;
const IMAGE_BLOCKS: u32 = 2048;

/// Makes an empty disk in a file.
fn disk(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    File::create(&path)?.set_len(300 << 20)?;
    Ok(path.display().to_string())
}

fn create_pool(node: &Node, pvs: &[&str]) -> Result<()> {
    let pvs: Vec<&str> = pvs.iter().flat_map(|pv| ["--pv", pv]).collect();
    let shape = ["--slab-size", "4M", "--extent-size", "64K", "--checksums"];
    node.cli(&[&["pool", "create", "fast"][..], &pvs, &shape].concat()).map(drop)
}

/// A block that says who it is.
fn block_of(number: u32) -> Vec<u8> {
    let words = (0..BLOCK as u32 / 4).map(|word| (number << 10 | word).wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_le_bytes).collect()
}

/// Changes a bit of each of these blocks on a disk, wherever they are.
fn rot(disk: &str, numbers: &[u32]) -> Result<()> {
    let file = File::options().read(true).write(true).open(disk)?;
    let (size, mut block, mut changed) = (file.metadata()?.len(), vec![0; BLOCK], 0);
    let rotting: Vec<Vec<u8>> = numbers.iter().map(|number| block_of(*number)).collect();
    for at in (0..size).step_by(BLOCK) {
        file.read_exact_at(&mut block, at)?;
        if rotting.contains(&block) {
            file.write_all_at(&[block[99] ^ 4], at + 99)?;
            changed += 1;
        }
    }
    assert_eq!(changed, numbers.len(), "each is there once");
    Ok(())
}

/// Waits until an event says this.
fn told(node: &Node, what: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let events = node.cli(&["event", "ls"])?;
        if events.to_string().contains(what) {
            return Ok(());
        }
        if begin.elapsed() > SOON {
            return Err(Error::new(format!("no event says {what:?}: {events}")));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// LU disk of an image, in a pool with a copy of everything on either disk.
fn with_image(dir: &Path) -> Result<(Node, [String; 2], String)> {
    let (node, _) = node(&dir.join("node"), 0)?;
    let disks = [disk(dir, "one")?, disk(dir, "two")?];
    create_pool(&node, &[&format!("{}@left", disks[0]), &format!("{}@right", disks[1])])?;
    let image = dir.join("image");
    let content: Vec<u8> = (0..IMAGE_BLOCKS).flat_map(block_of).collect();
    std::fs::write(&image, content)?;
    let image = image.display().to_string();
    node.cli(&["lu", "create", "disk", "--from", &image, "--pool", "fast"])?;
    map_to_tool(&node, &["disk"])?;
    holds(&node, 0, &image)?;
    Ok((node, disks, image))
}

/// What the last scrub has come to, when it has ended.
fn scrubbed(node: &Node) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let scrub = node.cli(&["pool", "show", "fast"])?["scrub"].clone();
        if scrub["state"] != "running" {
            return Ok(scrub);
        }
        if begin.elapsed() > SOON {
            return Err(Error::new(format!("it does not end: {scrub}")));
        }
        thread::sleep(LOOK_AGAIN);
    }
}

#[test]
fn killed_servers_leave_checksums_right() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::on(&dir.path().join("node")).start()?;
    create_pool(&node, &[&disk(dir.path(), "one")?, &disk(dir.path(), "two")?])?;
    node.cli(&["lu", "create", "disk", "--size", "8G", "--pool", "fast"])?;
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk"])?;
    let socket = node.socket("vm", 2);
    node.stop()?;
    let output = blk_client::churn(&node, &[socket], loops(12), &[])?.output()?;
    blk_client::churned(&node, &output)?;
    node.start()?;
    assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "online");
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn what_has_rotted_is_mended_from_another_disk_or_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks, image) = with_image(dir.path())?;
    assert!(node.stop()?.success());
    rot(&disks[0], &[3, 700, 701, 2047])?;
    rot(&disks[1], &[4, 702, 1500])?;
    node.start()?;
    holds(&node, 0, &image)?;
    told(&node, "were written anew as another copy has them")?;

    // Good again where it was read.
    assert!(node.stop()?.success());
    rot(&disks[0], &[3])?;
    rot(&disks[1], &[3])?;
    node.start()?;
    assert!(holds(&node, 0, &image).is_err(), "a rotten block was given out");
    told(&node, "no other copy has them")?;
    Ok(())
}

/// Nobody reads any of it but the scrub.
#[test]
fn a_scrub_finds_what_has_rotted_on_any_disk_over_a_kill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks, image) = with_image(dir.path())?;
    assert_eq!(node.cli(&["pool", "show", "fast"])?["scrub"], Value::Null);
    rot(&disks[1], &[5, 6, 900])?;
    rot(&disks[0], &[7])?;
    let view = node.cli(&["pool", "scrub", "fast"])?;
    let scrub = &view["scrub"];
    assert_eq!(
        (&scrub["state"], &scrub["mended"], &scrub["lost"]),
        (&"done".into(), &4.into(), &0.into())
    );
    let found = scrub["found"].as_array().ok_or_else(|| Error::new("nothing was found"))?;
    let of_two = found.iter().find(|it| it["offset"] == 5 * BLOCK);
    let of_two = of_two.ok_or_else(|| Error::new(format!("{found:?}")))?;
    assert_eq!((&of_two["size"], &of_two["disks"]), (&(2 * BLOCK).into(), &json!([disks[1]])));
    // Each of them is there once again.
    rot(&disks[1], &[5, 6, 900])?;
    rot(&disks[0], &[7])?;

    node.cli(&["pool", "scrub", "fast", "--rate", "1M", "--no-wait"])?;
    let (code, said) = node.cli_fails(&["pool", "scrub", "fast"])?;
    assert!(code == 4 && said.contains("is being scrubbed"), "{code}: {said}");
    node.kill()?;
    node.start()?;
    node.cli(&["pool", "set", "fast", "--scrub-rate", "off"])?;
    let scrub = scrubbed(&node)?;
    assert_eq!((&scrub["state"], &scrub["mended"]), (&"done".into(), &4.into()), "{scrub}");
    holds(&node, 0, &image)?;
    let checked = node.cli(&["pool", "check", "fast"])?;
    assert_eq!((&checked["damaged"], &checked["findings"]), (&false.into(), &json!([])));

    rot(&disks[0], &[8])?;
    rot(&disks[1], &[8])?;
    let (code, said) = node.cli_fails(&["pool", "scrub", "fast"])?;
    assert!(code == 1 && said.contains("1 block lost"), "{code}: {said}");
    // That stays to be seen.
    node.kill()?;
    node.start()?;
    let scrub = &node.cli(&["pool", "show", "fast"])?["scrub"];
    assert_eq!((&scrub["state"], &scrub["lost"]), (&"done".into(), &1.into()), "{scrub}");
    Ok(())
}
