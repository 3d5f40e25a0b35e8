//! Order of tasks, their end before their time, and what a nexus keeps to itself.

use std::pin::{Pin, pin};
use std::task::Poll;

use crate::support::{BLOCK, Bench, Client, cdb10, poll};
use block::Buffer;
use target::lun::admit::Attribute;
use target::scsi::{Answer, Data, Response, Task, TaskManagement};
use wire::scsi::{AdditionalSense, Status};

/// A read that is on its way.
fn start<'a>(
    client: &'a Client,
    task: Task,
    into: &'a Buffer,
) -> Pin<Box<dyn Future<Output = Answer> + 'a>> {
    let parsed = client.nexus.parse([0; 8], &cdb10(0x28, 0, 0, 1)).unwrap();
    let data = Data { into: into.sgl(), ..Data::NONE };
    let mut future = Box::pin(async move { client.nexus.execute(&parsed, task, data).await });
    assert_eq!(poll(future.as_mut()), Poll::Pending);
    future
}

fn simple(tag: u64) -> Task {
    Task { tag, attribute: Attribute::Simple }
}

#[test]
fn an_ordered_task_waits_and_is_waited_for() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    bench.disk.slow.set(true);
    let into = Buffer::zeroed(BLOCK);
    let mut first = start(&client, simple(1), &into);
    let mut ordered = start(&client, Task { tag: 2, attribute: Attribute::Ordered }, &into);
    let mut last = start(&client, simple(3), &into);
    for index in 0..3 {
        assert_eq!(bench.disk.waiting(), 1, "one at a time");
        bench.disk.release();
        let tasks = [&mut first, &mut ordered, &mut last];
        for (at, task) in tasks.into_iter().enumerate().skip(index) {
            assert_eq!(poll(task.as_mut()).is_ready(), at == index);
        }
    }
}

#[test]
fn an_aborted_task_has_no_answer_and_whoever_aborts_waits() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    bench.disk.slow.set(true);
    let into = Buffer::zeroed(BLOCK);
    let mut task = start(&client, simple(1), &into);
    let manage = |function| client.nexus.manage([0; 8], function);
    let run = |function| bench.world.block_on(manage(function));
    assert_eq!(run(TaskManagement::QueryTask { tag: 1 }), Response::Succeeded);
    assert_eq!(run(TaskManagement::QueryTask { tag: 2 }), Response::Complete);
    assert_eq!(run(TaskManagement::QueryTaskSet), Response::Succeeded);
    assert_eq!(run(TaskManagement::AbortTask { tag: 2 }), Response::NoTask);
    let mut abort = pin!(manage(TaskManagement::AbortTask { tag: 1 }));
    assert_eq!(poll(abort.as_mut()), Poll::Pending, "the device still has it");
    bench.disk.release();
    let Poll::Ready(answer) = poll(task.as_mut()) else { panic!("not answered") };
    assert!(answer.silent);
    drop(task);
    assert_eq!(poll(abort.as_mut()), Poll::Ready(Response::Complete));
    assert_eq!(run(TaskManagement::QueryTaskSet), Response::Complete);
}

#[test]
fn a_full_set_says_so() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    bench.disk.slow.set(true);
    let into = Buffer::zeroed(BLOCK);
    let tasks: Vec<_> = (0..64).map(|tag| start(&client, simple(tag), &into)).collect();
    assert_eq!(client.ask(&[0; 6]).answer.status, Status::TASK_SET_FULL);
    bench.disk.release();
    drop(tasks);
    client.ask(&[0; 6]).good();
}

#[test]
fn contingent_allegiance_stops_until_it_is_cleared() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let mut bad = cdb10(0x28, 0, 4096, 1);
    bad[9] = 4;
    client.ask(&bad).out_of_range();
    assert_eq!(client.ask(&[0; 6]).answer.status, Status::ACA_ACTIVE);
    let aca = Task { tag: 9, attribute: Attribute::Aca };
    let parsed = client.nexus.parse([0; 8], &[3, 0, 0, 0, 0, 0]).unwrap();
    let run = || bench.world.block_on(client.nexus.execute(&parsed, aca, Data::NONE));
    assert_eq!(run().status, Status::GOOD);
    let clear = client.nexus.manage([0; 8], TaskManagement::ClearAca);
    assert_eq!(bench.world.block_on(clear), Response::Complete);
    client.ask(&[0; 6]).good();
    let answer = run();
    assert_eq!(answer.sense.unwrap().code, AdditionalSense::INVALID_MESSAGE_ERROR);
}

#[test]
fn resets_are_told_to_everybody() {
    let bench = Bench::new();
    let (client, other) = (bench.nexus("a"), bench.nexus("b"));
    let reset = client.nexus.manage([0; 8], TaskManagement::LogicalUnitReset);
    assert_eq!(bench.world.block_on(reset), Response::Complete);
    let event = client.nexus.manage([0; 8], TaskManagement::QueryAsyncEvent);
    assert!(matches!(bench.world.block_on(event), Response::Event(_)));
    let code = AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED;
    client.ask(&[0x12, 0, 0, 0, 96, 0]).good();
    client.ask(&cdb10(0x28, 0, 0, 1)).attention(code);
    assert_eq!(other.ask(&[3, 0, 0, 0, 18, 0]).good()[12..14], [0x29, 3]);
    other.ask(&[0; 6]).good();
    let nowhere = client.nexus.manage([0, 9, 0, 0, 0, 0, 0, 0], TaskManagement::LogicalUnitReset);
    assert_eq!(bench.world.block_on(nowhere), Response::IncorrectLun);
}

#[test]
fn a_reserved_unit_is_for_its_holder() {
    let bench = Bench::new();
    let (client, other) = (bench.nexus("a"), bench.nexus("b"));
    client.ask(&[0x16, 0, 0, 0, 0, 0]).good();
    for cdb in [&[0; 6][..], &cdb10(0x28, 0, 0, 1), &[0x16, 0, 0, 0, 0, 0]] {
        assert_eq!(other.ask(cdb).answer.status, Status::RESERVATION_CONFLICT);
    }
    other.ask(&[0x12, 0, 0, 0, 96, 0]).good();
    other.ask(&[0x17, 0, 0, 0, 0, 0]).good();
    assert_eq!(other.ask(&[0; 6]).answer.status, Status::RESERVATION_CONFLICT);
    client.ask(&cdb10(0x28, 0, 0, 1)).good();
    client.ask(&cdb10(0x57, 0, 0, 0)).good();
    other.ask(&cdb10(0x56, 0, 0, 0)).good();
    bench.world.block_on(other.nexus.lose(true));
    client.ask(&[0; 6]).good();
}
