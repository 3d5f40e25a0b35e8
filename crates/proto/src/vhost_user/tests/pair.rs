//! Front end against back end, in memory: every request in every split, answers, their order, and
//! what they do to the rings.

use super::*;
use wire::vhost_user::{protocol_feature, virtio_feature};

/// Both ends and what lies between them: nothing, because the test carries the bytes.
struct Pair {
    front: FrontEnd<Fd>,
    back: BackEnd<Fd>,
    /// Bytes carried at a time.
    piece: usize,
}

/// What the owner saw of a request.
struct Seen {
    request: Request<Fd>,
    starts: RingSet,
    stops: RingSet,
}

impl Pair {
    fn new(piece: usize) -> Self {
        Self { front: FrontEnd::default(), back: BackEnd::new(OFFER), piece }
    }

    fn negotiated(piece: usize) -> Self {
        let mut pair = Self::new(piece);
        let done = pair.number(Request::SetProtocolFeatures(PROTOCOL_FEATURES));
        assert_eq!(done, Response::Done);
        pair
    }

    /// Carries bytes in both directions until nothing moves. What the kernel does with file
    /// descriptors is imitated: a copy arrives with the first byte, the sender keeps its own.
    fn carry(&mut self) {
        loop {
            let there = self.front.transmit().map_or((Vec::new(), Vec::new()), |transmit| {
                let count = transmit.bytes.len().min(self.piece).min(self.back.wanted());
                let fds = if count > 0 { transmit.fds } else { &[] };
                (transmit.bytes[..count].to_vec(), fds.to_vec())
            });
            if !there.0.is_empty() {
                self.back.handle_input(&there.0, there.1);
                self.front.handle_transmitted(there.0.len());
            }
            let back = self.back.transmit().map_or((Vec::new(), Vec::new()), |transmit| {
                let count = transmit.bytes.len().min(self.piece).min(self.front.wanted());
                let fds = if count > 0 { transmit.fds } else { &[] };
                (transmit.bytes[..count].to_vec(), fds.to_vec())
            });
            if !back.0.is_empty() {
                self.front.handle_input(&back.0, back.1);
                self.back.handle_transmitted(back.0.len());
            }
            if there.0.is_empty() && back.0.is_empty() {
                return;
            }
        }
    }

    /// A request that the back end answers by itself.
    fn number(&mut self, request: Request<Fd>) -> Response<Fd> {
        self.front.send(request);
        self.carry();
        assert!(self.back.poll_request().unwrap().is_none());
        self.carry();
        self.front.poll_response().unwrap().expect("an answer")
    }

    /// A request that reaches the owner, who answers as told.
    fn ask(&mut self, request: Request<Fd>, reply: Reply<'_, Fd>) -> (Seen, Response<Fd>) {
        self.front.send(request);
        self.carry();
        let inbound = self.back.poll_request().unwrap().expect("a request");
        let seen = Seen { request: inbound.request, starts: inbound.starts, stops: inbound.stops };
        self.back.reply(inbound.ticket, reply);
        self.carry();
        let response = self.front.poll_response().unwrap().expect("an answer");
        (seen, response)
    }

    fn done(&mut self, request: Request<Fd>) -> Seen {
        let (seen, response) = self.ask(request, Reply::Done);
        assert_eq!(response, Response::Done);
        seen
    }
}

