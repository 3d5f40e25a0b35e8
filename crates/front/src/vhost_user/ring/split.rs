//! The split virtqueue (Virtio 1.2, 2.7), device side.
//!
//! Available entries are taken one by one, but the index is read again only when the last known
//! ones are used up; used entries are written one by one, and published with one store per batch.
//! An address is checked once, when its descriptor is read.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use block::mem::copy_bytes;
use proto::vhost_user::RingAddresses;
use wire::virtio::ring::{
    AVAIL_F_NO_INTERRUPT, AVAIL_RING_ALIGNMENT, DESC_TABLE_ALIGNMENT, USED_F_NO_NOTIFY,
    USED_RING_ALIGNMENT, avail_ring_bytes, desc_flag, desc_table_bytes, used_ring_bytes,
};

use super::Fault;
use super::buffers::Buffers;
use super::inflight::Inflight;
use super::memory::View;

/// Longest indirect table: more than any driver's `seg_max` plus header and status.
const INDIRECT_MAX: u32 = 2048;
const DESC_BYTES: u32 = 16;

/// A request as it lies in the ring; its parts are in the [`Buffers`] given along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    pub head: u16,
    pub readable_bytes: u32,
    pub writable_bytes: u32,
}

/// Where a ring lies and how it is used, as the session has negotiated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    pub size: u16,
    pub addresses: RingAddresses,
    pub event_idx: bool,
    pub indirect: bool,
    /// Writes to guest memory are logged.
    pub logging: bool,
}

pub struct Split {
    view: View,
    hint: usize,
    placement: Placement,
    mask: u16,
    desc: *const u8,
    avail: *const u8,
    used: *mut u8,
    /// Next entry to take.
    next_avail: u16,
    /// The available index as last read.
    known_avail: u16,
    /// Next used entry to write.
    next_used: u16,
    /// The used index as the driver sees it.
    published: u16,
    inflight: Option<Inflight>,
}

