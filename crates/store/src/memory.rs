//! A device in memory of the node, for tests and measurements: sparse, and gone with the process.
//!
//! Memory comes in chunks when they are first written and goes when they are discarded. Chunks lie
//! behind one short lock each, and a request that spans several lets go of a chunk only once it has
//! the next one: overlapping requests cannot pass each other, so an exclusive step is one step
//! against writes of any length, from every core. Everything is answered in place, so a discard of
//! very much keeps its core for as long as it takes to free it.
//!
//! Each handle has its own list of segments, so no request meets a lock that all of them share.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use block::extent::{self, EXTENT_BYTES, Extent, ExtentState};
use block::{
    Asked, Device, Error, ErrorKind, Geometry, Op, OpSet, Outcome, Request, Sgl, Watch, step,
};
use rt::Core;
use rt::handles::{HandleId, Member, each};

use crate::null::check_size;
use crate::{Boxed, Store};

/// What is allocated and locked as one: a few microseconds of copying.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks whose table is made as one.
const SEGMENT_CHUNKS: usize = 4096;
const SEGMENT_BYTES: u64 = (CHUNK_BYTES * SEGMENT_CHUNKS) as u64;
/// Largest device: more could only be a mistake, and its list of segments would be long.
pub const SIZE_MAX: u64 = 64 << 40;
/// Chunks that one status request looks at: a shorter answer than asked for is normal.
const STATUS_LOOKS_MAX: u32 = 4096;
/// Longest exclusive step; the chunks of one are held together.
const EXCLUSIVE_MAX: u32 = 1 << 20;

/// None reads zero.
type Chunk = Mutex<Option<Box<[u8]>>>;

#[derive(Default)]
struct Segment {
    chunks: OnceLock<Box<[Chunk]>>,
}

impl Segment {
    fn made(&self) -> &[Chunk] {
        self.chunks.get_or_init(|| (0..SEGMENT_CHUNKS).map(|_| Chunk::default()).collect())
    }
}

pub struct MemoryStore {
    block_size: u32,
    state: Mutex<State>,
}

struct State {
    size: u64,
    resizing: bool,
    segments: Vec<Arc<Segment>>,
    members: Vec<Member<Memory>>,
}

impl MemoryStore {
    /// The size must be a multiple of the block size, and at most [`SIZE_MAX`].
    pub fn new(size: u64, block_size: u32) -> Result<Arc<Self>, Error> {
        let mut state = State { size, resizing: false, segments: Vec::new(), members: Vec::new() };
        check(size, block_size)?;
        state.lay_out(size);
        Ok(Arc::new(Self { block_size, state: Mutex::new(state) }))
    }

    /// Bytes of memory that hold data now.
    #[cfg(test)]
    fn allocated(&self) -> u64 {
        let segments = self.state().segments.clone();
        let chunks = segments.iter().filter_map(|segment| segment.chunks.get()).flatten();
        chunks.filter(|chunk| lock(chunk).is_some()).count() as u64 * CHUNK_BYTES as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn resize_to(&self, size: u64) -> Result<(), Error> {
        check(size, self.block_size)?;
        let (members, old) = {
            let mut state = self.state();
            if std::mem::replace(&mut state.resizing, true) {
                return Err(Error::new(ErrorKind::Busy).note("another resize is under way"));
            }
            let old = std::mem::replace(&mut state.size, size);
            if size > old {
                state.lay_out(size);
            }
            (state.members.clone(), old)
        };
        each(members, move |device: Rc<Memory>| async move { device.look() }).await;
        if size < old {
            // Every request is over within its `begin`, so nobody is beyond the new end any more.
            let segments = self.state().segments.clone();
            clear(&segments, size, old - size);
            // A later growth must give every handle the same new segments.
            let members = {
                let mut state = self.state();
                state.lay_out(size);
                state.members.clone()
            };
            each(members, move |device: Rc<Memory>| async move { device.look() }).await;
        }
        self.state().resizing = false;
        Ok(())
    }
}

fn check(size: u64, block_size: u32) -> Result<(), Error> {
    check_size(size, block_size)?;
    if size <= SIZE_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid).note(format!("memory devices end at {SIZE_MAX} bytes")))
}

impl State {
    fn lay_out(&mut self, size: u64) {
        self.segments.resize_with(size.div_ceil(SEGMENT_BYTES) as usize, Arc::default);
    }
}