/// Every request that reaches the owner, with a good answer.
fn requests() -> Vec<(Request<Fd>, Reply<'static, Fd>)> {
    let logged = RingAddresses { log: Some(0x3000), ..ADDRESSES };
    let log = LogArea { mmap_size: 0x8000, mmap_offset: 0x1000 };
    let area = inflight(4, 128);
    vec![
        (Request::SetFeatures(OFFER.features | virtio_feature::LOG_ALL), Reply::Done),
        (Request::ResetOwner, Reply::Done),
        (Request::ResetDevice, Reply::Done),
        (Request::SetMemTable(Vec::new()), Reply::Done),
        (Request::SetMemTable((0..8).map(|i| (region(i), i as Fd + 10)).collect()), Reply::Done),
        (Request::AddMemReg(region(20), 77), Reply::Done),
        (Request::RemMemReg(region(20)), Reply::Done),
        (Request::SetLogBase(log, 5), Reply::Done),
        (Request::SetLogFd(6), Reply::Done),
        (Request::SetVringNum { ring: 3, num: 1024 }, Reply::Done),
        (Request::SetVringAddr { ring: 3, addresses: ADDRESSES }, Reply::Done),
        (Request::SetVringAddr { ring: 2, addresses: logged }, Reply::Done),
        (Request::SetVringBase { ring: 0, base: 0xffff }, Reply::Done),
        (Request::GetVringBase { ring: 0 }, Reply::VringBase(0x1234)),
        (Request::SetVringKick { ring: 1, fd: Some(8) }, Reply::Done),
        (Request::SetVringKick { ring: 1, fd: None }, Reply::Done),
        (Request::SetVringCall { ring: 1, fd: Some(9) }, Reply::Done),
        (Request::SetVringErr { ring: 1, fd: None }, Reply::Done),
        (Request::SetVringEnable { ring: 1, enable: true }, Reply::Done),
        (Request::GetConfig { offset: 0, size: 60, flags: 0 }, Reply::Config(&[1; 60])),
        (Request::SetConfig { offset: 32, flags: 0, bytes: vec![1] }, Reply::Done),
        (Request::SetBackendReqFd(4), Reply::Done),
        (Request::GetInflightFd(area), Reply::Inflight(area, 99)),
        (Request::SetInflightFd(area, 99), Reply::Done),
    ]
}

#[test]
fn every_request_arrives_whole_however_it_is_split() {
    for piece in 1..=280 {
        let mut pair = Pair::negotiated(piece);
        for (request, reply) in requests() {
            let expected = match &reply {
                Reply::VringBase(base) => Response::VringBase(*base),
                Reply::Config(bytes) => Response::Config(bytes.to_vec()),
                Reply::Inflight(area, fd) => Response::Inflight(*area, *fd),
                Reply::Done | Reply::Failed => Response::Done,
            };
            let (seen, response) = pair.ask(request.clone(), reply);
            assert_eq!(seen.request, request, "in pieces of {piece}");
            assert_eq!(response, expected, "{request:?} in pieces of {piece}");
        }
        assert_eq!(pair.back.memory().len(), 8);
        assert_eq!(pair.back.rings()[0].base, 0x1234);
        // Only the answer to GET_INFLIGHT_FD carried a descriptor away from here.
        assert_eq!(discarded(&mut pair.back), [99]);
    }
}

/// Two pieces, cut at every byte, is what "resumable at every byte" means.
#[test]
fn every_request_can_be_cut_at_every_byte() {
    for (request, _) in requests() {
        let encoded = request.clone().encode();
        let bytes = message(encoded.code, VERSION, &encoded.payload);
        for cut in 1..bytes.len() {
            let mut back = negotiated();
            if let Request::RemMemReg(region) = request {
                let add = Request::AddMemReg(region, 1).encode();
                let ticket =
                    inbound(&mut back, &message(add.code, VERSION, &add.payload), &[1]).ticket;
                back.reply(ticket, Reply::Done);
            }
            deliver(&mut back, &bytes[..cut], &encoded.fds);
            assert!(back.poll_request().unwrap().is_none(), "{request:?} cut at {cut}");
            deliver(&mut back, &bytes[cut..], &[]);
            let arrived = back.poll_request().unwrap().unwrap();
            assert_eq!(arrived.request, request, "cut at {cut}");
        }
    }
}

#[test]
fn negotiation_is_answered_without_the_owner() {
    let mut pair = Pair::new(7);
    let all = OFFER.features | virtio_feature::PROTOCOL_FEATURES | virtio_feature::LOG_ALL;
    assert_eq!(pair.number(Request::SetOwner), Response::Done);
    assert_eq!(pair.number(Request::GetFeatures), Response::Number(all));
    assert_eq!(pair.number(Request::GetProtocolFeatures), Response::Number(PROTOCOL_FEATURES));
    assert_eq!(pair.number(Request::GetQueueNum), Response::Number(4));
    assert_eq!(pair.number(Request::SetProtocolFeatures(PROTOCOL_FEATURES)), Response::Done);
    assert_eq!(pair.number(Request::GetMaxMemSlots), Response::Number(32));
    assert_eq!(pair.back.protocol_features(), PROTOCOL_FEATURES);
    pair.done(Request::SetFeatures(all));
    assert_eq!(pair.back.features(), all);
    assert!(pair.back.is_logging());
    // A second owner is the same front end again.
    assert_eq!(pair.number(Request::SetOwner), Response::Done);
}

