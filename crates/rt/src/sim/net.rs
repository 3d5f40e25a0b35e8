//! The network: connections between simulated hosts, packet by packet.
//!
//! What TCP promises is kept: bytes are received in order, once, or the connection fails. All else
//! is drawn: how long each packet takes and so which overtakes which, how a stream is cut into
//! packets, how much of it one receive gives. A cut link loses nothing by itself: packets wait for
//! it to be whole again, and the sender gives up after a time without the other side hearing of it.
//! A killed process's kernel closes its connections; a host without power says nothing, so its
//! peers are left with half a connection until they send, or for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use block::Sgl;

use super::room::{ConnId, Event, HostId, PacketId, ProcessId, State};
use crate::net::Address;
use crate::timer::Time;

/// Connections that nobody has accepted yet, of one listener.
const BACKLOG_MAX: usize = 128;
/// Bytes of one packet, as a network card that cuts for the kernel takes them.
const PACKET_MAX: u64 = 64 << 10;
/// How long a host that is not there is asked for its hardware address.
const UNHEARD_LIMIT: Duration = Duration::from_secs(3);
/// The first of the ports that the kernel chooses.
const PORT_FIRST: u16 = 32768;
/// The side of a connection that asked for it, and the side that accepted.
const CALLER: usize = 0;
const CALLED: usize = 1;

#[derive(Default)]
pub(super) struct Net {
    listeners: BTreeMap<(HostId, Address), Listening>,
    conns: BTreeMap<ConnId, Conn>,
    packets: BTreeMap<PacketId, Packet>,
    /// Directions in which nothing gets through.
    cut: BTreeSet<(HostId, HostId)>,
    /// Packets that wait for their direction to be whole again.
    held: BTreeMap<(HostId, HostId), Vec<PacketId>>,
    /// Deliveries whose confirmation waits: the connection and the end that sent.
    unconfirmed: BTreeMap<(HostId, HostId), Vec<(ConnId, usize)>>,
    next_port: u16,
}

struct Listening {
    process: ProcessId,
    queue: VecDeque<ConnId>,
    wake: Vec<Waker>,
}

struct Conn {
    ends: [End; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    /// The process has let go of it, or is dead.
    Closed,
    /// Its host has lost power.
    Gone,
}

struct End {
    host: HostId,
    process: ProcessId,
    address: Address,
    phase: Phase,
    inbox: VecDeque<u8>,
    /// The peer has closed: after the inbox comes the end.
    ended: bool,
    failed: Option<io::ErrorKind>,
    /// Bytes sent that the peer's process has not read.
    outstanding: u64,
    /// Packets sent whose delivery has not been confirmed.
    undelivered: u64,
    /// Counts confirmations.
    progress: u64,
    /// When the wire is free for its next packet.
    wire_free: Time,
    next_out: u64,
    next_in: u64,
    /// What has overtaken something that is still on its way.
    ahead: BTreeMap<u64, Load>,
    wake: Vec<Waker>,
}

struct Packet {
    conn: ConnId,
    /// The end that it goes to.
    to: usize,
    /// Its place in the order of what its sender sent, if it has one.
    place: Option<u64>,
    load: Load,
}

enum Load {
    Ask,
    Accepted,
    Refused,
    Data(Vec<u8>),
    /// The process has read so many bytes.
    Read(u64),
    Fin,
    Reset,
}

impl Load {
    /// Whether the sender's kernel sends it again until it is confirmed.
    fn is_confirmed(&self) -> bool {
        matches!(self, Self::Ask | Self::Data(_) | Self::Fin)
    }

    /// Whether it is received in order with others.
    fn has_place(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Reset)
    }
}

/// The address of the host with this number.
pub(super) fn host_ip(host: HostId) -> IpAddr {
    let [.., high, low] = (host.0 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 77, high, low))
}

impl End {
    fn new(host: HostId, process: ProcessId, address: Address) -> Self {
        Self {
            host,
            process,
            address,
            phase: Phase::Opening,
            inbox: VecDeque::new(),
            ended: false,
            failed: None,
            outstanding: 0,
            undelivered: 0,
            progress: 0,
            wire_free: Time::default(),
            next_out: 0,
            next_in: 0,
            ahead: BTreeMap::new(),
            wake: Vec::new(),
        }
    }

    fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Open) && self.failed.is_none()
    }

    fn listen(&mut self, cx: &mut Context<'_>) {
        if !self.wake.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wake.push(cx.waker().clone());
        }
    }
}

// ---- asked for by processes ---------------------------------------------------------------------

impl State {
    pub(super) fn listen(&mut self, process: ProcessId, address: &Address) -> io::Result<Address> {
        let host = self.living_host(process)?;
        let address = self.own_address(host, address)?;
        let key = (host, address.clone());
        if self.net.listeners.contains_key(&key) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listening = Listening { process, queue: VecDeque::new(), wake: Vec::new() };
        self.net.listeners.insert(key, listening);
        Ok(address)
    }

    fn living_host(&self, process: ProcessId) -> io::Result<HostId> {
        match self.processes.get(&process) {
            Some(state) if state.alive => Ok(state.host),
            _ => Err(io::Error::other("the process has been killed")),
        }
    }

    /// What the address is called within its host: every name of the host is one.
    fn own_address(&mut self, host: HostId, address: &Address) -> io::Result<Address> {
        let Address::Tcp(address) = address else { return Ok(address.clone()) };
        let ip = address.ip();
        if !ip.is_unspecified() && !ip.is_loopback() && ip != host_ip(host) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = if address.port() == 0 { self.free_port() } else { address.port() };
        Ok(Address::Tcp(SocketAddr::new(host_ip(host), port)))
    }

    fn free_port(&mut self) -> u16 {
        let port = self.net.next_port.max(PORT_FIRST);
        self.net.next_port = port.checked_add(1).unwrap_or(PORT_FIRST);
        port
    }

    pub(super) fn unlisten(&mut self, process: ProcessId, address: &Address) {
        let Some(host) = self.processes.get(&process).map(|state| state.host) else { return };
        let key = (host, address.clone());
        // A restarted process may listen there again by now.
        if self.net.listeners.get(&key).is_none_or(|listening| listening.process != process) {
            return;
        }
        let Some(listening) = self.net.listeners.remove(&key) else { return };
        listening.queue.into_iter().for_each(|conn| self.close_end(conn, CALLED, true));
        self.wake.extend(listening.wake);
    }

