//! Requests of a front end as a closed enum, read from and written to bytes. What is checked here
//! is what a message says about itself; whether it fits what was declared before is `declared`'s.

use super::error::Violation;
use super::memory::MemoryRegion;
use super::ring::{RING_COUNT_MAX, RingAddresses};
use super::table::Row;
use wire::vhost_user::{
    ConfigHeader, FrontEndRequest as Code, Inflight, Log, MemRegion, MemTableHeader,
    SingleMemRegion, VringAddr, VringState, vring_addr_flag, vring_fd,
};
use wire::virtio::ring::QUEUE_SIZE_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a front end asks for. `F` stands for a file descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<F> {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    /// Deprecated; taken as "disable all rings".
    ResetOwner,
    ResetDevice,
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    GetQueueNum,
    GetMaxMemSlots,
    /// Replaces all regions.
    SetMemTable(Vec<(MemoryRegion, F)>),
    AddMemReg(MemoryRegion, F),
    RemMemReg(MemoryRegion),
    SetLogBase(LogArea, F),
    /// An eventfd to signal when the log has changed.
    SetLogFd(F),
    SetVringNum {
        ring: u16,
        num: u16,
    },
    SetVringAddr {
        ring: u16,
        addresses: RingAddresses,
    },
    SetVringBase {
        ring: u16,
        base: u16,
    },
    /// Stop the ring; answer with its next available index once all its requests are done.
    GetVringBase {
        ring: u16,
    },
    /// Without a descriptor: poll the ring.
    SetVringKick {
        ring: u16,
        fd: Option<F>,
    },
    /// Without a descriptor: do not signal, the front end polls.
    SetVringCall {
        ring: u16,
        fd: Option<F>,
    },
    SetVringErr {
        ring: u16,
        fd: Option<F>,
    },
    SetVringEnable {
        ring: u16,
        enable: bool,
    },
    GetConfig {
        offset: u32,
        size: u32,
        flags: u32,
    },
    SetConfig {
        offset: u32,
        flags: u32,
        bytes: Vec<u8>,
    },
    /// The socket for requests of the back end; see `BackEndChannel`.
    SetBackendReqFd(F),
    /// Make an in-flight area for these queues.
    GetInflightFd(InflightArea),
    /// Use this in-flight area.
    SetInflightFd(InflightArea, F),
}

/// Where the dirty log lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogArea {
    pub mmap_size: u64,
    pub mmap_offset: u64,
}

/// Where the in-flight area lies in its file, and for which queues it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InflightArea {
    pub mmap_size: u64,
    pub mmap_offset: u64,
    pub num_queues: u16,
    pub queue_size: u16,
}

/// A message to be sent: what [`Request::encode`] makes.
pub(super) struct Encoded<F> {
    pub(super) code: Code,
    pub(super) payload: Vec<u8>,
    pub(super) fds: Vec<F>,
}

