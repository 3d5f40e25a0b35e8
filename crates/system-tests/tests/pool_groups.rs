//! Failure groups that come and go in the real binary, under a guest whose every write is known,
//! while the node is killed again and again.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use system_tests::iscsi::{copy_of, holds, node};
use system_tests::pools::{
    SOON, Unwritable, check, create, create_of_image, create_pool, disk, disks_of, ends_well,
    loaded_guest, map_to_guest, node_with_groups, pool, told, until_whole,
};
use system_tests::{Error, Guest, Node, Result, VhostBlk, loops, until};

/// Kills the node at some moment within so many milliseconds, and starts it again.
fn die_within(node: &mut Node, ms: u64) -> Result<()> {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    thread::sleep(Duration::from_micros(u64::from(since.subsec_nanos()) % (ms * 1000)));
    node.kill()?;
    node.start()
}

/// Nothing lacks anything, and the labels say so.
fn is_mirrored(node: &Node) -> Result<bool> {
    Ok(pool(node)?.get("behind").is_none())
}

fn until_mirrored(node: &Node) -> Result<()> {
    let said = || Ok(format!("{}\n{}", pool(node)?, node.cli(&["event", "ls"])?));
    until("each group has everything", SOON, || is_mirrored(node)).map_err(|late| {
        let said: Result<String> = said();
        Error::new(format!("{late}\n{said:?}"))
    })
}

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

/// A guest with LU `disk`.
fn guest_of(node: &Node) -> Result<Guest> {
    map_to_guest(node)?;
    Guest::builder().disk(VhostBlk::new(&node.socket("vm", 2))).boot()
}

/// What fills the first blocks of 64 KiB of a guest's disk with a word, of three letters so that a
/// line never crosses the end; and what tells the words that are there.
fn words(blocks: u32) -> (impl Fn(&str) -> String, String) {
    let blocks = format!("bs=64k count={blocks}");
    let look = format!("dd if=/dev/vda {blocks} iflag=direct 2>/dev/null | sort -u");
    let fill = move |word: &str| {
        format!("yes {word} | dd of=/dev/vda {blocks} iflag=fullblock oflag=direct conv=notrunc")
    };
    (fill, look)
}

#[test]
fn an_lu_is_forced_to_what_a_stale_copy_has() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, [one, two]) = node_with_groups(dir.path())?;
    if Unwritable::new(&two).is_none() {
        println!("NOT RUN: files cannot be made immutable here (root, CAP_LINUX_IMMUTABLE, ext4)");
        return Ok(());
    }
    for name in ["disk", "other"] {
        create(&node, name, "64M")?;
    }
    let guest = guest_of(&node)?;
    let (fill, look) = words(32);
    guest.ok(&fill("old"))?;
    let (code, said) = node.cli_fails(&["lu", "force", "disk", "--yes"])?;
    assert!(code == 4 && said.contains("has everything is here"), "{code}: {said}");
    let unwritable = Unwritable::new(&two);
    guest.ok(&fill("new"))?;
    node.kill()?;
    drop(unwritable);
    let away = format!("{one}.away");
    fs::rename(&one, &away)?;
    node.start()?;

    // What has missed something is not read, and what has not goes on.
    let shown = node.cli(&["lu", "show", "disk"])?;
    let next = shown["problem"]["next"].to_string();
    assert!(shown["state"] == "failed" && next.contains("viaduct lu force disk"), "{shown}");
    assert_eq!(node.cli(&["lu", "show", "other"])?["state"], "online");
    let copies = node.cli(&["lu", "force", "disk"])?["copies"].clone();
    assert!(copies[0]["group"] == "right" && copies[0]["current"] == false, "{copies}");
    assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "failed", "it was not meant");
    let (code, said) = node.cli_fails(&["lu", "force", "disk", "--group", "left", "--yes"])?;
    assert!(code == 4 && said.contains("has no copy of it"), "{code}: {said}");
    node.cli(&["lu", "force", "disk", "--yes"])?;
    assert_eq!(told(&node, "lu-forced")?, 1);
    die_within(&mut node, 200)?;
    until("it is used", SOON, || Ok(node.cli(&["lu", "show", "disk"])?["state"] == "online"))?;
    assert_eq!(node.cli(&["lu", "show", "disk"])?["forced"]["group"], "right");
    assert_eq!(guest.ok(&look)?.trim(), "old");
    guest.ok(&fill("now"))?;

    // The one that had everything is back, and is none any more.
    node.kill()?;
    fs::rename(&away, &one)?;
    node.start()?;
    assert_eq!(guest.ok(&look)?.trim(), "now");
    until_mirrored(&node)?;
    until_whole(&mut node, &one, Node::kill)?;
    node.kill()?;
    fs::rename(&two, format!("{two}.away"))?;
    node.start()?;
    assert_eq!(guest.ok(&look)?.trim(), "now");
    guest.quit()
}

