//! A SCSI host on cores of its own, with LUNs that a test plugs and unplugs, and a driver that
//! sends commands, control requests and buffers for events.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use front::vhost_user::{Adapter, Enter, Info, Limits, Scsi, Spec, join};
use rt::{Core, Remote, Spin};
use target::lun::access::{Access, AccessState, Altered, Group, Port};
use target::lun::admit::Across;
use target::lun::attention::AttentionSet;
use target::lun::{
    Change, Config, Handle, Identity, Ledger, Local, Medium, Modes, NexusId, PortId, State,
};
use target::scsi::persist::transport_id;
use target::scsi::{Env, Kind, Nexus, Settings, TargetPort, Unit};
use target::virtio_scsi::address_of;
use wire::scsi::reservation::Protocol;
use wire::virtio::scsi::{Event, Response, ResponseHeader};
use zerocopy::FromBytes;

use super::server::{Notices, kill_cores, start_cores};
use super::{Buf, Disk, Guest, Machine, Options};

/// What the default sizes make of headers.
const REQUEST_BYTES: u32 = 51;
const RESPONSE_BYTES: u32 = 108;

const PORT: u16 = 9;

/// What one core has of the adapter.
struct OfCore {
    nexus: Rc<Nexus>,
    ledgers: RefCell<HashMap<u16, Rc<Local>>>,
}

thread_local! {
    static OF_CORE: RefCell<Option<Rc<OfCore>>> = const { RefCell::new(None) };
}

struct Spawner(Core);

impl Env for Spawner {
    fn spawn(&self, work: Pin<Box<dyn Future<Output = ()>>>) {
        self.0.spawn(work);
    }
}

fn of_core(core: &Core) -> Rc<OfCore> {
    let made = || {
        let id = NexusId::new(transport_id::sas(7), PortId(PORT));
        let port = TargetPort { protocol: Protocol::SAS, device_name: String::new() };
        let nexus = Nexus::new(id, port, Rc::new(Spawner(core.clone())));
        Rc::new(OfCore { nexus, ledgers: RefCell::default() })
    };
    OF_CORE.with(|known| known.borrow_mut().get_or_insert_with(made).clone())
}

/// The only port, through which everything is reached well.
fn access() -> Access {
    let ports = vec![Port { id: PortId(PORT), target: 1 }];
    let (state, altered) = (AccessState::Optimized, Altered::Never);
    Access { groups: vec![Group { id: 1, state, preferred: false, altered, ports }] }
}

pub struct ScsiServer {
    dir: tempfile::TempDir,
    pub cores: Vec<Remote>,
    pub notices: Arc<Notices>,
    adapter: Option<Adapter<Scsi>>,
    queues: u16,
}

impl ScsiServer {
    /// With so many request queues on so many cores, and no LUN yet.
    pub fn start(queues: u16, cores: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cores = start_cores(cores, Spin::default());
        let notices = Arc::new(Notices::default());
        let mut server = Self { dir, cores, notices, adapter: None, queues };
        server.listen();
        server
    }

    fn listen(&mut self) {
        let enter: Enter = Box::new(|core| of_core(core).nexus.clone());
        let spec = Spec {
            name: "client-3".into(),
            cores: self.cores.clone(),
            observer: self.notices.clone(),
            device: Scsi { queues: self.queues, enter },
        };
        let socket = UnixListener::bind(self.path()).unwrap();
        let started = Adapter::start_with(&self.cores[0], socket, spec, Limits::default());
        self.adapter = Some(started.wait().unwrap().unwrap());
    }

    /// A server of before is killed with all that it was doing; this one has the same LUNs.
    pub fn kill_and_restart(&mut self, luns: &[(u16, &Arc<Disk>)]) {
        let count = self.cores.len();
        kill_cores(std::mem::take(&mut self.cores));
        self.adapter = None;
        std::fs::remove_file(self.path()).unwrap();
        self.cores = start_cores(count, Spin::default());
        for (number, disk) in luns {
            self.map(*number, disk);
        }
        self.listen();
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("scsi.sock")
    }

    fn adapter(&self) -> &Adapter<Scsi> {
        self.adapter.as_ref().unwrap()
    }

    pub fn info(&self) -> Info {
        self.adapter().info().wait().unwrap()
    }

    /// Maps a disk on every core, and says so.
    pub fn plug(&self, number: u16, disk: &Arc<Disk>) {
        self.map(number, disk);
        self.adapter().plugged(number).wait();
    }

