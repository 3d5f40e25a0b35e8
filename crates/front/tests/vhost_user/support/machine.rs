//! A virtual machine reduced to what a disk sees of it: a front end that shares memory and starts
//! rings in the order in which QEMU does, and a driver that makes block requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use proto::vhost_user::{InflightArea, Request, Response};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use wire::vhost_user::{queue_region_split_bytes, virtio_feature};
use wire::virtio::blk::{RequestHeader, RequestType, SECTOR_BYTES, Status};
use wire::virtio::{blk, feature};
use zerocopy::IntoBytes;

use super::driver::Used;
use super::{Buf, Client, Guest, Log, PATIENCE, Ring};

/// What a status byte is before the device has written it.
const UNTOUCHED: u8 = 0xaa;

#[derive(Clone, Copy)]
pub struct Options {
    pub queues: u16,
    pub size: u16,
    pub features: u64,
    pub inflight: bool,
}

impl Default for Options {
    fn default() -> Self {
        let features = feature::VERSION_1
            | feature::RING_INDIRECT_DESC
            | feature::RING_EVENT_IDX
            | virtio_feature::PROTOCOL_FEATURES
            | blk::feature::FLUSH
            | blk::feature::CONFIG_WCE
            | blk::feature::DISCARD
            | blk::feature::WRITE_ZEROES;
        Self { queues: 1, size: 64, features, inflight: true }
    }
}

pub struct Queue {
    pub ring: Ring,
    pub kick: OwnedFd,
    pub call: OwnedFd,
    pub error: OwnedFd,
    /// Answers that were taken from the ring and asked for by nobody yet.
    answers: BTreeMap<u16, Used>,
}

/// Where header, data and status of a request lie.
pub type Place = (u64, u64, u64);

/// A request that is out.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub queue: usize,
    pub head: u16,
    pub header: u64,
    pub data: u64,
    pub len: u32,
    pub status: u64,
}

pub struct Machine {
    pub guest: Rc<Guest>,
    pub client: Client,
    pub queues: Vec<Queue>,
    pub features: u64,
    /// In-flight area and its file, as the front end keeps them.
    pub area: Option<(InflightArea, OwnedFd)>,
    pub log: Option<Log>,
}

impl Machine {
    pub fn boot(path: &Path) -> Self {
        Self::boot_with(path, Guest::plain(), Options::default())
    }

    pub fn boot_with(path: &Path, guest: Guest, options: Options) -> Self {
        let mut machine = Self::prepare(path, guest, options);
        machine.connect();
        machine
    }

    /// With everything but the connection.
    pub fn prepare(path: &Path, guest: Guest, options: Options) -> Self {
        let guest = Rc::new(guest);
        let event_idx = options.features & feature::RING_EVENT_IDX != 0;
        let queues = (0..options.queues).map(|_| Queue::new(&guest, options.size, event_idx));
        let queues = queues.collect();
        let client = Client::connect(path);
        let features = options.features;
        let mut machine = Self { guest, client, queues, features, area: None, log: None };
        machine.negotiate();
        if options.inflight {
            machine.area = Some(machine.inflight_area(options.queues, options.size));
        }
        machine
    }

    /// A server is there again: memory, rings and in-flight area are as they were.
    pub fn reconnect(&mut self, path: &Path) {
        self.client = Client::connect(path);
        self.negotiate();
        self.connect();
    }

    /// Closes the connection as the end of the process would.
    pub fn hang_up(&mut self) {
        self.client.hang_up();
    }

    pub fn reconnect_after_hanging_up(&mut self, path: &Path) {
        self.hang_up();
        self.reconnect(path);
    }

    fn negotiate(&mut self) {
        let client = &mut self.client;
        let offered = client.number(Request::GetFeatures);
        client.done(Request::SetOwner);
        let protocol_features = client.number(Request::GetProtocolFeatures);
        client.done(Request::SetProtocolFeatures(protocol_features));
        self.features &= offered;
        client.done(Request::SetFeatures(self.features));
    }

    fn inflight_area(&mut self, num_queues: u16, queue_size: u16) -> (InflightArea, OwnedFd) {
        let wanted = InflightArea { num_queues, queue_size, ..InflightArea::default() };
        match self.client.ask(Request::GetInflightFd(wanted)) {
            Response::Inflight(area, fd) => (area, fd),
            other => panic!("{other:?} where an in-flight area belongs"),
        }
    }

