//! Every limit of the control plane in one table, so that it can be read, documented and reviewed
//! as one. The data path's limits stand beside the rings and queues they bound.

/// Longest name of an LU or a client. Names become parts of file names and of socket paths, which
/// end at [`SOCKET_PATH_BYTES_MAX`].
pub const NAME_BYTES_MAX: usize = 63;

/// Longest iSCSI name (RFC 7143 4.2.7.2) and NVMe qualified name (NVMe Base 4.7).
pub const QUALIFIED_NAME_BYTES_MAX: usize = 223;

/// Longest path that fits `sockaddr_un` with its closing zero.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// LUs of a cluster.
pub const LUS_MAX: usize = 16_384;

/// Snapshots of an LU.
pub const SNAPSHOTS_PER_LU_MAX: usize = 512;

/// Clients of a cluster.
pub const CLIENTS_MAX: usize = 4_096;

/// Mappings of a cluster.
pub const MAPPINGS_MAX: usize = 65_536;

/// Virtual slots of a client, the reserved ones among them.
pub const SLOTS_PER_CLIENT_MAX: u16 = 256;

/// Slots below this one are reserved.
pub const SLOTS_RESERVED: u16 = 2;

/// LUNs of one adapter, for transports that have more than one: what the single-level addressing
/// of SCSI reaches without flat space (SAM-5 4.7.4).
pub const LUNS_PER_ADAPTER_MAX: u16 = 256;

/// Names of one kind (IQN or NQN) that one client may have.
pub const QUALIFIED_NAMES_PER_CLIENT_MAX: usize = 64;

/// Bytes of a CHAP secret: at least 96 bits where the connection is not encrypted (RFC 7143 9.2.1).
pub const CHAP_SECRET_BYTES_MIN: usize = 12;
pub const CHAP_SECRET_BYTES_MAX: usize = 255;

/// Longest CHAP name.
pub const CHAP_NAME_BYTES_MAX: usize = 255;

/// Smallest and largest LU. The upper end keeps every byte offset within a signed 64-bit file
/// offset with room to spare.
pub const LU_SIZE_MIN: u64 = 4096;
pub const LU_SIZE_MAX: u64 = 1 << 60;

/// A memory LU lives in the node's own memory; more than this is a typing error.
pub const MEMORY_LU_SIZE_MAX: u64 = 1 << 40;

/// virtio-blk's GET_ID answers 20 bytes, the shortest serial of all transports.
pub const SERIAL_BYTES_MAX: usize = 20;

/// Drives of a cluster.
pub const DRIVES_MAX: usize = 4_096;

/// Media of a library.
pub const MEDIA_MAX: usize = 4_096;

/// Largest medium; what has more is no image of any disc.
pub const MEDIUM_SIZE_MAX: u64 = 1 << 40;

/// Longest path of an adopted image or of a file that becomes a medium.
pub const PATH_BYTES_MAX: usize = 4096;

/// Events that a node keeps; the oldest go first.
pub const EVENTS_KEPT_MAX: usize = 10_000;

/// Events in one answer of the API.
pub const EVENTS_PER_PAGE_MAX: usize = 1_000;

/// Longest wait of one request for news (`events?wait_s=`).
pub const WAIT_SECONDS_MAX: u32 = 60;

/// Largest request body: a configuration at the limits above, with room to spare.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Pools of a cluster.
pub const POOLS_MAX: usize = 256;

/// Disks of one pool.
pub const PVS_PER_POOL_MAX: usize = 1_024;

/// What an LU of a pool is given at a time, and what it cuts that into; all are powers of two.
pub const SLAB_SIZE_MIN: u64 = 4 << 20;
pub const SLAB_SIZE_MAX: u64 = 256 << 20;
pub const SLAB_SIZE_DEFAULT: u64 = 16 << 20;
pub const EXTENT_SIZE_MIN: u64 = 64 << 10;
pub const EXTENT_SIZE_MAX: u64 = 4 << 20;
pub const EXTENT_SIZE_DEFAULT: u64 = 256 << 10;
pub const EXTENTS_PER_SLAB_MIN: u64 = 4;

/// Failure groups of a pool: copies of everything that is in it.
pub const GROUPS_MAX: usize = 3;

/// What a map of a pool speaks of: an LU of a pool is a whole number of them.
pub const POOL_BLOCK_BYTES: u64 = 4096;
