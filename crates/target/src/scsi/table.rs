//! Every command that a unit knows, one row each. What is not here does not exist; what is here is
//! checked, executed and reported (REPORT SUPPORTED OPERATION CODES) from the same row.
//!
//! Classes are those of SPC-4 table 67 and SBC-3 table 13. Rows of one operation code stand
//! together. CDB usage masks leave the operation code out and hold no obsolete or unsupported field:
//! a bit outside of its mask is refused by name.

use block::OpSet;
use wire::scsi::Opcode as Op;
use wire::scsi::opcode::{
    MaintenanceIn, MaintenanceOut, PersistentReserveIn as In, PersistentReserveOut as Out,
    SERVICE_ACTION_MASK, Sanitize, ServiceActionIn16, ThirdPartyCopyIn as CopyIn,
    ThirdPartyCopyOut as CopyOut,
};

use super::row::{Length, Row, Run, Traits, Transfer};
use super::unit::Kind;
use super::{copy, mmc, persist, sbc, spc};
use crate::lun::reservation::Class;

/// The CONTROL byte: NACA.
const C: u8 = 0x04;
/// GROUP NUMBER, which is taken and means nothing (GROUP_SUP is 0).
const G: u8 = 0x3f;
const F: u8 = 0xff;
/// DPO and FUA.
const D: u8 = 0x18;

const ALLOCATION_16: Length = Length::new(10, 4);
const MAINTENANCE: Length = Length::new(6, 4);
const AT_7: Length = Length::new(7, 2);
const AT_4: Length = Length::new(4, 1);
const AT_3: Length = Length::new(3, 2);

/// The usage mask of commands on a range of blocks, by length of their CDB: byte 1 differs.
const fn blocks_10(flags: u8) -> [u8; 10] {
    [0, flags, F, F, F, F, G, F, F, C]
}

const fn blocks_12(flags: u8) -> [u8; 12] {
    [0, flags, F, F, F, F, F, F, F, F, G, C]
}

const fn blocks_16(flags: u8) -> [u8; 16] {
    [0, flags, F, F, F, F, F, F, F, F, F, F, F, F, G, C]
}

/// Seconds for work on so many blocks that a client must be patient.
const LONG_S: u32 = 300;
/// Seconds for work on the whole medium.
const WHOLE_S: u32 = 86_400;

const ALWAYS: Traits = Traits::DURING;

