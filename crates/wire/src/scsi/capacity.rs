//! Parameter data about and for blocks: READ CAPACITY, GET LBA STATUS, UNMAP, defect lists, FORMAT
//! UNIT, SANITIZE (SBC-3 5).

use super::layout::layouts;
use zerocopy::byteorder::big_endian::{U16, U32, U64};

layouts! {
    pub struct Capacity10 {
        /// All ones where it does not fit.
        pub last_lba: U32,
        pub block_length: U32,
    }

    pub struct Capacity16 {
        pub last_lba: U64,
        pub block_length: U32,
        /// Protection type and whether there is one.
        pub protection: u8,
        /// Protection interval exponent, and log2 of the logical blocks of a physical one.
        pub exponents: u8,
        /// [`LBPME`], [`LBPRZ`], lowest aligned block.
        pub alignment: U16,
        pub reserved: [u8; 16],
    }

    pub struct LbaStatusHeader {
        /// Bytes behind this field.
        pub length: U32,
        pub reserved: U32,
    }

    pub struct LbaStatus {
        pub lba: U64,
        pub count: U32,
        /// [`MAPPED`], [`DEALLOCATED`], [`ANCHORED`].
        pub provisioning: u8,
        pub reserved: [u8; 3],
    }

    pub struct UnmapHeader {
        /// Bytes behind this field.
        pub data_length: U16,
        pub block_descriptor_data_length: U16,
        pub reserved: U32,
    }

    pub struct UnmapDescriptor {
        pub lba: U64,
        pub count: U32,
        pub reserved: U32,
    }

    pub struct DefectHeader10 {
        pub reserved: u8,
        /// PLISTV, GLISTV, format.
        pub format: u8,
        pub length: U16,
    }

    pub struct DefectHeader12 {
        pub reserved: u8,
        /// PLISTV, GLISTV, format.
        pub format: u8,
        pub generation: U16,
        pub length: U32,
    }

    /// Parameter list header of FORMAT UNIT.
    pub struct FormatHeader {
        /// Protection field usage.
        pub protection: u8,
        /// [`FOV`], [`IMMED`] and others.
        pub flags: u8,
        pub defect_list_length: U16,
    }

    /// The same with LONGLIST.
    pub struct LongFormatHeader {
        pub protection: u8,
        pub flags: u8,
        pub reserved: u8,
        /// P_I_INFORMATION and protection interval exponent.
        pub interval: u8,
        pub defect_list_length: U32,
    }

    /// Of SANITIZE, overwrite; the pattern follows.
    pub struct Overwrite {
        /// [`INVERT`], test, overwrite count in five bits.
        pub flags: u8,
        pub reserved: u8,
        pub pattern_length: U16,
    }
}

/// Of [`Capacity16`]: thin provisioned.
pub const LBPME: u16 = 0x8000;
/// Of [`Capacity16`]: unmapped blocks read zero.
pub const LBPRZ: u16 = 0x4000;

/// PROVISIONING STATUS: mapped or unknown.
pub const MAPPED: u8 = 0;
/// PROVISIONING STATUS.
pub const DEALLOCATED: u8 = 1;
/// PROVISIONING STATUS.
pub const ANCHORED: u8 = 2;

/// Of defect headers and READ DEFECT DATA: the primary list, and the grown.
pub const PLIST: u8 = 0x10;
/// Of defect headers and READ DEFECT DATA.
pub const GLIST: u8 = 0x08;
/// The format of defect descriptors, in three bits.
pub const DEFECT_FORMAT: u8 = 0x07;

/// Of format headers: the option bits are valid.
pub const FOV: u8 = 0x80;
/// Of format headers: initialization pattern.
pub const IP: u8 = 0x08;
/// Of format headers: answer at once.
pub const IMMED: u8 = 0x02;

/// Of [`Overwrite`]: every second pass is inverted.
pub const INVERT: u8 = 0x80;
/// Of [`Overwrite`].
pub const OVERWRITE_TEST: u8 = 0x60;
/// Of [`Overwrite`].
pub const OVERWRITE_COUNT: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_length_of_its_table() {
        assert_eq!((size_of::<Capacity10>(), size_of::<Capacity16>()), (8, 32));
        assert_eq!((size_of::<LbaStatusHeader>(), size_of::<LbaStatus>()), (8, 16));
        assert_eq!((size_of::<UnmapHeader>(), size_of::<UnmapDescriptor>()), (8, 16));
        assert_eq!((size_of::<DefectHeader10>(), size_of::<DefectHeader12>()), (4, 8));
        assert_eq!((size_of::<FormatHeader>(), size_of::<LongFormatHeader>()), (4, 8));
    }
}
