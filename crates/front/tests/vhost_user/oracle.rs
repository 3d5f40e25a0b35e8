//! Our side of the split ring against `virtio-queue`: one driver, both devices, each with a used
//! ring of its own. What they find in a request, what they write and whom they notify is the same.

use std::rc::Rc;
use std::sync::Arc;

use front::vhost_user::ring::{Buffers, Memory, Placement, Region, Split, View};
use proptest::collection::vec;
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;
use wire::virtio::ring::used_ring_bytes;

use crate::support::{Buf, Guest, Ring, pattern, proptest_config};

const LOW: u64 = 128 << 10;
/// Two regions behind the first one, without a gap, and one far away.
const EDGE: u64 = LOW + 8192;
const FAR: u64 = 5 << 30;
const REGION: u64 = 16 << 10;

/// A buffer: where, how long, and whether the device writes it.
type Piece = (u64, u32, bool);

#[derive(Clone, Debug)]
struct Chain {
    pieces: Vec<(u64, u32)>,
    writable: usize,
    /// How many stand before the indirect table; None: no table.
    direct: Option<usize>,
}

/// What happens to the ring at one time.
#[derive(Clone, Debug)]
struct Round {
    chains: Vec<Chain>,
    /// Most that the device takes now.
    take: usize,
    /// Which of those that are out are answered, and with how many bytes.
    answers: Vec<(usize, u32)>,
    /// Distance of the driver's event from its next used entry.
    event: i16,
    no_interrupt: bool,
}

#[derive(Clone, Debug)]
struct Life {
    size: u16,
    event_idx: bool,
    start: u16,
    rounds: Vec<Round>,
}

fn piece() -> impl Strategy<Value = (u64, u32)> {
    prop_oneof![
        (0..LOW - 4096, 0..4096u32),
        (EDGE - 4096..EDGE, 0..4096u32),
        (EDGE + 4096 - 200..EDGE + 4096 - 100, 0..101u32),
        (FAR..FAR + REGION - 4096, 0..4096u32),
        (Just(FAR), Just(REGION as u32)),
    ]
}

fn chain() -> impl Strategy<Value = Chain> {
    let direct = proptest::option::of(0..3usize);
    (vec(piece(), 1..6), any::<usize>(), direct).prop_map(|(pieces, writable, direct)| Chain {
        writable: writable % (pieces.len() + 1),
        pieces,
        direct,
    })
}

fn round() -> impl Strategy<Value = Round> {
    let answers = vec((any::<usize>(), any::<u32>()), 0..12);
    let event = prop_oneof![-3..12i16, any::<i16>()];
    (vec(chain(), 0..6), 0..12usize, answers, event, any::<bool>()).prop_map(
        |(chains, take, answers, event, no_interrupt)| Round {
            chains,
            take,
            answers,
            event,
            no_interrupt,
        },
    )
}

fn life() -> impl Strategy<Value = Life> {
    let size = prop_oneof![Just(8u16), Just(16), Just(64)];
    let start = prop_oneof![Just(0u16), Just(65_530), any::<u16>()];
    (size, any::<bool>(), start, vec(round(), 1..20))
        .prop_map(|(size, event_idx, start, rounds)| Life { size, event_idx, start, rounds })
}

/// Both devices on one ring.
struct Both {
    guest: Rc<Guest>,
    driver: Ring,
    ours: Split,
    buffers: Buffers,
    theirs: Queue,
    /// Where the other one's used ring lies.
    their_used: u64,
    out: Vec<u16>,
    next_used: u16,
}

impl Both {
    fn new(life: &Life) -> Self {
        let places = [(0, LOW), (LOW, 8192), (EDGE, 4096), (FAR, REGION)];
        let guest = Rc::new(Guest::new(&places));
        for (index, (at, size)) in places.into_iter().enumerate() {
            guest.write(at, &pattern(index as u64, size as usize));
        }
        let mut driver = Ring::new(&guest, life.size, life.event_idx);
        let their_used = guest.alloc(used_ring_bytes(life.size), 4096);
        for at in [driver.desc, driver.avail, driver.used, their_used] {
            guest.write(at, &[0; 4096]);
        }
        driver.start_at(life.start);
        guest.store(their_used + 2, life.start);
        let map = |(region, fd)| Arc::new(Region::map(&region, &fd).unwrap());
        let regions = guest.regions().into_iter().map(map).collect();
        let view = View::new(Arc::new(Memory::new(regions, None)));
        let placement = Placement {
            size: life.size,
            addresses: driver.addresses(false),
            event_idx: life.event_idx,
            indirect: true,
            logging: false,
        };
        let ours = Split::new(view.clone(), placement, life.start).unwrap();
        let mut theirs = Queue::new(life.size).unwrap();
        theirs.try_set_desc_table_address(GuestAddress(driver.desc)).unwrap();
        theirs.try_set_avail_ring_address(GuestAddress(driver.avail)).unwrap();
        theirs.try_set_used_ring_address(GuestAddress(their_used)).unwrap();
        theirs.set_event_idx(life.event_idx);
        theirs.set_next_avail(life.start);
        theirs.set_next_used(life.start);
        theirs.set_ready(true);
        let buffers = Buffers::new(view);
        let next_used = life.start;
        Self { guest, driver, ours, buffers, theirs, their_used, out: Vec::new(), next_used }
    }

