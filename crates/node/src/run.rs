//! A node from start to stop: takes the data directory, opens the store, makes the engine, starts
//! the control thread and the API; and the same backwards.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use kv::{Embedded, Kv};
use model::status::Phase;
use model::target::cluster_of;
use model::{ApiError, Severity, Size, Subject};
use rt::{FileHandle, OpenOptions, Spin};

use crate::api::importing::Imports;
use crate::api::listen::{Listeners, Serving};
use crate::api::promises::Promises;
use crate::api::{Api, Closing, Info};
use crate::control::{Control, Message, Parts};
use crate::datadir::{DataDir, PRIVATE_FILE};
use crate::default_pool::{self, DefaultPool};
use crate::engine::{Context, Done, Engine, Report, Reporter};
use crate::events::Events;
use crate::library;
use crate::plane::Plane;
use crate::records::KvRecords;
use crate::state::{State, unavailable};
use crate::tcp;
use crate::view::Published;
use crate::world::{self, JoinHandle, Machine, World};

/// How long a stop may take to drain before the node goes without.
pub const STOP_WAIT: Duration = Duration::from_secs(60);

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Options {
    pub data: PathBuf,
    /// Where to serve reading over TCP.
    pub http: Option<SocketAddr>,
    /// Where to serve iSCSI; nowhere when empty.
    pub iscsi: Vec<SocketAddr>,
    /// The CPUs for the data plane; all when empty.
    pub cores: Vec<usize>,
    /// How much of the maps of pools' LUs is kept in memory.
    pub map_memory: Size,
    /// The pool that a fresh data directory gets.
    pub default_pool: DefaultPool,
}

/// What a running node tells whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Everything that could be brought back is back.
    Running,
    /// A signal asks it to stop.
    Signal(&'static str),
}

/// A running node.
pub struct Node {
    control: Sender<Message>,
    control_thread: JoinHandle<()>,
    engine: Arc<dyn Engine>,
    serving: Serving,
    published: Arc<RwLock<Arc<Published>>>,
    told: Receiver<Told>,
    http: Option<SocketAddr>,
    data: PathBuf,
    // Let go of last: until then no other node may use the directory.
    _directory: DataDir,
}

impl Node {
    /// Starts a node on this machine; its cores look for work so long before they sleep.
    pub fn start_on_machine(options: Options, poll: Duration) -> Result<Node, ApiError> {
        Node::start(options, Arc::new(Machine), |context| {
            let plane = Plane::start(context, Spin { bound: poll })?;
            Ok(Arc::new(plane))
        })
    }

