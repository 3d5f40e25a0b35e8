//! What the tests of the suite are made of: requests that answer with bytes, patterns, and a few
//! futures that need no executor.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Waker};

use super::{Bench, Boxed, Shape, Subject};
use crate::completion::Outcome;
use crate::device::{Device, Keeps, OpSet};
use crate::error::ErrorKind;
use crate::mem::Buffer;
use crate::request::{Op, Request};

/// Why a test did not pass.
#[derive(Debug)]
pub(super) enum End {
    Failed(String),
    Skipped(&'static str),
}

pub(super) type Verdict = Result<(), End>;

/// Fails the test with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(crate::conformance::kit::End::Failed(format!($($message)+)));
        }
    };
}
pub(super) use ensure;

pub(super) fn ensure_eq<T: PartialEq + Debug>(found: T, wanted: T, what: &str) -> Verdict {
    ensure!(found == wanted, "{what}: {found:?}, not {wanted:?}");
    Ok(())
}

/// Compares bytes and names the first that differs.
pub(super) fn ensure_bytes(found: &[u8], wanted: &[u8], what: &str) -> Verdict {
    ensure_eq(found.len(), wanted.len(), what)?;
    if found == wanted {
        return Ok(());
    }
    if let Some(at) = found.iter().zip(wanted).position(|(a, b)| a != b) {
        ensure!(false, "{what}: byte {at} is {:#x}, not {:#x}", found[at], wanted[at]);
    }
    Ok(())
}

/// What a test is given.
pub(super) struct Context<'a> {
    pub(super) bench: &'a dyn Bench,
    pub(super) block_size: u32,
}

impl Context<'_> {
    /// A fresh LU of so many blocks.
    pub(super) async fn make(&self, blocks: u64) -> Result<Lu, End> {
        self.shaped(blocks, false).await
    }

    /// The same, of a device that keeps data.
    pub(super) async fn make_kept(&self, blocks: u64) -> Result<Lu, End> {
        let lu = self.make(blocks).await?;
        if lu.device.geometry().keeps == Keeps::Nothing {
            return Err(End::Skipped("keeps nothing"));
        }
        Ok(lu)
    }

    /// The same, of a device that also offers these operations.
    pub(super) async fn make_with(&self, blocks: u64, ops: OpSet) -> Result<Lu, End> {
        let lu = self.make_kept(blocks).await?;
        if !lu.device.geometry().ops.contains(ops) {
            return Err(End::Skipped("operation not offered"));
        }
        Ok(lu)
    }

    pub(super) async fn shaped(&self, blocks: u64, read_only: bool) -> Result<Lu, End> {
        let block = u64::from(self.block_size);
        let shape = Shape { size: blocks * block, block_size: self.block_size, read_only };
        let subject =
            self.bench.make(shape).await.ok_or(End::Skipped("cannot be made in this shape"))?;
        let device = subject.device();
        Ok(Lu { subject, device, block })
    }

    pub(super) fn pause(&self) -> Boxed<'_, ()> {
        self.bench.pause()
    }
}

/// An LU and a handle of it.
pub(super) struct Lu {
    pub(super) subject: Box<dyn Subject>,
    pub(super) device: Rc<dyn Device>,
    /// Bytes of a block.
    pub(super) block: u64,
}

impl Lu {
    pub(super) fn offers(&self, ops: OpSet) -> bool {
        self.device.geometry().ops.contains(ops)
    }

    pub(super) async fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, End> {
        read(&*self.device, offset, len).await
    }

    pub(super) async fn write(&self, offset: u64, bytes: &[u8]) -> Verdict {
        write(&*self.device, offset, bytes).await
    }

    /// An operation without data that must succeed.
    pub(super) async fn ask(&self, op: Op, offset: u64, len: u64) -> Verdict {
        ask(&*self.device, op, offset, len).await
    }
}

/// Reads into memory that was full of something else.
pub(super) async fn read(device: &dyn Device, offset: u64, len: u64) -> Result<Vec<u8>, End> {
    let buffer = Buffer::from_bytes(&vec![0xa5; len as usize]);
    let outcome = device.io(&Request::read(offset, buffer.sgl())).await;
    ensure_eq(outcome, Ok(len), &format!("read of {len} at {offset}"))?;
    Ok(buffer.to_vec())
}

pub(super) async fn write(device: &dyn Device, offset: u64, bytes: &[u8]) -> Verdict {
    write_as(device, Op::Write { fua: false, atomic: false }, offset, bytes).await
}

