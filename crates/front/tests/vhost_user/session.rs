//! What a front end can ask of a session beside rings and requests: pausing, stopping, resetting,
//! the configuration and the channel of its changes; front ends that come, go and come back.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use front::vhost_user::{Info, Limits};
use proto::vhost_user::{FrontEndChannel, Request, Response};
use wire::vhost_user::virtio_feature;
use wire::virtio::blk::{Config, Status};
use wire::virtio::feature;

use crate::support::{
    Client, Disk, Guest, How, Machine, Options, Server, Setting, pattern, wait_for,
};

const SIZE: usize = 1 << 20;

fn impatient() -> Setting {
    Setting { limits: Limits { drain: Duration::from_millis(20) }, ..Setting::default() }
}

#[test]
fn a_disabled_ring_takes_nothing_until_it_is_enabled_again() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    for round in 1..20u16 {
        machine.client.done(Request::SetVringEnable { ring: 0, enable: false });
        let before = disk.journal().len();
        let writes: Vec<_> =
            (0..3).map(|n| machine.begin_write(0, n * 512, &[round as u8; 512])).collect();
        // Whatever the core does meanwhile: a question to it is answered, and nothing was taken.
        assert_eq!(server.session().queues.len(), 0);
        assert_eq!(disk.journal().len(), before);
        machine.client.done(Request::SetVringEnable { ring: 0, enable: true });
        for write in &writes {
            assert_eq!(machine.finish(write), Status::OK);
        }
        assert_eq!(disk.journal().len(), before + 3);
    }
    assert_eq!(machine.stop_ring(0), 57);
}

#[test]
fn a_ring_that_stops_waits_for_its_store_and_says_so() {
    let disk = Disk::new(SIZE);
    let server = Server::start_with(1, &disk, impatient());
    let counted = || -> u64 {
        let Info { session, past, .. } = server.info();
        let queues = session.iter().flat_map(|session| &session.queues);
        let all = queues.flat_map(|queue| &queue.stats).chain(&past);
        all.map(|stats| stats.requests).sum()
    };
    let stops = [
        || Request::GetVringBase { ring: 0 },
        || Request::SetVringEnable { ring: 0, enable: false },
        || Request::ResetDevice,
    ];
    for (before, stop) in (0..).step_by(3).zip(stops) {
        disk.hold(true);
        let mut machine = Machine::boot(server.path());
        let begun = disk.journal().len();
        let writes: Vec<_> = (0..3).map(|n| machine.begin_write(0, n * 512, &[1; 512])).collect();
        disk.wait_begun(begun + 3);
        let noticed = server.notices().count("Waiting { queue: 0, in_flight: 3");
        machine.client.send(stop()).unwrap();
        server.notices().wait_for_many("Waiting { queue: 0, in_flight: 3", noticed + 1);
        // A request that comes now is nobody's business before the ring starts again.
        machine.begin_write(0, 4096, &[2; 512]);
        server.notices().wait_for_many("Waiting { queue: 0, in_flight: 3", noticed + 3);
        assert!(!machine.client.has_news(), "answered before the ring had drained");
        disk.answer(begun, How::Do);
        disk.answer(begun + 1, How::Do);
        server.notices().wait_for("Waiting { queue: 0, in_flight: 1");
        assert!(!machine.client.has_news());
        assert_eq!(counted(), before + 2, "what it has done is not forgotten meanwhile");
        disk.answer(begun + 2, How::Do);
        match (stop(), machine.client.answer().unwrap()) {
            (Request::GetVringBase { .. }, Response::VringBase(3)) => {}
            (Request::SetVringEnable { .. } | Request::ResetDevice, Response::Done) => {}
            (stop, response) => panic!("{response:?} to {stop:?}"),
        }
        // Everything is answered when the answer comes.
        assert_eq!(machine.queues[0].ring.used_idx(), 3);
        for write in &writes {
            assert_eq!(machine.finish(write), Status::OK);
        }
        assert_eq!(disk.journal().len(), begun + 3);
        assert_eq!(counted(), before + 3);
    }
}

