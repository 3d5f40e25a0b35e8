//! A driver of the worst kind: bytes taken as a script of what it writes into memory and of what
//! the device does meanwhile. The property test runs it on random scripts, the fuzz target on those
//! that a fuzzer finds.
//!
//! Regions lie between pages that may not be touched, so that an access beside them ends the
//! process; that it ends otherwise never, and in a bounded time, is what is shown.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::Arc;

use block::Sgl;
use proto::vhost_user::{InflightArea, LogArea, MemoryRegion, RingAddresses};
use rt::os::memory::{Mapping, anonymous_file};
use wire::virtio::ring::{avail_ring_bytes, desc_table_bytes, used_ring_bytes};

use super::{
    Buffers, Fault, Inflight, InflightMemory, Log, Memory, Placement, Region, Split, View,
};

const PAGE: u64 = 4096;
/// Guest address, address of the front end and size of each region. The second one follows the
/// first in guest memory, the third one is far away.
const REGIONS: [(u64, u64, u64); 3] =
    [(0, 0x10_0000, 4 * PAGE), (4 * PAGE, 0x20_0000, PAGE), (1 << 32, 0x30_0000, 2 * PAGE)];
/// Where guest addresses that mean something lie; what the script adds is small.
const ADDRESSES: [u64; 11] = [
    0,
    64,
    PAGE,
    2 * PAGE,
    3 * PAGE,
    1 << 32,
    4 * PAGE - 16,
    5 * PAGE - 16,
    (1 << 32) + 2 * PAGE - 16,
    1 << 50,
    u64::MAX - 8,
];
const LENGTHS: [u32; 14] = [0, 1, 1, 15, 16, 16, 16, 17, 32, 48, 512, 4096, 32768, u32::MAX];
const FLAGS: [u8; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 5, 7];
const SIZES: [u16; 8] = [4, 1, 2, 8, 4, 16, 64, 128];
/// A dirty log for the first pages only.
const LOG_BYTES: u64 = 1;
/// What a driver would be stopped at by its own boredom.
const STEPS_MAX: usize = 2000;

/// Memory that one thread runs its scripts on.
struct Ground {
    regions: Vec<Arc<Region>>,
    log: Arc<Log>,
    log_file: Mapping,
    area: InflightArea,
    area_fd: OwnedFd,
    area_file: Mapping,
}

impl Ground {
    fn new() -> Self {
        let log_fd = anonymous_file(c"log", PAGE).expect("memory");
        let log = LogArea { mmap_size: LOG_BYTES, mmap_offset: 8 };
        let area = InflightArea { num_queues: 1, queue_size: 128, ..InflightArea::default() };
        let (area, area_fd) = InflightMemory::create(area, 128, true).expect("memory");
        Self {
            regions: REGIONS.iter().map(guarded).collect(),
            log: Arc::new(Log::map(&log, &log_fd).expect("memory")),
            log_file: Mapping::shared(&log_fd, 0, PAGE as usize).expect("memory"),
            area,
            area_file: Mapping::shared(&area_fd, 0, area.mmap_size as usize).expect("memory"),
            area_fd,
        }
    }

    fn clear(&self) {
        for (region, (guest, _, size)) in self.regions.iter().zip(REGIONS) {
            // SAFETY: the region is mapped and this long; nobody holds a reference into it.
            unsafe { ptr::write_bytes(address(region, guest), 0, size as usize) };
        }
        for file in [&self.log_file, &self.area_file] {
            // SAFETY: as above.
            unsafe { ptr::write_bytes(file.at(), 0, file.len()) };
        }
    }

    /// The memory with some of its regions; the first one, where the ring lies, is always there.
    fn view(&self, which: u8) -> View {
        let regions = self.regions.iter().enumerate();
        let some = regions.filter(|(index, _)| *index == 0 || which & 1 << index != 0);
        let regions = some.map(|(_, region)| region.clone()).collect();
        View::new(Arc::new(Memory::new(regions, Some(self.log.clone()))))
    }

