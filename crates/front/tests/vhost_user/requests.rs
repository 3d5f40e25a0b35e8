//! Block requests of every kind and shape, from the guest's memory to the disk and back.

use std::cell::RefCell;
use std::mem::offset_of;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::vhost_user::{Request, Response};
use wire::virtio::blk::{
    Config, DiscardWriteZeroes, RequestType, SEGMENT_F_UNMAP, Status, WRITEBACK, WRITETHROUGH,
};
use zerocopy::IntoBytes;

use block::Op;

use crate::support::{
    Buf, Disk, Guest, Machine, Options, Server, Setting, header, pattern, proptest_config,
    take_signal, wait_for,
};

const SIZE: usize = 1 << 20;
const WCE: u32 = offset_of!(Config, writeback) as u32;

fn boot() -> (std::sync::Arc<Disk>, Server, Machine) {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let machine = Machine::boot(server.path());
    (disk, server, machine)
}

fn segment(sector: u64, num_sectors: u32, flags: u32) -> Vec<u8> {
    let segment = DiscardWriteZeroes {
        sector: sector.into(),
        num_sectors: num_sectors.into(),
        flags: flags.into(),
    };
    segment.as_bytes().to_vec()
}

fn write(fua: bool) -> Op {
    Op::Write { fua, atomic: false }
}

#[test]
fn what_is_written_is_on_the_disk_and_read_again() {
    let (disk, server, mut machine) = boot();
    let bytes = pattern(1, 8192);
    machine.write(0, 4096, &bytes);
    assert_eq!(disk.bytes(4096, 8192), bytes);
    assert_eq!(machine.read(0, 4096, 8192), bytes);
    assert_eq!(machine.read(0, 0, 512), vec![0; 512]);
    let ops: Vec<Op> = disk.journal().iter().map(|entry| entry.op).collect();
    assert_eq!(ops, [write(false), Op::Read, Op::Read]);
    assert!(!server.notices().contain("Fault"));
}

#[test]
fn the_used_length_is_what_the_device_may_have_written() {
    let (_disk, _server, mut machine) = boot();
    let read = machine.begin_read(0, 0, 4096);
    assert_eq!(machine.queues[0].wait(read.head).len, 4097);
    let write = machine.begin_write(0, 0, &[7; 512]);
    assert_eq!(machine.queues[0].wait(write.head).len, 1);
}

/// What a request without a scatter list of its own asks, and what comes of it.
#[test]
fn every_command_is_answered_as_the_standard_says() {
    let (disk, _server, mut machine) = boot();
    let zeroes = |unmap| Op::WriteZeroes { unmap, fua: false };
    let out =
        |machine: &Machine, bytes: &[u8]| Buf::Out(machine.guest.put(bytes), bytes.len() as u32);
    let room = |machine: &Machine, len: u32| Buf::In(machine.guest.alloc(u64::from(len), 16), len);
    let none = Buf::Out(0, 0);
    let discard = out(&machine, &segment(2, 4, 0));
    let unmap = out(&machine, &segment(2, 4, SEGMENT_F_UNMAP));
    let odd = out(&machine, &segment(2, 4, 4));
    let far = out(&machine, &segment(1 << 40, 4, 0));
    let two = out(&machine, &[segment(2, 4, 0), segment(8, 4, 0)].concat());
    let cases = [
        (RequestType::FLUSH, none, Status::OK, Some(Op::Flush)),
        (RequestType::DISCARD, discard, Status::OK, Some(Op::Discard)),
        (RequestType::DISCARD, unmap, Status::UNSUPP, None),
        (RequestType::DISCARD, two, Status::IOERR, None),
        (RequestType::DISCARD, far, Status::IOERR, None),
        (RequestType::WRITE_ZEROES, discard, Status::OK, Some(zeroes(false))),
        (RequestType::WRITE_ZEROES, unmap, Status::OK, Some(zeroes(true))),
        (RequestType::WRITE_ZEROES, odd, Status::UNSUPP, None),
        (RequestType::WRITE_ZEROES, none, Status::IOERR, None),
        (RequestType::IN, room(&machine, 511), Status::IOERR, None),
        (RequestType::IN, out(&machine, &[0; 512]), Status::IOERR, None),
        (RequestType::IN, none, Status::OK, Some(Op::Read)),
        (RequestType::OUT, room(&machine, 512), Status::IOERR, None),
        (RequestType::SECURE_ERASE, discard, Status::UNSUPP, None),
        (RequestType::GET_LIFETIME, room(&machine, 16), Status::UNSUPP, None),
        (RequestType(2), none, Status::UNSUPP, None),
        (RequestType(u32::MAX), none, Status::UNSUPP, None),
    ];
    for (kind, data, status, op) in cases {
        let before = disk.journal().len();
        let pending = machine.place(0, kind, 0, data);
        machine.submit(0);
        assert_eq!(machine.finish(&pending), status, "{kind} with {data:?}");
        let asked: Vec<Op> = disk.journal()[before..].iter().map(|entry| entry.op).collect();
        assert_eq!(asked, Vec::from_iter(op), "{kind} with {data:?}");
    }
}

