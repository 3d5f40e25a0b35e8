//! Guest memory that comes, goes, lies elsewhere than announced or is cut: under running rings, and
//! with neighbours on the same core.

use std::os::fd::{AsFd, OwnedFd};

use proto::vhost_user::{MemoryRegion, Request, Response, RingAddresses};
use rt::os::memory::anonymous_file;
use wire::virtio::blk::{RequestType, Status};

use crate::support::{
    Buf, Disk, Guest, How, Machine, Options, Pending, Server, Setting, pattern, take_signal,
};

const SIZE: usize = 1 << 20;
/// Rings and small things lie in the first region; the others come and go.
const LOW: u64 = 32 << 20;
const HIGH: u64 = 1 << 30;
const REGION: u64 = 1 << 20;

fn guest() -> Guest {
    Guest::new(&[(0, LOW), (HIGH, REGION), (HIGH + REGION, REGION)])
}

fn add((region, fd): (MemoryRegion, OwnedFd)) -> Request<OwnedFd> {
    Request::AddMemReg(region, fd)
}

fn remove(machine: &Machine, index: usize) -> Request<OwnedFd> {
    Request::RemMemReg(machine.guest.region(index).0)
}

fn begin_read_into(machine: &mut Machine, at: u64, len: u32) -> Pending {
    let pending = machine.place(0, RequestType::IN, 0, Buf::In(at, len));
    machine.submit(0);
    pending
}

/// Mappings of this region's file in this process. One is the guest's own.
fn mappings(machine: &Machine, index: usize) -> usize {
    let (_, fd) = machine.guest.region(index);
    let inode = rustix::fs::fstat(&fd).unwrap().st_ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let is_of = |line: &&str| line.split_whitespace().nth(4) == Some(&inode);
    maps.lines().filter(is_of).count()
}

#[test]
fn regions_come_and_go_under_load() {
    let disk = Disk::new(SIZE);
    disk.fill(0, &pattern(3, SIZE));
    let server = Server::start(&disk);
    let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
    let all = machine.guest.regions();
    assert_eq!(all.len(), 3);
    for round in 0..100 {
        // Requests that stay in memory that stays, around every change.
        let load: Vec<_> = (0..6).map(|n| machine.begin_read(0, 4096 * n, 4096)).collect();
        match round % 4 {
            0 => machine.client.done(remove(&machine, 1)),
            1 => machine.client.done(add(machine.guest.region(1))),
            2 => machine.client.done(Request::SetMemTable(machine.guest.regions())),
            _ => {
                let two = vec![machine.guest.region(2), machine.guest.region(0)];
                machine.client.done(Request::SetMemTable(two));
                machine.client.done(add(machine.guest.region(1)));
            }
        }
        if round % 4 != 0 {
            let pending = begin_read_into(&mut machine, HIGH + REGION - 512, 1024);
            assert_eq!(machine.finish(&pending), Status::OK);
            assert_eq!(machine.data(&pending), pattern(3, 1024));
        }
        for (n, pending) in load.iter().enumerate() {
            assert_eq!(machine.finish(pending), Status::OK);
            assert_eq!(machine.data(pending), disk.bytes(4096 * n, 4096));
        }
    }
    assert!(!server.notices().contain("Fault") && !server.notices().contain("Failed"));
}

#[test]
fn a_region_that_goes_is_unmapped_when_its_last_request_has_ended() {
    let disk = Disk::new(SIZE);
    disk.fill(0, &pattern(3, SIZE));
    let server = Server::start(&disk);
    let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
    disk.hold(true);
    let pending = begin_read_into(&mut machine, HIGH, 4096);
    disk.wait_begun(1);
    let request = remove(&machine, 1);
    machine.client.done(request);
    assert_eq!(mappings(&machine, 1), 2, "the device may still write there");
    disk.answer(0, How::Do);
    assert_eq!(machine.finish(&pending), Status::OK);
    assert_eq!(machine.data(&pending), pattern(3, 4096));
    server.session();
    assert_eq!(mappings(&machine, 1), 1);
    // One that nothing was asked of goes at once, though the queue is idle.
    let request = remove(&machine, 2);
    machine.client.done(request);
    assert_eq!((mappings(&machine, 2), mappings(&machine, 0)), (1, 2));
    // What is not there any more is outside.
    begin_read_into(&mut machine, HIGH, 512);
    server.notices().wait_for("Address");
}

