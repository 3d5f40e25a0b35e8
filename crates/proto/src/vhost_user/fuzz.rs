//! Hostile peers: bytes taken as a script of what a peer sends and what the owner does, run against
//! each machine, with the promises of the machines checked after every step. The property tests run
//! it on random scripts, the fuzz targets on those that a fuzzer finds.
//!
//! A file descriptor is an `Rc`, so that the count of references says how many a machine holds.

use super::{
    BackEnd, BackEndChannel, FDS_PER_MESSAGE_MAX, FrontEnd, FrontEndChannel, Inbound, InflightArea,
    Offer, PROTOCOL_FEATURES, Reply, Request, table,
};
use std::rc::Rc;
use wire::vhost_user::{FrontEndRequest, HEADER_BYTES, PAYLOAD_BYTES_MAX, header_flag};

const MESSAGE_BYTES_MAX: usize = HEADER_BYTES + PAYLOAD_BYTES_MAX;

/// One message coming in and one going out.
const FDS_HELD_MAX: usize = 2 * FDS_PER_MESSAGE_MAX;

const OFFER: Offer = Offer {
    features: 1 << 29,
    protocol_features: PROTOCOL_FEATURES,
    ring_count: 4,
    ring_size_max: 256,
    mem_slots_max: 8,
};

/// Numbers that mean something somewhere: indexes, sizes, alignments, limits, flags.
const WORDS: [u32; 23] = [
    0,
    0,
    0,
    0,
    1,
    1,
    2,
    3,
    4,
    8,
    16,
    64,
    128,
    256,
    0x101,
    0x1000,
    0x2000,
    0x7000_0000,
    1 << 30,
    1 << 29,
    0x80_0002,
    0xb22b,
    u32::MAX,
];

type Fd = Rc<()>;

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next number below `limit`; zero at the end of the script.
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % limit
    }

    fn word(&mut self) -> u32 {
        WORDS[self.below(WORDS.len())]
    }

    /// A message that is often well formed.
    fn message(&mut self, reply_flag: u32, codes: usize) -> Vec<u8> {
        let code = self.below(codes) as u32;
        let flags = match self.below(16) {
            0 => self.word(),
            1..8 => header_flag::VERSION | header_flag::NEED_REPLY | reply_flag,
            _ => header_flag::VERSION | reply_flag,
        };
        let row = table::find(FrontEndRequest(code)).filter(|_| self.below(16) > 0);
        let fits = |size: &usize| row.is_none_or(|row| row.payload.accepts(*size));
        let sizes: Vec<usize> = (0..=PAYLOAD_BYTES_MAX).step_by(4).filter(fits).collect();
        let size = sizes[self.below(sizes.len())];
        let mut bytes: Vec<u8> = Vec::new();
        for word in [code, flags, size as u32] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        while bytes.len() < HEADER_BYTES + size {
            bytes.extend_from_slice(&self.word().to_ne_bytes());
        }
        bytes
    }

    fn fds(&mut self, origin: &Fd) -> Vec<Fd> {
        const COUNTS: [usize; 8] = [0, 0, 0, 0, 1, 1, 2, 9];
        vec![origin.clone(); COUNTS[self.below(COUNTS.len())]]
    }
}

/// A front end of the worst kind, and an owner who answers in any order. Returns the requests that
/// reached the owner, without their descriptors.
pub fn back_end(script: &[u8]) -> Vec<Request<()>> {
    let mut script = Script(script);
    let origin = Fd::new(());
    let mut back = BackEnd::<Fd>::new(OFFER);
    let mut pending: Option<Inbound<Fd>> = None;
    let mut reached = Vec::new();
    if script.below(4) > 0 {
        negotiate(&mut back);
    }
    let mut line: Vec<u8> = Vec::new();
    let mut with_line: Vec<Fd> = Vec::new();
    while let Some(step) = script.next() {
        match step % 8 {
            0..4 if line.is_empty() => {
                line = script.message(0, 46);
                with_line = script.fds(&origin);
            }
            0..5 => {
                let most = if step & 8 == 0 { MESSAGE_BYTES_MAX } else { 1 + script.below(16) };
                let count = most.min(back.wanted()).min(line.len());
                let now: Vec<u8> = line.drain(..count).collect();
                back.handle_input(&now, with_line.drain(..));
            }
            5..7 => {
                let sendable = back.transmit().map_or(0, |it| it.bytes.len());
                back.handle_transmitted(if step & 8 == 0 { sendable } else { sendable.min(5) });
            }
            _ => {
                if let Some(inbound) = pending.take() {
                    answer(&mut back, inbound, step & 0x30 == 0, &origin);
                }
            }
        }
        match back.poll_request() {
            Ok(Some(inbound)) => {
                assert!(pending.is_none(), "one request at a time");
                reached.push(without_fds(&inbound.request));
                pending = Some(inbound);
            }
            Ok(None) => {}
            Err(error) => {
                assert!(back.wanted() == 0 && back.transmit().is_none());
                assert!(!error.to_string().is_empty());
                drop(pending.take());
                line.clear();
                with_line.clear();
            }
        }
        while back.poll_discarded().is_some() {}
        assert!(back.wanted() <= PAYLOAD_BYTES_MAX);
        assert!(back.transmit().is_none_or(|it| it.bytes.len() <= MESSAGE_BYTES_MAX));
        assert!(back.memory().len() <= OFFER.mem_slots_max);
        let elsewhere = with_line.len() + pending.as_ref().map_or(0, |it| fd_count(&it.request));
        let held = Rc::strong_count(&origin) - 1 - elsewhere;
        let limit = if back.poll_request().is_err() { 0 } else { FDS_HELD_MAX };
        assert!(held <= limit, "{held} descriptors held");
    }
    reached
}

