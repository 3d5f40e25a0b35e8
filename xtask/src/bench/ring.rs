//! Ring access alone: requests of three descriptors, taken and answered, against `virtio-queue`.
//!
//! The driver stands in the same thread and is the same for both sides: it offers a batch, lets the
//! device side take, look at and answer every request of it, and checks what came back. A request
//! is what a disk's is: a header of 16 bytes, one page of data, a status byte. The device side
//! reads the header, finds the data, writes the status. Client memory has two regions, as a real
//! front end's has at least: the ring lies in one, the buffers in the other.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::Args;
use front::vhost_user::ring::{Buffers, Memory, Placement, Region, Split, View};
use proto::vhost_user::{MemoryRegion, RingAddresses};
use rt::os::memory::{Mapping, anonymous_file};
use serde::Serialize;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend,
    GuestMemoryMmap,
};

use crate::numbers::{Summary, columns, short};
use crate::report::Report;
use crate::{Result, callgrind, cpu};

const RING_SIZE: u16 = 256;
const DESCRIPTORS: u16 = 3;
const PAGE: u64 = 4096;
/// Requests that the descriptor table holds, each at its place for good.
const SLOTS: u16 = RING_SIZE / DESCRIPTORS;

/// Where things lie, in guest memory.
const RING_AT: u64 = 0x10_0000;
const RING_REGION_BYTES: u64 = 4 * PAGE;
const AVAIL_OFFSET: u64 = PAGE;
const USED_OFFSET: u64 = 2 * PAGE;
const DATA_AT: u64 = 0x1_0000_0000;
const DATA_REGION_BYTES: u64 = 1 << 20;
/// Each request has a page of data and, behind all of them, its header and status.
const HEADERS_OFFSET: u64 = SLOTS as u64 * PAGE;
const HEADER_STRIDE: u64 = 64;

const DESC_NEXT: u16 = 1;
const DESC_WRITE: u16 = 2;

const PASSES: usize = 10;
/// In each pass; 200 in all.
const STRETCHES: usize = 20;
const STRETCH_REQUESTS: u64 = 32_000;
const CALLGRIND_REQUESTS: u64 = 32_000;
const EXCESS_MAX: f64 = 0.15;

#[derive(Args)]
pub struct Arguments {
    /// Run on this CPU; the last one if not given
    #[arg(long)]
    cpu: Option<usize>,
    /// Do not count instructions
    #[arg(long)]
    no_instructions: bool,
    /// Only this case, by its number, once: for profilers
    #[arg(long, requires = "requests")]
    case: Option<usize>,
    #[arg(long)]
    requests: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Peer,
}

struct Case {
    side: Side,
    batch: u16,
}

const CASES: [Case; 4] = [
    Case { side: Side::Ours, batch: 32 },
    Case { side: Side::Peer, batch: 32 },
    Case { side: Side::Ours, batch: 1 },
    Case { side: Side::Peer, batch: 1 },
];

#[derive(Serialize)]
struct Figure {
    side: &'static str,
    batch: u16,
    ns_per_request: Summary,
    instructions_per_request: Option<f64>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    cpu::pin_or_last(arguments.cpu)?;
    if let (Some(case), Some(requests)) = (arguments.case, arguments.requests) {
        let case = CASES.get(case).ok_or("no such case")?;
        return measure(case, 0, requests).map(drop);
    }
    let mut times: Vec<Vec<f64>> = CASES.iter().map(|_| Vec::new()).collect();
    for _ in 0..PASSES {
        for (case, times) in CASES.iter().zip(&mut times) {
            times.extend(measure(case, STRETCHES, STRETCH_REQUESTS)?);
        }
    }
    let mut figures = Vec::new();
    for (index, (case, times)) in CASES.iter().zip(&times).enumerate() {
        let case_name = index.to_string();
        let words = ["ring", "--case", &case_name, "--requests"];
        let counted = !arguments.no_instructions;
        figures.push(Figure {
            side: case.side.name(),
            batch: case.batch,
            ns_per_request: Summary::of(times),
            instructions_per_request: counted
                .then(|| callgrind::per_request(&words, CALLGRIND_REQUESTS))
                .transpose()?,
        });
    }
    print(&figures);
    let ratio = figures[0].ns_per_request.lowest / figures[1].ns_per_request.lowest;
    let doubts = figures[..2].iter().filter(|figure| figure.ns_per_request.excess() > EXCESS_MAX);
    let doubts = doubts.map(|figure| {
        let percent = figure.ns_per_request.excess() * 100.0;
        format!("{}: median {percent:.0} % above the lowest", figure.side)
    });
    let doubts = doubts.collect();
    let mut report = Report::new("ring", figures);
    report.judge("ring-batch-32", ratio, doubts);
    report.finish()
}

