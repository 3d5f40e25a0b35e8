//! LUs that are brought into a pool while they are used, over servers that are killed, pools that
//! are full and disks that are gone: `viaduct lu migrate`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::blk_client;
use system_tests::iscsi::{copy_of, holds, map_to_tool, node};
use system_tests::node::binary;
use system_tests::verify::content::mix;
use system_tests::{Context, Node, Result, loops, until};

const SOON: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const MIB: u64 = 1 << 20;

/// A file of so many bytes, of which every fourth MiB is a hole.
fn filled(dir: &Path, name: &str, bytes: u64) -> Result<String> {
    let path = dir.join(name);
    let file = File::create(&path)?;
    for mib in (0..bytes / MIB).filter(|mib| mib % 4 != 3) {
        let words = (0..MIB / 8).flat_map(|word| mix(mib << 32 | word).to_le_bytes());
        file.write_all_at(&words.collect::<Vec<u8>>(), mib * MIB)?;
    }
    file.set_len(bytes)?;
    Ok(path.display().to_string())
}

fn disk(dir: &Path, name: &str, mib: u64) -> Result<String> {
    let path = dir.join(name);
    File::create(&path)?.set_len(mib * MIB)?;
    Ok(path.display().to_string())
}

fn pool(node: &Node, disk: &str) -> Result<()> {
    let shape = ["--slab-size", "4M", "--extent-size", "64K"];
    node.cli(&[&["pool", "create", "fast", "--pv", disk][..], &shape].concat()).map(drop)
}

fn shown(node: &Node, lu: &str) -> Result<Value> {
    node.cli(&["lu", "show", lu])
}

fn is_on_its_way(node: &Node, lu: &str) -> Result<bool> {
    Ok(!shown(node, lu)?["migration"].is_null())
}

fn content(path: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the command line says, as long as a server is killed now and then.
fn ask(data: &Path, arguments: &[&str]) -> Result<Option<Value>> {
    let mut command = Command::new(binary()?);
    command.env("VIADUCT_DATA", data).args(arguments).args(["-o", "json"]).stdin(Stdio::null());
    let output = command.output()?;
    match output.status.success() {
        true => Ok(Some(serde_json::from_slice(&output.stdout).context(|| "an answer".into())?)),
        false => Ok(None),
    }
}

/// Begins to bring it while servers are killed, until all are; the servers that did so, and what
/// the disk had when the first of them was seen.
fn bring_over_kills(
    data: &Path,
    old: &str,
    mut is_over: impl FnMut() -> Result<bool>,
) -> Result<(BTreeSet<u64>, Vec<u8>)> {
    let begin = ["lu", "migrate", "web", "--pool", "fast", "--rate", "4M", "--no-wait"];
    let (mut servers, mut before, started) = (BTreeSet::new(), Vec::new(), Instant::now());
    while !is_over()? {
        // What is written before is in the old disk only.
        if started.elapsed() < Duration::from_secs(4) {
            continue;
        }
        let Some(lu) = ask(data, &["lu", "show", "web"])? else { continue };
        if lu["migration"]["from"].is_null() {
            ask(data, &begin)?;
        } else if !lu["brought"].is_null() {
            if before.is_empty() {
                before = content(old)?;
            }
            let status = ask(data, &["status"])?;
            servers.extend(status.and_then(|status| status["pid"].as_u64()));
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok((servers, before))
}

#[test]
fn killed_servers_lose_nothing_of_an_lu_that_is_brought() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    pool(&node, &disk(dir.path(), "disk", 600)?)?;
    let old = disk(dir.path(), "old", 96)?;
    node.cli(&["lu", "adopt", &old, "--name", "web"])?;
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "web", "--to", "vm", "--via", "vhost-user-blk"])?;
    let was = shown(&node, "web")?;
    let socket = node.socket("vm", 2);
    node.stop()?;
    let mut churn = blk_client::churn(&node, &[socket], loops(60), &[])?.spawn()?;
    let brought = bring_over_kills(node.data(), &old, || Ok(churn.try_wait()?.is_some()));
    blk_client::churned(&node, &churn.wait_with_output()?)?;
    let (servers, before) = brought?;
    println!("{} servers brought it", servers.len());
    assert!(servers.len() > 3, "one after the other: {servers:?}");

    node.start()?;
    let is = shown(&node, "web")?;
    for same in ["uuid", "serial", "size", "block_size", "mapped_to"] {
        assert_eq!(is[same], was[same], "{same}");
    }
    assert_eq!(is["backing"]["pool"], "fast");
    assert!(is_on_its_way(&node, "web")?, "some of it is to be brought still");
    // What it has now it has when all is brought.
    node.cli(&["unmap", "web", "--from", "vm"])?;
    map_to_tool(&node, &["web"])?;
    let copy = dir.path().join("copy").display().to_string();
    copy_of(&node, 0, &copy)?;
    assert!(content(&copy)? != before, "it was written");
    node.cli(&["lu", "migrate", "web", "--rate", "off"])?;
    until("it is brought", SOON, || Ok(!is_on_its_way(&node, "web")?))?;
    holds(&node, 0, &copy)?;
    node.kill()?;
    node.start()?;
    holds(&node, 0, &copy)?;
    assert!(before == content(&old)?, "it was not written any more");
    // The old disk is anybody's.
    node.cli(&["lu", "adopt", &old, "--name", "again"])?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn what_was_in_a_file_is_in_the_pool_and_the_file_is_gone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    pool(&node, &disk(dir.path(), "disk", 400)?)?;
    let image = filled(dir.path(), "image", 48 * MIB + 1536)?;
    node.cli(&["lu", "create", "web", "--from", &image, "--backing", "file"])?;
    let file = shown(&node, "web")?["path"].as_str().context(|| "a path".into())?.to_owned();
    map_to_tool(&node, &["web"])?;
    holds(&node, 0, &image)?;
    node.cli(&["lu", "migrate", "web", "--pool", "fast", "--rate", "4M", "--no-wait"])?;
    holds(&node, 0, &image)?;
    let (code, said) = node.cli_fails(&["lu", "migrate", "web", "--cancel"])?;
    assert!(code == 4 && said.contains("was written since is only there"), "{code}: {said}");
    let (code, said) = node.cli_fails(&["pool", "rm", "fast"])?;
    assert!(code == 4 && said.contains("has LUs: web"), "{code}: {said}");
    // A snapshot, in the middle of it.
    node.cli(&["snapshot", "create", "web@then"])?;
    node.cli(&["clone", "web@then", "copy"])?;
    node.cli(&["map", "copy", "--to", "tool", "--via", "iscsi"])?;
    for _ in 0..3 {
        node.kill()?;
        node.start()?;
        assert!(is_on_its_way(&node, "web")?);
        holds(&node, 0, &image)?;
        holds(&node, 1, &image)?;
    }
    assert!(Path::new(&file).exists());
    node.cli(&["lu", "migrate", "web", "--rate", "off"])?;
    until("it is brought", SOON, || Ok(!is_on_its_way(&node, "web")?))?;
    until("its file is gone", SOON, || Ok(!Path::new(&file).exists()))?;
    for _ in 0..2 {
        holds(&node, 0, &image)?;
        holds(&node, 1, &image)?;
        node.kill()?;
        node.start()?;
    }
    let problems = node.cli(&["status"])?["problems"].clone();
    assert_eq!(problems.as_array().map(Vec::len), Some(0), "{problems}");
    assert!(node.stop()?.success());
    let checked = node.command(&["pool", "check", &disk_of(dir.path())])?.output()?;
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}

