//! Debian packages without installing any: fetched with their dependencies and unpacked into a tree
//! of their own in the cache.
//!
//! apt runs on a private configuration made from this machine's own sources, with the backports
//! suite added, and an empty list of installed packages; so a tree is complete (the C library and
//! its loader included), the same on every machine, and programs in it run whatever is installed.
//! Needs `apt-get` and `dpkg-deb`, not root. No host name is written here: it comes from the
//! machine.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::cache::Cache;
use crate::{Context, Error, Result};

mod sources;

/// The release whose packages guests and clients are made of.
pub const RELEASE: &str = "bookworm";
/// The newer QEMU is there.
pub const BACKPORTS: &str = "bookworm-backports";

/// Where libraries lie in a tree.
const LIBRARY_DIRS: [&str; 3] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"];
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// Where a tree keeps which package brought which files.
const LISTS: &str = "package-files";
const PROGRAM_DIRS: [&str; 4] = ["usr/bin", "bin", "usr/sbin", "sbin"];
/// A mirror drops superseded packages, so lists older than this are fetched again first.
const LISTS_AGE_MAX: Duration = Duration::from_secs(3600);
/// Symbolic links followed before giving up.
const LINKS_MAX: usize = 16;

/// Packages unpacked with all they depend on.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree called `name` with these packages of the release, or of `suite`.
    pub fn fetch(
        cache: &Cache,
        name: &str,
        packages: &[&str],
        suite: Option<&str>,
    ) -> Result<Self> {
        let recipe = format!("{packages:?} {suite:?} {}", include_str!("debian.rs"));
        let root = cache.entry(&format!("tree-{name}"), &recipe, |dir| {
            let apt = Apt::open(cache)?;
            let debs = dir.join("debs");
            apt.download(packages, suite, &debs)?;
            fs::create_dir(dir.join(LISTS))?;
            for deb in fs::read_dir(&debs)? {
                unpack(&deb?.path(), dir)?;
            }
            fs::remove_dir_all(&debs)?;
            Ok(())
        })?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file of the tree, with symbolic links followed inside the tree.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let mut inside = PathBuf::from(name.trim_start_matches('/'));
        for _ in 0..LINKS_MAX {
            let full = self.root.join(&inside);
            match fs::read_link(&full) {
                Ok(target) => inside = follow(&inside, &target),
                Err(_) if full.exists() => return Ok(full),
                Err(_) => break,
            }
        }
        Err(Error::new(format!("no {name} in {}", self.root.display())))
    }

    /// A program of the tree by its name.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        PROGRAM_DIRS
            .iter()
            .find_map(|dir| self.path(&format!("{dir}/{name}")).ok())
            .context(|| format!("no program {name} in {}", self.root.display()))
    }

    /// The files that a package of this tree brought, relative to the tree.
    pub fn files_of(&self, package: &str) -> Result<Vec<String>> {
        let list = fs::read_to_string(self.root.join(LISTS).join(package))
            .context(|| format!("no package {package} in {}", self.root.display()))?;
        Ok(list.lines().map(|line| line.trim_start_matches("./").to_owned()).collect())
    }

    /// Runs a program of the tree on this machine, with the tree's own loader and libraries.
    pub fn command(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.path(LOADER)?);
        command.arg("--argv0").arg(name);
        command.arg("--library-path").arg(self.library_path());
        command.arg(self.program(name)?);
        Ok(command)
    }

    /// Every library that a binary of this tree loads, by the name it asks for.
    pub fn libraries_of(&self, binary: &Path) -> Result<BTreeMap<String, PathBuf>> {
        let mut list = Command::new(self.path(LOADER)?);
        list.arg("--library-path").arg(self.library_path()).arg("--list").arg(binary);
        libraries(&mut list)
    }

    pub fn loader(&self) -> Result<PathBuf> {
        self.path(LOADER)
    }

    fn library_path(&self) -> String {
        let dirs = LIBRARY_DIRS.iter().map(|dir| self.root.join(dir).display().to_string());
        dirs.collect::<Vec<_>>().join(":")
    }
}

/// Every library that a program of this machine loads, by the name it asks for.
pub fn libraries_of_host(binary: &Path, loader: &Path) -> Result<BTreeMap<String, PathBuf>> {
    libraries(Command::new(loader).arg("--list").arg(binary))
}

/// Runs a loader's `--list`, whose lines are `name => path (address)`.
fn libraries(list: &mut Command) -> Result<BTreeMap<String, PathBuf>> {
    let text = output_of(list)?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        let path = rest.split(" (").next().unwrap_or(rest);
        if path == "not found" {
            return Err(Error::new(format!("{list:?}: library {name} not found")));
        }
        // The loader itself is listed by its full path.
        let name = name.rsplit('/').next().unwrap_or(name);
        found.insert(name.to_owned(), PathBuf::from(path));
    }
    Ok(found)
}

