//! What a file on disk says about itself: image formats that are not raw, by their first bytes, and
//! the bytes that QEMU locks in an image it uses.
//!
//! Serving a qcow2 file as if it were raw would show a guest the file's metadata as its disk and
//! let the guest overwrite it, so such files are refused by name. Locking happens in `store`,
//! through `rt`; here are only the rules, as pure functions.

/// An image format that must not be served as raw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    pub name: &'static str,
    magic: &'static [u8],
    offset: usize,
}

/// Bytes from the start of a file that [`format_of`] wants to see.
pub const HEAD_BYTES: usize = 512;

const FORMATS: [Format; 11] = [
    Format { name: "qcow2", magic: b"QFI\xfb", offset: 0 },
    Format { name: "QED", magic: b"QED\0", offset: 0 },
    Format { name: "VMDK", magic: b"KDMV", offset: 0 },
    Format { name: "VMDK", magic: b"COWD", offset: 0 },
    Format { name: "VMDK", magic: b"# Disk DescriptorFile", offset: 0 },
    Format { name: "VHDX", magic: b"vhdxfile", offset: 0 },
    Format { name: "VHD", magic: b"conectix", offset: 0 },
    Format { name: "VDI", magic: &[0x7f, 0x10, 0xda, 0xbe], offset: 0x40 },
    Format { name: "Parallels", magic: b"WithoutFreeSpace", offset: 0 },
    Format { name: "Parallels", magic: b"WithouFreSpacExt", offset: 0 },
    Format { name: "DMG", magic: b"koly", offset: 0 },
];

/// The format that the first bytes of a file announce, if it is one that is not raw.
pub fn format_of(head: &[u8]) -> Option<Format> {
    let announces = |format: &&Format| {
        let end = format.offset + format.magic.len();
        head.get(format.offset..end) == Some(format.magic)
    };
    FORMATS.iter().find(announces).copied()
}

/// What a user of an image does with it, as QEMU names and numbers it (`block/file-posix.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u8);

impl Permissions {
    pub const NONE: Permissions = Permissions(0);
    pub const CONSISTENT_READ: Permissions = Permissions(1);
    pub const WRITE: Permissions = Permissions(1 << 1);
    pub const WRITE_UNCHANGED: Permissions = Permissions(1 << 2);
    pub const RESIZE: Permissions = Permissions(1 << 3);
    pub const ALL: Permissions = Permissions(0xf);

    pub const fn or(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }

    pub const fn without(self, other: Permissions) -> Permissions {
        Permissions(self.0 & !other.0)
    }

    fn bits(self) -> impl Iterator<Item = u64> {
        (0..u8::BITS as u64).filter(move |bit| self.0 >> bit & 1 == 1)
    }
}

/// A locked byte at `USED_BASE + n` says: permission n is in use.
const USED_BASE: u64 = 100;

/// A locked byte at `UNSHARED_BASE + n` says: nobody else may use permission n.
const UNSHARED_BASE: u64 = 200;

/// What we do with an image, and what others may do with it meanwhile. All locks are shared (read)
/// OFD locks of one byte; whether someone else holds a byte is found by asking for an exclusive one
/// (`F_OFD_GETLK`) without taking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageUse {
    pub uses: Permissions,
    pub shares: Permissions,
}

impl ImageUse {
    /// How an adopted image is used by an LU with these attributes.
    pub const fn of(read_only: bool, shareable: bool) -> ImageUse {
        let read = Permissions::CONSISTENT_READ;
        let uses = if read_only { read } else { read.or(Permissions::WRITE) };
        let shares = if shareable {
            Permissions::ALL.without(Permissions::RESIZE)
        } else {
            // Another reader is harmless; QEMU's own devices allow as much.
            read.or(Permissions::WRITE_UNCHANGED)
        };
        ImageUse { uses, shares }
    }

    /// The bytes to lock while the image is in use.
    pub fn locks(self) -> Vec<u64> {
        let unshared = Permissions::ALL.without(self.shares);
        self.uses
            .bits()
            .map(|bit| USED_BASE + bit)
            .chain(unshared.bits().map(|bit| UNSHARED_BASE + bit))
            .collect()
    }

    /// The bytes that nobody else may hold: what we use and they do not share, what they use and we
    /// do not share.
    pub fn conflicts(self) -> Vec<u64> {
        let unshared = Permissions::ALL.without(self.shares);
        self.uses
            .bits()
            .map(|bit| UNSHARED_BASE + bit)
            .chain(unshared.bits().map(|bit| USED_BASE + bit))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        let named = |head: &[u8]| format_of(head).map(|format| format.name);
        assert_eq!(named(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(named(b"KDMV\x01\0\0\0"), Some("VMDK"));
        assert_eq!(named(b"# Disk DescriptorFile\nversion=1"), Some("VMDK"));
        assert_eq!(named(b"vhdxfile"), Some("VHDX"));
        let mut vdi = [0u8; HEAD_BYTES];
        vdi[0x40..0x44].copy_from_slice(&0xbeda_107f_u32.to_le_bytes());
        assert_eq!(named(&vdi), Some("VDI"));
        assert_eq!(named(&[0u8; HEAD_BYTES]), None);
        assert_eq!(named(b"QF"), None);
        assert_eq!(named(b""), None);
    }

    #[test]
    fn a_disk_of_our_own_excludes_every_other_writer() {
        let ours = ImageUse::of(false, false);
        assert_eq!(ours.locks(), [100, 101, 201, 203]);
        assert_eq!(ours.conflicts(), [200, 201, 101, 103]);
    }

    #[test]
    fn shareable_images_admit_each_other_and_nobody_who_excludes_them() {
        let (shared, own) = (ImageUse::of(false, true), ImageUse::of(false, false));
        let excludes =
            |a: ImageUse, b: ImageUse| b.conflicts().iter().any(|byte| a.locks().contains(byte));
        assert!(!excludes(shared, shared));
        assert!(excludes(own, shared));
        assert!(excludes(shared, own));
        assert!(excludes(own, own));
    }

    #[test]
    fn readers_admit_each_other_and_no_writer() {
        let (reader, writer) = (ImageUse::of(true, false), ImageUse::of(false, false));
        let excludes =
            |a: ImageUse, b: ImageUse| b.conflicts().iter().any(|byte| a.locks().contains(byte));
        assert!(!excludes(reader, reader));
        assert!(excludes(reader, writer));
        assert!(excludes(writer, reader));
    }
}
