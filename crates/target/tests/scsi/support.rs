//! A toy disk in memory, an LU on it, and nexuses that send it commands.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use block::extent::{self, Extent, ExtentState};
use block::{
    Asked, Buffer, Completion, Device, ErrorKind, Geometry, Health, Op, OpSet, Outcome, Request,
    RequestBuf, Sgl, Watch, step,
};
use target::lun::attention::AttentionSet;
use target::lun::{
    Caching, Config, Handle, Identity, Initiator, Local, Medium, Modes, NexusId, PortId, State,
};
use target::scsi::{Answer, Data, Env, Kind, Nexus, Settings, TargetPort, Task, Unit};
use wire::scsi::reservation::Protocol;
use wire::scsi::{AdditionalSense, SenseKey, Status};

pub const BLOCK: usize = 512;
/// Bytes of a granule that has a place or not.
const GRANULE: u64 = 4096;

/// A disk whose every operation is one step.
pub struct Disk {
    bytes: RefCell<Vec<u8>>,
    placed: RefCell<BTreeSet<u64>>,
    geometry: Cell<Geometry>,
    pub health: Cell<Health>,
    /// The next requests fail so.
    pub fails: Cell<Option<ErrorKind>>,
    /// Answers are kept until [`Disk::release`].
    pub slow: Cell<bool>,
    waiting: RefCell<Vec<(RequestBuf, Completion)>>,
    pub flushes: Cell<u32>,
    pub last_op: Cell<Option<Op>>,
    watch: Watch,
}

impl Disk {
    pub fn new(blocks: u64) -> Rc<Self> {
        let size = blocks * BLOCK as u64;
        let steps = OpSet::COMPARE_AND_WRITE | OpSet::OR_WRITE;
        let ops = steps | OpSet::DISCARD | OpSet::WRITE_ZEROES | OpSet::STATUS;
        let geometry = Geometry {
            physical_block_size: 4096,
            optimal_io_size: 65536,
            discard_granularity: GRANULE as u32,
            exclusive_max: 64 * 1024,
            ops,
            ..Geometry::plain(size, BLOCK as u32)
        };
        Rc::new(Self {
            bytes: RefCell::new(vec![0; size as usize]),
            placed: RefCell::default(),
            geometry: Cell::new(geometry),
            health: Cell::default(),
            fails: Cell::default(),
            slow: Cell::default(),
            waiting: RefCell::default(),
            flushes: Cell::default(),
            last_op: Cell::default(),
            watch: Watch::new(),
        })
    }

    pub fn shape(&self, change: impl FnOnce(&mut Geometry)) {
        let mut geometry = self.geometry.get();
        change(&mut geometry);
        self.geometry.set(geometry);
    }

    pub fn content(&self, lba: usize, blocks: usize) -> Vec<u8> {
        self.bytes.borrow()[lba * BLOCK..(lba + blocks) * BLOCK].to_vec()
    }

    /// Every four bytes say where they are.
    pub fn fill_with_numbers(&self) {
        for (number, word) in self.bytes.borrow_mut().chunks_mut(4).enumerate() {
            word.copy_from_slice(&(number as u32).to_le_bytes());
        }
    }

