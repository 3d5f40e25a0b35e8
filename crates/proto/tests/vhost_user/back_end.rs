//! The `vhost` crate's front end against our back end.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use proto::vhost_user::{
    BackEnd, Error, InflightArea, LogArea, MemoryRegion, Offer, PROTOCOL_FEATURES, Reply, Request,
    RingAddresses,
};
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::socket;

const FEATURES: u64 = 0x1_3000_0244;
const ALL_FEATURES: u64 = FEATURES | 1 << 26 | 1 << 30;

pub const OFFER: Offer = Offer {
    features: FEATURES,
    protocol_features: PROTOCOL_FEATURES,
    ring_count: 2,
    ring_size_max: 256,
    mem_slots_max: 32,
};

/// What the owner saw, with each descriptor as the inode of its file.
type Seen = Vec<Request<u64>>;

/// Serves until the front end hangs up. In-flight areas are answered with `inflight`; the requests
/// in `refuse` are refused.
fn serve(
    socket: UnixStream,
    inflight: OwnedFd,
    refuse: fn(&Request<u64>) -> bool,
) -> JoinHandle<Result<Seen, Error>> {
    std::thread::spawn(move || {
        let mut inflight = Some(inflight);
        let mut back = BackEnd::<OwnedFd>::new(OFFER);
        let mut seen = Seen::new();
        while let Some(inbound) = socket::next_request(&mut back, &socket)? {
            let request = seen_of(inbound.request);
            let reply = match request {
                _ if refuse(&request) => Reply::Failed,
                Request::GetVringBase { .. } => Reply::VringBase(0x1234),
                Request::GetConfig { .. } => Reply::Config(&[1, 2, 3, 4, 5, 6, 7, 8]),
                Request::GetInflightFd(area) => {
                    let fd = inflight.take().expect("asked for once");
                    Reply::Inflight(InflightArea { mmap_size: 0x10_0000, ..area }, fd)
                }
                _ => Reply::Done,
            };
            seen.push(request);
            back.reply(inbound.ticket, reply);
        }
        Ok(seen)
    })
}

/// The same request with inodes for descriptors.
fn seen_of(request: Request<OwnedFd>) -> Request<u64> {
    let inode = |fd: OwnedFd| socket::inode(&fd);
    match request {
        Request::SetMemTable(table) => {
            Request::SetMemTable(table.into_iter().map(|(it, fd)| (it, inode(fd))).collect())
        }
        Request::AddMemReg(region, fd) => Request::AddMemReg(region, inode(fd)),
        Request::SetLogBase(log, fd) => Request::SetLogBase(log, inode(fd)),
        Request::SetLogFd(fd) => Request::SetLogFd(inode(fd)),
        Request::SetVringKick { ring, fd } => Request::SetVringKick { ring, fd: fd.map(inode) },
        Request::SetVringCall { ring, fd } => Request::SetVringCall { ring, fd: fd.map(inode) },
        Request::SetVringErr { ring, fd } => Request::SetVringErr { ring, fd: fd.map(inode) },
        Request::SetBackendReqFd(fd) => Request::SetBackendReqFd(inode(fd)),
        Request::SetInflightFd(area, fd) => Request::SetInflightFd(area, inode(fd)),
        Request::GetFeatures => Request::GetFeatures,
        Request::SetFeatures(features) => Request::SetFeatures(features),
        Request::SetOwner => Request::SetOwner,
        Request::ResetOwner => Request::ResetOwner,
        Request::ResetDevice => Request::ResetDevice,
        Request::GetProtocolFeatures => Request::GetProtocolFeatures,
        Request::SetProtocolFeatures(features) => Request::SetProtocolFeatures(features),
        Request::GetQueueNum => Request::GetQueueNum,
        Request::GetMaxMemSlots => Request::GetMaxMemSlots,
        Request::RemMemReg(region) => Request::RemMemReg(region),
        Request::SetVringNum { ring, num } => Request::SetVringNum { ring, num },
        Request::SetVringAddr { ring, addresses } => Request::SetVringAddr { ring, addresses },
        Request::SetVringBase { ring, base } => Request::SetVringBase { ring, base },
        Request::GetVringBase { ring } => Request::GetVringBase { ring },
        Request::SetVringEnable { ring, enable } => Request::SetVringEnable { ring, enable },
        Request::GetConfig { offset, size, flags } => Request::GetConfig { offset, size, flags },
        Request::SetConfig { offset, flags, bytes } => Request::SetConfig { offset, flags, bytes },
        Request::GetInflightFd(area) => Request::GetInflightFd(area),
    }
}

