//! The commands that optical drives have beside those of every device, and those of every device
//! that are different here. Classes are those of MMC-6 table 11; READ and what tells about the
//! medium need one.

use wire::scsi::Opcode;
use wire::scsi::mmc::op;

use super::super::row::{Length, Row, Run, Traits, Transfer};
use super::super::table::Table;
use super::super::{sbc, spc};
use super::{configuration, disc, event, toc, tray};
use crate::lun::reservation::Class;

/// The CONTROL byte: NACA.
const C: u8 = 0x04;
const F: u8 = 0xff;
/// DPO and FUA, of READ.
const D: u8 = 0x18;
/// GROUP NUMBER, of READ.
const G: u8 = 0x3f;

const AT_7: Length = Length::new(7, 2);
const AT_8: Length = Length::new(8, 2);

pub static TABLE: Table = Table::of(ROWS);

pub static ROWS: &[Row] = &[
    Row::new(
        Opcode::START_STOP_UNIT,
        "START STOP UNIT",
        &[0, 1, 0, 0x03, 0xf7, C],
        Run::Act(tray::start_stop),
    )
    .class(Class::Write)
    .within(5, 60),
    Row::new(
        Opcode::PREVENT_ALLOW_MEDIUM_REMOVAL,
        "PREVENT ALLOW MEDIUM REMOVAL",
        &[0, 0, 0, 0, 0x03, C],
        Run::Act(tray::prevent),
    )
    .class(Class::Write),
    on_medium(
        Opcode::READ_CAPACITY_10,
        "READ CAPACITY(10)",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, C],
        Run::Tell(sbc::capacity::short),
    )
    .moves(Transfer::Fixed(8)),
    reads(Opcode::READ_10, "READ(10)", &[0, D, F, F, F, F, G, F, F, C], Transfer::BlocksIn),
    reads(Opcode::READ_12, "READ(12)", &[0, D, F, F, F, F, F, F, F, F, G, C], Transfer::BlocksIn),
    on_medium(op::SEEK_10, "SEEK(10)", &[0, 0, F, F, F, F, 0, 0, 0, C], Run::Tell(disc::seek)),
    on_medium(
        op::READ_TOC_PMA_ATIP,
        "READ TOC/PMA/ATIP",
        // The format was once in the last byte.
        &[0, 0x02, 0x0f, 0, 0, 0, F, F, F, C | 0xc0],
        Run::Tell(toc::tell),
    )
    .moves(Transfer::In(AT_7)),
    Row::new(
        op::GET_CONFIGURATION,
        "GET CONFIGURATION",
        &[0, 0x03, F, F, 0, 0, 0, F, F, C],
        Run::Tell(configuration::tell),
    )
    .moves(Transfer::In(AT_7))
    .class(Class::Always)
    .also(Traits::QUIET),
    Row::new(
        op::GET_EVENT_STATUS_NOTIFICATION,
        "GET EVENT STATUS NOTIFICATION",
        &[0, 0x01, 0, 0, F, 0, 0, F, F, C],
        Run::Tell(event::tell),
    )
    .moves(Transfer::In(AT_7))
    .class(Class::Always)
    .also(Traits::QUIET),
    on_medium(
        op::READ_DISC_INFORMATION,
        "READ DISC INFORMATION",
        &[0, 0x07, 0, 0, 0, 0, 0, F, F, C],
        Run::Tell(disc::information),
    )
    .moves(Transfer::In(AT_7)),
    on_medium(
        op::READ_TRACK_INFORMATION,
        "READ TRACK INFORMATION",
        &[0, 0x03, F, F, F, F, 0, F, F, C],
        Run::Tell(disc::track),
    )
    .moves(Transfer::In(AT_7)),
    on_medium(
        op::READ_DISC_STRUCTURE,
        "READ DISC STRUCTURE",
        &[0, 0x0f, F, F, F, F, F, F, F, F, 0xc0, C],
        Run::Tell(disc::structure),
    )
    .moves(Transfer::In(AT_8)),
    reads(
        op::READ_CD_MSF,
        "READ CD MSF",
        &[0, 0x1c, 0, F, F, F, F, F, F, 0xf8, 0, C],
        Transfer::ReadCd,
    ),
    Row::new(
        op::SET_CD_SPEED,
        "SET CD SPEED",
        &[0, 0x03, F, F, F, F, 0, 0, 0, 0, 0, C],
        Run::Tell(spc::nothing),
    ),
    Row::new(
        op::MECHANISM_STATUS,
        "MECHANISM STATUS",
        &[0, 0, 0, 0, 0, 0, 0, 0, F, F, 0, C],
        Run::Tell(disc::mechanism),
    )
    .moves(Transfer::In(AT_8)),
    reads(op::READ_CD, "READ CD", &[0, 0x1c, F, F, F, F, F, F, F, 0xf8, 0, C], Transfer::ReadCd),
];

const fn on_medium(opcode: Opcode, name: &'static str, usage: &[u8], run: Run) -> Row {
    Row::new(opcode, name, usage, run).also(Traits::MEDIUM)
}

const fn reads(opcode: Opcode, name: &'static str, usage: &[u8], how: Transfer) -> Row {
    on_medium(opcode, name, usage, Run::Blocks).moves(how).class(Class::Read)
}
