//! Vital product data (SPC-4 7.8): one table of pages, each made from the unit's identity, its
//! device's geometry and the port it is seen through.
//!
//! An LU is named by its UUID whatever the path: as NAA 6h where the cluster has an IEEE company
//! id, else as NAA 3h, which is unique within the place that assigned it; beside it T10 and UUID.

use wire::scsi::inquiry::DeviceType;
use wire::scsi::vpd::{
    Association, CODE_SET_ASCII, CODE_SET_BINARY, CODE_SET_UTF_8, DesignatorHeader, DesignatorType,
    ExtendedInquiry, NAA_LOCALLY_ASSIGNED, NAA_REGISTERED_EXTENDED, PROTOCOL_VALID, Page,
    PageHeader, PortDescriptors, PortHeader, PortNumber, extended,
};

use super::super::context::Context;
use super::super::copy;
use super::super::sbc;
use super::super::sense::{SENSE_BYTES, Sense};
use super::super::unit::MAKER;
use super::{ascii, push};
use crate::lun::{Identity, PortId};

type Make = fn(&Context<'_>) -> Vec<u8>;

/// In ascending order; those of block devices are the last.
const PAGES: &[(Page, Make)] = &[
    (Page::SUPPORTED_VPD_PAGES, supported),
    (Page::UNIT_SERIAL_NUMBER, serial_number),
    (Page::DEVICE_IDENTIFICATION, identification),
    (Page::EXTENDED_INQUIRY_DATA, extended_inquiry),
    (Page::SCSI_PORTS, ports),
    (Page::THIRD_PARTY_COPY, copy::page::third_party_copy),
    (Page::BLOCK_LIMITS, sbc::limits::block_limits),
    (Page::BLOCK_DEVICE_CHARACTERISTICS, sbc::limits::characteristics),
    (Page::LOGICAL_BLOCK_PROVISIONING, sbc::limits::provisioning),
];

pub fn tell(context: &Context<'_>, page: Page) -> Result<Vec<u8>, Sense> {
    let make = of(context).find(|(it, _)| *it == page).ok_or(Sense::field(2))?.1;
    let body = make(context);
    let header = PageHeader {
        peripheral: context.unit.device_type().0,
        page: page.0,
        page_length: (body.len() as u16).into(),
    };
    let mut bytes = Vec::with_capacity(size_of::<PageHeader>() + body.len());
    push(&mut bytes, &header);
    bytes.extend(body);
    Ok(bytes)
}

/// The pages of this unit.
fn of(context: &Context<'_>) -> impl Iterator<Item = (Page, Make)> {
    let is_block = context.unit.device_type() == DeviceType::DISK;
    PAGES.iter().copied().filter(move |(page, _)| is_block || *page < Page::THIRD_PARTY_COPY)
}

fn supported(context: &Context<'_>) -> Vec<u8> {
    of(context).map(|(page, _)| page.0).collect()
}

fn serial_number(context: &Context<'_>) -> Vec<u8> {
    printable(&context.unit.handle.identity().serial)
}

fn identification(context: &Context<'_>) -> Vec<u8> {
    let identity = context.unit.handle.identity();
    let mut bytes = Vec::new();
    let lu = Association::LOGICAL_UNIT;
    for (code, what, name) in names(identity) {
        designator(&mut bytes, (code, lu.0), what, &name);
    }
    port_designators(context, context.nexus.id().port(), &mut bytes);
    let device = context.nexus.port();
    if !device.device_name.is_empty() {
        let kind = Association::TARGET_DEVICE.0 | PROTOCOL_VALID;
        let code = device.protocol.0 << 4 | CODE_SET_UTF_8;
        let name = name_string(&device.device_name);
        designator(&mut bytes, (code, kind), DesignatorType::SCSI_NAME_STRING, &name);
    }
    bytes
}

/// The names of an LU, each with its code set.
pub fn names(identity: &Identity) -> [(u8, DesignatorType, Vec<u8>); 3] {
    let mut t10 = ascii::<8>(MAKER.vendor).to_vec();
    t10.extend(printable(&identity.serial));
    let mut uuid = vec![0x10, 0];
    uuid.extend(identity.uuid);
    [
        (CODE_SET_BINARY, DesignatorType::NAA, naa(&identity.uuid, identity.company)),
        (CODE_SET_ASCII, DesignatorType::T10_VENDOR_ID, t10),
        (CODE_SET_BINARY, DesignatorType::UUID, uuid),
    ]
}

/// What names a target port: its relative number, its group, and its name where it has one.
fn port_designators(context: &Context<'_>, port: PortId, bytes: &mut Vec<u8>) {
    let protocol = context.nexus.port().protocol.0 << 4;
    let kind = Association::TARGET_PORT.0 | PROTOCOL_VALID;
    let number = |bytes: &mut Vec<u8>, what, number: u16| {
        let body = PortNumber { number: number.into(), ..PortNumber::default() };
        let body = zerocopy::IntoBytes::as_bytes(&body);
        designator(bytes, (protocol | CODE_SET_BINARY, kind), what, body);
    };
    number(bytes, DesignatorType::RELATIVE_TARGET_PORT, port.0);
    if let Some(group) = context.unit.view().access.group_of(port) {
        number(bytes, DesignatorType::TARGET_PORT_GROUP, group.id);
    }
    if let Some(name) = context.nexus.port().port_name(port) {
        let name = name_string(&name);
        let code = protocol | CODE_SET_UTF_8;
        designator(bytes, (code, kind), DesignatorType::SCSI_NAME_STRING, &name);
    }
}

fn designator(bytes: &mut Vec<u8>, (code, kind): (u8, u8), what: DesignatorType, body: &[u8]) {
    let len = body.len().min(usize::from(u8::MAX));
    let header = DesignatorHeader {
        protocol_code_set: code,
        kind: kind | what.0,
        reserved: 0,
        length: len as u8,
    };
    push(bytes, &header);
    bytes.extend_from_slice(&body[..len]);
}

/// The NAA name of an LU, by which clients know it over all paths. With a company id all 16 bytes
/// (6h): the id, then the UUID as far as it goes, its random tail; without one eight bytes of which
/// 60 bits are the UUID's.
pub fn naa(uuid: &[u8; 16], company: Option<[u8; 3]>) -> Vec<u8> {
    match company {
        Some([a, b, c]) => {
            let mut name = vec![
                NAA_REGISTERED_EXTENDED | a >> 4,
                a << 4 | b >> 4,
                b << 4 | c >> 4,
                c << 4 | uuid[3] & 0x0f,
            ];
            name.extend_from_slice(&uuid[4..]);
            name
        }
        None => {
            let mut name = uuid[8..].to_vec();
            // The variant bits of a UUID say nothing: bits of its first half take their place.
            name[0] = NAA_LOCALLY_ASSIGNED | uuid[0] & 0x0f;
            name
        }
    }
}

/// Ended with NUL and padded to a multiple of four (SPC-4 7.8.6.11).
fn name_string(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    bytes
}

fn printable(text: &str) -> Vec<u8> {
    text.bytes().filter(|byte| (0x20..0x7f).contains(byte)).take(SERIAL_BYTES_MAX).collect()
}

/// A serial number longer than this is cut: a designator has 255 bytes, eight of them the vendor's.
const SERIAL_BYTES_MAX: usize = 240;

fn extended_inquiry(_: &Context<'_>) -> Vec<u8> {
    let body = ExtendedInquiry {
        flags5: extended::HEAD_ORDERED_SIMPLE,
        flags6: extended::V_SUP,
        flags7: extended::LUICLR,
        maximum_sense_data_length: SENSE_BYTES as u8,
        ..ExtendedInquiry::default()
    };
    zerocopy::IntoBytes::as_bytes(&body).to_vec()
}

/// Every port of the target that this client sees.
fn ports(context: &Context<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for port in context.unit.view().access.siblings(context.nexus.id().port()) {
        push(&mut bytes, &PortHeader { relative_port: port.0.into(), ..PortHeader::default() });
        let mut names = Vec::new();
        port_designators(context, port, &mut names);
        let length = (names.len() as u16).into();
        push(&mut bytes, &PortDescriptors { length, ..PortDescriptors::default() });
        bytes.extend(names);
    }
    bytes
}
