//! In-flight tracking: whatever moment a server dies at, its successor repeats exactly what was
//! taken and not answered, in the order in which it was taken, and goes on behind it.
//!
//! Some servers here are killed with requests in their disk; others never lived: [`Predecessor`]
//! writes what a server of any make writes into rings and region, store by store, and stops.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use block::Op;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::vhost_user::{InflightArea, Request, Response};
use wire::virtio::blk::Status;

use crate::support::{
    Disk, Guest, How, Machine, Options, Pending, Server, Setting, pattern, proptest_config,
    wait_for,
};

const SIZE: usize = 1 << 20;
const SECTOR: u64 = 512;

fn offsets(disk: &Disk, from: usize) -> Vec<u64> {
    disk.journal()[from..].iter().map(|entry| entry.offset / SECTOR).collect()
}

#[test]
fn a_killed_server_leaves_nothing_behind_and_nothing_is_done_twice() {
    let disk = Disk::new(SIZE);
    disk.hold(true);
    let mut server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    let mut writes: BTreeMap<u64, Pending> = BTreeMap::new();
    let mut begin = |machine: &mut Machine, number: u64| {
        let bytes = pattern(number, 512);
        writes.insert(number, machine.begin_write(0, number * SECTOR, &bytes));
    };
    for number in 0..8 {
        begin(&mut machine, number);
    }
    disk.wait_begun(8);
    for number in [5, 2, 6] {
        disk.answer(number, How::Do);
    }
    for _ in 0..3 {
        machine.queues[0].wait_any();
    }
    // These take the heads that have become free: an older head, a newer request.
    for number in 8..14 {
        begin(&mut machine, number);
    }
    disk.wait_begun(14);
    disk.answer(9, How::Do);
    machine.queues[0].wait_any();
    for _ in 0..3 {
        server.kill_and_restart(&disk, Setting::default());
        let before = disk.journal().len();
        machine.reconnect(server.path());
        disk.wait_begun(before + 10);
        assert_eq!(offsets(&disk, before), [0, 1, 3, 4, 7, 8, 10, 11, 12, 13]);
    }
    disk.answer_all();
    for number in [0, 1, 3, 4, 7, 8, 10, 11, 12, 13] {
        assert_eq!(machine.finish(&writes[&number]), Status::OK);
    }
    for number in 0..14 {
        assert_eq!(disk.bytes(number as usize * 512, 512), pattern(number, 512));
    }
    machine.write(0, 100 * SECTOR, &[7; 512]);
    assert_eq!(machine.queues[0].ring.out(), 0);
    assert_eq!(machine.stop_ring(0), 15);
    assert_eq!(machine.queues[0].ring.used_idx(), 15);
    // And once more from where it stands.
    machine.start_ring(0);
    machine.write(0, 0, &[8; 512]);
    assert_eq!(machine.stop_ring(0), 16);
}

#[test]
fn queues_are_repeated_each_by_itself() {
    let disk = Disk::new(SIZE);
    disk.hold(true);
    let setting = Setting { queues: 3, ..Setting::default() };
    let mut server = Server::start_with(2, &disk, setting.clone());
    let options = Options { queues: 3, ..Options::default() };
    let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
    let mut all = Vec::new();
    for number in 0..9u64 {
        let queue = number as usize % 3;
        all.push(machine.begin_write(queue, number * SECTOR, &[number as u8; 512]));
    }
    disk.wait_begun(9);
    server.kill_and_restart(&disk, setting);
    machine.reconnect(server.path());
    disk.wait_begun(18);
    let again = offsets(&disk, 9);
    for queue in 0..3 {
        let of_queue: Vec<u64> = again.iter().copied().filter(|n| n % 3 == queue).collect();
        assert_eq!(of_queue, [queue, queue + 3, queue + 6]);
    }
    disk.answer_all();
    for pending in &all {
        assert_eq!(machine.finish(pending), Status::OK);
    }
    for ring in 0..3 {
        assert_eq!(machine.stop_ring(ring), 3);
    }
}

/// The region of one queue (header of 16 bytes, 16 bytes for each descriptor), written as a file.
struct Region<'a> {
    file: &'a File,
    at: u64,
}