/// Most of what can go wrong is behind the protocol features.
fn negotiate(back: &mut BackEnd<Fd>) {
    let all = Request::<Fd>::SetProtocolFeatures(PROTOCOL_FEATURES).encode();
    for word in [all.code.0, header_flag::VERSION, all.payload.len() as u32] {
        back.handle_input(&word.to_ne_bytes(), []);
    }
    back.handle_input(&all.payload, []);
    assert!(back.poll_request().is_ok_and(|it| it.is_none()));
}

fn answer(back: &mut BackEnd<Fd>, inbound: Inbound<Fd>, refuse: bool, origin: &Fd) {
    for ring in inbound.starts.iter() {
        assert!(back.rings()[usize::from(ring)].runs() && !inbound.stops.contains(ring));
    }
    for ring in inbound.stops.iter() {
        assert!(!back.rings()[usize::from(ring)].runs());
        back.ring_stopped(ring, 77);
    }
    let reply = match inbound.request {
        _ if refuse => Reply::Failed,
        Request::GetVringBase { .. } => Reply::VringBase(7),
        Request::GetConfig { .. } => Reply::Config(&[1; 72]),
        Request::GetInflightFd(area) => Reply::Inflight(area, origin.clone()),
        _ => Reply::Done,
    };
    back.reply(inbound.ticket, reply);
}

/// A back end of the worst kind, against a front end that asks anything.
pub fn front_end(script: &[u8]) {
    let mut script = Script(script);
    let origin = Fd::new(());
    let mut front = FrontEnd::<Fd>::default();
    while let Some(step) = script.next() {
        if front.is_ready() {
            front.send(some_request(&mut script, &origin));
        }
        if let Some(transmit) = front.transmit() {
            let count = transmit.bytes.len();
            front.handle_transmitted(count);
        }
        let line = script.message(header_flag::REPLY, 46);
        let mut fds = script.fds(&origin);
        for piece in line.chunks(1 + usize::from(step) % 40) {
            let count = piece.len().min(front.wanted());
            front.handle_input(&piece[..count], fds.drain(..));
            if let Err(error) = front.poll_response() {
                assert!(front.wanted() == 0 && !front.is_ready() && !error.to_string().is_empty());
            }
        }
        drop(fds);
        while front.poll_discarded().is_some() {}
        assert!(front.wanted() <= PAYLOAD_BYTES_MAX);
        assert!(Rc::strong_count(&origin) - 1 <= FDS_HELD_MAX);
    }
}

fn some_request(script: &mut Script<'_>, origin: &Fd) -> Request<Fd> {
    let ring = script.below(8) as u16;
    match script.below(8) {
        0 => Request::GetFeatures,
        1 => Request::SetProtocolFeatures(PROTOCOL_FEATURES),
        2 => Request::GetVringBase { ring },
        3 => Request::GetConfig { offset: 0, size: script.below(257) as u32, flags: 0 },
        4 => Request::GetInflightFd(InflightArea::default()),
        5 => Request::SetVringKick { ring, fd: Some(origin.clone()) },
        6 => Request::SetLogFd(origin.clone()),
        _ => Request::SetOwner,
    }
}

/// Both sides of the back-end channel, each against a peer of the worst kind.
pub fn channel(script: &[u8]) {
    let mut script = Script(script);
    let origin = Fd::new(());
    let mut back = BackEndChannel::<Fd>::new(script.below(2) == 0);
    let mut front = FrontEndChannel::<Fd>::default();
    while let Some(step) = script.next() {
        back.set_suspended(step % 5 == 0);
        if step % 3 == 0 {
            back.config_changed();
        }
        let sendable = back.transmit().map_or(0, |it| it.bytes.len());
        back.handle_transmitted(sendable);
        let sendable = front.transmit().map_or(0, |it| it.bytes.len());
        front.handle_transmitted(sendable);
        let reply = script.message(header_flag::REPLY, 4);
        let request = script.message(0, 4);
        for piece in reply.chunks(1 + usize::from(step) % 16) {
            let count = piece.len().min(back.wanted());
            back.handle_input(&piece[..count], script.fds(&origin));
            let dead = back.poll_acknowledged().is_err();
            assert!(!dead || (back.wanted() == 0 && back.transmit().is_none()));
        }
        for piece in request.chunks(1 + usize::from(step) % 16) {
            let count = piece.len().min(front.wanted());
            front.handle_input(&piece[..count], script.fds(&origin));
            let dead = front.poll_config_change().is_err();
            assert!(!dead || (front.wanted() == 0 && front.transmit().is_none()));
        }
        while back.poll_discarded().or_else(|| front.poll_discarded()).is_some() {}
        assert!(Rc::strong_count(&origin) - 1 <= FDS_HELD_MAX);
    }
}

fn fd_count(request: &Request<Fd>) -> usize {
    request.clone().encode().fds.len()
}

fn without_fds(request: &Request<Fd>) -> Request<()> {
    let message = request.clone().encode();
    let row = table::find(message.code).expect("it was parsed");
    let mut fds = vec![(); message.fds.len()];
    Request::parse(row, &message.payload, &mut fds).expect("it was parsed")
}
