//! One connection of a front end: what it asks is done here, one request after the other.
//!
//! The machine in `proto` has checked every request before it comes here; what is left is to map
//! memory, to start and stop queues on their cores, and to answer. A request that stops a ring is
//! answered when the ring has drained, however long its store takes; past a limit the operator is
//! told which one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use model::stats::OpStats;
use proto::vhost_user::{
    BackEnd, Inbound, InflightArea, LogArea, MemoryRegion, Offer, PROTOCOL_FEATURES, Reply,
    Request, RingSet,
};
use rt::os::event::EventFd;
use rt::os::socket::Stream;
use rt::sync::Notify;
use rt::{Core, Placed, Task};
use wire::vhost_user::{protocol_feature, virtio_feature};
use wire::virtio::feature;

use super::adapter::{Limits, Notice, QueueInfo, SessionInfo, Spec};
use super::channel::{Channel, raw};
use super::kind::{Face, Function, FunctionSetup, Kind, Units};
use super::meter::{add_stats, add_units};
use super::queue::{Queue, Report, Setup};
use super::ring::{
    Fault, Inflight, InflightMemory, Log, MapError, Memory, Placement, Region, Split, View,
};

/// Largest ring.
pub const RING_SIZE_MAX: u16 = 1024;
/// Memory regions of one client.
pub const MEM_SLOTS_MAX: usize = 64;
/// Most data segments of a request: a full ring's chain less header and status.
pub(super) const SEG_MAX: u32 = 254;
/// A drain that takes longer is reported; its answer is still held.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// Bytes read from the socket at once: the longest message.
const READ_BYTES: usize = 4096;

pub struct Session<K: Kind> {
    core: Core,
    spec: Arc<Spec<K>>,
    limits: Limits,
    stream: Stream,
    face: RefCell<K::Face>,
    rings: RefCell<BTreeMap<u16, Ring<K::Function>>>,
    memory: RefCell<Arc<Memory>>,
    inflight: RefCell<Option<Arc<InflightMemory>>>,
    channel: RefCell<Option<Rc<Channel>>>,
    helpers: RefCell<Vec<Task<()>>>,
    past: Rc<RefCell<Past>>,
    /// Queues that have begun to stop, and are not counted as past.
    stopping: RefCell<Vec<(u16, PlacedQueue<K>)>>,
    features: Cell<u64>,
    /// Waits for its front end to say something.
    listening: Cell<bool>,
    ending: Cell<bool>,
    /// A ring was started since the driver began.
    has_run: Cell<bool>,
    resumed: Cell<Resumed>,
    /// Dirty pages are marked: the guest moves.
    logging: Cell<bool>,
    /// `listening` or `ending` has changed.
    changed: Notify,
}

/// Whether the driver goes on where it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resumed {
    No,
    /// It has not been told that it may have missed something.
    Untold,
    Told,
}

/// A queue that runs, on its core.
type PlacedQueue<K> = Rc<Placed<Queue<<K as Kind>::Function>>>;

/// What a ring has, whether it runs or not.
struct Ring<F: Function> {
    queue: Option<Rc<Placed<Queue<F>>>>,
    kick: Option<EventFd>,
    call: Option<EventFd>,
    error: Option<EventFd>,
}

impl<F: Function> Default for Ring<F> {
    fn default() -> Self {
        Self { queue: None, kick: None, call: None, error: None }
    }
}

/// Counts of queues that are no more.
#[derive(Clone, Default)]
pub(super) struct Past {
    pub(super) stats: Vec<OpStats>,
    pub(super) units: Units,
    /// How many of them there are.
    pub(super) queues: u64,
}

impl<K: Kind> Session<K> {
    pub(super) fn new(
        core: &Core,
        spec: Arc<Spec<K>>,
        limits: Limits,
        stream: Stream,
        past: Rc<RefCell<Past>>,
    ) -> Rc<Self> {
        let face = RefCell::new(spec.device.face(core));
        Rc::new(Self {
            core: core.clone(),
            spec,
            limits,
            stream,
            face,
            rings: RefCell::default(),
            memory: RefCell::default(),
            inflight: RefCell::default(),
            channel: RefCell::default(),
            helpers: RefCell::default(),
            past,
            stopping: RefCell::default(),
            features: Cell::new(0),
            listening: Cell::new(false),
            ending: Cell::new(false),
            has_run: Cell::new(false),
            resumed: Cell::new(Resumed::No),
            logging: Cell::new(false),
            changed: Notify::new(),
        })
    }