    fn inflight(&self) -> Option<Inflight> {
        let memory = InflightMemory::map(self.area, &self.area_fd).expect("memory");
        Inflight::open(Arc::new(memory), 0, self.area.queue_size).ok()
    }

    /// Nothing was written beside the log.
    fn check_log(&self) {
        for offset in (0..64).filter(|offset| *offset != 8) {
            // SAFETY: within the mapping.
            let byte = unsafe { self.log_file.at().add(offset).read_volatile() };
            assert_eq!(byte, 0, "beside the log");
        }
    }
}

fn address(region: &Arc<Region>, at: u64) -> *mut u8 {
    let memory = Memory::new(vec![region.clone()], None);
    memory.find(at, 1, &mut 0).expect("an address in the region")
}

/// A region with a page before and behind it that may not be touched.
fn guarded(&(guest_address, user_address, size): &(u64, u64, u64)) -> Arc<Region> {
    const TRIES: usize = 64;
    let mut elsewhere = Vec::new();
    for _ in 0..TRIES {
        // The kernel puts one mapping below the other, mostly.
        let behind = nothing();
        let fd = anonymous_file(c"guarded", PAGE + size).expect("memory");
        let place = MemoryRegion { guest_address, size, user_address, mmap_offset: PAGE };
        let region = Arc::new(Region::map(&place, &fd).expect("memory"));
        let base = address(&region, guest_address);
        if base.wrapping_add(size as usize) != behind {
            // It keeps its place, so that the next one gets another.
            elsewhere.push(region);
            continue;
        }
        let before = base.wrapping_sub(PAGE as usize);
        // SAFETY: the page in front belongs to the region's mapping and is nobody's to use.
        let result = unsafe { libc::mprotect(before.cast(), PAGE as usize, libc::PROT_NONE) };
        assert_eq!(result, 0, "a page can be forbidden");
        return region;
    }
    panic!("no place for a region between two pages of nothing");
}

/// A page that may not be touched, for good.
fn nothing() -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
    let at = unsafe { libc::mmap(ptr::null_mut(), PAGE as usize, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED, "address space");
    at.cast()
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }
}

/// The driver, the ring, and what is out.
struct Play<'a> {
    ground: &'a Ground,
    size: u16,
    places: RingAddresses,
    split: Split,
    buffers: Buffers,
    /// Heads that were taken and not answered.
    out: Vec<u16>,
    /// As the driver shows it.
    avail: u16,
    used: u16,
    /// Answered and not yet shown.
    answered: usize,
    outcome: Outcome,
}

thread_local! {
    static GROUND: Ground = Ground::new();
}

/// What came of a script: requests that were whole, and what ended the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub taken: usize,
    pub fault: Option<Fault>,
}

/// Runs a script.
pub fn ring(script: &[u8]) -> Outcome {
    GROUND.with(|ground| {
        ground.clear();
        let mut script = Script(script);
        let Some(mut play) = Play::begin(ground, &mut script) else { return Outcome::default() };
        for _ in 0..STEPS_MAX {
            let Some(step) = script.next() else { break };
            play.step(step, &mut script);
        }
        ground.check_log();
        play.outcome
    })
}

impl<'a> Play<'a> {
    fn begin(ground: &'a Ground, script: &mut Script<'_>) -> Option<Self> {
        let shape = script.byte();
        let size = SIZES[usize::from(shape & 7)];
        let base = script.word();
        let places = places(size, script.byte());
        let flag = |bit: u8| shape & bit != 0;
        let placement = Placement {
            size,
            addresses: places,
            event_idx: flag(0x08),
            indirect: flag(0x10),
            logging: flag(0x20),
        };
        let view = ground.view(u8::MAX);
        let used = script.word();
        poke(ring_at(ground, places.used), 2..4, &used.to_le_bytes());
        let mut split = Split::new(view.clone(), placement, base).ok()?;
        let mut buffers = Buffers::new(view);
        let mut left = Vec::new();
        if flag(0x40) && size == ground.area.queue_size {
            for _ in 0..script.below(32) {
                let at = usize::from(script.word()) % ground.area_file.len();
                poke(ground.area_file.at(), at..at + 1, &[script.byte()]);
            }
            left = split.attach(ground.inflight()?);
        }
        let (avail, out) = (split.base(), left.clone());
        let mut outcome = Outcome::default();
        for (index, &head) in left.iter().enumerate() {
            assert!(head < size && !left[..index].contains(&head), "{head} twice");
            outcome.fault = outcome.fault.or(split.chain(head, &mut buffers).err());
        }
        let answered = 0;
        Some(Self { ground, size, places, split, buffers, out, avail, used, answered, outcome })
    }

