//! Pools in the real binary: disks of files, LUs used by real clients, servers killed at any
//! moment, disks and data directories that do not fit each other.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use system_tests::blk_client;
use system_tests::image::own_program;
use system_tests::iscsi::{holds, node, target_of};
use system_tests::libiscsi::{SECOND_TOOL, Suite, TOOL, Tally, Unit};
use system_tests::pools::{
    SOON, Unwritable, check, create, create_of_image, create_pool, disk, disks_of, disks_of_groups,
    ends_well, is_whole, loaded_guest, node_with_groups, node_with_pool, pool, told, until_whole,
};
use system_tests::verify::Report;
use system_tests::{Context, Guest, GuestImage, Node, Result, VhostBlk, loops, until};

/// Under the load LUs and snapshots come and go, disks leave and join, and failure groups miss
/// something and catch up.
#[test]
fn killed_servers_lose_nothing_in_a_pool() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::on(&dir.path().join("node")).start()?;
    let disks = disks_of_groups(dir.path(), 800)?;
    create_pool(&node, &disks)?;
    let free = pool(&node)?["free"].clone();
    let lus = [("small", "64M"), ("large", "8G"), ("huge", "1T")];
    for (name, size) in lus {
        create(&node, name, size)?;
        node.cli(&["client", "create", name])?;
        node.cli(&["map", name, "--to", name, "--via", "vhost-user-blk"])?;
    }
    node.cli(&["client", "create", "reader"])?;
    node.stop()?;
    let rounds = loops(20);
    let named = |option: &str, value: &str| [option.to_owned(), value.to_owned()];
    let mut options: Vec<String> = lus.iter().flat_map(|(name, _)| named("--lu", name)).collect();
    options.extend(disks.iter().flat_map(|disk| named("--disk", disk)));
    options.extend(named("--reader", &node.socket("reader", 2).display().to_string()));
    let sockets = lus.map(|(name, _)| node.socket(name, 2));
    let output = blk_client::churn(&node, &sockets, rounds, &options)?.output()?;
    let told = blk_client::churned(&node, &output)?;
    assert!(rounds < 20 || told.snapshots > 0, "{told:?}");
    assert!(rounds < 200 || told.left > 0 && told.caught_up > 0, "{told:?}");

    node.start()?;
    let scrubbed = node.cli(&["pool", "scrub", "fast"])?;
    println!("{scrubbed}");
    let status = node.cli(&["status"])?;
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status}");
    let log = fs::read_to_string(node.log())?;
    assert!(!log.contains("not known here"), "a disk was counted twice");
    for (name, _) in lus {
        node.cli(&["unmap", name, "--from", name])?;
        node.cli(&["lu", "rm", name])?;
    }
    assert_eq!(pool(&node)?["free"], free, "all space comes back");
    node.cli(&["pool", "rm", "fast"])?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn a_guest_uses_a_disk_of_a_pool() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _disks) = node_with_pool(dir.path(), 300)?;
    create(&node, "disk", "4G")?;
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk"])?;
    let verifier = GuestImage::new().with_host_program("verify", &own_program("verify")?);
    let guest = Guest::builder()
        .disk(VhostBlk::new(&node.socket("vm", 2)).queues(2))
        .image(verifier.with_package("e2fsprogs"))
        .boot()?;
    let load = guest.start("verify load /dev/vda --fresh --threads 16")?;
    load.wait_for_text("started", SOON)?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(400));
        node.kill()?;
        node.start()?;
    }
    load.close_input()?;
    println!("{:?}", Report::parse(&load.wait(SOON)?.text())?.check()?);

    guest.ok("mkfs.ext4 -q -E nodiscard /dev/vda && mount /dev/vda /mnt")?;
    guest
        .ok("dd if=/dev/urandom of=/mnt/file bs=64k count=1000 && sync && md5sum /mnt/file > /a")?;
    guest.ok("echo 3 > /proc/sys/vm/drop_caches && md5sum -c /a")?;
    let used = |node: &Node| {
        let shown = node.cli(&["lu", "show", "disk"])?;
        shown["allocated"].as_u64().context(|| format!("{shown}"))
    };
    let full = used(&node)?;
    assert!(full > 62 << 20, "{full}");
    guest.ok("rm /mnt/file && sync && fstrim /mnt")?;
    until("discarded space comes back", SOON, || Ok(used(&node)? + (56 << 20) < full))?;
    guest.ok("umount /mnt && fsck.ext4 -fn /dev/vda")?;
    node.cli(&["lu", "resize", "disk", "--size", "5G"])?;
    let size = "$(blockdev --getsize64 /dev/vda)";
    guest.ok(&format!("while [ {size} != {} ]; do usleep 10000; done", 5_u64 << 30))?;
    guest.ok("dd if=/dev/vda of=/dev/null bs=1M skip=5110 count=10 iflag=direct")?;
    // What is written stays, and the guest is told of the rest.
    let (code, said) = node.cli_fails(&["lu", "resize", "disk", "--size", "1G"])?;
    assert!(code == 4 && said.contains("it is written up to"), "{code}: {said}");
    guest.ok("dd if=/dev/urandom of=/dev/vda bs=1M seek=5000 count=1 oflag=direct")?;
    let shrink = ["lu", "resize", "disk", "--size", "4608M"];
    let (code, said) = node.cli_fails(&shrink)?;
    assert!(code == 4 && said.contains("lu resize disk --size 5001MiB"), "{code}: {said}");
    guest.ok(&format!("blkdiscard -o $((5000 * {})) -l {} /dev/vda", 1 << 20, 1 << 20))?;
    node.cli(&shrink)?;
    guest.ok(&format!("while [ {size} != {} ]; do usleep 10000; done", 4608_u64 << 20))?;
    guest.quit()?;
    assert!(node.stop()?.success());
    node.start()?;
    assert_eq!(node.cli(&["lu", "show", "disk"])?["size"], 4608_u64 << 20);
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn an_initiator_uses_a_disk_of_a_pool() -> Result<()> {
    let (dir, suite) = (tempfile::tempdir()?, Suite::fetch()?);
    let (node, portal) = node(&dir.path().join("node"), 0)?;
    node.cli(&["pool", "create", "fast", "--size", "1G"])?;
    create(&node, "disk", "256M")?;
    node.cli(&["client", "create", "tool", "--iqn", TOOL, "--iqn", SECOND_TOOL])?;
    node.cli(&["map", "disk", "--to", "tool", "--via", "iscsi"])?;
    let url = format!("iscsi://{portal}/{}/0", target_of(&node, "tool")?);
    let unit = Unit { name: "disk".to_owned(), url, is_read_only: false };
    let families =
        ["Read16.", "Write16.", "Unmap.", "CompareAndWrite.", "OrWrite.", "WriteSame16."];
    let is_wanted =
        |test: &&String| families.iter().any(|it| test.starts_with(&format!("ALL.{it}")));
    let mut tally = Tally::default();
    for test in suite.tests.iter().filter(is_wanted) {
        tally.note(test, &unit, suite.run(test, &unit)?);
    }
    println!("{tally}");
    assert!(tally.failures().is_empty(), "{}", tally.failures().join("\n"));
    Ok(())
}

