//! A command that was understood: for which unit, which row of the table, how much data goes which
//! way. Nothing has happened yet, and nothing is allocated.

use std::rc::Rc;

use wire::scsi::capacity::{FormatHeader, LongFormatHeader};
use wire::scsi::cdb::{control, flag, start_stop};
use wire::scsi::{AdditionalSense, Opcode};
use zerocopy::FromBytes;

use super::answer::Answer;
use super::mmc;
use super::row::{Row, Run, Traits, Transfer};
use super::sbc::limits;
use super::sense::Sense;
use super::unit::Unit;
use crate::lun::INITIATOR_BYTES_MAX;
use crate::lun::map::NUMBER_MAX;
use crate::lun::reservation::{Class, REGISTRANTS_MAX};

/// Longest CDB that is looked at; what is longer is of a command that we do not know.
pub const CDB_BYTES: usize = wire::scsi::cdb::CDB_BYTES_MAX;

/// Where COMPARE AND WRITE has its number of blocks.
const COMPARE_COUNT_AT: u16 = 13;

/// The longest parameter list that is taken.
pub const PARAMETER_LIST_BYTES_MAX: u64 = 64 * 1024;

/// More than any answer but blocks has, whatever a CDB allows: a transport need not make more room.
/// The longest are all LUNs there can be, and all registrants with their names.
pub const DATA_IN_BYTES_MAX: u64 = 512 * 1024;

const _: () = assert!(
    DATA_IN_BYTES_MAX > 8 * (NUMBER_MAX as u64 + 2)
        && DATA_IN_BYTES_MAX > REGISTRANTS_MAX as u64 * (INITIATOR_BYTES_MAX as u64 + 32)
);

/// Where a LUN leads.
#[derive(Clone)]
pub(super) enum Place {
    Unit(Rc<Unit>),
    /// The well-known unit that reports LUNs.
    WellKnown,
    Nothing,
}

impl Place {
    /// Whether sense data of this place is to be in the descriptor format.
    pub(super) fn wants_descriptors(&self) -> bool {
        match self {
            Self::Unit(unit) => unit.view().modes.control.descriptor_sense,
            Self::WellKnown | Self::Nothing => false,
        }
    }
}

/// What a command does to the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Read,
    Write,
    Flush,
    Discard,
    WriteSame,
    Other,
}

pub struct Parsed {
    pub(super) place: Place,
    pub(super) row: &'static Row,
    pub(super) bytes: [u8; CDB_BYTES],
    pub(super) lba: u64,
    pub(super) count: u64,
    out_len: u64,
    in_len: u64,
}

impl Parsed {
    #[inline]
    pub(super) fn new(place: Place, row: &'static Row, bytes: [u8; CDB_BYTES]) -> Self {
        Self { place, row, bytes, lba: 0, count: 0, out_len: 0, in_len: 0 }
    }

    /// Works out range and lengths.
    #[inline]
    pub(super) fn measure(&mut self) -> Result<(), Sense> {
        match self.row.transfer {
            Transfer::None => {}
            Transfer::In(length) => self.in_len = length.of(&self.bytes).min(DATA_IN_BYTES_MAX),
            Transfer::Fixed(len) => self.in_len = u64::from(len),
            Transfer::Out(length) => {
                self.out_len = length.of(&self.bytes);
                if self.out_len > PARAMETER_LIST_BYTES_MAX {
                    return Err(Sense::parameter_length());
                }
            }
            Transfer::BlocksIn => self.in_len = self.blocks()?,
            Transfer::BlocksOut => self.out_len = self.blocks()?,
            _ => self.rare_blocks()?,
        }
        Ok(())
    }

    /// Bytes of data-out that the CDB asks for; bounded by [`PARAMETER_LIST_BYTES_MAX`] and
    /// [`TRANSFER_BYTES_MAX`](limits::TRANSFER_BYTES_MAX).
    pub fn data_out_len(&self) -> u64 {
        self.out_len
    }

