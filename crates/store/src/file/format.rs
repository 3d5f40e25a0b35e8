//! Recognising images that are not raw, so that nobody serves a container's header as a disk.
//!
//! Only containers count: bytes that a guest's disk cannot begin with unless somebody mistook the
//! file. An encrypted or partitioned disk is a raw disk like any other, so LUKS is not in the
//! table.

use std::io;
use std::path::Path;

use rt::{FileHandle, FileKind, OpenOptions};

/// What [`format_of`] wants of the beginning of a file.
pub const HEAD_BYTES: usize = 512;
/// What [`format_of`] wants of its end: formats with a footer have it there.
pub const TAIL_BYTES: usize = 512;

enum Place {
    Head(usize),
    Tail(usize),
}

use Place::{Head, Tail};

const MAGICS: &[(&str, Place, &[u8])] = &[
    ("qcow2", Head(0), b"QFI\xfb\0\0\0\x02"),
    ("qcow2", Head(0), b"QFI\xfb\0\0\0\x03"),
    ("qcow", Head(0), b"QFI\xfb"),
    ("VMDK", Head(0), b"KDMV"),
    ("VMDK", Head(0), b"COWD"),
    ("VMDK", Head(0), b"# Disk DescriptorFile"),
    ("VMDK (SE sparse)", Head(0), &0x0000_0000_cafe_babe_u64.to_le_bytes()),
    ("VHDX", Head(0), b"vhdxfile"),
    ("VHD", Head(0), b"conectix"),
    ("VHD", Tail(0), b"conectix"),
    ("VDI", Head(64), &0xbeda_107f_u32.to_le_bytes()),
    ("QED", Head(0), b"QED\0"),
    ("Parallels", Head(0), b"WithoutFreeSpace"),
    ("Parallels", Head(0), b"WithouFreSpacExt"),
    ("Bochs", Head(0), b"Bochs Virtual HD Image"),
    ("DMG", Tail(0), b"koly"),
];

/// The container format that these first and last bytes of a file belong to; None for a raw image.
/// Give [`HEAD_BYTES`] and [`TAIL_BYTES`], or as many as the file has.
pub fn format_of(first: &[u8], last: &[u8]) -> Option<&'static str> {
    let last = &last[last.len().saturating_sub(TAIL_BYTES)..];
    let found = MAGICS.iter().find(|(_, place, magic)| {
        let (bytes, at) = match place {
            Head(at) => (first, *at),
            Tail(at) => (last, *at),
        };
        bytes.get(at..).is_some_and(|bytes| bytes.starts_with(magic))
    });
    found.map(|(name, ..)| *name)
}

/// The same, of a file or device; blocks the calling thread.
pub fn format_at(path: &Path) -> io::Result<Option<&'static str>> {
    let file = FileHandle::open(path, OpenOptions::read())?;
    let info = file.info()?;
    if info.kind == FileKind::Other {
        return Ok(None);
    }
    let mut first = vec![0; (info.size as usize).min(HEAD_BYTES)];
    let mut last = vec![0; (info.size as usize).min(TAIL_BYTES)];
    file.read_at(&mut first, 0)?;
    let tail = info.size - last.len() as u64;
    file.read_at(&mut last, tail)?;
    Ok(format_of(&first, &last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_named_and_disks_are_not() {
        let head = |at: usize, magic: &[u8]| {
            let mut bytes = vec![0; HEAD_BYTES];
            bytes[at..at + magic.len()].copy_from_slice(magic);
            bytes
        };
        let raw = head(510, &[0x55, 0xaa]);
        for (name, place, magic) in MAGICS {
            let found = match place {
                Head(at) => format_of(&head(*at, magic), &raw),
                Tail(at) => format_of(&raw, &head(*at, magic)),
            };
            assert_eq!(found, Some(*name));
        }
        assert_eq!(format_of(&head(0, b"QFI\xfb\0\0\0\x01"), &raw), Some("qcow"));
        assert_eq!(format_of(&raw, &raw), None);
        assert_eq!(format_of(&head(0, b"LUKS\xba\xbe"), &raw), None, "an encrypted disk");
        assert_eq!(format_of(&head(4, b"QFI\xfb"), &raw), None);
        assert_eq!(format_of(b"", b""), None);
        assert_eq!(format_of(b"QF", b"kol"), None);
        assert_eq!(format_of(&raw, &[&head(0, b"koly")[..], &raw].concat()), None, "not the end");
    }

    #[test]
    fn files_shorter_than_a_header_are_read_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(format_at(file.path()).unwrap(), None);
        std::fs::write(file.path(), b"QED\0").unwrap();
        assert_eq!(format_at(file.path()).unwrap(), Some("QED"));
        assert!(format_at(Path::new("/nonexistent")).is_err());
    }
}
