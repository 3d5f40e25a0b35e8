//! The driver's side of the virtual disk: one split ring, and a fixed place for each request.
//!
//! Request `slot` always has descriptors from [`SLOT_DESCS`] x slot on, and buffers of its own, so
//! that a test says which memory a request uses and what must become of it. When the server is gone
//! and another has come, the client does what QEMU does: the rings stay as they are, the in-flight
//! area goes to the new one, which is told to go on at the used index.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use proto::vhost_user::{InflightArea, Request, Response, RingAddresses};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use system_tests::verify::BLOCK_BYTES;
use system_tests::{Context, Error, Result};
use wire::vhost_user::{protocol_feature, virtio_feature};
use wire::virtio::blk::{
    self, DiscardWriteZeroes, RequestHeader, RequestType, SECTOR_BYTES, Status,
};
use wire::virtio::feature;
use wire::virtio::ring::{
    Desc, UsedElem, avail_ring_bytes, desc_flag, desc_table_bytes, used_ring_bytes,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::memory::Memory;
use crate::session::{PATIENCE, RECONNECT, Session};

/// Requests that can be out at once.
pub const SLOTS: u16 = 16;
const RING_SIZE: u16 = 64;
/// Header, data, status.
const SLOT_DESCS: u16 = 3;
const PAGE_BYTES: u64 = 4096;
/// What a status byte is before the device has written it.
const UNTOUCHED: u8 = 0xaa;
/// An answer whose notification went to a dead server's eventfd is found by looking.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

const FEATURES: u64 = feature::VERSION_1
    | virtio_feature::PROTOCOL_FEATURES
    | blk::feature::FLUSH
    | blk::feature::DISCARD
    | blk::feature::WRITE_ZEROES
    | blk::feature::BLK_SIZE;
const PROTOCOL_FEATURES: u64 = protocol_feature::REPLY_ACK
    | protocol_feature::CONFIG
    | protocol_feature::MQ
    | protocol_feature::INFLIGHT_SHMFD;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// The block, in blocks of [`BLOCK_BYTES`].
    Read(u64),
    Write(u64),
    WriteZeroes(u64),
    Discard(u64),
    Flush,
}

impl Op {
    fn request_type(self) -> RequestType {
        match self {
            Self::Read(_) => RequestType::IN,
            Self::Write(_) => RequestType::OUT,
            Self::WriteZeroes(_) => RequestType::WRITE_ZEROES,
            Self::Discard(_) => RequestType::DISCARD,
            Self::Flush => RequestType::FLUSH,
        }
    }

    /// The sector that the request's header names, and how many bytes of data it has, which the
    /// device reads or writes.
    fn parts(self) -> (u64, usize, u16) {
        match self {
            Self::Read(block) => (sector(block), BLOCK_BYTES, desc_flag::WRITE),
            Self::Write(block) => (sector(block), BLOCK_BYTES, 0),
            Self::WriteZeroes(_) | Self::Discard(_) => (0, size_of::<DiscardWriteZeroes>(), 0),
            Self::Flush => (0, 0, 0),
        }
    }
}

fn sector(block: u64) -> u64 {
    block * BLOCK_BYTES as u64 / SECTOR_BYTES
}

/// Where a request lies in the memory.
#[derive(Clone, Copy)]
struct Slot {
    header: u64,
    data: u64,
    status: u64,
    is_out: bool,
}

pub struct Disk {
    path: PathBuf,
    pub memory: Memory,
    session: Option<Session>,
    features: u64,
    inflight: Option<(InflightArea, OwnedFd)>,
    kick: OwnedFd,
    call: OwnedFd,
    addresses: RingAddresses,
    slots: Vec<Slot>,
    next_avail: u16,
    next_used: u16,
}

impl Disk {
    pub fn new(socket: &Path) -> Result<Self> {
        let memory = Memory::new()?;
        let addresses = RingAddresses {
            descriptor: memory.take(desc_table_bytes(RING_SIZE), PAGE_BYTES),
            available: memory.take(avail_ring_bytes(RING_SIZE), PAGE_BYTES),
            used: memory.take(used_ring_bytes(RING_SIZE), PAGE_BYTES),
            log: None,
        };
        let slot = |_| Slot {
            header: memory.take(PAGE_BYTES, PAGE_BYTES),
            data: memory.take(BLOCK_BYTES as u64, PAGE_BYTES),
            status: memory.take(PAGE_BYTES, PAGE_BYTES),
            is_out: false,
        };
        let slots = (0..SLOTS).map(slot).collect();
        Ok(Self {
            path: socket.to_path_buf(),
            memory,
            session: None,
            features: 0,
            inflight: None,
            kick: event()?,
            call: event()?,
            addresses,
            slots,
            next_avail: 0,
            next_used: 0,
        })
    }

