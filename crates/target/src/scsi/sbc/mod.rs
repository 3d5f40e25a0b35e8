//! Commands of block devices (SBC-3).

pub mod background;
pub mod cache;
pub mod capacity;
pub mod defects;
pub mod format;
pub mod lba_status;
pub mod limits;
pub mod same;
pub mod sanitize;
pub mod start_stop;
pub mod transfer;
pub mod unmap;
pub mod verify;