#[test]
fn an_image_becomes_an_lu_of_a_pool() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _disks) = node_with_pool(dir.path(), 100)?;
    let free = pool(&node)?["free"].clone();
    let image = disk(dir.path(), "image", 64)?;
    let file = File::options().write(true).open(&image)?;
    let piece: Vec<u8> = (0..1 << 20).map(|at: u32| (at >> 9) as u8 | 1).collect();
    for mib in [0, 7, 63] {
        file.write_all_at(&piece, mib << 20)?;
    }
    node.cli(&["lu", "create", "disk", "--from", &image, "--size", "1G", "--pool", "fast"])?;
    let shown = node.cli(&["lu", "show", "disk"])?;
    assert!(shown["state"] == "online" && shown["backing"]["pool"] == "fast", "{shown}");
    assert!(shown["allocated"].as_u64() < Some(8 << 20), "zeroes are not written: {shown}");
    // Again what it was, in a node of its own.
    assert!(node.stop()?.success());
    node.start()?;
    assert_eq!(node.cli(&["lu", "show", "disk"])?["size"], 1_u64 << 30);

    // One that does not fit leaves nothing.
    let large = disk(dir.path(), "large", 300)?;
    let file = File::options().write(true).open(&large)?;
    for mib in 0..300 {
        file.write_all_at(&piece, mib << 20)?;
    }
    let (code, said) =
        node.cli_fails(&["lu", "create", "big", "--from", &large, "--pool", "fast"])?;
    assert!(code == 1 && said.contains("no free slab"), "{code}: {said}");
    node.cli(&["lu", "rm", "disk"])?;
    until("all space comes back", SOON, || Ok(pool(&node)?["free"] == free))?;
    let (code, said) =
        node.cli_fails(&["lu", "create", "big", "--from", &large, "--pool", "none"])?;
    assert!(code == 3 && said.contains("no pool 'none'"), "{code}: {said}");
    node.cli(&["pool", "rm", "fast"])?;
    Ok(())
}

