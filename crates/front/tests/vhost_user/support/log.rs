//! A dirty log as the front end of a migration keeps it: a file with a bit for each page of the
//! guest, and bytes behind it that are nobody's to write.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use proto::vhost_user::LogArea;
use rt::os::memory::anonymous_file;

const PAGE: u64 = 4096;
/// Before the log in its file.
const OFFSET: u64 = 0x40;
/// Around it.
const CANARY: [u8; 64] = [0xe1; 64];

pub struct Log {
    pub area: LogArea,
    file: File,
}

impl Log {
    /// For guest memory of this size.
    pub fn new(guest_bytes: u64) -> Self {
        let size = guest_bytes / PAGE / 8;
        let file = File::from(anonymous_file(c"log", OFFSET + size + 64).unwrap());
        file.write_all_at(&CANARY, 0).unwrap();
        file.write_all_at(&CANARY, OFFSET + size).unwrap();
        Self { area: LogArea { mmap_size: size, mmap_offset: OFFSET }, file }
    }

    pub fn fd(&self) -> OwnedFd {
        self.file.try_clone().unwrap().into()
    }

    pub fn is_marked(&self, at: u64) -> bool {
        let page = at / PAGE;
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, OFFSET + page / 8).unwrap();
        byte[0] & 1 << (page % 8) != 0
    }

    /// The marked pages, by the addresses of their first bytes.
    pub fn pages(&self) -> BTreeSet<u64> {
        let mut bytes = vec![0; self.area.mmap_size as usize];
        self.file.read_exact_at(&mut bytes, OFFSET).unwrap();
        let pages = 0..8 * self.area.mmap_size;
        let is_set = |page: &u64| bytes[(page / 8) as usize] & 1 << (page % 8) != 0;
        pages.filter(is_set).map(|page| page * PAGE).collect()
    }

    /// Takes the marks out, as a pass over the memory does.
    pub fn clear(&self) {
        self.file.write_all_at(&vec![0; self.area.mmap_size as usize], OFFSET).unwrap();
    }

    pub fn cut(&self) {
        self.file.set_len(0).unwrap();
    }

    /// Nothing was written around it.
    pub fn is_intact(&self) -> bool {
        let (mut before, mut behind) = ([0; 64], [0; 64]);
        self.file.read_exact_at(&mut before, 0).unwrap();
        self.file.read_exact_at(&mut behind, OFFSET + self.area.mmap_size).unwrap();
        (before, behind) == (CANARY, CANARY)
    }
}

/// The pages of these bytes.
pub fn pages_of(at: u64, len: u64) -> impl Iterator<Item = u64> {
    (at / PAGE..=(at + len - 1) / PAGE).map(|page| page * PAGE)
}