#[test]
fn memory_under_a_running_ring_stays() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
    let without_ring = |machine: &Machine| vec![machine.guest.region(1)];
    let requests = [
        remove(&machine, 0),
        Request::SetMemTable(without_ring(&machine)),
        Request::SetMemTable(Vec::new()),
    ];
    for (round, request) in requests.into_iter().enumerate() {
        assert!(matches!(machine.client.ask(request), Response::Refused));
        assert_eq!(server.notices().count("does not lie in the new memory"), round + 1);
        machine.write(0, 0, &[1; 512]);
        let pending = begin_read_into(&mut machine, HIGH + REGION, 512);
        assert_eq!(machine.finish(&pending), Status::OK);
        assert_eq!(server.session().memory_regions, 3);
    }
    machine.stop_ring(0);
    let request = remove(&machine, 0);
    machine.client.done(request);
    assert_eq!(server.session().memory_regions, 2);
}

#[test]
fn a_running_ring_does_not_move_to_where_there_is_no_memory() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
    let good = machine.queues[0].ring.addresses(false);
    for change in [
        |it: &mut RingAddresses| it.descriptor += 1 << 44,
        |it: &mut RingAddresses| it.available = 0,
        |it: &mut RingAddresses| it.used = u64::MAX - 15,
        |it: &mut RingAddresses| it.used += LOW - 64,
    ] {
        let mut addresses = good;
        change(&mut addresses);
        let request = Request::SetVringAddr { ring: 0, addresses };
        assert!(matches!(machine.client.ask(request), Response::Refused), "{addresses:x?}");
        machine.write(0, 0, &[1; 512]);
        // And it is still known where it lies.
        machine.client.done(Request::SetMemTable(machine.guest.regions()));
        machine.write(0, 0, &[2; 512]);
    }
}

#[test]
fn a_ring_must_lie_in_one_region_whole() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
    let disable = || Request::SetVringEnable { ring: 0, enable: false };
    machine.client.done(disable());
    let good = machine.queues[0].ring.addresses(false);
    let end = machine.guest.user(HIGH + REGION) - 16;
    for change in [
        |it: &mut RingAddresses, end: u64| it.descriptor = end,
        |it: &mut RingAddresses, end: u64| it.available = end,
        |it: &mut RingAddresses, end: u64| it.used = end,
        |it: &mut RingAddresses, _| it.used = u64::MAX - 15,
        |it: &mut RingAddresses, _| it.available = 2,
    ] {
        let mut addresses = good;
        change(&mut addresses, end);
        machine.client.done(Request::SetVringAddr { ring: 0, addresses });
        let enable = Request::SetVringEnable { ring: 0, enable: true };
        assert!(matches!(machine.client.ask(enable), Response::Refused), "{addresses:x?}");
    }
    let said = server.notices();
    assert_eq!(said.count("lies in none of the 3 memory regions that are shared"), 5);
    assert!(!said.contain("memory is not shared with the server"));
    assert!(!said.contain("power of 2"));
    machine.start_ring(0);
    machine.write(0, 0, &[1; 512]);
    // Addresses that no ring can have, and sizes.
    for (num, misalign) in [(0, 0), (3, 0), (2048, 0), (32768, 0), (64, 1), (64, 2), (64, 8)] {
        machine.client.done(disable());
        let mut addresses = good;
        addresses.descriptor += misalign;
        let size = machine.client.try_ask(Request::SetVringNum { ring: 0, num });
        let there =
            size.and_then(|_| machine.client.try_ask(Request::SetVringAddr { ring: 0, addresses }));
        assert!(there.is_err(), "{num} descriptors at {:#x}", addresses.descriptor);
        machine.reconnect(server.path());
    }
    machine.write(0, 0, &[1; 512]);
}

/// What QEMU does for a guest whose memory is its own: it announces no region, and goes on.
#[test]
fn a_machine_that_shares_nothing_is_told_how_to_share() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::prepare(server.path(), guest(), Options::default());
    machine.declare_ring(0);
    let enable = || Request::SetVringEnable { ring: 0, enable: true };
    assert!(matches!(machine.client.ask(enable()), Response::Refused));
    let said = server.notices();
    assert_eq!(said.count("memory is not shared with the server; start it with"), 1);
    assert_eq!(said.count("-object memory-backend-memfd,id=mem,size=SIZE,share=on"), 1);
    assert_eq!(said.count("-machine memory-backend=mem"), 1);
    assert!(!said.contain("power of 2"));
    // A part of it is not enough, and is told apart.
    machine.client.done(add(machine.guest.region(1)));
    assert!(matches!(machine.client.ask(enable()), Response::Refused));
    assert_eq!(server.notices().count("lies in none of the 1 memory regions"), 1);
    machine.client.done(add(machine.guest.region(0)));
    machine.client.done(enable());
    machine.write(0, 0, &[1; 512]);
}