#[test]
fn discards_and_zeroes_cover_exactly_their_range() {
    let (disk, _server, mut machine) = boot();
    for kind in [RequestType::DISCARD, RequestType::WRITE_ZEROES] {
        disk.fill(0, &[0xff; 4096]);
        let range = machine.guest.put(&segment(2, 3, 0));
        let pending = machine.place(0, kind, 77, Buf::Out(range, 16));
        machine.submit(0);
        assert_eq!(machine.finish(&pending), Status::OK);
        assert_eq!(disk.bytes(1024, 1536), [0; 1536]);
        assert_eq!(disk.bytes(0, 1024), [0xff; 1024]);
        assert_eq!(disk.bytes(2560, 1536), [0xff; 1536]);
    }
}

#[test]
fn the_id_fills_what_room_there_is() {
    let (_disk, _server, mut machine) = boot();
    let id = b"serial-of-the-lu\0\0\0\0";
    for room in [0, 1, 19, 20, 64] {
        let at = machine.guest.put(&[0x55; 64]);
        let pending = machine.place(0, RequestType::GET_ID, 0, Buf::In(at, room));
        machine.submit(0);
        assert_eq!(machine.finish(&pending), Status::OK);
        let given = (room as usize).min(id.len());
        let bytes = machine.guest.read(at, 64);
        assert_eq!(bytes[..given], id[..given]);
        assert!(bytes[given..].iter().all(|byte| *byte == 0x55));
    }
}

#[test]
fn beyond_the_end_is_an_error_of_that_request_only() {
    let (disk, server, mut machine) = boot();
    let last = SIZE as u64 - 512;
    for (offset, len, status) in [
        (last, 512, Status::OK),
        (last, 1024, Status::IOERR),
        (SIZE as u64, 512, Status::IOERR),
        (u64::MAX - 511, 512, Status::IOERR),
    ] {
        let pending = machine.begin_read(0, offset, len);
        assert_eq!(machine.finish(&pending), status, "{len} bytes at {offset:#x}");
    }
    assert_eq!(disk.journal().len(), 1);
    assert_eq!(server.notices().count("Store"), 3);
    assert_eq!(machine.read(0, 0, 512), [0; 512]);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let disk = Disk::new(SIZE);
    let setting = Setting { read_only: true, ..Setting::default() };
    let server = Server::start_with(1, &disk, setting);
    let mut machine = Machine::boot(server.path());
    let pending = machine.begin_write(0, 0, &[1; 512]);
    assert_eq!(machine.finish(&pending), Status::IOERR);
    for kind in [RequestType::DISCARD, RequestType::WRITE_ZEROES] {
        let range = machine.guest.put(&segment(0, 1, 0));
        let pending = machine.place(0, kind, 0, Buf::Out(range, 16));
        machine.submit(0);
        assert_ne!(machine.finish(&pending), Status::OK);
    }
    assert_eq!(machine.read(0, 0, 512), [0; 512]);
    assert_eq!(disk.journal().len(), 1);
}