/// "REPLY_ACK": an answer only when it is negotiated and asked for, and never a second one.
#[test]
fn an_acknowledgement_is_sent_when_negotiated_and_asked_for() {
    let owner = message(FrontEndRequest::SET_OWNER, NEED_REPLY, &[]);
    let ack = message(FrontEndRequest::SET_OWNER, REPLY, &0_u64.to_ne_bytes());
    let mut back = BackEnd::new(OFFER);
    assert_eq!(outcome(&mut back, &owner, &[]), Ok(Vec::new()));
    let mut back = negotiated();
    assert_eq!(outcome(&mut back, &owner, &[]), Ok(ack));
    let plain = message(FrontEndRequest::SET_OWNER, VERSION, &[]);
    assert_eq!(outcome(&mut back, &plain, &[]), Ok(Vec::new()));
    let get = message(FrontEndRequest::GET_QUEUE_NUM, NEED_REPLY, &[]);
    let four = message(FrontEndRequest::GET_QUEUE_NUM, REPLY, &4_u64.to_ne_bytes());
    assert_eq!(outcome(&mut back, &get, &[]), Ok(four));
    // The message that negotiates REPLY_ACK is itself acknowledged.
    let mut back = BackEnd::new(OFFER);
    let features = protocol_feature::REPLY_ACK.to_ne_bytes();
    let set = message(FrontEndRequest::SET_PROTOCOL_FEATURES, NEED_REPLY, &features);
    let ack = message(FrontEndRequest::SET_PROTOCOL_FEATURES, REPLY, &0_u64.to_ne_bytes());
    assert_eq!(outcome(&mut back, &set, &[]), Ok(ack));
}

#[test]
fn a_refused_request_leaves_no_trace() {
    let mut pair = Pair::negotiated(64);
    pair.done(Request::AddMemReg(region(0), 1));
    for request in [
        Request::AddMemReg(region(1), 2),
        Request::SetMemTable(vec![(region(3), 3)]),
        Request::RemMemReg(region(0)),
        Request::SetVringNum { ring: 0, num: 64 },
        Request::SetVringAddr { ring: 0, addresses: ADDRESSES },
        Request::SetVringEnable { ring: 0, enable: true },
        Request::SetFeatures(virtio_feature::LOG_ALL),
    ] {
        let (_, response) = pair.ask(request, Reply::Failed);
        assert_eq!(response, Response::Refused);
        assert_eq!(pair.back.memory(), [region(0)]);
        assert_eq!(pair.back.rings(), [Ring::default(); 4]);
        assert_eq!(pair.back.features(), 0);
    }
    // The region can be added again, so nothing of the first attempt is left.
    pair.done(Request::AddMemReg(region(1), 2));
}

#[test]
fn a_refusal_that_cannot_be_told_ends_the_session() {
    for code in [FrontEndRequest::RESET_OWNER, FrontEndRequest::GET_VRING_BASE] {
        let mut back = negotiated();
        let payload: &[u8] = if code == FrontEndRequest::RESET_OWNER { &[] } else { &[0; 8] };
        let ticket = inbound(&mut back, &message(code, VERSION, payload), &[]).ticket;
        back.reply(ticket, Reply::Failed);
        let error = back.poll_request().unwrap_err();
        assert_eq!(error.violation, Violation::Refused);
        assert_eq!(error.subject, Subject::FrontEnd(code));
        assert_eq!(back.wanted(), 0);
    }
}

#[test]
fn refused_questions_are_answered_as_the_protocol_says() {
    let mut pair = Pair::negotiated(64);
    let get = Request::GetConfig { offset: 0, size: 8, flags: 0 };
    assert_eq!(pair.ask(get, Reply::Failed).1, Response::Refused);
    let get = Request::GetInflightFd(inflight(4, 128));
    assert_eq!(pair.ask(get, Reply::Failed).1, Response::Refused);
}

