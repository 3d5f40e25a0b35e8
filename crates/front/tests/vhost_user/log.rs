//! The dirty log: a page that the device wrote is marked after the data is there and before the
//! driver can know, whatever became of the request, and no other page is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block::ErrorKind;
use proto::vhost_user::Request;
use rt::Spin;
use wire::virtio::blk::{RequestType, Status};

use crate::support::{
    Buf, Disk, Guest, How, Log, Machine, Options, Pending, Server, Setting, header, pages_of,
    pattern, take_signal,
};

const SIZE: usize = 1 << 20;
const GUEST: u64 = 64 << 20;
const PAGE: u64 = 4096;

struct Rig {
    disk: Arc<Disk>,
    server: Server,
    machine: Machine,
}

impl Rig {
    fn new() -> Self {
        Self::with(Setting::default())
    }

    fn with(setting: Setting) -> Self {
        let disk = Disk::new(SIZE);
        disk.fill(0, &pattern(9, 8192));
        let server = Server::start_with(1, &disk, setting);
        let machine = Machine::boot_with(server.path(), guest(), Options::default());
        Self { disk, server, machine }
    }

    fn logging() -> Self {
        let mut rig = Self::new();
        rig.machine.start_log(Log::new(GUEST));
        rig
    }

    fn log(&self) -> &Log {
        self.machine.log.as_ref().unwrap()
    }

    /// What the ring itself makes dirty: used index and notification fields.
    fn ring_pages(&self) -> BTreeSet<u64> {
        let ring = &self.machine.queues[0].ring;
        pages_of(ring.used, 6 + 8 * u64::from(ring.size)).collect()
    }

    /// Marked, beside what the ring makes dirty.
    fn data_pages(&self) -> BTreeSet<u64> {
        self.log().pages().difference(&self.ring_pages()).copied().collect()
    }
}

fn guest() -> Guest {
    Guest::new(&[(0, GUEST)])
}

/// A read whose header, data (three pages and a bit, in two buffers) and status are pages apart.
struct Read {
    pending: Pending,
    data: [(u64, u32); 2],
}

impl Read {
    fn place(machine: &mut Machine, indirect: bool) -> Self {
        let guest = machine.guest.clone();
        let page = |len| guest.alloc(len, PAGE);
        let head_at = page(16);
        guest.write(head_at, &header(RequestType::IN, 0));
        let data = [(page(8192) + 4000, 512), (page(12288) + 100, 8192 - 512)];
        let status = page(1);
        guest.write(status, &[0xaa]);
        let bufs = [
            Buf::Out(head_at, 16),
            Buf::In(data[0].0, data[0].1),
            Buf::In(data[1].0, data[1].1),
            Buf::In(status, 1),
        ];
        let ring = &mut machine.queues[0].ring;
        let head = if indirect { ring.place_indirect(1, &bufs) } else { ring.place(&bufs) };
        let pending =
            Pending { queue: 0, head, header: head_at, data: data[0].0, len: 8192, status };
        machine.submit(0);
        Self { pending, data }
    }

    fn pages(&self) -> BTreeSet<u64> {
        let status = pages_of(self.pending.status, 1);
        let data = self.data.iter().flat_map(|&(at, len)| pages_of(at, u64::from(len)));
        data.chain(status).collect()
    }

    fn data_is_there(&self, guest: &Guest) -> bool {
        let all = pattern(9, 8192);
        let mut from = 0;
        self.data.iter().all(|&(at, len)| {
            let expected = &all[from..from + len as usize];
            from += len as usize;
            guest.read(at, len as usize) == expected
        })
    }
}

#[test]
fn a_read_marks_its_data_its_status_and_the_used_ring_and_nothing_else() {
    for indirect in [false, true] {
        let mut rig = Rig::logging();
        rig.log().clear();
        let read = Read::place(&mut rig.machine, indirect);
        assert_eq!(rig.machine.finish(&read.pending), Status::OK);
        assert!(read.data_is_there(&rig.machine.guest));
        assert_eq!(rig.data_pages(), read.pages());
        assert_eq!(read.pages().len(), 2 + 2 + 1);
        rig.machine.stop_ring(0);
        assert!(rig.ring_pages().is_subset(&rig.log().pages()));
        assert!(rig.log().is_intact());
    }
}

#[test]
fn a_write_marks_its_status_only() {
    let mut rig = Rig::logging();
    rig.log().clear();
    let at = rig.machine.guest.alloc(4096, PAGE);
    let pending = rig.machine.place(0, RequestType::OUT, 0, Buf::Out(at, 512));
    rig.machine.submit(0);
    assert_eq!(rig.machine.finish(&pending), Status::OK);
    assert_eq!(rig.data_pages(), pages_of(pending.status, 1).collect());
}

