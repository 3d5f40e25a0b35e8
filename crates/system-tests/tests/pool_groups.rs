//! Failure groups that come and go in the real binary, under a guest whose every write is known,
//! while the node is killed again and again.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use system_tests::iscsi::{copy_of, holds, node};
use system_tests::pools::{
    SOON, check, create, create_of_image, create_pool, die_within, disk, disks_of, ends_well,
    is_mirrored, loaded_guest, node_with_groups, pool, told, until_mirrored, until_whole,
};
use system_tests::{Node, Result, loops, until};

#[test]
fn a_failure_group_leaves_under_a_guest_while_the_node_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, [one, two]) = node_with_groups(dir.path())?;
    create(&node, "disk", "4G")?;
    let loaded = loaded_guest(&node)?;
    let (mut stays, mut leaves) = ((one, "left"), (two, "right"));
    let mut in_the_midst = 0;
    for _ in 0..loops(6) {
        until_mirrored(&node)?;
        let mut split = node.command(&["pool", "split", "fast", leaves.1])?;
        let mut split = split.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        die_within(&mut node, 40)?;
        in_the_midst += u32::from(!split.wait()?.success());
        if pool(&node)?["disks"].as_array().is_some_and(|disks| disks.len() == 2) {
            // It was not asked for before the node died, or it has gone on.
            let _ = node.command(&["pool", "split", "fast", leaves.1])?.output()?;
        }
        until("the group has left", SOON, || Ok(disks_of(&node)? == [stays.0.clone()]))?;
        assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "online");
        // The next one has to do without the one that was good for all before.
        node.cli(&["pool", "add-pv", "fast", "--pv", &format!("{}@{}", leaves.0, leaves.1)])?;
        (stays, leaves) = (leaves, stays);
    }
    println!("{in_the_midst} kills before it was said that the group has left");
    assert!(in_the_midst > 0);
    until_mirrored(&node)?;
    node.cli(&["pool", "split", "fast", leaves.1])?;
    // Nobody's: not refused for what it holds.
    node.cli(&["pool", "create", "other", "--pv", &leaves.0])?;
    ends_well(node, loaded, &[stays.0])
}

#[test]
fn a_failure_group_becomes_a_pool_under_a_guest_while_the_node_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    let [one, two] = [disk(dir.path(), "one", 300)?, disk(dir.path(), "two", 300)?];
    create_pool(&node, &[format!("{one}@left"), format!("{two}@right")])?;
    create(&node, "disk", "96M")?;
    let image = create_of_image(&node, dir.path(), "still", 32)?;
    let loaded = loaded_guest(&node)?;
    let [first, second] = ["first", "second"].map(|it| dir.path().join(it).display().to_string());
    let asked = ["pool", "split", "fast", "right", "--as", "copy"];
    let mut in_the_midst = 0;
    for _ in 0..loops(2) {
        until_mirrored(&node)?;
        let mut split = node.command(&asked)?;
        let mut split = split.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        die_within(&mut node, 80)?;
        in_the_midst += u32::from(!split.wait()?.success());
        if pool(&node)?["disks"].as_array().is_some_and(|disks| disks.len() == 2) {
            // It was not asked for before the node died, or it has gone on.
            let _ = node.command(&asked)?.output()?;
        }
        until("the group has left", SOON, || Ok(disks_of(&node)? == [one.clone()]))?;
        for (lu, lun) in [("copy-still", "1"), ("copy-disk", "2")] {
            until("it is there", SOON, || Ok(node.cli(&["lu", "show", lu])?["state"] == "online"))?;
            node.cli(&["map", lu, "--to", "tool", "--via", "iscsi", "--lun", lun])?;
        }
        holds(&node, 1, &image)?;
        // The guest writes on, and nothing of that comes here.
        copy_of(&node, 2, &first)?;
        die_within(&mut node, 400)?;
        copy_of(&node, 2, &second)?;
        let (first, second) = (fs::read(&first)?, fs::read(&second)?);
        assert!(first == second && first.iter().any(|byte| *byte != 0));
        for lu in ["copy-still", "copy-disk"] {
            node.cli(&["unmap", lu, "--from", "tool"])?;
            node.cli(&["lu", "rm", lu])?;
        }
        node.cli(&["pool", "rm", "copy"])?;
        node.cli(&["pool", "add-pv", "fast", "--pv", &format!("{two}@right")])?;
    }
    println!("{in_the_midst} kills before it was said that the group is a pool");
    until_mirrored(&node)?;
    node.cli(&asked)?;
    let (code, report, said) = {
        ends_well(node, loaded, &[one])?;
        check(&[two])?
    };
    assert!(code == Some(0), "{report} {said}");
    Ok(())
}

#[test]
fn a_failure_group_is_added_under_a_guest_while_the_node_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    let [one, two, new] =
        [disk(dir.path(), "1", 200)?, disk(dir.path(), "2", 200)?, disk(dir.path(), "new", 400)?];
    create_pool(&node, &[format!("{one}@old"), format!("{two}@old")])?;
    create(&node, "disk", "4G")?;
    let image = create_of_image(&node, dir.path(), "still", 96)?;
    let loaded = loaded_guest(&node)?;
    // Slow enough for the node to die on the way.
    node.cli(&["pool", "set", "fast", "--catch-up-rate", "40M"])?;
    node.cli(&["pool", "add-pv", "fast", "--pv", &format!("{new}@new")])?;
    let (mut behind, mut percents) = (0, Vec::new());
    for _ in 0..loops(6) {
        die_within(&mut node, 1000)?;
        let shown = pool(&node)?;
        percents.extend(shown["behind"][0]["percent"].as_u64());
        behind += u32::from(!is_mirrored(&node)?);
    }
    println!("{behind} kills while the new group lacked something, at {percents:?} %");
    assert!(behind > 1);
    node.cli(&["pool", "set", "fast", "--catch-up-rate", "off"])?;
    until_mirrored(&node)?;
    until_whole(&mut node, &new, Node::kill)?;

    // What all of it was on is away, and everything is there.
    node.kill()?;
    let away = |path: &str| format!("{path}.away");
    for path in [&one, &two] {
        fs::rename(path, away(path))?;
    }
    node.start()?;
    until("it is said", SOON, || Ok(told(&node, "is used without one of its disks")? > 0))?;
    for lu in ["disk", "still"] {
        assert_eq!(node.cli(&["lu", "show", lu])?["state"], "online");
    }
    holds(&node, 0, &image)?;
    // The guest goes on with what is left.
    thread::sleep(Duration::from_millis(1000));
    die_within(&mut node, 400)?;
    assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "online");
    // The dead group is split off, and the one that is left is all of the pool.
    node.cli(&["pool", "split", "fast", "old"])?;
    assert_eq!(disks_of(&node)?, std::slice::from_ref(&new));
    die_within(&mut node, 400)?;
    holds(&node, 0, &image)?;
    ends_well(node, loaded, &[new])
}
