//! The data directory: what lies where, who may see it, and that one node at a time uses it.
//!
//! ```text
//!   DIR/            0711  traversable, so that a QEMU can reach its socket
//!   ├── lock        0600  locked while a node runs; holds its process id
//!   ├── format      0600  the version of all this
//!   ├── id          0600  the node's UUID
//!   ├── kv.redb     0600  the desired state
//!   ├── config.json 0600  the same for people, written after each change, never read
//!   ├── lus/        0700  UUID.img: the files of LUs
//!   ├── pools/      0700  UUID.img: disks of pools that are files of the node
//!   └── run/        0711  api.sock and CLIENT-SLOT.sock
//! ```
//!
//! The lock is an OFD lock: it ends with the process, however that ends, and a copy of the
//! directory is not locked.

use std::io;
use std::path::{Path, PathBuf};

use model::ApiError;
use rt::{FileHandle, OpenOptions};
use uuid::Uuid;

use crate::socket;
use crate::world::{self, World};

/// The version of the layout that this program writes.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_WORD: &str = "viaduct";

/// Names that an unused directory may have in it.
const HARMLESS: [&str; 3] = ["lock", ".format.new", "lost+found"];

const TRAVERSABLE: u32 = 0o711;
const PRIVATE_DIRECTORY: u32 = 0o700;
pub const PRIVATE_FILE: u32 = 0o600;

/// A data directory in use by this process.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    id: Uuid,
    /// Locked as long as this lives.
    _lock: FileHandle,
}

impl DataDir {
    /// Takes the directory, making it when it is new.
    pub fn open(root: &Path, world: &dyn World) -> Result<DataDir, ApiError> {
        let failed = |error: io::Error| {
            ApiError::failed(format!("cannot use data directory {}: {error}", root.display())).then(
                "viaduct up --data DIR uses another one; VIADUCT_DATA does so for all commands",
            )
        };
        make_directory(root, TRAVERSABLE).map_err(failed)?;
        let root = &world::canonical(root).map_err(failed)?;
        socket::check_path(&root.join("run").join("api.sock"))?;
        let lock = lock(root, &failed)?;
        check_format(root, &failed)?;
        make_directory(&root.join("run"), TRAVERSABLE).map_err(failed)?;
        for private in ["lus", "pools", "media"] {
            make_directory(&root.join(private), PRIVATE_DIRECTORY).map_err(failed)?;
        }
        let id = node_id(root, world).map_err(failed)?;
        Ok(DataDir { root: root.clone(), id, _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The node's identity.
    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn kv(&self) -> PathBuf {
        self.root.join("kv.redb")
    }

    pub fn config_copy(&self) -> PathBuf {
        self.root.join("config.json")
    }

    pub fn lus(&self) -> PathBuf {
        self.root.join("lus")
    }

    pub fn pools(&self) -> PathBuf {
        self.root.join("pools")
    }

    pub fn media(&self) -> PathBuf {
        self.root.join("media")
    }

    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn api_socket(&self) -> PathBuf {
        api_socket(&self.root)
    }
}

/// Where the API of a node with this data directory listens.
pub fn api_socket(root: &Path) -> PathBuf {
    root.join("run").join("api.sock")
}

/// The file of an LU.
pub fn lu_file(lus: &Path, uuid: Uuid) -> PathBuf {
    lus.join(format!("{uuid}.img"))
}

/// The file of a pool's disk.
pub fn pool_file(pools: &Path, uuid: Uuid) -> PathBuf {
    pools.join(format!("{uuid}.img"))
}

/// Makes a directory with exactly these rights, whatever the umask. One that is there keeps its
/// own: who changed them had a reason.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let is_new = world::access_of(path).is_err();
    world::make_directory(path, mode)?;
    if is_new { world::set_mode(path, mode) } else { Ok(()) }
}

fn lock(root: &Path, failed: &impl Fn(io::Error) -> ApiError) -> Result<FileHandle, ApiError> {
    let path = root.join("lock");
    let options = OpenOptions { create: true, mode: PRIVATE_FILE, ..OpenOptions::write() };
    let file = FileHandle::open(&path, options).map_err(failed)?;
    match file.try_lock(0..1, true) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err(in_use(root, &path));
        }
        Err(error) => return Err(failed(error)),
    }
    let pid = format!("{}\n", world::process_id());
    file.set_len(0).map_err(failed)?;
    file.write_at(pid.as_bytes(), 0).map_err(failed)?;
    Ok(file)
}