/// What is left is shown, and the pool goes on with it when that is meant.
fn is_forced_when_meant(node: &Node, gone: &str) -> Result<()> {
    let shown = pool(node)?;
    let next = shown["problem"]["next"].to_string();
    assert!(shown["state"] == "failed" && next.contains("viaduct pool force fast"), "{shown}");
    let remains = node.cli(&["pool", "force", "fast"])?;
    assert!(
        remains["missing"][0] == *gone && remains["groups"][0]["group"] == "right",
        "{remains}"
    );
    assert_eq!(pool(node)?["state"], "failed", "it was not meant");
    let (code, said) = node.cli_fails(&["pool", "force", "fast", "--group", "left", "--yes"])?;
    assert!(code == 4 && said.contains("not all disks of"), "{code}: {said}");
    node.cli(&["pool", "force", "fast", "--yes"])?;
    assert_eq!(told(node, "pool-forced")?, 1);
    Ok(())
}

#[test]
fn a_pool_goes_on_with_a_group_that_lacks_something() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    let [one, two] = [disk(dir.path(), "one", 300)?, disk(dir.path(), "two", 300)?];
    create_pool(&node, &[format!("{one}@left"), format!("{two}@right")])?;
    create(&node, "disk", "64M")?;
    let guest = guest_of(&node)?;
    // Several slabs, of which one is brought at a time.
    let (fill, look) = words(160);
    guest.ok(&fill("old"))?;
    let away = |path: &str| format!("{path}.away");
    node.kill()?;
    fs::rename(&two, away(&two))?;
    node.start()?;
    guest.ok(&fill("new"))?;
    let image = create_of_image(&node, dir.path(), "still", 24)?;
    // So slow that the group never has everything.
    node.cli(&["pool", "set", "fast", "--catch-up-rate", "1M"])?;
    node.kill()?;
    fs::rename(away(&two), &two)?;
    node.start()?;
    until("it is known what it lacks", SOON, || Ok(!is_mirrored(&node)?))?;
    let (code, said) = node.cli_fails(&["pool", "force", "fast"])?;
    assert!(code == 4 && said.contains("is open"), "{code}: {said}");

    // What everything was on is gone.
    node.kill()?;
    fs::rename(&one, away(&one))?;
    node.start()?;
    is_forced_when_meant(&node, &one)?;
    die_within(&mut node, 200)?;
    assert_eq!(pool(&node)?["state"], "online");
    let [shown, still] = [["lu", "show", "disk"], ["lu", "show", "still"]].map(|it| node.cli(&it));
    let (shown, still) = (shown?, still?);
    let next = shown["problem"]["next"].to_string();
    assert!(shown["state"] == "failed" && next.contains("viaduct lu force disk"), "{shown}");
    assert_eq!(still["state"], "failed", "{still}");
    node.cli(&["lu", "force", "disk", "--yes"])?;
    until("it is used", SOON, || Ok(node.cli(&["lu", "show", "disk"])?["state"] == "online"))?;
    // One slab may have been brought.
    let words = guest.ok(&look)?;
    assert!(words.lines().all(|word| ["old", "new"].contains(&word)), "{words}");
    guest.ok(&fill("now"))?;

    // It is back, does not win, and what only it has is there again.
    node.kill()?;
    fs::rename(away(&one), &one)?;
    node.start()?;
    assert_eq!(guest.ok(&look)?.trim(), "now");
    holds(&node, 0, &image)?;
    node.cli(&["pool", "set", "fast", "--catch-up-rate", "off"])?;
    // Whoever waits for the rate of before waits on.
    die_within(&mut node, 200)?;
    until_mirrored(&node)?;
    for disk in [&one, &two] {
        until_whole(&mut node, disk, Node::kill)?;
    }
    node.kill()?;
    fs::rename(&two, away(&two))?;
    node.start()?;
    assert_eq!(guest.ok(&look)?.trim(), "now");
    holds(&node, 0, &image)?;
    guest.quit()
}