/// Why a ring cannot be served where its front end says it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    #[error("its size, {size}, is not a power of 2")]
    Size { size: u16 },
    /// What QEMU sends of a guest with memory of its own: it names only what it can share.
    #[error("the virtual machine's memory is not shared with the server; {SHARE}")]
    NothingShared,
    #[error(
        "its {part} at {at:#x} lies in none of the {regions} memory regions that are shared with \
         the server; if the virtual machine's memory is not shared whole, {SHARE}"
    )]
    Outside { part: &'static str, at: u64, regions: usize },
    #[error("its {part} at {at:#x} is not mapped at a multiple of {align} bytes")]
    Alignment { part: &'static str, at: u64, align: u64 },
}

/// How a front end's memory becomes shared.
const SHARE: &str = "start it with \
    -object memory-backend-memfd,id=mem,size=SIZE,share=on -machine memory-backend=mem, where SIZE \
    is that of its -m";

impl Split {
    /// A ring that goes on at `base`.
    pub fn new(view: View, placement: Placement, base: u16) -> Result<Self, Misplaced> {
        let Placement { size, .. } = placement;
        let mut ring = Self {
            view,
            hint: 0,
            placement,
            mask: size.is_power_of_two().then(|| size - 1).ok_or(Misplaced::Size { size })?,
            desc: std::ptr::null(),
            avail: std::ptr::null(),
            used: std::ptr::null_mut(),
            next_avail: base,
            known_avail: base,
            next_used: 0,
            published: 0,
            inflight: None,
        };
        ring.place()?;
        // What the driver has seen so far, also of whoever served this ring before.
        ring.next_used = ring.used_idx().load(Ordering::Acquire);
        ring.published = ring.next_used;
        if placement.logging {
            // Who served before may have died after moving the index and before marking its page.
            ring.log_used(0, used_ring_bytes(placement.size));
        }
        Ok(ring)
    }

    /// Finds the three areas in the memory as it is now.
    fn place(&mut self) -> Result<(), Misplaced> {
        let Placement { size, addresses, .. } = self.placement;
        let find = |part, at, len, align: u64| {
            let found = self.view.find_user(at, len).ok_or(match self.view.regions().len() {
                0 => Misplaced::NothingShared,
                regions => Misplaced::Outside { part, at, regions },
            })?;
            let aligned = (found.addr() as u64).is_multiple_of(align);
            aligned.then_some(found).ok_or(Misplaced::Alignment { part, at, align })
        };
        let [desc, avail, used] = [
            (
                "descriptor table",
                addresses.descriptor,
                desc_table_bytes(size),
                DESC_TABLE_ALIGNMENT,
            ),
            ("available ring", addresses.available, avail_ring_bytes(size), AVAIL_RING_ALIGNMENT),
            ("used ring", addresses.used, used_ring_bytes(size), USED_RING_ALIGNMENT),
        ]
        .map(|(part, at, len, align)| find(part, at, len, align));
        (self.desc, self.avail, self.used) = (desc?, avail?, used?);
        Ok(())
    }

    /// Goes on in other memory. None: the ring does not lie there.
    pub fn set_view(&mut self, view: View) -> Option<()> {
        self.view = view;
        self.hint = 0;
        self.place().ok()
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// Goes on at other addresses. None: the ring does not lie there, and goes on where it was.
    pub fn set_addresses(&mut self, addresses: RingAddresses) -> Option<()> {
        let before = std::mem::replace(&mut self.placement.addresses, addresses);
        let placed = self.place().ok();
        if placed.is_none() {
            self.placement.addresses = before;
        }
        placed
    }

    pub fn set_logging(&mut self, logging: bool) {
        self.placement.logging = logging;
    }

    /// Takes up the in-flight region, and with it what is left of the one who served before. The
    /// ring goes on behind everything that was ever taken.
    pub fn attach(&mut self, mut inflight: Inflight) -> Vec<u16> {
        let heads = inflight.recover(self.published);
        self.next_avail = self.published.wrapping_add(heads.len() as u16);
        self.known_avail = self.next_avail;
        self.inflight = Some(inflight);
        heads
    }

    pub fn size(&self) -> u16 {
        self.placement.size
    }

    /// What GET_VRING_BASE answers when nothing is in flight.
    pub fn base(&self) -> u16 {
        self.next_avail
    }

    /// The next request, its parts put into `buffers`.
    #[inline]
    pub fn take(&mut self, buffers: &mut Buffers) -> Result<Option<Chain>, Fault> {
        if self.next_avail == self.known_avail && !self.look()? {
            return Ok(None);
        }
        let entry = 4 + 2 * usize::from(self.next_avail & self.mask);
        // SAFETY: the available ring has `size` entries behind its header and is mapped.
        let head = unsafe { AtomicU16::from_ptr(self.avail.add(entry).cast_mut().cast()) };
        let head = u16::from_le(head.load(Ordering::Relaxed));
        if head >= self.placement.size {
            return Err(Fault::Head { head, size: self.placement.size });
        }
        self.next_avail = self.next_avail.wrapping_add(1);
        if let Some(inflight) = &mut self.inflight {
            inflight.taken(head);
        }
        self.chain(head, buffers).map(Some)
    }

    /// Reads the available index. True: there is more.
    #[inline]
    fn look(&mut self) -> Result<bool, Fault> {
        let announced = u16::from_le(self.avail_idx().load(Ordering::Acquire));
        let count = announced.wrapping_sub(self.next_avail);
        if count > self.placement.size {
            return Err(Fault::AvailIndex { announced: count, size: self.placement.size });
        }
        self.known_avail = announced;
        Ok(count > 0)
    }

    /// The parts of a request by its head: also of one found in flight.
    #[inline]
    pub fn chain(&mut self, head: u16, buffers: &mut Buffers) -> Result<Chain, Fault> {
        let mut chain = Chain { head, readable_bytes: 0, writable_bytes: 0 };
        let Buffers { parts, readable_parts, view } = buffers;
        if !view.is_same(&self.view) {
            *view = self.view.clone();
        }
        parts.clear();
        *readable_parts = 0;
        let mut hint = self.hint;
        let walked = self.walk(head, |at, len, writable| {
            view.parts(at, len, &mut hint, parts).ok_or(Fault::Address { head, at, len })?;
            if writable {
                let sum = chain.writable_bytes.checked_add(len);
                chain.writable_bytes = sum.ok_or(Fault::Length { head })?;
                return Ok(());
            }
            if chain.writable_bytes > 0 {
                return Err(Fault::Order { head });
            }
            let sum = chain.readable_bytes.checked_add(len);
            chain.readable_bytes = sum.ok_or(Fault::Length { head })?;
            *readable_parts = parts.len();
            Ok(())
        });
        self.hint = hint;
        walked.map(|()| chain)
    }

    /// Calls for every buffer of a request: guest address, length, whether the device writes it.
    #[inline]
    fn walk(
        &self,
        head: u16,
        mut each: impl FnMut(u64, u32, bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let size = self.placement.size;
        let mut index = head;
        for _ in 0..size {
            // SAFETY: `index` was checked against the size of the table, which is mapped.
            let desc = unsafe { read_desc(self.desc.add(usize::from(index) * 16)) };
            if desc.flags & desc_flag::INDIRECT != 0 {
                return self.walk_indirect(head, desc, &mut each);
            }
            if desc.len > 0 {
                each(desc.addr, desc.len, desc.flags & desc_flag::WRITE != 0)?;
            }
            if desc.flags & desc_flag::NEXT == 0 {
                return Ok(());
            }
            index = desc.next;
            if index >= size {
                return Err(Fault::Next { next: index, size });
            }
        }
        Err(Fault::Loop { head })
    }

    fn walk_indirect(
        &self,
        head: u16,
        table: Desc,
        each: &mut impl FnMut(u64, u32, bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let bad = Fault::Indirect { head, len: table.len };
        let count = table.len / DESC_BYTES;
        let valid = self.placement.indirect
            && table.flags & desc_flag::NEXT == 0
            && table.len.is_multiple_of(DESC_BYTES)
            && (1..=INDIRECT_MAX).contains(&count);
        if !valid {
            return Err(bad);
        }
        let mut hint = self.hint;
        let base = self
            .view
            .find(table.addr, u64::from(table.len), &mut hint)
            .ok_or(Fault::Address { head, at: table.addr, len: table.len })?;
        let mut index = 0;
        for _ in 0..count {
            // SAFETY: `index` is below the count of the table, which lies in one region.
            let desc = unsafe { read_desc(base.add(index as usize * 16)) };
            if desc.flags & desc_flag::INDIRECT != 0 {
                return Err(bad);
            }
            if desc.len > 0 {
                each(desc.addr, desc.len, desc.flags & desc_flag::WRITE != 0)?;
            }
            if desc.flags & desc_flag::NEXT == 0 {
                return Ok(());
            }
            index = u32::from(desc.next);
            if index >= count {
                return Err(Fault::Next { next: desc.next, size: count as u16 });
            }
        }
        Err(Fault::Loop { head })
    }

    /// Writes the used entry of an answered request; [`Split::publish`] shows it to the driver.
    #[inline]
    pub fn answer(&mut self, head: u16, written: u32) {
        if self.placement.logging {
            self.log_answer(head);
        }
        let entry = 4 + 8 * usize::from(self.next_used & self.mask);
        // SAFETY: the used ring has `size` entries behind its header and is mapped; entries are
        // aligned to four bytes.
        unsafe {
            let id = AtomicU32::from_ptr(self.used.add(entry).cast());
            id.store(u32::from(head).to_le(), Ordering::Relaxed);
            let len = AtomicU32::from_ptr(self.used.add(entry + 4).cast());
            len.store(written.to_le(), Ordering::Relaxed);
        }
        self.next_used = self.next_used.wrapping_add(1);
        if let Some(inflight) = &mut self.inflight {
            inflight.answered(head);
        }
    }

    /// Moves the used index over everything answered. True: the driver wants to be notified.
    #[inline]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next_used);
        if old == new {
            return false;
        }
        self.used_idx().store(new.to_le(), Ordering::Release);
        self.published = new;
        if let Some(inflight) = &mut self.inflight {
            inflight.published(new);
        }
        if self.placement.logging {
            self.log_used(2, 2);
        }
        // The driver writes its event index and then looks at ours: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.placement.event_idx {
            let event = u16::from_le(self.used_event().load(Ordering::Relaxed));
            return new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old);
        }
        u16::from_le(self.avail_flags().load(Ordering::Relaxed)) & AVAIL_F_NO_INTERRUPT == 0
    }

    /// Asks the driver to notify of the next request. True: one has come meanwhile.
    pub fn arm(&mut self) -> bool {
        if self.placement.event_idx {
            self.avail_event().store(self.next_avail.to_le(), Ordering::Relaxed);
        } else {
            self.used_flags().store(0, Ordering::Relaxed);
        }
        self.log_notification();
        fence(Ordering::SeqCst);
        u16::from_le(self.avail_idx().load(Ordering::Acquire)) != self.next_avail
    }

    /// Asks the driver not to notify. With EVENT_IDX nothing is to be done: it notifies when the
    /// index passes the last event, which lies behind.
    pub fn disarm(&mut self) {
        if !self.placement.event_idx {
            self.used_flags().store(USED_F_NO_NOTIFY.to_le(), Ordering::Relaxed);
            self.log_notification();
        }
    }

    fn log_notification(&self) {
        if self.placement.logging {
            self.log_used(0, 2);
            self.log_used(used_ring_bytes(self.placement.size) - 2, 2);
        }
    }

    /// Marks what a request had the device write, whether it succeeded or not, and its used entry.
    #[cold]
    fn log_answer(&self, head: u16) {
        let Some(log) = self.view.log() else { return };
        let walked = self.walk(head, |at, len, writable| {
            if writable {
                log.mark(at, u64::from(len));
            }
            Ok(())
        });
        // The chain was valid when it was taken; a driver that changes it meanwhile corrupts only
        // its own migration.
        let _ = walked;
        self.log_used(4 + 8 * u64::from(self.next_used & self.mask), 8);
    }

    fn log_used(&self, offset: u64, len: u64) {
        if let (Some(log), Some(used)) = (self.view.log(), self.placement.addresses.log) {
            log.mark(used.saturating_add(offset), len);
        }
    }

    fn avail_flags(&self) -> &AtomicU16 {
        // SAFETY: the available ring is mapped and aligned to two bytes.
        unsafe { AtomicU16::from_ptr(self.avail.cast_mut().cast()) }
    }

    #[inline]
    fn avail_idx(&self) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.avail.add(2).cast_mut().cast()) }
    }

    /// Behind the last available entry.
    #[inline]
    fn used_event(&self) -> &AtomicU16 {
        let offset = 4 + 2 * usize::from(self.placement.size);
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.avail.add(offset).cast_mut().cast()) }
    }

    fn used_flags(&self) -> &AtomicU16 {
        // SAFETY: the used ring is mapped and aligned to four bytes.
        unsafe { AtomicU16::from_ptr(self.used.cast()) }
    }

    #[inline]
    fn used_idx(&self) -> &AtomicU16 {
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.used.add(2).cast()) }
    }

    /// Behind the last used entry.
    fn avail_event(&self) -> &AtomicU16 {
        let offset = 4 + 8 * usize::from(self.placement.size);
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(self.used.add(offset).cast()) }
    }
}

