//! Mode pages: one table of what they hold, which of it a client may change, and how that is the
//! LU's modes. MODE SENSE and MODE SELECT are written against it.

use wire::scsi::mode::{
    CONTROL_EXTENSION, Control, ControlExtension, ErrorRecovery, InformationalExceptions, PS, Page,
    SPF, caching, control,
};
use wire::scsi::mode::{Caching as CachingPage, Control as ControlPage};
use zerocopy::IntoBytes;

use super::super::mmc;
use super::super::sense::SENSE_BYTES;
use super::super::unit::Kind;
use crate::lun::{ErrorQueue, Interlock, Modes, View};

/// A page: its code and subpage, its values, and the bits that a client may change.
pub struct PageRow {
    pub page: Page,
    pub subpage: u8,
    pub kinds: &'static [Kind],
    pub values: fn(&Modes, &View) -> Vec<u8>,
    pub changeable: fn() -> Vec<u8>,
    /// Takes the changeable bits of a page over. None where they contradict each other.
    pub take: fn(&[u8], &mut Modes) -> Option<()>,
}

/// In the order in which they are told: by page, then by subpage (SPC-4 6.13).
const PAGES: &[PageRow] = &[
    PageRow {
        page: Page::READ_WRITE_ERROR_RECOVERY,
        subpage: 0,
        kinds: &[Kind::Disk, Kind::Optical],
        values: |_, _| bytes_of(&ErrorRecovery { length: 0x0a, ..ErrorRecovery::default() }),
        changeable: || bytes_of(&ErrorRecovery { length: 0x0a, ..ErrorRecovery::default() }),
        take: |_, _| Some(()),
    },
    PageRow {
        page: Page::CACHING,
        subpage: 0,
        kinds: &[Kind::Disk],
        values: |modes, _| caching_values(modes),
        changeable: || caching_page(caching::WCE),
        take: |page, modes| {
            modes.caching.write_back = page[CACHING_FLAGS] & caching::WCE != 0;
            Some(())
        },
    },
    PageRow {
        page: Page::CONTROL,
        subpage: 0,
        kinds: &[Kind::Disk],
        values: |modes, _| control_values(modes),
        changeable: || {
            bytes_of(&ControlPage {
                length: 0x0a,
                flags2: control::D_SENSE,
                flags3: control::QERR,
                flags4: control::SWP | control::UA_INTLCK_CTRL,
                flags5: control::TAS,
                ..ControlPage::default()
            })
        },
        take: take_control,
    },
    PageRow {
        page: Page::CONTROL,
        subpage: CONTROL_EXTENSION,
        kinds: &[Kind::Disk],
        values: |_, _| control_extension(SENSE_BYTES as u8),
        changeable: || control_extension(0),
        take: |_, _| Some(()),
    },
    PageRow {
        page: Page::INFORMATIONAL_EXCEPTIONS,
        subpage: 0,
        kinds: &[Kind::Disk],
        values: |_, _| informational_exceptions(DEXCPT),
        changeable: || informational_exceptions(0),
        take: |_, _| Some(()),
    },
];

/// The pages of a kind of unit.
pub fn of(kind: Kind) -> impl Iterator<Item = &'static PageRow> {
    PAGES.iter().chain(mmc::pages::PAGES).filter(move |row| row.kinds.contains(&kind))
}

/// Of informational exceptions: they are not reported.
const DEXCPT: u8 = 0x08;
const CACHING_FLAGS: usize = std::mem::offset_of!(CachingPage, flags);

impl PageRow {
    /// The page with these modes, its code in front.
    pub fn current(&self, modes: &Modes, view: &View) -> Vec<u8> {
        self.coded((self.values)(modes, view))
    }

    /// The page with every bit set that may be changed.
    pub fn mask(&self) -> Vec<u8> {
        self.coded((self.changeable)())
    }

    fn coded(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        // What cannot be changed need not be saved.
        let saves = (self.changeable)()[self.header_len()..].iter().any(|bits| *bits != 0);
        bytes[0] = self.page.0 | if saves { PS } else { 0 };
        if self.subpage != 0 {
            bytes[0] |= SPF;
            bytes[1] = self.subpage;
        }
        bytes
    }

    /// Bytes of code and length, before what can be changed.
    pub fn header_len(&self) -> usize {
        if self.subpage == 0 { 2 } else { 4 }
    }
}

fn bytes_of<T: IntoBytes + zerocopy::Immutable>(page: &T) -> Vec<u8> {
    page.as_bytes().to_vec()
}

fn caching_values(modes: &Modes) -> Vec<u8> {
    let write_back = if modes.caching.write_back { caching::WCE } else { 0 };
    let off = if modes.caching.read_cache_off { caching::RCD } else { 0 };
    caching_page(write_back | off)
}

fn caching_page(flags: u8) -> Vec<u8> {
    bytes_of(&CachingPage { length: 0x12, flags, ..CachingPage::default() })
}

fn control_values(modes: &Modes) -> Vec<u8> {
    let modes = &modes.control;
    let on = |on: bool, flag: u8| if on { flag } else { 0 };
    let error_queue = match modes.error_queue {
        ErrorQueue::Continue => 0,
        ErrorQueue::AbortAll => 0x02,
        ErrorQueue::AbortOfNexus => 0x06,
    };
    let interlock = match modes.interlock {
        Interlock::Clear => 0,
        Interlock::Keep => 0x20,
        Interlock::KeepAndRaise => 0x30,
    };
    bytes_of(&ControlPage {
        length: 0x0a,
        flags2: control::TST_PER_NEXUS
            | on(modes.descriptor_sense, control::D_SENSE)
            | control::GLTSD,
        flags3: control::UNRESTRICTED_REORDERING | error_queue,
        flags4: interlock | on(modes.write_protect, control::SWP),
        flags5: on(modes.task_aborted_status, control::TAS),
        ..ControlPage::default()
    })
}

fn take_control(page: &[u8], modes: &mut Modes) -> Option<()> {
    let page = zerocopy::FromBytes::read_from_bytes(page).ok()?;
    let Control { flags2, flags3, flags4, flags5, .. } = page;
    modes.control.error_queue = match flags3 & control::QERR {
        0 => ErrorQueue::Continue,
        0x02 => ErrorQueue::AbortAll,
        0x06 => ErrorQueue::AbortOfNexus,
        _ => return None,
    };
    modes.control.interlock = match flags4 & control::UA_INTLCK_CTRL {
        0 => Interlock::Clear,
        0x20 => Interlock::Keep,
        0x30 => Interlock::KeepAndRaise,
        _ => return None,
    };
    modes.control.descriptor_sense = flags2 & control::D_SENSE != 0;
    modes.control.write_protect = flags4 & control::SWP != 0;
    modes.control.task_aborted_status = flags5 & control::TAS != 0;
    Some(())
}

fn control_extension(sense_bytes: u8) -> Vec<u8> {
    bytes_of(&ControlExtension {
        length: 0x1c.into(),
        maximum_sense_data_length: sense_bytes,
        ..ControlExtension::default()
    })
}

fn informational_exceptions(flags: u8) -> Vec<u8> {
    bytes_of(&InformationalExceptions { length: 0x0a, flags, ..InformationalExceptions::default() })
}