    /// Whether so much data-out may be announced with this command: a transport asks before it
    /// collects any. A write with too little writes as many whole blocks as there are, and its
    /// client is told of the rest as a residual (FCP-4 9.4.2); a part of a block must not look like
    /// all of it. Of what one step compares or repeats there must be exactly as much as the CDB says.
    pub fn accepts(&self, announced: u64) -> Result<(), Answer> {
        let fits = match self.row.transfer {
            // The field has one byte: it cannot say 256.
            Transfer::CompareAndWrite if self.out_len == 0 && announced > 0 => {
                return Err(self.refuse(Sense::field(COMPARE_COUNT_AT)));
            }
            Transfer::CompareAndWrite => announced == self.out_len,
            Transfer::WriteSame => announced == self.out_len || self.out_len == 0,
            Transfer::BlocksOut | Transfer::WriteAndVerify => {
                announced >= self.out_len || announced.is_multiple_of(self.block_size())
            }
            Transfer::Verify => announced >= self.out_len,
            _ => true,
        };
        let code = AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT;
        if fits { Ok(()) } else { Err(self.refuse(Sense::illegal(code))) }
    }

    #[cold]
    fn refuse(&self, sense: Sense) -> Answer {
        let sense = sense.in_format(self.place.wants_descriptors());
        Answer { full: self.out_len, ..Answer::check(sense) }
    }

    /// The most bytes of data-in that there can be; of reads of blocks as many as there are.
    pub fn data_in_len(&self) -> u64 {
        self.in_len
    }