#[test]
fn whatever_becomes_of_a_read_all_its_pages_are_marked() {
    for how in [
        How::Fail(ErrorKind::Medium),
        How::Fail(ErrorKind::Aborted),
        How::Fail(ErrorKind::Timeout),
        How::FillAndFail(700, ErrorKind::Medium),
        How::Do,
    ] {
        let mut rig = Rig::logging();
        rig.disk.hold(true);
        rig.log().clear();
        let read = Read::place(&mut rig.machine, false);
        rig.disk.wait_begun(1);
        assert!(rig.data_pages().is_empty(), "nothing is there yet");
        rig.disk.answer(0, how);
        rig.machine.finish(&read.pending);
        assert_eq!(rig.data_pages(), read.pages(), "{how:?}");
    }
    // Refused before the disk was asked.
    let mut rig = Rig::logging();
    rig.log().clear();
    let at = rig.machine.guest.alloc(8192, PAGE);
    let pending = rig.machine.place(0, RequestType::IN, 0, Buf::In(at, 5000));
    rig.machine.submit(0);
    assert_eq!(rig.machine.finish(&pending), Status::IOERR);
    let expected = pages_of(at, 5000).chain(pages_of(pending.status, 1)).collect();
    assert_eq!(rig.data_pages(), expected);
}

/// Somebody looks all the time: a marked page has its data, and an index that has moved has its
/// pages marked.
#[test]
fn marks_come_after_the_data_and_before_the_index() {
    let mut rig = Rig::logging();
    rig.disk.hold(true);
    let rounds = 100;
    for round in 0..rounds {
        rig.log().clear();
        let read = Read::place(&mut rig.machine, round % 2 == 0);
        rig.disk.wait_begun(round + 1);
        let before = rig.machine.queues[0].ring.used_idx();
        let looking = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let disk = &rig.disk;
            let looking = &looking;
            scope.spawn(move || {
                while !looking.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                disk.answer(round, How::Do);
            });
            let (first, guest) = (read.data[0].0, &rig.machine.guest);
            let log = rig.machine.log.as_ref().unwrap();
            let ring = &rig.machine.queues[0].ring;
            looking.store(true, Ordering::Release);
            let (mut marked, mut moved) = (false, false);
            while !moved {
                if !marked && log.is_marked(first) {
                    marked = true;
                    assert!(read.data_is_there(guest), "marked in round {round} before the data");
                }
                if ring.used_idx() != before {
                    moved = true;
                    let entry = ring.used + 4 + 8 * u64::from(before % ring.size);
                    let all = read.pages().into_iter().chain(pages_of(entry, 8));
                    for page in all {
                        assert!(log.is_marked(page), "{page:#x} not marked in round {round}");
                    }
                }
            }
        });
        assert_eq!(rig.machine.finish(&read.pending), Status::OK);
    }
}

#[test]
fn logging_switched_on_under_a_read_marks_it() {
    let mut rig = Rig::new();
    rig.disk.hold(true);
    let read = Read::place(&mut rig.machine, false);
    rig.disk.wait_begun(1);
    rig.machine.start_log(Log::new(GUEST));
    rig.log().clear();
    rig.disk.answer(0, How::Do);
    rig.machine.finish(&read.pending);
    assert_eq!(rig.data_pages(), read.pages());
    assert!(rig.log().is_marked(rig.machine.queues[0].ring.used));
    // And off again.
    rig.machine.stop_log();
    rig.log().clear();
    rig.disk.hold(false);
    let read = Read::place(&mut rig.machine, false);
    rig.machine.finish(&read.pending);
    rig.machine.stop_ring(0);
    assert_eq!(rig.log().pages(), BTreeSet::new());
    assert!(!rig.server.notices().contain("Failed"));
}

#[test]
fn a_log_that_is_replaced_is_left_alone() {
    let mut rig = Rig::logging();
    rig.disk.hold(true);
    let read = Read::place(&mut rig.machine, false);
    rig.disk.wait_begun(1);
    let old = rig.machine.log.replace(Log::new(2 * GUEST)).unwrap();
    rig.machine.set_log_base();
    old.clear();
    rig.log().clear();
    rig.disk.answer(0, How::Do);
    rig.machine.finish(&read.pending);
    rig.machine.stop_ring(0);
    assert_eq!(rig.data_pages(), read.pages());
    assert_eq!(old.pages(), BTreeSet::new());
    assert!(old.is_intact() && rig.log().is_intact());
}