fn in_use(root: &Path, lock: &Path) -> ApiError {
    let holder = world::read_text(lock).ok().flatten().unwrap_or_default();
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    ApiError::conflict(format!("data directory {} is in use by {holder}", root.display())).then(
        "stop that node first, or start this one on another directory: viaduct up --data DIR \
         --http off",
    )
}

fn check_format(root: &Path, failed: &impl Fn(io::Error) -> ApiError) -> Result<(), ApiError> {
    let path = root.join("format");
    let Some(text) = world::read_text(&path).map_err(failed)? else {
        let names = world::names_in(root).map_err(failed)?;
        if let Some(name) = names.iter().find(|name| !HARMLESS.contains(&name.as_str())) {
            return Err(ApiError::conflict(format!(
                "{} is not a data directory of viaduct: it holds '{name}'",
                root.display()
            ))
            .then("viaduct up --data DIR, with DIR empty or new"));
        }
        let text = format!("{FORMAT_WORD} {FORMAT_VERSION}\n");
        return world::replace_file(&path, text.as_bytes(), PRIVATE_FILE).map_err(failed);
    };
    let version = text.strip_prefix(FORMAT_WORD).and_then(|rest| rest.trim().parse::<u32>().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(version) if version > FORMAT_VERSION => Err(ApiError::conflict(format!(
            "data directory {} has format {version}; this program knows formats up to \
             {FORMAT_VERSION}",
            root.display()
        ))
        .then("start the release of viaduct that wrote it, or a later one")),
        _ => Err(ApiError::failed(format!(
            "{} is damaged: it says {:?}",
            path.display(),
            text.trim()
        ))
        .then("restore it from a backup of the directory, or take a new directory")),
    }
}

fn node_id(root: &Path, world: &dyn World) -> io::Result<Uuid> {
    let path = root.join("id");
    if let Some(text) = world::read_text(&path)? {
        return Uuid::parse_str(text.trim())
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())));
    }
    let id = world.uuid();
    world::replace_file(&path, format!("{id}\n").as_bytes(), PRIVATE_FILE)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use model::ErrorKind;

    use super::*;
    use crate::world::Machine;

    fn open(root: &Path) -> Result<DataDir, ApiError> {
        DataDir::open(root, &Machine)
    }

    #[test]
    fn a_new_directory_is_made_with_its_rights_and_keeps_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("a/b");
        let data = open(&root).unwrap();
        let mode = |path: PathBuf| world::access_of(&path).unwrap().mode;
        assert_eq!(mode(root.clone()), 0o711);
        assert_eq!(mode(data.run()), 0o711);
        assert_eq!(mode(data.lus()), 0o700);
        assert_eq!(mode(root.join("lock")), 0o600);
        let id = data.id();
        drop(data);
        assert_eq!(open(&root).unwrap().id(), id);
    }

    #[test]
    fn a_second_node_is_refused_and_told_who_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path()).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        let holder = format!("is in use by process {}", std::process::id());
        assert!(error.message.ends_with(&holder), "{error}");
        drop(first);
        open(directory.path()).unwrap();
    }

    #[test]
    fn a_newer_format_and_a_foreign_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("letter.txt"), "hello").unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(error.message.contains("it holds 'letter.txt'"), "{error}");
        std::fs::write(directory.path().join("format"), "viaduct 2\n").unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(error.message.contains("has format 2"), "{error}");
        assert!(error.next.unwrap().contains("release"));
        std::fs::write(directory.path().join("format"), "something\n").unwrap();
        assert!(open(directory.path()).unwrap_err().message.contains("damaged"));
    }

    #[test]
    fn death_while_it_is_made_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["lock", ".format.new"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        open(directory.path()).unwrap();
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let error = open(&directory.path().join("d".repeat(100))).unwrap_err();
        assert!(error.message.contains("Linux allows"), "{error}");
    }
}
