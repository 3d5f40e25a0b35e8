//! What every guest boots: Debian's kernel and the base of its initramfs.
//!
//! The kernel is taken out of its self-extracting image on the host and entered through its PVH
//! note, because unpacking it in an emulated guest takes longer than the rest of the boot. The base
//! has busybox, `/init` and the modules of [`MODULES`] with all they depend on; programs come on
//! top of it as archives of their own (see [`crate::image`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::cpio::Archive;
use crate::debian::{Tree, output_of};
use crate::{Context, Error, Result};

/// What makes a kernel entry; any change of it makes another.
const MAKERS: &str = concat!(include_str!("kernel.rs"), include_str!("cpio.rs"));

const PACKAGES: [&str; 4] = ["linux-image-amd64", "busybox-static", "kmod", "xz-utils"];

/// Modules that a guest can load; `/init` loads only what a guest asks for. What they depend on
/// comes with them. The second line of file systems is what the kernel asks for at mount time.
const MODULES: [&str; 45] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    "vhost_net",
    "tun",
    "veth",
    "bridge",
    "8021q",
    "dummy",
    "ext4",
    "xfs",
    "vfat",
    "isofs",
    "udf",
    "btrfs",
    "gfs2",
    "ocfs2",
    "fuse",
    "virtiofs",
    "crc32c_generic",
    "crc32c_intel",
    "nls_ascii",
    "nls_cp437",
    "nls_utf8",
    "sd_mod",
    "sr_mod",
    "st",
    "sg",
    "ch",
    "scsi_dh_alua",
    "iscsi_tcp",
    "nvme_tcp",
    "nbd",
    "dm_mod",
    "dm_delay",
    "dm_flakey",
    "dm_multipath",
    "dm_round_robin",
    "null_blk",
    "loop",
    "scsi_debug",
];

