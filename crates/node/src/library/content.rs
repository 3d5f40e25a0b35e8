//! What is on a disc: its filesystem, what the volume calls itself, how long it says that it is,
//! and which firmware could boot it. The few fields of ECMA-119 (ISO 9660), ECMA-167 (UDF) and El
//! Torito that say so, read out of an image that may say anything.

use model::medium::{Firmware, MEDIUM_BLOCK_BYTES, MediumFormat};

/// Bytes of a block of the image.
pub const BLOCK: usize = MEDIUM_BLOCK_BYTES as usize;

/// The first 16 blocks are for the system (ECMA-119 6.2.1).
const DESCRIPTORS_BEGIN: u64 = 16;
/// Descriptors that are looked at; a disc has a handful.
const DESCRIPTORS_MAX: u64 = 64;

/// Where a volume of UDF tells where its descriptors are (ECMA-167 3/8.4.2.1).
const ANCHOR: u64 = 256;
const TAG_ANCHOR: u16 = 2;
const TAG_LOGICAL_VOLUME: u16 = 6;
const TAG_END: u16 = 8;

/// Entries of a boot catalog have so many bytes; its first block is looked at.
const BOOT_ENTRY: usize = 32;
const BOOTABLE: u8 = 0x88;
const SECTION: u8 = 0x90;
const LAST_SECTION: u8 = 0x91;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub format: MediumFormat,
    pub label: Option<String>,
    pub boots: Vec<Firmware>,
    /// Bytes that the volume says it has.
    pub volume_bytes: Option<u64>,
}

/// Looks at an image; `read` gives a block, or says that there is none.
pub fn content(read: &mut dyn FnMut(u64) -> Option<[u8; BLOCK]>) -> Content {
    let mut found = Content {
        format: MediumFormat::Unknown,
        label: None,
        boots: Vec::new(),
        volume_bytes: None,
    };
    let mut is_udf = false;
    for at in DESCRIPTORS_BEGIN..DESCRIPTORS_BEGIN + DESCRIPTORS_MAX {
        let Some(block) = read(at) else { break };
        match (&block[1..6], block[0]) {
            (b"CD001", 0) if block[7..].starts_with(b"EL TORITO SPECIFICATION") => {
                let catalog = read(u64::from(long(&block, 0x47)));
                found.boots = catalog.map(|block| firmware(&block)).unwrap_or_default();
            }
            (b"CD001", 1) => {
                found.format = MediumFormat::Iso9660;
                found.label = text(&block[40..72]);
                let block_bytes = u64::from(short(&block, 128));
                found.volume_bytes = Some(u64::from(long(&block, 80)) * block_bytes);
            }
            (b"CD001" | b"BEA01" | b"BOOT2", _) => {}
            (b"NSR02" | b"NSR03", _) => is_udf = true,
            _ => break,
        }
    }
    if is_udf {
        found.format = MediumFormat::Udf;
        found.label = udf_label(read).or(found.label);
    }
    found
}

fn udf_label(read: &mut dyn FnMut(u64) -> Option<[u8; BLOCK]>) -> Option<String> {
    let anchor = read(ANCHOR).filter(|block| short(block, 0) == TAG_ANCHOR)?;
    let (bytes, begin) = (u64::from(long(&anchor, 16)), u64::from(long(&anchor, 20)));
    let blocks = (bytes / u64::from(MEDIUM_BLOCK_BYTES)).min(DESCRIPTORS_MAX);
    for at in begin..begin + blocks {
        let block = read(at)?;
        match short(&block, 0) {
            TAG_LOGICAL_VOLUME => return characters(&block[84..212]),
            TAG_END => return None,
            _ => {}
        }
    }
    None
}

