//! A request queue: chain → command → nexus → response, one future for each command, polled once
//! where it was begun.
//!
//! What is found in flight after a restart runs again, in its order, if a second run leaves the
//! same behind as one: reads, writes, unmaps, flushes. Everything else is answered with the unit
//! attention condition COMMANDS CLEARED BY DEVICE SERVER (SPC-4 table 55, 2Fh/02h), by which the
//! driver learns that it ended and not how far it came.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use block::{Sgl, SglBuf};
use model::stats::{OpKind, OpStats};
use rt::Time;
use target::scsi::{self, Data, Nexus, Parsed, Sense, Task, Work};
use target::virtio_scsi::{Moved, RESPONSE_BYTES, Sizes, attribute_of, lun_of, respond};
use wire::scsi::cdb::CDB_BYTES_MAX;
use wire::scsi::{AdditionalSense, LogicalUnitNumber, SenseKey, Status};
use wire::virtio::scsi::{RequestHeader, Response, ResponseHeader};
use zerocopy::{FromBytes, IntoBytes};

use super::{Scsi, ScsiQueue, ScsiRules};
use crate::vhost_user::kind::{FunctionSetup, Units};
use crate::vhost_user::meter::{Meter, add_stats};
use crate::vhost_user::queue::Queue;
use crate::vhost_user::ring::{Buffers, Chain, Fault};

const HEADER_BYTES: usize = size_of::<RequestHeader>();

pub struct RequestQueue {
    nexus: Rc<Nexus>,
    rules: RefCell<ScsiRules>,
    /// By LUN.
    meters: RefCell<Vec<Option<UnitMeter>>>,
    /// Counts of LUs that were at LUNs where others are now.
    past: RefCell<Units>,
    /// What was for no unit.
    stray: Box<Meter>,
}

/// What is counted of the LU at a LUN.
struct UnitMeter {
    uuid: [u8; 16],
    meter: Meter,
    in_flight: Cell<u32>,
}

/// What is known of a request when it is begun.
struct Begun {
    head: u16,
    sizes: Sizes,
    room: Moved,
    number: Option<u16>,
    kind: OpKind,
    at: Time,
}

impl RequestQueue {
    pub fn new(setup: FunctionSetup<'_, Scsi>) -> Self {
        Self {
            nexus: (setup.spec.device.enter)(setup.core),
            rules: RefCell::new(setup.rules),
            meters: RefCell::default(),
            past: RefCell::default(),
            stray: Box::default(),
        }
    }

    pub fn set_rules(&self, rules: ScsiRules) {
        *self.rules.borrow_mut() = rules;
    }

    pub fn hasten(&self) {
        self.nexus.hasten();
    }

    #[inline]
    pub fn begin(&self, queue: &Queue<ScsiQueue>, chain: Chain, buffers: &Buffers, again: bool) {
        let head = chain.head;
        let sizes = self.rules.borrow().sizes;
        let Some(into) = (chain.writable_bytes as usize).checked_sub(sizes.response()) else {
            return queue.fail(Fault::Short { head });
        };
        if !queue.occupy(head, ()) {
            return;
        }
        let out = (chain.readable_bytes as usize).checked_sub(sizes.request());
        let Some(out) = out else {
            return refuse(queue, head, buffers, Response::FAILURE, Moved { out: 0, into });
        };
        let room = Moved { out, into };
        // Data both ways is not offered (5.6.6.1).
        if out > 0 && into > 0 {
            return refuse(queue, head, buffers, Response::FAILURE, room);
        }
        let mut bytes = [0; HEADER_BYTES + CDB_BYTES_MAX];
        let known = HEADER_BYTES + usize::from(sizes.cdb).min(CDB_BYTES_MAX);
        buffers.readable().copy_out(0, &mut bytes[..known]);
        let (header, cdb) = bytes[..known].split_at(HEADER_BYTES);
        let header = RequestHeader::read_from_bytes(header).expect("as long as the header is");
        let Some(lun) = lun_of(header.lun) else {
            return refuse(queue, head, buffers, Response::BAD_TARGET, room);
        };
        let at = queue.core().turn_time();
        let stray = Begun { head, sizes, room, number: None, kind: OpKind::Other, at };
        let parsed = match self.nexus.parse(lun, cdb) {
            Ok(parsed) => parsed,
            Err(answer) => return self.answer(queue, &stray, &answer, &buffers.writable()),
        };
        if parsed.data_out_len() > out as u64 || parsed.data_in_len() > into as u64 {
            return refuse(queue, head, buffers, Response::OVERRUN, room);
        }
        let begun =
            Begun { number: self.find_meter(&parsed, lun), kind: kind_of(&parsed), ..stray };
        let refused = match again && !parsed.is_repeatable() {
            true => Some(cleared()),
            false if out > 0 => parsed.accepts(out as u64).err(),
            false => None,
        };
        if let Some(answer) = refused {
            return self.answer(queue, &begun, &answer, &buffers.writable());
        }
        let data = match out {
            0 => None,
            out => Some(buffers.readable().slice(sizes.request(), out).to_buf()),
        };
        let task = Task { tag: header.id.get(), attribute: attribute_of(header.task_attr) };
        let into = buffers.writable().to_buf();
        self.run(queue, Ready { begun, parsed, task, out: data, into });
    }