/// `/init`: mounts, the modules named on the command line, then the system on a disk (`root=`), or
/// else the agent on the second serial port, or a shell for a developer on the first.
const INIT: &str = r#"#!/bin/busybox sh
export PATH=/bin HOME=/root TERM=linux DM_DISABLE_UDEV=1
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
ifconfig lo 127.0.0.1 up
load=
shell=
root=
for word in $(cat /proc/cmdline); do
    case $word in
    viaduct.load=*) load=$(echo "${word#*=}" | tr ',' ' ') ;;
    viaduct.shell) shell=1 ;;
    root=*) root=${word#*=} ;;
    esac
done
modprobe -a $load
if [ -n "$root" ]; then
    while ! device=$(findfs "$root"); do usleep 10000; done
    mkdir /installed
    mount "$device" /installed
    exec switch_root /installed /sbin/init
fi
if [ -n "$shell" ]; then
    setsid cttyhack sh -l
else
    stty -F /dev/ttyS1 raw -echo
    guest-agent </dev/ttyS1 >/dev/ttyS1
fi
poweroff -f
"#;

const DIRS: [&str; 9] = ["proc", "sys", "dev", "run", "tmp", "etc", "root", "mnt", "var/lib"];

/// A kernel and the base archive, in the cache.
#[derive(Clone, Debug)]
pub struct Kernel {
    dir: PathBuf,
}

impl Kernel {
    pub fn prepare(cache: &Cache) -> Result<Self> {
        let tree = Tree::fetch(cache, "linux", &PACKAGES, None)?;
        let recipe = format!("{} {MAKERS}", tree.root().display());
        let dir = cache.entry("kernel", &recipe, |dir| build(&tree, dir))?;
        Ok(Self { dir })
    }

    /// The kernel as an ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join("vmlinux")
    }

    /// The same kernel as boot loaders take it: packed, and unpacking itself.
    pub fn vmlinuz(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The archive that a guest's initramfs begins with.
    pub fn base(&self) -> PathBuf {
        self.dir.join("base.cpio")
    }
}

fn build(tree: &Tree, dir: &Path) -> Result<()> {
    let release = only_entry(&tree.root().join("lib/modules"))?;
    extract(tree, &release, &dir.join("vmlinux"))?;
    let mut archive = Archive::new();
    for name in DIRS {
        archive.dir(name);
    }
    archive.copy("bin/busybox", &tree.program("busybox")?)?;
    archive.symlink("bin/sh", "busybox");
    archive.symlink("sbin", "bin");
    archive.symlink("usr/bin", "../bin");
    archive.symlink("usr/sbin", "../bin");
    archive.file("init", 0o755, INIT.as_bytes());
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    // What mount tries when it is told no type; trying loads the module.
    archive.file("etc/filesystems", 0o644, b"ext4\nxfs\nvfat\niso9660\nudf\n");
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n");
    pack_modules(tree, &release, &mut archive)?;
    Ok(fs::write(dir.join("base.cpio"), archive.finish())?)
}

/// Takes the ELF kernel out of the self-extracting image.
fn extract(tree: &Tree, release: &str, to: &Path) -> Result<()> {
    const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";
    const ELF_MAGIC: &[u8] = b"\x7fELF";
    let image = fs::read(tree.path(&format!("boot/vmlinuz-{release}"))?)?;
    fs::write(to.with_file_name("vmlinuz"), &image)?;
    let start = image
        .windows(XZ_MAGIC.len())
        .position(|window| window == XZ_MAGIC)
        .context(|| format!("the kernel {release} is not packed with xz"))?;
    let packed = to.with_extension("xz");
    fs::write(&packed, &image[start..])?;
    // What follows the stream is no xz: the tool complains, after it has written all there is.
    let unpacked = tree.command("xz")?.args(["-dc", "--single-stream"]).arg(&packed).output()?;
    fs::remove_file(&packed)?;
    if !unpacked.stdout.starts_with(ELF_MAGIC) {
        let stderr = String::from_utf8_lossy(&unpacked.stderr).into_owned();
        return Err(Error::new(format!("unpack the kernel {release}: {stderr}")));
    }
    Ok(fs::write(to, unpacked.stdout)?)
}

/// Packs the modules with their dependencies, and the two tables that modprobe reads.
fn pack_modules(tree: &Tree, release: &str, archive: &mut Archive) -> Result<()> {
    output_of(tree.command("depmod")?.arg("-b").arg(tree.root()).arg(release))?;
    let from = tree.root().join("lib/modules").join(release);
    let to = format!("lib/modules/{release}");
    let table = fs::read_to_string(from.join("modules.dep"))?;
    let dependencies = Dependencies::parse(&table);
    let wanted = dependencies.closure(&MODULES)?;
    for path in &wanted {
        archive.copy(&format!("{to}/{path}"), &from.join(path))?;
    }
    let is_packed = |line: &&str| line.split(':').next().is_some_and(|path| wanted.contains(path));
    let packed: Vec<&str> = table.lines().filter(is_packed).collect();
    archive.file(&format!("{to}/modules.dep"), 0o644, (packed.join("\n") + "\n").as_bytes());
    let names: BTreeSet<String> = wanted.iter().map(|path| module_name(path)).collect();
    let aliases = fs::read_to_string(from.join("modules.alias"))?;
    let is_packed =
        |line: &&str| line.rsplit(' ').next().is_some_and(|module| names.contains(module));
    let aliases: Vec<&str> = aliases.lines().filter(is_packed).collect();
    archive.file(&format!("{to}/modules.alias"), 0o644, (aliases.join("\n") + "\n").as_bytes());
    Ok(())
}

/// `modules.dep`: a module's path, and the paths of all that it needs.
struct Dependencies<'a> {
    by_name: BTreeMap<String, (&'a str, Vec<&'a str>)>,
}

impl<'a> Dependencies<'a> {
    fn parse(table: &'a str) -> Self {
        let lines = table.lines().filter_map(|line| line.split_once(':'));
        let by_name = lines
            .map(|(path, needs)| (module_name(path), (path, needs.split_whitespace().collect())));
        Self { by_name: by_name.collect() }
    }

    fn closure(&self, names: &[&str]) -> Result<BTreeSet<&'a str>> {
        let mut closure = BTreeSet::new();
        for name in names {
            let (path, needs) =
                self.by_name.get(*name).context(|| format!("the kernel has no module {name}"))?;
            closure.insert(*path);
            closure.extend(needs);
        }
        Ok(closure)
    }
}

/// The kernel's name of a module: the file's name, with underscores.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn only_entry(dir: &Path) -> Result<String> {
    let mut entries = fs::read_dir(dir).context(|| format!("read {}", dir.display()))?;
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry?.file_name().to_string_lossy().into_owned()),
        _ => Err(Error::new(format!("not exactly one entry in {}", dir.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/fs/mbcache.ko\n\
                         kernel/fs/jbd2/jbd2.ko:\nkernel/fs/mbcache.ko:\n\
                         kernel/drivers/nvme/host/nvme-tcp.ko: kernel/drivers/nvme/host/nvme.ko\n";

    #[test]
    fn a_module_comes_with_all_it_needs() {
        let dependencies = Dependencies::parse(TABLE);
        let closure = dependencies.closure(&["ext4", "nvme_tcp"]).unwrap();
        assert_eq!(closure.len(), 5);
        assert!(closure.contains("kernel/fs/mbcache.ko"));
    }

    #[test]
    fn an_unknown_module_is_named() {
        let error = Dependencies::parse(TABLE).closure(&["zfs"]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module zfs");
    }
}