#[test]
fn memory_that_cannot_be_mapped_is_refused() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
    let at = 1 << 40;
    let region = MemoryRegion { guest_address: at, size: 8192, user_address: at, mmap_offset: 0 };
    let file = |len| anonymous_file(c"short", len).unwrap();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    for (region, fd) in [
        (region, file(8191)),
        (region, file(0)),
        (region, null()),
        (MemoryRegion { mmap_offset: 4096, ..region }, file(8192)),
        (MemoryRegion { size: 1 << 46, ..region }, file(8192)),
        (MemoryRegion { mmap_offset: 1 << 60, ..region }, file(8192)),
    ] {
        let before = server.notices().count("cannot be mapped");
        let response = machine.client.ask(add((region, fd)));
        assert!(matches!(response, Response::Refused), "{region}");
        assert_eq!(server.notices().count("cannot be mapped"), before + 1);
        assert!(server.notices().contain("must be shared"));
        machine.write(0, 0, &[1; 512]);
    }
    // A file that is as long as announced and cannot be written.
    let read_only = std::fs::File::open("/proc/self/exe").unwrap().into();
    assert!(matches!(machine.client.ask(add((region, read_only))), Response::Refused));
    machine.write(0, 0, &[1; 512]);
}

/// Two machines on one core; the first one cuts its memory, in every way that matters.
#[test]
fn cut_memory_breaks_its_own_queue_and_no_other() {
    enum Cut {
        /// A buffer, asked for by a request.
        Data,
        /// The ring, while the device sleeps.
        Ring,
        /// A buffer of a request that waits in the disk.
        InFlight,
    }
    for cut in [Cut::Data, Cut::Ring, Cut::InFlight] {
        let disk = Disk::new(SIZE);
        let mut server = Server::start(&disk);
        let other = server.add(&disk, Setting::default());
        let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
        let mut neighbour = Machine::boot(server.path_of(other));
        machine.write(0, 0, &pattern(5, 4096));
        match cut {
            Cut::Data => {
                machine.guest.truncate(1, 4096);
                let pending = begin_read_into(&mut machine, HIGH, 8192);
                machine.queues[0].wait_for_answer(pending.head);
            }
            Cut::Ring => {
                machine.guest.truncate(0, 0);
                machine.queues[0].kick();
            }
            Cut::InFlight => {
                disk.hold(true);
                begin_read_into(&mut machine, HIGH, 8192);
                disk.wait_begun(2);
                machine.guest.truncate(1, 0);
                disk.answer_all();
            }
        }
        server.notices().wait_for("MemoryGone");
        assert!(take_signal(machine.queues[0].error.as_fd()));
        assert_eq!(neighbour.read(0, 0, 4096), pattern(5, 4096));
        assert!(!server.notices_of(other).contain("Fault"));
        assert_eq!(server.notices().count("Fault"), 1);
        // A machine with whole memory is served by the same adapter.
        machine.hang_up();
        let mut machine = Machine::boot_with(server.path(), guest(), Options::default());
        assert_eq!(machine.read(0, 0, 4096), pattern(5, 4096));
    }
}

#[test]
fn as_many_regions_as_offered_and_no_more() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let slots = 64;
    let places: Vec<(u64, u64)> =
        std::iter::once((0, LOW)).chain((1..slots + 1).map(|n| (n << 26, 8192))).collect();
    let guest = Guest::new(&places);
    let mut machine = Machine::prepare(server.path(), guest, Options::default());
    assert_eq!(machine.client.number(Request::GetMaxMemSlots), slots);
    for index in 0..slots as usize {
        machine.client.done(add(machine.guest.region(index)));
    }
    assert_eq!(server.session().memory_regions, 64);
    machine.start_ring(0);
    let pending = begin_read_into(&mut machine, 63 << 26, 8192);
    assert_eq!(machine.finish(&pending), Status::OK);
    let last = add(machine.guest.region(slots as usize));
    assert!(machine.client.try_ask(last).is_err(), "more than were offered");
}