    /// Whether its front end is there: known when the session is not busy with a request.
    pub(super) async fn is_held(&self) -> bool {
        self.changed.until(|| self.listening.get() || self.ending.get()).await;
        !self.ending.get()
    }

    /// Resolves when the session has begun to end.
    pub(super) async fn ending(&self) {
        self.changed.until(|| self.ending.get()).await;
    }

    /// Begins to end the session.
    pub(super) fn end(&self) {
        self.ending.set(true);
        self.changed.notify();
    }

    /// Serves until the front end goes. An error says what it did wrong.
    pub(super) async fn run(self: &Rc<Self>) -> Result<(), String> {
        let attending = self.core.spawn_task(K::attend(Rc::downgrade(self)));
        let result = self.talk().await;
        let is_ours = self.ending.get();
        self.end();
        attending.cancel();
        for helper in self.helpers.take() {
            helper.cancel();
        }
        let all: Vec<u16> = self.rings.borrow().keys().copied().collect();
        self.stop(all).await;
        // A guest that goes on after we are back has not left.
        if !is_ours {
            K::leave(self, self.may_come_back()).await;
        }
        result
    }

    /// Whether the guest that was here may go on with the next session.
    fn may_come_back(&self) -> bool {
        self.has_run.get() && !self.logging.get()
    }

    async fn talk(self: &Rc<Self>) -> Result<(), String> {
        let mut machine = BackEnd::new(Offer {
            features: self.face.borrow().features()
                | feature::VERSION_1
                | feature::RING_INDIRECT_DESC
                | feature::RING_EVENT_IDX,
            protocol_features: PROTOCOL_FEATURES,
            ring_count: self.spec.device.ring_count(),
            ring_size_max: RING_SIZE_MAX,
            mem_slots_max: MEM_SLOTS_MAX,
        });
        let (mut bytes, mut fds) = (vec![0; READ_BYTES], Vec::new());
        loop {
            while machine.poll_discarded().is_some() {}
            match self.send(&mut machine).await? {
                Sent::Nothing => {}
                Sent::Something => continue,
                Sent::ToNobody => return Ok(()),
            }
            if let Some(inbound) = machine.poll_request().map_err(|error| error.to_string())? {
                self.answer(&mut machine, inbound).await;
                continue;
            }
            if machine.transmit().is_some() {
                continue;
            }
            let wanted = machine.wanted().min(bytes.len());
            self.listening.set(true);
            self.changed.notify();
            let got = either(self.stream.recv(&mut bytes[..wanted], &mut fds), self.ending()).await;
            self.listening.set(false);
            match got {
                None => return Ok(()),
                Some(Ok(0)) => {
                    return machine.handle_end_of_stream().map_err(|error| error.to_string());
                }
                Some(Ok(got)) => machine.handle_input(&bytes[..got], fds.drain(..)),
                Some(Err(error)) if is_hang_up(&error) => return Ok(()),
                Some(Err(error)) => return Err(format!("the socket cannot be read: {error}")),
            }
        }
    }

    async fn send(&self, machine: &mut BackEnd<OwnedFd>) -> Result<Sent, String> {
        let Some(message) = machine.transmit() else { return Ok(Sent::Nothing) };
        let sent = message.bytes.len();
        let fds = raw(message.fds);
        // A front end that reads no answers must not keep the session from ending.
        match either(self.stream.send(message.bytes, &fds), self.ending()).await {
            None => return Ok(Sent::ToNobody),
            Some(Err(error)) if is_hang_up(&error) => return Ok(Sent::ToNobody),
            Some(Err(error)) => return Err(format!("an answer could not be sent: {error}")),
            Some(Ok(())) => {}
        }
        machine.handle_transmitted(sent);
        Ok(Sent::Something)
    }

