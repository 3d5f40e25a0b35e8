//! Commands of optical drives (MMC-6): a tray that holds at most one medium, which is only read. The
//! medium is a device of blocks of 2048 bytes, one data track in one session; by its size it is a
//! CD or a DVD, as an image for the one is too large for the other.
//!
//! | file | holds |
//! |---|---|
//! | `table` | the commands, one row each |
//! | `configuration` | features and profiles |
//! | `event` | what happened, for a host that asks |
//! | `toc`, `disc` | contents of the disc; disc, track and structure information |
//! | `read_cd` | READ CD and READ CD MSF |
//! | `tray` | load, eject, lock |
//! | `pages` | mode pages |
//!
//! Not here: writing, audio, copy protection; blocks are read as `sbc` reads them.

mod configuration;
mod disc;
mod event;
pub mod pages;
pub mod read_cd;
pub mod table;
mod toc;
mod tray;

use wire::scsi::mmc::{BLOCK_BYTES, FRAMES_PER_SECOND, MSF_OFFSET, Profile};

use super::unit::Unit;

/// The longest CD: 80 minutes.
const CD_BLOCKS_MAX: u64 = 80 * 60 * FRAMES_PER_SECOND as u64;

/// What is in the drive, as far as it can be read.
fn profile(unit: &Unit) -> Profile {
    match unit.view().medium.is_loaded() {
        false => Profile::NONE,
        true if unit.geometry().size > CD_BLOCKS_MAX * BLOCK_BYTES as u64 => Profile::DVD_ROM,
        true => Profile::CD_ROM,
    }
}

/// Blocks of the medium, as fields of four bytes have them.
fn blocks(unit: &Unit) -> u32 {
    u32::try_from(unit.blocks()).unwrap_or(u32::MAX)
}

/// Minute, second and frame of a block; what has no such address has the last one there is.
fn minutes(lba: u32) -> [u8; 3] {
    let frames = lba.saturating_add(MSF_OFFSET);
    let (seconds, frame) = (frames / FRAMES_PER_SECOND, frames % FRAMES_PER_SECOND);
    match u8::try_from(seconds / 60) {
        Ok(minute) => [minute, (seconds % 60) as u8, frame as u8],
        Err(_) => [u8::MAX, 59, 74],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_minutes_begin_two_seconds_early_and_end_somewhere() {
        assert_eq!(minutes(0), [0, 2, 0]);
        assert_eq!(minutes(74), [0, 2, 74]);
        assert_eq!(minutes(75 * 58), [1, 0, 0]);
        assert_eq!(minutes(256 * 60 * 75 - 151), [255, 59, 74]);
        assert_eq!(minutes(u32::MAX), [255, 59, 74]);
    }
}
