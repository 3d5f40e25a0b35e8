//! The command sets of Viaduct: what clients may ask of a disk, in the words of each protocol,
//! checked against what the disk can do, and the answers in the same words.
//!
//! Not here: transports and rings (`front`), sessions (`proto`), the disk itself (`block`). Nothing
//! in this crate waits, and nothing in it touches memory that a client can change.

#![forbid(unsafe_code)]

pub mod lun;
pub mod scsi;
pub mod virtio_blk;
pub mod virtio_scsi;
