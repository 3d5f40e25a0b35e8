//! The in-flight region of one queue: which requests were taken and not answered, and in which
//! order. The front end keeps it, so it outlives this process; whoever serves the queue next
//! repeats what stands there, in that order ("Inflight I/O tracking", split virtqueue).
//!
//! Per request it costs two writes when taken and two when answered. The order of the writes is the
//! whole point: x86 keeps it, the fences keep the compiler and other machines to it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering, fence};

use proto::vhost_user::InflightArea;
use rt::os::memory::{Mapping, anonymous_file};
use wire::vhost_user::{
    DescStateSplit, INFLIGHT_VERSION, QueueRegionSplit, queue_region_split_bytes,
};

/// The area of all queues of a device. Behind the queues' regions we keep a word of our own,
/// because the area is exactly what one session hands to the next: the cache mode that the driver
/// chose, which no front end says again.
pub struct InflightMemory {
    mapping: Mapping,
    area: InflightArea,
}

/// Our word: this tag in the upper half, the mode in the lowest bit.
const MODE_TAG: u64 = 0x7669_6164 << 32;
const MODE_WRITEBACK: u64 = 1;
const MODE_BYTES: u64 = 8;

impl InflightMemory {
    /// Makes an area for the front end to keep.
    pub fn create(
        mut area: InflightArea,
        ring_size_max: u16,
        writeback: bool,
    ) -> Result<(InflightArea, OwnedFd), String> {
        if area.queue_size == 0 || area.queue_size > ring_size_max {
            return Err(format!("an in-flight area for rings of {} entries", area.queue_size));
        }
        area.mmap_size = regions_bytes(&area) + MODE_BYTES;
        area.mmap_offset = 0;
        let fd = anonymous_file(c"viaduct-inflight", area.mmap_size)
            .map_err(|error| format!("no memory for the in-flight area: {error}"))?;
        let memory = Self::map(area, &fd)?;
        memory.mode().expect("just made with it").store(MODE_TAG, Ordering::Relaxed);
        memory.set_writeback(writeback);
        Ok((area, fd))
    }

    pub fn map(area: InflightArea, fd: &OwnedFd) -> Result<Self, String> {
        let bytes = area.mmap_size.checked_add(area.mmap_offset);
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or("the in-flight area is too large")?;
        if area.mmap_size < regions_bytes(&area) || !area.mmap_offset.is_multiple_of(8) {
            return Err(format!(
                "an in-flight area of {} bytes for {} queues of {} entries",
                area.mmap_size, area.num_queues, area.queue_size
            ));
        }
        let mapping = Mapping::shared(fd, 0, bytes)
            .map_err(|error| format!("the in-flight area cannot be mapped: {error}"))?;
        Ok(Self { mapping, area })
    }

    fn mode(&self) -> Option<&AtomicU64> {
        let offset = regions_bytes(&self.area);
        if self.area.mmap_size < offset + MODE_BYTES {
            return None;
        }
        let at = self.mapping.at().wrapping_add((self.area.mmap_offset + offset) as usize);
        // SAFETY: within the mapping, aligned to eight as the regions are.
        Some(unsafe { AtomicU64::from_ptr(at.cast()) })
    }

    /// The cache mode of the session before; None where another program made the area.
    pub fn writeback(&self) -> Option<bool> {
        let word = self.mode()?.load(Ordering::Relaxed);
        (word & !MODE_WRITEBACK == MODE_TAG).then_some(word & MODE_WRITEBACK != 0)
    }

    pub fn set_writeback(&self, writeback: bool) {
        if let Some(mode) = self.mode()
            && self.writeback().is_some()
        {
            mode.store(MODE_TAG | u64::from(writeback), Ordering::Relaxed);
        }
    }
}

fn regions_bytes(area: &InflightArea) -> u64 {
    queue_region_split_bytes(area.queue_size) * u64::from(area.num_queues)
}

/// The region of one queue.
pub struct Inflight {
    _memory: Arc<InflightMemory>,
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
    /// The region of queue `index`, whose ring has `size` entries.
    pub fn open(memory: Arc<InflightMemory>, index: u16, size: u16) -> Result<Self, String> {
        let area = memory.area;
        if index >= area.num_queues || size > area.queue_size {
            return Err(format!(
                "the in-flight area is for {} queues of {} entries, queue {index} has {size}",
                area.num_queues, area.queue_size
            ));
        }
        let stride = queue_region_split_bytes(area.queue_size);
        let start = area.mmap_offset + stride * u64::from(index);
        let base = memory.mapping.at().wrapping_add(start as usize);
        let region = Self { _memory: memory, base, size, counter: 0, batch: Vec::new() };
        match region.u16(VERSION).load(Ordering::Acquire) {
            0 => region.u16(VERSION).store(INFLIGHT_VERSION, Ordering::Release),
            INFLIGHT_VERSION => {}
            other => return Err(format!("the in-flight area has version {other}, not 1")),
        }
        region.u16(DESC_NUM).store(size, Ordering::Relaxed);
        Ok(region)
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
