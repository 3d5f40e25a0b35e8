//! The in-flight region of one queue: which requests were taken and not answered, and in which
//! order. The front end keeps it, so it outlives this process; whoever serves the queue next
//! repeats what stands there, in that order ("Inflight I/O tracking", split virtqueue).
//!
//! Per request it costs two writes when taken and two when answered. The order of the writes is the
//! whole point: x86 keeps it, the fences keep the compiler and other machines to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering, fence};

use rt::os::memory::Mapping;
use wire::vhost_user::{
    DescStateSplit, INFLIGHT_VERSION, QueueRegionSplit, queue_region_split_bytes,
};

/// The region of one queue, mapped.
pub struct Inflight {
    _mapping: Arc<Mapping>,
    base: *mut u8,
    size: u16,
    counter: u64,
    /// Heads answered since the last publication.
    batch: Vec<u16>,
}

const VERSION: usize = std::mem::offset_of!(QueueRegionSplit, version);
const DESC_NUM: usize = std::mem::offset_of!(QueueRegionSplit, desc_num);
const LAST_BATCH_HEAD: usize = std::mem::offset_of!(QueueRegionSplit, last_batch_head);
const USED_IDX: usize = std::mem::offset_of!(QueueRegionSplit, used_idx);
const HEADER_BYTES: usize = size_of::<QueueRegionSplit>();
const STATE_BYTES: usize = size_of::<DescStateSplit>();
const INFLIGHT: usize = std::mem::offset_of!(DescStateSplit, inflight);
const NEXT: usize = std::mem::offset_of!(DescStateSplit, next);
const COUNTER: usize = std::mem::offset_of!(DescStateSplit, counter);

impl Inflight {
    /// The region of queue `index` in an area for queues of `area_size`, for a queue of `size`.
    /// None where it does not fit or was left by a queue of another size.
    pub fn open(
        mapping: Arc<Mapping>,
        offset: usize,
        index: u16,
        area_size: u16,
        size: u16,
    ) -> Option<Self> {
        let stride = queue_region_split_bytes(area_size) as usize;
        let start = stride.checked_mul(usize::from(index))?.checked_add(offset)?;
        let fits = start.checked_add(stride)? <= mapping.len() && size <= area_size;
        let base = mapping.at().wrapping_add(start);
        if !fits || !base.addr().is_multiple_of(8) {
            return None;
        }
        let region = Self { _mapping: mapping, base, size, counter: 0, batch: Vec::new() };
        match region.u16(VERSION).load(Ordering::Acquire) {
            0 => {
                region.u16(DESC_NUM).store(size, Ordering::Relaxed);
                region.u16(VERSION).store(INFLIGHT_VERSION, Ordering::Release);
            }
            INFLIGHT_VERSION if region.u16(DESC_NUM).load(Ordering::Relaxed) == size => {}
            // Some front ends make the area for the largest size and say so.
            INFLIGHT_VERSION => region.u16(DESC_NUM).store(size, Ordering::Relaxed),
            _ => return None,
        }
        Some(region)
    }

    /// Heads that were taken and not answered by whoever served the queue before, oldest first.
    /// `used` is the used index that the driver sees.
    pub fn recover(&mut self, used: u16) -> Vec<u16> {
        let recorded = self.u16(USED_IDX).load(Ordering::Acquire);
        if recorded != used {
            // The last batch was published, but not yet struck off.
            let mut head = self.u16(LAST_BATCH_HEAD).load(Ordering::Relaxed);
            for _ in 0..used.wrapping_sub(recorded).min(self.size) {
                if head >= self.size {
                    break;
                }
                self.state_u8(head, INFLIGHT).store(0, Ordering::Relaxed);
                head = self.state_u16(head, NEXT).load(Ordering::Relaxed);
            }
            self.u16(USED_IDX).store(used, Ordering::Release);
        }
        let mut found: Vec<(u64, u16)> = (0..self.size)
            .filter(|&head| self.state_u8(head, INFLIGHT).load(Ordering::Relaxed) == 1)
            .map(|head| (self.state_counter(head).load(Ordering::Relaxed), head))
            .collect();
        found.sort_unstable();
        self.counter = found.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        found.into_iter().map(|(_, head)| head).collect()
    }

    /// A request was taken from the ring.
    #[inline]
    pub fn taken(&mut self, head: u16) {
        self.state_counter(head).store(self.counter, Ordering::Relaxed);
        self.counter = self.counter.wrapping_add(1);
        self.state_u8(head, INFLIGHT).store(1, Ordering::Release);
    }

    /// A request was answered; the answer becomes visible with the next publication.
    #[inline]
    pub fn answered(&mut self, head: u16) {
        let last = self.u16(LAST_BATCH_HEAD).load(Ordering::Relaxed);
        self.state_u16(head, NEXT).store(last, Ordering::Relaxed);
        self.u16(LAST_BATCH_HEAD).store(head, Ordering::Release);
        self.batch.push(head);
    }

    /// The used index was moved to `used`.
    #[inline]
    pub fn published(&mut self, used: u16) {
        fence(Ordering::Release);
        for index in 0..self.batch.len() {
            self.state_u8(self.batch[index], INFLIGHT).store(0, Ordering::Relaxed);
        }
        self.batch.clear();
        self.u16(USED_IDX).store(used, Ordering::Release);
    }

    fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: within the header of the region, whose base is aligned to 8.
        unsafe { AtomicU16::from_ptr(self.base.add(offset).cast()) }
    }

    #[inline]
    fn state(&self, head: u16, offset: usize) -> *mut u8 {
        assert!(head < self.size);
        self.base.wrapping_add(HEADER_BYTES + usize::from(head) * STATE_BYTES + offset)
    }

    #[inline]
    fn state_u8(&self, head: u16, offset: usize) -> &AtomicU8 {
        // SAFETY: within the region, which has room for `size` states.
        unsafe { AtomicU8::from_ptr(self.state(head, offset)) }
    }

    #[inline]
    fn state_u16(&self, head: u16, offset: usize) -> &AtomicU16 {
        // SAFETY: as above; the offset is even.
        unsafe { AtomicU16::from_ptr(self.state(head, offset).cast()) }
    }

    #[inline]
    fn state_counter(&self, head: u16) -> &AtomicU64 {
        // SAFETY: as above; states are 16 bytes long and the counter lies at 8.
        unsafe { AtomicU64::from_ptr(self.state(head, COUNTER).cast()) }
    }
}