    async fn answer(self: &Rc<Self>, machine: &mut BackEnd<OwnedFd>, inbound: Inbound<OwnedFd>) {
        let Inbound { ticket, request, starts, stops } = inbound;
        self.features.set(machine.features());
        let asked = if let Request::GetVringBase { ring } = request { Some(ring) } else { None };
        for (ring, base) in self.stop(stops.iter()).await {
            machine.ring_stopped(ring, base);
        }
        let done = self.perform(machine, request).await;
        let done = match done {
            Ok(done) => self.start_all(machine, starts).await.map(|()| done),
            Err(why) => Err(why),
        };
        if let Some(channel) = &*self.channel.borrow() {
            channel.set_suspended(!machine.rings().iter().any(proto::vhost_user::Ring::runs));
        }
        match done {
            Ok(Done::Plain) => {
                let base = asked.map(|ring| machine.rings()[usize::from(ring)].base);
                machine.reply(ticket, base.map_or(Reply::Done, Reply::VringBase));
            }
            Ok(Done::Config) => {
                let config = self.face.borrow().config();
                machine.reply(ticket, Reply::Config(&config));
            }
            Ok(Done::Inflight(area, fd)) => machine.reply(ticket, Reply::Inflight(area, fd)),
            Err(why) => {
                self.notice(Notice::Failed { why });
                machine.reply(ticket, Reply::Failed);
            }
        }
    }

    /// Does what a request asks beside starting and stopping rings.
    async fn perform(
        self: &Rc<Self>,
        machine: &BackEnd<OwnedFd>,
        request: Request<OwnedFd>,
    ) -> Result<Done, String> {
        match request {
            Request::SetFeatures(features) => {
                self.face.borrow_mut().set_features(features);
                self.tell_rules().await;
                let logging = machine.is_logging();
                self.logging.set(logging);
                self.each_queue(move |queue| queue.set_logging(logging)).await;
            }
            Request::ResetDevice => {
                self.face.borrow_mut().reset();
                *self.inflight.borrow_mut() = None;
                self.rings.borrow_mut().clear();
                K::leave(self, self.may_come_back()).await;
                self.has_run.set(false);
                self.resumed.set(Resumed::No);
            }
            Request::SetMemTable(table) => self.set_regions(&table).await?,
            Request::AddMemReg(region, fd) => self.add_region(&region, &fd).await?,
            Request::RemMemReg(region) => self.remove_region(&region).await?,
            Request::SetLogBase(area, fd) => self.set_log(&area, &fd).await?,
            Request::SetVringAddr { ring, addresses } => {
                let placed = self.queue(ring);
                if let Some(queue) = placed {
                    let found = queue
                        .call(move |queue| async move { queue.set_addresses(addresses) })
                        .await;
                    if found == Some(false) {
                        return Err(format!("ring {ring} does not lie in the shared memory"));
                    }
                }
            }
            Request::SetVringKick { ring, fd } => self.set_kick(ring, fd).await?,
            Request::SetVringCall { ring, fd } => self.set_call(ring, fd).await?,
            Request::SetVringErr { ring, fd } => self.set_error(ring, fd).await?,
            Request::GetConfig { .. } => return Ok(Done::Config),
            Request::SetConfig { offset, bytes, .. } => {
                let written = self.face.borrow_mut().write_config(offset, &bytes);
                written.map_err(|error| format!("the front end wrote to {error}"))?;
                if let Some(memory) = &*self.inflight.borrow() {
                    memory.set_writeback(self.face.borrow().chosen());
                }
                self.tell_rules().await;
            }
            Request::SetBackendReqFd(fd) => self.open_channel(machine, fd)?,
            Request::GetInflightFd(area) => {
                let chosen = self.face.borrow().chosen();
                let (area, fd) = InflightMemory::create(area, RING_SIZE_MAX, chosen)?;
                return Ok(Done::Inflight(area, fd));
            }
            Request::SetInflightFd(area, fd) => {
                let memory = InflightMemory::map(area, &fd)?;
                if let Some(writeback) = memory.writeback() {
                    self.face.borrow_mut().choose(writeback);
                }
                *self.inflight.borrow_mut() = Some(Arc::new(memory));
            }
            // The state of rings is the machine's; the log's descriptor is not needed, because
            // the front end reads the log itself.
            _ => {}
        }
        Ok(Done::Plain)
    }

    // ---- memory -------------------------------------------------------------------------------

    async fn set_regions(&self, table: &[(MemoryRegion, OwnedFd)]) -> Result<(), String> {
        let regions: Result<Vec<_>, MapError> =
            table.iter().map(|(region, fd)| Region::map(region, fd).map(Arc::new)).collect();
        let log = self.memory.borrow().log().cloned();
        self.set_memory(Memory::new(regions.map_err(|error| error.to_string())?, log)).await
    }