#[test]
fn requests_after_get_vring_base_wait_for_its_answer() {
    let mut back = negotiated();
    let stop = message(FrontEndRequest::GET_VRING_BASE, VERSION, &[0; 8]);
    let ask = message(FrontEndRequest::GET_QUEUE_NUM, VERSION, &[]);
    let ticket = inbound(&mut back, &stop, &[]).ticket;
    // The next request is read, so that the end of the stream is seen, and then no more.
    deliver(&mut back, &[ask.clone(), ask.clone()].concat(), &[]);
    assert_eq!(back.wanted(), 0);
    assert!(back.poll_request().unwrap().is_none() && back.transmit().is_none());
    back.reply(ticket, Reply::VringBase(7));
    // The answer goes out first; only then is the next request looked at.
    assert!(back.poll_request().unwrap().is_none());
    let answer = sent(&mut back);
    let base = [0_u32.to_ne_bytes(), 7_u32.to_ne_bytes()].concat();
    assert_eq!(answer, message(FrontEndRequest::GET_VRING_BASE, REPLY, &base));
    assert!(back.poll_request().unwrap().is_none());
    let four = message(FrontEndRequest::GET_QUEUE_NUM, REPLY, &4_u64.to_ne_bytes());
    assert_eq!(sent(&mut back), four);
    assert_eq!(back.wanted(), 12);
}

#[test]
fn a_front_end_that_does_not_read_is_held_up() {
    let mut back = negotiated();
    let ask = message(FrontEndRequest::GET_QUEUE_NUM, VERSION, &[]);
    deliver(&mut back, &ask, &[]);
    assert!(back.poll_request().unwrap().is_none());
    deliver(&mut back, &ask, &[]);
    assert!(back.poll_request().unwrap().is_none());
    assert_eq!(back.wanted(), 0);
    assert_eq!(sent(&mut back).len(), 20);
    assert!(back.poll_request().unwrap().is_none());
    assert_eq!(sent(&mut back).len(), 20);
}

fn set_up_ring(pair: &mut Pair, ring: u16) {
    pair.done(Request::SetVringNum { ring, num: 128 });
    pair.done(Request::SetVringBase { ring, base: 5 });
    pair.done(Request::SetVringAddr { ring, addresses: ADDRESSES });
}

fn members(set: RingSet) -> Vec<u16> {
    set.iter().collect()
}

#[test]
fn a_ring_starts_when_enabled_and_stops_when_its_base_is_asked_for() {
    let mut pair = Pair::negotiated(64);
    pair.done(Request::SetFeatures(virtio_feature::PROTOCOL_FEATURES));
    set_up_ring(&mut pair, 1);
    let kick = pair.done(Request::SetVringKick { ring: 1, fd: Some(1) });
    assert!(kick.starts.is_empty());
    let enable = pair.done(Request::SetVringEnable { ring: 1, enable: true });
    assert_eq!(members(enable.starts), [1]);
    let again = pair.done(Request::SetVringEnable { ring: 1, enable: true });
    assert!(again.starts.is_empty() && again.stops.is_empty());
    // Another kick or other addresses do not start a running ring again.
    let kick = pair.done(Request::SetVringKick { ring: 1, fd: Some(2) });
    assert!(kick.starts.is_empty() && kick.stops.is_empty());
    let pause = pair.done(Request::SetVringEnable { ring: 1, enable: false });
    assert_eq!(members(pause.stops), [1]);
    pair.done(Request::SetVringEnable { ring: 1, enable: true });
    let (stop, base) = pair.ask(Request::GetVringBase { ring: 1 }, Reply::VringBase(9));
    assert_eq!((members(stop.stops), base), (vec![1], Response::VringBase(9)));
    assert_eq!(pair.back.rings()[1].base, 9);
    // Stopped but still enabled: the next kick starts it.
    let kick = pair.done(Request::SetVringKick { ring: 1, fd: None });
    assert_eq!(members(kick.starts), [1]);
    assert_eq!(pair.back.rings()[1].kick, Some(Kick::Poll));
}

#[test]
fn without_protocol_features_every_ring_is_enabled_from_the_start() {
    let mut pair = Pair::new(64);
    pair.done(Request::SetFeatures(0));
    assert!(pair.back.rings().iter().all(|ring| ring.enabled));
    set_up_ring(&mut pair, 0);
    let kick = pair.done(Request::SetVringKick { ring: 0, fd: Some(1) });
    assert_eq!(members(kick.starts), [0]);
}