/// What a pool and its LU say while it cannot be opened; another pool goes on meanwhile.
fn is_refused(node: &Node, what: &str) -> Result<()> {
    let shown = pool(node)?;
    let said = shown["problem"]["message"].as_str().unwrap_or_default();
    assert!(shown["state"] == "failed" && said.contains(what), "{shown}");
    assert!(shown["problem"]["next"].is_string(), "{shown}");
    let lu = node.cli(&["lu", "show", "disk"])?;
    assert!(lu["state"] == "failed" && lu["problem"]["message"] == said, "{lu}");
    assert_eq!(node.cli(&["lu", "show", "other"])?["state"], "online");
    let status = node.cli(&["status"])?.to_string();
    assert!(status.contains("pool/fast"), "{status}");
    Ok(())
}

#[test]
fn a_disk_that_is_missing_is_waited_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, [one, two]) = node_with_pool(dir.path(), 100)?;
    create(&node, "disk", "1G")?;
    node.cli(&["pool", "create", "own", "--size", "100M"])?;
    node.cli(&["lu", "create", "other", "--size", "1G", "--pool", "own"])?;
    node.stop()?;
    let away = PathBuf::from(format!("{two}.away"));
    fs::rename(&two, &away)?;
    node.start()?;
    is_refused(&node, &format!("{two}: No such file"))?;
    // A copy of the other disk does not do.
    fs::copy(&one, &two)?;
    until("the copy is refused", SOON, || {
        let shown = pool(&node)?["problem"]["message"].to_string();
        Ok(shown.contains("one of them is a copy"))
    })?;
    fs::rename(&away, &two)?;
    until("the pool comes back", SOON, || Ok(pool(&node)?["state"] == "online"))?;
    until("its LU comes back", SOON, || {
        Ok(node.cli(&["lu", "show", "disk"])?["state"] == "online")
    })?;
    assert!(node.stop()?.success());
    Ok(())
}

#[test]
fn an_old_data_directory_and_old_disks_are_noticed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, [one, _]) = node_with_pool(dir.path(), 100)?;
    create(&node, "disk", "1G")?;
    node.cli(&["pool", "create", "own", "--size", "100M"])?;
    node.cli(&["lu", "create", "other", "--size", "1G", "--pool", "own"])?;
    node.stop()?;
    let kv = node.data().join("kv.redb");
    let (old_kv, old_disk) = (fs::read(&kv)?, fs::read(&one)?);
    for _ in 0..2 {
        node.start()?;
        node.stop()?;
    }
    let (new_kv, new_disk) = (fs::read(&kv)?, fs::read(&one)?);
    let before = new_disk.clone();

    fs::write(&kv, &old_kv)?;
    node.start()?;
    let shown = pool(&node)?;
    let said = shown["problem"]["message"].to_string();
    assert!(
        shown["state"] == "failed" && said.contains("newer than what this node knows"),
        "{shown}"
    );
    assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "failed");
    node.kill()?;
    assert!(fs::read(&one)? == before, "nothing is written to disks that do not fit");

    fs::write(&kv, &new_kv)?;
    fs::write(&one, &old_disk)?;
    node.start()?;
    let shown = pool(&node)?;
    let said = shown["problem"]["message"].to_string();
    assert!(
        shown["state"] == "failed" && said.contains("older than what this node knows"),
        "{shown}"
    );
    node.kill()?;

    // Right again; and a new data directory takes the disks as they are, from the document.
    fs::write(&one, &new_disk)?;
    node.start()?;
    assert_eq!(pool(&node)?["state"], "online");
    node.cli(&["lu", "rm", "other"])?;
    node.cli(&["pool", "rm", "own"])?;
    let document = dir.path().join("config.json").display().to_string();
    node.cli(&["config", "save", &document])?;
    node.stop()?;
    let next = Node::on(&dir.path().join("next")).start()?;
    next.cli(&["config", "restore", &document])?;
    assert_eq!(next.cli(&["lu", "show", "disk"])?["state"], "online");
    // Which the first one notices.
    drop(next);
    node.start()?;
    assert!(pool(&node)?["problem"]["message"].to_string().contains("newer"));
    Ok(())
}