impl Region<'_> {
    const VERSION: u64 = 8;
    const DESC_NUM: u64 = 10;
    const LAST_BATCH_HEAD: u64 = 12;
    const USED_IDX: u64 = 14;

    fn put(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.at + offset).unwrap();
    }

    fn put_u16(&self, offset: u64, value: u16) {
        self.put(offset, &value.to_ne_bytes());
    }

    fn u16(&self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.file.read_exact_at(&mut bytes, self.at + offset).unwrap();
        u16::from_ne_bytes(bytes)
    }

    fn state(head: u16) -> u64 {
        16 + 16 * u64::from(head)
    }

    fn put_inflight(&self, head: u16, inflight: u8) {
        self.put(Self::state(head), &[inflight]);
    }

    fn put_next(&self, head: u16, next: u16) {
        self.put_u16(Self::state(head) + 6, next);
    }

    fn put_counter(&self, head: u16, counter: u64) {
        self.put(Self::state(head) + 8, &counter.to_ne_bytes());
    }
}

/// A server that dies after so many stores.
struct Predecessor<'a> {
    machine: &'a mut Machine,
    region: Region<'a>,
    stores_left: usize,
    /// What each head stands for, as of when it was taken.
    number_of: &'a BTreeMap<u16, u64>,
    next_avail: u16,
    next_used: u16,
    counter: u64,
    /// Taken and not answered, by head; then the same with the number of the request.
    taken: Vec<(u16, u64)>,
    /// Answered since the last publication.
    batch: Vec<(u16, u64)>,
    /// What the successor will find: taken, in order, and not published.
    left: Vec<u64>,
}

impl Predecessor<'_> {
    fn store(&mut self, f: impl FnOnce(&mut Self)) -> bool {
        if self.stores_left == 0 {
            return false;
        }
        self.stores_left -= 1;
        f(self);
        true
    }

    fn take(&mut self, head: u16) {
        let number = self.number_of[&head];
        let counter = self.counter;
        let stored = self.store(|it| it.region.put_counter(head, counter))
            && self.store(|it| {
                it.region.put_inflight(head, 1);
                it.left.push(number);
            });
        if stored {
            self.counter += 1;
            self.next_avail = self.next_avail.wrapping_add(1);
            self.taken.push((head, number));
        }
    }

    fn answer(&mut self, choice: usize) {
        if self.taken.is_empty() {
            return;
        }
        let (head, number) = self.taken.remove(choice % self.taken.len());
        let index = self.next_used.wrapping_add(self.batch.len() as u16);
        let last = self.region.u16(Region::LAST_BATCH_HEAD);
        let ring = &self.machine.queues[0].ring;
        let entry = ring.used + 4 + 8 * u64::from(index % ring.size);
        let stored = self.store(|it| {
            it.machine.guest.store(entry, u32::from(head));
            it.machine.guest.store(entry + 4, 1u32);
        }) && self.store(|it| it.region.put_next(head, last))
            && self.store(|it| it.region.put_u16(Region::LAST_BATCH_HEAD, head));
        if stored {
            self.batch.push((head, number));
        }
    }

    fn publish(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let index = self.next_used.wrapping_add(batch.len() as u16);
        let at = self.machine.queues[0].ring.used + 2;
        let stored = self.store(|it| {
            it.machine.guest.store(at, index);
            it.left.retain(|number| !batch.iter().any(|(_, other)| other == number));
        });
        if !stored {
            return;
        }
        self.next_used = index;
        for &(head, _) in &batch {
            self.store(|it| it.region.put_inflight(head, 0));
        }
        self.store(|it| it.region.put_u16(Region::USED_IDX, index));
    }
}

/// What a predecessor and its driver do.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The driver places a request.
    Place,
    /// The server takes what was placed.
    Take,
    Answer(usize),
    Publish,
    /// The driver takes its answers; their heads are free again.
    Reap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Place),
        3 => Just(Step::Take),
        3 => any::<usize>().prop_map(Step::Answer),
        2 => Just(Step::Publish),
        2 => Just(Step::Reap),
    ]
}

#[derive(Clone, Debug)]
struct Life {
    steps: Vec<Step>,
    stores: usize,
    start: u16,
}

fn life() -> impl Strategy<Value = Life> {
    let start = prop_oneof![Just(0), Just(65_530), any::<u16>()];
    (vec(step(), 1..120), 0..200usize, start).prop_map(|(steps, stores, start)| Life {
        steps,
        stores,
        start,
    })
}

