//! A toy device on a toy executor. Requests advance block by block in an order that is drawn at
//! random, so that what may happen does happen; each [`Flaw`] breaks one promise.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::super::kit::{Random, yield_now};
use super::super::{Bench, Boxed, Job, Shape, Subject};
use crate::completion::{Asked, Completion, Outcome};
use crate::device::{Device, Geometry, OpSet};
use crate::error::{Error, ErrorKind};
use crate::extent::{self, EXTENT_BYTES, Extent, ExtentState};
use crate::mem::Sgl;
use crate::request::{Op, Request, RequestBuf};
use crate::step;
use crate::watch::Watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    LiesAboutGeometry,
    TakesOneBlockTooMany,
    OverflowsAtTheEnd,
    TakesMisaligned,
    RefusesNothing,
    TakesContradictions,
    SaysInvalidForUnsupported,
    CutsBlockNumbersTo32Bits,
    WritesThoughReadOnly,
    IsBornDirty,
    CountsOneByteLess,
    AnswersReadsEarly,
    AnswersWritesEarly,
    IsBusyWhenManyAsk,
    SeesOnlyTheFirstPart,
    DropsOddBytes,
    CachesOnEachCore,
    ZeroesNothing,
    ZeroesTooMuch,
    DiscardsNothing,
    HidesData,
    SaysTooMuch,
    CopiesNothing,
    Tears,
    DisturbsNeighbours,
    ForgetsFlushes,
    FlushesNothing,
    IgnoresFua,
    TearsAtPowerCut,
    WritesOnMiscompare,
    NamesAnotherByte,
    WritesOverInsteadOfOr,
    OrsBesideCompares,
    ModifiesInTwoSteps,
    ModifiesBesideWrites,
    ModifiesForItsOwnCore,
    LetsGoOfMemory,
    HoldsMemoryForEver,
    ResizesInSilence,
    KeepsWhatWasCutOff,
    ResizesOneCore,
    FailsWhatIsCutOff,
}

/// Most steps of a device between two looks at the test.
const STEPS_MAX: usize = 64;
const BUSY_FROM: usize = 200;

pub struct ToyBench {
    flaw: Option<Flaw>,
    block_sizes: &'static [u32],
    made: RefCell<Vec<Weak<Medium>>>,
}

impl ToyBench {
    pub fn new(flaw: Option<Flaw>, block_sizes: &'static [u32]) -> Self {
        Self { flaw, block_sizes, made: RefCell::default() }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            self.made.borrow_mut().retain(|medium| medium.strong_count() > 0);
            let media: Vec<_> = self.made.borrow().iter().filter_map(Weak::upgrade).collect();
            for medium in media {
                for _ in 0..medium.draw(STEPS_MAX) {
                    medium.step();
                }
            }
        }
    }
}

impl Bench for ToyBench {
    fn make(&self, shape: Shape) -> Boxed<'_, Option<Box<dyn Subject>>> {
        let medium = Rc::new(Medium::new(self.flaw, shape));
        self.made.borrow_mut().push(Rc::downgrade(&medium));
        let handles = [0, 1].map(|core| Rc::new(Handle::new(&medium, core)));
        Box::pin(async { Some(Box::new(Toy { medium, handles }) as Box<dyn Subject>) })
    }

    fn pause(&self) -> Boxed<'_, ()> {
        Box::pin(yield_now())
    }

    fn block_sizes(&self) -> &[u32] {
        self.block_sizes
    }

    fn patience(&self) -> u32 {
        20_000
    }
}

struct Toy {
    medium: Rc<Medium>,
    handles: [Rc<Handle>; 2],
}

impl Subject for Toy {
    fn device(&self) -> Rc<dyn Device> {
        self.handles[0].clone()
    }

    fn elsewhere(&self, job: Job) -> Option<Boxed<'static, ()>> {
        Some(job(self.handles[1].clone()))
    }

    fn resize(&self, size: u64) -> Option<Boxed<'_, Result<(), Error>>> {
        Some(Box::pin(async move {
            self.medium.resize(size);
            for handle in &self.handles {
                if handle.core == 1 && self.medium.has(Flaw::ResizesOneCore) {
                    continue;
                }
                handle.geometry.borrow_mut().size = size;
                if !self.medium.has(Flaw::ResizesInSilence) {
                    handle.watch.notify();
                }
            }
            Ok(())
        }))
    }

    fn power_cut(&self) -> Option<Boxed<'_, ()>> {
        Some(Box::pin(async { self.medium.power_cut() }))
    }
}

