//! What is left used under a guest when what had everything is gone: copies of LUs that have missed
//! something, and pools of which only failure groups are left that do.

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;

use serde_json::Value;
use system_tests::iscsi::{holds, map_to_tool, node};
use system_tests::pools::{
    SOON, Unwritable, create, create_of_image, create_pool, die_within, disk, guest_of,
    is_mirrored, map_to_guest, node_with_groups, pool, told, until_mirrored, until_whole, words,
};
use system_tests::{Guest, Node, Result, loops, until};

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

/// The beginning of a disk: its first label and its slab table.
fn head(path: &str) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(4 << 20).read_to_end(&mut head)?;
    Ok(head)
}

/// Everything that the node knows is gone; the next one serves at the same place.
fn forget(node: &mut Node) -> Result<()> {
    node.kill()?;
    fs::remove_dir_all(node.data())?;
    node.start()
}

/// Pool `fast` of disks that are `left` and `right` is left with the latter. It has all of LU
/// `whole`, with what is in the image; of LU `disk`, where the guest has written words `old` and
/// `new`, and of LU `only` it has not everything.
fn lag(node: &mut Node, guest: &Guest, [one, two]: [&str; 2]) -> Result<()> {
    let away = |path: &str| format!("{path}.away");
    let (fill, _) = words(768);
    guest.ok(&fill("old"))?;
    node.kill()?;
    fs::rename(two, away(two))?;
    node.start()?;
    guest.ok(&fill("new"))?;
    node.cli(&["lu", "create", "only", "--size", "64M", "--pool", "fast", "--thick"])?;
    // So slow that the group never has everything.
    node.cli(&["pool", "set", "fast", "--catch-up-rate", "4M"])?;
    node.kill()?;
    fs::rename(away(two), two)?;
    node.start()?;
    let all = "all copies of LU whole have everything again";
    until("it has all of the small one", SOON, || Ok(told(node, all)? > 0))?;
    assert!(!is_mirrored(node)?);
    node.kill()?;
    fs::rename(one, away(one))?;
    Ok(())
}

/// Imports the pool with what is left while the node is killed. All of that is done, or nothing.
fn is_imported_over_a_kill(node: &mut Node, two: &str) -> Result<bool> {
    let before = head(two)?;
    let mut import = node.command(&["pool", "import", "fast", "--pv", two, "--force", "--yes"])?;
    let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    die_within(node, 150)?;
    let is_done = import.wait()?.success();
    if node.cli(&["pool", "ls"])?.as_array().is_some_and(Vec::is_empty) {
        assert!(!is_done && head(two)? == before, "a part of it was done");
        return Ok(false);
    }
    until("it is used", SOON, || Ok(pool(node)?["state"] == "online"))?;
    let log = fs::read_to_string(node.log())?;
    assert!(log.contains("goes on with what group group1 has of it"), "nobody was told");
    Ok(true)
}

#[test]
fn a_pool_of_a_lost_store_goes_on_with_a_group_that_lacks_something() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    let [one, two] = [disk(dir.path(), "one", 300)?, disk(dir.path(), "two", 300)?];
    create_pool(&node, &[format!("{one}@left"), format!("{two}@right")])?;
    create(&node, "disk", "64M")?;
    let image = create_of_image(&node, dir.path(), "whole", 2)?;
    let guest = guest_of(&node)?;
    lag(&mut node, &guest, [&one, &two])?;
    node.start()?;
    forget(&mut node)?;

    is_left_as_it_is_unless_it_is_meant(&node, &two)?;
    let (kept, mut undone, mut done) = (dir.path().join("kept"), 0, 0);
    fs::copy(&two, &kept)?;
    for _ in 0..loops(4) {
        match is_imported_over_a_kill(&mut node, &two)? {
            true => done += 1,
            false => undone += 1,
        }
        node.kill()?;
        fs::copy(&kept, &two)?;
        fs::remove_file(node.log())?;
        node.start()?;
        forget(&mut node)?;
    }
    println!("imported over {done} kills, and not over {undone}");

    let imported = node.cli(&["pool", "import", "fast", "--pv", &two, "--force", "--yes"])?;
    assert!(imported["pool"]["state"] == "online" && imported["missing"] == 1, "{imported}");
    assert_eq!(told(&node, "pool-forced")?, 1);
    map_to_tool(&node, &["whole"])?;
    holds(&node, 0, &image)?;
    assert_eq!(imported["outdated"], serde_json::json!(["disk", "only"]), "{imported}");
    for lu in ["disk", "only"] {
        let shown = node.cli(&["lu", "show", lu])?;
        let next = shown["problem"]["next"].to_string();
        assert!(shown["state"] == "failed" && next.contains("viaduct lu force"), "{shown}");
    }
    die_within(&mut node, 200)?;
    node.cli(&["lu", "force", "disk", "--yes"])?;
    until("it is used", SOON, || Ok(node.cli(&["lu", "show", "disk"])?["state"] == "online"))?;
    map_to_guest(&node)?;
    // Slabs that were brought lately may be newer.
    let (fill, look) = words(768);
    let words = guest.ok(&look)?;
    assert!(words.lines().all(|word| ["old", "new"].contains(&word)), "{words}");
    guest.ok(&fill("now"))?;

    // The other group is back, does not win, and what only it has is there again.
    node.kill()?;
    fs::rename(format!("{one}.away"), &one)?;
    node.start()?;
    forget(&mut node)?;
    let imported = node.cli(&["pool", "import", "fast", "--pv", &one, "--pv", &two])?;
    assert_eq!(imported["lus"], serde_json::json!(["disk", "only", "whole"]), "{imported}");
    map_to_guest(&node)?;
    map_to_tool(&node, &["whole"])?;
    assert_eq!(guest.ok(&look)?.trim(), "now");
    holds(&node, 0, &image)?;
    until_mirrored(&node)?;
    until_whole(&mut node, &one, Node::kill)?;
    node.kill()?;
    fs::rename(&two, format!("{two}.away"))?;
    node.start()?;
    assert_eq!(guest.ok(&look)?.trim(), "now");
    holds(&node, 0, &image)?;
    guest.quit()
}

/// It is shown what is left, and nothing is written.
fn is_left_as_it_is_unless_it_is_meant(node: &Node, two: &str) -> Result<()> {
    let (before, import) = (head(two)?, ["pool", "import", "fast", "--pv", two]);
    let found = node.cli(&["pool", "import", "--pv", two])?;
    let next = found["pools"][0]["problem"]["next"].to_string();
    assert!(next.contains("viaduct pool import fast --force"), "{found}");
    let (code, said) = node.cli_fails(&import)?;
    assert!(code == 4 && said.contains("pool import fast --force"), "{code}: {said}");
    let remains = node.cli(&[&import[..], &["--force"]].concat())?;
    let state = |lu: &str| {
        let all = remains["groups"][0]["lus"].as_array().cloned().unwrap_or_default();
        all.iter().find(|it| it["lu"] == lu).map_or(Value::Null, |it| it["state"].clone())
    };
    assert_eq!(state("whole"), "whole", "{remains}");
    assert_eq!(state("disk"), "stale", "{remains}");
    let wrong = [&import[..], &["--force", "--yes", "--group", "left"]].concat();
    let (code, said) = node.cli_fails(&wrong)?;
    assert!(code == 3 && said.contains("no failure group left"), "{code}: {said}");
    assert_eq!(node.cli(&["pool", "ls"])?, serde_json::json!([]));
    assert!(head(two)? == before);
    Ok(())
}
