//! SANITIZE and FORMAT UNIT: what they leave, what runs meanwhile, what does not stop them.

use std::pin::pin;
use std::task::Poll;

use crate::support::{BLOCK, Bench, Client, Reply, cdb10, poll};
use block::{Buffer, ErrorKind};
use target::scsi::{Data, Specific, Task, TaskManagement};
use wire::scsi::{AdditionalSense, SenseKey, Status};

fn sanitize(flags_action: u8, len: usize) -> [u8; 10] {
    cdb10(0x48, flags_action, 0, len as u16)
}

fn overwrite(flags: u8, pattern: &[u8]) -> Vec<u8> {
    let [high, low] = (pattern.len() as u16).to_be_bytes();
    [&[flags, 0, high, low], pattern].concat()
}

fn send_overwrite(client: &Client, list: &[u8]) -> Reply {
    client.send(&sanitize(1, list.len()), list)
}

#[test]
fn an_overwrite_fills_the_medium() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    send_overwrite(&client, &overwrite(1, &[0xaa; BLOCK])).good();
    assert!(bench.disk.content(0, 4096).iter().all(|byte| *byte == 0xaa));
    send_overwrite(&client, &overwrite(1, b"0123")).good();
    assert!(bench.disk.content(0, 4096).chunks(4).all(|bytes| bytes == b"0123"));
    // The last of two passes is the complement.
    send_overwrite(&client, &overwrite(0x82, &[0x0f])).good();
    assert!(bench.disk.content(0, 4096).iter().all(|byte| *byte == 0xf0));
    for len in 0..5 {
        send_overwrite(&client, &overwrite(1, b"0123")[..len]).illegal(match len {
            0..4 => AdditionalSense::INVALID_FIELD_IN_CDB,
            _ => AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST,
        });
    }
    send_overwrite(&client, &overwrite(0, &[0; BLOCK])).invalid_parameter();
    send_overwrite(&client, &overwrite(1, &[])).invalid_parameter();
    send_overwrite(&client, &overwrite(1, &[0; BLOCK + 4])).invalid_parameter();
}

#[test]
fn a_block_erase_leaves_zeroes_and_no_place() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    client.send(&cdb10(0x2a, 0, 9, 1), &[1; BLOCK]).good();
    client.ask(&sanitize(2, 0)).good();
    assert_eq!(bench.disk.content(9, 1), [0; BLOCK]);
    client.send(&sanitize(2, 8), &[0; 8]).invalid_field();
    client.send(&sanitize(0x1f, 8), &[0; 8]).invalid_field();
    for action in (0..0x1f).filter(|action| ![1, 2].contains(action)) {
        client.ask(&sanitize(action, 0)).invalid_field();
    }
    bench.disk.shape(|geometry| geometry.read_only = true);
    let code = AdditionalSense::WRITE_PROTECTED;
    client.ask(&sanitize(2, 0)).fails(SenseKey::DATA_PROTECT, code);
}