fn print(figures: &[Figure]) {
    let heads = ["", "batch", "ns, lowest", "median", "instructions"];
    let mut lines = vec![heads.map(str::to_owned).to_vec()];
    for figure in figures {
        lines.push(vec![
            figure.side.to_owned(),
            figure.batch.to_string(),
            short(figure.ns_per_request.lowest),
            short(figure.ns_per_request.median),
            figure.instructions_per_request.map_or("-".to_owned(), short),
        ]);
    }
    print!("{}", columns(&lines));
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Peer => "virtio-queue",
        }
    }
}

/// Nanoseconds per request of each stretch, after one that warms up.
fn measure(case: &Case, stretches: usize, requests: u64) -> Result<Vec<f64>> {
    let files = [RING_REGION_BYTES, DATA_REGION_BYTES].map(|len| anonymous_file(c"ring", len));
    let [ring, data] = files;
    let files = [ring?, data?];
    let mut driver = Driver::new(&files)?;
    match case.side {
        Side::Ours => {
            let mut device = Ours::new(&files)?;
            Ok(stretches_of(&mut driver, case.batch, stretches, requests, |_| device.turn()))
        }
        Side::Peer => {
            let mut device = Peer::new(&files)?;
            Ok(stretches_of(&mut driver, case.batch, stretches, requests, |_| device.turn()))
        }
    }
}

fn stretches_of(
    driver: &mut Driver,
    batch: u16,
    stretches: usize,
    requests: u64,
    mut turn: impl FnMut(u16) -> bool,
) -> Vec<f64> {
    let mut times = Vec::with_capacity(stretches);
    for stretch in 0..=stretches {
        let begin = Instant::now();
        let mut left = requests;
        while left > 0 {
            driver.offer(batch);
            assert!(turn(batch), "this driver always wants to be notified");
            driver.collect(batch);
            left = left.saturating_sub(u64::from(batch));
        }
        if stretch > 0 {
            times.push(begin.elapsed().as_nanos() as f64 / requests as f64);
        }
    }
    times
}

/// The client's side of the ring.
struct Driver {
    ring: Mapping,
    data: Mapping,
    avail: u16,
    used: u16,
}

impl Driver {
    fn new(files: &[OwnedFd; 2]) -> Result<Self> {
        let ring = Mapping::shared(files[0].as_fd(), 0, RING_REGION_BYTES as usize)?;
        let data = Mapping::shared(files[1].as_fd(), 0, DATA_REGION_BYTES as usize)?;
        for slot in 0..SLOTS {
            let head = slot * DESCRIPTORS;
            let header = DATA_AT + HEADERS_OFFSET + u64::from(slot) * HEADER_STRIDE;
            let page = DATA_AT + u64::from(slot) * PAGE;
            let descriptors = [
                (header, 16u32, DESC_NEXT, head + 1),
                (page, PAGE as u32, DESC_NEXT | DESC_WRITE, head + 2),
                (header + 16, 1, DESC_WRITE, 0),
            ];
            for (index, (address, len, flags, next)) in descriptors.into_iter().enumerate() {
                let mut bytes = [0u8; 16];
                bytes[..8].copy_from_slice(&address.to_le_bytes());
                bytes[8..12].copy_from_slice(&len.to_le_bytes());
                bytes[12..14].copy_from_slice(&flags.to_le_bytes());
                bytes[14..].copy_from_slice(&next.to_le_bytes());
                let at = ring.at().wrapping_add((usize::from(head) + index) * bytes.len());
                // SAFETY: the table of 256 descriptors lies in the first page of the mapping.
                unsafe { at.cast::<[u8; 16]>().write_volatile(bytes) };
            }
        }
        Ok(Self { ring, data, avail: 0, used: 0 })
    }