#[test]
fn disks_with_data_are_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let node = Node::on(&dir.path().join("node")).start()?;
    let one = disk(dir.path(), "one", 100)?;
    File::options().write(true).open(&one)?.write_all_at(b"LABELONE", 512)?;
    File::options().write(true).open(&one)?.write_all_at(b"LVM2 001", 536)?;
    let before = fs::read(&one)?;
    let (code, said) = node.cli_fails(&["pool", "create", "fast", "--pv", &one])?;
    assert!(code == 4 && said.contains("holds data: LVM member"), "{code}: {said}");
    assert!(fs::read(&one)? == before);
    node.cli(&["pool", "create", "fast", "--pv", &one, "--force"])?;
    let view = node.cli(&["pv", "show", &one])?;
    assert_eq!(view["used_by"][0], "pool fast", "{view}");
    create(&node, "disk", "1G")?;
    let (code, said) = node.cli_fails(&["pool", "rm", "fast"])?;
    assert!(code == 4 && said.contains("has LUs: disk"), "{code}: {said}");
    // Another node does not take it.
    let other = Node::on(&dir.path().join("other")).start()?;
    let take = ["pool", "create", "mine", "--pv", &one, "--force"];
    let (code, said) = other.cli_fails(&take)?;
    assert!(code == 4 && said.contains("in use"), "{code}: {said}");
    node.cli(&["lu", "rm", "disk"])?;
    node.cli(&["pool", "rm", "fast"])?;
    other.cli(&take[..5])?;
    Ok(())
}

#[test]
fn a_full_pool_is_told_and_its_lus_go_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (node, disks) = node_with_pool(dir.path(), 40)?;
    create(&node, "disk", "1G")?;
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk"])?;
    let guest = Guest::builder().disk(VhostBlk::new(&node.socket("vm", 2))).boot()?;
    let fill = "dd if=/dev/zero of=/dev/vda bs=64k oflag=direct";
    assert_ne!(guest.run(fill)?.status, 0);
    guest.ok("dd if=/dev/vda of=/dev/null bs=64k count=100 iflag=direct")?;
    guest.ok("dd if=/dev/zero of=/dev/vda bs=64k count=10 oflag=direct conv=notrunc")?;
    assert_eq!(pool(&node)?["free"], 0);
    let events = node.cli(&["event", "ls"])?.to_string();
    for kind in ["pool-low", "pool-full"] {
        assert!(events.contains(kind), "{events}");
    }
    assert!(pool(&node)?["problem"]["message"].to_string().contains("is full"));
    // What is given back is used again.
    guest.ok("blkdiscard -o 0 -l 33554432 /dev/vda")?;
    guest.ok("dd if=/dev/zero of=/dev/vda bs=64k seek=8000 count=10 oflag=direct conv=notrunc")?;

    // Another disk is room for those who had none.
    assert_ne!(guest.run(fill)?.status, 0);
    let more = "dd if=/dev/zero of=/dev/vda bs=64k seek=12000 count=300 oflag=direct conv=notrunc";
    assert_ne!(guest.run(more)?.status, 0);
    let (code, said) = node.cli_fails(&["pool", "rm-pv", "fast", &disks[0]])?;
    assert!(code == 4 && said.contains("are missing"), "{code}: {said}");
    node.cli(&["pool", "add-pv", "fast", "--pv", &disk(dir.path(), "three", 100)?])?;
    guest.ok(more)?;
    Ok(())
}