    /// Requests that the in-flight area says were taken and not answered.
    pub fn recorded_in_flight(&self) -> usize {
        let (area, fd) = self.area.as_ref().expect("an in-flight area");
        let file = File::from(fd.try_clone().unwrap());
        let mut bytes = vec![0; area.mmap_size as usize];
        file.read_exact_at(&mut bytes, area.mmap_offset).unwrap();
        let of_queue = queue_region_split_bytes(area.queue_size) as usize;
        let queues = bytes.chunks_exact(of_queue);
        let states = queues.flat_map(|queue| queue[16..].chunks_exact(16));
        states.filter(|state| state[0] == 1).count()
    }

    pub fn connect(&mut self) {
        self.client.done(Request::SetMemTable(self.guest.regions()));
        if let Some((area, fd)) = &self.area {
            self.client.done(Request::SetInflightFd(*area, fd.try_clone().unwrap()));
        }
        for ring in 0..self.queues.len() as u16 {
            self.declare_ring(ring);
        }
        if self.features & virtio_feature::LOG_ALL != 0 {
            self.set_log_base();
        }
        for ring in 0..self.queues.len() as u16 {
            self.client.done(Request::SetVringEnable { ring, enable: true });
        }
    }

    /// Switches logging on under running rings.
    pub fn start_log(&mut self, log: Log) {
        self.log = Some(log);
        self.set_log_base();
        self.set_features(self.features | virtio_feature::LOG_ALL);
        self.tell_addresses();
    }

    pub fn stop_log(&mut self) {
        self.set_features(self.features & !virtio_feature::LOG_ALL);
        self.tell_addresses();
    }

    pub fn set_log_base(&mut self) {
        let log = self.log.as_ref().expect("a log");
        self.client.done(Request::SetLogBase(log.area, log.fd()));
    }

    pub fn set_features(&mut self, features: u64) {
        self.features = features;
        self.client.done(Request::SetFeatures(features));
    }

    fn tell_addresses(&mut self) {
        let logged = self.features & virtio_feature::LOG_ALL != 0;
        for (ring, queue) in self.queues.iter().enumerate() {
            let (ring, addresses) = (ring as u16, queue.ring.addresses(logged));
            self.client.done(Request::SetVringAddr { ring, addresses });
        }
    }

    pub fn start_ring(&mut self, ring: u16) {
        self.declare_ring(ring);
        self.client.done(Request::SetVringEnable { ring, enable: true });
    }

    /// All but the last word.
    pub fn declare_ring(&mut self, ring: u16) {
        let Queue { ring: driver, kick, call, error, .. } = &self.queues[usize::from(ring)];
        let logged = self.features & virtio_feature::LOG_ALL != 0;
        let (num, base) = (driver.size, driver.used_idx());
        let copy = |fd: &OwnedFd| Some(fd.try_clone().unwrap());
        for request in [
            Request::SetVringNum { ring, num },
            Request::SetVringBase { ring, base },
            Request::SetVringAddr { ring, addresses: driver.addresses(logged) },
            Request::SetVringCall { ring, fd: copy(call) },
            Request::SetVringErr { ring, fd: copy(error) },
            Request::SetVringKick { ring, fd: copy(kick) },
        ] {
            self.client.done(request);
        }
    }

    /// GET_VRING_BASE: returns once the ring has drained.
    pub fn stop_ring(&mut self, ring: u16) -> u16 {
        match self.client.ask(Request::GetVringBase { ring }) {
            Response::VringBase(base) => base,
            other => panic!("{other:?} where a ring's base belongs"),
        }
    }

    // ---- requests -----------------------------------------------------------------------------

    /// Puts a request into the ring and tells nobody.
    pub fn place(&mut self, queue: usize, kind: RequestType, sector: u64, data: Buf) -> Pending {
        let (header, status) = (self.guest.alloc(16, 16), self.guest.alloc(1, 1));
        self.place_at(queue, (kind, sector), data, (header, status))
    }

    fn place_at(
        &mut self,
        queue: usize,
        (kind, sector): (RequestType, u64),
        data: Buf,
        (head_at, status): (u64, u64),
    ) -> Pending {
        self.guest.write(head_at, &header(kind, sector));
        self.guest.write(status, &[UNTOUCHED]);
        let (Buf::Out(at, len) | Buf::In(at, len)) = data;
        let bufs = [Buf::Out(head_at, 16), data, Buf::In(status, 1)];
        let head = self.queues[queue].ring.place(&bufs);
        // An answer that nobody asked for was another request's.
        self.queues[queue].answers.remove(&head);
        Pending { queue, head, header: head_at, data: at, len, status }
    }

    /// A place for header, data and status: this one, or a new one.
    fn room(&self, len: u32, place: Option<Place>) -> Place {
        let new = || {
            let alloc = |len, align| self.guest.alloc(len, align);
            (alloc(16, 16), alloc(u64::from(len), 512), alloc(1, 1))
        };
        place.unwrap_or_else(new)
    }

