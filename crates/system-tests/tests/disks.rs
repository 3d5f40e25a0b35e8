//! `pv ls` of the real binary on loop devices with what people have on disks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::{Context, Error, Node, Result};

const SIZE: u64 = 64 << 20;

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(Error::new(format!("{program} {arguments:?}: {said}"))),
    }
}

/// A loop device over a file, gone when it is dropped.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Result<Self> {
        File::create(file)?.set_len(SIZE)?;
        let file = file.to_string_lossy();
        Ok(Self(run("losetup", &["--find", "--show", &file])?))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").args(["--detach", &self.0]).status());
    }
}

/// A mounted filesystem.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

fn find<'a>(list: &'a Value, path: &str) -> Result<&'a Value> {
    let views = list.as_array().context(|| format!("no list: {list}"))?;
    views.iter().find(|view| view["path"] == path).context(|| format!("no {path} in {list}"))
}

#[test]
fn disks_are_listed_with_what_is_on_them_and_who_uses_them() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = |name: &str| dir.path().join(name);
    let [empty, swap, mounted, adopted] = [
        Loop::over(&file("a"))?,
        Loop::over(&file("b"))?,
        Loop::over(&file("c"))?,
        Loop::over(&file("d"))?,
    ];
    run("mkswap", &[&swap.0])?;
    run("mkfs.ext4", &["-q", &mounted.0])?;
    std::fs::create_dir(file("mnt"))?;
    run("mount", &[&mounted.0, &file("mnt").to_string_lossy()])?;
    let on = Mounted(file("mnt"));
    let mut node = Node::on(&file("node")).start()?;
    node.cli(&["lu", "adopt", &adopted.0, "--name", "web"])?;
    let begin = Instant::now();
    let list = node.cli(&["pv", "ls"])?;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    let check = |disk: &Loop, state: &str, holds: &str, used_by: &str| -> Result<()> {
        let view = find(&list, &disk.0)?;
        assert_eq!(view["state"], state, "{view}");
        assert_eq!(view["size"], SIZE, "{view}");
        let has = |list: &Value, wanted: &str| list.to_string().contains(wanted);
        assert!(has(&view["holds"], holds) && has(&view["used_by"], used_by), "{view}");
        Ok(())
    };
    check(&empty, "free", "[]", "[]")?;
    check(&swap, "data", "swap", "[]")?;
    check(&mounted, "used", "ext2/3/4", &format!("mounted on {}", file("mnt").display()))?;
    check(&adopted, "used", "[]", "LU web")?;
    // A file is looked at as a disk is; the table is for people.
    let image = file("image");
    std::fs::copy(file("b"), &image)?;
    let shown = node.cli(&["pv", "show", &image.to_string_lossy()])?;
    assert_eq!((&shown["kind"], &shown["state"]), (&"file".into(), &"data".into()), "{shown}");
    let table = node.command(&["pv", "ls"])?.output()?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.starts_with("PATH") && table.contains(&swap.0), "{table}");
    let (code, _) = node.cli_fails(&["pv", "show", "/dev/nowhere"])?;
    assert_eq!(code, 3);
    drop(on);
    assert!(node.stop()?.success());
    Ok(())
}
