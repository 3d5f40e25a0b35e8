//! READ CD and READ CD MSF: user data of mode 1, as READ gives it. What surrounds user data on a CD
//! (sync, header, error correction) is not in an image.

use wire::scsi::AdditionalSense;
use wire::scsi::mmc::{FRAMES_PER_SECOND, MSF_OFFSET, SectorType, USER_DATA, op};

use super::super::parsed::CDB_BYTES;
use super::super::sense::Sense;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub lba: u64,
    /// Blocks; none where no data of them is wanted.
    pub count: u64,
}

pub fn wanted(cdb: &[u8; CDB_BYTES]) -> Result<Wanted, Sense> {
    let (lba, count) = if cdb[0] == op::READ_CD.0 { by_address(cdb) } else { by_time(cdb)? };
    let is_here = matches!(SectorType(cdb[1] >> 2 & 0x07), SectorType::ANY | SectorType::MODE_1);
    match cdb[9] & 0xf8 {
        USER_DATA if is_here => Ok(Wanted { lba, count }),
        0 if is_here => Ok(Wanted { lba, count: 0 }),
        _ => Err(Sense::illegal(AdditionalSense::ILLEGAL_MODE_FOR_THIS_TRACK)),
    }
}

fn by_address(cdb: &[u8; CDB_BYTES]) -> (u64, u64) {
    let lba = u32::from_be_bytes([cdb[2], cdb[3], cdb[4], cdb[5]]);
    let count = u32::from_be_bytes([0, cdb[6], cdb[7], cdb[8]]);
    (u64::from(lba), u64::from(count))
}

/// From a time to a time.
fn by_time(cdb: &[u8; CDB_BYTES]) -> Result<(u64, u64), Sense> {
    let begin = address(&cdb[3..6]).ok_or(Sense::field(3))?;
    let end = address(&cdb[6..9]).filter(|end| *end >= begin).ok_or(Sense::field(6))?;
    Ok((u64::from(begin), u64::from(end - begin)))
}

fn address(time: &[u8]) -> Option<u32> {
    let [minute, second, frame] = [time[0], time[1], time[2]].map(u32::from);
    if second >= 60 || frame >= FRAMES_PER_SECOND {
        return None;
    }
    ((minute * 60 + second) * FRAMES_PER_SECOND + frame).checked_sub(MSF_OFFSET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_addresses() {
        assert_eq!(address(&[0, 2, 0]), Some(0));
        assert_eq!(address(&[1, 0, 74]), Some(58 * 75 + 74));
        for time in [[0, 1, 74], [0, 60, 0], [0, 2, 75], [255, 255, 255]] {
            assert_eq!(address(&time), None, "{time:?}");
        }
    }
}
