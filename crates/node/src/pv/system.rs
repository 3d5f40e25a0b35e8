//! What the kernel says of disks: `/sys/class/block`, mounts, swap, and udev's links.
//!
//! Nothing here opens a device, so a dead one holds nobody up. All of it may be missing or odd, on
//! a kernel that is older or newer: what cannot be read is not told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::Size;
use model::pv::{PvKind, PvView};

use crate::world;

const SECTOR: u64 = 512;

/// Names of devices that are no disks for anybody's data.
const NO_DISKS: [&str; 3] = ["ram", "zram", "nullb"];

/// Files below a device that may say who it is, best first.
const WWIDS: [&str; 2] = ["wwid", "device/wwid"];
const SERIALS: [&str; 2] = ["serial", "device/serial"];

pub struct System {
    /// By name, as below `/sys/class/block`.
    devices: BTreeMap<String, Device>,
    links: BTreeMap<String, Vec<String>>,
    /// Mount points by device number and by source.
    mounts: Vec<(String, String, String)>,
    swaps: Vec<String>,
}

#[derive(Default)]
struct Device {
    number: String,
    size: u64,
    read_only: bool,
    removable: bool,
    is_partition: bool,
    wwid: Option<String>,
    serial: Option<String>,
    model: Option<String>,
    /// Names of what stands on it.
    holders: Vec<String>,
    partitions: Vec<String>,
    /// What a mapped device or a loop device is called by who made it.
    title: Option<String>,
}

impl System {
    /// Reads everything, below another root in tests.
    pub fn read(root: &Path) -> System {
        let class = root.join("sys/class/block");
        let names = world::names_in(&class).unwrap_or_default();
        let is_disk = |name: &&String| !NO_DISKS.iter().any(|no| name.starts_with(no));
        let device = |name: &String| (name.clone(), Device::read(&class.join(name)));
        let devices = names.iter().filter(is_disk).map(device).collect();
        System {
            devices,
            links: links(&root.join("dev/disk/by-id")),
            mounts: mounts(&text(&root.join("proc/self/mountinfo")).unwrap_or_default()),
            swaps: swaps(&text(&root.join("proc/swaps")).unwrap_or_default()),
        }
    }

    /// Every disk and partition that has a size.
    pub fn disks(&self) -> Vec<PvView> {
        let with_size = self.devices.iter().filter(|(_, device)| device.size > 0);
        with_size.map(|(name, device)| self.view(name, device)).collect()
    }

    fn view(&self, name: &str, device: &Device) -> PvView {
        let path = path_of(name);
        let mut used_by = Vec::new();
        for (number, source, target) in &self.mounts {
            let mounted = format!("mounted on {target}");
            if (*number == device.number || *source == path) && !used_by.contains(&mounted) {
                used_by.push(mounted);
            }
        }
        if self.swaps.contains(&path) {
            used_by.push("swap".to_owned());
        }
        for holder in &device.holders {
            let title = self.devices.get(holder).and_then(|holder| holder.title.as_ref());
            let title = title.map(|title| format!(" ({title})")).unwrap_or_default();
            used_by.push(format!("held by {holder}{title}"));
        }
        PvView {
            path,
            kind: if device.is_partition { PvKind::Partition } else { PvKind::Disk },
            size: Size(device.size),
            wwid: device.wwid.clone(),
            serial: device.serial.clone(),
            model: device.model.clone().or_else(|| device.title.clone()),
            links: self.links.get(name).cloned().unwrap_or_default(),
            read_only: device.read_only,
            removable: device.removable,
            used_by,
            ..PvView::default()
        }
    }

    /// The partitions of a disk.
    pub fn partitions_of(&self, path: &str) -> Vec<String> {
        let of = |name: &String| path_of(name) == path;
        let disk = self.devices.iter().find(|(name, _)| of(name));
        disk.map(|(_, disk)| disk.partitions.iter().map(|it| path_of(it)).collect())
            .unwrap_or_default()
    }
}

impl Device {
    fn read(at: &Path) -> Device {
        let of = |name: &str| text(&at.join(name));
        let first = |names: &[&str]| names.iter().find_map(|name| of(name));
        let number = |name: &str| of(name).and_then(|text| text.parse::<u64>().ok());
        let size = number("size").unwrap_or(0).saturating_mul(SECTOR);
        let names = |below: &str| world::names_in(&at.join(below)).unwrap_or_default();
        let is_part = |name: &String| of(&format!("{name}/partition")).is_some();
        let mut partitions: Vec<String> = names("").into_iter().filter(is_part).collect();
        partitions.sort();
        let mut holders = names("holders");
        holders.sort();
        Device {
            number: of("dev").unwrap_or_default(),
            size,
            read_only: number("ro") == Some(1),
            removable: number("removable") == Some(1),
            is_partition: of("partition").is_some(),
            wwid: first(&WWIDS),
            serial: first(&SERIALS),
            model: of("device/model"),
            holders,
            partitions,
            title: of("dm/name").or_else(|| of("loop/backing_file")),
        }
    }
}