fn connect(refuse: fn(&Request<u64>) -> bool) -> (Frontend, JoinHandle<Result<Seen, Error>>, u64) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (inflight, inode) = socket::file("inflight");
    (Frontend::from_stream(theirs, 2), serve(ours, inflight, refuse), inode)
}

fn negotiate(front: &mut Frontend, need_reply: bool) {
    front.set_owner().unwrap();
    assert_eq!(front.get_features().unwrap(), ALL_FEATURES);
    let offered = front.get_protocol_features().unwrap();
    assert_eq!(offered.bits(), PROTOCOL_FEATURES);
    front.set_protocol_features(offered).unwrap();
    if need_reply {
        front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
}

fn theirs(region: &MemoryRegion, fd: &OwnedFd) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: region.guest_address,
        memory_size: region.size,
        userspace_addr: region.user_address,
        mmap_offset: region.mmap_offset,
        mmap_handle: fd.as_raw_fd(),
    }
}

fn region(index: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address: index << 30,
        size: 1 << 30,
        user_address: (index + 1) << 32,
        mmap_offset: index << 12,
    }
}

/// A whole life of a session; returns what the back end must have seen of it.
fn life(front: &mut Frontend, inflight_inode: u64) -> Seen {
    let mut expected = Seen::new();
    assert_eq!(front.get_queue_num().unwrap(), 2);
    assert_eq!(front.get_max_mem_slots().unwrap(), 32);
    front.set_features(ALL_FEATURES).unwrap();
    expected.push(Request::SetFeatures(ALL_FEATURES));
    memory(front, &mut expected);
    in_flight(front, &mut expected, inflight_inode);
    rings(front, &mut expected);
    configuration(front, &mut expected);
    front.reset_device().unwrap();
    expected.push(Request::ResetDevice);
    front.reset_owner().unwrap();
    expected.push(Request::ResetOwner);
    // An answer that every kind of back end gives: all before it has been handled.
    front.get_features().unwrap();
    expected
}

fn memory(front: &mut Frontend, expected: &mut Seen) {
    let files: Vec<_> = (0..8).map(|_| socket::file("memory")).collect();
    let table: Vec<_> =
        files.iter().enumerate().map(|(at, (fd, _))| theirs(&region(at as u64), fd)).collect();
    front.set_mem_table(&table).unwrap();
    let ours = files.iter().enumerate().map(|(at, (_, inode))| (region(at as u64), *inode));
    expected.push(Request::SetMemTable(ours.collect()));
    let (file, inode) = socket::file("more");
    front.add_mem_region(&theirs(&region(20), &file)).unwrap();
    expected.push(Request::AddMemReg(region(20), inode));
    front.remove_mem_region(&theirs(&region(3), &files[3].0)).unwrap();
    expected.push(Request::RemMemReg(region(3)));
    let (log, inode) = socket::file("log");
    let area = LogArea { mmap_size: 0x4_0000, mmap_offset: 0x1000 };
    let region = VhostUserDirtyLogRegion {
        mmap_size: area.mmap_size,
        mmap_offset: area.mmap_offset,
        mmap_handle: log.as_raw_fd(),
    };
    front.set_log_base(0, Some(region)).unwrap();
    expected.push(Request::SetLogBase(area, inode));
    front.set_log_fd(log.as_raw_fd()).unwrap();
    expected.push(Request::SetLogFd(inode));
}

fn in_flight(front: &mut Frontend, expected: &mut Seen, inflight_inode: u64) {
    let ask = VhostUserInflight::new(0, 0, 2, 128);
    let (answer, file) = front.get_inflight_fd(&ask).unwrap();
    expected.push(Request::GetInflightFd(InflightArea {
        num_queues: 2,
        queue_size: 128,
        ..InflightArea::default()
    }));
    assert_eq!((answer.mmap_size, answer.num_queues, answer.queue_size), (0x10_0000, 2, 128));
    assert_eq!(socket::inode(&file), inflight_inode);
    front.set_inflight_fd(&answer, file.as_raw_fd()).unwrap();
    let area =
        InflightArea { mmap_size: 0x10_0000, mmap_offset: 0, num_queues: 2, queue_size: 128 };
    expected.push(Request::SetInflightFd(area, inflight_inode));
}

