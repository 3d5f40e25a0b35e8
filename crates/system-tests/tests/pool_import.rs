//! Pools in the real binary that are imported from their disks alone: after their node's store was
//! lost, on another node, without disks of another failure group, and what is refused.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use system_tests::iscsi::{holds, map_to_tool, node, qemu_img};
use system_tests::{Context, Error, Node, Result, until};

const SOON: Duration = Duration::from_secs(60);
const SHAPE: [&str; 4] = ["--slab-size", "4M", "--extent-size", "64K"];

/// Makes an empty disk in a file of a directory that holds nothing else.
fn disk(dir: &Path, name: &str) -> Result<String> {
    let dir = dir.join("disks");
    fs::create_dir_all(&dir)?;
    let path = dir.join(name);
    File::create(&path)?.set_len(200 << 20)?;
    Ok(path.display().to_string())
}

/// An image of so many MiB in which every block is another one.
fn image(dir: &Path, name: &str, mib: u64, seed: u32) -> Result<String> {
    let path = dir.join(name);
    let words = (0..(mib << 18) as u32).map(|word| (word ^ seed).wrapping_mul(2_654_435_761));
    fs::write(&path, words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
    Ok(path.display().to_string())
}

fn write(node: &Node, lun: usize, image: &str) -> Result<()> {
    qemu_img(node, lun, &["convert", "-n", "--target-image-opts", "-f", "raw", image])
}

fn names(list: &Value) -> Vec<String> {
    let all = list.as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
}

fn has_no_problems(node: &Node) -> Result<()> {
    let status = node.cli(&["status"])?;
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
    Ok(())
}

/// What is refused, with its exit code.
fn refuses(node: &Node, arguments: &[&str], code: i32, what: &str) -> Result<()> {
    let (found, said) = node.cli_fails(arguments)?;
    assert!(found == code && said.contains(what), "{arguments:?}: {found}, {said}");
    assert!(said.contains("next:"), "{arguments:?}: {said}");
    Ok(())
}

#[test]
fn a_pool_comes_with_everything_where_its_store_is_lost() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let root = dir.path();
    let [one, two] = [disk(root, "one")?, disk(root, "two")?];
    let (mut first, _) = node(&root.join("first"), 0)?;
    first.cli(&[&["pool", "create", "fast", "--pv", &one, "--pv", &two][..], &SHAPE].concat())?;
    let lu = ["lu", "create", "--pool", "fast"];
    first.cli(&[&lu[..], &["web", "--size", "16M"]].concat())?;
    first.cli(&[&lu[..], &["db", "--size", "8M", "--thick", "--block-size", "4096"]].concat())?;
    map_to_tool(&first, &["web", "db"])?;
    let [monday, tuesday] = [image(root, "monday", 16, 1)?, image(root, "tuesday", 16, 2)?];
    let (accounts, edited) = (image(root, "accounts", 8, 3)?, image(root, "edited", 16, 4)?);
    write(&first, 0, &monday)?;
    write(&first, 1, &accounts)?;
    first.cli(&["snapshot", "create", "web@monday", "db@monday"])?;
    write(&first, 0, &tuesday)?;
    first.cli(&["clone", "web@monday", "copy"])?;
    first.cli(&["map", "copy", "--to", "tool", "--via", "iscsi"])?;
    write(&first, 2, &edited)?;
    first.cli(&["snapshot", "create", "web@tuesday", "db@tuesday"])?;
    first.cli(&["snapshot", "rm", "db@tuesday"])?;
    let shown = |node: &Node, lu: &str| {
        let shown = node.cli(&["lu", "show", lu])?;
        let keys = ["uuid", "size", "block_size", "serial", "thick", "backing", "origin"];
        Ok::<_, Error>(keys.map(|key| shown[key].clone()))
    };
    let before = ["web", "db", "copy"].map(|lu| shown(&first, lu));
    let document = root.join("config.json").display().to_string();
    first.cli(&["config", "save", &document])?;
    let disks = root.join("disks").display().to_string();

    // While a node has it nobody else takes it, and afterwards somebody does who knows nothing.
    let (second, _) = node(&root.join("second"), 0)?;
    refuses(&second, &["pool", "import", "fast", "--dir", &disks], 3, "a node has")?;
    first.kill()?;
    fs::remove_dir_all(first.data())?;
    let found = second.cli(&["pool", "import", "--dir", &disks])?;
    let pool = &found["pools"][0];
    assert!(pool["name"] == "fast" && pool["problem"].is_null(), "{found}");
    assert_eq!(pool["lus"].as_array().map(Vec::len), Some(3), "{found}");
    let imported = second.cli(&["pool", "import", "fast", "--pv", &one, "--pv", &two])?;
    assert!(imported["pool"]["state"] == "online" && imported["missing"] == 0, "{imported}");
    let after = ["web", "db", "copy"].map(|lu| shown(&second, lu));
    for (before, after) in before.into_iter().zip(after) {
        assert_eq!(before?, after?);
    }
    let snapshots = second.cli(&["snapshot", "ls", "web"])?;
    assert_eq!(names(&snapshots), ["monday", "tuesday"], "{snapshots}");
    has_no_problems(&second)?;

    // What is not on disks is in the document, and that finds what it speaks of.
    second.cli(&["config", "restore", &document])?;
    for (lun, image) in [&tuesday, &accounts, &edited].into_iter().enumerate() {
        holds(&second, lun, image)?;
    }
    second.cli(&["snapshot", "rollback", "web@monday", "--force"])?;
    holds(&second, 0, &monday)?;
    holds(&second, 2, &edited)?;
    has_no_problems(&second)
}

