//! A block device: one LU, its requests asked of the device on the core of their queue.
//!
//! ```text
//!   Function::begin ─ Rules::command ─ Device::begin ─┬─ in place ─┐
//!                                                     └─ Sink::complete ─▶ status byte, finish
//! ```

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{Asked, Device, Op, Outcome, Request, Sgl, Sink, Way};
use model::stats::{OpKind, OpStats};
use rt::{Core, Time};
use target::virtio_blk::{Command, Disk, Id, RangeKind, Rules, Settings, status};
use wire::virtio::blk::{DiscardWriteZeroes, RequestHeader, Status, feature};
use zerocopy::{FromBytes, IntoBytes};

use super::kind::{Face, Function, FunctionSetup, Kind};
use super::meter::Meter;
use super::queue::{Queue, Report};
use super::ring::{Buffers, Chain, Fault, Spot};
use super::session::{SEG_MAX, Session};

/// Longest data segment: drivers merge up to 64 KiB by themselves and expect no less.
const SIZE_MAX: u32 = 1 << 22;

/// Opens the LU on a core; handles of one core may be one and the same.
pub type Open = Box<dyn Fn(&Core) -> Rc<dyn Device> + Send + Sync>;

/// A disk to serve.
pub struct Blk {
    pub queues: u16,
    pub read_only: bool,
    /// The cache mode that a client starts with; taken when it connects.
    pub writeback: Arc<AtomicBool>,
    pub id: Id,
    pub open: Open,
}

/// The disk of one session.
pub struct BlkFace {
    device: Rc<dyn Device>,
    disk: Disk,
}

/// A queue of requests.
pub struct BlkQueue {
    way: Rc<Way>,
    index: u16,
    device: Rc<dyn Device>,
    rules: Cell<Rules>,
    id: Id,
    meter: Meter,
    report: Arc<dyn Report>,
}

/// A request that the device has not answered.
pub struct Slot {
    status: Spot,
    written: u32,
    kind: OpKind,
    bytes: u64,
    began: Time,
}

impl Kind for Blk {
    type Face = BlkFace;
    type Function = BlkQueue;

    const FEATURE_NAMES: &'static [(u64, &'static str)] = &[
        (feature::MQ, "mq"),
        (feature::FLUSH, "flush"),
        (feature::CONFIG_WCE, "config-wce"),
        (feature::DISCARD, "discard"),
        (feature::WRITE_ZEROES, "write-zeroes"),
        (feature::RO, "read-only"),
    ];

    fn ring_count(&self) -> u16 {
        self.queues
    }

    fn face(&self, core: &Core) -> BlkFace {
        let device = (self.open)(core);
        let settings = Settings {
            queue_count: self.queues,
            seg_max: SEG_MAX,
            size_max: SIZE_MAX,
            read_only: self.read_only,
            writeback: self.writeback.load(Ordering::Relaxed),
            id: self.id,
        };
        let disk = Disk::new(settings, device.geometry());
        BlkFace { device, disk }
    }

    fn function(setup: FunctionSetup<'_, Self>) -> BlkQueue {
        let blk = &setup.spec.device;
        BlkQueue {
            way: Way::to(setup.queue.clone()),
            index: setup.index,
            device: (blk.open)(setup.core),
            rules: Cell::new(setup.rules),
            id: blk.id,
            meter: Meter::default(),
            report: setup.report.clone(),
        }
    }

    /// Tells the front end when the device has changed.
    async fn attend(session: Weak<Session<Self>>) {
        let Some(device) = session.upgrade().map(|it| it.face().borrow().device.clone()) else {
            return;
        };
        let mut seen = device.watch().version();
        loop {
            seen = device.watch().changed(seen).await;
            let Some(session) = session.upgrade() else { return };
            let changed = session.face().borrow_mut().disk.set_geometry(device.geometry());
            session.tell_rules().await;
            if changed {
                session.tell_config_changed();
            }
        }
    }

    fn resumed(session: &Session<Self>) -> bool {
        session.tell_config_changed();
        true
    }

    async fn leave(_: &Session<Self>, _: bool) {}
}

impl Face for BlkFace {
    type Rules = Rules;

    fn features(&self) -> u64 {
        self.disk.features()
    }

    fn set_features(&mut self, features: u64) {
        self.disk.set_features(features);
    }

    fn config(&self) -> Vec<u8> {
        self.disk.config().as_bytes().to_vec()
    }

    fn write_config(&mut self, offset: u32, bytes: &[u8]) -> Result<(), String> {
        self.disk.write_config(offset, bytes).map_err(|error| error.to_string())
    }

