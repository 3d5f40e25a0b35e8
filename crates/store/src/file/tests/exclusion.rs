//! Tickets, closed ranges and sizes that change, step by step: what the suite meets by chance only.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use block::{Answer, Buffer, Device, ErrorKind, Op, Outcome, Request};
use rt::handles::{Span, Ticket};
use rt::{Config, Core};
use tempfile::TempDir;

use super::super::{FileStore, Options};
use super::ON_DISK;
use crate::Store;
use crate::tests::make_image;

const SIZE: u64 = 64 << 20;
const MIB: usize = 1 << 20;

/// Runs a test with a store over a file that is full of data.
fn with_store<F>(test: impl FnOnce(Core, Arc<FileStore>) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let dir = TempDir::new_in(ON_DISK).unwrap();
    let path = dir.path().join("image");
    make_image(&path, SIZE);
    Core::block_on(&Config::new("exclusion"), |core| async move {
        let open = FileStore::open(&core, &path, Options::default(), || {});
        let store = open.await.unwrap();
        let device = store.clone().device(&core);
        let data = Buffer::from_bytes(&vec![0x11; MIB]);
        for at in (0..SIZE).step_by(MIB) {
            device.io(&Request::write(at, data.sgl())).await.unwrap();
        }
        drop(device);
        test(core, store).await;
    })
    .unwrap();
}

/// A request on its way, and whether it was answered.
struct Asked {
    answer: Pin<Box<dyn Future<Output = Outcome>>>,
}

fn ask(device: &Rc<dyn Device>, request: Request<'_>) -> Asked {
    match device.ask(&request) {
        Answer::Now(outcome) => Asked { answer: Box::pin(std::future::ready(outcome)) },
        Answer::Later(waiting) => Asked { answer: Box::pin(waiting.outcome()) },
    }
}

/// The answer, if it is there now.
async fn now(core: &Core, asked: &mut Asked) -> Option<Outcome> {
    core.timeout(std::time::Duration::ZERO, asked.answer.as_mut()).await
}

/// Every kind of write that the gate must know of, by name.
fn writes(device: &Rc<dyn Device>, at: u64) -> Vec<(&'static str, Asked)> {
    let buffer = Buffer::from_bytes(&vec![0x22; MIB + 1]);
    let odd = buffer.scattered([1..MIB, MIB..MIB + 1]);
    let zeroes = |unmap| Op::WriteZeroes { unmap, fua: true };
    vec![
        ("plain", ask(device, Request::write(at, buffer.sgl().slice(0, MIB)))),
        ("bounced", ask(device, Request::write(at, odd.sgl()))),
        ("zeroes", ask(device, Request::plain(zeroes(false), at, MIB as u64))),
        ("holes", ask(device, Request::plain(zeroes(true), at, MIB as u64))),
        ("discard", ask(device, Request::plain(Op::Discard, at, MIB as u64))),
    ]
}

#[test]
fn a_ticket_waits_for_every_write_in_flight_on_every_handle() {
    with_store(|core, store| async move {
        let (first, second) = (store.clone().device(&core), store.clone().device(&core));
        for round in 0..16 {
            let at = round * MIB as u64;
            let mut asked = writes(&first, at);
            asked.extend(writes(&second, at));
            let ticket = Ticket::take(&store.ledger, None, Span::new(at + 4096, 4096)).await;
            for (kind, asked) in &mut asked {
                let answer = now(&core, asked).await;
                assert!(matches!(answer, Some(Ok(_))), "{kind} is still on its way: {answer:?}");
            }
            drop(ticket);
        }
    });
}

#[test]
fn a_device_that_is_gone_still_counts_while_its_writes_are_in_flight() {
    with_store(|core, store| async move {
        for round in 0..16 {
            let device = store.clone().device(&core);
            let mut asked = writes(&device, round * MIB as u64);
            drop(device);
            let ticket = Ticket::take(&store.ledger, None, Span::new(0, SIZE)).await;
            for (kind, asked) in &mut asked {
                assert!(now(&core, asked).await.is_some(), "{kind}");
            }
            drop(ticket);
        }
        core.yield_now().await;
        let _alone = Ticket::take(&store.ledger, None, Span::new(0, SIZE)).await;
        assert!(store.ledger.members().is_empty(), "everyone has left");
    });
}