    fn map(&self, number: u16, disk: &Arc<Disk>) {
        let across = Arc::<Across>::default();
        for remote in &self.cores {
            let (open, across) = (disk.open(), across.clone());
            let mapped = remote.call(move |core| async move {
                let here = of_core(&core);
                let medium = Medium::LOADED;
                let ledger = Local::new(State::new(Config {
                    modes: Modes::default(),
                    access: access(),
                    medium,
                }));
                let way: Rc<dyn Ledger> = ledger.clone();
                let identity =
                    Identity { uuid: [number as u8; 16], serial: "serial".into(), company: None };
                let handle = Handle::new(open(&core), identity, ledger.view(), way);
                ledger.attach(&handle);
                let attentions = handle.attentions(AttentionSet::NONE);
                let (kind, id) = (Kind::Disk, here.nexus.id().clone());
                let settings =
                    Settings { kind, removable: false, read_only: false, tasks_max: 256 };
                let unit = Unit::new(id, handle, attentions, settings);
                join(&core, &unit, &across);
                here.nexus.map(number, unit).unwrap();
                here.nexus.told_luns();
                here.ledgers.borrow_mut().insert(number, ledger);
            });
            mapped.wait().unwrap();
        }
    }

    pub fn unplug(&self, number: u16) {
        for remote in &self.cores {
            let unmapped = remote.call(move |core| async move {
                let here = of_core(&core);
                here.ledgers.borrow_mut().remove(&number);
                here.nexus.unmap(number).is_some()
            });
            assert!(unmapped.wait().unwrap());
        }
        self.adapter().unplugged(number).wait();
    }

    /// Changes the state of an LU, on every core.
    pub fn change(&self, number: u16, change: Change) {
        for remote in &self.cores {
            let change = change.clone();
            let changed = remote.call(move |core| async move {
                let ledger = of_core(&core).ledgers.borrow()[&number].clone();
                ledger.change(change).await
            });
            changed.wait().unwrap().unwrap();
        }
    }
}

impl Drop for ScsiServer {
    fn drop(&mut self) {
        self.adapter = None;
        for core in &self.cores {
            core.send(Core::stop);
        }
    }
}

/// A CDB with this in front.
pub fn cdb(bytes: &[u8]) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..bytes.len()].copy_from_slice(bytes);
    cdb
}

/// A command that is out.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    pub queue: usize,
    pub head: u16,
    response: u64,
    data: u64,
}

/// How it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub response: Response,
    pub status: u8,
    pub residual: u32,
    /// Sense key and additional sense code.
    pub sense: Option<(u8, u16)>,
}

impl Reply {
    pub const GOOD: Self = Self { response: Response::OK, status: 0, residual: 0, sense: None };

    pub fn refused(response: Response, residual: u32) -> Self {
        Self { response, residual, ..Self::GOOD }
    }

    pub fn check(key: u8, code: u16, residual: u32) -> Self {
        Self { status: 2, sense: Some((key, code)), residual, ..Self::GOOD }
    }
}

/// The driver in a machine with control queue, event queue and request queues.
pub struct ScsiDriver(pub Machine);

impl ScsiDriver {
    pub fn boot(path: &Path, request_queues: u16) -> Self {
        let options = Options { queues: 2 + request_queues, ..Options::default() };
        let features = options.features | wire::virtio::scsi::feature::HOTPLUG;
        let options = Options { features, ..options };
        Self(Machine::boot_with(path, Guest::plain(), options))
    }

    /// Puts buffers into the event queue.
    pub fn give_event_buffers(&mut self, count: usize) -> Vec<(u16, u64)> {
        let give = |machine: &mut Machine| {
            let at = machine.guest.alloc(16, 16);
            (machine.queues[1].ring.place(&[Buf::In(at, 16)]), at)
        };
        let given = (0..count).map(|_| give(&mut self.0)).collect();
        self.0.submit(1);
        given
    }

    /// Waits for a buffer to come back with an event: what, of which LUN, why.
    pub fn event(&mut self, (head, at): (u16, u64)) -> (u32, u8, u32) {
        self.0.queues[1].wait(head);
        let event = Event::read_from_bytes(&self.0.guest.read(at, 16)).unwrap();
        (event.event.get(), event.lun[3], event.reason.get())
    }

    pub fn begin(&mut self, queue: usize, lun: u16, cdb: [u8; 16], data: Option<Buf>) -> Command {
        self.begin_at(queue, address_of(lun), &cdb, data.as_slice())
    }

