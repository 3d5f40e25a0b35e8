//! Status codes (SAM-5 5.3.1), task attributes and task management functions.

use crate::open_enum::open_enum;

open_enum! {
    /// How a command ended.
    pub enum Status: u8 {
        GOOD = 0x00,
        CHECK_CONDITION = 0x02,
        CONDITION_MET = 0x04,
        BUSY = 0x08,
        RESERVATION_CONFLICT = 0x18,
        TASK_SET_FULL = 0x28,
        ACA_ACTIVE = 0x30,
        TASK_ABORTED = 0x40,
    }
}

/// How a task may be ordered among others (SAM-5 8.6). Transports encode it differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskAttribute {
    #[default]
    Simple,
    HeadOfQueue,
    Ordered,
    Aca,
}