/// A field of characters of OSTA (UDF 2.1.1): how they are written, the characters, and in the last
/// byte how many bytes of the field there are.
fn characters(field: &[u8]) -> Option<String> {
    let (&len, _) = field.split_last()?;
    let (&width, used) = field.get(..usize::from(len))?.split_first()?;
    let characters: String = match width {
        8 => used.iter().map(|&byte| char::from(byte)).collect(),
        16 => {
            let units = used.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        _ => return None,
    };
    shown(&characters)
}

fn text(field: &[u8]) -> Option<String> {
    shown(&String::from_utf8_lossy(field))
}

/// Without what would disturb a terminal, and none when nothing is left.
fn shown(text: &str) -> Option<String> {
    let is_plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let text: String = text.trim_matches(['\0', ' ']).chars().map(is_plain).collect();
    (!text.is_empty()).then_some(text)
}

/// The firmware of a boot catalog's entries that can be booted.
fn firmware(catalog: &[u8; BLOCK]) -> Vec<Firmware> {
    let mut boots = Vec::new();
    let mut note = |platform: u8| {
        let firmware = match platform {
            0 => Firmware::Bios,
            0xef => Firmware::Efi,
            _ => Firmware::Other,
        };
        if !boots.contains(&firmware) {
            boots.push(firmware);
        }
    };
    let mut entries = catalog.chunks_exact(BOOT_ENTRY);
    let validation = entries.next().filter(|it| it[0] == 1 && it[30..] == [0x55, 0xaa]);
    let Some(validation) = validation else { return boots };
    let mut platform = validation[1];
    for (number, entry) in entries.enumerate() {
        match entry[0] {
            BOOTABLE => note(platform),
            SECTION | LAST_SECTION => platform = entry[1],
            // An entry that cannot be booted looks like the end, which the first one is not.
            0 if number > 0 => break,
            _ => {}
        }
    }
    boots
}

fn short(block: &[u8; BLOCK], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn long(block: &[u8; BLOCK], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(image: &[u8]) -> Content {
        content(&mut |at| {
            let begin = usize::try_from(at).ok()?.checked_mul(BLOCK)?;
            image.get(begin..)?.get(..BLOCK)?.try_into().ok()
        })
    }

    fn put(image: &mut [u8], block: usize, at: usize, bytes: &[u8]) {
        image[block * BLOCK + at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// An ISO 9660 image of 40 blocks with a boot catalog for both kinds of firmware.
    fn iso() -> Vec<u8> {
        let mut image = vec![0; 40 * BLOCK];
        put(&mut image, 16, 0, b"\x01CD001\x01");
        put(&mut image, 16, 40, b"DEBIAN 12                       ");
        put(&mut image, 16, 80, &40u32.to_le_bytes());
        put(&mut image, 16, 128, &2048u16.to_le_bytes());
        put(&mut image, 17, 0, b"\x00CD001\x01EL TORITO SPECIFICATION");
        put(&mut image, 17, 0x47, &20u32.to_le_bytes());
        put(&mut image, 18, 0, b"\xffCD001\x01");
        put(&mut image, 20, 0, &[1, 0]);
        put(&mut image, 20, 30, &[0x55, 0xaa, 0x88]);
        put(&mut image, 20, 64, &[0x91, 0xef, 1, 0]);
        put(&mut image, 20, 96, &[0x88]);
        image
    }

    #[test]
    fn an_iso_says_what_it_is() {
        let expected = Content {
            format: MediumFormat::Iso9660,
            label: Some("DEBIAN 12".to_owned()),
            boots: vec![Firmware::Bios, Firmware::Efi],
            volume_bytes: Some(40 * 2048),
        };
        assert_eq!(look(&iso()), expected);
    }

    #[test]
    fn what_is_no_disc_has_nothing_to_say() {
        let nothing = Content {
            format: MediumFormat::Unknown,
            label: None,
            boots: Vec::new(),
            volume_bytes: None,
        };
        for image in [vec![], vec![0; 1 << 20], vec![0xff; 100_000], iso()[..32768].to_vec()] {
            assert_eq!(look(&image), nothing);
        }
        // A catalog that lies beyond the end, and one that is none.
        let mut image = iso();
        put(&mut image, 17, 0x47, &u32::MAX.to_le_bytes());
        assert_eq!(look(&image).boots, []);
        let mut image = iso();
        put(&mut image, 20, 30, &[0, 0]);
        assert_eq!(look(&image).boots, []);
    }

    #[test]
    fn a_udf_volume_is_known_by_its_own_name() {
        let mut image = iso();
        image.resize(300 * BLOCK, 0);
        put(&mut image, 19, 0, b"\x00BEA01\x01");
        put(&mut image, 20, 0, b"\x00NSR03\x01");
        put(&mut image, 21, 0, b"\x00TEA01\x01");
        assert_eq!(look(&image).label.as_deref(), Some("DEBIAN 12"));
        put(&mut image, 256, 0, &2u16.to_le_bytes());
        put(&mut image, 256, 16, &(4 * 2048u32).to_le_bytes());
        put(&mut image, 256, 20, &260u32.to_le_bytes());
        put(&mut image, 261, 0, &6u16.to_le_bytes());
        put(&mut image, 261, 84, b"\x08Windows");
        put(&mut image, 261, 211, &[8]);
        let found = look(&image);
        assert_eq!(found.format, MediumFormat::Udf);
        assert_eq!(found.label.as_deref(), Some("Windows"));
        put(&mut image, 261, 84, &[16, 0x26, 0x3a, 0, b'\n']);
        put(&mut image, 261, 211, &[5]);
        assert_eq!(look(&image).label.as_deref(), Some("\u{263a}\u{fffd}"));
    }

    proptest! {
        #[test]
        fn an_image_may_say_anything(
            block in prop::collection::vec(any::<u8>(), BLOCK),
            kinds in prop::collection::vec((0u8..3, 0usize..5), 80)
        ) {
            let names = [b"CD001", b"NSR02", b"BEA01", b"CD001", b"other"];
            content(&mut |at| {
                let mut block: [u8; BLOCK] = block.clone().try_into().unwrap();
                if let Some((kind, name)) = kinds.get(at as usize % 100) {
                    block[0] = *kind;
                    block[1..6].copy_from_slice(names[*name]);
                    block[7..30].copy_from_slice(b"EL TORITO SPECIFICATION");
                }
                Some(block)
            });
        }
    }
}