    async fn add_region(&self, region: &MemoryRegion, fd: &OwnedFd) -> Result<(), String> {
        let region = Region::map(region, fd).map_err(|error| error.to_string())?;
        let memory = self.memory.borrow().clone();
        let mut regions = memory.regions().to_vec();
        regions.push(Arc::new(region));
        self.set_memory(Memory::new(regions, memory.log().cloned())).await
    }

    async fn remove_region(&self, gone: &MemoryRegion) -> Result<(), String> {
        let memory = self.memory.borrow().clone();
        let is_gone = |region: &Arc<Region>| {
            (region.guest(), region.user()) == (gone.guest_address, gone.user_address)
        };
        let regions = memory.regions().iter().filter(|region| !is_gone(region)).cloned().collect();
        self.set_memory(Memory::new(regions, memory.log().cloned())).await
    }

    async fn set_log(&self, area: &LogArea, fd: &OwnedFd) -> Result<(), String> {
        let log = Log::map(area, fd).map_err(|error| error.to_string())?;
        let regions = self.memory.borrow().regions().to_vec();
        self.set_memory(Memory::new(regions, Some(Arc::new(log)))).await
    }

    /// Replaces the memory whole; answered when every queue has gone over.
    async fn set_memory(&self, memory: Memory) -> Result<(), String> {
        let memory = Arc::new(memory);
        let result = self.move_queues(&memory).await;
        if result.is_ok() {
            *self.memory.borrow_mut() = memory;
        } else {
            // Refused, and as if never asked.
            let before = self.memory.borrow().clone();
            self.move_queues(&before).await?;
        }
        result
    }

    async fn move_queues(&self, memory: &Arc<Memory>) -> Result<(), String> {
        for (ring, queue) in self.queues() {
            let memory = memory.clone();
            let moved = queue.call(move |queue| async move { queue.set_view(View::new(memory)) });
            if moved.await == Some(false) {
                return Err(format!("ring {ring} does not lie in the new memory"));
            }
        }
        Ok(())
    }

    // ---- rings --------------------------------------------------------------------------------

    async fn start_all(
        self: &Rc<Self>,
        machine: &BackEnd<OwnedFd>,
        starts: RingSet,
    ) -> Result<(), String> {
        for ring in starts.iter() {
            if let Err(why) = self.start(machine, ring).await {
                // Refused, and as if never asked.
                self.stop(starts.iter()).await;
                return Err(format!("queue {ring} cannot be started: {why}"));
            }
        }
        Ok(())
    }

    async fn start(self: &Rc<Self>, machine: &BackEnd<OwnedFd>, index: u16) -> Result<(), String> {
        let declared = machine.rings()[usize::from(index)];
        let addresses = declared.addresses.ok_or("it has no addresses")?;
        let features = machine.features();
        let placement = Placement {
            size: declared.num,
            addresses,
            event_idx: features & feature::RING_EVENT_IDX != 0,
            indirect: features & feature::RING_INDIRECT_DESC != 0,
            logging: machine.is_logging(),
        };
        let (kick, call, error) = {
            let rings = self.rings.borrow();
            let ring = rings.get(&index);
            let clone = |fd: Option<&EventFd>| fd.map(EventFd::try_clone).transpose();
            let fds = (
                clone(ring.and_then(|ring| ring.kick.as_ref())),
                clone(ring.and_then(|ring| ring.call.as_ref())),
                clone(ring.and_then(|ring| ring.error.as_ref())),
            );
            let why = |error: std::io::Error| error.to_string();
            (fds.0.map_err(why)?, fds.1.map_err(why)?, fds.2.map_err(why)?)
        };
        let inflight = self.inflight.borrow().clone();
        let (memory, spec) = (self.memory.borrow().clone(), self.spec.clone());
        let rules = self.face.borrow().rules();
        let home = self.spec.cores.iter().position(|core| core.id() == self.core.id());
        let turn = home.unwrap_or(0) + K::turn_of(index);
        let remote = self.spec.cores[turn % self.spec.cores.len()].clone();
        let started = remote.call(move |core| async move {
            let ring = Split::new(View::new(memory), placement, declared.base)
                .map_err(|misplaced| misplaced.to_string())?;
            let inflight =
                inflight.map(|memory| Inflight::open(memory, index, declared.num)).transpose()?;
            let report: Arc<dyn Report> = Arc::new(Reporter { spec: spec.clone() });
            let setup = Setup { index, ring, inflight, kick, call, error, report: report.clone() };
            let queue = Queue::start(&core, setup, |queue| {
                let (core, spec, report) = (&core, &spec, &report);
                K::function(FunctionSetup { core, spec, index, rules, queue, report })
            });
            Ok::<_, String>(Placed::new(&core, queue))
        });
        let placed = started.await.ok_or("its core has ended")??;
        self.rings.borrow_mut().entry(index).or_default().queue = Some(Rc::new(placed));
        self.has_run.set(true);
        if self.resumed.get() == Resumed::No && declared.base != 0 {
            self.resumed.set(Resumed::Untold);
        }
        if self.resumed.get() == Resumed::Untold && K::resumed(self) {
            self.resumed.set(Resumed::Told);
        }
        Ok(())
    }

