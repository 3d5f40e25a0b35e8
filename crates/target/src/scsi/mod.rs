//! SCSI: the device server of SPC-4 and SBC-3 for one nexus on one core.
//!
//! A transport makes a [`Nexus`] for each initiator port that it serves on a core, maps [`Unit`]s
//! into it, and for each command calls [`Nexus::parse`], collects the data that [`Parsed`] asks
//! for, and awaits [`Nexus::execute`]. What is shared between nexuses is in `lun`.
//!
//! | file | holds |
//! |---|---|
//! | `nexus`, `parsed` | a command's way from CDB to answer |
//! | `table`, `row` | every command, one row each |
//! | `obstacle` | what may stand between a command and its unit |
//! | `manage` | task management |
//! | `copy` | third-party copies |
//! | `persist` | persistent reservations, and the names of initiator ports |
//! | `mmc` | the commands of optical drives |
//! | `spc`, `sbc` | the commands of all devices, and of block devices |
//!
//! Not here: how a transport frames any of it; what a session is.

mod answer;
mod context;
mod copy;
mod env;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod manage;
mod mmc;
mod nexus;
mod obstacle;
mod parsed;
pub mod persist;
mod row;
mod sbc;
mod sense;
mod spc;
mod table;
mod unit;

pub use answer::{Answer, Data, Task};
pub use env::Env;
pub use manage::{Response, TaskManagement};
pub use nexus::{Nexus, Traffic};
pub use obstacle::sense_of;
pub use parsed::{CDB_BYTES, DATA_IN_BYTES_MAX, PARAMETER_LIST_BYTES_MAX, Parsed, Work};
pub use sbc::background::resume;
pub use sbc::limits::TRANSFER_BYTES_MAX;
pub use sense::{SENSE_BYTES, Sense, Specific};
pub use spc::vpd::naa;
pub use unit::{Kind, Settings, TargetPort, Unit};
