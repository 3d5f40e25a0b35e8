//! Cores with adapters on them, started, closed, and killed as SIGKILL would: at once, with nothing
//! answered any more.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use front::vhost_user::{Adapter, Blk, Info, Limits, Notice, Observer, Open, SessionInfo, Spec};
use rt::{Config, Core, Remote, Spin};
use target::virtio_blk::Id;

use super::{Disk, PATIENCE};

/// What the server noticed, as text.
#[derive(Default)]
pub struct Notices {
    list: Mutex<Vec<String>>,
    more: Condvar,
}

impl Observer for Notices {
    fn notice(&self, adapter: &str, notice: Notice) {
        self.list.lock().unwrap().push(format!("{adapter}: {notice:?}"));
        self.more.notify_all();
    }
}

impl Notices {
    pub fn count(&self, what: &str) -> usize {
        self.list.lock().unwrap().iter().filter(|notice| notice.contains(what)).count()
    }

    pub fn contain(&self, what: &str) -> bool {
        self.count(what) > 0
    }

    pub fn wait_for(&self, what: &str) {
        self.wait_for_many(what, 1);
    }

    pub fn wait_for_many(&self, what: &str, count: usize) {
        let few = |list: &mut Vec<String>| {
            list.iter().filter(|notice| notice.contains(what)).count() < count
        };
        let list = self.list.lock().unwrap();
        let (list, timeout) = self.more.wait_timeout_while(list, PATIENCE, few).unwrap();
        assert!(!timeout.timed_out(), "no notice of {what:?} in {list:#?}");
    }

    pub fn all(&self) -> Vec<String> {
        self.list.lock().unwrap().clone()
    }
}

/// How an adapter serves.
#[derive(Clone)]
pub struct Setting {
    pub queues: u16,
    pub read_only: bool,
    pub writeback: bool,
    pub limits: Limits,
    /// Of the cores, when the adapter is the first one on them.
    pub spin: Spin,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            queues: 1,
            read_only: false,
            writeback: true,
            limits: Limits::default(),
            spin: Spin::default(),
        }
    }
}

pub struct Server {
    /// Removed with the server, if it is the server's.
    _own: Option<tempfile::TempDir>,
    dir: PathBuf,
    pub cores: Vec<Remote>,
    doors: Vec<Door>,
}

struct Door {
    path: PathBuf,
    notices: Arc<Notices>,
    adapter: Option<Adapter<Blk>>,
}

impl Server {
    /// One adapter on one core.
    pub fn start(disk: &Arc<Disk>) -> Self {
        Self::start_with(1, disk, Setting::default())
    }

    pub fn start_with(cores: usize, disk: &Arc<Disk>, setting: Setting) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(own.path(), cores, disk.open(), setting);
        server._own = Some(own);
        server
    }

    /// The same with its socket in this directory.
    pub fn start_in(dir: &Path, cores: usize, open: Open, setting: Setting) -> Self {
        let cores = start_cores(cores, setting.spin);
        let mut server = Self { _own: None, dir: dir.to_owned(), cores, doors: Vec::new() };
        server.add_open(open, setting);
        server
    }

    /// One more adapter at home on the first core; its number.
    pub fn add(&mut self, disk: &Arc<Disk>, setting: Setting) -> usize {
        self.add_open(disk.open(), setting)
    }

    fn add_open(&mut self, open: Open, setting: Setting) -> usize {
        let number = self.doors.len();
        let path = self.dir.join(format!("{number}.sock"));
        let notices = Arc::new(Notices::default());
        let adapter = adapter(&self.cores, &path, open, &notices, setting);
        self.doors.push(Door { path, notices, adapter: Some(adapter) });
        number
    }

    /// Ends all cores at once, and whatever is on them, as a kill would; then starts anew.
    pub fn kill_and_restart(&mut self, disk: &Arc<Disk>, setting: Setting) {
        let count = self.cores.len();
        self.kill();
        self.cores = start_cores(count, setting.spin);
        for door in &mut self.doors {
            door.adapter = None;
            std::fs::remove_file(&door.path).unwrap();
            door.adapter =
                Some(adapter(&self.cores, &door.path, disk.open(), &door.notices, setting.clone()));
        }
    }

    pub fn kill(&mut self) {
        kill_cores(std::mem::take(&mut self.cores));
    }

    pub fn path(&self) -> &Path {
        self.path_of(0)
    }

    pub fn path_of(&self, door: usize) -> &Path {
        &self.doors[door].path
    }

    pub fn notices(&self) -> &Notices {
        self.notices_of(0)
    }

    pub fn notices_of(&self, door: usize) -> &Notices {
        &self.doors[door].notices
    }

    pub fn adapter(&self) -> &Adapter<Blk> {
        self.doors[0].adapter.as_ref().unwrap()
    }

    pub fn drop_adapter(&mut self) {
        self.doors[0].adapter = None;
    }

    pub fn info(&self) -> Info {
        self.adapter().info().wait().unwrap()
    }

    pub fn session(&self) -> SessionInfo {
        self.info().session.expect("a session")
    }

    /// Letters that all cores have taken.
    pub fn messages(&self) -> u64 {
        let asked = self.cores.iter().map(|core| core.call(|core| async move { core.messages() }));
        asked.map(|reply| reply.wait().unwrap()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.doors.clear();
        for core in &self.cores {
            core.send(Core::stop);
        }
    }
}

pub fn kill_cores(cores: Vec<Remote>) {
    for core in cores {
        // What never ends by itself ends with the core.
        let end = core.call(|_| std::future::pending::<()>());
        core.send(Core::stop);
        assert!(end.wait().is_none());
    }
}

pub fn start_cores(count: usize, spin: Spin) -> Vec<Remote> {
    let config = |n| Config { spin, ..Config::new(format!("core{n}")) };
    (0..count).map(|n| rt::os::start(config(n)).unwrap()).collect()
}

fn adapter(
    cores: &[Remote],
    path: &Path,
    open: Open,
    notices: &Arc<Notices>,
    setting: Setting,
) -> Adapter<Blk> {
    let spec = Spec {
        name: "client-2".into(),
        cores: cores.to_vec(),
        observer: notices.clone(),
        device: Blk {
            queues: setting.queues,
            read_only: setting.read_only,
            writeback: Arc::new(setting.writeback.into()),
            id: Id::new("serial-of-the-lu"),
            open,
        },
    };
    let socket = UnixListener::bind(path).unwrap();
    let started = Adapter::start_with(&cores[0], socket, spec, setting.limits);
    started.wait().unwrap().unwrap()
}