/// Small, so that heads are used again soon.
const RING: u16 = 16;

/// Leads such a life up to its end, then puts a real server in its place.
fn succeed(server: &Server, disk: &Disk, life: &Life) {
    let options = Options { size: RING, ..Options::default() };
    let mut machine = Machine::prepare(server.path(), Guest::plain(), options);
    machine.queues[0].ring.start_at(life.start);
    let file = File::from(machine.area.as_ref().unwrap().1.try_clone().unwrap());
    let region = Region { file: &file, at: 0 };
    region.put_u16(Region::VERSION, 1);
    region.put_u16(Region::DESC_NUM, RING);
    region.put_u16(Region::USED_IDX, life.start);
    let mut number_of = BTreeMap::new();
    let (mut placed, mut taken_from) = (Vec::new(), 0);
    let mut stores_left = life.stores;
    let mut memory = (life.start, life.start, 0, Vec::new(), Vec::new(), Vec::new());
    for step in &life.steps {
        match step {
            Step::Place if machine.queues[0].ring.free() >= 3 => {
                let number = placed.len() as u64;
                let pending = machine.place_write(0, number * SECTOR, &pattern(number, 512));
                machine.queues[0].ring.announce();
                number_of.insert(pending.head, number);
                placed.push(pending);
            }
            Step::Place => {}
            Step::Reap => while machine.queues[0].ring.take_used().is_some() {},
            Step::Take | Step::Answer(_) | Step::Publish => {
                let (next_avail, next_used, counter, taken, batch, left) = memory;
                let mut server = Predecessor {
                    machine: &mut machine,
                    region: Region { file: &file, at: 0 },
                    stores_left,
                    number_of: &number_of,
                    next_avail,
                    next_used,
                    counter,
                    taken,
                    batch,
                    left,
                };
                match step {
                    Step::Take => {
                        while taken_from < placed.len() && server.stores_left > 0 {
                            server.take(placed[taken_from].head);
                            taken_from = server.next_avail.wrapping_sub(life.start).into();
                        }
                    }
                    Step::Answer(choice) => server.answer(*choice),
                    _ => server.publish(),
                }
                stores_left = server.stores_left;
                memory = (
                    server.next_avail,
                    server.next_used,
                    server.counter,
                    server.taken,
                    server.batch,
                    server.left,
                );
            }
        }
    }
    let left = memory.5;
    let before = disk.journal().len();
    machine.connect();
    while machine.queues[0].ring.out() > 0 {
        machine.queues[0].wait_any();
    }
    let not_taken = (taken_from..placed.len()).map(|number| number as u64);
    let expected: Vec<u64> = left.iter().copied().chain(not_taken).collect();
    assert_eq!(offsets(disk, before), expected);
    for number in expected {
        assert_eq!(machine.status(&placed[number as usize]), Status::OK);
        assert_eq!(disk.bytes(number as usize * 512, 512), pattern(number, 512));
    }
    machine.write(0, 0, &[1; 512]);
    let end = life.start.wrapping_add(placed.len() as u16 + 1);
    assert_eq!((machine.stop_ring(0), machine.queues[0].ring.used_idx()), (end, end));
}

#[test]
fn every_moment_to_die_at_is_survived() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut runner = TestRunner::new(proptest_config(200));
    let result = runner.run(&life(), |life| {
        succeed(&server, &disk, &life);
        server.notices().wait_for("Connected");
        Ok(())
    });
    result.unwrap();
    assert!(!server.notices().contain("Fault") && !server.notices().contain("Failed"));
}

/// The same without chance: two batches, the second one cut short after each of its stores.
#[test]
fn each_store_of_a_batch_can_be_the_last() {
    use Step::{Answer, Place, Publish, Reap, Take};
    let steps = [
        [Place, Place, Place, Place, Place, Take].as_slice(),
        &[Answer(1), Answer(2), Publish, Reap, Place, Place, Take],
        &[Answer(0), Answer(2), Answer(1), Publish, Reap, Place],
    ]
    .concat();
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    for start in [0, 65_532] {
        for stores in 0..36 {
            succeed(&server, &disk, &Life { steps: steps.clone(), stores, start });
        }
    }
}