#[test]
fn rings_that_stop_together_take_nothing_while_one_waits() {
    let disk = Disk::new(SIZE);
    disk.hold(true);
    let setting = Setting { queues: 2, ..impatient() };
    let server = Server::start_with(1, &disk, setting);
    let options = Options { queues: 2, ..Options::default() };
    let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
    machine.begin_write(0, 0, &[1; 512]);
    disk.wait_begun(1);
    machine.client.send(Request::ResetDevice).unwrap();
    server.notices().wait_for("Waiting");
    machine.begin_write(1, 512, &[2; 512]);
    server.notices().wait_for_many("Waiting", 3);
    assert_eq!(disk.journal().len(), 1);
    disk.answer_all();
    assert!(matches!(machine.client.answer(), Ok(Response::Done)));
    assert_eq!(disk.journal().len(), 1);
}

#[test]
fn a_reset_device_is_a_new_one() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    machine.write(0, 0, &[1; 512]);
    while wait_for_none(&machine.queues[0].call) {}
    machine.client.done(Request::ResetDevice);
    assert_eq!(server.session().features, Vec::<&str>::new());
    machine.client.done(Request::SetFeatures(machine.features));
    machine.queues[0].ring.start_at(0);
    // Nobody is to be called before the front end says who.
    let ring = &machine.queues[0].ring;
    let (num, addresses) = (ring.size, ring.addresses(false));
    let kick = Some(machine.queues[0].kick.try_clone().unwrap());
    for request in [
        Request::SetVringNum { ring: 0, num },
        Request::SetVringBase { ring: 0, base: 0 },
        Request::SetVringAddr { ring: 0, addresses },
        Request::SetVringKick { ring: 0, fd: kick },
        Request::SetVringEnable { ring: 0, enable: true },
    ] {
        machine.client.done(request);
    }
    machine.begin_write(0, 0, &[2; 512]);
    disk.wait_begun(2);
    assert_eq!(machine.stop_ring(0), 1);
    assert!(!wait_for_none(&machine.queues[0].call));
    machine.start_ring(0);
    machine.write(0, 0, &[3; 512]);
}

/// Takes a signal that is there. False: none is.
fn wait_for_none(fd: &OwnedFd) -> bool {
    crate::support::take_signal(fd)
}

#[test]
fn a_front_end_that_does_not_notify_is_looked_after() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    machine.stop_ring(0);
    let deaf = |machine: &mut Machine| {
        // Announced, and nobody told.
        let write = machine.place_write(0, 0, &[1; 512]);
        machine.queues[0].ring.announce();
        assert_eq!(machine.finish(&write), Status::OK);
    };
    machine.declare_ring(0);
    machine.client.done(Request::SetVringKick { ring: 0, fd: None });
    machine.client.done(Request::SetVringEnable { ring: 0, enable: true });
    deaf(&mut machine);
    deaf(&mut machine);
    // It may change its mind under a running ring, and change it back.
    let kick = machine.queues[0].kick.try_clone().unwrap();
    machine.client.done(Request::SetVringKick { ring: 0, fd: Some(kick) });
    machine.write(0, 512, &[2; 512]);
    machine.client.done(Request::SetVringKick { ring: 0, fd: None });
    deaf(&mut machine);
    deaf(&mut machine);
    machine.stop_ring(0);
}

#[test]
fn a_call_that_comes_late_is_made() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    machine.client.done(Request::SetVringCall { ring: 0, fd: None });
    let write = machine.begin_write(0, 0, &[1; 512]);
    while machine.queues[0].ring.used_idx() == 0 {
        std::hint::spin_loop();
    }
    while wait_for_none(&machine.queues[0].call) {}
    let call = machine.queues[0].call.try_clone().unwrap();
    machine.client.done(Request::SetVringCall { ring: 0, fd: Some(call) });
    assert!(wait_for(&machine.queues[0].call));
    machine.queues[0].wait(write.head);
}