pub static TABLE: &[Row] = &[
    Row::new(Op::TEST_UNIT_READY, "TEST UNIT READY", &[0, 0, 0, 0, 0, C], Run::Tell(spc::nothing))
        .also(Traits::MEDIUM),
    Row::new(Op::REQUEST_SENSE, "REQUEST SENSE", &[0, 1, 0, 0, F, C], Run::Tell(spc::sense::tell))
        .moves(Transfer::In(AT_4))
        .class(Class::Always)
        .also(ALWAYS)
        .also(Traits::QUIET)
        .also(Traits::FAILED)
        .anywhere(),
    Row::new(Op::FORMAT_UNIT, "FORMAT UNIT", &[0, 0x3f, 0, 0, 0x03, C], Run::Act(sbc::format::run))
        .moves(Transfer::FormatList)
        .writing()
        .within(LONG_S, WHOLE_S),
    Row::new(Op::READ_6, "READ(6)", &[0, 0x1f, F, F, F, C], Run::Blocks)
        .moves(Transfer::BlocksIn)
        .reading(),
    Row::new(Op::WRITE_6, "WRITE(6)", &[0, 0x1f, F, F, F, C], Run::Blocks)
        .moves(Transfer::BlocksOut)
        .writing(),
    Row::new(Op::INQUIRY, "INQUIRY", &[0, 1, F, F, F, C], Run::Tell(spc::inquiry::tell))
        .moves(Transfer::In(AT_3))
        .class(Class::Always)
        .also(ALWAYS)
        .also(Traits::QUIET)
        .also(Traits::FAILED)
        .anywhere(),
    Row::new(
        Op::MODE_SELECT_6,
        "MODE SELECT(6)",
        &[0, 0x11, 0, 0, F, C],
        Run::Act(spc::mode_select::run_6),
    )
    .moves(Transfer::Out(AT_4))
    .class(Class::Write),
    Row::new(Op::RESERVE_6, "RESERVE(6)", &[0, 0, 0, 0, 0, C], Run::Act(spc::reserve::reserve)),
    Row::new(Op::RELEASE_6, "RELEASE(6)", &[0, 0, 0, 0, 0, C], Run::Act(spc::reserve::release))
        .class(Class::Always),
    Row::new(
        Op::MODE_SENSE_6,
        "MODE SENSE(6)",
        &[0, 0x08, F, F, F, C],
        Run::Tell(spc::mode_sense::tell_6),
    )
    .moves(Transfer::In(AT_4))
    .class(Class::Read),
    Row::new(
        Op::START_STOP_UNIT,
        "START STOP UNIT",
        &[0, 1, 0, 0x0f, 0xf7, C],
        Run::Act(sbc::start_stop::run),
    )
    .class(Class::Write)
    .within(5, 60),
    Row::new(
        Op::RECEIVE_DIAGNOSTIC_RESULTS,
        "RECEIVE DIAGNOSTIC RESULTS",
        &[0, 1, F, F, F, C],
        Run::Tell(spc::diagnostic::receive),
    )
    .moves(Transfer::In(AT_3))
    .class(Class::Read)
    .anywhere(),
    Row::new(
        Op::SEND_DIAGNOSTIC,
        "SEND DIAGNOSTIC",
        &[0, 0xf7, 0, F, F, C],
        Run::Act(spc::diagnostic::send),
    )
    .moves(Transfer::Out(AT_3))
    .class(Class::Write)
    .anywhere(),
    Row::new(
        Op::PREVENT_ALLOW_MEDIUM_REMOVAL,
        "PREVENT ALLOW MEDIUM REMOVAL",
        &[0, 0, 0, 0, 0x03, C],
        Run::Act(spc::prevent::run),
    )
    .class(Class::Write),
    Row::new(
        Op::READ_CAPACITY_10,
        "READ CAPACITY(10)",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, C],
        Run::Tell(sbc::capacity::short),
    )
    .moves(Transfer::Fixed(8))
    .on_blocks(),
    Row::new(Op::READ_10, "READ(10)", &blocks_10(D), Run::Blocks)
        .moves(Transfer::BlocksIn)
        .reading(),
    Row::new(Op::WRITE_10, "WRITE(10)", &blocks_10(D), Run::Blocks)
        .moves(Transfer::BlocksOut)
        .writing(),
    Row::new(
        Op::WRITE_AND_VERIFY_10,
        "WRITE AND VERIFY(10)",
        &blocks_10(0x16),
        Run::Act(sbc::verify::write_and_verify),
    )
    .moves(Transfer::WriteAndVerify)
    .writing(),
    Row::new(Op::VERIFY_10, "VERIFY(10)", &blocks_10(0x16), Run::Act(sbc::verify::verify))
        .moves(Transfer::Verify)
        .reading()
        .within(10, LONG_S),
    Row::new(Op::PRE_FETCH_10, "PRE-FETCH(10)", &blocks_10(0x02), Run::Tell(sbc::cache::pre_fetch))
        .moves(Transfer::Blocks)
        .reading(),
    Row::new(
        Op::SYNCHRONIZE_CACHE_10,
        "SYNCHRONIZE CACHE(10)",
        &blocks_10(0x06),
        Run::Act(sbc::cache::synchronize),
    )
    .moves(Transfer::Blocks)
    .on_blocks()
    .class(Class::Write)
    .within(10, LONG_S),
    Row::new(
        Op::READ_DEFECT_DATA_10,
        "READ DEFECT DATA(10)",
        &[0, 0, 0x1f, 0, 0, 0, 0, F, F, C],
        Run::Tell(sbc::defects::short),
    )
    .moves(Transfer::In(AT_7))
    .reading(),
    Row::new(
        Op::WRITE_BUFFER,
        "WRITE BUFFER",
        &[0, 0x1f, F, F, F, F, F, F, F, C],
        Run::Act(spc::buffer::write),
    )
    .moves(Transfer::Out(Length::new(6, 3)))
    .class(Class::Write)
    .anywhere(),
    Row::new(
        Op::READ_BUFFER,
        "READ BUFFER(10)",
        &[0, 0x1f, F, F, F, F, F, F, F, C],
        Run::Tell(spc::buffer::read),
    )
    .moves(Transfer::In(Length::new(6, 3)))
    .class(Class::Read)
    .anywhere(),
    Row::new(Op::WRITE_SAME_10, "WRITE SAME(10)", &blocks_10(0x08), Run::Act(sbc::same::run))
        .moves(Transfer::WriteSame)
        .writing()
        .within(10, LONG_S),
    Row::new(Op::UNMAP, "UNMAP", &[0, 0, 0, 0, 0, 0, G, F, F, C], Run::Act(sbc::unmap::run))
        .moves(Transfer::Out(AT_7))
        .writing()
        .needs(OpSet::DISCARD)
        .within(10, LONG_S),
    sanitize(Sanitize::OVERWRITE, "SANITIZE, OVERWRITE").moves(Transfer::Out(AT_7)),
    sanitize(Sanitize::BLOCK_ERASE, "SANITIZE, BLOCK ERASE").moves(Transfer::Out(AT_7)),
    sanitize(Sanitize::EXIT_FAILURE_MODE, "SANITIZE, EXIT FAILURE MODE").moves(Transfer::Out(AT_7)),
    Row::new(
        Op::LOG_SENSE,
        "LOG SENSE",
        &[0, 0, F, F, 0, F, F, F, F, C],
        Run::Act(spc::log::sense),
    )
    .moves(Transfer::In(AT_7))
    .also(ALWAYS)
    .also(Traits::FAILED)
    .anywhere(),
    Row::new(
        Op::MODE_SELECT_10,
        "MODE SELECT(10)",
        &[0, 0x11, 0, 0, 0, 0, 0, F, F, C],
        Run::Act(spc::mode_select::run_10),
    )
    .moves(Transfer::Out(AT_7))
    .class(Class::Write),
    Row::new(
        Op::RESERVE_10,
        "RESERVE(10)",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, C],
        Run::Act(spc::reserve::reserve),
    ),
    Row::new(
        Op::RELEASE_10,
        "RELEASE(10)",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, C],
        Run::Act(spc::reserve::release),
    )
    .class(Class::Always),
    Row::new(
        Op::MODE_SENSE_10,
        "MODE SENSE(10)",
        &[0, 0x18, F, F, 0, 0, 0, F, F, C],
        Run::Tell(spc::mode_sense::tell_10),
    )
    .moves(Transfer::In(AT_7))
    .class(Class::Read),
    reserve_in(In::READ_KEYS, "PERSISTENT RESERVE IN, READ KEYS", Run::Tell(persist::read_keys)),
    reserve_in(
        In::READ_RESERVATION,
        "PERSISTENT RESERVE IN, READ RESERVATION",
        Run::Tell(persist::read_reservation),
    ),
    reserve_in(
        In::REPORT_CAPABILITIES,
        "PERSISTENT RESERVE IN, REPORT CAPABILITIES",
        Run::Tell(persist::report_capabilities),
    ),
    reserve_in(
        In::READ_FULL_STATUS,
        "PERSISTENT RESERVE IN, READ FULL STATUS",
        Run::Tell(persist::read_full_status),
    ),
    reserve_out(Out::REGISTER, "PERSISTENT RESERVE OUT, REGISTER"),
    reserve_out(Out::RESERVE, "PERSISTENT RESERVE OUT, RESERVE"),
    reserve_out(Out::RELEASE, "PERSISTENT RESERVE OUT, RELEASE"),
    reserve_out(Out::CLEAR, "PERSISTENT RESERVE OUT, CLEAR"),
    reserve_out(Out::PREEMPT, "PERSISTENT RESERVE OUT, PREEMPT"),
    reserve_out(Out::PREEMPT_AND_ABORT, "PERSISTENT RESERVE OUT, PREEMPT AND ABORT"),
    reserve_out(
        Out::REGISTER_AND_IGNORE_EXISTING_KEY,
        "PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY",
    ),
    reserve_out(Out::REGISTER_AND_MOVE, "PERSISTENT RESERVE OUT, REGISTER AND MOVE"),
    copy_out(CopyOut::EXTENDED_COPY_LID1, "EXTENDED COPY(LID1)", Run::Act(copy::extended::run)),
    copy_out(CopyOut::POPULATE_TOKEN, "POPULATE TOKEN", Run::Act(copy::token::populate))
        .class(Class::Read),
    copy_out(CopyOut::WRITE_USING_TOKEN, "WRITE USING TOKEN", Run::Act(copy::token::write))
        .also(Traits::WRITES),
    copy_in(
        CopyIn::RECEIVE_COPY_STATUS_LID1,
        "RECEIVE COPY STATUS(LID1)",
        &[0, 0, F, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(copy::extended::status),
    ),
    copy_in(
        CopyIn::RECEIVE_COPY_OPERATING_PARAMETERS,
        "RECEIVE COPY OPERATING PARAMETERS",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(copy::extended::operating_parameters),
    ),
    copy_in(
        CopyIn::RECEIVE_ROD_TOKEN_INFORMATION,
        "RECEIVE ROD TOKEN INFORMATION",
        &[0, 0, F, F, F, F, 0, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(copy::token::information),
    ),
    Row::new(Op::READ_16, "READ(16)", &blocks_16(D), Run::Blocks)
        .moves(Transfer::BlocksIn)
        .reading(),
    Row::new(
        Op::COMPARE_AND_WRITE,
        "COMPARE AND WRITE",
        &[0, D, F, F, F, F, F, F, F, F, 0, 0, 0, F, G, C],
        Run::Act(sbc::transfer::compare_and_write),
    )
    .moves(Transfer::CompareAndWrite)
    .writing()
    .needs(OpSet::COMPARE_AND_WRITE),
    Row::new(Op::WRITE_16, "WRITE(16)", &blocks_16(D), Run::Blocks)
        .moves(Transfer::BlocksOut)
        .writing(),
    Row::new(Op::ORWRITE_16, "ORWRITE(16)", &blocks_16(D), Run::Act(sbc::transfer::or_write))
        .moves(Transfer::BlocksOut)
        .writing()
        .needs(OpSet::OR_WRITE),
    Row::new(
        Op::WRITE_AND_VERIFY_16,
        "WRITE AND VERIFY(16)",
        &blocks_16(0x16),
        Run::Act(sbc::verify::write_and_verify),
    )
    .moves(Transfer::WriteAndVerify)
    .writing(),
    Row::new(Op::VERIFY_16, "VERIFY(16)", &blocks_16(0x16), Run::Act(sbc::verify::verify))
        .moves(Transfer::Verify)
        .reading()
        .within(10, LONG_S),
    Row::new(Op::PRE_FETCH_16, "PRE-FETCH(16)", &blocks_16(0x02), Run::Tell(sbc::cache::pre_fetch))
        .moves(Transfer::Blocks)
        .reading(),
    Row::new(
        Op::SYNCHRONIZE_CACHE_16,
        "SYNCHRONIZE CACHE(16)",
        &blocks_16(0x06),
        Run::Act(sbc::cache::synchronize),
    )
    .moves(Transfer::Blocks)
    .on_blocks()
    .class(Class::Write)
    .within(10, LONG_S),
    Row::new(Op::WRITE_SAME_16, "WRITE SAME(16)", &blocks_16(0x09), Run::Act(sbc::same::run))
        .moves(Transfer::WriteSame)
        .writing()
        .within(10, LONG_S),
    Row::new(
        Op::SERVICE_ACTION_IN_16,
        "READ CAPACITY(16)",
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(sbc::capacity::long),
    )
    .action(ServiceActionIn16::READ_CAPACITY_16.0)
    .moves(Transfer::In(ALLOCATION_16))
    .on_blocks(),
    Row::new(
        Op::SERVICE_ACTION_IN_16,
        "GET LBA STATUS",
        &[0, 0, F, F, F, F, F, F, F, F, F, F, F, F, 0, C],
        Run::Act(sbc::lba_status::run),
    )
    .action(ServiceActionIn16::GET_LBA_STATUS.0)
    .moves(Transfer::In(ALLOCATION_16))
    .reading(),
    Row::new(
        Op::REPORT_LUNS,
        "REPORT LUNS",
        &[0, 0, F, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(spc::luns::tell),
    )
    .moves(Transfer::In(MAINTENANCE))
    .class(Class::Always)
    .also(ALWAYS)
    .also(Traits::QUIET)
    .also(Traits::FAILED)
    .anywhere(),
    Row::new(
        Op::MAINTENANCE_IN,
        "REPORT TARGET PORT GROUPS",
        &[0, 0xe0, 0, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(spc::ports::report),
    )
    .action(MaintenanceIn::REPORT_TARGET_PORT_GROUPS.0)
    .moves(Transfer::In(MAINTENANCE))
    .also(ALWAYS)
    .anywhere(),
    Row::new(
        Op::MAINTENANCE_IN,
        "REPORT SUPPORTED OPERATION CODES",
        &[0, 0, 0x87, F, F, F, F, F, F, F, 0, C],
        Run::Tell(spc::opcodes::report),
    )
    .action(MaintenanceIn::REPORT_SUPPORTED_OPERATION_CODES.0)
    .moves(Transfer::In(MAINTENANCE))
    .class(Class::Read)
    .also(ALWAYS)
    .anywhere(),
    Row::new(
        Op::MAINTENANCE_IN,
        "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
        &[0, 0, 0x80, 0, 0, 0, F, F, F, F, 0, C],
        Run::Tell(spc::opcodes::task_management),
    )
    .action(MaintenanceIn::REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS.0)
    .moves(Transfer::In(MAINTENANCE))
    .class(Class::Read)
    .also(ALWAYS)
    .anywhere(),
    Row::new(
        Op::MAINTENANCE_OUT,
        "SET TARGET PORT GROUPS",
        &[0, 0, 0, 0, 0, 0, F, F, F, F, 0, C],
        Run::Act(spc::ports::set),
    )
    .action(MaintenanceOut::SET_TARGET_PORT_GROUPS.0)
    .moves(Transfer::Out(MAINTENANCE))
    .class(Class::Write)
    .anywhere(),
    Row::new(Op::READ_12, "READ(12)", &blocks_12(D), Run::Blocks)
        .moves(Transfer::BlocksIn)
        .reading(),
    Row::new(Op::WRITE_12, "WRITE(12)", &blocks_12(D), Run::Blocks)
        .moves(Transfer::BlocksOut)
        .writing(),
    Row::new(
        Op::WRITE_AND_VERIFY_12,
        "WRITE AND VERIFY(12)",
        &blocks_12(0x16),
        Run::Act(sbc::verify::write_and_verify),
    )
    .moves(Transfer::WriteAndVerify)
    .writing(),
    Row::new(Op::VERIFY_12, "VERIFY(12)", &blocks_12(0x16), Run::Act(sbc::verify::verify))
        .moves(Transfer::Verify)
        .reading()
        .within(10, LONG_S),
    Row::new(
        Op::READ_DEFECT_DATA_12,
        "READ DEFECT DATA(12)",
        &[0, 0x1f, F, F, F, F, F, F, F, F, 0, C],
        Run::Tell(sbc::defects::long),
    )
    .moves(Transfer::In(MAINTENANCE))
    .reading(),
];

const fn reserve_in(action: In, name: &'static str, run: Run) -> Row {
    let row = Row::new(Op::PERSISTENT_RESERVE_IN, name, &[0, 0, 0, 0, 0, 0, 0, F, F, C], run);
    row.action(action.0).moves(Transfer::In(AT_7)).class(Class::Persistent).anywhere()
}

const fn reserve_out(action: Out, name: &'static str) -> Row {
    let usage = &[0, 0, F, 0, 0, F, F, F, F, C];
    let row = Row::new(Op::PERSISTENT_RESERVE_OUT, name, usage, Run::Act(persist::out));
    let list = Transfer::Out(Length::new(5, 4));
    row.action(action.0).moves(list).class(Class::Persistent).anywhere()
}

const fn copy_out(action: CopyOut, name: &'static str, run: Run) -> Row {
    let usage = match action {
        CopyOut::EXTENDED_COPY_LID1 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, C],
        _ => &[0, 0, 0, 0, 0, 0, F, F, F, F, F, F, F, F, G, C],
    };
    Row::new(Op::THIRD_PARTY_COPY_OUT, name, usage, run)
        .action(action.0)
        .moves(Transfer::Out(ALLOCATION_16))
        .on_blocks()
        .class(Class::Write)
        .within(10, LONG_S)
}

const fn copy_in(action: CopyIn, name: &'static str, usage: &[u8], run: Run) -> Row {
    Row::new(Op::THIRD_PARTY_COPY_IN, name, usage, run)
        .action(action.0)
        .moves(Transfer::In(ALLOCATION_16))
        .on_blocks()
        .class(Class::Read)
}

const fn sanitize(action: Sanitize, name: &'static str) -> Row {
    let row = Row::new(
        Op::SANITIZE,
        name,
        &[0, 0xa0, 0, 0, 0, 0, 0, F, F, C],
        Run::Act(sbc::sanitize::run),
    );
    row.action(action.0).writing().also(Traits::FAILED).within(LONG_S, WHOLE_S)
}

/// Rows, and where those of each operation code begin; [`NONE`] where there are none.
pub struct Table {
    rows: &'static [Row],
    first: [u8; 256],
}

const NONE: u8 = u8::MAX;

static COMMON: Table = Table::of(TABLE);

impl Table {
    pub const fn of(rows: &'static [Row]) -> Self {
        assert!(rows.len() < NONE as usize);
        let mut first = [NONE; 256];
        let mut at = rows.len();
        while at > 0 {
            at -= 1;
            first[rows[at].opcode.0 as usize] = at as u8;
        }
        Self { rows, first }
    }

    #[inline]
    fn find(&self, cdb: &[u8; 16]) -> Option<&'static Row> {
        let rows = self.rows.get(usize::from(self.first[usize::from(cdb[0])])..)?;
        let first = rows.first()?;
        let Some(_) = first.service_action else { return Some(first) };
        let action = Some(cdb[1] & SERVICE_ACTION_MASK);
        rows.iter()
            .take_while(|row| row.opcode == first.opcode)
            .find(|row| row.service_action == action)
    }

    fn knows(&self, opcode: Op) -> bool {
        self.first[usize::from(opcode.0)] != NONE
    }
}

/// The commands that a kind has of its own. One of these hides the common one of its code.
fn own(kind: Kind) -> Option<&'static Table> {
    match kind {
        Kind::Disk => None,
        Kind::Optical => Some(&mmc::table::TABLE),
    }
}

