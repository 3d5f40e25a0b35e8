//! READ TOC/PMA/ATIP: one data track from the first block to the last, in one session.

use wire::scsi::mmc::{
    DATA_TRACK, LEAD_OUT, MSF, OLD_FORMAT_SHIFT, ReadToc, TocFormat, TocHeader, TocPoint, TocTrack,
};

use super::super::context::Context;
use super::super::sense::Sense;
use super::super::spc::push;
use super::{blocks, minutes};

/// The points of a lead-in area: first track, last track, begin of the lead-out area.
const FIRST_TRACK: u8 = 0xa0;
const LAST_TRACK: u8 = 0xa1;
const LEAD_OUT_BEGIN: u8 = 0xa2;

pub fn tell(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: ReadToc = context.cdb();
    let in_minutes = cdb.flags & MSF != 0;
    // Hosts from before MMC leave the field empty.
    let format = match cdb.format & 0x0f {
        0 => cdb.control >> OLD_FORMAT_SHIFT,
        format => format,
    };
    let end = blocks(context.unit);
    let body = match TocFormat(format) {
        TocFormat::TRACKS => tracks(cdb.track, end, in_minutes)?,
        TocFormat::SESSIONS => track(1, 0, in_minutes),
        TocFormat::FULL if cdb.track > 1 => return Err(Sense::field(6)),
        TocFormat::FULL => points(end),
        _ => return Err(Sense::field(2)),
    };
    let length = (size_of::<TocHeader>() - 2 + body.len()) as u16;
    let mut bytes = Vec::new();
    // One track, and one session.
    push(&mut bytes, &TocHeader { length: length.into(), first: 1, last: 1 });
    bytes.extend(body);
    Ok(bytes)
}

/// The tracks from this one on, and the lead-out area.
fn tracks(from: u8, end: u32, in_minutes: bool) -> Result<Vec<u8>, Sense> {
    let mut bytes = match from {
        0 | 1 => track(1, 0, in_minutes),
        LEAD_OUT => Vec::new(),
        _ => return Err(Sense::field(6)),
    };
    bytes.extend(track(LEAD_OUT, end, in_minutes));
    Ok(bytes)
}

fn track(track: u8, lba: u32, in_minutes: bool) -> Vec<u8> {
    let start = match in_minutes {
        true => {
            let [minute, second, frame] = minutes(lba);
            u32::from_be_bytes([0, minute, second, frame])
        }
        false => lba,
    };
    let entry =
        TocTrack { adr_control: DATA_TRACK, track, start: start.into(), ..TocTrack::default() };
    let mut bytes = Vec::new();
    push(&mut bytes, &entry);
    bytes
}

/// The lead-in area as it would be on a disc.
fn points(end: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (point, position) in [
        (FIRST_TRACK, [1, 0, 0]),
        (LAST_TRACK, [1, 0, 0]),
        (LEAD_OUT_BEGIN, minutes(end)),
        (1, minutes(0)),
    ] {
        let entry = TocPoint {
            session: 1,
            adr_control: DATA_TRACK,
            point,
            position,
            ..TocPoint::default()
        };
        push(&mut bytes, &entry);
    }
    bytes
}