// ---- configuration ------------------------------------------------------------------------------

fn config(machine: &mut Machine, offset: u32, size: u32) -> Option<Vec<u8>> {
    match machine.client.ask(Request::GetConfig { offset, size, flags: 0 }) {
        Response::Config(bytes) => Some(bytes),
        Response::Refused => None,
        other => panic!("{other:?} where the configuration belongs"),
    }
}

#[test]
fn the_configuration_is_read_in_any_piece_and_no_further() {
    let disk = Disk::new(SIZE);
    let setting = Setting { queues: 3, ..Setting::default() };
    let server = Server::start_with(1, &disk, setting);
    let mut machine = Machine::boot(server.path());
    let whole = config(&mut machine, 0, 256).unwrap();
    assert_eq!(whole.len(), 256);
    let space = size_of::<Config>();
    assert_eq!(whole[..8], (SIZE as u64 / 512).to_le_bytes());
    assert_eq!(whole[34..36], 3u16.to_le_bytes());
    assert!(whole[space..].iter().all(|byte| *byte == 0), "padded with zeroes");
    for (offset, size) in [(0, 8), (20, 4), (32, 1), (space as u32, 10), (255, 1), (100, 156)] {
        let piece = config(&mut machine, offset, size).unwrap();
        assert_eq!(piece, whole[offset as usize..(offset + size) as usize]);
    }
    for (offset, size) in [(1, 256), (200, 57)] {
        assert_eq!(config(&mut machine, offset, size), None, "{size} bytes at {offset}");
    }
    for (offset, bytes) in [
        (0, vec![0xff; 8]),
        (32, vec![7]),
        (30, vec![0xff; 4]),
        (space as u32, vec![0]),
        (0, vec![0; 256]),
    ] {
        let write = Request::SetConfig { offset, flags: 0, bytes };
        assert!(matches!(machine.client.ask(write), Response::Refused), "at {offset}");
    }
    assert_eq!(config(&mut machine, 0, 256).unwrap(), whole);
    assert_eq!(server.notices().count("Failed"), 5);
    machine.write(0, 0, &[1; 512]);
}

/// The front end's end of the back-end channel.
struct Channel {
    socket: UnixStream,
    machine: FrontEndChannel<OwnedFd>,
}

impl Channel {
    fn open(machine: &mut Machine) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        machine.client.done(Request::SetBackendReqFd(theirs.into()));
        ours.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        Self { socket: ours, machine: FrontEndChannel::default() }
    }

    fn wait_for_change(&mut self) {
        use std::io::{Read, Write};
        while !self.machine.poll_config_change().unwrap() {
            let mut bytes = vec![0; self.machine.wanted()];
            let got = self.socket.read(&mut bytes).expect("a message");
            assert!(got > 0, "the channel was closed");
            self.machine.handle_input(&bytes[..got], []);
        }
        while let Some(transmit) = self.machine.transmit() {
            let sent = self.socket.write(transmit.bytes).unwrap();
            self.machine.handle_transmitted(sent);
        }
    }
}

#[test]
fn a_change_of_capacity_reaches_the_front_end() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    let mut channel = Channel::open(&mut machine);
    for size in [2 * SIZE, 4 * SIZE, SIZE / 2] {
        disk.resize(size);
        channel.wait_for_change();
        let capacity = config(&mut machine, 0, 8).unwrap();
        assert_eq!(capacity, (size as u64 / 512).to_le_bytes());
        machine.write(0, size as u64 - 512, &[1; 512]);
        let beyond = machine.begin_write(0, size as u64, &[1; 512]);
        assert_eq!(machine.finish(&beyond), Status::IOERR);
    }
    // A front end whose rings are stopped is told when one runs again.
    machine.stop_ring(0);
    disk.resize(SIZE);
    assert_eq!(config(&mut machine, 0, 8).unwrap(), (SIZE as u64 / 512).to_le_bytes());
    channel.socket.set_nonblocking(true).unwrap();
    assert!(std::io::Read::read(&mut channel.socket, &mut [0; 12]).is_err());
    channel.socket.set_nonblocking(false).unwrap();
    machine.start_ring(0);
    channel.wait_for_change();
    // One that closes its channel, or has a new one, goes on.
    drop(channel);
    disk.resize(2 * SIZE);
    machine.write(0, SIZE as u64, &[1; 512]);
    let mut channel = Channel::open(&mut machine);
    disk.resize(SIZE);
    channel.wait_for_change();
    drop(channel);
    machine.client.done(Request::SetBackendReqFd(std::fs::File::open("/dev/null").unwrap().into()));
    disk.resize(2 * SIZE);
    machine.write(0, SIZE as u64, &[1; 512]);
    assert!(!server.notices().contain("Broken"));
}

