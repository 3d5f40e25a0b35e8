//! Hostile clients: bytes taken as a script of commands, data and task management, run against a
//! nexus over a disk of a few blocks. Whatever comes, every command is answered, an answer fits
//! into the room there is, and the disk keeps its size. The property tests run it on random
//! scripts, the fuzz targets on those that a fuzzer finds.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use block::{Asked, Buffer, Device, ErrorKind, Geometry, Op, OpSet, Outcome, Request, Watch};
use wire::scsi::Status;
use wire::scsi::reservation::Protocol;

use super::mmc;
use super::table::TABLE;
use super::{
    Data, Env, Kind, Nexus, SENSE_BYTES, Settings, TargetPort, Task, TaskManagement, Unit,
};
use crate::lun::admit::Attribute;
use crate::lun::attention::AttentionSet;
use crate::lun::{
    Config, Handle, Identity, Initiator, Local, Medium, Modes, NexusId, PortId, State,
};

const BLOCKS: usize = 64;
const BLOCK: usize = 512;
/// Most room for data of either kind.
const ROOM_MAX: usize = 4 * BLOCK;
/// Looks at a command before it is said to hang.
const LOOKS_MAX: usize = 2_000;

struct Disk {
    bytes: RefCell<Vec<u8>>,
    watch: Watch,
}

impl Disk {
    fn step(&self, request: &Request<'_>) -> Outcome {
        self.geometry().check(request)?;
        let mut bytes = self.bytes.borrow_mut();
        let range = request.offset as usize..(request.offset + request.len) as usize;
        match request.op {
            Op::Read => request.data.copy_in(0, &bytes[range]),
            Op::Write { .. } => request.data.copy_out(0, &mut bytes[range]),
            Op::CompareAndWrite { .. } => return Err(ErrorKind::Miscompare { at: 3 }.into()),
            Op::Discard | Op::WriteZeroes { .. } => bytes[range].fill(0),
            _ => {}
        }
        Ok(0)
    }
}