impl<F> Request<F> {
    /// Reads a payload whose size and number of file descriptors the row has accepted. What it
    /// takes of `fds` is in the request; the rest nobody needs.
    pub(super) fn parse(row: &Row, payload: &[u8], fds: &mut Vec<F>) -> Result<Self, Violation> {
        Ok(match row.code {
            Code::GET_FEATURES => Self::GetFeatures,
            Code::SET_FEATURES => Self::SetFeatures(read_u64(payload)),
            Code::SET_OWNER => Self::SetOwner,
            Code::RESET_OWNER => Self::ResetOwner,
            Code::RESET_DEVICE => Self::ResetDevice,
            Code::GET_PROTOCOL_FEATURES => Self::GetProtocolFeatures,
            Code::SET_PROTOCOL_FEATURES => Self::SetProtocolFeatures(read_u64(payload)),
            Code::GET_QUEUE_NUM => Self::GetQueueNum,
            Code::GET_MAX_MEM_SLOTS => Self::GetMaxMemSlots,
            Code::SET_MEM_TABLE => Self::SetMemTable(read_mem_table(payload, fds)?),
            Code::ADD_MEM_REG => Self::AddMemReg(read_region(payload), only(fds)),
            Code::REM_MEM_REG => Self::RemMemReg(read_region(payload)),
            Code::SET_LOG_BASE => Self::SetLogBase(read_log(payload), only(fds)),
            Code::SET_LOG_FD => Self::SetLogFd(only(fds)),
            Code::SET_VRING_NUM => {
                let (ring, num) = read_state(payload)?;
                let too_many = |_| Violation::RingSize { num, max: QUEUE_SIZE_MAX };
                Self::SetVringNum { ring, num: u16::try_from(num).map_err(too_many)? }
            }
            Code::SET_VRING_ADDR => read_addresses(payload)?,
            Code::SET_VRING_BASE => {
                let (ring, base) = read_state(payload)?;
                let base = u16::try_from(base).map_err(|_| Violation::RingBase(base))?;
                Self::SetVringBase { ring, base }
            }
            Code::GET_VRING_BASE => Self::GetVringBase { ring: read_state(payload)?.0 },
            Code::SET_VRING_KICK => {
                let (ring, fd) = read_vring_fd(payload, fds)?;
                Self::SetVringKick { ring, fd }
            }
            Code::SET_VRING_CALL => {
                let (ring, fd) = read_vring_fd(payload, fds)?;
                Self::SetVringCall { ring, fd }
            }
            Code::SET_VRING_ERR => {
                let (ring, fd) = read_vring_fd(payload, fds)?;
                Self::SetVringErr { ring, fd }
            }
            Code::SET_VRING_ENABLE => match read_state(payload)? {
                (ring, num @ (0 | 1)) => Self::SetVringEnable { ring, enable: num == 1 },
                (_, num) => return Err(Violation::RingEnable(num)),
            },
            Code::GET_CONFIG => {
                let (header, _) = read_config(payload)?;
                let (offset, size) = (config_offset(header.offset.get()), header.size.get());
                Self::GetConfig { offset, size, flags: header.flags.get() }
            }
            Code::SET_CONFIG => {
                let (header, bytes) = read_config(payload)?;
                let offset = config_offset(header.offset.get());
                Self::SetConfig { offset, flags: header.flags.get(), bytes: bytes.to_vec() }
            }
            Code::SET_BACKEND_REQ_FD => Self::SetBackendReqFd(only(fds)),
            Code::GET_INFLIGHT_FD => Self::GetInflightFd(read_inflight(payload)),
            Code::SET_INFLIGHT_FD => Self::SetInflightFd(read_inflight(payload), only(fds)),
            _ => return Err(Violation::Unsupported),
        })
    }

    /// The inverse of [`parse`](Self::parse), for the front end.
    pub(super) fn encode(self) -> Encoded<F> {
        let none = || (Vec::new(), Vec::new());
        let u64 = |value: u64| (value.to_ne_bytes().to_vec(), Vec::new());
        let (code, (payload, fds)) = match self {
            Self::GetFeatures => (Code::GET_FEATURES, none()),
            Self::SetFeatures(features) => (Code::SET_FEATURES, u64(features)),
            Self::SetOwner => (Code::SET_OWNER, none()),
            Self::ResetOwner => (Code::RESET_OWNER, none()),
            Self::ResetDevice => (Code::RESET_DEVICE, none()),
            Self::GetProtocolFeatures => (Code::GET_PROTOCOL_FEATURES, none()),
            Self::SetProtocolFeatures(features) => (Code::SET_PROTOCOL_FEATURES, u64(features)),
            Self::GetQueueNum => (Code::GET_QUEUE_NUM, none()),
            Self::GetMaxMemSlots => (Code::GET_MAX_MEM_SLOTS, none()),
            Self::SetMemTable(regions) => (Code::SET_MEM_TABLE, write_mem_table(regions)),
            Self::AddMemReg(region, fd) => (Code::ADD_MEM_REG, (write_region(&region), vec![fd])),
            Self::RemMemReg(region) => (Code::REM_MEM_REG, (write_region(&region), Vec::new())),
            Self::SetLogBase(log, fd) => (Code::SET_LOG_BASE, (write_log(&log), vec![fd])),
            Self::SetLogFd(fd) => (Code::SET_LOG_FD, (Vec::new(), vec![fd])),
            Self::SetVringNum { ring, num } => (Code::SET_VRING_NUM, write_state(ring, num)),
            Self::SetVringAddr { ring, addresses } => {
                (Code::SET_VRING_ADDR, (write_addresses(ring, &addresses), Vec::new()))
            }
            Self::SetVringBase { ring, base } => (Code::SET_VRING_BASE, write_state(ring, base)),
            Self::GetVringBase { ring } => (Code::GET_VRING_BASE, write_state(ring, 0)),
            Self::SetVringKick { ring, fd } => (Code::SET_VRING_KICK, write_vring_fd(ring, fd)),
            Self::SetVringCall { ring, fd } => (Code::SET_VRING_CALL, write_vring_fd(ring, fd)),
            Self::SetVringErr { ring, fd } => (Code::SET_VRING_ERR, write_vring_fd(ring, fd)),
            Self::SetVringEnable { ring, enable } => {
                (Code::SET_VRING_ENABLE, write_state(ring, enable.into()))
            }
            Self::GetConfig { offset, size, flags } => {
                let space = vec![0; size as usize];
                (Code::GET_CONFIG, (write_config(offset, flags, &space), Vec::new()))
            }
            Self::SetConfig { offset, flags, bytes } => {
                (Code::SET_CONFIG, (write_config(offset, flags, &bytes), Vec::new()))
            }
            Self::SetBackendReqFd(fd) => (Code::SET_BACKEND_REQ_FD, (Vec::new(), vec![fd])),
            Self::GetInflightFd(area) => {
                (Code::GET_INFLIGHT_FD, (write_inflight(&area), Vec::new()))
            }
            Self::SetInflightFd(area, fd) => {
                (Code::SET_INFLIGHT_FD, (write_inflight(&area), vec![fd]))
            }
        };
        Encoded { code, payload, fds }
    }