/// Notifications in both directions, and none that the other side does not want.
#[test]
fn who_wants_no_notification_gets_none() {
    for event_idx in [false, true] {
        let disk = Disk::new(SIZE);
        let server = Server::start(&disk);
        let mut options = Options::default();
        if !event_idx {
            options.features &= !wire::virtio::feature::RING_EVENT_IDX;
        }
        let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
        machine.write(0, 0, &[1; 512]);
        while take_signal(&machine.queues[0].call) {}
        machine.queues[0].ring.ignore();
        let writes: Vec<_> = (0..8).map(|n| machine.begin_write(0, 512 * n, &[2; 512])).collect();
        while machine.queues[0].ring.used_idx() != 9 {
            std::thread::yield_now();
        }
        server.session();
        assert!(!take_signal(&machine.queues[0].call), "event_idx {event_idx}");
        machine.queues[0].reap_all();
        // It is woken when it wants to be.
        assert!(!machine.queues[0].ring.listen());
        let last = machine.begin_write(0, 0, &[3; 512]);
        assert!(wait_for(&machine.queues[0].call));
        assert_eq!(machine.finish(&last), Status::OK);
        assert_eq!(machine.status(&writes[7]), Status::OK);
    }
}

/// Lengths that cut so many bytes at these places.
fn cut(total: u32, places: &[u32]) -> Vec<u32> {
    let mut places: Vec<u32> = places.iter().map(|place| place % (total + 1)).collect();
    places.push(total);
    places.sort_unstable();
    let mut from = 0;
    places.iter().map(|&place| place - std::mem::replace(&mut from, place)).collect()
}

/// How a request is cut into descriptors.
#[derive(Clone, Debug)]
struct Shape {
    out: Vec<u32>,
    inn: Vec<u32>,
    /// How many descriptors stand before the indirect table; None: there is no table.
    direct: Option<usize>,
    sectors: u32,
    shuffle: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let cuts = || prop_oneof![vec(any::<u32>(), 0..8), vec(0..20u32, 0..20)];
    (cuts(), cuts(), proptest::option::of(0..4usize), 0..5u32, any::<bool>()).prop_map(
        |(out, inn, direct, sectors, shuffle)| Shape { out, inn, direct, sectors, shuffle },
    )
}

/// Memory for pieces of these lengths, in order or not, in one region or across two.
fn pieces(guest: &Guest, lens: &[u32], shuffle: bool) -> Vec<(u64, u32)> {
    let total: u32 = lens.iter().sum();
    let mut at = guest.alloc(u64::from(total) + 16, 1) + u64::from(total % 7);
    let mut pieces: Vec<(u64, u32)> = Vec::new();
    for &len in lens {
        pieces.push((at, len));
        at += u64::from(len);
    }
    if shuffle {
        // The last piece lies first: neighbours in the list are none in memory.
        let mut at = pieces[0].0;
        for piece in pieces.iter_mut().rev() {
            piece.0 = at;
            at += u64::from(piece.1);
        }
    }
    pieces
}

fn submit(machine: &mut Machine, shape: &Shape, bufs: &[Buf]) -> u16 {
    let ring = &mut machine.queues[0].ring;
    let head = match shape.direct {
        Some(direct) => ring.place_indirect(direct.min(bufs.len() - 1), bufs),
        None => ring.place(bufs),
    };
    machine.submit(0);
    head
}

/// A write whose header and data, and a read whose data and status, are cut anywhere.
fn round_trip(machine: &mut Machine, disk: &Disk, shape: &Shape) {
    let len = shape.sectors * 512;
    let offset = u64::from(shape.sectors) * 4096;
    let bytes = pattern(u64::from(len) + offset, len as usize);
    let guest = machine.guest.clone();
    let message = [header(RequestType::OUT, offset / 512), bytes.clone()].concat();
    let out = pieces(&guest, &cut(16 + len, &shape.out), shape.shuffle);
    let mut from = 0;
    for &(at, len) in &out {
        guest.write(at, &message[from..from + len as usize]);
        from += len as usize;
    }
    let mut bufs: Vec<Buf> = out.iter().map(|&(at, len)| Buf::Out(at, len)).collect();
    let status = guest.put(&[0xaa]);
    bufs.extend([Buf::In(0, 0), Buf::In(status, 1)]);
    let head = submit(machine, shape, &bufs);
    assert_eq!(machine.queues[0].wait(head).len, 1);
    assert_eq!(guest.read(status, 1), [Status::OK.0]);
    assert_eq!(disk.bytes(offset as usize, len as usize), bytes);

    let message = header(RequestType::IN, offset / 512);
    let at = guest.put(&message);
    let mut from = at;
    let mut bufs = Vec::new();
    for len in cut(16, &shape.out) {
        bufs.push(Buf::Out(from, len));
        from += u64::from(len);
    }
    let inn = pieces(&guest, &cut(len + 1, &shape.inn), shape.shuffle);
    bufs.extend(inn.iter().map(|&(at, len)| Buf::In(at, len)));
    let head = submit(machine, shape, &bufs);
    assert_eq!(machine.queues[0].wait(head).len, len + 1);
    let mut read: Vec<u8> = Vec::new();
    for &(at, len) in &inn {
        read.extend(guest.read(at, len as usize));
    }
    assert_eq!(read.pop(), Some(Status::OK.0));
    assert_eq!(read, bytes);
}

