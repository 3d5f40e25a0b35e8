//! Copies that a client has done by us (SPC-4 6.6; SBC-3 4.28): EXTENDED COPY(LID1), and the token
//! form that other systems offload their copies with.
//!
//! A copy is between LUs that the nexus sees, found by designator or by the UUID in a token, so a
//! client can reach nothing that it could not read or write itself; reservations and protections
//! are those of each unit for this nexus. A copy runs within its command, bounded in size, and what
//! came of it is kept for a while by its list identifier.

pub mod extended;
pub mod page;
pub mod token;

use std::collections::VecDeque;
use std::rc::Rc;

use block::{Buffer, Op, OpSet, Request};
use wire::scsi::copy::{COMPLETED, FAILED};
use wire::scsi::{AdditionalSense, SenseKey};

use super::answer::Answer;
use super::context::Context;
use super::sense::Sense;
use super::unit::Unit;
use crate::lun::reservation::Class;

/// Most bytes of one segment, or of all that one token moves.
pub const COPY_BYTES_MAX: u64 = 32 << 20;
/// Bytes that are moved at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// Results that a unit keeps for a nexus; the oldest is forgotten.
const RECORDS_MAX: usize = 16;

/// What came of a copy.
#[derive(Clone, Debug)]
pub struct Record {
    pub list: u32,
    pub service: u8,
    pub good: bool,
    pub segments: u16,
    pub bytes: u64,
    /// The token that was made.
    pub token: Option<Box<[u8]>>,
}

impl Record {
    fn status(&self) -> u8 {
        if self.good { COMPLETED } else { FAILED }
    }
}

/// The results of one nexus at one unit.
#[derive(Default)]
pub struct Records(VecDeque<Record>);

impl Records {
    fn keep(&mut self, record: Record) {
        self.0.retain(|it| it.list != record.list);
        if self.0.len() == RECORDS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    fn find(&self, list: u32) -> Option<&Record> {
        self.0.iter().find(|it| it.list == list)
    }
}

/// SENSE KEY of a copy that one of its sides cannot do.
fn unreachable() -> Answer {
    aborted(AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE)
}

fn aborted(code: AdditionalSense) -> Answer {
    Answer::check(Sense::new(SenseKey::COPY_ABORTED, code))
}

/// Whether this nexus may use the unit so now.
fn may_use(unit: &Unit, class: Class) -> Result<(), Answer> {
    let ready = unit.member.hindrance().is_none() && unit.member.permits(class);
    if !ready || (class == Class::Write && unit.is_write_protected()) {
        return Err(unreachable());
    }
    Ok(())
}

/// One side of a copy: a unit and where on it, in bytes.
#[derive(Clone)]
struct Side {
    unit: Rc<Unit>,
    offset: u64,
}

impl Side {
    fn new(unit: Rc<Unit>, lba: u64) -> Result<Self, Answer> {
        let offset = lba.checked_mul(u64::from(unit.block_size)).ok_or_else(beyond)?;
        Ok(Self { unit, offset })
    }
}

/// A side ends before the copy does.
fn beyond() -> Answer {
    aborted(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION)
}

/// Copies so many bytes, whole blocks of both sides.
async fn transfer(context: &Context<'_>, from: &Side, to: &Side, len: u64) -> Result<(), Answer> {
    may_use(&from.unit, Class::Read)?;
    may_use(&to.unit, Class::Write)?;
    for side in [from, to] {
        let end = side.offset.checked_add(len);
        if end.is_none_or(|end| end > side.unit.geometry().size) {
            return Err(beyond());
        }
    }
    let same = Rc::ptr_eq(&from.unit.handle, &to.unit.handle);
    let within = same && from.unit.geometry().ops.contains(OpSet::COPY);
    let buffer = Buffer::zeroed(if within { 0 } else { len.min(PIECE_BYTES) as usize });
    let fua = to.unit.is_write_through();
    let mut done = 0;
    while done < len {
        context.still_wanted()?;
        let step = (len - done).min(PIECE_BYTES);
        let (source, target) = (from.offset + done, to.offset + done);
        if within {
            let request = Request::plain(Op::Copy { from: source }, target, step);
            to.unit.device().io(&request).await.map_err(|_| beyond())?;
        } else {
            let piece = buffer.sgl().slice(0, step as usize);
            from.unit.device().io(&Request::read(source, piece)).await.map_err(|_| beyond())?;
            let op = Op::Write { fua, atomic: false };
            let request = Request { op, offset: target, len: step, data: piece };
            to.unit.device().io(&request).await.map_err(|_| beyond())?;
        }
        done += step;
    }
    // A copy within the device is not written through by itself.
    if within && fua {
        to.unit.device().io(&Request::flush()).await.map_err(|_| beyond())?;
    }
    Ok(())
}
