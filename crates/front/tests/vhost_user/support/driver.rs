//! The driver's side of a split virtqueue (Virtio 1.2, 2.7.13), with every raw field within reach
//! for drivers that do it wrong.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

use proto::vhost_user::RingAddresses;
use wire::virtio::ring::{
    AVAIL_F_NO_INTERRUPT, USED_F_NO_NOTIFY, avail_ring_bytes, desc_flag, desc_table_bytes,
    used_ring_bytes,
};

use super::Guest;

/// One descriptor, as it stands in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desc {
    pub addr: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// A buffer of a request: for the device to read, or to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buf {
    Out(u64, u32),
    In(u64, u32),
}

impl Buf {
    fn desc(self) -> Desc {
        match self {
            Self::Out(addr, len) => Desc { addr, len, flags: 0, next: 0 },
            Self::In(addr, len) => Desc { addr, len, flags: desc_flag::WRITE, next: 0 },
        }
    }
}

/// An entry of the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub head: u16,
    pub len: u32,
}

pub struct Ring {
    guest: Rc<Guest>,
    pub size: u16,
    pub event_idx: bool,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    free: Vec<u16>,
    /// Descriptors of requests that are out, by head.
    out: BTreeMap<u16, Vec<u16>>,
    next_avail: u16,
    announced: u16,
    next_used: u16,
}

impl Ring {
    pub fn new(guest: &Rc<Guest>, size: u16, event_idx: bool) -> Self {
        let page = 4096;
        Self {
            guest: guest.clone(),
            size,
            event_idx,
            desc: guest.alloc(desc_table_bytes(size), page),
            avail: guest.alloc(avail_ring_bytes(size), page),
            used: guest.alloc(used_ring_bytes(size), page),
            free: (0..size).rev().collect(),
            out: BTreeMap::new(),
            next_avail: 0,
            announced: 0,
            next_used: 0,
        }
    }

    /// Goes on at these indexes, for tests that cross the wrap without 65536 requests.
    pub fn start_at(&mut self, index: u16) {
        (self.next_avail, self.announced, self.next_used) = (index, index, index);
        self.guest.store(self.avail + 2, index.to_le());
        self.guest.store(self.used + 2, index.to_le());
    }

    pub fn addresses(&self, logged: bool) -> RingAddresses {
        RingAddresses {
            descriptor: self.guest.user(self.desc),
            available: self.guest.user(self.avail),
            used: self.guest.user(self.used),
            log: logged.then_some(self.used),
        }
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Requests that are out.
    pub fn out(&self) -> usize {
        self.out.len()
    }

    /// Puts a request into the ring, a descriptor for each buffer. Not yet announced.
    pub fn place(&mut self, bufs: &[Buf]) -> u16 {
        let descs: Vec<Desc> = bufs.iter().map(|buf| buf.desc()).collect();
        self.place_descs(descs)
    }

    /// The same with all but the first `direct` buffers in an indirect table.
    pub fn place_indirect(&mut self, direct: usize, bufs: &[Buf]) -> u16 {
        let rest = &bufs[direct..];
        let table = self.guest.alloc(desc_table_bytes(rest.len() as u16), 16);
        let last = rest.len() - 1;
        for (index, buf) in rest.iter().enumerate() {
            let mut desc = buf.desc();
            if index < last {
                desc.flags |= desc_flag::NEXT;
                desc.next = index as u16 + 1;
            }
            write_desc(&self.guest, table + 16 * index as u64, desc);
        }
        let len = 16 * rest.len() as u32;
        let indirect = Desc { addr: table, len, flags: desc_flag::INDIRECT, next: 0 };
        let descs = bufs[..direct].iter().map(|buf| buf.desc()).chain([indirect]).collect();
        self.place_descs(descs)
    }

    fn place_descs(&mut self, mut descs: Vec<Desc>) -> u16 {
        let indexes = self.free.split_off(self.free.len() - descs.len());
        for position in 0..descs.len() {
            if position + 1 < descs.len() {
                descs[position].flags |= desc_flag::NEXT;
                descs[position].next = indexes[position + 1];
            }
            self.write_desc(indexes[position], descs[position]);
        }
        let head = indexes[0];
        self.out.insert(head, indexes);
        self.put_avail(head);
        head
    }

    pub fn write_desc(&self, index: u16, desc: Desc) {
        write_desc(&self.guest, self.desc + 16 * u64::from(index), desc);
    }

    /// Puts a head into the next available entry, whatever it is.
    pub fn put_avail(&mut self, head: u16) {
        let entry = u64::from(self.next_avail % self.size);
        self.guest.store(self.avail + 4 + 2 * entry, head.to_le());
        self.next_avail = self.next_avail.wrapping_add(1);
    }

    /// Shows the device what was placed. True: it wants a notification.
    pub fn announce(&mut self) -> bool {
        let (old, new) = (self.announced, self.next_avail);
        self.set_avail_idx(new);
        self.announced = new;
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.avail_event();
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        u16::from_le(self.guest.load(self.used)) & USED_F_NO_NOTIFY == 0
    }

    pub fn set_avail_idx(&self, index: u16) {
        self.guest.store(self.avail + 2, index.to_le());
    }

    pub fn avail_event(&self) -> u16 {
        u16::from_le(self.guest.load(self.used + 4 + 8 * u64::from(self.size)))
    }

    pub fn used_idx(&self) -> u16 {
        u16::from_le(self.guest.load(self.used + 2))
    }

    /// How the device answered, if it has; the descriptors are free again.
    pub fn take_used(&mut self) -> Option<Used> {
        if self.used_idx() == self.next_used {
            return None;
        }
        let entry = self.used + 4 + 8 * u64::from(self.next_used % self.size);
        let id = u32::from_le(self.guest.load(entry));
        let len = u32::from_le(self.guest.load(entry + 4));
        self.next_used = self.next_used.wrapping_add(1);
        let head = u16::try_from(id).unwrap();
        let out = self.out.remove(&head);
        let mut indexes = out.unwrap_or_else(|| panic!("{head} was answered and is not out"));
        self.free.append(&mut indexes);
        Some(Used { head, len })
    }

    /// Asks for a notification of the next answer. True: it is there already.
    pub fn listen(&self) -> bool {
        if self.event_idx {
            self.set_used_event(self.next_used);
        } else {
            self.guest.store(self.avail, 0u16);
        }
        fence(Ordering::SeqCst);
        self.used_idx() != self.next_used
    }

    /// Asks for none.
    pub fn ignore(&self) {
        if self.event_idx {
            self.set_used_event(self.next_used.wrapping_sub(1));
        } else {
            self.guest.store(self.avail, AVAIL_F_NO_INTERRUPT.to_le());
        }
    }

    pub fn set_used_event(&self, event: u16) {
        self.guest.store(self.avail + 4 + 2 * u64::from(self.size), event.to_le());
    }
}

fn write_desc(guest: &Guest, at: u64, desc: Desc) {
    guest.write_as(at, desc.addr.to_le());
    guest.write_as(at + 8, desc.len.to_le());
    guest.write_as(at + 12, desc.flags.to_le());
    guest.write_as(at + 14, desc.next.to_le());
}