    /// Starts a node. It serves its API when this returns; its devices come back one after the
    /// other.
    pub fn start(
        options: Options,
        world: Arc<dyn World>,
        engine: impl FnOnce(Context) -> Result<Arc<dyn Engine>, ApiError>,
    ) -> Result<Node, ApiError> {
        let directory = DataDir::open(&options.data, world.as_ref())?;
        let kv = open_kv(&directory.kv(), &world)?;
        let mut state = State::load(Arc::clone(&kv), directory.id())?;
        let records = KvRecords::new(Arc::clone(&kv));
        tidy(&state, &records, &directory)?;
        let events = Events::open(kv, directory.id())?;
        let listeners = Listeners::bind(directory.api_socket(), options.http)?;
        let http = listeners.http();
        tcp::check(&options.iscsi, "--iscsi")?;

        let (sender, messages) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let report = reporter(&sender);
        let (node, lus, pools) = (directory.id(), directory.lus(), directory.pools());
        let Options { cores, map_memory, iscsi, default_pool, .. } = options;
        let (media, records, boot) = (directory.media(), Arc::new(records), world::boot_id());
        let context =
            Context { node, lus, pools, media, cores, map_memory, iscsi, report, records, boot };
        let engine = engine(context)?;
        let published = Arc::new(RwLock::new(Arc::new(Published::default())));
        let api = Api {
            info: Arc::new(info(&directory, world.as_ref(), http)),
            world: Arc::clone(&world),
            engine: Arc::clone(&engine),
            events: events.clone(),
            published: Arc::clone(&published),
            control: sender.clone(),
            news: Arc::default(),
            looker: crate::pv::Looker::default(),
            imports: Imports::default(),
            promises: Promises::default(),
            closing: Closing::default(),
        };
        announce(&events, world.as_ref(), &directory, http);
        begin(&mut state, default_pool, &directory, (world.as_ref(), &events));
        let control = Control::new(Parts {
            world,
            engine: Arc::clone(&engine),
            state,
            events,
            published: Arc::clone(&published),
            sender: sender.clone(),
            cluster: cluster_of(directory.id()),
            run: directory.run(),
            config_copy: directory.config_copy(),
        });
        let running = tell.clone();
        let control =
            control.on_running(Box::new(move || running.send(Told::Running).unwrap_or_default()));
        let control_thread = world::spawn("viaduct-control", move || control.run(&messages))
            .map_err(|error| ApiError::failed(format!("cannot start a thread: {error}")))?;
        let signal = move |name| tell.send(Told::Signal(name)).unwrap_or_default();
        let serving = listeners.serve(api, Box::new(signal))?;
        Ok(Node {
            control: sender,
            control_thread,
            engine,
            serving,
            published,
            told,
            http,
            data: directory.root().to_path_buf(),
            _directory: directory,
        })
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    pub fn phase(&self) -> Phase {
        self.published.read().map_or(Phase::Stopping, |published| published.phase)
    }

    /// What the node tells next; none when nothing came in that time.
    pub fn wait(&self, timeout: Duration) -> Option<Told> {
        self.told.recv_timeout(timeout).ok()
    }

    /// Whether control and data plane both answer within that time.
    pub fn is_alive(&self, timeout: Duration) -> bool {
        let (answer, answers) = mpsc::channel();
        let other = answer.clone();
        let ping = Message::Ping(Box::new(move || {
            let _ = other.send(());
        }));
        if self.control.send(ping).is_err() {
            return false;
        }
        self.engine.snapshot(Done::new(move |result| {
            if result.is_ok() {
                let _ = answer.send(());
            }
        }));
        (0..2).all(|_| answers.recv_timeout(timeout).is_ok())
    }

    /// Drains and stops; false when that did not end in time.
    pub fn stop(self) -> bool {
        let (done, is_done) = mpsc::channel();
        let stop = Message::Stop(Box::new(move || {
            let _ = done.send(());
        }));
        let is_drained = self.control.send(stop).is_ok() && is_done.recv_timeout(STOP_WAIT).is_ok();
        if is_drained && self.control_thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
        self.serving.stop();
        // Whoever asks from now on is told that no node runs here.
        let _ = world::remove_file(&crate::datadir::api_socket(&self.data));
        is_drained
    }
}

/// Opens the store, or makes it in a new directory. It is made under another name first, so that
/// what has its name was made completely.
fn open_kv(path: &Path, world: &Arc<dyn World>) -> Result<Arc<dyn Kv>, ApiError> {
    let failed = |error: std::io::Error| {
        ApiError::failed(format!("cannot open {}: {error}", path.display()))
    };
    let clock = || -> kv::embedded::Clock {
        let world = Arc::clone(world);
        Arc::new(move || world.now())
    };
    let options = OpenOptions { mode: PRIVATE_FILE, ..OpenOptions::write() };
    match FileHandle::open(path, options) {
        Ok(file) => {
            return Ok(Arc::new(Embedded::open(file, clock()).map_err(unavailable)?));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let new = world::new_name(path);
    world::remove_file(&new).map_err(failed)?;
    let file = FileHandle::open(&new, OpenOptions { create_new: true, ..options });
    let embedded = Embedded::create(file.map_err(failed)?, clock()).map_err(unavailable)?;
    world::rename(&new, path).map_err(failed)?;
    Ok(Arc::new(embedded))
}

/// Forgets and deletes what a former process left of things that are not there any more.
fn tidy(state: &State, records: &KvRecords, directory: &DataDir) -> Result<(), ApiError> {
    let config = state.config();
    let lus = config.lus.iter().map(|lu| lu.uuid);
    let pools = config.pools.iter().map(|pool| pool.uuid);
    let drives = config.drives.iter().map(|drive| drive.uuid);
    records.sweep(&lus.chain(drives).chain(pools).collect())?;
    let known = state.media().values().map(|medium| medium.uuid).collect();
    crate::import::tidy(&directory.lus()).map_err(|error| {
        ApiError::failed(format!("cannot tidy {}: {error}", directory.lus().display()))
    })?;
    library::tidy(&directory.media(), &known)
}

/// Decides what a fresh data directory begins with, and tells of it.
fn begin(
    state: &mut State,
    pool: DefaultPool,
    directory: &DataDir,
    (world, events): (&dyn World, &Events),
) {
    if let Some(report) = default_pool::begin(state, pool, directory, world) {
        events.record(world.wall(), report);
    }
}

/// What does not change while the node runs.
fn info(directory: &DataDir, world: &dyn World, http: Option<SocketAddr>) -> Info {
    Info {
        node: directory.id(),
        version: env!("CARGO_PKG_VERSION"),
        data: directory.root().to_path_buf(),
        lus: directory.lus(),
        pools: directory.pools(),
        media: directory.media(),
        run: directory.run(),
        http: http.map(|address| address.to_string()),
        started: world.wall(),
        started_at: world.now(),
    }
}

fn reporter(sender: &Sender<Message>) -> Reporter {
    let sender = sender.clone();
    Arc::new(move |report: Report| {
        // Without a control thread the node is gone.
        let _ = sender.send(Message::Report(report));
    })
}

fn announce(events: &Events, world: &dyn World, directory: &DataDir, http: Option<SocketAddr>) {
    let version = env!("CARGO_PKG_VERSION");
    let message = format!("viaduct {version} starts on {}", directory.root().display());
    let report = |severity, kind, message, next| Report {
        severity,
        subject: Subject::Node,
        kind,
        message,
        next,
    };
    events.record(world.wall(), report(Severity::Info, "node-started", message, None));
    if let Some(http) = http.filter(|http| !http.ip().is_loopback()) {
        let message = format!("http://{http} shows names and counters to everyone who reaches it");
        let next = Some("viaduct up --http 127.0.0.1:7878 keeps it on this machine".to_owned());
        events.record(world.wall(), report(Severity::Warning, "http-is-open", message, next));
    }
}