impl Store for MemoryStore {
    fn device(self: Arc<Self>, core: &Core) -> Rc<dyn Device> {
        let id = HandleId::fresh();
        let mut state = self.state();
        let geometry = Geometry {
            discard_granularity: CHUNK_BYTES as u32,
            exclusive_max: EXCLUSIVE_MAX,
            ops: OpSet::COMPARE_AND_WRITE
                | OpSet::OR_WRITE
                | OpSet::DISCARD
                | OpSet::WRITE_ZEROES
                | OpSet::STATUS
                | OpSet::COPY,
            volatile_cache: false,
            ..Geometry::plain(state.size, self.block_size)
        };
        let device = Rc::new(Memory {
            store: self.clone(),
            id,
            geometry: Cell::new(geometry),
            segments: RefCell::new(state.segments.clone()),
            watch: Watch::new(),
        });
        state.members.push(Member::new(core, id, &device));
        drop(state);
        device
    }

    fn size(&self) -> u64 {
        self.state().size
    }

    fn resize<'a>(self: Arc<Self>, core: &'a Core, size: u64) -> Boxed<'a, Result<(), Error>> {
        // A task of its own: it must not stop half-way when nobody waits any more.
        Box::pin(core.spawn_task(async move { self.resize_to(size).await }))
    }
}

struct Memory {
    store: Arc<MemoryStore>,
    id: HandleId,
    geometry: Cell<Geometry>,
    segments: RefCell<Vec<Arc<Segment>>>,
    watch: Watch,
}

impl Memory {
    /// The store has changed.
    fn look(&self) {
        let state = self.store.state();
        self.segments.replace(state.segments.clone());
        self.geometry.set(self.geometry.get().with_size(state.size));
        drop(state);
        self.watch.notify();
    }
}

impl Device for Memory {
    fn geometry(&self) -> Geometry {
        self.geometry.get()
    }

    #[inline]
    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        // Read twice, so that the quick look loads two fields and copies nothing.
        if !self.geometry.get().suits(request)
            && let Err(error) = self.geometry.get().check(request)
        {
            return asked.now(Err(error));
        }
        let segments = self.segments.borrow();
        let &Request { op, offset, len, data } = request;
        let outcome = match op {
            Op::Read => {
                read(&segments, offset, &data);
                Ok(len)
            }
            Op::Write { .. } => write(&segments, offset, &data).map(|()| len),
            Op::CompareAndWrite { .. } | Op::OrWrite { .. } => {
                exclusive_step(&segments, request).map(|()| 0)
            }
            Op::Discard | Op::WriteZeroes { .. } => {
                clear(&segments, offset, len);
                Ok(0)
            }
            Op::Copy { from } => copy(&segments, from, offset, len).map(|()| 0),
            Op::Status => Ok(status(&segments, offset, len, &data)),
            Op::Flush => Ok(0),
        };
        asked.now(outcome)
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.store.state().members.retain(|member| member.id() != self.id);
    }
}

type Held<'a> = MutexGuard<'a, Option<Box<[u8]>>>;

fn lock(chunk: &Chunk) -> Held<'_> {
    // A panic while a chunk was held leaves bytes, and any bytes are valid.
    chunk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chunk's place, what of it belongs to the range, and where that begins in the range.
struct Piece {
    segment: usize,
    chunk: usize,
    within: Range<usize>,
    at: usize,
}

fn pieces(offset: u64, len: u64) -> impl Iterator<Item = Piece> {
    let mut at = 0u64;
    std::iter::from_fn(move || {
        let position = offset + at;
        let start = (position % CHUNK_BYTES as u64) as usize;
        let count = (len - at).min((CHUNK_BYTES - start) as u64) as usize;
        let piece = Piece {
            segment: (position / SEGMENT_BYTES) as usize,
            chunk: (position % SEGMENT_BYTES) as usize / CHUNK_BYTES,
            within: start..start + count,
            at: at as usize,
        };
        at += count as u64;
        (count > 0).then_some(piece)
    })
}