    #[inline]
    fn run(&self, queue: &Queue<ScsiQueue>, ready: Ready) {
        let (nexus, queue) = (self.nexus.clone(), queue.me());
        let core = queue.core().clone();
        core.spawn_now(async move {
            let Ready { begun, parsed, task, out, into } = ready;
            let data = Data {
                out: out.as_ref().map_or(Sgl::empty(), SglBuf::sgl),
                into: into.sgl().slice(begun.sizes.response(), begun.room.into),
            };
            let answer = nexus.execute(&parsed, task, data).await;
            if let ScsiQueue::Request(requests) = queue.function() {
                requests.answer(&queue, &begun, &answer, &into.sgl());
            }
        });
    }

    #[inline]
    fn answer(
        &self,
        queue: &Queue<ScsiQueue>,
        begun: &Begun,
        answer: &scsi::Answer,
        writable: &Sgl<'_>,
    ) {
        let &Begun { head, sizes, room, .. } = begun;
        let aborting = &self.rules.borrow().shared.aborting;
        let is_own = answer.silent && aborting.load(Ordering::Relaxed) > 0;
        // What ended without the driver's doing is to be tried again.
        let silent = if is_own { Response::ABORTED } else { Response::RESET };
        let mut buffer = [0; RESPONSE_BYTES];
        writable.copy_in(0, respond(answer, room, silent, sizes, &mut buffer));
        queue.take_slot(head);
        let into = if room.into > 0 { answer.len } else { 0 };
        queue.finish(head, (sizes.response() + into) as u32);
        let moved = if room.into > 0 { answer.len } else { room.out };
        let failed = answer.silent || answer.status != Status::GOOD;
        let latency = (queue.core().turn_time() - begun.at).as_nanos() as u64;
        self.count(begun, moved as u64, latency, failed);
    }

    #[inline]
    fn count(&self, begun: &Begun, bytes: u64, latency_ns: u64, failed: bool) {
        let meters = self.meters.borrow();
        let unit = begun.number.and_then(|number| meters.get(usize::from(number))?.as_ref());
        let meter = unit.map_or(&*self.stray, |unit| {
            // Another LU may have come to the LUN meanwhile, and with it a meter at 0.
            unit.in_flight.set(unit.in_flight.get().saturating_sub(1));
            &unit.meter
        });
        let bytes = if begun.kind == OpKind::Other { 0 } else { bytes };
        meter.count(begun.kind, bytes, latency_ns, failed);
    }

    /// The number of the LUN, once what is counted there is of the LU that is there now.
    #[inline]
    fn find_meter(&self, parsed: &Parsed, lun: [u8; 8]) -> Option<u16> {
        let uuid = parsed.unit()?.handle().identity().uuid;
        let number = u16::try_from(LogicalUnitNumber(lun).number()?).ok()?;
        let meters = self.meters.borrow();
        let known = meters.get(usize::from(number)).and_then(Option::as_ref);
        match known.filter(|known| known.uuid == uuid) {
            Some(known) => known.in_flight.set(known.in_flight.get() + 1),
            None => {
                drop(meters);
                self.new_meter(number, uuid);
            }
        }
        Some(number)
    }

    #[cold]
    fn new_meter(&self, number: u16, uuid: [u8; 16]) {
        let mut meters = self.meters.borrow_mut();
        let index = usize::from(number);
        if index >= meters.len() {
            meters.resize_with(index + 1, || None);
        }
        let new = UnitMeter { uuid, meter: Meter::default(), in_flight: Cell::new(1) };
        if let Some(former) = meters[index].replace(new) {
            let mut past = self.past.borrow_mut();
            add_stats(&mut past.entry(former.uuid).or_default().ops, &former.meter.read());
        }
    }

    pub fn units(&self) -> Units {
        let mut units = self.past.borrow().clone();
        for unit in self.meters.borrow().iter().flatten() {
            let sum = units.entry(unit.uuid).or_default();
            sum.in_flight += unit.in_flight.get();
            add_stats(&mut sum.ops, &unit.meter.read());
        }
        units
    }

    pub fn stats(&self) -> Vec<OpStats> {
        let mut all = self.stray.read();
        self.units().values().for_each(|of| add_stats(&mut all, &of.ops));
        all
    }
}

/// A command that may run, with its data.
struct Ready {
    begun: Begun,
    parsed: Parsed,
    task: Task,
    out: Option<SglBuf>,
    /// Room for the response, and behind it for data-in.
    into: SglBuf,
}

/// Answers what SCSI never sees.
#[cold]
fn refuse(queue: &Queue<ScsiQueue>, head: u16, buffers: &Buffers, response: Response, room: Moved) {
    let residual = u32::try_from(room.out + room.into).unwrap_or(u32::MAX);
    let header = ResponseHeader {
        residual: residual.into(),
        response: response.0,
        ..ResponseHeader::default()
    };
    buffers.writable().copy_in(0, header.as_bytes());
    queue.take_slot(head);
    queue.finish(head, size_of::<ResponseHeader>() as u32);
}

#[cold]
fn cleared() -> scsi::Answer {
    let code = AdditionalSense::COMMANDS_CLEARED_BY_DEVICE_SERVER;
    scsi::Answer::check(Sense::new(SenseKey::UNIT_ATTENTION, code))
}

/// What a command counts as.
#[inline]
fn kind_of(parsed: &Parsed) -> OpKind {
    match parsed.work() {
        Work::Read => OpKind::Read,
        Work::Write => OpKind::Write,
        Work::Flush => OpKind::Flush,
        Work::Discard => OpKind::Discard,
        Work::WriteSame => OpKind::WriteZeroes,
        Work::Other => OpKind::Other,
    }
}