    pub fn place_read_at(
        &mut self,
        queue: usize,
        offset: u64,
        len: u32,
        place: Option<Place>,
    ) -> Pending {
        let (header, data, status) = self.room(len, place);
        let what = (RequestType::IN, offset / SECTOR_BYTES);
        self.place_at(queue, what, Buf::In(data, len), (header, status))
    }

    pub fn place_write_at(
        &mut self,
        queue: usize,
        offset: u64,
        bytes: &[u8],
        place: Option<Place>,
    ) -> Pending {
        let len = bytes.len() as u32;
        let (header, data, status) = self.room(len, place);
        self.guest.write(data, bytes);
        let what = (RequestType::OUT, offset / SECTOR_BYTES);
        self.place_at(queue, what, Buf::Out(data, len), (header, status))
    }

    pub fn place_write(&mut self, queue: usize, offset: u64, bytes: &[u8]) -> Pending {
        self.place_write_at(queue, offset, bytes, None)
    }

    /// Announces what was placed, and notifies if the device wants it.
    pub fn submit(&mut self, queue: usize) {
        let queue = &mut self.queues[queue];
        if queue.ring.announce() {
            signal(&queue.kick);
        }
    }

    pub fn begin_read(&mut self, queue: usize, offset: u64, len: u32) -> Pending {
        let pending = self.place_read_at(queue, offset, len, None);
        self.submit(queue);
        pending
    }

    pub fn begin_write(&mut self, queue: usize, offset: u64, bytes: &[u8]) -> Pending {
        let pending = self.place_write(queue, offset, bytes);
        self.submit(queue);
        pending
    }

    /// Waits, asleep until notified, for the answer to a request; its status.
    pub fn finish(&mut self, pending: &Pending) -> Status {
        self.queues[pending.queue].wait(pending.head);
        self.status(pending)
    }

    pub fn status(&self, pending: &Pending) -> Status {
        Status(self.guest.read(pending.status, 1)[0])
    }

    pub fn data(&self, pending: &Pending) -> Vec<u8> {
        self.guest.read(pending.data, pending.len as usize)
    }

    pub fn read(&mut self, queue: usize, offset: u64, len: u32) -> Vec<u8> {
        let pending = self.begin_read(queue, offset, len);
        assert_eq!(self.finish(&pending), Status::OK);
        self.data(&pending)
    }

    pub fn write(&mut self, queue: usize, offset: u64, bytes: &[u8]) {
        let pending = self.begin_write(queue, offset, bytes);
        assert_eq!(self.finish(&pending), Status::OK);
    }
}

impl Queue {
    fn new(guest: &Rc<Guest>, size: u16, event_idx: bool) -> Self {
        let fd = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let ring = Ring::new(guest, size, event_idx);
        Self { ring, kick: fd(), call: fd(), error: fd(), answers: BTreeMap::new() }
    }

    /// Takes the answer to this head, as soon as it is there.
    pub fn wait(&mut self, head: u16) -> Used {
        self.wait_for_answer(head);
        self.take_answer(head).expect("waited for")
    }

    pub fn wait_for_answer(&mut self, head: u16) {
        loop {
            self.reap_all();
            if self.answers.contains_key(&head) {
                return;
            }
            if !self.ring.listen() {
                assert!(wait_for(&self.call), "no notification; head {head} is out");
            }
        }
    }

    pub fn kick(&self) {
        signal(&self.kick);
    }

    pub fn take_answer(&mut self, head: u16) -> Option<Used> {
        self.answers.remove(&head)
    }

    pub fn reap_all(&mut self) {
        while self.reap() {}
    }

    /// Waits until there is one more answer than before; it is there for `wait` as well.
    pub fn wait_any(&mut self) {
        while !self.reap() {
            if !self.ring.listen() {
                assert!(wait_for(&self.call), "no notification; {} are out", self.ring.out());
            }
        }
    }

    fn reap(&mut self) -> bool {
        let used = self.ring.take_used();
        used.map(|used| self.answers.insert(used.head, used)).is_some()
    }
}

pub fn header(kind: RequestType, sector: u64) -> Vec<u8> {
    let header =
        RequestHeader { request_type: kind.0.into(), reserved: 0.into(), sector: sector.into() };
    header.as_bytes().to_vec()
}

fn signal(fd: impl AsFd) {
    rustix::io::write(fd, &1u64.to_ne_bytes()).unwrap();
}

/// Waits for a signal and takes it. False: none came.
pub fn wait_for(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    poll(&mut fds, Some(&limit)).unwrap();
    take_signal(fd)
}

/// Takes a signal, if there is one.
pub fn take_signal(fd: impl AsFd) -> bool {
    rustix::io::read(fd, &mut [0; 8]).is_ok()
}
