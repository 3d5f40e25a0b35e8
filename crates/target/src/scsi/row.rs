//! What the standard's tables say of a command, as one row: how it is recognized, which bits of its
//! CDB mean something, which way its data goes and how much, under which reservations and in which
//! states it runs, and who does it.

use std::pin::Pin;

use block::OpSet;
use wire::scsi::Opcode;
use wire::scsi::opcode::SERVICE_ACTION_MASK;

use super::answer::Answer;
use super::context::Context;
use super::sense::Sense;
use super::unit::{Kind, Unit};
use crate::lun::access::{AccessSet, AccessState};
use crate::lun::reservation::Class;

/// One command, or one service action of one.
pub struct Row {
    pub opcode: Opcode,
    pub service_action: Option<u8>,
    pub name: &'static str,
    pub devices: Devices,
    /// Without these abilities of the device there is no such command.
    pub needs: OpSet,
    pub usage: Usage,
    pub transfer: Transfer,
    pub class: Class,
    pub access: AccessSet,
    pub traits: Traits,
    /// Within how many seconds it usually ends, and after how many an initiator may give up.
    pub timeout_s: (u32, u32),
    pub run: Run,
}

/// Which bits of a CDB are looked at, and how long it is.
#[derive(Clone, Copy)]
pub struct Usage {
    pub len: u8,
    bits: u128,
}

/// Kinds of unit that know a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Devices(u8);

/// Which way data goes and where the CDB says how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    None,
    /// Data-in, at most what the allocation length says.
    In(Length),
    /// Data-in of one length.
    Fixed(u8),
    /// A parameter list.
    Out(Length),
    /// The parameter list of FORMAT UNIT, whose length the CDB does not say.
    FormatList,
    /// As many blocks as the CDB says.
    BlocksIn,
    BlocksOut,
    /// As many as the CDB says in one of its own ways.
    ReadCd,
    /// Twice as many.
    CompareAndWrite,
    /// By BYTCHK: none, as many blocks, or one.
    Verify,
    /// As many blocks, to write and by BYTCHK to compare with.
    WriteAndVerify,
    /// One block, or none with NDOB.
    WriteSame,
    /// A range of blocks and no data.
    Blocks,
}

/// A length in a CDB: its first byte and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    pub at: u8,
    pub bytes: u8,
}

/// What else is to be known before a command runs.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits(u8);

/// Gives the data-in.
pub type Boxed<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Answer>> + 'a>>;

/// Who does it.
#[derive(Clone, Copy)]
pub enum Run {
    /// Reads or writes blocks: the short path.
    Blocks,
    /// Makes data-in at once.
    Tell(for<'a> fn(&Context<'a>) -> Result<Vec<u8>, Sense>),
    /// Takes its time.
    Act(for<'a> fn(&'a Context<'a>) -> Boxed<'a>),
}

impl Devices {
    pub const DISK: Self = Self(1);
    pub const ALL: Self = Self(0xff);

    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }
}

impl Traits {
    pub const NONE: Self = Self(0);
    /// Changes the medium: refused when it is write protected.
    pub const WRITES: Self = Self(1);
    /// Needs a medium that is loaded.
    pub const MEDIUM: Self = Self(1 << 1);
    /// Runs while the unit formats or sanitizes.
    pub const DURING: Self = Self(1 << 2);
    /// Does not report a unit attention (SPC-4 5.14).
    pub const QUIET: Self = Self(1 << 3);
    /// Runs in the failure mode that a sanitize may leave (SBC-3 4.11.3).
    pub const FAILED: Self = Self(1 << 4);

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Usage {
    pub const fn of(bytes: &[u8]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < 16 {
            bits = bits << 8 | if at < bytes.len() { bytes[at] as u128 } else { 0 };
            at += 1;
        }
        Self { len: bytes.len() as u8, bits }
    }

    /// The first bit that is set and means nothing: its byte, and its number in it. What lies
    /// behind the end of the CDB is padding.
    #[inline]
    pub fn stray(self, cdb: [u8; 16]) -> Option<(u16, u8)> {
        let behind = u128::MAX.checked_shr(u32::from(self.len) * 8).unwrap_or(0);
        let stray = u128::from_be_bytes(cdb) & !self.bits & !behind & (u128::MAX >> 8);
        if stray == 0 {
            return None;
        }
        let first = stray.leading_zeros();
        Some(((first / 8) as u16, 7 - (first % 8) as u8))
    }

    /// The map as it is reported, with the operation code and the service action in their places.
    pub fn map(self, opcode: Opcode, service_action: Option<u8>) -> Vec<u8> {
        let mut map = self.bits.to_be_bytes()[..usize::from(self.len)].to_vec();
        map[0] = opcode.0;
        if let Some(action) = service_action {
            map[1] = map[1] & !SERVICE_ACTION_MASK | action;
        }
        map
    }
}

impl Length {
    pub const fn new(at: u8, bytes: u8) -> Self {
        Self { at, bytes }
    }