fn rings(front: &mut Frontend, expected: &mut Seen) {
    let addresses =
        RingAddresses { descriptor: 1 << 32, used: 3 << 32, available: 2 << 32, log: Some(0x3000) };
    let theirs = VringConfigData {
        queue_max_size: 256,
        queue_size: 128,
        flags: 1,
        desc_table_addr: addresses.descriptor,
        used_ring_addr: addresses.used,
        avail_ring_addr: addresses.available,
        log_addr: addresses.log,
    };
    let event = EventFd::new(0).unwrap();
    // Event descriptors share one inode.
    let fd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let fd = Some(socket::inode(&fd));
    for ring in 0..2_u16 {
        let index = usize::from(ring);
        front.set_vring_num(index, 128).unwrap();
        expected.push(Request::SetVringNum { ring, num: 128 });
        front.set_vring_addr(index, &theirs).unwrap();
        expected.push(Request::SetVringAddr { ring, addresses });
        front.set_vring_base(index, 77).unwrap();
        expected.push(Request::SetVringBase { ring, base: 77 });
        front.set_vring_call(index, &event).unwrap();
        expected.push(Request::SetVringCall { ring, fd });
        front.set_vring_err(index, &event).unwrap();
        expected.push(Request::SetVringErr { ring, fd });
        front.set_vring_kick(index, &event).unwrap();
        expected.push(Request::SetVringKick { ring, fd });
        front.set_vring_enable(index, true).unwrap();
        expected.push(Request::SetVringEnable { ring, enable: true });
    }
    assert_eq!(front.get_vring_base(1).unwrap(), 0x1234);
    expected.push(Request::GetVringBase { ring: 1 });
}

fn configuration(front: &mut Frontend, expected: &mut Seen) {
    // As rust-vmm's own front ends ask: from 0x100.
    for (offset, size, bytes) in
        [(0, 8, vec![1, 2, 3, 4, 5, 6, 7, 8]), (0x100, 4, vec![1, 2, 3, 4]), (6, 3, vec![7, 8, 0])]
    {
        let flags = VhostUserConfigFlags::WRITABLE;
        let ask = vec![0; size as usize];
        let (header, answer) = front.get_config(offset, size, flags, &ask).unwrap();
        assert_eq!(({ header.offset }, { header.size }, answer), (offset, size, bytes));
        let flags = flags.bits();
        expected.push(Request::GetConfig { offset: offset % 0x100, size, flags });
    }
    front.set_config(32, VhostUserConfigFlags::empty(), &[1]).unwrap();
    expected.push(Request::SetConfig { offset: 32, flags: 0, bytes: vec![1] });
    let (socket, inode) = socket::file("channel");
    front.set_backend_request_fd(&socket).unwrap();
    expected.push(Request::SetBackendReqFd(inode));
}

#[test]
fn a_session_with_acknowledgements() {
    let (mut front, server, inflight) = connect(|_| false);
    negotiate(&mut front, true);
    let expected = life(&mut front, inflight);
    drop(front);
    assert_eq!(server.join().unwrap().unwrap(), expected);
}

#[test]
fn a_session_without_acknowledgements() {
    let (mut front, server, inflight) = connect(|_| false);
    negotiate(&mut front, false);
    let expected = life(&mut front, inflight);
    drop(front);
    assert_eq!(server.join().unwrap().unwrap(), expected);
}

#[test]
fn a_refusal_reaches_the_front_end_as_an_error() {
    let (mut front, server, _) = connect(|it| matches!(it, Request::SetVringNum { ring: 1, .. }));
    negotiate(&mut front, true);
    front.set_vring_num(0, 128).unwrap();
    front.set_vring_num(1, 128).unwrap_err();
    front.set_vring_num(0, 64).unwrap();
    drop(front);
    assert_eq!(server.join().unwrap().unwrap().len(), 3);
}

#[test]
fn only_some_features() {
    let (mut front, server, _) = connect(|_| false);
    front.set_owner().unwrap();
    front.get_features().unwrap();
    front.set_protocol_features(VhostUserProtocolFeatures::MQ).unwrap();
    // REPLY_ACK is not negotiated, so the flag is no request for an answer.
    front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    front.set_vring_num(0, 128).unwrap();
    assert_eq!(front.get_queue_num().unwrap(), 2);
    drop(front);
    let seen = server.join().unwrap().unwrap();
    assert_eq!(seen, [Request::SetVringNum { ring: 0, num: 128 }]);
}