#[test]
fn files_of_a_node_are_imported_when_its_store_is_lost_and_an_old_store_is_noticed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::on(&dir.path().join("node")).start()?;
    node.cli(&[&["pool", "create", "own", "--size", "100M"][..], &SHAPE].concat())?;
    node.cli(&["lu", "create", "disk", "--size", "1G", "--pool", "own"])?;
    // Whatever was answered is on the disks.
    node.cli(&["snapshot", "create", "disk@now"])?;
    node.kill()?;
    let kv = node.data().join("kv.redb");
    let old = fs::read(&kv)?;
    fs::remove_file(&kv)?;
    node.start()?;
    assert_eq!(names(&node.cli(&["lu", "ls"])?), [""; 0]);
    let found = node.cli(&["pool", "import"])?;
    assert_eq!(names(&found["pools"]), ["own"], "{found}");
    node.cli(&["pool", "import", "own"])?;
    assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "online");
    assert_eq!(names(&node.cli(&["snapshot", "ls", "disk"])?), ["now"]);
    refuses(&node, &["pool", "import", "own"], 3, "no pool 'own'")?;
    assert!(node.stop()?.success());
    let new = fs::read(&kv)?;

    fs::write(&kv, &old)?;
    node.start()?;
    let shown = node.cli(&["pool", "show", "own"])?;
    let problem = shown["problem"].to_string();
    assert!(problem.contains("newer than what this node knows"), "{shown}");
    assert!(problem.contains("viaduct pool import"), "{shown}");
    node.kill()?;
    fs::write(&kv, &new)?;
    node.start()?;
    has_no_problems(&node)?;
    node.cli(&["snapshot", "rm", "disk@now"])?;
    node.cli(&["lu", "rm", "disk"])?;
    node.cli(&["pool", "rm", "own"])?;
    let files = node.data().join("pools");
    assert_eq!(fs::read_dir(files)?.count(), 0, "its file is the node's again, and goes with it");
    Ok(())
}

/// Spoils every page of a body of a root that is on a disk; how many there were.
fn damage_roots(path: &str) -> Result<usize> {
    let (bytes, file) = (fs::read(path)?, File::options().write(true).open(path)?);
    let pages = (0..bytes.len()).step_by(4096);
    let bad: Vec<usize> = pages.filter(|at| bytes[*at..].starts_with(b"VDrb")).collect();
    for at in &bad {
        file.write_all_at(&[bytes[at + 100] ^ 1], *at as u64 + 100)?;
    }
    Ok(bad.len())
}

/// LUs that were found and cannot be opened.
fn bad_lus(found: &Value) -> Vec<String> {
    let all = found["pools"][0]["lus"].as_array().cloned().unwrap_or_default();
    let bad = all.iter().filter(|lu| !lu["problem"].is_null());
    bad.filter_map(|lu| Some(lu["uuid"].as_str()?.to_owned())).collect()
}