#[test]
fn disks_are_exchanged_under_a_guest_while_the_node_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, [one, two]) = node_with_pool(dir.path(), 400)?;
    create(&node, "disk", "512M")?;
    node.cli(&["client", "create", "vm"])?;
    node.cli(&["map", "disk", "--to", "vm", "--via", "vhost-user-blk"])?;
    let guest = Guest::builder()
        .disk(VhostBlk::new(&node.socket("vm", 2)).queues(2))
        .image(GuestImage::new().with_host_program("verify", &own_program("verify")?))
        .boot()?;
    guest.ok("dd if=/dev/zero of=/dev/vda bs=1M count=200 oflag=direct")?;
    let load = guest.start("verify load /dev/vda --fresh --threads 8")?;
    load.wait_for_text("started", SOON)?;
    let [three, four] = [disk(dir.path(), "three", 200)?, disk(dir.path(), "four", 400)?];
    node.cli(&["pool", "add-pv", "fast", "--pv", &three])?;
    let (mut random, mut kills, mut in_the_midst) = (0_u32, 0, 0);
    let [mut old, mut new] = [one, four];
    node.cli(&["pool", "replace-pv", "fast", &old, &new, "--no-wait"])?;
    while kills < 6 {
        if !disks_of(&node)?.contains(&old) {
            (old, new) = (new, old);
            node.cli(&["pool", "replace-pv", "fast", &old, &new, "--no-wait"])?;
        }
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        random = random.wrapping_mul(1_664_525).wrapping_add(since.subsec_nanos());
        thread::sleep(Duration::from_millis(u64::from(random >> 16) % 100));
        node.kill()?;
        node.start()?;
        kills += 1;
        in_the_midst += u32::from(disks_of(&node)?.contains(&old));
    }
    until("the old disk has left", SOON, || Ok(!disks_of(&node)?.contains(&old)))?;
    println!("{kills} kills, {in_the_midst} of them in the midst");
    assert!(in_the_midst > 0);
    thread::sleep(Duration::from_millis(300));
    load.close_input()?;
    println!("{:?}", Report::parse(&load.wait(SOON)?.text())?.check()?);
    guest.quit()?;
    let shown = pool(&node)?;
    let members = shown["disks"].as_array().context(|| format!("{shown}"))?;
    assert!(members.iter().all(|disk| disk["state"] == "member"), "{shown}");
    // It has no label, and is anybody's.
    node.cli(&["pool", "create", "other", "--pv", &old])?;
    assert!(node.stop()?.success());
    let (code, said, error) = check(&[two, three, new])?;
    assert!(code == Some(0) && said["findings"] == serde_json::json!([]), "{said} {error}");
    Ok(())
}

#[test]
fn a_pool_is_checked_from_its_disks_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks) = node_with_pool(dir.path(), 200)?;
    create(&node, "disk", "1G")?;
    let (code, _, error) = check(&disks)?;
    assert!(code == Some(5) && error.contains("a node has"), "{code:?} {error}");
    assert!(node.stop()?.success());

    let before = [fs::read(&disks[0])?, fs::read(&disks[1])?];
    let (code, said, error) = check(&disks)?;
    assert!(code == Some(0) && said["findings"] == serde_json::json!([]), "{said} {error}");
    assert_eq!(said["counts"]["lus"], 1);
    assert!(before == [fs::read(&disks[0])?, fs::read(&disks[1])?], "nothing is written");

    // Every page of a body of a root: an LU has one, and nothing stands in for it.
    for (disk, bytes) in disks.iter().zip(&before) {
        let pages = (0..bytes.len()).step_by(4096);
        let file = File::options().write(true).open(disk)?;
        for at in pages.filter(|at| bytes[*at..].starts_with(b"VDrb")) {
            file.write_all_at(&[bytes[at + 100] ^ 1], at as u64 + 100)?;
        }
    }
    let (code, said, error) = check(&disks)?;
    assert!(code == Some(1) && said["damaged"] == true, "{said} {error}");
    let lu = said["findings"][0]["lu"].as_str().context(|| format!("{said}"))?;
    assert!(said["findings"][0]["what"].as_str().is_some_and(|what| what.contains("checksum")));
    assert_eq!(lu.len(), 36);
    Ok(())
}

#[test]
fn a_guest_does_not_notice_that_a_copy_is_gone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks) = node_with_groups(dir.path())?;
    create(&node, "disk", "4G")?;
    let loaded = loaded_guest(&node)?;
    // Each of them has to do without the other, one after the other.
    for (path, is_killed) in disks.iter().zip([true, false]) {
        let away = format!("{path}.away");
        thread::sleep(Duration::from_millis(500));
        node.kill()?;
        fs::rename(path, &away)?;
        node.start()?;
        until("it is said", SOON, || Ok(told(&node, "is used without one of its disks")? > 0))?;
        until("it is used", SOON, || Ok(pool(&node)?["state"] == "online"))?;
        assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "online");
        thread::sleep(Duration::from_millis(1500));
        if is_killed {
            node.kill()?;
        }
        fs::rename(&away, path)?;
        if is_killed {
            node.start()?;
        } else {
            until("it is taken back", SOON, || Ok(told(&node, "is back, and gets")? > 0))?;
        }
        until("the copy has everything again", SOON, || {
            Ok(told(&node, "all copies of LU disk have everything again")? > 0)
        })?;
    }
    ends_well(node, loaded, &disks)
}