    fn place(&mut self, chain: &Chain) {
        let needed = chain.direct.map_or(chain.pieces.len(), |direct| direct + 1);
        if self.driver.free() < needed {
            return;
        }
        let readable = chain.pieces.len() - chain.writable;
        let buf = |(index, &(at, len)): (usize, &(u64, u32))| {
            if index < readable { Buf::Out(at, len) } else { Buf::In(at, len) }
        };
        let bufs: Vec<Buf> = chain.pieces.iter().enumerate().map(buf).collect();
        match chain.direct {
            Some(direct) => self.driver.place_indirect(direct.min(bufs.len() - 1), &bufs),
            None => self.driver.place(&bufs),
        };
    }

    /// One request, as both see it. False: both see none.
    fn take(&mut self) -> bool {
        let ours = self.ours.take(&mut self.buffers).unwrap();
        let theirs = self.theirs.pop_descriptor_chain(self.guest.memory());
        let (Some(ours), Some(theirs)) = (ours, theirs.as_ref()) else {
            assert!(ours.is_none() && theirs.is_none());
            return false;
        };
        assert_eq!(ours.head, theirs.head_index());
        let pieces: Vec<Piece> =
            theirs.clone().map(|desc| (desc.addr().0, desc.len(), desc.is_write_only())).collect();
        for (writable, list, len) in [
            (false, self.buffers.readable(), ours.readable_bytes),
            (true, self.buffers.writable(), ours.writable_bytes),
        ] {
            let mut found = vec![0; list.len()];
            list.copy_out(0, &mut found);
            let of_kind = pieces.iter().filter(|piece| piece.2 == writable);
            let expected: Vec<u8> =
                of_kind.flat_map(|&(at, len, _)| self.guest.read(at, len as usize)).collect();
            assert!(found == expected, "other bytes than expected");
            assert_eq!(len as usize, expected.len());
        }
        self.out.push(ours.head);
        true
    }

    fn answer(&mut self, answers: &[(usize, u32)]) {
        let memory = self.guest.memory();
        let mut answered = 0;
        for &(choice, len) in answers {
            if self.out.is_empty() {
                break;
            }
            let head = self.out.swap_remove(choice % self.out.len());
            self.ours.answer(head, len);
            assert_eq!(self.driver.used_idx(), self.next_used, "shown before its time");
            self.theirs.add_used(memory, head, len).unwrap();
            answered += 1;
        }
        let wants = self.guest.load::<u16>(self.driver.avail) & 1 == 0;
        let ours = self.ours.publish();
        self.next_used = self.next_used.wrapping_add(answered);
        if answered == 0 {
            assert!(!ours, "nothing to notify of");
        } else if self.driver.event_idx {
            assert_eq!(ours, self.theirs.needs_notification(memory).unwrap());
        } else {
            // The other one does not know the flag (2.7.7.1).
            assert_eq!(ours, wants);
        }
        let len = used_ring_bytes(self.driver.size) as usize - 2;
        // All but the notification fields: flags in front, the event behind.
        let ours = self.guest.read(self.driver.used + 2, len - 2);
        assert_eq!(ours, self.guest.read(self.their_used + 2, len - 2));
        assert_eq!(self.driver.used_idx(), self.next_used);
    }

    /// Both fall asleep and wake up: what they tell the driver is the same.
    fn rest(&mut self) {
        let memory = self.guest.memory();
        let fields = |used: u64, size: u16| {
            let event = used + 4 + 8 * u64::from(size);
            (self.guest.load::<u16>(used), self.guest.load::<u16>(event))
        };
        let (used, size) = (self.driver.used, self.driver.size);
        assert_eq!(self.ours.arm(), self.theirs.enable_notification(memory).unwrap());
        assert_eq!(fields(used, size), fields(self.their_used, size));
        self.ours.disarm();
        self.theirs.disable_notification(memory).unwrap();
        assert_eq!(fields(used, size), fields(self.their_used, size));
        assert_eq!(self.ours.base(), self.theirs.next_avail());
    }

    fn round(&mut self, round: &Round) {
        for chain in &round.chains {
            self.place(chain);
        }
        self.driver.announce();
        for _ in 0..round.take {
            if !self.take() {
                break;
            }
        }
        let event = self.next_used.wrapping_add_signed(round.event);
        match (self.driver.event_idx, round.no_interrupt) {
            (true, _) => self.driver.set_used_event(event),
            (false, true) => self.driver.ignore(),
            (false, false) => drop(self.driver.listen()),
        }
        self.answer(&round.answers);
        self.rest();
        while self.driver.take_used().is_some() {}
    }
}

proptest! {
    #![proptest_config(proptest_config(100))]

    #[test]
    fn both_see_and_write_the_same(life in life()) {
        let mut both = Both::new(&life);
        for round in &life.rounds {
            both.round(round);
        }
        while both.take() {}
        let rest: Vec<(usize, u32)> = both.out.iter().map(|_| (0, 7)).collect();
        both.answer(&rest);
        while both.driver.take_used().is_some() {}
        prop_assert_eq!(both.driver.out(), 0);
    }
}