#[test]
fn requests_of_any_shape_move_the_right_bytes() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let machine = RefCell::new(Machine::boot(server.path()));
    let mut runner = TestRunner::new(proptest_config(300));
    let result = runner.run(&shape(), |shape| {
        round_trip(&mut machine.borrow_mut(), &disk, &shape);
        Ok(())
    });
    result.unwrap();
    assert_eq!(server.notices().all().len(), 1, "{:?}", server.notices().all());
}

/// Regions that follow each other in guest memory, and nowhere else: buffers cross from one into
/// the other, and through one that is a single byte long.
#[test]
fn buffers_cross_regions() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let edge = 1 << 20;
    let guest = Guest::new(&[(0, edge), (edge, 1), (edge + 1, 1 << 20)]);
    let mut machine = Machine::boot_with(server.path(), guest, Options::default());
    for before in [0, 1, 15, 16, 17, 528, 529] {
        let bytes = pattern(before, 512);
        let at = edge - before;
        let message = [header(RequestType::OUT, 3), bytes.clone(), vec![0xaa]].concat();
        machine.guest.write(at, &message);
        let head = machine.queues[0].ring.place(&[Buf::Out(at, 528), Buf::In(at + 528, 1)]);
        machine.submit(0);
        machine.queues[0].wait(head);
        assert_eq!(machine.guest.read(at + 528, 1), [Status::OK.0]);
        assert_eq!(disk.bytes(1536, 512), bytes, "{before} bytes before the edge");

        let ask = machine.guest.put(&header(RequestType::IN, 3));
        machine.guest.write(at, &[0xaa; 513]);
        let head = machine.queues[0].ring.place(&[Buf::Out(ask, 16), Buf::In(at, 513)]);
        machine.submit(0);
        machine.queues[0].wait(head);
        let read = machine.guest.read(at, 513);
        assert_eq!((&read[..512], read[512]), (&bytes[..], Status::OK.0));
    }
    // A table of descriptors must lie in one region: drivers take memory for it in one piece.
    let table = edge - 16;
    machine.guest.write_as(table, 0u64);
    let ring = &mut machine.queues[0].ring;
    let indirect = crate::support::Desc { addr: table, len: 32, flags: 4, next: 0 };
    ring.write_desc(63, indirect);
    ring.put_avail(63);
    machine.submit(0);
    server.notices().wait_for("Address");
}

#[test]
fn broken_requests_end_their_queue_and_not_its_neighbour() {
    let short = [Buf::Out(0x1000, 15), Buf::In(0x2000, 1)];
    let no_status = [Buf::Out(0x1000, 16), Buf::Out(0x2000, 512)];
    let order = [Buf::In(0x2000, 1), Buf::Out(0x1000, 16)];
    let nowhere = [Buf::Out(0x1000, 16), Buf::In(1 << 50, 1)];
    let empty = [Buf::Out(0x1000, 0), Buf::In(0x2000, 0)];
    for (bufs, fault) in [
        (&short, "Short"),
        (&no_status, "Short"),
        (&order, "Order"),
        (&nowhere, "Address"),
        (&empty, "Short"),
    ] {
        let disk = Disk::new(SIZE);
        let setting = Setting { queues: 2, ..Setting::default() };
        let server = Server::start_with(1, &disk, setting);
        let options = Options { queues: 2, ..Options::default() };
        let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
        machine.queues[0].ring.place(bufs);
        machine.submit(0);
        assert!(wait_for(&machine.queues[0].error), "{fault}");
        server.notices().wait_for(fault);
        machine.begin_write(0, 0, &[1; 512]);
        machine.write(1, 4096, &[2; 512]);
        assert_eq!(machine.queues[0].ring.used_idx(), 0);
        assert_eq!(disk.journal().len(), 1, "nothing is taken from a broken ring");
        assert_eq!(server.notices().count("Fault"), 1);
        assert_eq!(machine.stop_ring(1), 1);
        machine.stop_ring(0);
    }
}

