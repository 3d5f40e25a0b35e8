//! What is put into one guest beside the base: programs of Debian, programs of this machine, files.
//!
//! Every program brings its own loader and libraries, under `/opt/NAME`, and is started through a
//! small script in `/bin`; so programs built on this machine and programs from packages stand side
//! by side, whatever their C libraries are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::cpio::Archive;
use crate::debian::{Tree, libraries_of_host};
use crate::kernel::Kernel;
use crate::{Context, Error, Result};

/// What packs a package; any change of it packs again.
const MAKERS: &str = concat!(include_str!("image.rs"), include_str!("cpio.rs"));

/// The content of a guest, as it will be packed.
#[derive(Clone, Debug, Default)]
pub struct GuestImage {
    packages: BTreeSet<String>,
    host_programs: BTreeMap<String, PathBuf>,
    files: BTreeMap<String, (PathBuf, u32)>,
}

impl GuestImage {
    pub fn new() -> Self {
        Self::default()
    }

    /// All programs of a Debian package.
    pub fn with_package(mut self, package: &str) -> Self {
        self.packages.insert(package.to_owned());
        self
    }

    /// A program of Debian that is called like its package.
    pub fn with_program(self, program: &str) -> Self {
        self.with_package(program)
    }

    /// A binary of this machine, called `name` in the guest.
    pub fn with_host_program(mut self, name: &str, path: &Path) -> Self {
        self.host_programs.insert(name.to_owned(), path.to_path_buf());
        self
    }

    /// A file of this machine at a place in the guest.
    pub fn with_file(mut self, place: &str, path: &Path, permissions: u32) -> Self {
        let place = place.trim_start_matches('/').to_owned();
        self.files.insert(place, (path.to_path_buf(), permissions));
        self
    }

    /// Writes the initramfs: the base, then an archive for each thing added.
    pub fn write(&self, cache: &Cache, kernel: &Kernel, to: &Path) -> Result<()> {
        let mut initramfs = File::create(to).context(|| format!("write {}", to.display()))?;
        initramfs.write_all(&fs::read(kernel.base())?)?;
        for package in &self.packages {
            initramfs.write_all(&fs::read(packed_package(cache, package)?)?)?;
        }
        let mut archive = Archive::new();
        for (name, path) in &self.host_programs {
            pack_host_program(&mut archive, name, path)?;
        }
        for (place, (path, permissions)) in &self.files {
            let content = fs::read(path).context(|| format!("pack {}", path.display()))?;
            archive.file(place, *permissions, &content);
        }
        initramfs.write_all(&archive.finish())?;
        Ok(())
    }
}

/// A program of this workspace, beside the running test or `xtask`.
pub fn own_program(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let near = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    near.into_iter().find(|path| path.is_file()).context(|| {
        let build = "cargo build -p viaduct-system-tests --bins";
        format!("no {name} beside {}: run `{build}`", exe.display())
    })
}

/// Packages that tests put into guests; `cargo xtask guest prepare` fetches them ahead.
pub const PACKAGES_OF_TESTS: [&str; 2] = ["e2fsprogs", "fio"];

/// The archive of a package's programs, packed once.
pub fn packed_package(cache: &Cache, package: &str) -> Result<PathBuf> {
    let tree = Tree::fetch(cache, package, &[package], None)?;
    let recipe = format!("{} {MAKERS}", tree.root().display());
    let dir = cache.entry(&format!("guest-{package}"), &recipe, |dir| {
        let mut archive = Archive::new();
        for (name, path) in programs_of(&tree, package)? {
            pack_program(&mut archive, package, &name, &path, &Libraries::Tree(&tree))?;
        }
        Ok(fs::write(dir.join("archive.cpio"), archive.finish())?)
    })?;
    Ok(dir.join("archive.cpio"))
}

