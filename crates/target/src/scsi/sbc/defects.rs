//! READ DEFECT DATA(10) and (12) (SBC-3 5.17, 5.18): both lists are known, and empty.

use wire::scsi::capacity::{DEFECT_FORMAT, DefectHeader10, DefectHeader12, GLIST, PLIST};
use wire::scsi::cdb::{Plain10, ReadDefectData12};
use zerocopy::IntoBytes;

use super::super::context::Context;
use super::super::sense::Sense;

const ASKED: u8 = PLIST | GLIST | DEFECT_FORMAT;

pub fn short(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Plain10 = context.cdb();
    let header = DefectHeader10 { format: cdb.byte2 & ASKED, ..DefectHeader10::default() };
    Ok(header.as_bytes().to_vec())
}

pub fn long(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: ReadDefectData12 = context.cdb();
    let header = DefectHeader12 { format: cdb.format & ASKED, ..DefectHeader12::default() };
    Ok(header.as_bytes().to_vec())
}
