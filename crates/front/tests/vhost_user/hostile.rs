//! Front ends and drivers that do everything wrong: they lose what is theirs, and nobody else
//! notices.

use std::io::Read;
use std::os::fd::OwnedFd;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use proto::vhost_user::{FrontEnd, InflightArea, LogArea, Request, RingAddresses};
use rt::os::memory::anonymous_file;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wire::vhost_user::protocol_feature;

use crate::support::{Client, Desc, Disk, Guest, Machine, Options, Random, Server, Setting};

const SIZE: usize = 1 << 20;

/// A pipe whose reading end tells when the server has let go of everything that came with it.
fn witness() -> (std::io::PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    (reader, writer.into())
}

fn is_let_go(mut reader: std::io::PipeReader) -> bool {
    reader.read_to_end(&mut Vec::new()).is_ok()
}

/// A message as it goes over the socket.
fn message(request: Request<OwnedFd>) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut machine = FrontEnd::default();
    machine.send(request);
    let transmit = machine.transmit().expect("a message");
    let fds = transmit.fds.iter().map(|fd| fd.try_clone().unwrap()).collect();
    (transmit.bytes.to_vec(), fds)
}

/// Everything that a session begins with, none of it asking for an answer.
fn beginning(guest: &Guest, call: OwnedFd) -> Vec<(Vec<u8>, Vec<OwnedFd>)> {
    let features = Options::default().features;
    let fd = |name| anonymous_file(name, 8192).unwrap();
    let base = guest.user(0);
    let addresses =
        RingAddresses { descriptor: base, available: base + 4096, used: base + 8192, log: None };
    let area = InflightArea { mmap_size: 8192, mmap_offset: 0, num_queues: 1, queue_size: 64 };
    let protocol_features = protocol_feature::CONFIGURE_MEM_SLOTS
        | protocol_feature::INFLIGHT_SHMFD
        | protocol_feature::CONFIG;
    [
        Request::SetOwner,
        Request::SetProtocolFeatures(protocol_features),
        Request::SetFeatures(features),
        Request::SetMemTable(guest.regions()),
        Request::SetInflightFd(area, fd(c"inflight")),
        Request::SetVringNum { ring: 0, num: 64 },
        Request::SetVringBase { ring: 0, base: 0 },
        Request::SetVringAddr { ring: 0, addresses },
        Request::SetVringCall { ring: 0, fd: Some(call) },
        Request::SetVringKick { ring: 0, fd: Some(fd(c"no-eventfd")) },
        Request::SetVringEnable { ring: 0, enable: true },
        Request::GetConfig { offset: 0, size: 60, flags: 0 },
        Request::GetVringBase { ring: 0 },
    ]
    .into_iter()
    .map(message)
    .collect()
}

#[test]
fn a_front_end_may_vanish_within_any_message() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let guest = Guest::plain();
    let mut ended = 0;
    let count = beginning(&guest, witness().1).len();
    for last in 0..count {
        for cut in [0, 1, 11, 12, 13, 19, usize::MAX] {
            let (reader, call) = witness();
            let messages = beginning(&guest, call);
            let client = Client::connect(server.path());
            for (bytes, fds) in &messages[..last] {
                client.send_raw(bytes, fds).unwrap();
            }
            let (bytes, fds) = &messages[last];
            let (cut, len) = (cut.min(bytes.len()), bytes.len());
            let broken = server.notices().count("Broken");
            if cut > 0 {
                client.send_raw(&bytes[..cut], fds).unwrap();
            }
            drop((client, messages));
            ended += 1;
            server.notices().wait_for_many("Disconnected", ended);
            assert!(is_let_go(reader));
            let is_inside = (1..len).contains(&cut);
            let said = server.notices().count("Broken") - broken;
            // When the last but one is asking, its answer may find nobody first.
            let may_be_quiet = last == count - 1;
            assert!(
                said == usize::from(is_inside) || (said == 0 && may_be_quiet),
                "message {last} cut at {cut}"
            );
        }
    }
    let mut machine = Machine::boot(server.path());
    machine.write(0, 0, &[1; 512]);
}

#[test]
fn descriptors_that_do_not_belong_there_end_the_session() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let guest = Guest::plain();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (table, _) = message(Request::SetMemTable(guest.regions()));
    let (region, _) = message(Request::AddMemReg(guest.region(0).0, guest.region(0).1));
    let kick = |no_fd: u32| -> Vec<u8> { words(&[12, 1, 8, no_fd, 0]) };
    let log: Vec<u8> = words(&[6, 1, 16, 4096, 0, 0, 0]);
    let cases: Vec<(Vec<u8>, usize)> = vec![
        (table.clone(), 0),
        (table.clone(), 2),
        (table, 8),
        (region.clone(), 0),
        (region, 2),
        (kick(0), 0),
        (kick(0x100), 1),
        (kick(0), 3),
        (log.clone(), 0),
        (log, 2),
        (words(&[1, 1, 0]), 1),
        (words(&[21, 1, 0]), 0),
        (words(&[1, 1, 0]), 32),
        (words(&[1, 1, 0]), 33),
        (words(&[1, 1, 0]), 64),
    ];
    for (number, (bytes, count)) in cases.into_iter().enumerate() {
        let client = Client::connect(server.path());
        let (negotiation, _) =
            message(Request::SetProtocolFeatures(proto::vhost_user::PROTOCOL_FEATURES));
        client.send_raw(&negotiation, &[]).unwrap();
        let (reader, writer) = witness();
        let fds: Vec<OwnedFd> = (0..count).map(|_| writer.try_clone().unwrap()).collect();
        client.send_raw(&bytes, &fds).unwrap();
        drop((fds, writer));
        assert_eq!(client.wait_gone(), 0);
        assert!(is_let_go(reader), "case {number}");
        server.notices().wait_for_many("Broken", number + 1);
    }
    Machine::boot(server.path()).write(0, 0, &[1; 512]);
}