#[test]
fn four_gigabytes_are_too_much_for_one_request() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let guest = Guest::new(&[(0, 3 << 30)]);
    let mut machine = Machine::boot_with(server.path(), guest, Options::default());
    let ask = machine.guest.put(&header(RequestType::IN, 0));
    let half = Buf::In(0, 1 << 31);
    let ring = &mut machine.queues[0].ring;
    // Less than that is a request, if one that the disk is too small for.
    let bufs = [Buf::Out(ask, 16), half, Buf::In(0, (1 << 31) - 511), Buf::In(1 << 20, 1)];
    let head = ring.place(&bufs[..3]);
    machine.submit(0);
    assert_eq!(machine.queues[0].wait(head).len, u32::MAX - 510);
    machine.queues[0].ring.place(&[bufs[0], half, half]);
    machine.submit(0);
    server.notices().wait_for("Length");
    assert!(disk.journal().is_empty());
}

fn config(machine: &mut Machine) -> Vec<u8> {
    let size = size_of::<Config>() as u32;
    match machine.client.ask(Request::GetConfig { offset: 0, size, flags: 0 }) {
        Response::Config(bytes) => bytes,
        other => panic!("{other:?} where the configuration belongs"),
    }
}

fn choose(machine: &mut Machine, mode: u8) {
    machine.client.done(Request::SetConfig { offset: WCE, flags: 0, bytes: vec![mode] });
    assert_eq!(config(machine)[WCE as usize], mode);
}

/// Whether writes are made durable before they are answered.
fn is_through(machine: &mut Machine, disk: &Disk) -> bool {
    machine.write(0, 0, &[3; 512]);
    let range = machine.guest.put(&segment(8, 1, 0));
    let pending = machine.place(0, RequestType::WRITE_ZEROES, 0, Buf::Out(range, 16));
    machine.submit(0);
    assert_eq!(machine.finish(&pending), Status::OK);
    let journal = disk.journal();
    match journal[journal.len() - 2..] {
        [a, b] if (a.op, b.op) == (write(true), Op::WriteZeroes { unmap: false, fua: true }) => {
            true
        }
        [a, b] if (a.op, b.op) == (write(false), Op::WriteZeroes { unmap: false, fua: false }) => {
            false
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn write_through_makes_writes_durable_and_outlives_the_server() {
    let disk = Disk::new(SIZE);
    let mut server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    assert!(!is_through(&mut machine, &disk));
    for _ in 0..2 {
        choose(&mut machine, WRITETHROUGH);
        assert!(is_through(&mut machine, &disk));
        choose(&mut machine, WRITEBACK);
        assert!(!is_through(&mut machine, &disk));
    }
    choose(&mut machine, WRITETHROUGH);
    server.kill_and_restart(&disk, Setting::default());
    machine.reconnect(server.path());
    assert!(is_through(&mut machine, &disk), "the driver has not changed its mind");
    assert_eq!(config(&mut machine)[WCE as usize], WRITETHROUGH);
    choose(&mut machine, WRITEBACK);
    server.kill_and_restart(&disk, Setting { writeback: false, ..Setting::default() });
    machine.reconnect(server.path());
    assert!(!is_through(&mut machine, &disk), "nor when it had chosen the other mode");
    machine.client.done(Request::ResetDevice);
    machine.client.done(Request::SetFeatures(machine.features));
    machine.queues[0].ring.start_at(0);
    machine.area = None;
    machine.connect();
    assert!(is_through(&mut machine, &disk), "a reset device starts with its own mode");
}

#[test]
fn without_flush_writes_are_durable() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut options = Options::default();
    options.features &=
        !(wire::virtio::blk::feature::FLUSH | wire::virtio::blk::feature::CONFIG_WCE);
    let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
    assert!(is_through(&mut machine, &disk));
}