/// The kernel writes a slash in a device's name as an exclamation mark.
fn path_of(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

fn text(path: &Path) -> Option<String> {
    let text = world::read_text(path).ok().flatten()?;
    let trimmed = text.trim();
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// The links to each device, by its name.
fn links(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let mut links: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut names = world::names_in(directory).unwrap_or_default();
    names.sort();
    for name in names {
        let target: Option<PathBuf> = world::link_target(&directory.join(&name)).ok();
        let device = target.as_deref().and_then(Path::file_name);
        if let Some(device) = device {
            links.entry(device.to_string_lossy().into_owned()).or_default().push(name);
        }
    }
    links
}

/// Device number, source and mount point of each mount (proc(5), mountinfo).
fn mounts(text: &str) -> Vec<(String, String, String)> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(2);
        let (number, _root, target) = (before.next()?, before.next()?, before.next()?);
        let source = after.split(' ').nth(1)?;
        Some((number.to_owned(), unescaped(source), unescaped(target)))
    };
    text.lines().filter_map(mount).collect()
}

fn swaps(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(unescaped).collect()
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits =
            after.get(..3).filter(|it| it.iter().all(|digit| matches!(digit, b'0'..=b'7')));
        rest = after;
        match digits {
            Some(digits) if byte == b'\\' => {
                let octal = digits.iter().fold(0_u32, |sum, it| sum * 8 + u32::from(it - b'0'));
                bytes.push(octal as u8);
                rest = &after[3..];
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with a disk of two partitions, one of them mounted and one held.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let files = [
            ("sys/class/block/sda/size", "2097152\n"),
            ("sys/class/block/sda/dev", "8:0\n"),
            ("sys/class/block/sda/ro", "0\n"),
            ("sys/class/block/sda/device/wwid", "naa.5000c500a1b2c3d4\n"),
            ("sys/class/block/sda/device/model", "BIG DISK        \n"),
            ("sys/class/block/sda/sda1/partition", "1\n"),
            ("sys/class/block/sda1/partition", "1\n"),
            ("sys/class/block/sda1/size", "1024\n"),
            ("sys/class/block/sda1/dev", "8:1\n"),
            ("sys/class/block/sda1/holders/dm-0/x", ""),
            ("sys/class/block/dm-0/dm/name", "vg-root\n"),
            ("sys/class/block/dm-0/size", "1024\n"),
            ("sys/class/block/dm-0/dev", "253:0\n"),
            ("sys/class/block/loop0/size", "0\n"),
            ("sys/class/block/zram0/size", "1024\n"),
            (
                "proc/self/mountinfo",
                "22 1 253:0 / /my\\040root rw - ext4 /dev/mapper/vg-root rw\n\
                 23 22 0:21 / /sys rw - sysfs sysfs rw\nodd\n",
            ),
            ("proc/swaps", "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2\n"),
        ];
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let by_id = root.path().join("dev/disk/by-id");
        std::fs::create_dir_all(&by_id).unwrap();
        std::os::unix::fs::symlink("../../sda", by_id.join("wwn-0x5000c500a1b2c3d4")).unwrap();
        root
    }

    #[test]
    fn disks_are_told_with_who_they_are_and_who_has_them() {
        let root = machine();
        let system = System::read(root.path());
        let disks = system.disks();
        let paths: Vec<&str> = disks.iter().map(|disk| disk.path.as_str()).collect();
        assert_eq!(paths, ["/dev/dm-0", "/dev/sda", "/dev/sda1"]);
        let [mapped, disk, part] = &disks[..] else { panic!("{paths:?}") };
        assert_eq!(mapped.used_by, ["mounted on /my root"]);
        assert_eq!((disk.size, disk.kind), (Size::gib(1), PvKind::Disk));
        assert_eq!(disk.wwid.as_deref(), Some("naa.5000c500a1b2c3d4"));
        assert_eq!(disk.model.as_deref(), Some("BIG DISK"));
        assert_eq!(disk.links, ["wwn-0x5000c500a1b2c3d4"]);
        assert_eq!(part.used_by, ["swap", "held by dm-0 (vg-root)"]);
        assert_eq!(part.kind, PvKind::Partition);
        assert_eq!(system.partitions_of("/dev/sda"), ["/dev/sda1"]);
    }

    #[test]
    fn a_machine_that_says_nothing_has_no_disks() {
        let root = tempfile::tempdir().unwrap();
        assert!(System::read(root.path()).disks().is_empty());
        assert_eq!(unescaped("a\\040b\\0"), "a b\\0");
        assert!(mounts("1 2\n - \n").is_empty());
    }
}