#[test]
fn a_sanitize_outlives_its_task_and_every_reset() {
    let bench = Bench::new();
    let (client, other) = (bench.nexus("a"), bench.nexus("b"));
    bench.disk.slow.set(true);
    let list = Buffer::from_bytes(&overwrite(1, &[0x55; BLOCK]));
    let parsed = client.nexus.parse([0; 8], &sanitize(1, list.len())).unwrap();
    let data = Data { out: list.sgl(), ..Data::NONE };
    let task = Task { tag: 7, ..Task::default() };
    let mut future = pin!(client.nexus.execute(&parsed, task, data));
    assert_eq!(poll(future.as_mut()), Poll::Pending);
    bench.world.turn();
    bench.disk.release();
    bench.world.turn();

    let code = AdditionalSense::LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS;
    for cdb in [&[0; 6][..], &[0x1b, 1, 0, 0, 2, 0], &cdb10(0x28, 0, 0, 1), &sanitize(2, 0)] {
        other.ask(cdb).fails(SenseKey::NOT_READY, code);
    }
    let Specific::Progress(progress) = other.ask(&[0; 6]).answer.sense.unwrap().specific else {
        panic!("progress is told")
    };
    assert_eq!(progress, 0x2000, "one of eight pieces");
    other.ask(&[0x12, 0, 0, 0, 96, 0]).good();
    assert_eq!(other.ask(&[3, 0, 0, 0, 18, 0]).good()[15..], [0x80, 0x20, 0]);

    bench.world.block_on(client.nexus.manage([0; 8], TaskManagement::QueryTask { tag: 7 }));
    let mut abort = pin!(client.nexus.manage([0; 8], TaskManagement::AbortTask { tag: 7 }));
    assert_eq!(poll(abort.as_mut()), Poll::Pending);
    let Poll::Ready(answer) = poll(future.as_mut()) else { panic!("an aborted task leaves") };
    assert!(answer.silent);
    bench.world.block_on(abort);
    bench.world.block_on(other.nexus.manage([0; 8], TaskManagement::LogicalUnitReset));
    client.ask(&[0; 6]).attention(AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
    client.ask(&[0; 6]).fails(SenseKey::NOT_READY, code);
    bench.disk.slow.set(false);
    bench.disk.release();
    bench.world.finish();
    client.ask(&[0; 6]).good();
    assert!(bench.disk.content(0, 4096).iter().all(|byte| *byte == 0x55));
}

#[test]
fn a_failed_sanitize_is_left_as_its_client_has_allowed() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let failed = AdditionalSense::SANITIZE_COMMAND_FAILED;
    bench.disk.fails.set(Some(ErrorKind::Medium));
    client.ask(&sanitize(2, 0)).fails(SenseKey::MEDIUM_ERROR, AdditionalSense::WRITE_ERROR);
    bench.disk.fails.set(None);
    client.ask(&[0; 6]).fails(SenseKey::MEDIUM_ERROR, failed);
    client.ask(&sanitize(0x1f, 0)).illegal(AdditionalSense::COMMAND_SEQUENCE_ERROR);
    client.ask(&sanitize(2, 0)).good();
    client.ask(&[0; 6]).good();
    bench.disk.fails.set(Some(ErrorKind::Medium));
    client.ask(&sanitize(0x80 | 0x20 | 2, 0)).good();
    bench.world.turn();
    bench.disk.fails.set(None);
    client.ask(&cdb10(0x28, 0, 0, 1)).fails(SenseKey::MEDIUM_ERROR, failed);
    client.ask(&sanitize(0x1f, 0)).good();
    client.ask(&cdb10(0x28, 0, 0, 1)).good();
}

#[test]
fn a_format_erases_and_knows_no_defects() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    client.send(&cdb10(0x2a, 0, 9, 1), &[1; BLOCK]).good();
    client.ask(&[4, 0, 0, 0, 0, 0]).good();
    assert_eq!(bench.disk.content(9, 1), [0; BLOCK]);
    let wanted =
        |flags| client.nexus.parse([0; 8], &[4, flags, 0, 0, 0, 0]).unwrap().data_out_len();
    assert_eq!((wanted(0), wanted(0x10), wanted(0x30)), (0, 4, 8));
    client.send(&[4, 0x10, 0, 0, 0, 0], &[0, 2, 0, 0]).good();
    let code = AdditionalSense::LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS;
    client.ask(&[0; 6]).fails(SenseKey::NOT_READY, code);
    bench.world.finish();
    client.ask(&[0; 6]).good();
    client.send(&[4, 0x30, 0, 0, 0, 0], &[0; 8]).good();
    client.send(&[4, 0x10, 0, 0, 0, 0], &[0, 0x88, 0, 0]).invalid_parameter();
    client.send(&[4, 0x10, 0, 0, 0, 0], &[0, 0, 0, 4]).invalid_parameter();
    client.send(&[4, 0x10, 0, 0, 0, 0], &[]).illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    client.ask(&[4, 0x48, 0, 0, 0, 0]).invalid_field();
    assert_eq!(client.ask(&cdb10(0x37, 0, 0x1d00_0000, 32)).good(), [0, 0x1d, 0, 0]);
    let mut long = [0; 12];
    (long[0], long[1], long[9]) = (0xb7, 0x18, 32);
    assert_eq!(client.ask(&long).good(), [0, 0x18, 0, 0, 0, 0, 0, 0]);
    assert_eq!(client.ask(&cdb10(0x35, 2, 0, 0)).answer.status, Status::GOOD);
}

#[test]
fn an_operation_ends_with_its_core() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    client.ask(&sanitize(0x80 | 2, 0)).good();
    // What was spawned is dropped before it has run.
    drop((client, bench));
}