    /// Stops these rings, as far as they run, and waits until they have drained; then says where
    /// each stands.
    async fn stop(&self, rings: impl IntoIterator<Item = u16>) -> Vec<(u16, u16)> {
        let queues: Vec<_> = {
            let mut known = self.rings.borrow_mut();
            let mut take = |ring| Some((ring, known.get_mut(&ring)?.queue.take()?));
            rings.into_iter().filter_map(&mut take).collect()
        };
        self.stopping.borrow_mut().extend(queues.iter().cloned());
        // All are told before one is waited for: none goes on taking requests meanwhile.
        let stopping: Vec<_> = queues
            .iter()
            .map(|(_, queue)| {
                queue.call(|queue| async move { (queue.stop().await, queue.stats()) })
            })
            .collect();
        let mut bases = Vec::new();
        for ((ring, queue), stopping) in queues.iter().zip(stopping) {
            let drained = self.drained(*ring, queue, stopping).await;
            self.stopping.borrow_mut().retain(|(_, other)| !Rc::ptr_eq(other, queue));
            if let Some((base, (stats, units))) = drained {
                let mut past = self.past.borrow_mut();
                add_stats(&mut past.stats, &stats);
                add_units(&mut past.units, &units);
                past.queues += 1;
                bases.push((*ring, base));
            }
        }
        bases
    }

    /// Waits for a queue that stops, and tells the operator when that takes long.
    async fn drained<T>(
        &self,
        ring: u16,
        queue: &Placed<Queue<K::Function>>,
        stopping: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        let mut stopping = std::pin::pin!(stopping);
        let mut waited = Duration::ZERO;
        loop {
            if let Some(stopped) = self.core.timeout(self.limits.drain, stopping.as_mut()).await {
                return stopped;
            }
            waited += self.limits.drain;
            let in_flight = queue.call(|queue| async move { queue.in_flight() }).await;
            self.notice(Notice::Waiting {
                queue: ring,
                in_flight: in_flight.unwrap_or(0),
                seconds: waited.as_secs(),
            });
        }
    }

    pub(super) fn queue(&self, ring: u16) -> Option<PlacedQueue<K>> {
        self.rings.borrow().get(&ring)?.queue.clone()
    }

    fn queues(&self) -> Vec<(u16, PlacedQueue<K>)> {
        let rings = self.rings.borrow();
        rings.iter().filter_map(|(index, ring)| Some((*index, ring.queue.clone()?))).collect()
    }

    /// Does something with every running queue, on its core.
    async fn each_queue(&self, f: impl Fn(&Queue<K::Function>) + Clone + Send + 'static) {
        for (_, queue) in self.queues() {
            let f = f.clone();
            queue.call(move |queue| async move { f(&queue) }).await;
        }
    }

    pub(super) async fn tell_rules(&self) {
        let rules = self.face.borrow().rules();
        self.each_queue(move |queue| queue.function().set_rules(rules.clone())).await;
    }

    pub(super) fn face(&self) -> &RefCell<K::Face> {
        &self.face
    }

    async fn set_kick(&self, ring: u16, fd: Option<OwnedFd>) -> Result<(), String> {
        let fd = fd.map(EventFd::from);
        let copy = clone_fd(&fd)?;
        self.rings.borrow_mut().entry(ring).or_default().kick = fd;
        if let Some(queue) = self.queue(ring) {
            queue.call(move |queue| async move { queue.set_kick(copy) }).await;
        }
        Ok(())
    }

    async fn set_call(&self, ring: u16, fd: Option<OwnedFd>) -> Result<(), String> {
        let fd = fd.map(EventFd::from);
        let copy = clone_fd(&fd)?;
        self.rings.borrow_mut().entry(ring).or_default().call = fd;
        if let Some(queue) = self.queue(ring) {
            queue.call(move |queue| async move { queue.set_call(copy) }).await;
        }
        Ok(())
    }