fn disk_of(dir: &Path) -> String {
    dir.join("disk").display().to_string()
}

#[test]
fn a_full_pool_and_a_disk_that_is_gone_are_told_of() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    pool(&node, &disk(dir.path(), "disk", 32)?)?;
    // Not of whole blocks of the pool.
    let old = filled(dir.path(), "old", 64 * MIB + 512)?;
    let image = dir.path().join("copy").display().to_string();
    fs::copy(&old, &image)?;
    node.cli(&["lu", "adopt", &old, "--name", "web"])?;
    map_to_tool(&node, &["web"])?;
    node.cli(&["lu", "migrate", "web", "--pool", "fast", "--no-wait"])?;
    let problem = |node: &Node| -> Result<String> {
        let shown = shown(node, "web")?;
        Ok(shown["problem"]["message"].as_str().unwrap_or_default().to_owned())
    };
    until("it is told", SOON, || Ok(problem(&node)?.contains("which is full: up to")))?;
    holds(&node, 0, &image)?;

    // Without the disk that it comes from it is not opened, and nothing reads zero.
    node.stop()?;
    let away = dir.path().join("away");
    fs::rename(&old, &away)?;
    node.start()?;
    let message = problem(&node)?;
    assert!(message.contains(&old), "{message}");
    let other = Node::on(&dir.path().join("other"));
    node.stop()?;
    let mut other = other.start()?;
    let disks = disk_of(dir.path());
    let (_, said) = other.cli_fails(&["pool", "import", "fast", "--pv", &disks])?;
    assert!(said.contains(&old), "{said}");
    other.stop()?;
    fs::rename(&away, &old)?;
    node.start()?;
    holds(&node, 0, &image)?;
    node.cli(&["pool", "add-pv", "fast", "--pv", &disk(dir.path(), "more", 200)?])?;
    until("it goes on", SOON, || Ok(!is_on_its_way(&node, "web")?))?;
    holds(&node, 0, &image)?;
    let size = shown(&node, "web")?["size"].clone();
    assert_eq!(size, 64 * MIB + 512);
    assert!(content(&old)? == content(&image)?);
    // Zeroes, so that it is somebody else's.
    File::options().write(true).open(&old)?.write_all(&[0; 4096])?;
    holds(&node, 0, &image)?;
    assert!(node.stop()?.success());
    Ok(())
}