#[test]
fn what_cannot_be_imported_says_why() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let root = dir.path();
    let [one, two] = [disk(root, "one")?, disk(root, "two")?];
    let mut first = Node::on(&root.join("first")).start()?;
    first.cli(&[&["pool", "create", "fast", "--pv", &one, "--pv", &two][..], &SHAPE].concat())?;
    for lu in ["web", "db"] {
        first.cli(&["lu", "create", lu, "--size", "64M", "--pool", "fast"])?;
    }
    assert!(first.stop()?.success());
    let old = fs::read(&two)?;
    first.start()?;
    assert!(first.stop()?.success());
    let second = Node::on(&root.join("second")).start()?;
    let disks = root.join("disks").display().to_string();
    let import = |more: &[&str]| {
        [&["pool", "import", "fast"][..], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let refused = |more: &[&str], code: i32, what: &str| {
        let all = import(more);
        refuses(&second, &all.iter().map(String::as_str).collect::<Vec<_>>(), code, what)
    };
    let (before_one, before_two) = (fs::read(&one)?, fs::read(&two)?);
    refused(&["--pv", &one], 4, "only 1 of the pool's 2 disks found here")?;
    let away = root.join("away").display().to_string();
    fs::copy(&one, format!("{disks}/copy"))?;
    refused(&["--dir", &disks], 4, "one of them is a copy")?;
    fs::rename(format!("{disks}/copy"), &away)?;
    fs::write(&two, &old)?;
    refused(&["--dir", &disks], 4, &format!("{two} is an old copy"))?;
    fs::write(&two, &before_two)?;
    refused(&["--pv", &format!("{two}x")], 3, "there is no disk or file")?;

    // An LU that cannot be opened is named, and left where it is if that is wanted.
    assert!(damage_roots(&one)? + damage_roots(&two)? >= 2);
    refused(&["--dir", &disks], 4, "has an LU that cannot be opened")?;
    fs::write(&one, &before_one)?;
    let bad = bad_lus(&second.cli(&["pool", "import", "--dir", &disks])?);
    assert_eq!(bad.len(), 1, "one LU is on each disk: {bad:?}");
    let bad = &bad[0];

    second.cli(&["lu", "create", "web", "--size", "1M"])?;
    second.cli(&["lu", "create", "db", "--size", "1M"])?;
    second.cli(&["pool", "create", "fast", "--size", "100M"])?;
    let without = ["--dir", &disks, "--without", bad];
    refused(&without, 4, "there is another pool 'fast'")?;
    let renamed = [&without[..], &["--as", "old"]].concat();
    refused(&renamed, 4, "are taken here: ")?;
    let before = (fs::read(&one)?, fs::read(&two)?);
    assert!(before.0 == before_one, "nothing is written");
    let all = import(&[&renamed[..], &["--prefix", "old-"]].concat());
    let imported = second.cli(&all.iter().map(String::as_str).collect::<Vec<_>>())?;
    assert_eq!(imported["without"][0], **bad, "{imported}");
    let name = imported["lus"][0].as_str().context(|| format!("{imported}"))?;
    assert!(name.starts_with("old-"), "{imported}");
    assert_eq!(second.cli(&["lu", "show", name])?["state"], "online");
    has_no_problems(&second)?;
    // What was left does not go unasked.
    second.cli(&["lu", "rm", name])?;
    refuses(&second, &["pool", "rm", "old"], 4, "has an LU that is none of this node")?;
    second.cli(&["pool", "rm", "old", "--force"]).map(drop)
}

#[test]
fn a_pool_is_imported_without_another_failure_group_and_gets_it_back() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let root = dir.path();
    let [left, right] = [disk(root, "left")?, disk(root, "right")?];
    let at = [format!("{left}@left"), format!("{right}@right")];
    let (mut first, _) = node(&root.join("first"), 0)?;
    first
        .cli(&[&["pool", "create", "safe", "--pv", &at[0], "--pv", &at[1]][..], &SHAPE].concat())?;
    first.cli(&["lu", "create", "disk", "--size", "16M", "--pool", "safe"])?;
    map_to_tool(&first, &["disk"])?;
    let [one, two] = [image(root, "image1", 16, 1)?, image(root, "image2", 16, 2)?];
    write(&first, 0, &one)?;
    let document = root.join("config.json").display().to_string();
    first.cli(&["config", "save", &document])?;
    first.kill()?;
    let away = root.join("away").display().to_string();
    fs::rename(&left, &away)?;

    let (mut second, _) = node(&root.join("second"), 0)?;
    let disks = root.join("disks").display().to_string();
    let imported = second.cli(&["pool", "import", "safe", "--dir", &disks])?;
    assert_eq!(imported["missing"], 1, "{imported}");
    let shown = second.cli(&["pool", "show", "safe"])?;
    assert_eq!(shown["disks"].as_array().map(Vec::len), Some(2), "{shown}");
    map_to_tool(&second, &["disk"])?;
    holds(&second, 0, &one)?;
    write(&second, 0, &two)?;
    second.cli(&["unmap", "disk", "--from", "tool", "--force"])?;
    second.cli(&["client", "rm", "tool"])?;

    // The document knows which disk it is; when it is back it gets what it has missed.
    second.cli(&["config", "restore", &document])?;
    let shown = second.cli(&["pool", "show", "safe"])?.to_string();
    assert!(shown.contains(&left) && shown.contains("\"left\""), "{shown}");
    second.kill()?;
    fs::rename(&away, &left)?;
    second.start()?;
    until("the copy has everything again", SOON, || {
        let events = second.cli(&["event", "ls"])?.to_string();
        Ok(events.contains("all copies of LU disk have everything again"))
    })?;
    holds(&second, 0, &two)?;
    assert!(second.stop()?.success());
    // From the one that was away too.
    fs::rename(&right, &away)?;
    let (third, _) = node(&root.join("third"), 0)?;
    third.cli(&["pool", "import", "safe", "--dir", &disks])?;
    map_to_tool(&third, &["disk"])?;
    holds(&third, 0, &two)?;

    // Or another disk takes the place of the one that will never be back.
    let shown = third.cli(&["pool", "show", "safe"])?;
    let gone = shown["disks"].as_array().cloned().unwrap_or_default();
    let is_missing = |disk: &&Value| disk["path"].as_str().is_some_and(|it| it.contains("missing"));
    let gone = gone.iter().find(is_missing).and_then(|disk| disk["uuid"].as_str());
    let gone = gone.context(|| format!("{shown}"))?;
    third.cli(&["pool", "replace-pv", "safe", gone, &disk(root, "new")?])?;
    until("the new disk has everything", SOON, || {
        let events = third.cli(&["event", "ls"])?.to_string();
        Ok(events.contains("all copies of LU disk have everything again"))
    })?;
    holds(&third, 0, &two)?;
    has_no_problems(&third)
}
