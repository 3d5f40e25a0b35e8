//! Requests and their responses: addresses, attributes, residuals, response codes (5.6.6.1).

use wire::scsi::{LogicalUnitNumber, Status};
use wire::virtio::scsi::{
    ADDRESS_OF_TARGET, Address, Response, ResponseHeader, SENSE_BYTES_DEFAULT, TaskAttribute,
};
use zerocopy::IntoBytes;

use super::host::{SIZE_MAX, Sizes};
use crate::lun::admit::Attribute;
use crate::scsi::{Answer, SENSE_BYTES};

/// The only target there is.
const TARGET: u8 = 0;

const _: () = assert!(SENSE_BYTES <= SENSE_BYTES_DEFAULT as usize);

/// The LUN behind an address; none where it names another target than ours, or has no meaning.
#[inline]
pub fn lun_of(address: Address) -> Option<[u8; 8]> {
    let [method, target, first, second, rest @ ..] = address;
    if method == ADDRESS_OF_TARGET && target == TARGET && rest == [0; 4] {
        return Some([first, second, 0, 0, 0, 0, 0, 0]);
    }
    (address == LogicalUnitNumber::REPORT_LUNS.0).then_some(address)
}

/// The address of a LUN.
pub const fn address_of(number: u16) -> Address {
    let [first, second, ..] = LogicalUnitNumber::new(number).0;
    [ADDRESS_OF_TARGET, TARGET, first, second, 0, 0, 0, 0]
}

/// What has no meaning is SIMPLE.
#[inline]
pub const fn attribute_of(code: u8) -> Attribute {
    match TaskAttribute(code) {
        TaskAttribute::ORDERED => Attribute::Ordered,
        TaskAttribute::HEAD => Attribute::HeadOfQueue,
        TaskAttribute::ACA => Attribute::Aca,
        _ => Attribute::Simple,
    }
}

/// How much data a request has buffers for, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub out: usize,
    pub into: usize,
}

/// The response to a request that SCSI has answered: its header, and the sense data behind it, as
/// far as there is room. What was aborted without a word of SCSI ends with `silent`.
#[inline]
pub fn respond<'a>(
    answer: &Answer,
    room: Moved,
    silent: Response,
    sizes: Sizes,
    buffer: &'a mut [u8; RESPONSE_BYTES],
) -> &'a [u8] {
    let is_good = answer.status == Status::GOOD;
    let moved = match answer.full {
        _ if answer.silent => 0,
        _ if room.into > 0 => answer.len,
        full if is_good => full.min(room.out as u64) as usize,
        _ => 0,
    };
    let mut header = ResponseHeader {
        residual: ((room.out + room.into - moved) as u32).into(),
        ..ResponseHeader::default()
    };
    let mut end = HEADER_BYTES;
    if answer.silent {
        header.response = silent.0;
    } else {
        header.status = answer.status.0;
        if let Some(sense) = answer.sense {
            let mut bytes = [0; SENSE_BYTES];
            let len = sense.encode(&mut bytes).min(usize::from(sizes.sense));
            header.sense_len = (len as u32).into();
            buffer[end..end + len].copy_from_slice(&bytes[..len]);
            end += len;
        }
    }
    buffer[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    &buffer[..end]
}

const HEADER_BYTES: usize = size_of::<ResponseHeader>();
/// The longest response.
pub const RESPONSE_BYTES: usize = HEADER_BYTES + SIZE_MAX as usize;

#[cfg(test)]
mod tests {
    use wire::scsi::AdditionalSense;
    use zerocopy::FromBytes;

    use super::*;
    use crate::lun::admit::Aborted;
    use crate::scsi::Sense;

    fn header(answer: &Answer, room: Moved, sizes: Sizes) -> (ResponseHeader, Vec<u8>) {
        let mut buffer = [0xee; RESPONSE_BYTES];
        let bytes = respond(answer, room, Response::RESET, sizes, &mut buffer);
        let (header, sense) = ResponseHeader::read_from_prefix(bytes).unwrap();
        (header, sense.to_vec())
    }

    #[test]
    fn addresses_lead_to_luns_of_the_one_target() {
        for number in [0, 1, 255, 256, 16_383] {
            let lun = lun_of(address_of(number)).unwrap();
            assert_eq!(LogicalUnitNumber(lun).number(), Some(u32::from(number)));
        }
        assert_eq!(address_of(256), [1, 0, 0x41, 0, 0, 0, 0, 0]);
        let well_known = LogicalUnitNumber::REPORT_LUNS.0;
        assert_eq!(lun_of(well_known), Some(well_known));
        for wrong in [
            [0; 8],
            [1, 1, 0, 0, 0, 0, 0, 0],
            [2, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 1],
            [0xc1, 2, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(lun_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn residuals_are_what_was_not_moved() {
        let into = |into| Moved { out: 0, into };
        let out = |out| Moved { out, into: 0 };
        let sense = Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
        for (answer, room, expected) in [
            (Answer::data(4096, 4096), into(4096), 0),
            (Answer::data(36, 36), into(4096), 4060),
            (Answer::data(0, 512), out(512), 0),
            (Answer::data(0, 512), out(4096), 3584),
            (Answer::data(0, 8192), out(4096), 0),
            (Answer::GOOD, Moved::default(), 0),
            (Answer::check(sense), out(512), 512),
            (Answer { len: 512, ..Answer::check(sense) }, into(1024), 512),
            (Answer::status(Status::BUSY), out(512), 512),
            (Answer::aborted(Aborted::Silently), into(512), 512),
        ] {
            let (header, _) = header(&answer, room, Sizes::default());
            assert_eq!(header.residual.get(), expected, "{answer:?} {room:?}");
        }
    }

    #[test]
    fn sense_data_is_cut_to_its_room() {
        let sense = Sense::illegal(AdditionalSense::INVALID_FIELD_IN_CDB);
        let answer = Answer::check(sense);
        let (full, bytes) = header(&answer, Moved::default(), Sizes::default());
        assert_eq!(full.response, Response::OK.0);
        assert_eq!((full.status, full.sense_len.get()), (2, bytes.len() as u32));
        assert_eq!((bytes[0] & 0x7f, bytes[2], bytes[12]), (0x70, 5, 0x24));
        let small = Sizes { sense: 8, ..Sizes::default() };
        let (cut, bytes) = header(&answer, Moved::default(), small);
        assert_eq!((cut.sense_len.get(), bytes.len()), (8, 8));
    }

    #[test]
    fn what_was_aborted_says_how() {
        let (silent, _) =
            header(&Answer::aborted(Aborted::Silently), Moved::default(), Sizes::default());
        assert_eq!((silent.response, silent.status), (Response::RESET.0, 0));
        let (told, _) =
            header(&Answer::aborted(Aborted::WithStatus), Moved::default(), Sizes::default());
        assert_eq!((told.response, told.status), (Response::OK.0, Status::TASK_ABORTED.0));
    }

    #[test]
    fn attributes_have_their_numbers() {
        let all = [0, 1, 2, 3, 4, 0xff].map(attribute_of);
        use Attribute::{Aca, HeadOfQueue, Ordered, Simple};
        assert_eq!(all, [Simple, Ordered, HeadOfQueue, Aca, Simple, Simple]);
    }
}