#[test]
fn a_driver_that_sleeps_is_woken_when_its_answer_outlived_the_server() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    for size in [16, 64] {
        let options = Options { size, ..Options::default() };
        let mut machine = Machine::prepare(server.path(), Guest::plain(), options);
        let pending = machine.place_write(0, 0, &[1; 512]);
        let ring = &mut machine.queues[0].ring;
        ring.announce();
        assert!(!ring.listen());
        // Answered and shown, but not notified.
        machine.guest.store(ring.used + 4, u32::from(pending.head));
        machine.guest.store(ring.used + 2, 1u16);
        machine.connect();
        assert!(wait_for(&machine.queues[0].call), "the driver would sleep for ever");
        machine.queues[0].wait(pending.head);
        assert_eq!(disk.journal().len(), 0);
    }
}

fn refused(machine: &mut Machine, area: InflightArea, file: &File) -> bool {
    let fd = file.try_clone().unwrap().into();
    match machine.client.try_ask(Request::SetInflightFd(area, fd)) {
        Ok(Response::Refused) | Err(_) => true,
        Ok(_) => false,
    }
}

#[test]
fn an_area_that_cannot_be_one_is_refused() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let fresh = || {
        let machine = Machine::prepare(server.path(), Guest::plain(), Options::default());
        let (area, fd) = machine.area.as_ref().unwrap();
        let (area, file) = (*area, File::from(fd.try_clone().unwrap()));
        (machine, area, file)
    };
    {
        let (mut machine, area, file) = fresh();
        file.set_len(area.mmap_size - 1).unwrap();
        assert!(refused(&mut machine, area, &file), "shorter than announced");
        server.notices().wait_for("the memory file has");
    }
    for change in [
        |area: &mut InflightArea| area.mmap_size = 1024,
        |area: &mut InflightArea| area.mmap_size = u64::MAX,
        |area: &mut InflightArea| area.mmap_offset = u64::MAX,
        |area: &mut InflightArea| area.mmap_offset = 4,
        |area: &mut InflightArea| area.num_queues = 200,
        |area: &mut InflightArea| area.queue_size = 1024,
        |area: &mut InflightArea| area.queue_size = 0,
    ] {
        let (mut machine, mut area, file) = fresh();
        change(&mut area);
        assert!(refused(&mut machine, area, &file), "{area:?}");
    }
    // A version that is not ours, and a ring larger than the area has room for.
    let (mut machine, _, file) = fresh();
    Region { file: &file, at: 0 }.put_u16(Region::VERSION, 2);
    machine.client.done(Request::SetMemTable(machine.guest.regions()));
    let (area, fd) = machine.area.as_ref().unwrap();
    machine.client.done(Request::SetInflightFd(*area, fd.try_clone().unwrap()));
    machine.declare_ring(0);
    let enable = Request::SetVringEnable { ring: 0, enable: true };
    assert!(matches!(machine.client.ask(enable), Response::Refused));
    server.notices().wait_for("version 2");
}

/// Another back end made the area: there is no word of ours behind it, and none is written.
#[test]
fn an_area_of_another_make_is_used_and_not_overrun() {
    let disk = Disk::new(SIZE);
    let mut server = Server::start(&disk);
    let mut machine = Machine::prepare(server.path(), Guest::plain(), Options::default());
    let regions = 16 + 64 * 16 + 48;
    let fd = rt::os::memory::anonymous_file(c"theirs", 16 + regions + 64).unwrap();
    let file = File::from(fd.try_clone().unwrap());
    file.write_all_at(&[0xee; 64], 16 + regions).unwrap();
    let area = InflightArea { mmap_size: regions, mmap_offset: 16, num_queues: 1, queue_size: 64 };
    machine.area = Some((area, fd));
    machine.connect();
    let bytes = vec![0];
    machine.client.done(Request::SetConfig { offset: 32, flags: 0, bytes });
    disk.hold(true);
    let pending = machine.begin_write(0, 0, &[5; 512]);
    disk.wait_begun(1);
    assert_eq!(disk.journal()[0].op, Op::Write { fua: true, atomic: false });
    server.kill_and_restart(&disk, Setting::default());
    machine.reconnect(server.path());
    disk.wait_begun(2);
    disk.answer_all();
    assert_eq!(machine.finish(&pending), Status::OK);
    let mut behind = [0; 64];
    file.read_exact_at(&mut behind, 16 + regions).unwrap();
    assert_eq!(behind, [0xee; 64]);
}
