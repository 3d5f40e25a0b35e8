//! Sense data: what went wrong, and where, in the words of SPC-4 4.5; encoded in the fixed or the
//! descriptor format as the client has chosen (D_SENSE).

use wire::scsi::sense::{
    BIT_POINTER_VALID, DESCRIPTOR_CURRENT, DescriptorSense, DescriptorType, FIELD_IN_CDB,
    FIXED_CURRENT, FixedSense, NumberDescriptor, SKSV, SpecificDescriptor, VALID,
};
use wire::scsi::{AdditionalSense, SenseKey};
use zerocopy::IntoBytes;

/// The longest that [`Sense::encode`] writes.
pub const SENSE_BYTES: usize = size_of::<DescriptorSense>()
    + 2 * size_of::<NumberDescriptor>()
    + size_of::<SpecificDescriptor>();

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    pub key: SenseKey,
    pub code: AdditionalSense,
    pub information: Option<u64>,
    pub specific: Specific,
    /// To be encoded in the descriptor format.
    pub descriptor: bool,
}

/// SENSE KEY SPECIFIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Specific {
    #[default]
    None,
    /// The field at fault, and the bit of its first byte if it is not all of it.
    Field { in_cdb: bool, byte: u16, bit: Option<u8> },
    /// How far an operation is, in 65,536ths.
    Progress(u16),
}

impl Sense {
    /// Nothing is wrong.
    pub const NONE: Self =
        Self::new(SenseKey::NO_SENSE, AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION);

    pub const fn new(key: SenseKey, code: AdditionalSense) -> Self {
        Self { key, code, information: None, specific: Specific::None, descriptor: false }
    }

    pub const fn illegal(code: AdditionalSense) -> Self {
        Self::new(SenseKey::ILLEGAL_REQUEST, code)
    }

    /// This byte of the CDB is at fault.
    pub const fn field(byte: u16) -> Self {
        let specific = Specific::Field { in_cdb: true, byte, bit: None };
        Self { specific, ..Self::illegal(AdditionalSense::INVALID_FIELD_IN_CDB) }
    }

    /// This bit of a byte of the CDB is at fault.
    pub const fn field_bit(byte: u16, bit: u8) -> Self {
        let specific = Specific::Field { in_cdb: true, byte, bit: Some(bit) };
        Self { specific, ..Self::illegal(AdditionalSense::INVALID_FIELD_IN_CDB) }
    }

    /// This byte of the parameter list is at fault.
    pub const fn parameter(byte: u16) -> Self {
        let specific = Specific::Field { in_cdb: false, byte, bit: None };
        Self { specific, ..Self::illegal(AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST) }
    }

