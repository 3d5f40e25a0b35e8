//! Transport IDs (SPC-4 7.6.4): how parameter lists name an initiator port, and what Viaduct takes
//! for the name of one everywhere.
//!
//! One port can be written in several ways: an iSCSI name in capitals, a session identifier with
//! fewer digits, more padding. There is one normal form; transports make their [`Initiator`]s here,
//! and whatever a client writes is brought to it, so that equal bytes mean the same port.

use wire::scsi::reservation::{FixedTransportId, ISCSI_NAME_AND_ISID, IscsiTransportId, Protocol};
use zerocopy::{FromBytes, IntoBytes};

use crate::lun::Initiator;

/// The longest iSCSI name (RFC 7143, 4.2.7.1).
pub const ISCSI_NAME_BYTES_MAX: usize = 223;

const SEPARATOR: &str = ",i,0x";
const ISID_DIGITS: usize = 12;
/// The least ADDITIONAL LENGTH of an iSCSI transport ID.
const ISCSI_ADDITIONAL_MIN: usize = 20;
const FORMAT_MASK: u8 = 0xc0;
const PROTOCOL_MASK: u8 = 0x0f;

/// The initiator port of an iSCSI session: its initiator's name and the session's identifier.
/// `None` when the name is empty, too long, or has characters that no name has.
pub fn iscsi(name: &str, isid: [u8; 6]) -> Option<Initiator> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b',' || !byte.is_ascii();
    if name.is_empty() || name.len() > ISCSI_NAME_BYTES_MAX || !name.bytes().all(is_plain) {
        return None;
    }
    let mut text = name.to_lowercase();
    text.push_str(SEPARATOR);
    isid.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
    // Ended by one NUL at least, and padded to a multiple of four.
    let padded = (text.len() / 4 + 1) * 4;
    let padded = padded.max(ISCSI_ADDITIONAL_MIN);
    let header = IscsiTransportId {
        format: ISCSI_NAME_AND_ISID | Protocol::ISCSI.0,
        reserved: 0,
        additional_length: (padded as u16).into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.resize(size_of::<IscsiTransportId>() + padded, 0);
    Initiator::new(&bytes)
}

/// The initiator port of a virtual adapter, which is known by an address as SAS has them: none of
/// the protocols with a form of their own is what a virtual machine speaks.
pub fn sas(address: u64) -> Initiator {
    let mut id = FixedTransportId { format: Protocol::SAS.0, ..FixedTransportId::default() };
    id.name[..8].copy_from_slice(&address.to_be_bytes());
    Initiator::new(id.as_bytes()).expect("24 bytes are not too long")
}

/// Reads the transport ID that these bytes begin with: the port in its normal form, and how many
/// bytes it takes here. `None` for what names no port: another format, a name without session.
pub fn parse(bytes: &[u8]) -> Option<(Initiator, usize)> {
    let first = *bytes.first()?;
    let (format, protocol) = (first & FORMAT_MASK, Protocol(first & PROTOCOL_MASK));
    match (protocol, format) {
        (Protocol::ISCSI, ISCSI_NAME_AND_ISID) => parse_iscsi(bytes),
        (Protocol::ISCSI, _) => None,
        (_, 0) => {
            let len = size_of::<FixedTransportId>();
            Some((Initiator::new(bytes.get(..len)?)?, len))
        }
        _ => None,
    }
}

fn parse_iscsi(bytes: &[u8]) -> Option<(Initiator, usize)> {
    let (header, rest) = IscsiTransportId::ref_from_prefix(bytes).ok()?;
    let length = usize::from(header.additional_length.get());
    if length < ISCSI_ADDITIONAL_MIN || !length.is_multiple_of(4) {
        return None;
    }
    let field = rest.get(..length)?;
    let end = field.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(&field[..end]).ok()?;
    let (name, digits) = text.split_once(SEPARATOR)?;
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits.is_empty() || digits.len() > ISID_DIGITS || !only_digits {
        return None;
    }
    let isid = u64::from_str_radix(digits, 16).ok()?.to_be_bytes();
    let initiator = iscsi(name, [isid[2], isid[3], isid[4], isid[5], isid[6], isid[7]])?;
    Some((initiator, size_of::<IscsiTransportId>() + length))
}