    #[inline]
    pub fn of(self, cdb: &[u8; 16]) -> u64 {
        let at = usize::from(self.at);
        let field = &cdb[at..at + usize::from(self.bytes)];
        field.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
    }
}

impl Row {
    /// Whether this unit, of a kind that has the command, can do it.
    #[inline]
    pub fn is_of(&self, unit: &Unit) -> bool {
        self.needs == OpSet::BASE || unit.geometry().ops.contains(self.needs)
    }

    /// A command that only looks, has no data, and runs in every state of access.
    pub const fn new(opcode: Opcode, name: &'static str, usage: &[u8], run: Run) -> Self {
        Self {
            opcode,
            service_action: None,
            name,
            devices: Devices::ALL,
            needs: OpSet::BASE,
            usage: Usage::of(usage),
            transfer: Transfer::None,
            class: Class::Look,
            access: AccessSet::ACTIVE,
            traits: Traits::NONE,
            timeout_s: (1, 30),
            run,
        }
    }

    pub const fn action(self, service_action: u8) -> Self {
        let bits = self.usage.bits | (SERVICE_ACTION_MASK as u128) << 112;
        let usage = Usage { bits, ..self.usage };
        Self { service_action: Some(service_action), usage, ..self }
    }

    pub const fn moves(self, transfer: Transfer) -> Self {
        Self { transfer, ..self }
    }

    pub const fn needs(self, needs: OpSet) -> Self {
        Self { needs, ..self }
    }

    pub const fn class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    pub const fn also(self, traits: Traits) -> Self {
        Self { traits: self.traits.and(traits), ..self }
    }

    /// Runs in standby and where the port is not available, too (SPC-4 5.15.2.4).
    pub const fn anywhere(self) -> Self {
        Self { access: ANYWHERE, ..self }
    }

    pub const fn within(self, usually_s: u32, at_most_s: u32) -> Self {
        Self { timeout_s: (usually_s, at_most_s), ..self }
    }

    /// A command of block devices on their medium.
    pub const fn on_blocks(self) -> Self {
        Self { devices: Devices::DISK, ..self }.also(Traits::MEDIUM)
    }

    /// One that changes the medium.
    pub const fn writing(self) -> Self {
        self.on_blocks().class(Class::Write).also(Traits::WRITES)
    }

    /// One that takes data off the medium.
    pub const fn reading(self) -> Self {
        self.on_blocks().class(Class::Read)
    }
}

const ANYWHERE: AccessSet = AccessSet::of(&[
    AccessState::Optimized,
    AccessState::NonOptimized,
    AccessState::Standby,
    AccessState::Unavailable,
    AccessState::Offline,
    AccessState::Transitioning,
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stray_bit_is_named() {
        let usage = Usage::of(&[0, 0x18, 0xff, 0, 0, 0x04]);
        let cdb = |byte1: u8, byte3: u8, byte6: u8| {
            let mut cdb = [0; 16];
            (cdb[0], cdb[1], cdb[3], cdb[6]) = (0x28, byte1, byte3, byte6);
            cdb
        };
        assert_eq!(usage.stray(cdb(0x18, 0, 0xff)), None);
        assert_eq!(usage.stray(cdb(0x38, 0, 0)), Some((1, 5)));
        assert_eq!(usage.stray(cdb(0, 1, 0)), Some((3, 0)));
        assert_eq!(Usage::of(&[0; 16]).stray([0xff; 16]), Some((1, 7)));
    }

    #[test]
    fn a_length_is_read_big_endian() {
        let mut cdb = [0; 16];
        (cdb[7], cdb[8]) = (1, 2);
        assert_eq!(Length::new(7, 2).of(&cdb), 0x102);
        assert_eq!(Length::new(6, 4).of(&cdb), 0x1_0200);
    }
}