    pub fn name(&self) -> &'static str {
        self.row.name
    }

    /// What the command does to the medium, for those who count.
    #[inline]
    pub fn work(&self) -> Work {
        match (self.row.run, self.row.transfer) {
            (Run::Blocks, Transfer::BlocksIn) => Work::Read,
            (Run::Blocks, _) => Work::Write,
            _ => match self.row.opcode {
                Opcode::SYNCHRONIZE_CACHE_10 | Opcode::SYNCHRONIZE_CACHE_16 => Work::Flush,
                Opcode::UNMAP => Work::Discard,
                Opcode::WRITE_SAME_10 | Opcode::WRITE_SAME_16 => Work::WriteSame,
                _ => Work::Other,
            },
        }
    }

    /// Whether a second run after a first one, of which nobody knows how far it came, leaves the
    /// same behind as one alone: reads, writes, flushes, unmaps, and what only says who is there.
    pub fn is_repeatable(&self) -> bool {
        match self.work() {
            Work::Read | Work::Write | Work::Flush | Work::Discard => true,
            Work::WriteSame | Work::Other => self.row.traits.contains(Traits::QUIET),
        }
    }

    pub(super) fn cdb<T: FromBytes>(&self) -> T {
        T::read_from_prefix(&self.bytes).expect("no CDB struct is longer than 16 bytes").0
    }

    pub(super) fn is_naca(&self) -> bool {
        self.bytes[usize::from(self.row.usage.len) - 1] & control::NACA != 0
    }

    /// Of commands that have the bit: READ and WRITE but of six bytes, COMPARE AND WRITE.
    #[inline]
    pub(super) fn is_fua(&self) -> bool {
        self.row.opcode.0 >= 0x20 && self.bytes[1] & flag::FUA != 0
    }

    /// What the command is to reservations: of two it depends on what they are to do (SBC-3 table
    /// 13, SPC-4 table 67).
    pub(super) fn class(&self) -> Class {
        let harmless = match self.row.opcode {
            Opcode::START_STOP_UNIT => {
                self.bytes[4] & (start_stop::POWER_CONDITION | start_stop::START)
                    == start_stop::START
            }
            Opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => self.bytes[4] == 0,
            _ => false,
        };
        if harmless { Class::Look } else { self.row.class }
    }

    pub(super) fn byte_check(&self) -> u8 {
        (self.bytes[1] & flag::BYTCHK) >> flag::BYTCHK_SHIFT
    }

    /// Takes the range out of the CDB; gives its length in bytes, which is bounded.
    #[inline]
    fn blocks(&mut self) -> Result<u64, Sense> {
        (self.lba, self.count) = range(&self.bytes);
        let len = self.count * self.block_size();
        if len > limits::TRANSFER_BYTES_MAX {
            return Err(Sense::field(self.count_at()));
        }
        Ok(len)
    }

    #[cold]
    fn rare_blocks(&mut self) -> Result<(), Sense> {
        match self.row.transfer {
            Transfer::ReadCd => {
                let wanted = mmc::read_cd::wanted(&self.bytes)?;
                (self.lba, self.count) = (wanted.lba, wanted.count);
                self.in_len = self.count * self.block_size();
                if self.in_len > limits::TRANSFER_BYTES_MAX {
                    return Err(Sense::field(6));
                }
            }
            Transfer::CompareAndWrite => {
                self.lba = range(&self.bytes).0;
                self.count = u64::from(self.bytes[13]);
                let len = self.count * self.block_size();
                let max = self.unit().map_or(0, |unit| limits::compare_bytes_max(&unit.geometry()));
                if len > max {
                    return Err(Sense::field(13));
                }
                self.out_len = 2 * len;
            }
            Transfer::FormatList => {
                // The CDB does not say how long it is: its header, without defects behind it.
                self.out_len = match self.bytes[1] & (flag::FMTDATA | flag::LONGLIST) {
                    flag::FMTDATA => size_of::<FormatHeader>() as u64,
                    both if both & flag::FMTDATA != 0 => size_of::<LongFormatHeader>() as u64,
                    _ => 0,
                };
            }
            Transfer::Verify => match self.byte_check() {
                0 => (self.lba, self.count) = range(&self.bytes),
                1 => self.out_len = self.blocks()?,
                3 => {
                    (self.lba, self.count) = range(&self.bytes);
                    self.out_len = if self.count == 0 { 0 } else { self.block_size() };
                }
                _ => return Err(Sense::field_bit(1, 2)),
            },
            Transfer::WriteAndVerify => {
                if self.byte_check() > 1 {
                    return Err(Sense::field_bit(1, 2));
                }
                self.out_len = self.blocks()?;
            }
            Transfer::WriteSame => {
                (self.lba, self.count) = range(&self.bytes);
                let is_16 = self.row.opcode == Opcode::WRITE_SAME_16;
                let without = is_16 && self.bytes[1] & flag::NDOB != 0;
                self.out_len = if without { 0 } else { self.block_size() };
            }
            _ => (self.lba, self.count) = range(&self.bytes),
        }
        Ok(())
    }

    fn block_size(&self) -> u64 {
        self.unit().map_or(0, |unit| u64::from(unit.block_size))
    }

    /// The unit that it is for, if there is one.
    #[inline]
    pub fn unit(&self) -> Option<&Rc<Unit>> {
        match &self.place {
            Place::Unit(unit) => Some(unit),
            Place::WellKnown | Place::Nothing => None,
        }
    }

    /// The byte of the CDB in which the number of blocks begins.
    pub(super) fn count_at(&self) -> u16 {
        match self.bytes[0] >> 5 {
            0 => 4,
            1 | 2 => 7,
            4 => 10,
            _ => 6,
        }
    }
}

/// Address and number of blocks, where commands of this length have them. Of READ(6) and WRITE(6) a
/// length of 0 is 256 (SBC-3 5.8).
#[inline]
fn range(cdb: &[u8; CDB_BYTES]) -> (u64, u64) {
    let [_, b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, ..] = *cdb;
    let short = || u64::from(u32::from_be_bytes([b2, b3, b4, b5]));
    match cdb[0] >> 5 {
        0 => {
            let lba = u32::from_be_bytes([0, b1 & 0x1f, b2, b3]);
            (u64::from(lba), if b4 == 0 { 256 } else { u64::from(b4) })
        }
        1 | 2 => (short(), u64::from(u16::from_be_bytes([b7, b8]))),
        4 => {
            let lba = u64::from_be_bytes([b2, b3, b4, b5, b6, b7, b8, b9]);
            (lba, u64::from(u32::from_be_bytes([b10, b11, b12, b13])))
        }
        _ => (short(), u64::from(u32::from_be_bytes([b6, b7, b8, b9]))),
    }
}
