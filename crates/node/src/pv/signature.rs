//! What the bytes of a disk say that it is: a table of marks, each of somebody's format.
//!
//! A mark is what the format itself checks first. Several may be found at once (a partition table
//! beside what was there before it), and all are told: each is a reason to ask before the disk is
//! taken. Offsets are from the formats' own descriptions.

use model::image::format_of;
use volume::pool::label::{End, Label};
use volume::pool::page::{PAGE_BYTES, Page};

/// Bytes from the start of a disk that are looked at.
pub const HEAD_BYTES: usize = 264 << 10;
/// Bytes up to its end.
pub const TAIL_BYTES: usize = 132 << 10;

/// Where a mark stands.
#[derive(Clone, Copy)]
enum At {
    Begin(usize),
    /// Wherever these say, by the size of the disk.
    Placed(fn(u64) -> Option<u64>),
}

struct Mark {
    name: &'static str,
    at: At,
    magic: &'static [u8],
}

const fn mark(name: &'static str, at: usize, magic: &'static [u8]) -> Mark {
    Mark { name, at: At::Begin(at), magic }
}

const fn placed(name: &'static str, at: fn(u64) -> Option<u64>, magic: &'static [u8]) -> Mark {
    Mark { name, at: At::Placed(at), magic }
}

const MD: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];

const MARKS: [Mark; 42] = [
    mark("GPT", 512, b"EFI PART"),
    mark("GPT", 4096, b"EFI PART"),
    mark("ext2/3/4", 1080, &[0x53, 0xef]),
    mark("XFS", 0, b"XFSB"),
    mark("Btrfs", 65_600, b"_BHRfS_M"),
    mark("F2FS", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    mark("NTFS", 3, b"NTFS    "),
    mark("exFAT", 3, b"EXFAT   "),
    mark("FAT", 54, b"FAT12   "),
    mark("FAT", 54, b"FAT16   "),
    mark("FAT", 82, b"FAT32   "),
    mark("ISO 9660", 32_769, b"CD001"),
    mark("UDF", 34_817, b"NSR0"),
    mark("UDF", 36_865, b"NSR0"),
    mark("JFS", 32_768, b"JFS1"),
    mark("ReiserFS", 65_588, b"ReIsEr"),
    mark("GFS2", 65_536, &[0x01, 0x16, 0x19, 0x70]),
    mark("OCFS2", 4096, b"OCFSV2"),
    mark("OCFS2", 8192, b"OCFSV2"),
    mark("NILFS2", 1030, &[0x34, 0x34]),
    mark("EROFS", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    mark("SquashFS", 0, b"hsqs"),
    mark("bcachefs", 4120, BCACHEFS),
    mark("APFS", 32, b"NXSB"),
    mark("HFS+", 1024, b"H+\0\x04"),
    mark("swap", 4086, b"SWAPSPACE2"),
    mark("LUKS", 0, b"LUKS\xba\xbe"),
    mark("LVM member", 24, b"LVM2 001"),
    mark("LVM member", 536, b"LVM2 001"),
    mark("LVM member", 1048, b"LVM2 001"),
    mark("LVM member", 1560, b"LVM2 001"),
    mark("MD RAID member", 0, MD),
    mark("MD RAID member", 4096, MD),
    placed("MD RAID member", md_1_0, MD),
    placed("MD RAID member", md_0_90, MD),
    mark("bcache", 4120, BCACHE),
    mark("Ceph BlueStore", 0, b"bluestore block device"),
    mark("Stratis member", 516, b"!Stra0tis"),
    mark("DRBD", 4096 + 60, b"\x83\x74\x02\x6d"),
    mark("VDO", 0, b"dmvdo001"),
    placed("GPT (its second copy)", |size| size.checked_sub(512), b"EFI PART"),
    placed("GPT (its second copy)", |size| size.checked_sub(4096), b"EFI PART"),
];

const BCACHE: &[u8] = &[
    0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81,
];
const BCACHEFS: &[u8] = &[
    0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef,
];

/// Superblock 1.0: at least 8 KiB before the end, on a multiple of 4 KiB.
fn md_1_0(size: u64) -> Option<u64> {
    size.checked_sub(8192).map(|at| at & !4095)
}

/// Superblock 0.90: in the last 64 KiB that begin on a multiple of as much.
fn md_0_90(size: u64) -> Option<u64> {
    (size & !65_535).checked_sub(65_536)
}

/// The ends of a disk.
pub struct Ends<'a> {
    pub size: u64,
    /// As much of its begin as there is, up to [`HEAD_BYTES`].
    pub head: &'a [u8],
    /// As much of its end, up to [`TAIL_BYTES`].
    pub tail: &'a [u8],
}

impl Ends<'_> {
    /// Bytes at an offset, if they are within one of the ends.
    fn bytes(&self, at: u64, len: usize) -> Option<&[u8]> {
        let within = |end: &[u8], begin: u64| -> Option<usize> {
            let from = usize::try_from(at.checked_sub(begin)?).ok()?;
            (from.checked_add(len)? <= end.len()).then_some(from)
        };
        let tail_begin = self.size.checked_sub(self.tail.len() as u64)?;
        let head = within(self.head, 0).map(|from| &self.head[from..from + len]);
        head.or_else(|| within(self.tail, tail_begin).map(|from| &self.tail[from..from + len]))
    }
}