    /// Answers what is kept back.
    pub fn release(&self) {
        let waiting = self.waiting.take();
        for (request, done) in waiting {
            let outcome = self.step(&request.as_request());
            done.finish(outcome);
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    fn step(&self, request: &Request<'_>) -> Outcome {
        self.last_op.set(Some(request.op));
        if let Some(kind) = self.fails.get() {
            return Err(kind.into());
        }
        self.geometry().check(request)?;
        let mut bytes = self.bytes.borrow_mut();
        let range = request.offset as usize..(request.offset + request.len) as usize;
        match request.op {
            Op::Read => request.data.copy_in(0, &bytes[range]),
            Op::Write { .. } => {
                request.data.copy_out(0, &mut bytes[range]);
                self.place(request, true);
            }
            Op::CompareAndWrite { .. } | Op::OrWrite { .. } => {
                let mut data = vec![0; request.data.len()];
                request.data.copy_out(0, &mut data);
                step::modify(request.op, &data, &mut bytes[range])?;
                self.place(request, true);
            }
            Op::Flush => self.flushes.set(self.flushes.get() + 1),
            Op::Discard | Op::WriteZeroes { .. } => {
                bytes[range].fill(0);
                self.place(request, false);
            }
            Op::Status => return Ok(self.status(request)),
            Op::Copy { from } => {
                let from = from as usize;
                bytes.copy_within(from..from + range.len(), range.start);
                self.place(request, true);
            }
        }
        Ok(if request.op == Op::Read { request.len } else { 0 })
    }

    /// Space is given back in whole granules.
    fn place(&self, request: &Request<'_>, has: bool) {
        let end = request.offset + request.len;
        let granules = match has {
            true => request.offset / GRANULE..end.div_ceil(GRANULE),
            false => request.offset.div_ceil(GRANULE)..end / GRANULE,
        };
        let mut placed = self.placed.borrow_mut();
        for granule in granules {
            if has {
                placed.insert(granule);
            } else {
                placed.remove(&granule);
            }
        }
    }

    fn status(&self, request: &Request<'_>) -> u64 {
        let placed = self.placed.borrow();
        let mut extents: Vec<Extent> = Vec::new();
        let (mut at, end) = (request.offset, request.offset + request.len);
        while at < end {
            let granule = at / GRANULE;
            let state =
                if placed.contains(&granule) { ExtentState::Data } else { ExtentState::Hole };
            let len = ((granule + 1) * GRANULE).min(end) - at;
            match extents.last_mut() {
                Some(last) if last.state == state => last.len += len,
                _ => extents.push(Extent { len, state }),
            }
            at += len;
        }
        extent::store(&extents, &request.data) as u64
    }
}

impl Device for Disk {
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if self.slow.get() {
            self.waiting.borrow_mut().push((request.to_buf(), asked.later()));
            return None;
        }
        asked.now(self.step(request))
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }

    fn health(&self) -> Health {
        self.health.get()
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Runs what is spawned whenever somebody waits.
#[derive(Default)]
pub struct World {
    work: RefCell<Vec<Work>>,
}

impl Env for World {
    fn spawn(&self, work: Work) {
        self.work.borrow_mut().push(work);
    }
}

impl World {
    /// One look at everything that was spawned.
    pub fn turn(&self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut work = self.work.take();
        work.retain_mut(|work| work.as_mut().poll(&mut cx).is_pending());
        self.work.borrow_mut().append(&mut work);
    }

    /// Turns until nothing that was spawned is left.
    pub fn finish(&self) {
        for _ in 0..10_000 {
            if self.work.borrow().is_empty() {
                return;
            }
            self.turn();
        }
        panic!("what was spawned does not end");
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..10_000 {
            if let Poll::Ready(value) = poll(future.as_mut()) {
                return value;
            }
            self.turn();
        }
        panic!("nothing moves any more");
    }
}

pub fn poll<T>(future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// An LU on a toy disk, and whoever uses it.
pub struct Bench {
    pub disk: Rc<Disk>,
    pub local: Rc<Local>,
    pub handle: Rc<Handle>,
    pub world: Rc<World>,
    pub settings: Settings,
}

fn identity() -> Identity {
    Identity { uuid: *b"0123456789abcdef", serial: "web-1".to_string(), company: None }
}

pub const SETTINGS: Settings =
    Settings { kind: Kind::Disk, removable: false, read_only: false, tasks_max: 64 };

impl Bench {
    pub fn new() -> Self {
        Self::with(4096, SETTINGS)
    }

    pub fn removable() -> Self {
        Self::with(4096, Settings { removable: true, ..SETTINGS })
    }

    /// An LU with this UUID.
    pub fn named(uuid: [u8; 16]) -> Self {
        Self::made(4096, SETTINGS, Identity { uuid, ..identity() })
    }

    /// An LU of a cluster that has a company id.
    pub fn of_company(company: [u8; 3]) -> Self {
        Self::made(4096, SETTINGS, Identity { company: Some(company), ..identity() })
    }

    pub fn with(blocks: u64, settings: Settings) -> Self {
        Self::made(blocks, settings, identity())
    }

    fn made(blocks: u64, settings: Settings, identity: Identity) -> Self {
        let disk = Disk::new(blocks);
        let caching = Caching { write_back: true, ..Caching::default() };
        let config = Config {
            modes: Modes { caching, ..Modes::default() },
            access: Default::default(),
            medium: Medium::LOADED,
        };
        let local = Local::new(State::new(config));
        let handle = Handle::new(disk.clone(), identity, local.view(), local.clone());
        local.attach(&handle);
        Self { disk, local, handle, world: Rc::default(), settings }
    }

    /// A nexus with the LU at number 0 and nothing to be told.
    pub fn nexus(&self, initiator: &str) -> Client {
        self.nexus_of(NexusId::new(Initiator::new(initiator.as_bytes()).unwrap(), PortId(1)))
    }

    pub fn nexus_of(&self, id: NexusId) -> Client {
        let port = TargetPort {
            protocol: Protocol::ISCSI,
            device_name: "iqn.2026-11.org.viaduct:c:web".to_string(),
        };
        let nexus = Nexus::new(id.clone(), port, self.world.clone());
        let attentions = self.handle.attentions(AttentionSet::NONE);
        let unit = Unit::new(id, self.handle.clone(), attentions, self.settings.clone());
        nexus.map(0, unit).unwrap();
        Client { nexus, world: self.world.clone() }
    }
}

/// An initiator.
pub struct Client {
    pub nexus: Rc<Nexus>,
    pub world: Rc<World>,
}

pub struct Reply {
    pub answer: Answer,
    pub data: Vec<u8>,
}

impl Client {
    /// A command without data-out.
    pub fn ask(&self, cdb: &[u8]) -> Reply {
        self.send(cdb, &[])
    }

    /// A command with as much room for data-in as it asks for.
    pub fn send(&self, cdb: &[u8], out: &[u8]) -> Reply {
        let room = self.nexus.parse([0; 8], cdb).map_or(0, |parsed| parsed.data_in_len());
        self.send_with(cdb, out, room.min(1 << 24) as usize)
    }

    pub fn send_with(&self, cdb: &[u8], out: &[u8], room: usize) -> Reply {
        self.send_to([0; 8], cdb, out, room)
    }

    pub fn send_to(&self, lun: [u8; 8], cdb: &[u8], out: &[u8], room: usize) -> Reply {
        let parsed = match self.nexus.parse(lun, cdb) {
            Ok(parsed) => parsed,
            Err(answer) => return Reply { answer, data: Vec::new() },
        };
        let (out, into) = (Buffer::from_bytes(out), Buffer::zeroed(room));
        let data = Data { out: sgl(&out), into: sgl(&into) };
        let answer = self.world.block_on(self.nexus.execute(&parsed, Task::default(), data));
        let mut data = into.to_vec();
        assert!(data[answer.len..].iter().all(|byte| *byte == 0), "nothing behind the data");
        data.truncate(answer.len);
        Reply { answer, data }
    }
}

fn sgl(buffer: &Buffer) -> Sgl<'_> {
    if buffer.is_empty() { Sgl::empty() } else { buffer.sgl() }
}

impl Reply {
    #[track_caller]
    pub fn good(self) -> Vec<u8> {
        assert_eq!(self.answer.status, Status::GOOD, "{:?}", self.answer.sense);
        self.data
    }

    #[track_caller]
    pub fn fails(self, key: SenseKey, code: AdditionalSense) {
        assert_eq!(self.answer.status, Status::CHECK_CONDITION);
        let sense = self.answer.sense.unwrap();
        assert_eq!((sense.key, sense.code), (key, code));
    }

    #[track_caller]
    pub fn illegal(self, code: AdditionalSense) {
        self.fails(SenseKey::ILLEGAL_REQUEST, code);
    }

    #[track_caller]
    pub fn invalid_field(self) {
        self.illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
    }

    #[track_caller]
    pub fn invalid_parameter(self) {
        self.illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST);
    }

    #[track_caller]
    pub fn out_of_range(self) {
        self.illegal(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE);
    }

    #[track_caller]
    pub fn attention(self, code: AdditionalSense) {
        self.fails(SenseKey::UNIT_ATTENTION, code);
    }
}

/// A CDB of ten bytes with an address and a length.
pub fn cdb10(opcode: u8, flags: u8, lba: u32, count: u16) -> [u8; 10] {
    let [a, b, c, d] = lba.to_be_bytes();
    let [high, low] = count.to_be_bytes();
    [opcode, flags, a, b, c, d, 0, high, low, 0]
}

pub fn cdb12(opcode: u8, flags: u8, lba: u32, count: u32) -> [u8; 12] {
    let mut cdb = [0; 12];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[6..10].copy_from_slice(&count.to_be_bytes());
    cdb
}

pub fn cdb16(opcode: u8, flags: u8, lba: u64, count: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&count.to_be_bytes());
    cdb
}
