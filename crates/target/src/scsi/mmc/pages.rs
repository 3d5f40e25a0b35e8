//! Mode pages of optical drives. None of them can be changed.

use wire::scsi::mmc::{
    AUDIO_CONTROL, AudioControl, CAPABILITIES, CD_PARAMETERS, Capabilities, CdParameters,
    FRAMES_PER_SECOND, LOCKED, MECHANISM, PowerCondition, READS_CD_R, READS_CD_RW, READS_DVD_ROM,
    SPEED_1X, TIMEOUT_AND_PROTECT, TimeoutAndProtect,
};
use wire::scsi::mode::Page;
use zerocopy::{FromZeros, Immutable, IntoBytes};

use super::super::spc::pages::PageRow;
use super::super::unit::Kind;
use crate::lun::{Modes, View};

/// IMMED: audio commands, of which there are none, would be answered at once.
const IMMEDIATE: u8 = 0x04;
/// How fast a drive says that it is, as a multiple of a CD once around.
const SPEED: u16 = 50;
const BUFFER_KIB: u16 = 2048;

/// In ascending order.
pub const PAGES: &[PageRow] = &[
    row(CD_PARAMETERS, |_, _| page(&cd_parameters()), fixed::<CdParameters>),
    row(AUDIO_CONTROL, |_, _| page(&audio_control()), fixed::<AudioControl>),
    row(Page::POWER_CONDITION, |_, _| fixed::<PowerCondition>(), fixed::<PowerCondition>),
    row(TIMEOUT_AND_PROTECT, |_, _| fixed::<TimeoutAndProtect>(), fixed::<TimeoutAndProtect>),
    row(CAPABILITIES, |_, view| page(&capabilities(view)), fixed::<Capabilities>),
];

const fn row(
    page: Page,
    values: fn(&Modes, &View) -> Vec<u8>,
    changeable: fn() -> Vec<u8>,
) -> PageRow {
    let kinds = &[Kind::Optical];
    PageRow { page, subpage: 0, kinds, values, changeable, take: |_, _| Some(()) }
}

/// A page with the length of its body in its place.
fn page<T: IntoBytes + Immutable>(page: &T) -> Vec<u8> {
    let mut bytes = page.as_bytes().to_vec();
    bytes[1] = (bytes.len() - 2) as u8;
    bytes
}

/// A page in which nothing is set, or nothing can be changed.
fn fixed<T: FromZeros + IntoBytes + Immutable>() -> Vec<u8> {
    page(&T::new_zeroed())
}

fn cd_parameters() -> CdParameters {
    CdParameters {
        seconds_per_minute: 60.into(),
        frames_per_second: (FRAMES_PER_SECOND as u16).into(),
        ..CdParameters::default()
    }
}

fn audio_control() -> AudioControl {
    AudioControl { flags: IMMEDIATE, ..AudioControl::default() }
}

fn capabilities(view: &View) -> Capabilities {
    let locked = if view.preventing.is_empty() { 0 } else { LOCKED };
    Capabilities {
        reads: READS_CD_R | READS_CD_RW | READS_DVD_ROM,
        mechanism: MECHANISM | locked,
        speed_max: (SPEED * SPEED_1X).into(),
        speed: (SPEED * SPEED_1X).into(),
        buffer_kib: BUFFER_KIB.into(),
        ..Capabilities::default()
    }
}