/// Everything that a disk holds by its marks, each named once.
pub fn holds(ends: &Ends<'_>) -> Vec<String> {
    let mut found: Vec<String> = label(ends).into_iter().collect();
    if let Some(format) = format_of(ends.head) {
        found.push(format!("{} image", format.name));
    }
    for mark in &MARKS {
        let at = match mark.at {
            At::Begin(at) => Some(at as u64),
            At::Placed(place) => place(ends.size),
        };
        let bytes = at.and_then(|at| ends.bytes(at, mark.magic.len()));
        if bytes == Some(mark.magic) {
            found.push(mark.name.to_owned());
        }
    }
    if is_zfs(ends) {
        found.push("ZFS member".to_owned());
    }
    if found.is_empty() && has_mbr(ends) {
        found.push("MBR".to_owned());
    }
    // A second copy tells something only where the first is gone.
    let has_gpt = found.iter().any(|name| name == "GPT");
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|name| seen.insert(name.clone()) && !(has_gpt && name.starts_with("GPT (")));
    found
}

/// What a disk of a pool of ours is said to hold, before the pool's name.
const POOL: &str = "Viaduct pool";

/// Whether that is what a disk holds.
pub fn is_of_a_pool(holds: &str) -> bool {
    holds.starts_with(POOL)
}

/// The label of a pool of ours, at either end.
fn label(ends: &Ends<'_>) -> Option<String> {
    let at = |offset: u64, end| {
        let bytes = ends.bytes(offset, PAGE_BYTES)?;
        let label = Label::decode(&Page::of_bytes(bytes.try_into().ok()?), end).ok()?;
        Some(format!("{POOL} '{}'", label.pool_name))
    };
    let back = (ends.size & !(PAGE_BYTES as u64 - 1)).checked_sub(PAGE_BYTES as u64);
    at(0, End::Front).or_else(|| at(back?, End::Back))
}

/// Any uberblock in the first label, in the byte order of either kind of machine.
fn is_zfs(ends: &Ends<'_>) -> bool {
    const MAGIC: u64 = 0x00ba_b10c;
    let mut places = (128_u64 << 10..256 << 10).step_by(1024);
    places.any(|at| {
        let bytes = ends.bytes(at, 8).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.is_some_and(|it| u64::from_le_bytes(*it) == MAGIC || u64::from_be_bytes(*it) == MAGIC)
    })
}

/// A partition table of the old kind: its mark alone is in every boot sector.
fn has_mbr(ends: &Ends<'_>) -> bool {
    let Some(sector) = ends.bytes(0, 512) else { return false };
    let entries = || sector[446..510].chunks(16);
    let is_sound = entries().all(|entry| matches!(entry[0], 0 | 0x80));
    sector[510..] == [0x55, 0xaa] && is_sound && entries().any(|entry| entry[4] != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(size: usize, marks: &[(usize, &[u8])]) -> Vec<String> {
        let mut disk = vec![0; size];
        marks.iter().for_each(|(at, bytes)| disk[*at..at + bytes.len()].copy_from_slice(bytes));
        holds(&ends(&disk))
    }

    fn ends(disk: &[u8]) -> Ends<'_> {
        let head = &disk[..disk.len().min(HEAD_BYTES)];
        let tail = &disk[disk.len().saturating_sub(TAIL_BYTES)..];
        Ends { size: disk.len() as u64, head, tail }
    }

    #[test]
    fn every_mark_is_found_where_it_stands() {
        let size = 8 << 20;
        assert_eq!(found(size, &[]), [""; 0]);
        for mark in &MARKS {
            let at = match mark.at {
                At::Begin(at) => at,
                At::Placed(place) => place(size as u64).unwrap() as usize,
            };
            let names = found(size, &[(at, mark.magic)]);
            assert!(names.iter().any(|name| name == mark.name), "{} in {names:?}", mark.name);
        }
        let uberblock = 0x00ba_b10c_u64.to_be_bytes();
        assert_eq!(found(size, &[((128 << 10) + 3072, &uberblock)]), ["ZFS member"]);
    }

    #[test]
    fn what_is_there_twice_is_told_once() {
        let size = 1 << 20;
        let gpt = b"EFI PART";
        assert_eq!(found(size, &[(512, gpt), (size - 512, gpt)]), ["GPT"]);
        assert_eq!(found(size, &[(size - 512, gpt)]), ["GPT (its second copy)"]);
        let mbr = [&[0x80, 0, 0, 0, 0x83][..], &[0; 59], &[0x55, 0xaa]].concat();
        assert_eq!(found(size, &[(446, &mbr)]), ["MBR"]);
        assert_eq!(found(size, &[(510, &[0x55, 0xaa])]), [""; 0], "a boot sector alone");
    }

    #[test]
    fn a_label_of_ours_is_found_at_either_end() {
        let label = Label {
            pool: [1; 16],
            origin: [1; 16],
            pool_name: "default".to_owned(),
            pv: [2; 16],
            members: 1,
            group: 0,
            group_members: 1,
            shape: volume::pool::shape::Shape::default(),
            size: 1 << 30,
            epoch: 1,
            missed: 0,
            is_behind: false,
            as_of: None,
            becomes: None,
            was: None,
            forces: 0,
            forced: 0,
        };
        let size = 1 << 20;
        let (front, back) = (label.encode(End::Front), label.encode(End::Back));
        for (at, page) in [(0, front), (size - PAGE_BYTES, back)] {
            assert_eq!(found(size, &[(at, page.bytes())]), ["Viaduct pool 'default'"]);
        }
    }

    proptest! {
        #[test]
        fn no_disk_is_too_odd(disk in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let _ = holds(&ends(&disk));
        }
    }
}