#[test]
fn a_ticket_holds_writes_back_on_handles_that_were_there_and_that_come() {
    with_store(|core, store| async move {
        let there = store.clone().device(&core);
        let ticket = Ticket::take(&store.ledger, None, Span::new(4096, 4096)).await;
        let comes = store.clone().device(&core);
        let goes = store.clone().device(&core);
        let mut held = writes(&there, 0);
        held.extend(writes(&comes, 0));
        held.extend(writes(&goes, 0));
        drop(goes);
        let mut beside = writes(&comes, 2 * MIB as u64);
        let buffer = Buffer::zeroed(4096);
        let read = ask(&there, Request::read(4096, buffer.sgl()));
        assert_eq!(read.answer.await, Ok(4096), "reads are not held back");
        assert_eq!(buffer.to_vec(), [0x11; 4096]);
        for (kind, asked) in &mut beside {
            assert!(asked.answer.as_mut().await.is_ok(), "{kind}");
        }
        for (kind, asked) in &mut held {
            assert!(now(&core, asked).await.is_none(), "{kind} is not held back");
        }
        drop(ticket);
        for (kind, asked) in held {
            assert!(asked.answer.await.is_ok(), "{kind}");
        }
    });
}

#[test]
fn tickets_of_one_range_come_in_order_and_others_at_once() {
    with_store(|core, store| async move {
        let first = Ticket::take(&store.ledger, None, Span::new(0, 8192)).await;
        let order = Rc::new(Cell::new(0));
        let mut waiting = Vec::new();
        for place in 1..=3 {
            let (store, order, here) = (store.clone(), order.clone(), core.clone());
            let task = core.spawn_task(async move {
                let ticket = Ticket::take(&store.ledger, None, Span::new(4096, 8192)).await;
                assert_eq!(order.replace(place), place - 1);
                here.yield_now().await;
                drop(ticket);
            });
            waiting.push(task);
            core.yield_now().await;
        }
        let elsewhere = Ticket::take(&store.ledger, None, Span::new(16_384, 4096)).await;
        assert_eq!(order.get(), 0);
        drop(first);
        for task in waiting {
            task.await;
        }
        assert_eq!(order.get(), 3);
        drop(elsewhere);
        // One that gives up while it waits is in nobody's way.
        let held = Ticket::take(&store.ledger, None, Span::new(0, 4096)).await;
        let gives_up = Ticket::take(&store.ledger, None, Span::new(0, 4096));
        assert!(core.timeout(std::time::Duration::ZERO, gives_up).await.is_none());
        drop(held);
        drop(Ticket::take(&store.ledger, None, Span::new(0, 4096)).await);
    });
}

#[test]
fn what_waited_while_the_end_was_cut_off_is_refused() {
    with_store(|core, store| async move {
        let device = store.clone().device(&core);
        let at = SIZE - MIB as u64;
        let ticket = Ticket::take(&store.ledger, None, Span::new(at, MIB as u64)).await;
        let mut asked = writes(&device, at);
        let pair = Buffer::from_bytes(&[0x11; 1024]);
        let op = Op::CompareAndWrite { fua: false };
        let compare = Request { op, offset: at, len: 512, data: pair.sgl() };
        asked.push(("compare", ask(&device, compare)));
        let op = Op::OrWrite { fua: false };
        let or = Request { op, offset: at, len: 1024, data: pair.sgl() };
        asked.push(("or", ask(&device, or)));
        core.yield_now().await;
        store.tell(at).await;
        drop(ticket);
        for (kind, asked) in asked {
            let error = asked.answer.await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange, "{kind}");
        }
    });
}

#[test]
fn cutting_the_end_off_waits_for_what_is_in_flight_there() {
    with_store(|core, store| async move {
        let device = store.clone().device(&core);
        let buffers: Vec<_> = (1..64).map(|_| Buffer::zeroed(MIB)).collect();
        let reads: Vec<_> = (1u64..)
            .zip(&buffers)
            .map(|(n, buffer)| ask(&device, Request::read(n * MIB as u64, buffer.sgl())))
            .collect();
        store.clone().resize(&core, MIB as u64).await.unwrap();
        for read in reads {
            assert_eq!(read.answer.await, Ok(MIB as u64), "the data was there when it was asked");
        }
        store.clone().resize(&core, SIZE).await.unwrap();
        let writes: Vec<_> = (1..12).flat_map(|n| writes(&device, n * MIB as u64)).collect();
        store.clone().resize(&core, MIB as u64).await.unwrap();
        for (kind, asked) in writes {
            let fine = match asked.answer.await {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::OutOfRange,
            };
            assert!(fine, "{kind}");
        }
        assert_eq!(store.handle.info().unwrap().size, MIB as u64, "nothing was written later");
    });
}