/// What a front end may ask, sense or not.
#[derive(Clone, Debug)]
enum Ask {
    Features(u8),
    Table(u8),
    Add(usize),
    Remove(usize),
    Num(u16),
    Base(u16),
    Addresses(u8, u64),
    Kick(u8),
    Call(u8),
    Enable(bool),
    Stop,
    Inflight(u8),
    Log(u8),
    Config(u32, u32),
    Write(u32, u8),
    Channel,
    Reset,
    Load,
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        1 => any::<u8>().prop_map(Ask::Features),
        1 => any::<u8>().prop_map(Ask::Table),
        1 => (0..3usize).prop_map(Ask::Add),
        1 => (0..3usize).prop_map(Ask::Remove),
        1 => prop_oneof![Just(64), Just(16), Just(1), any::<u16>()].prop_map(Ask::Num),
        1 => any::<u16>().prop_map(Ask::Base),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(which, by)| Ask::Addresses(which, by)),
        1 => any::<u8>().prop_map(Ask::Kick),
        1 => any::<u8>().prop_map(Ask::Call),
        1 => any::<bool>().prop_map(Ask::Enable),
        1 => Just(Ask::Stop),
        1 => any::<u8>().prop_map(Ask::Inflight),
        1 => any::<u8>().prop_map(Ask::Log),
        1 => (0..300u32, 0..257u32).prop_map(|(offset, size)| Ask::Config(offset, size)),
        1 => (0..64u32, any::<u8>()).prop_map(|(offset, byte)| Ask::Write(offset, byte)),
        1 => Just(Ask::Channel),
        1 => Just(Ask::Reset),
        6 => Just(Ask::Load),
    ]
}

/// The request, made of what the machine has; None: requests of the driver were placed instead.
fn request(machine: &mut Machine, ask: &Ask) -> Option<Request<OwnedFd>> {
    let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
    let strange = |kind: u8, fd: &OwnedFd| match kind % 4 {
        0 => None,
        1 => Some(OwnedFd::from(std::fs::File::open("/dev/zero").unwrap())),
        _ => Some(copy(fd)),
    };
    let queue = &machine.queues[0];
    let ring = 0;
    Some(match *ask {
        Ask::Features(bits) => {
            let bit = |n: u8| if bits & 1 << n == 0 { 0 } else { 1 << (26 + n) };
            Request::SetFeatures(machine.features ^ bit(0) ^ bit(2) ^ bit(3))
        }
        Ask::Table(which) => {
            let all = machine.guest.regions().into_iter().enumerate();
            let some = all.filter(|(index, _)| which & 1 << index != 0);
            Request::SetMemTable(some.map(|(_, region)| region).collect())
        }
        Ask::Add(index) => {
            let (region, fd) = machine.guest.region(index);
            Request::AddMemReg(region, fd)
        }
        Ask::Remove(index) => Request::RemMemReg(machine.guest.region(index).0),
        Ask::Num(num) => Request::SetVringNum { ring, num },
        Ask::Base(base) => Request::SetVringBase { ring, base },
        Ask::Addresses(which, by) => {
            let mut addresses = queue.ring.addresses(which & 8 != 0);
            match which % 8 {
                0 => addresses.descriptor = addresses.descriptor.wrapping_add(by & !15),
                1 => addresses.available = addresses.available.wrapping_add(by & !1),
                2 => addresses.used = addresses.used.wrapping_add(by & !3),
                3 => addresses.used = addresses.descriptor,
                _ => {}
            }
            Request::SetVringAddr { ring, addresses }
        }
        Ask::Kick(kind) => Request::SetVringKick { ring, fd: strange(kind, &queue.kick) },
        Ask::Call(kind) => Request::SetVringCall { ring, fd: strange(kind, &queue.call) },
        Ask::Enable(enable) => Request::SetVringEnable { ring, enable },
        Ask::Stop => Request::GetVringBase { ring },
        Ask::Inflight(kind) => {
            let (area, fd) = machine.area.as_ref().unwrap();
            let mut area = *area;
            area.queue_size >>= kind % 3;
            area.mmap_offset = u64::from(kind / 64 * 8);
            Request::SetInflightFd(area, copy(fd))
        }
        Ask::Log(size) => {
            let area = LogArea { mmap_size: u64::from(size), mmap_offset: 8 };
            Request::SetLogBase(area, anonymous_file(c"log", 512).unwrap())
        }
        Ask::Config(offset, size) => Request::GetConfig { offset, size, flags: 0 },
        Ask::Write(offset, byte) => Request::SetConfig { offset, flags: 0, bytes: vec![byte] },
        Ask::Channel => Request::SetBackendReqFd(anonymous_file(c"no-socket", 8).unwrap()),
        Ask::Reset => Request::ResetDevice,
        Ask::Load => {
            if machine.queues[0].ring.free() >= 12 {
                for n in 0..4 {
                    machine.begin_write(0, n * 512, &[1; 512]);
                }
            }
            while machine.queues[0].ring.take_used().is_some() {}
            return None;
        }
    })
}