// ---- front ends that come and go ----------------------------------------------------------------

#[test]
fn a_second_front_end_is_refused() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    for round in 1..4 {
        let mut second = Client::connect(server.path());
        assert!(second.try_ask(Request::GetFeatures).is_err());
        assert_eq!(server.notices().count("Refused"), round);
        machine.write(0, 0, &[1; 512]);
    }
    machine.reconnect_after_hanging_up(server.path());
    machine.write(0, 0, &[2; 512]);
    assert_eq!(server.notices().count("Refused"), 3);
}

#[test]
fn who_comes_back_at_once_is_never_refused() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    for round in 0..100u64 {
        let write = machine.begin_write(0, 512 * round, &[1; 512]);
        machine.reconnect_after_hanging_up(server.path());
        assert_eq!(machine.finish(&write), Status::OK);
    }
    assert_eq!(disk.journal().len(), 100, "what was taken by one is not repeated by the next");
}

#[test]
fn who_comes_back_while_its_requests_drain_waits_for_its_turn() {
    let disk = Disk::new(SIZE);
    let server = Server::start_with(1, &disk, impatient());
    disk.hold(true);
    let mut machine = Machine::boot(server.path());
    let write = machine.begin_write(0, 0, &pattern(1, 512));
    disk.wait_begun(1);
    machine.hang_up();
    server.notices().wait_for("Waiting");
    let mut client = Client::connect(server.path());
    client.send(Request::GetFeatures).unwrap();
    server.notices().wait_for_many("Waiting", 3);
    assert!(!client.has_news());
    disk.answer_all();
    assert!(matches!(client.answer(), Ok(Response::Number(_))));
    drop(client);
    machine.reconnect(server.path());
    assert_eq!(machine.finish(&write), Status::OK);
    assert_eq!(disk.journal().len(), 1, "it was answered by the one who took it");
    assert!(!server.notices().contain("Refused"));
}