type Blocks = BTreeMap<u64, Vec<u8>>;

struct Medium {
    flaw: Option<Flaw>,
    block: u64,
    size: Cell<u64>,
    read_only: bool,
    blocks: RefCell<Blocks>,
    durable: RefCell<Blocks>,
    asked: RefCell<Vec<Pending>>,
    random: RefCell<Random>,
    held: RefCell<Vec<RequestBuf>>,
}

/// A request on its way.
struct Pending {
    request: RequestBuf,
    done: Option<Completion>,
    core: u32,
    /// Steps done.
    phase: u64,
    /// What was read for a write that comes in a later step.
    before: Vec<u8>,
}

enum Step {
    More,
    Done(Outcome),
}

impl Medium {
    fn new(flaw: Option<Flaw>, shape: Shape) -> Self {
        let block = u64::from(shape.block_size);
        let mut blocks = Blocks::new();
        if flaw == Some(Flaw::IsBornDirty) {
            blocks.insert(1, vec![1; block as usize]);
        }
        Self {
            flaw,
            block,
            size: Cell::new(shape.size),
            read_only: shape.read_only,
            blocks: RefCell::new(blocks),
            durable: RefCell::default(),
            asked: RefCell::default(),
            random: RefCell::new(Random::new(11)),
            held: RefCell::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn draw(&self, end: usize) -> usize {
        self.random.borrow_mut().below(end as u64) as usize
    }

    fn load(&self, offset: u64) -> Vec<u8> {
        let at = self.place(offset);
        self.blocks.borrow().get(&at).cloned().unwrap_or_else(|| vec![0; self.block as usize])
    }

    fn store(&self, offset: u64, bytes: Vec<u8>) {
        let zero = bytes.iter().all(|byte| *byte == 0);
        let at = self.place(offset);
        match zero {
            true => self.blocks.borrow_mut().remove(&at),
            false => self.blocks.borrow_mut().insert(at, bytes),
        };
    }

    fn place(&self, offset: u64) -> u64 {
        let at = offset / self.block;
        if self.has(Flaw::CutsBlockNumbersTo32Bits) { u64::from(at as u32) } else { at }
    }

    /// One step of one request, drawn at random.
    fn step(&self) {
        let count = self.asked.borrow().len();
        if count == 0 {
            return;
        }
        let mut index = self.draw(count);
        let mut asked = self.asked.borrow_mut().swap_remove(index);
        if self.must_wait(&asked) {
            self.asked.borrow_mut().push(asked);
            // Whoever is in the way goes on.
            index = self.asked.borrow().iter().position(|other| other.phase > 0).unwrap_or(0);
            asked = self.asked.borrow_mut().swap_remove(index);
        }
        let answers_first = match asked.request.op {
            Op::Read => self.has(Flaw::AnswersReadsEarly),
            Op::Write { .. } => self.has(Flaw::AnswersWritesEarly),
            _ => false,
        };
        if answers_first && let Some(done) = asked.done.take() {
            done.finish(Ok(asked.request.len));
            self.asked.borrow_mut().push(asked);
            return;
        }
        if asked.done.is_none() && self.draw(32) != 0 {
            self.asked.borrow_mut().push(asked);
            return;
        }
        match self.advance(&mut asked) {
            Step::More => {
                asked.phase += 1;
                self.asked.borrow_mut().push(asked);
            }
            Step::Done(outcome) => {
                let Pending { request, done, .. } = asked;
                if self.has(Flaw::HoldsMemoryForEver) {
                    self.held.borrow_mut().push(request);
                }
                if let Some(done) = done {
                    done.finish(outcome);
                }
            }
        }
    }

    /// An exclusive step that is half done holds others back, as far as the flaw lets it.
    fn must_wait(&self, asked: &Pending) -> bool {
        self.asked.borrow().iter().any(|other| {
            let excluded = match self.flaw {
                Some(Flaw::ModifiesBesideWrites) => asked.request.op.is_exclusive(),
                Some(Flaw::ModifiesForItsOwnCore) => other.core == asked.core,
                Some(Flaw::OrsBesideCompares) => {
                    !matches!(asked.request.op, Op::CompareAndWrite { .. })
                }
                _ => false,
            };
            other.request.op.is_exclusive() && other.phase > 0 && excluded
        })
    }

    fn advance(&self, asked: &mut Pending) -> Step {
        let Pending { request, phase, before, core, .. } = asked;
        let request = request.as_request();
        let Request { op, offset, len, data } = request;
        if offset + len > self.size.get() && *phase == 0 && op != Op::Flush {
            // The device has shrunk since.
            let kind = match self.has(Flaw::FailsWhatIsCutOff) {
                true => ErrorKind::Medium,
                false => ErrorKind::OutOfRange,
            };
            let too_many = self.has(Flaw::TakesOneBlockTooMany);
            return if too_many { Step::Done(Ok(0)) } else { Step::Done(Err(kind.into())) };
        }
        let blocks = len / self.block;
        match op {
            Op::Read => {
                self.read(offset, &data, *core);
                let less = u64::from(self.has(Flaw::CountsOneByteLess));
                Step::Done(Ok(len - less.min(len)))
            }
            Op::Write { fua, .. } => {
                if *phase < self.phases_of(blocks) {
                    self.write_step(offset, &data, *phase, before);
                    return Step::More;
                }
                if fua && !self.has(Flaw::IgnoresFua) {
                    self.make_durable(offset / self.block, blocks);
                }
                Step::Done(Ok(len))
            }
            Op::CompareAndWrite { .. } | Op::OrWrite { .. } => {
                self.exclusive_step(&request, *phase, before)
            }
            Op::Discard | Op::WriteZeroes { .. } => {
                self.zero(op, offset, len);
                Step::Done(Ok(0))
            }
            Op::Copy { from } => {
                let bytes: Vec<_> = (0..blocks).map(|n| self.load(from + n * self.block)).collect();
                for (n, bytes) in bytes.into_iter().enumerate() {
                    if !self.has(Flaw::CopiesNothing) {
                        self.store(offset + n as u64 * self.block, bytes);
                    }
                }
                Step::Done(Ok(0))
            }
            Op::Flush if self.has(Flaw::ForgetsFlushes) => Step::More,
            Op::Flush => {
                if !self.has(Flaw::FlushesNothing) {
                    self.make_durable(0, u64::MAX);
                }
                Step::Done(Ok(0))
            }
            Op::Status => Step::Done(Ok(self.status(offset, len, &data))),
        }
    }

    fn read(&self, offset: u64, data: &Sgl<'_>, core: u32) {
        let block = self.block as usize;
        let first_part = data.parts().next().map_or(0, crate::mem::Part::len);
        for at in (0..data.len()).step_by(block) {
            let bytes = self.load(offset + at as u64);
            let stale = core == 1 && self.has(Flaw::CachesOnEachCore);
            let bytes = if stale { vec![0; block] } else { bytes };
            let lone = self.has(Flaw::SeesOnlyTheFirstPart) && at + block > first_part;
            let odd = self.has(Flaw::DropsOddBytes) && data.parts().any(|p| p.len() % 2 == 1);
            match lone || odd {
                true => data.slice(at, block - 1).fill_zero(),
                false => data.copy_in(at, &bytes),
            }
        }
    }

    /// Blocks that a write does in one step.
    const BLOCKS_PER_STEP: u64 = 2;

    fn phases_of(&self, blocks: u64) -> u64 {
        match self.flaw {
            Some(Flaw::Tears | Flaw::DisturbsNeighbours) => 2 * blocks,
            _ => blocks.div_ceil(Self::BLOCKS_PER_STEP),
        }
    }

    fn write_step(&self, offset: u64, data: &Sgl<'_>, phase: u64, before: &mut Vec<u8>) {
        let block = self.block as usize;
        let new = |n: u64| {
            let mut bytes = vec![0; block];
            data.copy_out(n as usize * block, &mut bytes);
            bytes
        };
        match self.flaw {
            Some(Flaw::Tears) => {
                let (at, half) = (offset + phase / 2 * self.block, phase % 2 * self.block / 2);
                let range = half as usize..half as usize + block / 2;
                let mut bytes = self.load(at);
                bytes[range.clone()].copy_from_slice(&new(phase / 2)[range]);
                self.store(at, bytes);
            }
            Some(Flaw::DisturbsNeighbours) => {
                let at = offset + phase / 2 * self.block;
                let neighbour = ((at / self.block) ^ 1) * self.block;
                if phase.is_multiple_of(2) {
                    *before = self.load(neighbour);
                } else {
                    self.store(neighbour, std::mem::take(before));
                    self.store(at, new(phase / 2));
                }
            }
            _ => {
                let first = phase * Self::BLOCKS_PER_STEP;
                let end = (first + Self::BLOCKS_PER_STEP).min(data.len() as u64 / self.block);
                for n in first..end {
                    self.store(offset + n * self.block, new(n));
                }
            }
        }
    }

    /// What is there afterwards is known from the first step on; with a flaw it is written later.
    fn exclusive_step(&self, request: &Request<'_>, phase: u64, after: &mut Vec<u8>) -> Step {
        let &Request { op, offset, len, data } = request;
        let is_or = matches!(op, Op::OrWrite { .. });
        if phase == 0 {
            let mut bytes = vec![0; data.len()];
            data.copy_out(0, &mut bytes);
            *after =
                (0..len / self.block).flat_map(|n| self.load(offset + n * self.block)).collect();
            if is_or && self.has(Flaw::WritesOverInsteadOfOr) {
                after.copy_from_slice(&bytes);
            } else if let Err(error) = step::modify(op, &bytes, after) {
                if self.has(Flaw::WritesOnMiscompare) {
                    self.store_all(offset, &bytes[len as usize..]);
                }
                return Step::Done(Err(self.told(error)));
            }
        }
        let in_two = match self.flaw {
            Some(
                Flaw::ModifiesInTwoSteps | Flaw::ModifiesBesideWrites | Flaw::ModifiesForItsOwnCore,
            ) => true,
            Some(Flaw::OrsBesideCompares) => is_or,
            _ => false,
        };
        if in_two && phase < 3 {
            return Step::More;
        }
        self.store_all(offset, after);
        Step::Done(Ok(0))
    }

    fn store_all(&self, offset: u64, bytes: &[u8]) {
        for (n, bytes) in bytes.chunks(self.block as usize).enumerate() {
            self.store(offset + n as u64 * self.block, bytes.to_vec());
        }
    }

    fn told(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Miscompare { at } if self.has(Flaw::NamesAnotherByte) => {
                ErrorKind::Miscompare { at: at + 1 }.into()
            }
            _ => error,
        }
    }

    fn zero(&self, op: Op, offset: u64, len: u64) {
        let nothing = match op {
            Op::Discard => self.has(Flaw::DiscardsNothing),
            _ => self.has(Flaw::ZeroesNothing),
        };
        if nothing {
            return;
        }
        let too_much = u64::from(self.has(Flaw::ZeroesTooMuch));
        let (first, end) = (offset / self.block, (offset + len) / self.block + too_much);
        let gone: Vec<u64> = self.blocks.borrow().range(first..end).map(|(at, _)| *at).collect();
        for at in gone {
            self.blocks.borrow_mut().remove(&at);
        }
    }

    fn make_durable(&self, first: u64, count: u64) {
        let range = first..first.saturating_add(count);
        let mut durable = self.durable.borrow_mut();
        durable.retain(|at, _| !range.contains(at));
        durable.extend(self.blocks.borrow().range(range).map(|(at, bytes)| (*at, bytes.clone())));
    }

    fn status(&self, offset: u64, len: u64, data: &Sgl<'_>) -> u64 {
        let mut extents: Vec<Extent> = Vec::new();
        for at in (offset..offset + len).step_by(self.block as usize) {
            let held = self.blocks.borrow().contains_key(&(at / self.block));
            let says = held && !self.has(Flaw::HidesData);
            let state = if says { ExtentState::Data } else { ExtentState::Hole };
            match extents.last_mut() {
                Some(last) if last.state == state => last.len += self.block,
                _ => extents.push(Extent { len: self.block, state }),
            }
        }
        if let Some(last) = extents.last_mut().filter(|_| self.has(Flaw::SaysTooMuch)) {
            last.len += self.block;
        }
        debug_assert!(data.len() >= EXTENT_BYTES || len == 0);
        extent::store(&extents, data) as u64
    }

    fn resize(&self, size: u64) {
        let old = self.size.replace(size);
        if size < old && !self.has(Flaw::KeepsWhatWasCutOff) {
            self.blocks.borrow_mut().retain(|at, _| at * self.block < size);
        }
    }

    /// Of what is not durable, each block is there or not.
    fn power_cut(&self) {
        assert!(self.asked.borrow().is_empty(), "a cut with requests in flight is not tried");
        let live = self.blocks.take();
        let mut after = self.durable.borrow().clone();
        for (at, mut bytes) in live {
            if self.draw(2) == 0 {
                continue;
            }
            if self.has(Flaw::TearsAtPowerCut) {
                bytes[self.block as usize / 2..].fill(0);
            }
            after.insert(at, bytes);
        }
        *self.durable.borrow_mut() = after.clone();
        *self.blocks.borrow_mut() = after;
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        // Of a test that gave up.
        for asked in self.asked.take() {
            if let Some(done) = asked.done {
                done.finish(Err(ErrorKind::Aborted.into()));
            }
        }
    }
}

struct Handle {
    medium: Rc<Medium>,
    core: u32,
    geometry: RefCell<Geometry>,
    watch: Watch,
}

impl Handle {
    fn new(medium: &Rc<Medium>, core: u32) -> Self {
        let block_size = medium.block as u32;
        let mut geometry = Geometry {
            exclusive_max: 32 * block_size,
            ops: OpSet::COMPARE_AND_WRITE
                | OpSet::OR_WRITE
                | OpSet::DISCARD
                | OpSet::WRITE_ZEROES
                | OpSet::STATUS
                | OpSet::COPY,
            read_only: medium.read_only,
            ..Geometry::plain(medium.size.get(), block_size)
        };
        if medium.has(Flaw::LiesAboutGeometry) {
            geometry.physical_block_size = 3;
        }
        Self { medium: medium.clone(), core, geometry: RefCell::new(geometry), watch: Watch::new() }
    }