impl Device for Disk {
    fn geometry(&self) -> Geometry {
        let steps = OpSet::COMPARE_AND_WRITE | OpSet::OR_WRITE;
        let ops = steps | OpSet::DISCARD | OpSet::WRITE_ZEROES | OpSet::STATUS;
        let plain = Geometry::plain((BLOCKS * BLOCK) as u64, BLOCK as u32);
        Geometry { ops, exclusive_max: BLOCK as u32 * 4, ..plain }
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        asked.now(self.step(request))
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
struct World(RefCell<Vec<Work>>);

impl Env for World {
    fn spawn(&self, work: Work) {
        self.0.borrow_mut().push(work);
    }
}

impl World {
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..LOOKS_MAX {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            let mut work = self.0.take();
            work.retain_mut(|work| work.as_mut().poll(&mut cx).is_pending());
            self.0.borrow_mut().append(&mut work);
        }
        panic!("a command is never answered");
    }
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// A CDB that is often well formed: a row of the table with few bits of its own.
    fn cdb(&mut self) -> Vec<u8> {
        let rows: Vec<_> = TABLE.iter().chain(mmc::table::ROWS).collect();
        let row = rows[usize::from(self.byte()) % rows.len()];
        let mask = row.usage.map(row.opcode, row.service_action);
        let style = self.byte() % 4;
        let mut cdb: Vec<u8> = (0..16).map(|_| self.byte()).collect();
        if style == 0 {
            return cdb;
        }
        for (at, byte) in cdb.iter_mut().enumerate() {
            let allowed = mask.get(at).copied().unwrap_or(0);
            *byte &= if style == 1 { allowed } else { allowed & 0x1f };
        }
        cdb[0] = row.opcode.0;
        if let Some(action) = row.service_action {
            cdb[1] = cdb[1] & !0x1f | action;
        }
        cdb.truncate(usize::from(row.usage.len));
        cdb
    }
}

/// Runs a script.
pub fn nexus(script: &[u8]) {
    let disk = Rc::new(Disk { bytes: RefCell::new(vec![0; BLOCKS * BLOCK]), watch: Watch::new() });
    let modes = Modes::default();
    let config = Config { modes, access: Default::default(), medium: Medium::LOADED };
    let local = Local::new(State::new(config));
    let identity = Identity { uuid: [7; 16], serial: "7".to_string(), company: None };
    let handle = Handle::new(disk.clone(), identity, local.view(), local.clone());
    local.attach(&handle);
    let world = Rc::new(World::default());
    // One sees a disk, the other a drive with that disk as its medium.
    let clients = [(b"a", Kind::Disk), (b"b", Kind::Optical)].map(|(name, kind)| {
        let initiator = Initiator::new(name).expect("one byte is short");
        let id = NexusId::new(initiator, PortId(1));
        let port = TargetPort { protocol: Protocol::ISCSI, device_name: "iqn.x".to_string() };
        let nexus = Nexus::new(id.clone(), port, world.clone());
        let settings = Settings { kind, removable: true, read_only: false, tasks_max: 4 };
        let unit = Unit::new(id, handle.clone(), handle.attentions(AttentionSet::NONE), settings);
        nexus.map(0, unit).expect("an empty map has room");
        nexus
    });
    let mut script = Script(script);
    while let Some(choice) = script.next() {
        let client = &clients[usize::from(choice & 1)];
        if choice % 16 == 15 {
            manage(client, &world, script.byte());
        } else {
            command(client, &world, &mut script);
        }
        assert_eq!(disk.bytes.borrow().len(), BLOCKS * BLOCK);
    }
}

fn manage(client: &Nexus, world: &World, choice: u8) {
    let function = match choice % 8 {
        0 => TaskManagement::LogicalUnitReset,
        1 => TaskManagement::NexusReset,
        2 => TaskManagement::ClearAca,
        3 => TaskManagement::AbortTaskSet,
        4 => TaskManagement::QueryAsyncEvent,
        5 => TaskManagement::TargetReset,
        6 => TaskManagement::QueryTask { tag: 0 },
        _ => TaskManagement::AbortTask { tag: 0 },
    };
    world.run(client.manage([0, choice >> 7, 0, 0, 0, 0, 0, 0], function));
}

fn command(client: &Nexus, world: &World, script: &mut Script<'_>) {
    let lun = [0, u8::from(script.byte() % 32 == 31), 0, 0, 0, 0, 0, 0];
    let cdb = script.cdb();
    let Ok(parsed) = client.parse(lun, &cdb) else { return };
    let asked = |len: u64| usize::try_from(len).unwrap_or(usize::MAX).min(ROOM_MAX);
    let (wanted_out, wanted_in) = (asked(parsed.data_out_len()), asked(parsed.data_in_len()));
    let size = script.byte();
    let len = if size < 200 { wanted_out } else { usize::from(size) };
    let out: Vec<u8> = (0..len).map(|at| if at < 64 { script.byte() } else { size }).collect();
    let out = Buffer::from_bytes(&out);
    let into = Buffer::zeroed(if size % 8 == 7 { usize::from(size) } else { wanted_in });
    let attribute = match size % 32 {
        30 => Attribute::Ordered,
        29 => Attribute::HeadOfQueue,
        28 => Attribute::Aca,
        _ => Attribute::Simple,
    };
    let data = Data { out: out.sgl(), into: into.sgl() };
    let answer = world.run(client.execute(&parsed, Task { tag: 1, attribute }, data));
    assert!(answer.len <= into.len() && answer.len as u64 <= answer.full);
    assert_eq!(answer.sense.is_some(), answer.status == Status::CHECK_CONDITION);
    if let Some(sense) = answer.sense {
        let mut bytes = [0; SENSE_BYTES];
        let len = sense.encode(&mut bytes);
        assert_eq!(usize::from(bytes[7]) + 8, len);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    /// Seeds and findings of the fuzz target.
    #[test]
    fn the_corpus_is_survived() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let files: Vec<_> = std::fs::read_dir(corpora.join("scsi_nexus")).unwrap().collect();
        assert!(files.len() > 5, "{} scripts", files.len());
        for file in files {
            super::nexus(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }

    proptest! {
        #[test]
        fn no_script_breaks_a_nexus(script in proptest::collection::vec(any::<u8>(), 0..4_000)) {
            super::nexus(&script);
        }
    }
}