/// The programs of the package itself, not of what it depends on.
fn programs_of(tree: &Tree, package: &str) -> Result<Vec<(String, PathBuf)>> {
    let list = tree.files_of(package)?;
    let mut programs = Vec::new();
    for file in list {
        let path = Path::new(&file);
        let dir = path.parent().and_then(Path::file_name);
        if let (Some(dir), Some(name)) = (dir, path.file_name())
            && (dir == "bin" || dir == "sbin")
            && let Ok(real) = tree.path(&file)
        {
            programs.push((name.to_string_lossy().into_owned(), real));
        }
    }
    if programs.is_empty() {
        return Err(Error::new(format!("the package {package} has no programs")));
    }
    Ok(programs)
}

fn pack_host_program(archive: &mut Archive, name: &str, path: &Path) -> Result<()> {
    pack_program(archive, name, name, path, &Libraries::Host)
}

/// Where the libraries of a binary come from.
enum Libraries<'a> {
    Tree(&'a Tree),
    Host,
}

/// Packs one program into `opt/GROUP`, with a script in `bin` that starts it.
fn pack_program(
    archive: &mut Archive,
    group: &str,
    name: &str,
    path: &Path,
    from: &Libraries<'_>,
) -> Result<()> {
    let place = format!("opt/{group}/{name}");
    archive.copy(&place, path)?;
    let content = fs::read(path)?;
    let Some(loader) = elf_loader(&content) else {
        archive.symlink(&format!("bin/{name}"), &format!("/{place}"));
        return Ok(());
    };
    let loader = PathBuf::from(loader);
    let (loader, libraries) = match from {
        Libraries::Tree(tree) => (tree.loader()?, tree.libraries_of(path)?),
        Libraries::Host => (loader.clone(), libraries_of_host(path, &loader)?),
    };
    archive.copy(&format!("opt/{group}/lib/ld.so"), &loader)?;
    for (library, path) in libraries {
        archive.copy(&format!("opt/{group}/lib/{library}"), &path)?;
    }
    let start = format!(
        "#!/bin/sh\nexec /opt/{group}/lib/ld.so --argv0 \"$0\" --library-path /opt/{group}/lib \
         /{place} \"$@\"\n"
    );
    archive.file(&format!("bin/{name}"), 0o755, start.as_bytes());
    Ok(())
}

/// The loader that a dynamic ELF binary asks for; nothing for scripts and static binaries.
fn elf_loader(content: &[u8]) -> Option<String> {
    const PT_INTERP: u32 = 3;
    let u64_at = |at: usize| {
        let bytes = content.get(at..at + 8)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let u16_at = |at: usize| {
        let bytes = content.get(at..at + 2)?;
        Some(usize::from(u16::from_le_bytes(bytes.try_into().ok()?)))
    };
    if !content.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (headers, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    for index in 0..count {
        let at = headers.checked_add(index * size)?;
        let kind = content.get(at..at.checked_add(4)?)?;
        if kind == PT_INTERP.to_le_bytes() {
            let (offset, len) = (u64_at(at + 8)?, u64_at(at + 32)?);
            let name = content.get(offset..offset.checked_add(len)?)?;
            let name = name.strip_suffix(b"\0").unwrap_or(name);
            return Some(String::from_utf8_lossy(name).into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_a_dynamic_binary_is_found() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        let loader = elf_loader(&own).unwrap();
        assert!(loader.contains("ld-linux"), "{loader}");
    }

    #[test]
    fn scripts_and_cut_off_binaries_have_none() {
        assert_eq!(elf_loader(b"#!/bin/sh\n"), None);
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in 0..200 {
            assert_eq!(elf_loader(&own[..len]), None);
        }
    }

    #[test]
    fn a_host_program_brings_its_loader_and_libraries() {
        let mut archive = Archive::new();
        let own = std::env::current_exe().unwrap();
        pack_host_program(&mut archive, "thing", &own).unwrap();
        for name in
            ["bin/thing", "opt/thing/thing", "opt/thing/lib/ld.so", "opt/thing/lib/libc.so.6"]
        {
            assert!(archive.contains(name), "{name} is missing");
        }
    }
}