#[test]
fn a_disk_that_cannot_be_written_is_missed_and_taken_back_under_a_guest() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, disks) = node_with_groups(dir.path())?;
    if Unwritable::new(&disks[0]).is_none() {
        println!("NOT RUN: files cannot be made immutable here (root, CAP_LINUX_IMMUTABLE, ext4)");
        return Ok(());
    }
    create(&node, "disk", "4G")?;
    let loaded = loaded_guest(&node)?;
    for (times, path) in disks.iter().enumerate() {
        let unwritable = Unwritable::new(path);
        // What needs a grant of every group goes on without this one.
        for name in ["first", "second"] {
            create(&node, name, "1G")?;
        }
        until("it is said", SOON, || Ok(told(&node, &format!("is used without {path}"))? > 0))?;
        assert_eq!(node.cli(&["lu", "show", "disk"])?["state"], "online");
        node.cli(&["lu", "rm", "first"])?;
        thread::sleep(Duration::from_millis(1500));
        drop(unwritable);
        until("it is taken back", SOON, || Ok(told(&node, "is back, and gets")? > times))?;
        until("the copy has everything again", SOON, || {
            Ok(told(&node, "all copies of LU disk have everything again")? > times)
        })?;
        node.cli(&["lu", "rm", "second"])?;
    }
    // Missed again, killed, and found as it was.
    let unwritable = Unwritable::new(&disks[0]);
    create(&node, "third", "1G")?;
    node.kill()?;
    drop(unwritable);
    node.start()?;
    until("the copy has everything again", SOON, || {
        Ok(told(&node, "all copies of LU disk have everything again")? > 0)
    })?;
    ends_well(node, loaded, &disks)
}

#[test]
fn a_disk_that_is_gone_for_good_is_replaced() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut node, _) = node(&dir.path().join("node"), 0)?;
    let [one, two, three] =
        [disk(dir.path(), "one", 300)?, disk(dir.path(), "two", 300)?, disk(dir.path(), "3", 300)?];
    create_pool(&node, &[format!("{one}@left"), format!("{two}@right")])?;
    let image = create_of_image(&node, dir.path(), "disk", 8)?;
    let away = |path: &str| format!("{path}.away");
    let is_online = |node: &Node| Ok(node.cli(&["lu", "show", "disk"])?["state"] == "online");

    node.kill()?;
    fs::rename(&two, away(&two))?;
    node.start()?;
    until("it is used without the disk", SOON, || is_online(&node))?;
    node.cli(&["pool", "replace-pv", "fast", &two, &three, "--no-wait"])?;
    for round in 0..4 {
        thread::sleep(Duration::from_millis(round * 30));
        node.kill()?;
        node.start()?;
    }
    until("the other one is in its place", SOON, || {
        Ok(disks_of(&node)? == [one.clone(), three.clone()])
    })?;
    until_whole(&mut node, &three, |node| {
        assert!(node.stop()?.success());
        Ok(())
    })?;

    assert!(node.stop()?.success());
    fs::rename(&one, away(&one))?;
    fs::rename(away(&two), &two)?;
    node.start()?;
    until("the new one is enough", SOON, || is_online(&node))?;
    holds(&node, 0, &image)?;
    // What has been replaced is none of its disks, and not taken for a free one.
    assert_eq!(disks_of(&node)?, [one.clone(), three.clone()]);
    let again = format!("{two}@right");
    let (code, said) = node.cli_fails(&["pool", "add-pv", "fast", "--pv", &again])?;
    assert!(code == 4 && said.contains("holds data"), "{code}: {said}");
    assert!(node.stop()?.success());
    fs::rename(away(&one), &one)?;
    node.start()?;
    until("both have everything", SOON, || {
        thread::sleep(Duration::from_millis(300));
        assert!(node.stop()?.success());
        let is_whole = is_whole(&one)?;
        node.start()?;
        Ok(is_whole)
    })?;
    holds(&node, 0, &image)?;
    assert!(node.stop()?.success());
    let (code, report, said) = check(&[one.clone(), three.clone()])?;
    assert!(code == Some(0) && report["findings"] == serde_json::json!([]), "{report} {said}");
    let (code, report, said) = check(&[one, two, three])?;
    let is_said = report.to_string().contains("was replaced in the pool");
    assert!(code == Some(1) && is_said, "{report} {said}");
    Ok(())
}
