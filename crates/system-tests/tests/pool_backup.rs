//! Backups of a pool's metadata by the real binary, under load, and what they bring back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use system_tests::disc::noise;
use system_tests::iscsi::{holds, map_to_tool, node};
use system_tests::node::binary;
use system_tests::pools::{create, create_pool, disk, ends_well, loaded_guest};
use system_tests::{Context, Node, Result};

const PAGE: usize = 4096;
const IMAGE_BYTES: usize = 48 << 20;

/// A node with pool `fast`, LU `image` with what the file says, and LU `disk`.
fn with_lus(dir: &Path) -> Result<(Node, [String; 2], String)> {
    let (node, _) = node(&dir.join("node"), 0)?;
    let disks = [disk(dir, "one", 300)?, disk(dir, "two", 300)?];
    create_pool(&node, &disks)?;
    let image = dir.join("image");
    fs::write(&image, noise(IMAGE_BYTES, 7))?;
    let image = image.display().to_string();
    node.cli(&["lu", "create", "image", "--from", &image, "--pool", "fast"])?;
    create(&node, "disk", "1G")?;
    map_to_tool(&node, &["image"])?;
    Ok((node, disks, image))
}

/// Writes zeroes over both labels of a disk.
fn wipe_labels(disk: &str) -> Result<()> {
    let file = File::options().write(true).open(disk)?;
    let size = file.metadata()?.len();
    file.write_all_at(&[0; PAGE], 0)?;
    file.write_all_at(&[0; PAGE], size - PAGE as u64)?;
    Ok(())
}

/// What `pool inspect` says of an LU.
fn sections(disks: &[String], lu: &str) -> Result<Vec<Value>> {
    let (code, seen, said) =
        offline(&[&["pool", "inspect", "--lu", lu], &paths(disks)[..]].concat())?;
    assert_eq!(code, Some(0), "{said}");
    Ok(seen.as_array().context(|| format!("{seen}"))?.clone())
}

/// Writes zeroes over a page, wherever that says it is.
fn wipe_page(place: &str) -> Result<()> {
    let (disk, at) = place.split_once(" at byte ").context(|| place.to_owned())?;
    let at = at.parse().map_err(|_| system_tests::Error::new(place))?;
    File::options().write(true).open(disk)?.write_all_at(&[0; PAGE], at)?;
    Ok(())
}

/// The same over every page of a map of an LU; how many those are.
fn wipe_maps(disks: &[String], lu: &str) -> Result<usize> {
    let sections = sections(disks, lu)?;
    let fields = sections.iter().filter_map(|section| section["fields"].as_array()).flatten();
    let mut wiped = 0;
    for field in fields {
        let is_page = field["name"].as_str().is_some_and(|name| name.contains("of the map"));
        let Some(place) = field["value"].as_str().filter(|_| is_page) else { continue };
        wipe_page(place)?;
        wiped += 1;
    }
    Ok(wiped)
}

fn paths(disks: &[String]) -> Vec<&str> {
    disks.iter().map(String::as_str).collect()
}

/// What a command without a node says, and how it ends.
fn offline(arguments: &[&str]) -> Result<(Option<i32>, Value, String)> {
    let output = Command::new(binary()?).args(arguments).args(["-o", "json"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok((output.status.code(), value, said))
}

#[test]
fn metadata_that_was_wiped_comes_back_from_a_backup() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks, image) = with_lus(dir.path())?;
    let loaded = loaded_guest(&node)?;
    let kept = dir.path().join("kept").display().to_string();
    for _ in 0..5 {
        let told = node.cli(&["pool", "backup", "fast", "--out", &kept])?;
        assert_eq!((&told["lus"], told["lacks"].as_array().map(Vec::len)), (&2.into(), Some(0)));
    }
    let lu = node.cli(&["lu", "show", "image"])?["uuid"].clone();
    let lu = lu.as_str().context(|| "a UUID".into())?;
    node.kill()?;

    // All of a map, and both labels of a disk.
    let wiped = wipe_maps(&disks, lu)?;
    assert!(wiped > 1, "{wiped} pages");
    wipe_labels(&disks[1])?;
    let (code, seen, _) = offline(&[&["pool", "check"], &paths(&disks)[..]].concat())?;
    assert_eq!((code, &seen["damaged"]), (Some(1), &true.into()), "{seen}");
    let restore = [&["pool", "restore", &kept, "--pv"], &paths(&disks)[..]].concat();
    let (code, would, said) = offline(&[&restore[..], &["--dry-run"]].concat())?;
    assert_eq!(code, Some(0), "{would} {said}");
    let (code, done, said) = offline(&restore)?;
    assert_eq!(code, Some(0), "{done} {said}");
    assert_eq!(done["restored"], would["restored"]);
    assert_eq!(done["pages"].as_u64(), Some(wiped as u64 + 2), "{done}");
    let (code, seen, _) = offline(&[&["pool", "check"], &paths(&disks)[..]].concat())?;
    assert_eq!(code, Some(0), "{seen}");

    node.start()?;
    holds(&node, 0, &image)?;
    ends_well(node, loaded, &disks)
}

/// The same over both heads of its root.
fn wipe_heads(disks: &[String], lu: &str) -> Result<()> {
    let sections = sections(disks, lu)?;
    let titles = sections.iter().filter_map(|section| section["title"].as_str());
    let heads: Vec<&str> =
        titles.filter_map(|title| title.strip_prefix("head of an LU's root, ")).collect();
    assert_eq!(heads.len(), 2, "{heads:?}");
    heads.into_iter().try_for_each(wipe_page)
}

/// Nothing of an LU can be found any more, and nobody knows what was written last.
#[test]
fn an_lu_without_a_root_is_used_as_a_backup_has_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks, image) = with_lus(dir.path())?;
    let kept = dir.path().join("kept").display().to_string();
    node.cli(&["pool", "backup", "fast", "--out", &kept])?;
    node.cli(&["snapshot", "create", "image@later"])?;
    let lu = node.cli(&["lu", "show", "image"])?["uuid"].clone();
    let lu = lu.as_str().context(|| "a UUID".into())?;
    node.kill()?;
    wipe_heads(&disks, lu)?;

    let restore = [&["pool", "restore", &kept, "--pv"], &paths(&disks)[..]].concat();
    let (code, seen, said) = offline(&restore)?;
    assert_eq!(code, Some(1), "{seen} {said}");
    let as_of = [&restore[..], &["--as-of-backup", "image"]].concat();
    let (code, would, said) = offline(&[&as_of[..], &["--dry-run"]].concat())?;
    assert_eq!(code, Some(0), "{would} {said}");
    let (code, done, said) = offline(&as_of)?;
    assert_eq!(code, Some(0), "{done} {said}");
    let (all, lost) = (&done["as_of_backup"][0]["bytes"], &done["as_of_backup"][0]["lost_bytes"]);
    assert_eq!((all.as_u64(), lost.as_u64()), (Some(IMAGE_BYTES as u64), Some(0)), "{done}");
    assert_eq!(done["as_of_backup"], would["as_of_backup"]);

    node.start()?;
    holds(&node, 0, &image)?;
    // One that the node knows, and the LU does not any more.
    node.cli(&["snapshot", "rm", "image@later"])?;
    node.cli(&["snapshot", "create", "image@now"])?;
    node.cli(&["snapshot", "rollback", "image@now"])?;
    node.cli(&["snapshot", "rm", "image@now"])?;
    holds(&node, 0, &image)?;
    assert!(node.stop()?.success());
    let (code, report, said) = system_tests::pools::check(&disks)?;
    assert!(code == Some(0), "{report} {said}");
    Ok(())
}