pub(super) async fn write_as(device: &dyn Device, op: Op, offset: u64, bytes: &[u8]) -> Verdict {
    let buffer = Buffer::from_bytes(bytes);
    let request = Request { op, ..Request::write(offset, buffer.sgl()) };
    let outcome = device.io(&request).await;
    let len = bytes.len() as u64;
    ensure_eq(outcome, Ok(len), &format!("write of {len} at {offset}"))
}

pub(super) async fn ask(device: &dyn Device, op: Op, offset: u64, len: u64) -> Verdict {
    let outcome = device.io(&Request::plain(op, offset, len)).await;
    ensure_eq(outcome, Ok(0), &format!("{} of {len} at {offset}", op.name()))
}

/// An or-write that must succeed.
pub(super) async fn or_write(device: &dyn Device, offset: u64, bytes: &[u8]) -> Verdict {
    let (buffer, op) = (Buffer::from_bytes(bytes), Op::OrWrite { fua: false });
    let len = bytes.len() as u64;
    let outcome = device.io(&Request { op, offset, len, data: buffer.sgl() }).await;
    ensure_eq(outcome, Ok(0), &format!("or-write of {len} at {offset}"))
}

/// Compares and writes; the outcome is the device's.
pub(super) async fn compare(
    device: &dyn Device,
    offset: u64,
    expected: &[u8],
    new: &[u8],
) -> Outcome {
    let buffer = Buffer::from_bytes(&[expected, new].concat());
    let op = Op::CompareAndWrite { fua: false };
    let len = expected.len() as u64;
    device.io(&Request { op, offset, len, data: buffer.sgl() }).await
}

pub(super) fn kind(outcome: &Outcome) -> Option<ErrorKind> {
    outcome.as_ref().err().map(crate::error::Error::kind)
}

/// One way that a request of this kind ends, with data as long as it must be.
pub(super) async fn outcome_of(device: &dyn Device, op: Op, offset: u64, len: u64) -> Outcome {
    let bytes = op.data_bytes(len).unwrap_or(64);
    let buffer = Buffer::zeroed(bytes as usize);
    device.io(&Request { op, offset, len, data: buffer.sgl() }).await
}

/// Pseudo-random numbers, the same in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which is not zero.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
        bytes
    }
}

/// Bytes that say the same number in every word.
pub(super) fn stamped(number: u64, len: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(len as usize / 8)
}

/// The number that every word of the bytes says, if all say the same.
pub(super) fn stamp_of(bytes: &[u8]) -> Option<u64> {
    let first = *bytes.first_chunk::<8>()?;
    bytes.chunks(8).all(|word| word == first).then(|| u64::from_le_bytes(first))
}

/// Runs all of them together, polling each in turn.
pub(super) async fn together<T>(mut all: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut ended: Vec<Option<T>> = all.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, end) in all.iter_mut().zip(&mut ended) {
            if end.is_some() {
                continue;
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(value) => *end = Some(value),
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    ended.into_iter().flatten().collect()
}

/// All must pass.
pub(super) async fn all(tests: Vec<Boxed<'_, Verdict>>) -> Verdict {
    together(tests).await.into_iter().collect()
}

/// Lets others go on, for loops over requests that may be answered in place.
pub(super) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets others go on for a moment of random length, so that two loops do not fall into step.
pub(super) async fn linger(random: &mut Random) {
    for _ in 0..random.below(4) {
        yield_now().await;
    }
}

/// Polls once and drops. True: it had ended.
pub(super) fn poll_and_drop<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut cx = TaskContext::from_waker(Waker::noop());
    match pin!(future).poll(&mut cx) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Runs a part of the test on another core, with that core's handle; the verdict comes back.
pub(super) fn elsewhere<F>(
    lu: &Lu,
    part: impl FnOnce(Rc<dyn Device>) -> F + Send + 'static,
) -> Result<Boxed<'static, Verdict>, End>
where
    F: Future<Output = Verdict> + 'static,
{
    let verdict = Arc::new(Mutex::new(None));
    let out = verdict.clone();
    let job = Box::new(move |device| -> Boxed<'static, ()> {
        let part = part(device);
        Box::pin(async move {
            let end = part.await;
            *out.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        })
    });
    let running = lu.subject.elsewhere(job).ok_or(End::Skipped("has no other core"))?;
    Ok(Box::pin(async move {
        running.await;
        let end = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        end.unwrap_or_else(|| Err(End::Failed("the other core did not end its part".to_owned())))
    }))
}
