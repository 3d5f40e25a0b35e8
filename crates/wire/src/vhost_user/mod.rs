//! vhost-user: the messages between a front end (the VMM) and a back end (us) over a Unix socket.
//!
//! The reference is "Vhost-user Protocol" in QEMU's interoperability documentation; section names
//! in this folder are its. All integers are in the byte order of the machine, because both ends are
//! on it. File descriptors travel beside a message and are no part of these types.

mod inflight;
mod message;
mod payload;

pub use inflight::{
    DescStateSplit, INFLIGHT_ALIGNMENT, INFLIGHT_VERSION, QueueRegionSplit,
    queue_region_split_bytes,
};
pub use message::{
    BackEndRequest, FrontEndRequest, HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, header_flag,
    protocol_feature, virtio_feature,
};
pub use payload::{
    CONFIG_BYTES_MAX, ConfigHeader, INFLIGHT_PACKED_BYTES, Inflight, LOG_PAGE_BYTES, Log,
    MEM_TABLE_REGIONS_MAX, MemRegion, MemTableHeader, SingleMemRegion, VringAddr, VringState,
    config_flag, vring_addr_flag, vring_fd,
};
