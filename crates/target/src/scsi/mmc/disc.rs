//! What is told about disc, track, structure and mechanism: a finished disc of one track.

use wire::scsi::AdditionalSense;
use wire::scsi::cdb::Transfer10;
use wire::scsi::mmc::{
    COMPLETE, DATA_TRACK, DOOR_OPEN, DVD_DATA_BEGIN, DiscInformation, DvdPhysical, MechanismStatus,
    Profile, READABLE, ReadDiscStructure, ReadTrackInformation, StructureEntry, StructureFormat,
    StructureHeader, TrackAddress, TrackInformation, UNRESTRICTED,
};

use super::super::context::Context;
use super::super::sense::Sense;
use super::super::spc::push;
use super::{blocks, profile};

/// Bytes of the physical format and of the copyright of a DVD.
const PHYSICAL_BYTES: usize = 2048;
const COPYRIGHT_BYTES: usize = 4;
/// Not told: where a next session could begin.
const NOWHERE: u32 = u32::MAX;

pub fn seek(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: Transfer10 = context.cdb();
    on_medium(context, cdb.lba.get())?;
    Ok(Vec::new())
}

fn on_medium(context: &Context<'_>, lba: u32) -> Result<(), Sense> {
    match u64::from(lba) < context.unit.blocks() {
        true => Ok(()),
        false => Err(Sense::illegal(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)),
    }
}

pub fn information(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    // Of other data types there is none.
    if context.parsed.bytes[1] & 0x07 != 0 {
        return Err(Sense::field_bit(1, 2));
    }
    let information = DiscInformation {
        length: (size_of::<DiscInformation>() as u16 - 2).into(),
        status: COMPLETE,
        first_track: 1,
        sessions: 1,
        first_track_of_last_session: 1,
        last_track: 1,
        flags: UNRESTRICTED,
        lead_in: NOWHERE.into(),
        lead_out: NOWHERE.into(),
        ..DiscInformation::default()
    };
    Ok(bytes_of(&information))
}

pub fn track(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: ReadTrackInformation = context.cdb();
    match (TrackAddress(cdb.address_type & 0x03), cdb.address.get()) {
        (TrackAddress::LBA, lba) => on_medium(context, lba)?,
        (TrackAddress::TRACK | TrackAddress::SESSION, 1) => {}
        (TrackAddress::TRACK | TrackAddress::SESSION, _) => return Err(Sense::field(2)),
        _ => return Err(Sense::field_bit(1, 1)),
    }
    let information = TrackInformation {
        length: (size_of::<TrackInformation>() as u16 - 2).into(),
        track: 1,
        session: 1,
        mode: DATA_TRACK & 0x0f,
        data_mode: 1,
        size: blocks(context.unit).into(),
        ..TrackInformation::default()
    };
    Ok(bytes_of(&information))
}

pub fn structure(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: ReadDiscStructure = context.cdb();
    let is_dvd = profile(context.unit) == Profile::DVD_ROM;
    if cdb.media_type & 0x0f != 0 || !is_dvd {
        return Err(Sense::illegal(AdditionalSense::CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT));
    }
    if cdb.layer != 0 {
        return Err(Sense::field(6));
    }
    let mut body = Vec::new();
    match StructureFormat(cdb.format) {
        StructureFormat::PHYSICAL => {
            push(&mut body, &physical(blocks(context.unit)));
            body.resize(PHYSICAL_BYTES, 0);
        }
        // No protection, no regions.
        StructureFormat::COPYRIGHT => body.resize(COPYRIGHT_BYTES, 0),
        StructureFormat::LIST => {
            for (format, len) in [
                (StructureFormat::PHYSICAL, PHYSICAL_BYTES),
                (StructureFormat::COPYRIGHT, COPYRIGHT_BYTES),
            ] {
                let length = (size_of::<StructureHeader>() + len) as u16;
                let entry =
                    StructureEntry { format: format.0, flags: READABLE, length: length.into() };
                push(&mut body, &entry);
            }
        }
        _ => return Err(Sense::field(7)),
    }
    let length = (size_of::<StructureHeader>() - 2 + body.len()) as u16;
    let mut bytes = Vec::new();
    push(&mut bytes, &StructureHeader { length: length.into(), reserved: [0; 2] });
    bytes.extend(body);
    Ok(bytes)
}

/// DVD-ROM of 120 mm, part version 1, no maximum rate, one layer that is embossed.
fn physical(blocks: u32) -> DvdPhysical {
    // Addresses on a DVD have three bytes; longer images end there.
    let end = DVD_DATA_BEGIN.saturating_add(blocks).saturating_sub(1).min(0x00ff_ffff);
    DvdPhysical {
        book: 0x01,
        size_rate: 0x0f,
        layers: 0x01,
        density: 0,
        data_begin: DVD_DATA_BEGIN.into(),
        data_end: end.into(),
        layer_0_end: 0.into(),
    }
}

pub fn mechanism(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let open = context.unit.view().medium.open;
    let flags = if open { DOOR_OPEN } else { 0 };
    Ok(bytes_of(&MechanismStatus { flags, ..MechanismStatus::default() }))
}

fn bytes_of<T: zerocopy::IntoBytes + zerocopy::Immutable>(value: &T) -> Vec<u8> {
    value.as_bytes().to_vec()
}