/// The row of this CDB, for a kind of unit.
#[inline]
pub fn find(kind: Kind, cdb: &[u8; 16]) -> Option<&'static Row> {
    let own = own(kind).filter(|table| table.knows(Op(cdb[0])));
    own.unwrap_or(&COMMON).find(cdb).filter(|row| row.devices.contains(kind))
}

/// Every row that a kind of unit has.
pub fn rows(kind: Kind) -> impl Iterator<Item = &'static Row> + Clone {
    let own = own(kind);
    let hidden = move |row: &&Row| own.is_some_and(|table| table.knows(row.opcode));
    let common = TABLE.iter().filter(move |row| row.devices.contains(kind) && !hidden(row));
    own.map_or(&[][..], |table| table.rows).iter().chain(common)
}

/// Whether any row of this kind has this operation code.
pub fn knows(kind: Kind, opcode: Op) -> bool {
    rows(kind).any(|row| row.opcode == opcode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_code_stand_together_and_differ() {
        for (table, kind) in [(&COMMON, Kind::Disk), (&mmc::table::TABLE, Kind::Optical)] {
            for row in table.rows {
                let same = |other: &&Row| other.opcode == row.opcode;
                let others = table.rows.iter().filter(same).count();
                let first = usize::from(table.first[usize::from(row.opcode.0)]);
                let together = table.rows[first..].iter().take_while(same).count();
                assert_eq!(others, together, "{}", row.name);
                assert!(others == 1 || row.service_action.is_some(), "{}", row.name);
                let mut cdb = [0; 16];
                cdb[0] = row.opcode.0;
                cdb[1] = row.service_action.unwrap_or(0);
                let found = find(kind, &cdb).unwrap();
                assert!(std::ptr::eq(found, row), "{} is found as {}", row.name, found.name);
                assert_eq!(row.opcode.cdb_len(), Some(usize::from(row.usage.len)), "{}", row.name);
            }
        }
    }

    #[test]
    fn each_kind_has_its_own_rows_and_the_common_ones() {
        let names = |kind| rows(kind).map(|row| row.name).collect::<Vec<_>>();
        let (disk, optical) = (names(Kind::Disk), names(Kind::Optical));
        for (name, on_disk, on_optical) in [
            ("INQUIRY", true, true),
            ("WRITE(10)", true, false),
            ("READ(10)", true, true),
            ("UNMAP", true, false),
            ("START STOP UNIT", true, true),
            ("GET CONFIGURATION", false, true),
        ] {
            assert_eq!(disk.iter().filter(|it| **it == name).count(), usize::from(on_disk));
            assert_eq!(optical.iter().filter(|it| **it == name).count(), usize::from(on_optical));
        }
    }

    #[test]
    fn what_has_no_row_is_not_known() {
        let mut cdb = [0; 16];
        cdb[0] = 0x9f;
        let kind = Kind::Disk;
        assert!(find(kind, &cdb).is_none() && !knows(kind, Op(0x9f)));
        (cdb[0], cdb[1]) = (Op::SANITIZE.0, 0x1e);
        assert!(find(kind, &cdb).is_none() && knows(kind, Op::SANITIZE));
        assert!(!knows(Kind::Optical, Op::SANITIZE));
    }
}
