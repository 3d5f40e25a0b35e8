//! SCSI: command blocks, sense data and parameter data of SPC-4/5 and SBC-3/4, transport-neutral.
//!
//! | file | holds |
//! |---|---|
//! | [`opcode`] | operation codes and service actions |
//! | [`cdb`] | command descriptor blocks |
//! | [`status`] | status codes, task attributes |
//! | [`sense`] | sense keys, additional sense codes, both formats of sense data |
//! | [`lun`] | how the eight bytes of a LUN address a logical unit |
//! | [`inquiry`], [`vpd`] | INQUIRY data, vital product data |
//! | [`mode`], [`log`] | mode and log pages |
//! | [`capacity`] | READ CAPACITY, GET LBA STATUS, UNMAP, defect lists, FORMAT UNIT, SANITIZE |
//! | [`ports`] | target port groups |
//! | [`copy`] | third-party copies |
//! | [`reservation`] | persistent reservations, transport IDs |
//! | [`mmc`] | optical drives |
//! | [`opcodes`] | REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS |
//!
//! Everything is big endian. Bits within a byte are constants beside the struct that has the byte;
//! a `flags` field is a byte of which the standard names single bits. Not here: what any of it
//! means (`target::scsi`), and how a transport carries it.

mod layout;

pub mod capacity;
pub mod cdb;
pub mod copy;
pub mod inquiry;
pub mod log;
pub mod lun;
pub mod mmc;
pub mod mode;
pub mod opcode;
pub mod opcodes;
pub mod ports;
pub mod reservation;
pub mod sense;
pub mod status;
pub mod vpd;

pub use lun::LogicalUnitNumber;
pub use opcode::Opcode;
pub use sense::{AdditionalSense, SenseKey};
pub use status::{Status, TaskAttribute};