    fn step(&mut self, step: u8, script: &mut Script<'_>) {
        match step % 12 {
            0 => self.scribble(script),
            1..4 => self.describe(script),
            4 | 5 => self.offer(script),
            6 => self.avail = script.word(),
            7 | 8 => self.take(),
            9 => self.answer(script),
            10 => self.publish(),
            _ => self.change(script),
        }
    }

    fn ring_at(&self, at: u64) -> *mut u8 {
        ring_at(self.ground, at)
    }

    /// Bytes anywhere in the first region.
    fn scribble(&mut self, script: &mut Script<'_>) {
        let (_, user, size) = REGIONS[0];
        let at = usize::from(script.word()) % size as usize;
        let count = script.below(16).min(size as usize - at);
        let bytes: Vec<u8> = (0..count).map(|_| script.byte()).collect();
        poke(self.ring_at(user), at..at + count, &bytes);
    }

    /// A descriptor of the table, or of a table somewhere in memory.
    fn describe(&mut self, script: &mut Script<'_>) {
        let place = script.byte();
        let index = script.below(usize::from(self.size));
        let addr = ADDRESSES[script.below(ADDRESSES.len())].wrapping_add(script.byte().into());
        let len = LENGTHS[script.below(LENGTHS.len())];
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&addr.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12] = FLAGS[script.below(FLAGS.len())];
        // One more than the smallest rings and tables have.
        bytes[14] = script.below(usize::from(self.size.min(8)) + 1) as u8;
        if place & 3 == 0 {
            let far = address(&self.ground.regions[2], REGIONS[2].0);
            let at = usize::from(place >> 2) * 8;
            return poke(far, at..at + 16, &bytes);
        }
        poke(self.ring_at(self.places.descriptor), 16 * index..16 * index + 16, &bytes);
    }

    /// One more available entry.
    fn offer(&mut self, script: &mut Script<'_>) {
        let entry = 4 + 2 * usize::from(self.avail % self.size);
        let head = u16::from(script.byte());
        let head = if head < 240 { head % self.size } else { head - 240 + self.size };
        let avail = self.ring_at(self.places.available);
        poke(avail, entry..entry + 2, &head.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
    }

    fn take(&mut self) {
        poke(self.ring_at(self.places.available), 2..4, &self.avail.to_le_bytes());
        // A broken ring is not looked at again.
        while self.outcome.fault.is_none() && self.out.len() < usize::from(self.size) {
            let base = self.split.base();
            match self.split.take(&mut self.buffers) {
                Ok(None) => {
                    assert_eq!((base, self.split.base()), (self.avail, self.avail));
                    return;
                }
                Ok(Some(chain)) => {
                    assert!(chain.head < self.size);
                    let (readable, writable) = (self.buffers.readable(), self.buffers.writable());
                    assert_eq!(readable.len(), chain.readable_bytes as usize);
                    assert_eq!(writable.len(), chain.writable_bytes as usize);
                    touch(self.ground, &readable, false);
                    touch(self.ground, &writable, true);
                    if self.buffers.header().is_some() {
                        assert!(readable.len() >= 16);
                    }
                    if let Some(spot) = self.buffers.last_byte() {
                        spot.write(0x5a);
                    }
                    self.out.push(chain.head);
                    self.outcome.taken += 1;
                }
                Err(fault) => {
                    assert!(!fault.to_string().is_empty());
                    self.outcome.fault = Some(fault);
                }
            }
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        if self.out.is_empty() {
            return;
        }
        let head = self.out.swap_remove(script.below(self.out.len()));
        let len = u32::from(script.word());
        self.split.answer(head, len);
        let entry = 4 + 8 * usize::from(self.used % self.size);
        let written = peek(self.ring_at(self.places.used), entry..entry + 8);
        assert_eq!(written[..4], u32::from(head).to_le_bytes());
        assert_eq!(written[4..], len.to_le_bytes());
        self.used = self.used.wrapping_add(1);
        self.answered += 1;
    }

    fn publish(&mut self) {
        self.split.publish();
        // Without an answer to show, what the driver scribbled there stays.
        if std::mem::take(&mut self.answered) > 0 {
            let index = peek(self.ring_at(self.places.used), 2..4);
            assert_eq!(index, self.used.to_le_bytes());
        }
        assert!(!self.split.publish(), "nothing is shown twice");
    }

    fn change(&mut self, script: &mut Script<'_>) {
        match script.byte() % 5 {
            0 => drop(self.split.arm()),
            1 => self.split.disarm(),
            2 => self.split.set_logging(script.byte() & 1 == 0),
            3 => {
                let view = self.ground.view(script.byte());
                assert!(self.split.set_view(view).is_some());
            }
            _ => {
                let places = places(self.size, script.byte());
                if self.split.set_addresses(places).is_some() {
                    self.places = places;
                }
            }
        }
    }
}

/// Where the parts of a ring lie: apart, at the end of the region, over each other, or beyond it.
fn places(size: u16, choice: u8) -> RingAddresses {
    let (_, user, bytes) = REGIONS[0];
    let end = user + bytes;
    let (desc, avail, used) =
        (desc_table_bytes(size), avail_ring_bytes(size), used_ring_bytes(size));
    let at_end = |len: u64, align: u64| (end - len) / align * align;
    let apart = [user, user + 2 * PAGE, user + 3 * PAGE];
    let [descriptor, available, used] = match choice % 8 {
        0 => [at_end(desc, 16), user, user + PAGE],
        1 => [user, at_end(avail, 2), user + 2 * PAGE],
        2 => [user, user + 2 * PAGE, at_end(used, 4)],
        3 => [user, user, user],
        4 => [user, user + 2 * PAGE, at_end(used, 4) + 4],
        _ => apart,
    };
    // Only the first region holds rings; the log is told guest addresses, which begin at zero.
    RingAddresses { descriptor, available, used, log: Some(used - user) }
}

fn ring_at(ground: &Ground, at: u64) -> *mut u8 {
    let (guest, user, _) = REGIONS[0];
    address(&ground.regions[0], guest + (at - user))
}

fn poke(base: *mut u8, range: Range<usize>, bytes: &[u8]) {
    for (offset, byte) in range.zip(bytes) {
        // SAFETY: callers stay within the mapping, or end the process at the page behind it.
        unsafe { base.add(offset).write_volatile(*byte) };
    }
}

fn peek(base: *mut u8, range: Range<usize>) -> Vec<u8> {
    // SAFETY: as in `poke`.
    range.map(|offset| unsafe { base.add(offset).read_volatile() }).collect()
}

/// The first and the last byte of every part, which must lie in a region.
fn touch(ground: &Ground, list: &Sgl<'_>, writable: bool) {
    for part in list.parts() {
        let inside = ground.regions.iter().zip(REGIONS).any(|(region, (guest, _, size))| {
            let base = address(region, guest).addr();
            let start = part.at().addr();
            start >= base && part.len() as u64 <= size && start + part.len() <= base + size as usize
        });
        assert!(inside, "{part:?} lies in no region");
        for at in [part.at(), part.at().wrapping_add(part.len() - 1)] {
            // SAFETY: within a region, as was just seen.
            let byte = unsafe { at.read_volatile() };
            if writable {
                // SAFETY: as above.
                unsafe { at.write_volatile(byte) };
            }
        }
    }
}