#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// Reads a descriptor once.
///
/// # Safety
/// Sixteen bytes at `at` are mapped.
#[inline]
unsafe fn read_desc(at: *const u8) -> Desc {
    let words = if at.addr().is_multiple_of(8) {
        // SAFETY: promised by the caller; the address is aligned.
        unsafe {
            let addr = AtomicU64::from_ptr(at.cast_mut().cast()).load(Ordering::Relaxed);
            let rest = AtomicU64::from_ptr(at.add(8).cast_mut().cast()).load(Ordering::Relaxed);
            [addr, rest]
        }
    } else {
        // Only an indirect table can lie like this; drivers do not do it.
        let mut words = [0u64; 2];
        // SAFETY: promised by the caller; the target is sixteen bytes long.
        unsafe { copy_bytes(words.as_mut_ptr().cast(), at, 16) };
        words
    };
    let (addr, rest) = (u64::from_le(words[0]), u64::from_le(words[1]));
    Desc { addr, len: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::memory::Memory;
    use super::*;

    #[test]
    fn each_reason_why_a_ring_is_nowhere_is_its_own() {
        let refusal = |size| {
            let addresses =
                RingAddresses { descriptor: 0x1000, used: 0x3000, available: 0x2000, log: None };
            let placement =
                Placement { size, addresses, event_idx: false, indirect: false, logging: false };
            Split::new(View::new(Arc::new(Memory::default())), placement, 0).err()
        };
        assert_eq!(refusal(3), Some(Misplaced::Size { size: 3 }));
        assert_eq!(refusal(0), Some(Misplaced::Size { size: 0 }));
        assert_eq!(refusal(64), Some(Misplaced::NothingShared));
    }
}