    fn u16_at(&self, offset: u64) -> &AtomicU16 {
        assert!(offset.is_multiple_of(2) && offset + 2 <= RING_REGION_BYTES);
        // SAFETY: within the mapping and aligned, as just checked.
        unsafe { AtomicU16::from_ptr(self.ring.at().wrapping_add(offset as usize).cast()) }
    }

    fn used_id(&self, entry: u16) -> &AtomicU32 {
        let offset = USED_OFFSET + 4 + 8 * u64::from(entry % RING_SIZE);
        // SAFETY: the used ring of 256 entries lies in the third page; entries are aligned.
        unsafe { AtomicU32::from_ptr(self.ring.at().wrapping_add(offset as usize).cast()) }
    }

    fn status(&self, slot: u16) -> *mut u8 {
        let offset = HEADERS_OFFSET + u64::from(slot) * HEADER_STRIDE + 16;
        self.data.at().wrapping_add(offset as usize)
    }

    /// Offers requests and asks to be told of the first answer.
    fn offer(&mut self, batch: u16) {
        for _ in 0..batch {
            let entry = AVAIL_OFFSET + 4 + 2 * u64::from(self.avail % RING_SIZE);
            let slot = self.avail % SLOTS_IN_TURN;
            // SAFETY: the status byte of a slot lies within the mapping.
            unsafe { self.status(slot).write_volatile(0xff) };
            self.u16_at(entry).store(slot * DESCRIPTORS, Ordering::Relaxed);
            self.avail = self.avail.wrapping_add(1);
        }
        let event = AVAIL_OFFSET + 4 + 2 * u64::from(RING_SIZE);
        self.u16_at(event).store(self.used, Ordering::Relaxed);
        self.u16_at(AVAIL_OFFSET + 2).store(self.avail, Ordering::SeqCst);
    }

    /// Takes the answers of a batch.
    fn collect(&mut self, batch: u16) {
        let used = self.u16_at(USED_OFFSET + 2).load(Ordering::Acquire);
        assert_eq!(used.wrapping_sub(self.used), batch, "every request is answered");
        for _ in 0..batch {
            let head = self.used_id(self.used).load(Ordering::Relaxed) as u16;
            // SAFETY: the status byte of a slot lies within the mapping.
            let status = unsafe { self.status(head / DESCRIPTORS).read_volatile() };
            assert_eq!((head, status), (self.used % SLOTS_IN_TURN * DESCRIPTORS, 0));
            self.used = self.used.wrapping_add(1);
        }
    }
}

/// The slots that are used in turn: a power of two, so that their order survives the wrap of the
/// indices.
const SLOTS_IN_TURN: u16 = 64;

/// Our device side.
struct Ours {
    ring: Split,
    buffers: Buffers,
}

impl Ours {
    fn new(files: &[OwnedFd; 2]) -> Result<Self> {
        let region = |guest_address, size| MemoryRegion {
            guest_address,
            size,
            user_address: guest_address,
            mmap_offset: 0,
        };
        let regions = vec![
            Arc::new(Region::map(&region(RING_AT, RING_REGION_BYTES), &files[0])?),
            Arc::new(Region::map(&region(DATA_AT, DATA_REGION_BYTES), &files[1])?),
        ];
        let view = View::new(Arc::new(Memory::new(regions, None)));
        let addresses = RingAddresses {
            descriptor: RING_AT,
            available: RING_AT + AVAIL_OFFSET,
            used: RING_AT + USED_OFFSET,
            log: None,
        };
        let placement = Placement {
            size: RING_SIZE,
            addresses,
            event_idx: true,
            indirect: true,
            logging: false,
        };
        let ring = Split::new(view.clone(), placement, 0).map_err(|error| error.to_string())?;
        Ok(Self { ring, buffers: Buffers::new(view) })
    }