#[test]
fn reset_owner_disables_and_reset_device_forgets() {
    let mut pair = Pair::negotiated(64);
    let features = virtio_feature::PROTOCOL_FEATURES | OFFER.features;
    pair.done(Request::AddMemReg(region(0), 1));
    pair.done(Request::SetFeatures(features));
    for ring in [0, 2] {
        set_up_ring(&mut pair, ring);
        pair.done(Request::SetVringKick { ring, fd: Some(1) });
        pair.done(Request::SetVringEnable { ring, enable: true });
    }
    let reset = pair.done(Request::ResetOwner);
    assert_eq!(members(reset.stops), [0, 2]);
    assert!(pair.back.rings()[0].is_started());
    pair.done(Request::SetVringEnable { ring: 0, enable: true });
    let reset = pair.done(Request::ResetDevice);
    assert_eq!(members(reset.stops), [0]);
    assert_eq!(pair.back.rings(), [Ring::default(); 4]);
    assert_eq!(pair.back.features(), 0);
    // Memory and protocol features belong to the session.
    assert_eq!(pair.back.memory(), [region(0)]);
    assert_eq!(pair.back.protocol_features(), PROTOCOL_FEATURES);
}

/// QEMU disables a ring before it asks for its base; others disable and enable it to pause.
#[test]
fn a_paused_ring_remembers_how_far_it_got() {
    let mut pair = Pair::negotiated(64);
    pair.done(Request::SetFeatures(virtio_feature::PROTOCOL_FEATURES));
    set_up_ring(&mut pair, 0);
    pair.done(Request::SetVringKick { ring: 0, fd: Some(1) });
    pair.done(Request::SetVringEnable { ring: 0, enable: true });
    for (stop, reply, response, base) in [
        (Request::SetVringEnable { ring: 0, enable: false }, Reply::Done, Response::Done, 900),
        (Request::SetVringEnable { ring: 0, enable: false }, Reply::Failed, Response::Refused, 901),
        (Request::ResetDevice, Reply::Done, Response::Done, 0),
    ] {
        pair.front.send(stop);
        pair.carry();
        let inbound = pair.back.poll_request().unwrap().expect("a request");
        assert_eq!(members(inbound.stops), [0]);
        pair.back.ring_stopped(0, if base == 0 { 902 } else { base });
        pair.back.reply(inbound.ticket, reply);
        pair.carry();
        assert_eq!(pair.front.poll_response(), Ok(Some(response)));
        assert_eq!(pair.back.rings()[0].base, base);
        if base != 0 {
            pair.done(Request::SetVringEnable { ring: 0, enable: true });
            assert_eq!(pair.back.rings()[0].base, base);
        }
    }
}

#[test]
fn logging_is_switched_under_running_rings_and_nothing_else_is() {
    let mut pair = Pair::negotiated(64);
    let features = virtio_feature::PROTOCOL_FEATURES | OFFER.features;
    pair.done(Request::SetFeatures(features));
    set_up_ring(&mut pair, 0);
    pair.done(Request::SetVringKick { ring: 0, fd: Some(1) });
    pair.done(Request::SetVringEnable { ring: 0, enable: true });
    pair.done(Request::SetFeatures(features | virtio_feature::LOG_ALL));
    assert!(pair.back.is_logging());
    let logged = RingAddresses { log: Some(0x3000), ..ADDRESSES };
    pair.done(Request::SetVringAddr { ring: 0, addresses: logged });
    assert_eq!(pair.back.rings()[0].addresses, Some(logged));
    pair.done(Request::SetFeatures(features));
    assert!(!pair.back.is_logging());
    pair.front.send(Request::SetFeatures(virtio_feature::PROTOCOL_FEATURES));
    pair.carry();
    let error = pair.back.poll_request().unwrap_err();
    assert_eq!(error.violation, Violation::FeaturesWhileRunning(OFFER.features));
}