    pub(super) fn poll_accept(
        &mut self,
        process: ProcessId,
        address: &Address,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(ConnId, usize)>> {
        let host = self.living_host(process)?;
        let Some(listening) = self.net.listeners.get_mut(&(host, address.clone())) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match listening.queue.pop_front() {
            Some(conn) => Poll::Ready(Ok((conn, CALLED))),
            None => {
                listening.wake.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn connect(
        &mut self,
        process: ProcessId,
        to: &Address,
    ) -> io::Result<(ConnId, usize)> {
        let host = self.living_host(process)?;
        let (called, to) = match to {
            Address::Unix(_) => (Some(host), to.clone()),
            Address::Tcp(address) if address.ip().is_loopback() => {
                (Some(host), Address::Tcp(SocketAddr::new(host_ip(host), address.port())))
            }
            Address::Tcp(address) => {
                (self.hosts.keys().copied().find(|host| host_ip(*host) == address.ip()), to.clone())
            }
        };
        let called = called.ok_or(io::ErrorKind::HostUnreachable)?;
        let from = match &to {
            Address::Unix(_) => Address::Unix(std::path::PathBuf::new()),
            Address::Tcp(_) => Address::Tcp(SocketAddr::new(host_ip(host), self.free_port())),
        };
        let id = ConnId(self.serial());
        let ends = [End::new(host, process, from), End::new(called, process, to)];
        self.net.conns.insert(id, Conn { ends });
        self.send_packet(id, CALLER, Load::Ask);
        Ok((id, CALLER))
    }

    pub(super) fn poll_connected(
        &mut self,
        conn: ConnId,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.live_end(conn, CALLER)?;
        if end.phase == Phase::Open {
            return Poll::Ready(Ok(()));
        }
        end.listen(cx);
        Poll::Pending
    }

    fn live_end(&mut self, conn: ConnId, end: usize) -> io::Result<&mut End> {
        let found = self.net.conns.get_mut(&conn).map(|conn| &mut conn.ends[end]);
        let Some(end) = found else { return Err(io::ErrorKind::NotConnected.into()) };
        match end.failed {
            Some(kind) => Err(kind.into()),
            None if matches!(end.phase, Phase::Closed | Phase::Gone) => {
                Err(io::ErrorKind::NotConnected.into())
            }
            None => Ok(end),
        }
    }

    pub(super) fn addresses(&self, conn: ConnId, end: usize) -> Option<(Address, Address)> {
        let ends = &self.net.conns.get(&conn)?.ends;
        Some((ends[end].address.clone(), ends[1 - end].address.clone()))
    }

    pub(super) fn poll_recv(
        &mut self,
        conn: ConnId,
        end: usize,
        data: &Sgl<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let split = self.random.chance(self.options.split_ppm);
        let part = self.random.draw();
        let mine = self.live_end(conn, end)?;
        let there = mine.inbox.len().min(data.len());
        if there == 0 {
            if mine.ended || data.is_empty() {
                return Poll::Ready(Ok(0));
            }
            mine.listen(cx);
            return Poll::Pending;
        }
        let count = if split { (part % there as u64) as usize + 1 } else { there };
        let (first, second) = mine.inbox.as_slices();
        let first = &first[..first.len().min(count)];
        data.copy_in(0, first);
        data.copy_in(first.len(), &second[..count - first.len()]);
        mine.inbox.drain(..count);
        self.send_packet(conn, end, Load::Read(count as u64));
        Poll::Ready(Ok(count))
    }

    /// Takes what the window has room for.
    pub(super) fn poll_send(
        &mut self,
        conn: ConnId,
        end: usize,
        data: &Sgl<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let window = self.options.window;
        let split = self.random.chance(self.options.split_ppm);
        let part = self.random.draw();
        let mine = self.live_end(conn, end)?;
        let room = window.saturating_sub(mine.outstanding).min(PACKET_MAX).min(data.len() as u64);
        if room == 0 && !data.is_empty() {
            mine.listen(cx);
            return Poll::Pending;
        }
        let count = if split && room > 0 { part % room + 1 } else { room };
        mine.outstanding += count;
        let mut bytes = vec![0; count as usize];
        data.slice(0, count as usize).copy_out(0, &mut bytes);
        if count > 0 {
            self.send_packet(conn, end, Load::Data(bytes));
        }
        Poll::Ready(Ok(count as usize))
    }

    /// The process lets go of a connection. What it had not read, or `hard`, resets the peer.
    pub(super) fn close_end(&mut self, conn: ConnId, end: usize, hard: bool) {
        let Ok(mine) = self.live_end(conn, end) else {
            return self.shut(conn, end, Phase::Closed);
        };
        let hard = hard || !mine.inbox.is_empty();
        self.send_packet(conn, end, if hard { Load::Reset } else { Load::Fin });
        self.shut(conn, end, Phase::Closed);
    }

    fn shut(&mut self, id: ConnId, end: usize, phase: Phase) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let mine = &mut conn.ends[end];
        if mine.phase != Phase::Gone {
            mine.phase = phase;
        }
        mine.inbox.clear();
        self.wake.append(&mut mine.wake);
        let over = |end: &End| matches!(end.phase, Phase::Closed | Phase::Gone);
        if conn.ends.iter().all(over) {
            self.net.conns.remove(&id);
        }
    }
}

// ---- what the network does ----------------------------------------------------------------------

impl State {
    fn send_packet(&mut self, id: ConnId, from: usize, load: Load) {
        let bytes = if let Load::Data(bytes) = &load { bytes.len() as u64 } else { 0 };
        let wire = Duration::from_nanos(bytes * 1_000_000_000 / self.options.bandwidth.max(1));
        let latency = self.options.packet.draw(&mut self.random);
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let sender = &mut conn.ends[from];
        sender.undelivered += u64::from(load.is_confirmed());
        sender.wire_free = sender.wire_free.max(self.now) + wire;
        let at = sender.wire_free + latency;
        let place = load.has_place().then_some(sender.next_out);
        sender.next_out += u64::from(place.is_some());
        let packet = PacketId(self.serial());
        self.net.packets.insert(packet, Packet { conn: id, to: 1 - from, place, load });
        self.push(at, Event::Packet(packet));
    }

    pub(super) fn deliver(&mut self, id: PacketId) {
        let Some(packet) = self.net.packets.remove(&id) else { return };
        let (conn_id, to) = (packet.conn, packet.to);
        let Some(conn) = self.net.conns.get(&conn_id) else { return };
        let way = (conn.ends[1 - to].host, conn.ends[to].host);
        let back = (way.1, way.0);
        let confirmed = packet.load.is_confirmed();
        if self.net.cut.contains(&way) {
            self.net.packets.insert(id, packet);
            self.net.held.entry(way).or_default().push(id);
            return self.plan_giving_up(conn_id, 1 - to);
        }
        let receiver = &conn.ends[to];
        let dark = !self.hosts[&receiver.host].up;
        if dark || receiver.phase == Phase::Gone {
            if dark && matches!(packet.load, Load::Ask) {
                let unheard = Event::GiveUp { conn: conn_id, end: CALLER, progress: 0 };
                self.push_after(UNHEARD_LIMIT.min(self.options.give_up), unheard);
            } else if dark {
                self.plan_giving_up(conn_id, 1 - to);
            } else if confirmed {
                // The host has started again and knows nothing of this.
                self.refuse(conn_id, 1 - to, io::ErrorKind::ConnectionReset);
            }
            return;
        }
        if confirmed && self.net.cut.contains(&back) {
            self.net.unconfirmed.entry(back).or_default().push((conn_id, 1 - to));
            self.plan_giving_up(conn_id, 1 - to);
        } else if confirmed {
            self.confirm(conn_id, 1 - to);
        }
        match packet.place {
            None => self.receive(conn_id, to, packet.load),
            Some(place) => self.receive_in_order(conn_id, to, place, packet.load),
        }
    }

    fn receive_in_order(&mut self, id: ConnId, to: usize, place: u64, load: Load) {
        let mut next = Some((place, load));
        while let Some((place, load)) = next.take() {
            let Some(conn) = self.net.conns.get_mut(&id) else { return };
            let mine = &mut conn.ends[to];
            if place != mine.next_in {
                mine.ahead.insert(place, load);
                return;
            }
            mine.next_in += 1;
            self.receive(id, to, load);
            let Some(conn) = self.net.conns.get_mut(&id) else { return };
            let mine = &mut conn.ends[to];
            next = mine.ahead.remove_entry(&mine.next_in);
        }
    }

    fn confirm(&mut self, conn: ConnId, sender: usize) {
        if let Some(conn) = self.net.conns.get_mut(&conn) {
            conn.ends[sender].undelivered -= 1;
            conn.ends[sender].progress += 1;
        }
    }

    fn receive(&mut self, id: ConnId, to: usize, load: Load) {
        if matches!(load, Load::Ask) {
            return self.arrive_at_listener(id);
        }
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let mine = &mut conn.ends[to];
        if !mine.is_live() {
            if matches!(load, Load::Data(_)) {
                self.send_packet(id, to, Load::Reset);
            }
            return;
        }
        match load {
            Load::Ask => {}
            Load::Accepted => mine.phase = Phase::Open,
            Load::Refused => mine.failed = Some(io::ErrorKind::ConnectionRefused),
            Load::Data(bytes) => mine.inbox.extend(bytes),
            Load::Read(count) => mine.outstanding = mine.outstanding.saturating_sub(count),
            Load::Fin => mine.ended = true,
            Load::Reset => {
                mine.failed = Some(io::ErrorKind::ConnectionReset);
                mine.inbox.clear();
            }
        }
        self.wake.append(&mut mine.wake);
    }

    fn arrive_at_listener(&mut self, id: ConnId) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let called = &mut conn.ends[CALLED];
        let key = (called.host, called.address.clone());
        let listening = self.net.listeners.get_mut(&key);
        match listening.filter(|listening| listening.queue.len() < BACKLOG_MAX) {
            Some(listening) => {
                called.process = listening.process;
                called.phase = Phase::Open;
                listening.queue.push_back(id);
                self.wake.append(&mut listening.wake);
                self.send_packet(id, CALLED, Load::Accepted);
            }
            None => {
                called.phase = Phase::Closed;
                self.send_packet(id, CALLED, Load::Refused);
            }
        }
    }

    fn refuse(&mut self, conn: ConnId, end: usize, kind: io::ErrorKind) {
        let Some(conn) = self.net.conns.get_mut(&conn) else { return };
        let mine = &mut conn.ends[end];
        if mine.is_live() {
            mine.failed = Some(kind);
            mine.inbox.clear();
            self.wake.append(&mut mine.wake);
        }
    }

    fn plan_giving_up(&mut self, conn: ConnId, end: usize) {
        let Some(found) = self.net.conns.get(&conn) else { return };
        let progress = found.ends[end].progress;
        let limit = self.options.give_up;
        self.push_after(limit, Event::GiveUp { conn, end, progress });
    }

    /// A sender gives up if nothing has got through since.
    pub(super) fn give_up(&mut self, conn: ConnId, end: usize, progress: u64) {
        let Some(found) = self.net.conns.get(&conn) else { return };
        let mine = &found.ends[end];
        if mine.undelivered > 0 && mine.progress == progress {
            self.refuse(conn, end, io::ErrorKind::TimedOut);
        }
    }

    /// Cuts or mends one direction.
    pub(super) fn set_cut(&mut self, from: HostId, to: HostId, cut: bool) {
        if cut {
            self.net.cut.insert((from, to));
            return;
        }
        self.net.cut.remove(&(from, to));
        for (conn, sender) in self.net.unconfirmed.remove(&(from, to)).unwrap_or_default() {
            self.confirm(conn, sender);
        }
        for packet in self.net.held.remove(&(from, to)).unwrap_or_default() {
            let latency = self.options.packet.draw(&mut self.random);
            self.push_after(latency, Event::Packet(packet));
        }
    }

    /// The kernel closes what a killed process had.
    pub(super) fn close_all(&mut self, process: ProcessId) {
        for address in self.listeners_of(process) {
            self.unlisten(process, &address);
        }
        for (conn, end) in self.ends_where(|end| end.process == process) {
            self.close_end(conn, end, false);
        }
    }

    /// A host goes dark: nobody hears of it.
    pub(super) fn darken(&mut self, host: HostId) {
        self.net.listeners.retain(|(other, _), _| *other != host);
        for (conn, end) in self.ends_where(|end| end.host == host) {
            self.shut(conn, end, Phase::Gone);
        }
    }

    /// A host is there again: what is sent to its former self is refused.
    pub(super) fn lighten(&mut self, host: HostId) {
        for (conn, end) in self.ends_where(|end| end.host == host && end.phase == Phase::Gone) {
            let peer = self.net.conns.get(&conn).map(|conn| &conn.ends[1 - end]);
            if peer.is_some_and(|peer| peer.undelivered > 0) {
                self.send_packet(conn, end, Load::Reset);
            }
        }
    }

    fn listeners_of(&self, process: ProcessId) -> Vec<Address> {
        let mine = self.net.listeners.iter().filter(|(_, listening)| listening.process == process);
        mine.map(|((_, address), _)| address.clone()).collect()
    }

    fn ends_where(&self, which: impl Fn(&End) -> bool) -> Vec<(ConnId, usize)> {
        let ends = self.net.conns.iter().flat_map(|(id, conn)| {
            conn.ends.iter().enumerate().map(move |(index, end)| (*id, index, end))
        });
        ends.filter(|(.., end)| which(end)).map(|(id, index, _)| (id, index)).collect()
    }
}