    /// Connects to the server, or to its successor; returns the disk's size in blocks. A connection
    /// may still go to the dead one's socket, and end with that.
    pub fn attach(&mut self) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_attach() {
                Err(_) if Instant::now() < deadline => thread::sleep(RECONNECT),
                result => return result,
            }
        }
    }

    fn try_attach(&mut self) -> Result<u64> {
        self.session = None;
        let mut session = Session::connect(&self.path)?;
        session.done(Request::SetOwner)?;
        let offered = session.number(Request::GetFeatures)?;
        let protocol = session.number(Request::GetProtocolFeatures)? & PROTOCOL_FEATURES;
        session.done(Request::SetProtocolFeatures(protocol))?;
        let size = size_of::<blk::Config>() as u32;
        let config = match session.ask(Request::GetConfig { offset: 0, size, flags: 0 })? {
            Response::Config(bytes) => blk::Config::read_from_bytes(&bytes).ok(),
            _ => None,
        };
        let config = config.context(|| "the server has no configuration".into())?;
        self.features = offered & FEATURES;
        session.done(Request::SetFeatures(self.features))?;
        self.set_inflight(&mut session)?;
        session.done(Request::SetMemTable(vec![self.memory.region()?]))?;
        session.done(Request::SetVringNum { ring: 0, num: RING_SIZE })?;
        let base = u16::from_le(self.memory.load(self.addresses.used + 2));
        session.done(Request::SetVringBase { ring: 0, base })?;
        session.done(Request::SetVringAddr { ring: 0, addresses: self.addresses })?;
        session.done(Request::SetVringKick { ring: 0, fd: Some(self.kick.try_clone()?) })?;
        session.done(Request::SetVringCall { ring: 0, fd: Some(self.call.try_clone()?) })?;
        session.done(Request::SetVringEnable { ring: 0, enable: true })?;
        self.session = Some(session);
        Ok(config.capacity.get() * SECTOR_BYTES / BLOCK_BYTES as u64)
    }

    fn set_inflight(&mut self, session: &mut Session) -> Result<()> {
        if self.inflight.is_none() {
            let (num_queues, queue_size) = (1, RING_SIZE);
            let wanted = InflightArea { num_queues, queue_size, ..InflightArea::default() };
            self.inflight = match session.ask(Request::GetInflightFd(wanted))? {
                Response::Inflight(area, fd) => Some((area, fd)),
                other => return Err(Error::new(format!("no in-flight area: {other:?}"))),
            };
        }
        let Some((area, fd)) = &self.inflight else { return Ok(()) };
        session.done(Request::SetInflightFd(*area, fd.try_clone()?))
    }

    /// Not every store can discard.
    pub fn has_discard(&self) -> bool {
        self.features & blk::feature::DISCARD != 0
    }

    /// The data that a slot's request carries, or has got.
    pub fn data(&self, slot: u16) -> Vec<u8> {
        self.memory.read(self.slots[usize::from(slot)].data, BLOCK_BYTES)
    }

    pub fn set_data(&self, slot: u16, bytes: &[u8]) {
        self.memory.write(self.slots[usize::from(slot)].data, bytes);
    }

    /// Puts a request into the ring; [`kick`](Self::kick) tells the server.
    pub fn place(&mut self, slot: u16, op: Op) {
        let place = &mut self.slots[usize::from(slot)];
        assert!(!place.is_out, "slot {slot} has a request");
        place.is_out = true;
        let place = *place;
        if let Op::WriteZeroes(block) | Op::Discard(block) = op {
            let range = DiscardWriteZeroes {
                sector: sector(block).into(),
                num_sectors: (sector(1) as u32).into(),
                flags: 0.into(),
            };
            self.memory.write(place.data, range.as_bytes());
        }
        let (sector, data_bytes, data_flag) = op.parts();
        let request_type = op.request_type().0.into();
        let header = RequestHeader { request_type, reserved: 0.into(), sector: sector.into() };
        self.memory.write(place.header, header.as_bytes());
        self.memory.write(place.status, &[UNTOUCHED]);
        let mut parts = vec![(place.header, size_of::<RequestHeader>() as u32, 0)];
        parts.extend((data_bytes > 0).then_some((place.data, data_bytes as u32, data_flag)));
        parts.push((place.status, 1, desc_flag::WRITE));
        let head = SLOT_DESCS * slot;
        self.describe(head, &parts);
        let entry = u64::from(self.next_avail % RING_SIZE);
        self.memory.store(self.addresses.available + 4 + 2 * entry, head.to_le());
        self.next_avail = self.next_avail.wrapping_add(1);
        self.memory.store(self.addresses.available + 2, self.next_avail.to_le());
    }

    /// Writes a chain of descriptors from `first` on.
    fn describe(&self, first: u16, parts: &[(u64, u32, u16)]) {
        for (index, &(addr, len, flags)) in (first..).zip(parts) {
            let is_last = usize::from(index - first) + 1 == parts.len();
            let (next, flag) = if is_last { (0, 0) } else { (index + 1, desc_flag::NEXT) };
            let desc = Desc {
                addr: addr.into(),
                len: len.into(),
                flags: (flags | flag).into(),
                next: next.into(),
            };
            let at = self.addresses.descriptor + u64::from(index) * size_of::<Desc>() as u64;
            self.memory.write(at, desc.as_bytes());
        }
    }

    pub fn kick(&self) -> Result<()> {
        rustix::io::write(&self.kick, &1u64.to_ne_bytes()).context(|| "kick".into()).map(drop)
    }

    pub fn is_out(&self, slot: u16) -> bool {
        self.slots[usize::from(slot)].is_out
    }

    pub fn is_idle(&self) -> bool {
        !self.slots.iter().any(|slot| slot.is_out)
    }

    /// Waits until nothing is out; when each answer was seen.
    pub fn wait(&mut self) -> Result<Vec<Instant>> {
        let deadline = Instant::now() + PATIENCE;
        let mut answers = Vec::new();
        while !self.is_idle() {
            if Instant::now() > deadline {
                return Err(Error::new(format!("no answer any more after {answers:?}")));
            }
            let mut fds = [PollFd::new(&self.call, PollFlags::IN)];
            poll(&mut fds, Some(&LOOK_AGAIN)).context(|| "poll".into())?;
            // Nothing to read is right too: the answer may have come without a notification.
            let _count = rustix::io::read(&self.call, &mut [0; 8]);
            answers.append(&mut self.answers()?);
        }
        Ok(answers)
    }

    /// What has been answered since the last look; an answer that nobody waits for, or one that
    /// says that the request failed, is an error.
    pub fn answers(&mut self) -> Result<Vec<Instant>> {
        let mut answers = Vec::new();
        let used = self.addresses.used;
        while u16::from_le(self.memory.load(used + 2)) != self.next_used {
            let at = Instant::now();
            let entry = u64::from(self.next_used % RING_SIZE) * size_of::<UsedElem>() as u64;
            let id = u32::from_le(self.memory.load(used + 4 + entry));
            self.next_used = self.next_used.wrapping_add(1);
            let descs = u32::from(SLOT_DESCS);
            let slot = id as usize / descs as usize;
            let is_head = id.is_multiple_of(descs);
            let place = self.slots.get_mut(slot).filter(|it| is_head && it.is_out);
            let place = place.context(|| format!("{id} was answered and is not out"))?;
            place.is_out = false;
            let status = Status(self.memory.read(place.status, 1)[0]);
            if status != Status::OK {
                return Err(Error::new(format!("slot {slot}: {status:?}")));
            }
            answers.push(at);
        }
        Ok(answers)
    }

    /// Whether a disk is served at all.
    pub fn read_one(mut self) -> Result<()> {
        self.attach()?;
        self.perform(0, Op::Read(0))
    }

    /// Gives the server requests in memory that is gone, and waits for its word that the queue is
    /// broken.
    pub fn cut_memory(mut self) -> Result<()> {
        self.attach()?;
        let broken = event()?;
        let session = self.session.as_mut().context(|| "no session".into())?;
        session.done(Request::SetVringErr { ring: 0, fd: Some(broken.try_clone()?) })?;
        for slot in 0..SLOTS {
            self.place(slot, Op::Read(u64::from(slot)));
        }
        self.memory.cut()?;
        self.kick()?;
        let patience = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&broken, PollFlags::IN)];
        match poll(&mut fds, Some(&patience)).context(|| "poll".into())? {
            0 => Err(Error::new("the server does not say that the queue is broken")),
            _ => Ok(()),
        }
    }

    /// One request to its end.
    pub fn perform(&mut self, slot: u16, op: Op) -> Result<()> {
        self.place(slot, op);
        self.kick()?;
        self.wait().map(drop)
    }
}

fn event() -> Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(|| "eventfd".into())
}
