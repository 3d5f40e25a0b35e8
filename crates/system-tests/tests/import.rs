//! `lu create --from` of the real binary: images of every kind, made by QEMU; hostile ones; and
//! imports that are interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use system_tests::cache::Cache;
use system_tests::{Context, Error, Node, Qemu, Result, qemu_nbd};

const SOON: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const MIB: usize = 1 << 20;

struct Bench {
    dir: tempfile::TempDir,
    node: Node,
}

impl Bench {
    /// A node that finds `qemu-nbd`, or none.
    fn new(has_program: bool) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let programs = dir.path().join("programs");
        if has_program {
            qemu_nbd::install(&programs)?;
        }
        let path = programs.to_string_lossy().into_owned();
        let node = Node::on(&dir.path().join("node")).environment("PATH", &path).start()?;
        Ok(Self { dir, node })
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_string_lossy().into_owned()
    }

    fn qemu_img(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Qemu::V10.tool(&Cache::open()?, "qemu-img")?;
        let output = command.args(arguments).current_dir(self.dir.path()).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::new(format!("qemu-img {arguments:?}: {said}"))),
        }
    }

    /// Data here and there in 24 MiB, in a raw file.
    fn raw(&self, name: &str) -> Result<Vec<u8>> {
        let mut bytes = vec![0; 24 * MIB];
        for (number, at) in [0, 3 * MIB + 512, 10 * MIB, 24 * MIB - 4096].into_iter().enumerate() {
            let patch = bytes[at..].iter_mut().take(200_000).enumerate();
            patch.for_each(|(offset, byte)| *byte = (offset / 7 * 31 + number * 5 + 1) as u8);
        }
        let file = fs::File::create(self.path(name))?;
        file.set_len(bytes.len() as u64)?;
        for (at, block) in bytes.chunks(4096).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                std::os::unix::fs::FileExt::write_all_at(&file, block, (at * 4096) as u64)?;
            }
        }
        Ok(bytes)
    }

    fn refused(&self, image: &str) -> Result<String> {
        let (_, said) = self.node.cli_fails(&["lu", "create", "x", "--from", &self.path(image)])?;
        assert_eq!(self.node.cli(&["lu", "ls"])?, serde_json::json!([]), "{image}: {said}");
        Ok(said)
    }

    /// Files of LUs, and whatever else lies there.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.node.data().join("lus"))?;
        Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    }

    fn wait_until_clean(&self) -> Result<()> {
        let deadline = Instant::now() + SOON;
        while !self.files()?.is_empty() {
            if Instant::now() > deadline {
                return Err(Error::new(format!("left behind: {:?}", self.files()?)));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Waits until an import has written something.
    fn wait_until_half_done(&self) -> Result<()> {
        let deadline = Instant::now() + SOON;
        let has_data = |path: &PathBuf| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(path).is_ok_and(|it| it.is_file() && it.blocks() * 512 > 8 << 20)
        };
        while !self.files()?.iter().any(has_data) {
            if Instant::now() > deadline {
                return Err(Error::new("nothing is copied"));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

#[test]
fn images_of_every_kind_become_lus() -> Result<()> {
    let mut bench = Bench::new(true)?;
    let data = bench.raw("raw.img")?;
    let kinds: [(&str, &[&str]); 5] = [
        ("qcow2", &["-O", "qcow2"]),
        ("packed", &["-O", "qcow2", "-c"]),
        ("vmdk", &["-O", "vmdk"]),
        ("stream", &["-O", "vmdk", "-o", "subformat=streamOptimized"]),
        ("vhdx", &["-O", "vhdx"]),
    ];
    for (name, options) in kinds {
        let image = format!("{name}.img");
        bench.qemu_img(&[&["convert", "-f", "raw"][..], options, &["raw.img", &image]].concat())?;
    }
    for name in ["raw", "qcow2", "packed", "vmdk", "stream", "vhdx"] {
        let image = bench.path(&format!("{name}.img"));
        let lu =
            bench.node.cli(&["lu", "create", name, "--from", &image, "--block-size", "4096"])?;
        assert_eq!((&lu["state"], lu["size"].as_u64()), (&"online".into(), Some(24 << 20)), "{lu}");
        let path = lu["path"].as_str().context(|| format!("{lu}"))?;
        assert!(fs::read(path)? == data, "{name} is not what it was");
        let used = lu["allocated"].as_u64().context(|| format!("{lu}"))?;
        assert!(used <= 2 << 20, "{name} takes {used} bytes");
    }
    let larger = ["lu", "create", "larger", "--size", "32M", "--from", &bench.path("qcow2.img")];
    let lu = bench.node.cli(&larger)?;
    let copy = fs::read(lu["path"].as_str().unwrap_or_default())?;
    assert!(copy.len() == 32 * MIB && copy[..data.len()] == data);
    assert!(copy[data.len()..].iter().all(|byte| *byte == 0));
    let smaller = ["lu", "create", "y", "--size", "8M", "--from", &bench.path("vhdx.img")];
    let (code, said) = bench.node.cli_fails(&smaller)?;
    assert!(code == 2 && said.contains("24MiB"), "{code}: {said}");
    // Of no whole blocks, and without any data.
    fs::write(bench.path("odd.img"), vec![7; 10_001])?;
    let odd = bench.node.cli(&["lu", "create", "odd", "--from", &bench.path("odd.img")])?;
    assert_eq!(odd["size"], 10_240, "{odd}");
    fs::File::create(bench.path("hole.img"))?.set_len(1 << 40)?;
    let hole = bench.node.cli(&["lu", "create", "hole", "--from", &bench.path("hole.img")])?;
    assert_eq!(hole["size"], 1_u64 << 40, "{hole}");
    // They are LUs as all others, also after a restart.
    bench.node.kill()?;
    bench.node.start()?;
    for lu in bench.node.cli(&["lu", "ls"])?.as_array().context(|| "a list".to_owned())? {
        assert_eq!(lu["state"], "online", "{lu}");
    }
    assert!(bench.files()?.iter().all(|path| path.extension().is_some_and(|it| it == "img")));
    assert!(bench.node.stop()?.success());
    Ok(())
}

#[test]
fn an_image_that_names_other_files_gives_nothing_away() -> Result<()> {
    let bench = Bench::new(true)?;
    bench.raw("raw.img")?;
    let secret = bench.path("secret");
    fs::write(&secret, vec![b's'; MIB])?;
    bench.qemu_img(&["create", "-f", "qcow2", "-F", "raw", "-b", &secret, "backed.img"])?;
    let said = bench.refused("backed.img")?;
    assert!(said.contains("backing file") && said.contains("secret"), "{said}");
    let elsewhere = format!("data_file={},data_file_raw=on", bench.path("data"));
    bench.qemu_img(&["create", "-f", "qcow2", "-o", &elsewhere, "external.img", "1M"])?;
    assert!(bench.refused("external.img")?.contains("another file"));
    let flat = ["convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", "raw.img", "flat.img"];
    bench.qemu_img(&flat)?;
    assert!(bench.refused("flat.img")?.contains("names the files"));
    bench.qemu_img(&["convert", "-O", "vpc", "raw.img", "vhd.img"])?;
    assert!(bench.refused("vhd.img")?.contains("not imported"));
    // A header that is well, and nothing behind it.
    bench.qemu_img(&["convert", "-O", "qcow2", "raw.img", "cut.img"])?;
    fs::File::options().write(true).open(bench.path("cut.img"))?.set_len(65_536)?;
    let said = bench.refused("cut.img")?;
    assert!(said.contains("cut.img is damaged"), "{said}");
    // Only the last of the data is missing.
    bench.qemu_img(&["convert", "-O", "qcow2", "raw.img", "short.img"])?;
    let short = fs::File::options().write(true).open(bench.path("short.img"))?;
    short.set_len(short.metadata()?.len() - (1 << 17))?;
    let said = bench.refused("short.img")?;
    assert!(said.contains("short.img is damaged"), "{said}");
    assert!(bench.refused("nothing.img")?.contains("there is no file"));
    bench.wait_until_clean()
}

#[test]
fn without_the_program_raw_images_are_taken_and_others_say_what_is_missing() -> Result<()> {
    let bench = Bench::new(false)?;
    let data = bench.raw("raw.img")?;
    bench.qemu_img(&["convert", "-O", "qcow2", "raw.img", "other.img"])?;
    let said = bench.refused("other.img")?;
    assert!(said.contains("qemu-utils"), "{said}");
    let lu = bench.node.cli(&["lu", "create", "raw", "--from", &bench.path("raw.img")])?;
    assert!(fs::read(lu["path"].as_str().unwrap_or_default())? == data);
    Ok(())
}

#[test]
fn an_interrupted_import_leaves_nothing() -> Result<()> {
    let mut bench = Bench::new(true)?;
    // Without a hole, so that it takes a while.
    fs::write(bench.path("large.img"), vec![1; 1 << 30])?;
    bench.qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "large.img", "large.qcow2"])?;
    for image in ["large.img", "large.qcow2"] {
        let path = bench.path(image);
        let create = ["lu", "create", "big", "--from", &path];
        let start = |bench: &Bench| -> Result<std::process::Child> {
            let mut command: Command = bench.node.command(&create)?;
            Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
        };
        // The command is interrupted.
        let mut command = start(&bench)?;
        bench.wait_until_half_done()?;
        command.kill()?;
        command.wait()?;
        bench.wait_until_clean()?;
        assert_eq!(bench.node.cli(&["lu", "ls"])?, serde_json::json!([]));
        // So early that nothing is told yet.
        let mut command = start(&bench)?;
        while bench.files()?.is_empty() && command.try_wait()?.is_none() {
            thread::sleep(LOOK_AGAIN);
        }
        command.kill()?;
        command.wait()?;
        bench.wait_until_clean()?;
        // The node is killed.
        let mut command = start(&bench)?;
        bench.wait_until_half_done()?;
        bench.node.kill()?;
        assert!(!command.wait()?.success());
        bench.node.start()?;
        assert_eq!(bench.node.cli(&["lu", "ls"])?, serde_json::json!([]));
        bench.wait_until_clean()?;
    }
    assert!(bench.node.stop()?.success());
    Ok(())
}

/// A small filesystem, gone when it is dropped.
struct Small<'a>(&'a Path);

impl Drop for Small<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_left() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let small = dir.path().join("small");
    fs::create_dir(&small)?;
    let mount = ["-t", "tmpfs", "-o", "size=24M", "none"];
    assert!(Command::new("mount").args(mount).arg(&small).status()?.success());
    let _small = Small(&small);
    let node = Node::on(&small.join("node")).start()?;
    let image = dir.path().join("large.img");
    fs::write(&image, vec![1; 40 * MIB])?;
    let path = image.to_string_lossy().into_owned();
    let (_, said) = node.cli_fails(&["lu", "create", "big", "--from", &path])?;
    assert!(said.contains("no space") && said.contains("make room"), "{said}");
    assert_eq!(node.cli(&["lu", "ls"])?, serde_json::json!([]));
    let deadline = Instant::now() + SOON;
    while fs::read_dir(node.data().join("lus"))?.next().is_some() {
        assert!(Instant::now() < deadline, "something is left");
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}