    /// What the device checks, less what its flaw forgets.
    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let mut geometry = *self.geometry.borrow();
        let mut request = *request;
        let block = self.medium.block;
        match self.medium.flaw {
            Some(Flaw::TakesOneBlockTooMany) => geometry.size += block,
            Some(Flaw::OverflowsAtTheEnd) if request.offset.checked_add(request.len).is_none() => {
                request.offset = 0;
                request.len = block;
            }
            Some(Flaw::WritesThoughReadOnly) => geometry.read_only = false,
            Some(Flaw::RefusesNothing) if request.len == 0 && request.op != Op::Flush => {
                return Err(ErrorKind::Invalid.into());
            }
            Some(Flaw::SaysInvalidForUnsupported)
                if !geometry.ops.contains(OpSet::needed_by(request.op)) =>
            {
                return Err(ErrorKind::Invalid.into());
            }
            Some(Flaw::IsBusyWhenManyAsk) if self.medium.asked.borrow().len() > BUSY_FROM => {
                return Err(ErrorKind::Busy.into());
            }
            _ => {}
        }
        geometry.check(&request)
    }

    /// Requests that a flaw takes though they are wrong: answered, but not done.
    fn waves_through(&self, kind: ErrorKind) -> bool {
        match self.medium.flaw {
            Some(Flaw::TakesMisaligned) => kind == ErrorKind::Misaligned,
            Some(Flaw::TakesContradictions) => kind == ErrorKind::Invalid,
            _ => false,
        }
    }
}

impl Device for Handle {
    fn geometry(&self) -> Geometry {
        *self.geometry.borrow()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<Outcome> {
        if let Err(error) = self.check(request) {
            let fine = self.waves_through(error.kind());
            return asked.now(if fine { Ok(request.len) } else { Err(error) });
        }
        let mut request = request.to_buf();
        if request.offset.checked_add(request.len).is_none() {
            return asked.now(Ok(request.len));
        }
        if self.medium.has(Flaw::LetsGoOfMemory) {
            request.data.forget_pin();
        }
        let core = self.core;
        let done = Some(asked.later());
        let pending = Pending { request, done, core, phase: 0, before: Vec::new() };
        self.medium.asked.borrow_mut().push(pending);
        None
    }

    fn watch(&self) -> &Watch {
        &self.watch
    }
}