/// It asked for a ring to be stopped and did not wait for the answer, as one that is killed.
#[test]
fn who_vanishes_while_its_answer_is_held_is_followed_by_the_next() {
    let disk = Disk::new(SIZE);
    let server = Server::start_with(1, &disk, impatient());
    for more in [false, true] {
        disk.hold(true);
        let begun = disk.journal().len();
        let mut machine = Machine::boot(server.path());
        machine.begin_write(0, 0, &pattern(1, 512));
        disk.wait_begun(begun + 1);
        machine.client.send(Request::GetVringBase { ring: 0 }).unwrap();
        if more {
            // A message that is read ahead and not looked at.
            let bytes: Vec<u8> = [1u32, 1, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
            machine.client.send_raw(&bytes, &[]).unwrap();
        }
        let noticed = server.notices().count("Waiting");
        server.notices().wait_for_many("Waiting", noticed + 1);
        machine.hang_up();
        let mut client = Client::connect(server.path());
        client.send(Request::GetFeatures).unwrap();
        server.notices().wait_for_many("Waiting", noticed + 3);
        disk.answer_all();
        assert!(matches!(client.answer(), Ok(Response::Number(_))));
        assert!(!server.notices().contain("Refused"), "more: {more}");
        assert!(!server.notices().contain("Broken"), "{:?}", server.notices().all());
    }
}

#[test]
fn an_adapter_that_closes_answers_everything_first() {
    let disk = Disk::new(SIZE);
    disk.hold(true);
    let server = Server::start_with(1, &disk, impatient());
    let mut machine = Machine::boot(server.path());
    let write = machine.begin_write(0, 0, &[1; 512]);
    disk.wait_begun(1);
    let closed = server.adapter().close();
    server.notices().wait_for("Waiting");
    assert!(!server.notices().contain("Disconnected"));
    disk.answer_all();
    closed.wait().unwrap();
    assert_eq!(machine.finish(&write), Status::OK);
    machine.client.wait_gone();
    assert!(server.notices().contain("Disconnected"));
}

#[test]
fn an_adapter_that_is_dropped_ends_its_session() {
    let disk = Disk::new(SIZE);
    let mut server = Server::start(&disk);
    let mut machine = Machine::boot(server.path());
    machine.write(0, 0, &[1; 512]);
    server.drop_adapter();
    machine.client.wait_gone();
    server.notices().wait_for("Disconnected");
}

#[test]
fn a_front_end_that_reads_no_answers_cannot_keep_an_adapter() {
    let disk = Disk::new(SIZE);
    let server = Server::start(&disk);
    let client = Client::connect(server.path());
    let question: Vec<u8> = [1u32, 1, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    client.fill_with(&question);
    server.adapter().close().wait().unwrap();
    assert!(client.wait_gone() > 20 * 100);
}

#[test]
fn what_was_negotiated_can_be_listed() {
    let disk = Disk::new(SIZE);
    let setting = Setting { queues: 2, ..Setting::default() };
    let server = Server::start_with(1, &disk, setting);
    assert!(server.info().session.is_none());
    let options = Options { queues: 2, ..Options::default() };
    let mut machine = Machine::boot_with(server.path(), Guest::plain(), options);
    machine.write(1, 0, &[1; 512]);
    let session = server.session();
    assert_eq!(session.peer, std::process::id() as i32);
    assert!(session.inflight_tracking && !session.logging);
    assert_eq!((session.memory_regions, session.queues.len()), (1, 2));
    assert!(session.features.contains(&"event-idx") && !session.features.contains(&"mq"));
    let requests =
        |stats: &[model::stats::OpStats]| -> u64 { stats.iter().map(|stats| stats.requests).sum() };
    assert_eq!(requests(&session.queues[1].stats), 1);
    machine.stop_ring(1);
    assert_eq!(server.session().queues.len(), 1);
    assert_eq!(requests(&server.info().past), 1);
}

/// Without PROTOCOL_FEATURES all rings start with SET_FEATURES: all of them, or none.
#[test]
fn rings_that_start_together_start_all_or_none() {
    let disk = Disk::new(SIZE);
    let setting = Setting { queues: 2, ..Setting::default() };
    let server = Server::start_with(1, &disk, setting);
    let mut options = Options { queues: 2, inflight: false, ..Options::default() };
    options.features = feature::VERSION_1 | virtio_feature::PROTOCOL_FEATURES;
    let mut machine = Machine::prepare(server.path(), Guest::plain(), options);
    machine.client.done(Request::SetMemTable(machine.guest.regions()));
    machine.declare_ring(0);
    machine.declare_ring(1);
    let good = machine.queues[1].ring.addresses(false);
    let mut addresses = good;
    addresses.used += 1 << 40;
    machine.client.done(Request::SetVringAddr { ring: 1, addresses });
    let start = || Request::SetFeatures(feature::VERSION_1);
    assert!(matches!(machine.client.ask(start()), Response::Refused));
    server.notices().wait_for("queue 1 cannot be started");
    let write = machine.begin_write(0, 0, &[1; 512]);
    assert_eq!(server.session().queues.len(), 0);
    machine.client.done(Request::SetVringAddr { ring: 1, addresses: good });
    machine.client.done(start());
    assert_eq!(machine.finish(&write), Status::OK);
    machine.write(1, 0, &[1; 512]);
}