/// Calls `f` with each chunk of the range in order. The next chunk is locked before the last one is
/// let go.
#[inline]
fn walk(
    segments: &[Arc<Segment>],
    offset: u64,
    len: u64,
    mut f: impl FnMut(&mut Option<Box<[u8]>>, Range<usize>, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut held: Option<Held<'_>> = None;
    for Piece { segment, chunk, within, at } in pieces(offset, len) {
        let next = lock(&segments[segment].made()[chunk]);
        // The one before is let go only here.
        f(held.insert(next), within, at)?;
    }
    Ok(())
}

fn read(segments: &[Arc<Segment>], offset: u64, data: &Sgl<'_>) {
    for Piece { segment, chunk, within, at } in pieces(offset, data.len() as u64) {
        let held = segments[segment].chunks.get().map(|chunks| lock(&chunks[chunk]));
        match held.as_ref().and_then(|chunk| chunk.as_ref()) {
            Some(bytes) => data.copy_in(at, &bytes[within]),
            None => data.slice(at, within.len()).fill_zero(),
        }
    }
}

fn write(segments: &[Arc<Segment>], offset: u64, data: &Sgl<'_>) -> Result<(), Error> {
    walk(segments, offset, data.len() as u64, |chunk, within, at| {
        data.copy_out(at, &mut filled(chunk)?[within]);
        Ok(())
    })
}

/// The chunk's memory, made if it has none.
#[inline]
fn filled(chunk: &mut Option<Box<[u8]>>) -> Result<&mut [u8], Error> {
    if chunk.is_none() {
        *chunk = Some(fresh()?);
    }
    Ok(chunk.as_deref_mut().expect("just made"))
}

#[cold]
fn fresh() -> Result<Box<[u8]>, Error> {
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(CHUNK_BYTES)
        .map_err(|_| Error::new(ErrorKind::NoSpace).note("the node has no memory left"))?;
    bytes.resize(CHUNK_BYTES, 0);
    Ok(bytes.into_boxed_slice())
}

fn zero(chunk: &mut Option<Box<[u8]>>, within: Range<usize>) {
    if within.len() == CHUNK_BYTES {
        *chunk = None;
    } else if let Some(bytes) = chunk {
        bytes[within].fill(0);
    }
}

fn clear(segments: &[Arc<Segment>], offset: u64, len: u64) {
    let mut at = offset;
    while at < offset + len {
        let end = (at / SEGMENT_BYTES + 1) * SEGMENT_BYTES;
        let end = end.min(offset + len);
        // A segment that holds nothing is not made for this.
        if let Some(chunks) = segments[(at / SEGMENT_BYTES) as usize].chunks.get() {
            let mut held: Option<Held<'_>> = None;
            for Piece { chunk, within, .. } in pieces(at, end - at) {
                zero(held.insert(lock(&chunks[chunk])), within);
            }
        }
        at = end;
    }
}

/// With every chunk of the range held, from the look to the writing.
fn exclusive_step(segments: &[Arc<Segment>], request: &Request<'_>) -> Result<(), Error> {
    let &Request { op, offset, len, data } = request;
    // Read once: the client may change it at any time.
    let mut bytes = vec![0; data.len()];
    data.copy_out(0, &mut bytes);
    let mut held: Vec<_> = pieces(offset, len)
        .map(|piece| (lock(&segments[piece.segment].made()[piece.chunk]), piece.within, piece.at))
        .collect();
    let mut found = vec![0; len as usize];
    for (chunk, within, at) in &held {
        if let Some(chunk) = chunk.as_ref() {
            found[*at..*at + within.len()].copy_from_slice(&chunk[within.clone()]);
        }
    }
    step::modify(op, &bytes, &mut found)?;
    for (chunk, within, at) in &mut held {
        filled(chunk)?[within.clone()].copy_from_slice(&found[*at..*at + within.len()]);
    }
    Ok(())
}

/// Through a buffer, in an order that suits ranges that overlap.
fn copy(segments: &[Arc<Segment>], from: u64, to: u64, len: u64) -> Result<(), Error> {
    let mut bytes = vec![0u8; len.min(CHUNK_BYTES as u64) as usize];
    let steps = len.div_ceil(CHUNK_BYTES as u64);
    for step in 0..steps {
        let step = if from < to { steps - 1 - step } else { step };
        let at = step * CHUNK_BYTES as u64;
        let count = (len - at).min(CHUNK_BYTES as u64);
        walk(segments, from + at, count, |chunk, within, at| {
            let dest = &mut bytes[at..at + within.len()];
            match chunk {
                Some(source) => dest.copy_from_slice(&source[within]),
                None => dest.fill(0),
            }
            Ok(())
        })?;
        walk(segments, to + at, count, |chunk, within, at| {
            let source = &bytes[at..at + within.len()];
            filled(chunk)?[within].copy_from_slice(source);
            Ok(())
        })?;
    }
    Ok(())
}

fn status(segments: &[Arc<Segment>], offset: u64, len: u64, data: &Sgl<'_>) -> u64 {
    let room = data.len() / EXTENT_BYTES;
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = offset;
    let end = offset + len;
    let mut looks = 0;
    while at < end && looks < STATUS_LOOKS_MAX {
        let (state, until) = state_at(segments, at);
        let len = until.min(end) - at;
        let full = extents.len() == room;
        match extents.last_mut() {
            Some(last) if last.state == state => last.len += len,
            _ if full => break,
            _ => extents.push(Extent { len, state }),
        }
        at += len;
        looks += 1;
    }
    extent::store(&extents, data) as u64
}

/// What lies at this byte, and where something else may begin.
fn state_at(segments: &[Arc<Segment>], at: u64) -> (ExtentState, u64) {
    let Some(chunks) = segments[(at / SEGMENT_BYTES) as usize].chunks.get() else {
        return (ExtentState::Hole, (at / SEGMENT_BYTES + 1) * SEGMENT_BYTES);
    };
    let chunk = &chunks[(at % SEGMENT_BYTES) as usize / CHUNK_BYTES];
    let state = if lock(chunk).is_some() { ExtentState::Data } else { ExtentState::Hole };
    (state, (at / CHUNK_BYTES as u64 + 1) * CHUNK_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::Buffer;
    use rt::Config;

    fn on_a_core<T: 'static, F: Future<Output = T> + 'static>(f: impl FnOnce(Core) -> F) -> T {
        Core::block_on(&Config::new("memory"), f).unwrap()
    }

    #[test]
    fn memory_comes_with_writes_and_goes_with_discards() {
        on_a_core(|core| async move {
            const CHUNK: u64 = CHUNK_BYTES as u64;
            let store = MemoryStore::new(1 << 40, 512).unwrap();
            let device = store.clone().device(&core);
            let buffer = Buffer::from_bytes(&[1; 512]);
            for at in [0, CHUNK - 512, SEGMENT_BYTES, 1 << 39] {
                device.io(&Request::write(at, buffer.sgl())).await.unwrap();
            }
            assert_eq!(store.allocated(), 3 * CHUNK);
            device.io(&Request::read(7 * CHUNK, buffer.sgl())).await.unwrap();
            device.io(&Request::plain(Op::Discard, 0, CHUNK - 512)).await.unwrap();
            assert_eq!(store.allocated(), 3 * CHUNK, "part of a chunk, and reads, change nothing");
            device.io(&Request::plain(Op::Discard, 0, SEGMENT_BYTES + CHUNK)).await.unwrap();
            assert_eq!(store.allocated(), CHUNK);
            store.clone().resize(&core, 1 << 39).await.unwrap();
            assert_eq!(store.allocated(), 0);
        });
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for (size, block_size) in [(1000, 512), (512, 4096), (SIZE_MAX + 512, 512)] {
            let error = MemoryStore::new(size, block_size).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{size}");
        }
    }

    #[test]
    fn a_compare_and_write_across_chunks_never_sees_half_a_write() {
        const ROUNDS: u64 = 20_000;
        const AT: u64 = CHUNK_BYTES as u64 - 512;
        let store = MemoryStore::new(1 << 20, 512).unwrap();
        let other = rt::os::start(Config::new("writer")).unwrap();
        let writing = store.clone();
        let written = other.call(move |core| async move {
            let device = writing.device(&core);
            for round in 0..ROUNDS {
                let bytes = Buffer::from_bytes(&[round as u8; 1024]);
                device.io(&Request::write(AT, bytes.sgl())).await.unwrap();
            }
        });
        on_a_core(|core| async move {
            let device = store.device(&core);
            let op = Op::CompareAndWrite { fua: false };
            for round in 0..ROUNDS {
                // What is there between the halves of a write, and at no other time.
                let (old, new) = ([round as u8; 512], [round.wrapping_add(1) as u8; 512]);
                let pair = Buffer::from_bytes(&[&new[..], &old, &[7; 1024]].concat());
                let request = Request { op, offset: AT, len: 1024, data: pair.sgl() };
                assert!(device.io(&request).await.is_err(), "half a write was seen");
            }
            written.await.unwrap();
        });
        other.send(Core::stop);
    }
}