    /// The parameter list ends within something.
    pub const fn parameter_length() -> Self {
        Self::illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR)
    }

    pub const fn with_information(self, information: u64) -> Self {
        Self { information: Some(information), ..self }
    }

    pub const fn with_progress(self, progress: u16) -> Self {
        Self { specific: Specific::Progress(progress), ..self }
    }

    pub const fn in_format(self, descriptor: bool) -> Self {
        Self { descriptor, ..self }
    }

    /// Writes it as far as there is room; gives the number of bytes.
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        let mut bytes = [0; SENSE_BYTES];
        let len = if self.descriptor {
            self.encode_descriptors(&mut bytes)
        } else {
            self.encode_fixed(&mut bytes)
        };
        let len = len.min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        len
    }

    pub fn to_vec(self) -> Vec<u8> {
        let mut bytes = vec![0; SENSE_BYTES];
        let len = self.encode(&mut bytes);
        bytes.truncate(len);
        bytes
    }

    fn encode_fixed(&self, bytes: &mut [u8; SENSE_BYTES]) -> usize {
        // The field has four bytes; what does not fit is left out (SPC-4 4.5.3).
        let information = self.information.and_then(|value| u32::try_from(value).ok());
        let sense = FixedSense {
            response_code: FIXED_CURRENT | if information.is_some() { VALID } else { 0 },
            flags: self.key.0,
            information: information.unwrap_or(0).into(),
            additional_length: (size_of::<FixedSense>() - 8) as u8,
            additional_sense: self.code.0.into(),
            sense_key_specific: self.specific.bytes(),
            ..FixedSense::default()
        };
        put(bytes, 0, &sense)
    }

    fn encode_descriptors(&self, bytes: &mut [u8; SENSE_BYTES]) -> usize {
        let mut len = size_of::<DescriptorSense>();
        if let Some(information) = self.information {
            let descriptor = NumberDescriptor {
                descriptor_type: DescriptorType::INFORMATION.0,
                additional_length: (size_of::<NumberDescriptor>() - 2) as u8,
                flags: VALID,
                value: information.into(),
                ..NumberDescriptor::default()
            };
            len += put(bytes, len, &descriptor);
        }
        if self.specific != Specific::None {
            let descriptor = SpecificDescriptor {
                descriptor_type: DescriptorType::SENSE_KEY_SPECIFIC.0,
                additional_length: (size_of::<SpecificDescriptor>() - 2) as u8,
                sense_key_specific: self.specific.bytes(),
                ..SpecificDescriptor::default()
            };
            len += put(bytes, len, &descriptor);
        }
        let header = DescriptorSense {
            response_code: DESCRIPTOR_CURRENT,
            sense_key: self.key.0,
            additional_sense: self.code.0.into(),
            additional_length: (len - size_of::<DescriptorSense>()) as u8,
            ..DescriptorSense::default()
        };
        put(bytes, 0, &header);
        len
    }
}

impl Specific {
    fn bytes(self) -> [u8; 3] {
        let (flags, value) = match self {
            Self::None => return [0; 3],
            Self::Progress(progress) => (0, progress),
            Self::Field { in_cdb, byte, bit } => {
                let place = if in_cdb { FIELD_IN_CDB } else { 0 };
                (place | bit.map_or(0, |bit| BIT_POINTER_VALID | bit & 7), byte)
            }
        };
        let [high, low] = value.to_be_bytes();
        [SKSV | flags, high, low]
    }
}

fn put<T: IntoBytes + zerocopy::Immutable>(bytes: &mut [u8], at: usize, value: &T) -> usize {
    let value = value.as_bytes();
    bytes[at..at + value.len()].copy_from_slice(value);
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_format_names_the_field_at_fault() {
        let bytes = Sense::field_bit(1, 3).to_vec();
        assert_eq!(bytes[..3], [0x70, 0, 5]);
        assert_eq!(bytes[7], 10);
        assert_eq!(bytes[12..], [0x24, 0, 0, 0xcb, 0, 1]);
        let bytes = Sense::parameter(0x102).to_vec();
        assert_eq!(bytes[12..], [0x26, 0, 0, 0x80, 1, 2]);
    }

    #[test]
    fn the_descriptor_format_holds_what_the_fixed_cannot() {
        let code = AdditionalSense::UNRECOVERED_READ_ERROR;
        let sense = Sense::new(SenseKey::MEDIUM_ERROR, code).with_information(1 << 40);
        let fixed = sense.to_vec();
        assert_eq!((fixed[0], &fixed[3..7]), (0x70, &[0; 4][..]));
        let long = sense.in_format(true).to_vec();
        assert_eq!(long[..8], [0x72, 3, 0x11, 0, 0, 0, 0, 12]);
        assert_eq!(long[8..], [0, 10, 0x80, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(sense.with_information(77).to_vec()[..7], [0xf0, 0, 3, 0, 0, 0, 77]);
    }

    #[test]
    fn progress_is_a_descriptor_of_its_own_and_short_buffers_cut() {
        let code = AdditionalSense::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS;
        let sense = Sense::new(SenseKey::NOT_READY, code).with_progress(0x8000).in_format(true);
        assert_eq!(sense.to_vec()[8..], [2, 6, 0, 0, 0x80, 0x80, 0, 0]);
        let mut few = [0xff; 5];
        assert_eq!(sense.encode(&mut few), 5);
        assert_eq!(few, [0x72, 2, 0x04, 0x1b, 0]);
    }
}
