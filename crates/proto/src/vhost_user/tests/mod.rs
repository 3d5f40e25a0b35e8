//! Tests of the vhost-user machines in memory: front end against back end (`pair`), a back end
//! against hand-made messages (`violations`), the back-end channel, and random input. The `vhost`
//! crate over real sockets is in the crate's `tests` folder. Here: what these share.

mod channel;
mod pair;
mod random;
mod violations;

use super::*;
use wire::vhost_user::{FrontEndRequest, Header, header_flag};
use zerocopy::IntoBytes;

/// A file descriptor of these tests is a number.
type Fd = u32;

const OFFER: Offer = Offer {
    features: 0x1_3000_0244,
    protocol_features: PROTOCOL_FEATURES,
    ring_count: 4,
    ring_size_max: 1024,
    mem_slots_max: 32,
};

const ADDRESSES: RingAddresses =
    RingAddresses { descriptor: 0x7000_1000, used: 0x7000_3000, available: 0x7000_2000, log: None };

fn region(index: u64) -> MemoryRegion {
    MemoryRegion {
        guest_address: index * 0x10_0000,
        size: 0x10_0000,
        user_address: 0x7000_0000 + index * 0x10_0000,
        mmap_offset: 0x1000,
    }
}

fn inflight(num_queues: u16, queue_size: u16) -> InflightArea {
    let bytes = wire::vhost_user::queue_region_split_bytes(queue_size);
    InflightArea {
        mmap_size: bytes * u64::from(num_queues),
        mmap_offset: 0,
        num_queues,
        queue_size,
    }
}

/// A message as bytes.
fn message(code: FrontEndRequest, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request: code.0.into(),
        flags: flags.into(),
        size: u32::try_from(payload.len()).unwrap().into(),
    };
    [header.as_bytes(), payload].concat()
}

/// Gives a back end one message, as the socket would.
fn deliver(back: &mut BackEnd<Fd>, bytes: &[u8], fds: &[Fd]) {
    let mut rest = bytes;
    let mut fds = fds.to_vec();
    while !rest.is_empty() && back.wanted() > 0 {
        let (now, later) = rest.split_at(back.wanted().min(rest.len()));
        back.handle_input(now, fds.drain(..));
        rest = later;
    }
}

/// Takes all the back end has to send.
fn sent(back: &mut BackEnd<Fd>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(transmit) = back.transmit() {
        let count = transmit.bytes.len();
        all.extend_from_slice(transmit.bytes);
        back.handle_transmitted(count);
    }
    all
}

fn discarded(back: &mut BackEnd<Fd>) -> Vec<Fd> {
    let mut all: Vec<_> = std::iter::from_fn(|| back.poll_discarded()).collect();
    all.sort_unstable();
    all
}

/// Delivers a request that is answered by the machine itself or fails.
fn outcome(back: &mut BackEnd<Fd>, bytes: &[u8], fds: &[Fd]) -> Result<Vec<u8>, Error> {
    deliver(back, bytes, fds);
    match back.poll_request()? {
        Some(inbound) => panic!("{:?} is not for the owner", inbound.request),
        None => Ok(sent(back)),
    }
}

/// Delivers a request that is the owner's.
fn inbound(back: &mut BackEnd<Fd>, bytes: &[u8], fds: &[Fd]) -> Inbound<Fd> {
    deliver(back, bytes, fds);
    back.poll_request().unwrap().unwrap()
}

const VERSION: u32 = header_flag::VERSION;
const NEED_REPLY: u32 = header_flag::VERSION | header_flag::NEED_REPLY;
const REPLY: u32 = header_flag::VERSION | header_flag::REPLY;

/// A back end with all protocol features negotiated.
fn negotiated() -> BackEnd<Fd> {
    let mut back = BackEnd::new(OFFER);
    let all = PROTOCOL_FEATURES.to_ne_bytes();
    let set = message(FrontEndRequest::SET_PROTOCOL_FEATURES, VERSION, &all);
    assert_eq!(outcome(&mut back, &set, &[]), Ok(Vec::new()));
    back
}