#[test]
fn configuration_is_as_long_as_asked_for_and_padded_with_zeros() {
    let space: Vec<u8> = (1..=72).collect();
    for (offset, size) in [(0, 72), (0, 60), (0, 256), (32, 1), (71, 4), (72, 8), (255, 1), (5, 0)]
    {
        let mut pair = Pair::negotiated(64);
        let get = Request::GetConfig { offset, size, flags: 0 };
        let Response::Config(bytes) = pair.ask(get, Reply::Config(&space)).1 else {
            panic!("no configuration")
        };
        let expected: Vec<u8> = (offset..offset + size)
            .map(|at| space.get(at as usize).copied().unwrap_or(0))
            .collect();
        assert_eq!(bytes, expected, "{size} bytes at {offset}");
    }
}

#[test]
fn configuration_past_the_end_is_refused() {
    for (offset, size) in [(1, 256), (255, 2), (200, 100), (0x1ff, 2)] {
        let mut pair = Pair::negotiated(64);
        let get = Request::GetConfig { offset, size, flags: 0 };
        assert_eq!(pair.number(get), Response::Refused, "{size} bytes at {offset}");
    }
}

/// rust-vmm's front ends ask at 0x100 for the start of the space, and check that the answer says
/// so.
#[test]
fn the_mmio_offset_means_the_start_of_the_space() {
    let mut back = negotiated();
    let ask = request::write_config(0x100, 1, &[0; 4]);
    let get = message(FrontEndRequest::GET_CONFIG, VERSION, &ask);
    let asked = inbound(&mut back, &get, &[]);
    assert_eq!(asked.request, Request::GetConfig { offset: 0, size: 4, flags: 1 });
    back.reply(asked.ticket, Reply::Config(&[9, 8, 7, 6, 5]));
    let answer = request::write_config(0x100, 1, &[9, 8, 7, 6]);
    assert_eq!(sent(&mut back), message(FrontEndRequest::GET_CONFIG, REPLY, &answer));
}

/// The struct is 24 bytes with its tail padding and 20 without; the answer has the asker's length.
#[test]
fn in_flight_areas_are_answered_in_the_length_they_were_asked_in() {
    for length in [20, 24] {
        let mut back = negotiated();
        let mut payload = request::write_inflight(&inflight(2, 128));
        payload.truncate(length);
        let get = message(FrontEndRequest::GET_INFLIGHT_FD, VERSION, &payload);
        let asked = inbound(&mut back, &get, &[]);
        assert_eq!(asked.request, Request::GetInflightFd(inflight(2, 128)));
        back.reply(asked.ticket, Reply::Inflight(inflight(2, 128), 42));
        assert_eq!(back.transmit().unwrap().fds, [42]);
        assert_eq!(sent(&mut back).len(), 12 + length);
        assert_eq!(discarded(&mut back), [42]);
    }
}

#[test]
fn a_front_end_refuses_answers_that_do_not_fit() {
    let number = 1_u64.to_ne_bytes();
    let get = FrontEndRequest::GET_QUEUE_NUM;
    let expected = Subject::FrontEnd(get);
    for (bytes, fds, violation) in [
        (message(get, VERSION, &number), vec![], Violation::ReplyFlagMissing),
        (message(get, REPLY | 2, &number), vec![], Violation::Version(3)),
        (message(get, REPLY, &[0; 4]), vec![], Violation::PayloadSize { size: 4, expected: "8" }),
        (
            message(FrontEndRequest::GET_FEATURES, REPLY, &number),
            vec![],
            Violation::ReplyMismatch { expected },
        ),
        (
            message(get, REPLY, &number),
            vec![5],
            Violation::FileDescriptors { count: 1, min: 0, max: 0 },
        ),
    ] {
        let mut front = FrontEnd::<Fd>::default();
        front.send(Request::GetQueueNum);
        front.handle_transmitted(12);
        let (head, tail) = bytes.split_at(12);
        front.handle_input(head, fds);
        if front.wanted() > 0 {
            front.handle_input(tail, []);
        }
        assert_eq!(front.poll_response().unwrap_err().violation, violation);
        assert!(!front.is_ready());
    }
    let mut front = FrontEnd::<Fd>::default();
    front.handle_input(&message(get, REPLY, &number)[..12], []);
    assert_eq!(front.poll_response().unwrap_err().violation, Violation::Unsolicited);
}