    pub fn begin_at(&mut self, queue: usize, lun: [u8; 8], cdb: &[u8], data: &[Buf]) -> Command {
        self.begin_as(queue, (lun, 0, 0), cdb, data)
    }

    /// With the tag and the attribute.
    pub fn begin_as(
        &mut self,
        queue: usize,
        (lun, tag, attribute): ([u8; 8], u64, u8),
        cdb: &[u8],
        data: &[Buf],
    ) -> Command {
        let machine = &mut self.0;
        let mut request = [&lun[..], &tag.to_le_bytes(), &[attribute, 0, 0], cdb].concat();
        request.resize(REQUEST_BYTES as usize, 0);
        let (out, response) = (machine.guest.put(&request), machine.guest.alloc(108, 16));
        let is_out = |buf: &&Buf| matches!(buf, Buf::Out(..));
        let mut bufs = vec![Buf::Out(out, REQUEST_BYTES)];
        bufs.extend(data.iter().filter(is_out));
        bufs.push(Buf::In(response, RESPONSE_BYTES));
        bufs.extend(data.iter().filter(|buf| !is_out(buf)));
        let place = |buf: &Buf| match buf {
            Buf::Out(at, _) | Buf::In(at, _) => *at,
        };
        let queue = queue + 2;
        let head = machine.queues[queue].ring.place(&bufs);
        machine.submit(queue);
        Command { queue, head, response, data: data.first().map_or(0, place) }
    }

    pub fn finish(&mut self, command: &Command) -> Reply {
        self.0.queues[command.queue].wait(command.head);
        self.reply(command)
    }

    pub fn reply(&self, command: &Command) -> Reply {
        let bytes = self.0.guest.read(command.response, RESPONSE_BYTES as usize);
        let (header, sense) = ResponseHeader::read_from_prefix(&bytes).unwrap();
        let code = || (sense[2] & 0xf, u16::from_be_bytes([sense[12], sense[13]]));
        Reply {
            response: Response(header.response),
            status: header.status,
            residual: header.residual.get(),
            sense: (header.sense_len.get() > 0).then(code),
        }
    }

    pub fn run(&mut self, lun: u16, cdb: [u8; 16], data: Option<Buf>) -> Reply {
        let command = self.begin(0, lun, cdb, data);
        self.finish(&command)
    }

    /// Runs a command with data-in, and says what came.
    pub fn read(&mut self, lun: u16, cdb: [u8; 16], len: u32) -> (Reply, Vec<u8>) {
        let at = self.0.guest.alloc(u64::from(len), 512);
        let command = self.begin(0, lun, cdb, Some(Buf::In(at, len)));
        let reply = self.finish(&command);
        (reply, self.0.guest.read(command.data, len as usize))
    }

    /// Begins to write blocks of 512 bytes.
    pub fn begin_write(&mut self, queue: usize, lun: u16, lba: u8, bytes: &[u8]) -> Command {
        let at = self.0.guest.put(bytes);
        let cdb = cdb(&[0x2a, 0, 0, 0, 0, lba, 0, 0, (bytes.len() / 512) as u8]);
        self.begin(queue, lun, cdb, Some(Buf::Out(at, bytes.len() as u32)))
    }

    /// Puts a request into the control queue: its head, and where its response will be.
    pub fn begin_control(&mut self, request: &[u8], response: u32) -> (u16, u64) {
        let machine = &mut self.0;
        let at = machine.guest.put(request);
        let into = machine.guest.alloc(u64::from(response), 16);
        let bufs = [Buf::Out(at, request.len() as u32), Buf::In(into, response)];
        let head = machine.queues[0].ring.place(&bufs);
        machine.submit(0);
        (head, into)
    }

    pub fn begin_manage(&mut self, function: u32, lun: u16, tag: u64) -> (u16, u64) {
        let request = [
            &0u32.to_le_bytes()[..],
            &function.to_le_bytes(),
            &address_of(lun),
            &tag.to_le_bytes(),
        ];
        self.begin_control(&request.concat(), 1)
    }

    pub fn finish_manage(&mut self, (head, at): (u16, u64)) -> Response {
        self.0.queues[0].wait(head);
        Response(self.0.guest.read(at, 1)[0])
    }

    pub fn manage(&mut self, function: u32, lun: u16, tag: u64) -> Response {
        let begun = self.begin_manage(function, lun, tag);
        self.finish_manage(begun)
    }
}
