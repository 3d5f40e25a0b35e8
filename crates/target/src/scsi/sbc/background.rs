//! What an LU does by itself for a while: erasing and overwriting all of its medium. It begins as a
//! command and goes on without it: neither an abort nor a reset ends it (SBC-3 4.11.2, 4.12).

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use block::{Buffer, Device, Error, Op, OpSet, Request};

use super::super::answer::Answer;
use super::super::context::Context;
use super::same::filled;
use crate::lun::operation::{Job, OperationKind};
use crate::lun::{Change, Handle, OperationChange};

/// What is to begin.
pub struct Begin {
    pub kind: OperationKind,
    pub job: Job,
    pub may_exit: bool,
}

/// Bytes that are erased at a time.
const ERASE_BYTES: u64 = 64 << 20;

/// Begins an operation, and waits for its end unless the client does not want to.
pub async fn run(
    context: &Context<'_>,
    Begin { kind, job, may_exit }: Begin,
    immediately: bool,
) -> Result<(), Answer> {
    let job = Arc::new(job);
    let begin = OperationChange::Begin { kind, job: job.clone(), may_exit };
    context.change(Change::Operation(begin)).await?;
    let ended = Rc::new(Ended::default());
    let (handle, end) = (context.unit.handle.clone(), ended.clone());
    context.nexus.env().spawn(Box::pin(async move {
        end.tell(to_its_end(&handle, &job).await);
    }));
    if immediately {
        return Ok(());
    }
    let mut aborted = pin!(context.entered.until_aborted());
    poll_fn(|cx| {
        if let Poll::Ready(how) = aborted.as_mut().poll(cx) {
            return Poll::Ready(Err(Answer::aborted(how)));
        }
        let failed = |error: Error| Answer::of_error(&error, true);
        ended.poll(cx.waker()).map(|outcome| outcome.map_err(failed))
    })
    .await
}

/// Takes up what was under way when a process ended: from its beginning, because how far it was is
/// not known. Whoever restores the state of an LU calls it once every handle is there; it does
/// nothing when nothing was under way.
pub async fn resume(handle: &Rc<Handle>) {
    let view = handle.view();
    if let Some(operation) = view.operation.as_ref().filter(|operation| operation.is_running()) {
        // Who began it has been told, or is not there any more.
        let _ = to_its_end(handle, &operation.job).await;
    }
}

async fn to_its_end(handle: &Rc<Handle>, job: &Job) -> Result<(), Error> {
    let outcome = work(handle, job).await;
    let change = OperationChange::End { failed: outcome.is_err() };
    // An owner that cannot be reached now has stored that the operation was under way.
    let _ = handle.change(Change::Operation(change)).await;
    outcome
}

/// How an operation has ended, for the task that waits for it. If the core ends first, nobody is
/// told, and nobody is there to be.
#[derive(Default)]
struct Ended {
    outcome: RefCell<Option<Result<(), Error>>>,
    waker: RefCell<Option<Waker>>,
}

impl Ended {
    fn tell(&self, outcome: Result<(), Error>) {
        self.outcome.replace(Some(outcome));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, waker: &Waker) -> Poll<Result<(), Error>> {
        if let Some(outcome) = self.outcome.take() {
            return Poll::Ready(outcome);
        }
        self.waker.replace(Some(waker.clone()));
        Poll::Pending
    }
}

async fn work(handle: &Rc<Handle>, job: &Job) -> Result<(), Error> {
    let device: &dyn Device = &**handle.device();
    match job {
        Job::Erase => erase(handle, device).await?,
        Job::Overwrite { block, passes, invert } => {
            let (mut block, passes) = (block.clone(), *passes);
            for pass in 0..passes {
                if *invert && pass > 0 {
                    block.iter_mut().for_each(|byte| *byte = !*byte);
                }
                let size = device.geometry().size;
                let buffer = filled(&block, size);
                overwrite(handle, device, &buffer, (pass, passes)).await?;
            }
        }
    }
    device.io(&Request::flush()).await.map(drop)
}

async fn erase(handle: &Handle, device: &dyn Device) -> Result<(), Error> {
    let geometry = device.geometry();
    let op = if geometry.ops.contains(OpSet::WRITE_ZEROES) {
        Op::WriteZeroes { unmap: true, fua: false }
    } else if geometry.ops.contains(OpSet::DISCARD) {
        Op::Discard
    } else {
        let zeroes = filled(&vec![0; geometry.block_size as usize], geometry.size);
        return overwrite(handle, device, &zeroes, (0, 1)).await;
    };
    let mut at = 0;
    while at < geometry.size {
        let len = (geometry.size - at).min(ERASE_BYTES);
        device.io(&Request::plain(op, at, len)).await?;
        at += len;
        progress(handle, at - len, at, geometry.size).await;
        give_way().await;
    }
    Ok(())
}

async fn overwrite(
    handle: &Handle,
    device: &dyn Device,
    buffer: &Buffer,
    (pass, passes): (u8, u8),
) -> Result<(), Error> {
    let size = device.geometry().size;
    let before = size * u64::from(pass);
    let whole = size * u64::from(passes);
    let op = Op::Write { fua: false, atomic: false };
    let mut at = 0;
    while at < size {
        let len = (size - at).min(buffer.len() as u64);
        let data = buffer.sgl().slice(0, len as usize);
        device.io(&Request { op, offset: at, len, data }).await?;
        at += len;
        progress(handle, before + at - len, before + at, whole).await;
        give_way().await;
    }
    Ok(())
}

/// Lets the core do other work: a device that answers at once would keep it to the end.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Progress is told in so many steps: every one is a change of the LU's state.
const STEPS: u128 = 100;

async fn progress(handle: &Handle, from: u64, to: u64, whole: u64) {
    let step = |done: u64| u128::from(done) * STEPS / u128::from(whole);
    if step(from) == step(to) || to >= whole {
        return;
    }
    let progress = (u128::from(to) * 65_536 / u128::from(whole)) as u16;
    // The operation goes on whether its progress could be told or not.
    let _ = handle.change(Change::Operation(OperationChange::Progress(progress))).await;
}
