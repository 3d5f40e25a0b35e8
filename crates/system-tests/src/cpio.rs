//! Writes cpio archives of the "newc" form, which the kernel unpacks as an initramfs.
//!
//! Archives written by this can be put one after the other into one file: the kernel unpacks each
//! in turn, which is how programs are added to a guest without packing the rest again. Owner and
//! times are always zero, so the same content gives the same bytes. No reading of archives.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use crate::{Context, Result};

const MODE_DIR: u32 = 0o040_000;
const MODE_FILE: u32 = 0o100_000;
const MODE_SYMLINK: u32 = 0o120_000;
const MAGIC: &str = "070701";
const NAME_OF_THE_END: &str = "TRAILER!!!";
/// The kernel skips zeroes between archives; whole sectors keep any loader happy.
const ARCHIVE_ALIGNMENT: usize = 512;

/// An archive being written; directories above an entry are added by themselves.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn dir(&mut self, name: &str) {
        self.parents(name);
        self.entry(name, MODE_DIR | 0o755, &[]);
    }

    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.parents(name);
        self.entry(name, MODE_FILE | permissions, content);
    }

    pub fn symlink(&mut self, name: &str, target: &str) {
        self.parents(name);
        self.entry(name, MODE_SYMLINK | 0o777, target.as_bytes());
    }

    /// A copy of a file of this machine, following symbolic links.
    pub fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let what = || format!("pack {}", from.display());
        let content = fs::read(from).context(what)?;
        let mode = fs::metadata(from).context(what)?.permissions().mode();
        self.file(name, mode & 0o777, &content);
        Ok(())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.names.clear();
        self.entry(NAME_OF_THE_END, 0, &[]);
        let end = self.bytes.len().next_multiple_of(ARCHIVE_ALIGNMENT);
        self.bytes.resize(end, 0);
        self.bytes
    }

    fn parents(&mut self, name: &str) {
        let mut path = String::new();
        let Some(parent) = Path::new(name).parent() else { return };
        for part in parent.components() {
            if let Component::Normal(part) = part {
                if !path.is_empty() {
                    path.push('/');
                }
                path.push_str(&part.to_string_lossy());
                let dir = path.clone();
                self.entry(&dir, MODE_DIR | 0o755, &[]);
            }
        }
    }

    /// The first entry of a name stays: a directory is asked for again by each file in it.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        assert!(!name.starts_with('/'), "names in an archive are relative: {name}");
        if !self.names.insert(name.to_owned()) {
            return;
        }
        self.inode += 1;
        let links = 1 + u32::from(mode & MODE_DIR != 0);
        let size = u32::try_from(content.len()).expect("files in a guest are below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        let (uid, gid, mtime, dev, check) = (0, 0, 0, 0, 0);
        let fields =
            [self.inode, mode, uid, gid, links, mtime, size, dev, dev, dev, dev, name_size, check];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.finish();
        let head = std::str::from_utf8(&bytes[..110]).unwrap();
        assert_eq!(&head[..14], "07070100000001");
        assert_eq!(&head[14..22], "000081a4");
        assert_eq!(&head[54..62], "00000005");
        // Header of 110 bytes, name with its zero, padding to 4, content.
        assert_eq!(&bytes[110..117], b"a\0hello");
        assert_eq!(bytes.len() % ARCHIVE_ALIGNMENT, 0);
    }

    #[test]
    fn parents_come_first_and_once() {
        let mut archive = Archive::new();
        archive.file("usr/bin/a", 0o755, b"");
        archive.file("usr/bin/b", 0o755, b"");
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        assert_eq!(text.matches("usr/bin\0").count(), 1);
        assert!(text.find("usr\0") < text.find("usr/bin\0"));
        assert!(text.find("usr/bin\0") < text.find("usr/bin/a\0"));
    }
}