    async fn set_error(&self, ring: u16, fd: Option<OwnedFd>) -> Result<(), String> {
        let fd = fd.map(EventFd::from);
        let copy = clone_fd(&fd)?;
        self.rings.borrow_mut().entry(ring).or_default().error = fd;
        if let Some(queue) = self.queue(ring) {
            queue.call(move |queue| async move { queue.set_error(copy) }).await;
        }
        Ok(())
    }

    // ---- the rest -----------------------------------------------------------------------------

    fn open_channel(&self, machine: &BackEnd<OwnedFd>, fd: OwnedFd) -> Result<(), String> {
        let stream = Stream::from_fd(&self.core, fd)
            .map_err(|error| format!("the back-end channel is not usable: {error}"))?;
        let reply_ack = machine.protocol_features() & protocol_feature::REPLY_ACK != 0;
        let channel = Rc::new(Channel::new(stream, reply_ack));
        let (sender, receiver) = (channel.clone(), channel.clone());
        // A channel that breaks is of no further use; the session goes on without it.
        let tasks = [
            self.core.spawn_task(async move { drop(sender.send().await) }),
            self.core.spawn_task(async move { drop(receiver.receive().await) }),
        ];
        self.helpers.borrow_mut().extend(tasks);
        *self.channel.borrow_mut() = Some(channel);
        Ok(())
    }

    /// The configuration has changed; a front end that wants to know is told.
    pub(super) fn tell_config_changed(&self) {
        if let Some(channel) = &*self.channel.borrow() {
            channel.config_changed();
        }
    }

    pub(super) async fn info(&self, peer: i32) -> SessionInfo {
        let features = self.features.get();
        let all = FEATURE_NAMES.iter().chain(K::FEATURE_NAMES);
        let names = all.filter(|(bit, _)| features & bit != 0);
        let mut info = SessionInfo {
            peer,
            features: names.map(|(_, name)| *name).collect(),
            memory_regions: self.memory.borrow().regions().len(),
            inflight_tracking: self.inflight.borrow().is_some(),
            logging: features & virtio_feature::LOG_ALL != 0,
            queues: Vec::new(),
        };
        let mut queues = self.queues();
        queues.extend(self.stopping.borrow().iter().cloned());
        for (index, queue) in queues {
            let core = queue.remote().id();
            let read = queue.call(|queue| async move { (queue.in_flight(), queue.stats()) }).await;
            if let Some((in_flight, (stats, units))) = read {
                info.queues.push(QueueInfo { index, core, in_flight, stats, units });
            }
        }
        info
    }

    fn notice(&self, notice: Notice) {
        self.spec.observer.notice(&self.spec.name, notice);
    }
}

/// Features that belong to no kind of device, by the names that listings show.
const FEATURE_NAMES: &[(u64, &str)] = &[
    (feature::VERSION_1, "version-1"),
    (feature::RING_INDIRECT_DESC, "indirect-desc"),
    (feature::RING_EVENT_IDX, "event-idx"),
    (virtio_feature::LOG_ALL, "log-all"),
];

/// What became of an answer.
enum Sent {
    Nothing,
    Something,
    /// The front end is gone, or we are going.
    ToNobody,
}

/// A front end that ends, or is killed, closes its socket with something unread in it.
fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

/// How a request was done.
enum Done {
    Plain,
    Config,
    Inflight(InflightArea, OwnedFd),
}

/// Queues report from their own cores.
struct Reporter<K: Kind> {
    spec: Arc<Spec<K>>,
}

impl<K: Kind> Report for Reporter<K> {
    fn faulted(&self, queue: u16, fault: Fault) {
        self.spec.observer.notice(&self.spec.name, Notice::Fault { queue, fault });
    }

    fn failed(&self, queue: u16, error: &block::Error) {
        let error = error.clone();
        self.spec.observer.notice(&self.spec.name, Notice::Store { queue, error });
    }
}

fn clone_fd(fd: &Option<EventFd>) -> Result<Option<EventFd>, String> {
    let cloned = fd.as_ref().map(EventFd::try_clone).transpose();
    cloned.map_err(|error| format!("no file descriptor is left: {error}"))
}

/// The first future's result, or None when the second one is done before it.
async fn either<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> Option<T> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(result) = first.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(result));
        }
        second.as_mut().poll(cx).map(|()| None)
    })
    .await
}
