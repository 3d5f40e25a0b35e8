//! Pool `fast` of a node, as tests of pools make it, and guests that use it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::guest::Job;
use crate::image::own_program;
use crate::iscsi::map_to_tool;
use crate::node::binary;
use crate::verify::Report;
use crate::{Context, Error, Guest, GuestImage, Node, Result, VhostBlk, until};

pub const SOON: Duration = Duration::from_secs(60);

/// Makes an empty disk in a file.
pub fn disk(dir: &Path, name: &str, mib: u64) -> Result<String> {
    let path = dir.join(name);
    File::create(&path)?.set_len(mib << 20)?;
    Ok(path.display().to_string())
}

/// A node with pool `fast` on two disks, and those.
pub fn node_with_pool(dir: &Path, mib: u64) -> Result<(Node, [String; 2])> {
    let node = Node::on(&dir.join("node")).start()?;
    let disks = [disk(dir, "one", mib)?, disk(dir, "two", mib)?];
    create_pool(&node, &disks)?;
    Ok((node, disks))
}

/// The same with a failure group for each disk.
pub fn node_with_groups(dir: &Path) -> Result<(Node, [String; 2])> {
    let node = Node::on(&dir.join("node")).start()?;
    let disks = [disk(dir, "one", 300)?, disk(dir, "two", 300)?];
    create_pool(&node, &[format!("{}@left", disks[0]), format!("{}@right", disks[1])])?;
    Ok((node, disks))
}

/// Two disks in each of two failure groups, as they are given to a pool.
pub fn disks_of_groups(dir: &Path, mib: u64) -> Result<[String; 4]> {
    let of = |name: &str, group: &str| -> Result<String> {
        disk(dir, name, mib).map(|path| format!("{path}@{group}"))
    };
    Ok([of("one", "left")?, of("two", "left")?, of("three", "right")?, of("four", "right")?])
}

pub fn create_pool(node: &Node, at: &[String]) -> Result<()> {
    let shape = ["--slab-size", "4M", "--extent-size", "64K"];
    let disks: Vec<&str> = at.iter().flat_map(|at| ["--pv", at]).collect();
    node.cli(&[&["pool", "create", "fast"], &disks[..], &shape].concat()).map(drop)
}

/// LU `disk` is for a guest `vm`.
pub fn map_to_guest(node: &Node) -> Result<()> {
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk"]).map(drop)
}

/// A guest that writes what is known to LU `disk`.
pub fn loaded_guest(node: &Node) -> Result<(Guest, Job)> {
    map_to_guest(node)?;
    let verifier = GuestImage::new().with_host_program("verify", &own_program("verify")?);
    let disk = VhostBlk::new(&node.socket("vm", 2));
    let guest = Guest::builder().disk(disk).image(verifier).boot()?;
    let load = guest.start("verify load /dev/vda --fresh --threads 8")?;
    load.wait_for_text("started", SOON)?;
    Ok((guest, load))
}

/// The guest has found everything as it was written, and so has a check of the disks.
pub fn ends_well(mut node: Node, (guest, load): (Guest, Job), disks: &[String]) -> Result<()> {
    load.close_input()?;
    println!("{:?}", Report::parse(&load.wait(SOON)?.text())?.check()?);
    guest.quit()?;
    assert!(node.stop()?.success());
    let (code, report, said) = check(disks)?;
    assert!(code == Some(0), "{report} {said}");
    Ok(())
}

/// How many events say this.
pub fn told(node: &Node, what: &str) -> Result<usize> {
    let events = node.cli(&["event", "ls"])?;
    let all = events.as_array();
    Ok(all.map_or(0, |all| all.iter().filter(|it| it.to_string().contains(what)).count()))
}

pub fn create(node: &Node, name: &str, size: &str) -> Result<()> {
    node.cli(&["lu", "create", name, "--size", size, "--pool", "fast"]).map(drop)
}

/// An LU of an image of so many MiB, which the tools of iSCSI can read; and the image.
pub fn create_of_image(node: &Node, dir: &Path, name: &str, mib: u32) -> Result<String> {
    let image = dir.join("image");
    let content: Vec<u8> = (0..mib << 20).map(|at| (at >> 12).wrapping_mul(97) as u8).collect();
    fs::write(&image, content)?;
    let image = image.display().to_string();
    node.cli(&["lu", "create", name, "--from", &image, "--pool", "fast"])?;
    map_to_tool(node, &[name])?;
    Ok(image)
}