    fn reset(&mut self) {
        self.disk.reset();
    }

    fn rules(&self) -> Rules {
        self.disk.rules()
    }

    /// The cache mode.
    fn chosen(&self) -> bool {
        self.disk.chosen_writeback()
    }

    fn choose(&mut self, writeback: bool) {
        self.disk.set_writeback(writeback);
    }
}

impl Function for BlkQueue {
    type Rules = Rules;
    type Slot = Slot;

    #[inline]
    fn begin(&self, queue: &Queue<Self>, chain: Chain, buffers: &Buffers, _again: bool) {
        let head = chain.head;
        let (Some(header), Some(spot)) = (buffers.header(), buffers.last_byte()) else {
            return queue.fail(Fault::Short { head });
        };
        let header = RequestHeader::read_from_bytes(&header).expect("as long as the header is");
        let readable = u64::from(chain.readable_bytes) - size_of::<RequestHeader>() as u64;
        let writable = u64::from(chain.writable_bytes) - 1;
        let rules = self.rules.get();
        let command =
            rules.command(&header, readable, writable).and_then(|command| match command {
                Command::Range(kind) => range(&rules, kind, buffers),
                other => Ok(other),
            });
        let (kind, bytes) = kind_of(&command);
        let began = queue.core().turn_time();
        let slot = Slot { status: spot, written: chain.writable_bytes, kind, bytes, began };
        if !queue.occupy(head, slot) {
            return;
        }
        match command {
            Ok(Command::Disk { op, offset, len }) => {
                let data = match op {
                    Op::Read => buffers.writable().slice(0, len as usize),
                    Op::Write { .. } => {
                        buffers.readable().slice(size_of::<RequestHeader>(), len as usize)
                    }
                    _ => Sgl::empty(),
                };
                self.ask(queue, head, &Request { op, offset, len, data });
            }
            Ok(Command::GetId) => {
                let room = self.id.0.len().min(writable as usize);
                buffers.writable().copy_in(0, &self.id.0[..room]);
                self.answer(queue, head, Status::OK);
            }
            Ok(Command::Range(_)) => unreachable!("resolved above"),
            Err(status) => self.answer(queue, head, status),
        }
    }

    fn set_rules(&self, rules: Rules) {
        self.rules.set(rules);
    }

    fn hasten(&self) {
        self.device.hasten();
    }

    fn stats(&self) -> Vec<OpStats> {
        self.meter.read()
    }
}

impl BlkQueue {
    #[inline]
    fn ask(&self, queue: &Queue<Self>, head: u16, request: &Request<'_>) {
        let tag = u64::from(head);
        if let Some(outcome) = self.device.begin(request, Asked::by(&self.way, tag)) {
            queue.complete(tag, outcome);
        }
    }

    /// Writes the status, and finishes the request.
    #[inline]
    fn answer(&self, queue: &Queue<Self>, head: u16, status: Status) {
        let slot = queue.take_slot(head);
        let failed = status != Status::OK;
        slot.status.write(status.0);
        queue.finish(head, slot.written);
        let latency = queue.core().turn_time() - slot.began;
        self.meter.count(slot.kind, slot.bytes, latency.as_nanos() as u64, failed);
    }
}

impl Sink for Queue<BlkQueue> {
    #[inline]
    fn complete(&self, tag: u64, outcome: Outcome) {
        let status = status(&outcome);
        let blk = self.function();
        if let Err(error) = &outcome {
            blk.report.failed(blk.index, error);
        }
        blk.answer(self, tag as u16, status);
    }
}

/// What a request counts as.
#[inline]
fn kind_of(command: &Result<Command, Status>) -> (OpKind, u64) {
    let Ok(Command::Disk { op, len, .. }) = command else { return (OpKind::Other, 0) };
    let kind = match op {
        Op::Read => OpKind::Read,
        Op::Write { .. } => OpKind::Write,
        Op::Flush => OpKind::Flush,
        Op::Discard => OpKind::Discard,
        Op::WriteZeroes { .. } => OpKind::WriteZeroes,
        _ => OpKind::Other,
    };
    (kind, *len)
}

/// Reads the range that follows the header.
#[cold]
fn range(rules: &Rules, kind: RangeKind, buffers: &Buffers) -> Result<Command, Status> {
    let mut bytes = [0; size_of::<DiscardWriteZeroes>()];
    buffers.readable().copy_out(size_of::<RequestHeader>(), &mut bytes);
    let segment = DiscardWriteZeroes::read_from_bytes(&bytes).expect("as long as a segment is");
    rules.range(kind, &segment)
}