    /// The ring that the request names.
    pub fn ring(&self) -> Option<u16> {
        match self {
            Self::SetVringNum { ring, .. }
            | Self::SetVringAddr { ring, .. }
            | Self::SetVringBase { ring, .. }
            | Self::GetVringBase { ring }
            | Self::SetVringKick { ring, .. }
            | Self::SetVringCall { ring, .. }
            | Self::SetVringErr { ring, .. }
            | Self::SetVringEnable { ring, .. } => Some(*ring),
            _ => None,
        }
    }
}

/// Front ends built on rust-vmm's constants count from the place where the configuration space
/// lies behind virtio-mmio, 0x100. The space is 256 bytes long, so no offset means two things.
pub(super) fn config_offset(offset: u32) -> u32 {
    const MMIO_CONFIG_OFFSET: u32 = 0x100;
    if offset >= MMIO_CONFIG_OFFSET { offset - MMIO_CONFIG_OFFSET } else { offset }
}

fn read<T: FromBytes + KnownLayout + Immutable>(payload: &[u8]) -> T {
    T::read_from_prefix(payload).expect("the table has checked the size").0
}

fn only<F>(fds: &mut Vec<F>) -> F {
    fds.pop().expect("the table has checked the number of file descriptors")
}

pub(super) fn read_u64(payload: &[u8]) -> u64 {
    read::<zerocopy::byteorder::native_endian::U64>(payload).get()
}

fn ring_index(index: u32) -> Result<u16, Violation> {
    match u16::try_from(index) {
        Ok(ring) if usize::from(ring) < RING_COUNT_MAX => Ok(ring),
        _ => Err(Violation::RingIndex { index, count: RING_COUNT_MAX }),
    }
}

fn read_state(payload: &[u8]) -> Result<(u16, u32), Violation> {
    let state: VringState = read(payload);
    Ok((ring_index(state.index.get())?, state.num.get()))
}

fn write_state<F>(ring: u16, num: u16) -> (Vec<u8>, Vec<F>) {
    let state = VringState { index: u32::from(ring).into(), num: u32::from(num).into() };
    (state.as_bytes().to_vec(), Vec::new())
}

fn read_addresses<F>(payload: &[u8]) -> Result<Request<F>, Violation> {
    let wire: VringAddr = read(payload);
    let flags = wire.flags.get();
    if flags & !vring_addr_flag::LOG != 0 {
        return Err(Violation::RingFlags(flags));
    }
    let addresses = RingAddresses {
        descriptor: wire.descriptor.get(),
        used: wire.used.get(),
        available: wire.available.get(),
        log: (flags & vring_addr_flag::LOG != 0).then_some(wire.log.get()),
    };
    Ok(Request::SetVringAddr { ring: ring_index(wire.index.get())?, addresses })
}

fn write_addresses(ring: u16, addresses: &RingAddresses) -> Vec<u8> {
    let flags = if addresses.log.is_some() { vring_addr_flag::LOG } else { 0 };
    let wire = VringAddr {
        index: u32::from(ring).into(),
        flags: flags.into(),
        descriptor: addresses.descriptor.into(),
        used: addresses.used.into(),
        available: addresses.available.into(),
        log: addresses.log.unwrap_or(0).into(),
    };
    wire.as_bytes().to_vec()
}