    /// True: the driver wants to be notified.
    fn turn(&mut self) -> bool {
        while let Some(chain) = self.ring.take(&mut self.buffers).expect("a valid ring") {
            let header = self.buffers.header().expect("a header");
            let spot = self.buffers.last_byte().expect("a status byte");
            let data = self.buffers.writable().slice(0, PAGE as usize);
            std::hint::black_box((header, data.single()));
            spot.write(0);
            self.ring.answer(chain.head, chain.writable_bytes);
        }
        self.ring.publish()
    }
}

/// The device side on the crates, as their users do it: the queue with its memory behind a mutex,
/// the available requests taken at once, each answer given by itself.
struct Peer {
    vring: Mutex<Vring>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    taken: Vec<virtio_queue::DescriptorChain<Guard>>,
}

type Guard = vm_memory::GuestMemoryLoadGuard<GuestMemoryMmap>;

struct Vring {
    queue: Queue,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
}

impl Peer {
    fn new(files: &[OwnedFd; 2]) -> Result<Self> {
        let file = |index: usize| -> Result<FileOffset> {
            Ok(FileOffset::new(files[index].try_clone()?.into(), 0))
        };
        let ranges = [
            (GuestAddress(RING_AT), RING_REGION_BYTES as usize, Some(file(0)?)),
            (GuestAddress(DATA_AT), DATA_REGION_BYTES as usize, Some(file(1)?)),
        ];
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::from_ranges_with_files(ranges)?);
        let mut queue = Queue::new(RING_SIZE)?;
        queue.try_set_desc_table_address(GuestAddress(RING_AT))?;
        queue.try_set_avail_ring_address(GuestAddress(RING_AT + AVAIL_OFFSET))?;
        queue.try_set_used_ring_address(GuestAddress(RING_AT + USED_OFFSET))?;
        queue.set_event_idx(true);
        queue.set_ready(true);
        let vring = Mutex::new(Vring { queue, memory: memory.clone() });
        Ok(Self { vring, memory, taken: Vec::new() })
    }

    fn vring(vring: &Mutex<Vring>) -> MutexGuard<'_, Vring> {
        vring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&mut self) -> bool {
        let memory = self.memory.memory();
        let mut vring = Self::vring(&self.vring);
        self.taken.extend(vring.queue.iter(memory.clone()).expect("a valid ring"));
        drop(vring);
        for chain in self.taken.drain(..) {
            let head = chain.head_index();
            let mut written = 0;
            let mut status = None;
            for descriptor in chain {
                if !descriptor.is_write_only() {
                    let header: [u8; 16] = memory.read_obj(descriptor.addr()).expect("a header");
                    std::hint::black_box(header);
                    continue;
                }
                written += descriptor.len();
                let len = descriptor.len() as usize;
                let slice = memory.get_slice(descriptor.addr(), len).expect("in memory");
                std::hint::black_box(slice.ptr_guard_mut().as_ptr());
                status = Some(descriptor.addr());
            }
            memory.write_obj(0u8, status.expect("a status byte")).expect("in memory");
            let mut vring = Self::vring(&self.vring);
            let guard = vring.memory.memory();
            vring.queue.add_used(&*guard, head, written).expect("a valid ring");
        }
        let mut vring = Self::vring(&self.vring);
        let guard = vring.memory.memory();
        vring.queue.needs_notification(&*guard).expect("a valid ring")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_answer_what_the_driver_offers() {
        for case in &CASES {
            let times = measure(case, 2, 4 * u64::from(RING_SIZE)).unwrap();
            assert_eq!(times.len(), 2);
        }
    }
}