/// What a command prints; an error with its last words if it fails.
pub fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().context(|| format!("run {command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::new(format!("{command:?}: {}: {}", output.status, stderr.trim())))
}

/// Unpacks one package, named `NAME_VERSION_ARCHITECTURE.deb`, and notes its files.
fn unpack(deb: &Path, into: &Path) -> Result<()> {
    let file = deb.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let (true, Some((name, _))) = (file.ends_with(".deb"), file.split_once('_')) {
        let files = output_of(Command::new("dpkg-deb").arg("-X").arg(deb).arg(into))?;
        fs::write(into.join(LISTS).join(name), files)?;
    }
    Ok(())
}

/// The path that a link at `at` points to, relative to the root of the tree.
fn follow(at: &Path, target: &Path) -> PathBuf {
    let start = if target.is_absolute() { Path::new("") } else { at.parent().unwrap_or(at) };
    let mut path = start.to_path_buf();
    for part in target.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => {
                path.pop();
            }
            _ => {}
        }
    }
    path
}

/// apt on a private configuration in the cache.
#[derive(Debug)]
struct Apt {
    dir: PathBuf,
    /// Only one process at a time changes the lists.
    _lock: File,
}

impl Apt {
    fn open(cache: &Cache) -> Result<Self> {
        let dir = cache.root().join("apt");
        for part in ["lists/partial", "cache", "sources"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let lock = File::create(cache.root().join("apt.lock"))?;
        lock.lock()?;
        let apt = Self { dir, _lock: lock };
        apt.configure()?;
        Ok(apt)
    }

    fn configure(&self) -> Result<()> {
        let sources = self.dir.join("sources");
        for entry in fs::read_dir(&sources)? {
            fs::remove_file(entry?.path())?;
        }
        for (name, text) in sources::of_this_machine(Path::new("/etc/apt"))? {
            fs::write(sources.join(name), text)?;
        }
        fs::write(self.dir.join("status"), "")?;
        let dir = self.dir.display();
        let configuration = format!(
            "Dir::Etc::SourceList \"/dev/null\";\n\
             Dir::Etc::SourceParts \"{dir}/sources\";\n\
             Dir::State \"{dir}\";\n\
             Dir::State::Lists \"{dir}/lists\";\n\
             Dir::State::status \"{dir}/status\";\n\
             Dir::Cache \"{dir}/cache\";\n\
             Debug::NoLocking \"true\";\n\
             APT::Sandbox::User \"root\";\n\
             APT::Install-Recommends \"false\";\n\
             APT::Get::Assume-Yes \"true\";\n"
        );
        Ok(fs::write(self.dir.join("apt.conf"), configuration)?)
    }

    fn download(&self, packages: &[&str], suite: Option<&str>, into: &Path) -> Result<()> {
        if self.lists_are_fresh() && self.try_download(packages, suite, into).is_ok() {
            return Ok(());
        }
        let updated = self.update();
        self.try_download(packages, suite, into)
            .context(|| format!("download {packages:?} (apt-get update: {updated:?})"))
    }

    fn lists_are_fresh(&self) -> bool {
        let written = fs::metadata(self.dir.join("updated")).and_then(|file| file.modified());
        let age = written.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        age.is_ok_and(|age| age < LISTS_AGE_MAX)
    }

    /// Failing is not final: a foreign source may lack the backports suite, and does not matter.
    fn update(&self) -> Result<()> {
        output_of(self.command().arg("update"))?;
        Ok(fs::write(self.dir.join("updated"), "")?)
    }

    fn try_download(&self, packages: &[&str], suite: Option<&str>, into: &Path) -> Result<()> {
        fs::create_dir_all(into.join("partial"))?;
        let mut command = self.command();
        command.arg("-o").arg(format!("Dir::Cache::archives={}", into.display()));
        command.args(["-qq", "--download-only", "install"]);
        if let Some(suite) = suite {
            command.args(["-t", suite]);
        }
        output_of(command.args(packages)).map(drop)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", self.dir.join("apt.conf"));
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_path_buf();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/real"), "").unwrap();
        std::os::unix::fs::symlink("/usr/lib/real", root.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../../usr/lib/real", root.join("usr/lib/relative")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("outside")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        let tree = Tree { root: root.clone() };
        assert_eq!(tree.path("absolute").unwrap(), root.join("usr/lib/real"));
        assert_eq!(tree.path("/usr/lib/relative").unwrap(), root.join("usr/lib/real"));
        assert!(tree.path("outside").is_err());
        assert!(tree.path("loop").is_err());
    }
}