/// Any requests in any order, with requests in the ring: the session serves or ends, and the next
/// one and the neighbour are served.
#[test]
fn no_order_of_requests_harms_anybody_else() {
    let disk = Disk::new(SIZE);
    let mut server = Server::start(&disk);
    let other = server.add(&disk, Setting::default());
    let mut neighbour = Machine::boot(server.path_of(other));
    let places = [(0, 16 << 20), (16 << 20, 1 << 20), (1 << 30, 1 << 20)];
    let mut runner = TestRunner::new(crate::support::proptest_config(100));
    let result = runner.run(&vec(ask(), 1..30), |script| {
        let mut machine =
            Machine::boot_with(server.path(), Guest::new(&places), Options::default());
        for ask in &script {
            let Some(request) = request(&mut machine, ask) else { continue };
            if machine.client.try_ask(request).is_err() {
                break;
            }
        }
        Ok(())
    });
    result.unwrap();
    neighbour.write(0, 0, &[2; 512]);
    Machine::boot(server.path()).write(0, 0, &[3; 512]);
}

/// A driver that writes anything anywhere in its ring.
#[test]
fn no_ring_harms_anybody_else() {
    let disk = Disk::new(SIZE);
    let mut server = Server::start(&disk);
    let other = server.add(&disk, Setting::default());
    let mut neighbour = Machine::boot(server.path_of(other));
    let mut random = Random(7);
    let mut faults = 0;
    for round in 0..150 {
        let size = [1, 4, 64][round % 3];
        let options = Options { size, inflight: round % 2 == 0, ..Options::default() };
        let guest = Guest::new(&[(0, 1 << 20)]);
        let mut machine = Machine::boot_with(server.path(), guest, options);
        for _ in 0..20 {
            scribble(&mut machine, &mut random);
            machine.queues[0].kick();
        }
        neighbour.write(0, 0, &[2; 512]);
        machine.stop_ring(0);
        let now = server.notices().count("Fault");
        assert!(now - faults <= 1, "a broken ring is reported once");
        faults = now;
    }
    assert!(faults > 100, "{faults} faults");
    assert!(!server.notices().contain("Broken"));
    assert_eq!(server.notices_of(other).all().len(), 1);
}

/// One descriptor, one entry, one index, more or less wrong.
fn scribble(machine: &mut Machine, random: &mut Random) {
    let ring = &mut machine.queues[0].ring;
    let size = usize::from(ring.size);
    let index = random.below(size) as u16;
    let addr = match random.below(4) {
        0 => random.next(),
        1 => (1 << 20) - random.below(64) as u64,
        2 => ring.desc + 16 * random.below(size) as u64,
        _ => random.below(1 << 20) as u64,
    };
    let len = [0, 1, 16, 17, 32, 512, 4096, u32::MAX][random.below(8)];
    let next = random.below(size + 1) as u16;
    ring.write_desc(index, Desc { addr, len, flags: random.below(8) as u16, next });
    ring.put_avail(random.below(size + 1) as u16);
    match random.below(8) {
        0 => ring.set_avail_idx(random.next() as u16),
        _ => drop(ring.announce()),
    }
    ring.set_used_event(random.next() as u16);
}

/// The process that has no descriptor left, run by the test below.
const ALONE: &str = "VIADUCT_TEST_ALONE";

#[test]
fn an_adapter_survives_a_time_without_descriptors() {
    if std::env::var_os(ALONE).is_some() {
        return run_out_of_descriptors();
    }
    // The limit is the whole process's.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::an_adapter_survives_a_time_without_descriptors", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run_out_of_descriptors() {
    let disk = Disk::new(SIZE);
    let mut server = Server::start(&disk);
    let other = server.add(&disk, Setting::default());
    let mut neighbour = Machine::boot(server.path_of(other));
    let limit = getrlimit(Resource::Nofile);
    let spare = std::fs::File::open("/dev/null").unwrap();
    let next = std::os::fd::AsRawFd::as_raw_fd(&spare) as u64;
    drop(spare);
    // Room for the client's own socket, and for no other.
    setrlimit(Resource::Nofile, Rlimit { current: Some(next + 1), ..limit }).unwrap();
    let mut client = Client::connect(server.path());
    server.notices().wait_for("nobody can connect");
    neighbour.write(0, 0, &[1; 512]);
    setrlimit(Resource::Nofile, limit).unwrap();
    client.number(Request::GetFeatures);
}