fn read_vring_fd<F>(payload: &[u8], fds: &mut Vec<F>) -> Result<(u16, Option<F>), Violation> {
    let value = read_u64(payload);
    let flagged = usize::from(value & vring_fd::NO_FD == 0);
    if fds.len() != flagged {
        return Err(Violation::RingFd { count: fds.len(), flagged });
    }
    Ok(((value & vring_fd::INDEX_MASK) as u16, fds.pop()))
}

fn write_vring_fd<F>(ring: u16, fd: Option<F>) -> (Vec<u8>, Vec<F>) {
    let flag = if fd.is_some() { 0 } else { vring_fd::NO_FD };
    let value = u64::from(ring) & vring_fd::INDEX_MASK | flag;
    (value.to_ne_bytes().to_vec(), fd.into_iter().collect())
}

fn read_mem_table<F>(
    payload: &[u8],
    fds: &mut Vec<F>,
) -> Result<Vec<(MemoryRegion, F)>, Violation> {
    let header: MemTableHeader = read(payload);
    let (regions, _) = payload[size_of::<MemTableHeader>()..].as_chunks();
    let announced = header.num_regions.get();
    if announced as usize != regions.len() || regions.len() != fds.len() {
        return Err(Violation::RegionCount { regions: announced, fds: fds.len() });
    }
    let parse = |bytes: &[u8; size_of::<MemRegion>()]| MemoryRegion::from(&read(bytes));
    Ok(regions.iter().map(parse).zip(fds.drain(..)).collect())
}

fn write_mem_table<F>(regions: Vec<(MemoryRegion, F)>) -> (Vec<u8>, Vec<F>) {
    let count = u32::try_from(regions.len()).expect("a table is short");
    let header = MemTableHeader { num_regions: count.into(), padding: 0.into() };
    let mut payload = header.as_bytes().to_vec();
    let mut fds = Vec::with_capacity(regions.len());
    for (region, fd) in regions {
        payload.extend_from_slice(MemRegion::from(&region).as_bytes());
        fds.push(fd);
    }
    (payload, fds)
}

fn read_region(payload: &[u8]) -> MemoryRegion {
    MemoryRegion::from(&read::<SingleMemRegion>(payload).region)
}

fn write_region(region: &MemoryRegion) -> Vec<u8> {
    SingleMemRegion { padding: 0.into(), region: region.into() }.as_bytes().to_vec()
}

fn read_log(payload: &[u8]) -> LogArea {
    let wire: Log = read(payload);
    LogArea { mmap_size: wire.mmap_size.get(), mmap_offset: wire.mmap_offset.get() }
}

fn write_log(log: &LogArea) -> Vec<u8> {
    let wire = Log { mmap_size: log.mmap_size.into(), mmap_offset: log.mmap_offset.into() };
    wire.as_bytes().to_vec()
}

pub(super) fn read_config(payload: &[u8]) -> Result<(ConfigHeader, &[u8]), Violation> {
    let header: ConfigHeader = read(payload);
    let bytes = &payload[size_of::<ConfigHeader>()..];
    if header.size.get() as usize != bytes.len() {
        return Err(Violation::ConfigSize { size: header.size.get(), payload: bytes.len() });
    }
    Ok((header, bytes))
}

pub(super) fn write_config(offset: u32, flags: u32, bytes: &[u8]) -> Vec<u8> {
    let size = u32::try_from(bytes.len()).expect("a configuration space is short");
    let header = ConfigHeader { offset: offset.into(), size: size.into(), flags: flags.into() };
    [header.as_bytes(), bytes].concat()
}

/// The tail padding of the struct may be missing, so it is read from a padded copy.
pub(super) fn read_inflight(payload: &[u8]) -> InflightArea {
    let mut padded = [0; size_of::<Inflight>()];
    padded[..payload.len()].copy_from_slice(payload);
    let wire: Inflight = read(&padded);
    InflightArea {
        mmap_size: wire.mmap_size.get(),
        mmap_offset: wire.mmap_offset.get(),
        num_queues: wire.num_queues.get(),
        queue_size: wire.queue_size.get(),
    }
}

pub(super) fn write_inflight(area: &InflightArea) -> Vec<u8> {
    let wire = Inflight {
        mmap_size: area.mmap_size.into(),
        mmap_offset: area.mmap_offset.into(),
        num_queues: area.num_queues.into(),
        queue_size: area.queue_size.into(),
        padding: [0; 4],
    };
    wire.as_bytes().to_vec()
}