pub fn pool(node: &Node) -> Result<Value> {
    node.cli(&["pool", "show", "fast"])
}

/// Its disks, by their paths.
pub fn disks_of(node: &Node) -> Result<Vec<String>> {
    let shown = pool(node)?;
    let disks = shown["disks"].as_array().context(|| format!("{shown}"))?;
    Ok(disks.iter().filter_map(|disk| Some(disk["path"].as_str()?.to_owned())).collect())
}

/// What `pool check` says without a node, and how it ends.
pub fn check(disks: &[String]) -> Result<(Option<i32>, Value, String)> {
    let mut command = Command::new(binary()?);
    let output = command.args(["pool", "check", "-o", "json"]).args(disks).output()?;
    let said = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok((output.status.code(), said, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Whether the label of a disk says that its failure group has everything.
pub fn is_whole(disk: &str) -> Result<bool> {
    let output = Command::new(binary()?).args(["pool", "inspect", disk]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find(|line| line.contains("lacks something"));
    Ok(line.context(|| said.clone())?.trim_end().ends_with("no"))
}

/// Waits until it does, which is looked at while the node has ended.
pub fn until_whole(
    node: &mut Node,
    disk: &str,
    end: impl Fn(&mut Node) -> Result<()>,
) -> Result<()> {
    until("the label says that everything is there", SOON, || {
        // What is brought and noted, by a node that is left alone for a moment.
        thread::sleep(Duration::from_millis(300));
        end(node)?;
        let is_whole = is_whole(disk)?;
        node.start()?;
        Ok(is_whole)
    })
}

/// Kills the node at some moment within so many milliseconds, and starts it again.
pub fn die_within(node: &mut Node, ms: u64) -> Result<()> {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    thread::sleep(Duration::from_micros(u64::from(since.subsec_nanos()) % (ms * 1000)));
    node.kill()?;
    node.start()
}

/// Nothing lacks anything, and the labels say so.
pub fn is_mirrored(node: &Node) -> Result<bool> {
    Ok(pool(node)?.get("behind").is_none())
}

pub fn until_mirrored(node: &Node) -> Result<()> {
    let said = || Ok(format!("{}\n{}", pool(node)?, node.cli(&["event", "ls"])?));
    until("each group has everything", SOON, || is_mirrored(node)).map_err(|late| {
        let said: Result<String> = said();
        Error::new(format!("{late}\n{said:?}"))
    })
}

/// A guest with LU `disk`.
pub fn guest_of(node: &Node) -> Result<Guest> {
    map_to_guest(node)?;
    Guest::builder().disk(VhostBlk::new(&node.socket("vm", 2))).boot()
}

/// What fills the first blocks of 64 KiB of a guest's disk with a word of three letters, so often
/// in a line that none crosses the end; and what tells the words that are there.
pub fn words(blocks: u32) -> (impl Fn(&str) -> String, String) {
    let blocks = format!("bs=64k count={blocks}");
    let lines = "uniq | cut -c 1-3 | sort -u";
    let look = format!("dd if=/dev/vda {blocks} iflag=direct 2>/dev/null | {lines}");
    let fill = move |word: &str| {
        let line = word.repeat(21);
        format!("yes {line} | dd of=/dev/vda {blocks} iflag=fullblock oflag=direct conv=notrunc")
    };
    (fill, look)
}

/// A file that cannot be written, also by who has it open. None: this machine does not let us.
pub struct Unwritable<'a>(&'a str);

impl<'a> Unwritable<'a> {
    pub fn new(path: &'a str) -> Option<Self> {
        let made = Command::new("chattr").args(["+i", path]).output();
        made.is_ok_and(|made| made.status.success()).then_some(Self(path))
    }
}

impl Drop for Unwritable<'_> {
    fn drop(&mut self) {
        // Nobody could remove it either.
        let _ = Command::new("chattr").args(["-i", self.0]).status();
    }
}