#[test]
fn nothing_is_written_beyond_a_log_that_is_too_small() {
    for covered in [8 * PAGE, 64 * PAGE, 1 << 20] {
        let mut rig = Rig::new();
        let read_later = rig.machine.guest.alloc(1 << 20, PAGE);
        rig.machine.start_log(Log::new(covered));
        rig.log().clear();
        let read = Read::place(&mut rig.machine, false);
        assert!(read.data[0].0 > read_later);
        assert_eq!(rig.machine.finish(&read.pending), Status::OK);
        rig.machine.stop_ring(0);
        let expected: BTreeSet<u64> =
            rig.ring_pages().into_iter().filter(|page| *page < covered).collect();
        assert_eq!(rig.log().pages(), expected, "{covered} bytes of memory in the log");
        assert!(rig.log().is_intact());
    }
}

#[test]
fn a_log_that_cannot_be_one_is_refused() {
    let mut rig = Rig::new();
    let log = Log::new(GUEST);
    let ask = |machine: &mut Machine, change: fn(&mut proto::vhost_user::LogArea)| {
        let mut area = log.area;
        change(&mut area);
        machine.client.try_ask(Request::SetLogBase(area, log.fd()))
    };
    // This request knows no refusal: the session ends.
    assert!(ask(&mut rig.machine, |area| area.mmap_size = 1 << 40).is_err());
    rig.server.notices().wait_for("the dirty log cannot be mapped");
    rig.machine.reconnect(rig.server.path());
    assert!(ask(&mut rig.machine, |area| area.mmap_size = 0).is_err());
    rig.machine.reconnect(rig.server.path());
    assert!(ask(&mut rig.machine, |area| area.mmap_offset = u64::MAX).is_err());
    rig.machine.reconnect(rig.server.path());
    assert_eq!(rig.machine.read(0, 0, 512), pattern(9, 512));
}

#[test]
fn a_read_that_is_repeated_under_logging_is_marked() {
    let mut rig = Rig::logging();
    rig.disk.hold(true);
    let read = Read::place(&mut rig.machine, true);
    rig.disk.wait_begun(1);
    rig.log().clear();
    rig.server.kill_and_restart(&rig.disk, Setting::default());
    rig.machine.reconnect(rig.server.path());
    rig.disk.wait_begun(2);
    rig.disk.answer_all();
    assert_eq!(rig.machine.finish(&read.pending), Status::OK);
    assert!(read.data_is_there(&rig.machine.guest));
    assert_eq!(rig.data_pages(), read.pages());
}

/// Who served before moved the index and died before it marked the page.
#[test]
fn a_ring_that_starts_under_logging_is_marked() {
    // Cores that look for long before they ask for notifications, which marks the page as well.
    let spin = Spin { bound: Duration::from_millis(1) };
    let mut rig = Rig::with(Setting { spin, ..Setting::default() });
    rig.machine.start_log(Log::new(GUEST));
    rig.machine.stop_ring(0);
    for _ in 0..20 {
        rig.log().clear();
        rig.machine.start_ring(0);
        rig.machine.stop_ring(0);
        assert!(rig.ring_pages().is_subset(&rig.log().pages()));
    }
}

#[test]
fn a_ring_that_asks_for_no_log_is_not_marked() {
    let mut rig = Rig::logging();
    let addresses = rig.machine.queues[0].ring.addresses(false);
    rig.machine.client.done(Request::SetVringAddr { ring: 0, addresses });
    rig.log().clear();
    let read = Read::place(&mut rig.machine, false);
    rig.machine.finish(&read.pending);
    rig.machine.stop_ring(0);
    assert_eq!(rig.log().pages(), read.pages());
}

#[test]
fn regions_are_marked_by_their_guest_addresses() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let high = 1 << 30;
    let guest = Guest::new(&[(0, 1 << 20), (high, 1 << 20), (high + (1 << 20), 1 << 20)]);
    let mut machine = Machine::boot_with(server.path(), guest, Options::default());
    machine.start_log(Log::new(2 << 30));
    machine.log.as_ref().unwrap().clear();
    let at = high + (1 << 20) - 6000;
    let pending = machine.place(0, RequestType::IN, 0, Buf::In(at, 12288));
    machine.submit(0);
    assert_eq!(machine.finish(&pending), Status::OK);
    let marked = machine.log.as_ref().unwrap().pages();
    let in_data: BTreeSet<u64> = marked.range(high..).copied().collect();
    assert_eq!(in_data, pages_of(at, 12288).collect());
}

/// The front end cuts its own log: only this adapter suffers.
#[test]
fn a_log_that_is_cut_breaks_its_own_queue() {
    let mut rig = Rig::logging();
    let other = rig.server.add(&rig.disk, Setting::default());
    let mut neighbour = Machine::boot(rig.server.path_of(other));
    rig.log().cut();
    let _ = rig.machine.begin_read(0, 0, 512);
    rig.server.notices().wait_for("MemoryGone");
    assert!(take_signal(&rig.machine.queues[0].error));
    assert_eq!(neighbour.read(0, 0, 512), pattern(9, 512));
    assert!(!rig.server.notices_of(other).contain("Fault"));
}
