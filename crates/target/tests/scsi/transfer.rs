//! Reads and writes of every length of CDB, their ends, their residuals, and what a device's
//! failures become.

use std::pin::pin;
use std::task::Poll;

use crate::support::{BLOCK, Bench, Client, Reply, cdb10, cdb12, cdb16, poll};
use block::{Buffer, ErrorKind, Op};
use target::scsi::{Data, Task};
use wire::scsi::{AdditionalSense, SenseKey, Status};

fn pattern(blocks: usize, seed: u8) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at as u8).wrapping_mul(7) ^ (at >> 9) as u8 ^ seed).collect()
}

fn read(client: &Client, lba: u32, blocks: u16) -> Reply {
    client.ask(&cdb10(0x28, 0, lba, blocks))
}

#[test]
fn what_one_length_of_cdb_writes_every_other_reads() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let writes: [(u32, Vec<u8>); 4] = [
        (10, vec![0x0a, 0, 0, 10, 3, 0]),
        (20, cdb10(0x2a, 0, 20, 3).to_vec()),
        (30, cdb12(0xaa, 0, 30, 3).to_vec()),
        (40, cdb16(0x8a, 0, 40, 3).to_vec()),
    ];
    for (lba, cdb) in writes {
        let data = pattern(3, lba as u8);
        client.send(&cdb, &data).good();
        let short = [0x08, 0, 0, lba as u8, 3, 0];
        assert_eq!(client.ask(&short).good(), data);
        assert_eq!(read(&client, lba, 3).good(), data);
        assert_eq!(client.ask(&cdb12(0xa8, 0, lba, 3)).good(), data);
        assert_eq!(client.ask(&cdb16(0x88, 0x18, lba.into(), 3)).good(), data);
        assert_eq!(bench.disk.content(lba as usize, 3), data);
    }
    assert_eq!(client.ask(&[0x08, 0, 0, 0, 0, 0]).good().len(), 256 * BLOCK);
}

#[test]
fn the_end_of_the_medium_is_where_it_is() {
    let client = Bench::new().nexus("a");
    read(&client, 4095, 1).good();
    read(&client, 4096, 0).good();
    read(&client, 4097, 0).out_of_range();
    read(&client, 4095, 2).out_of_range();
    for lba in [4096, 0x8000_0000, u32::MAX] {
        read(&client, lba, 1).out_of_range();
        client.send(&cdb10(0x2a, 0, lba, 1), &[1; BLOCK]).out_of_range();
    }
    client.ask(&cdb16(0x88, 0, u64::MAX, 1)).out_of_range();
    client.ask(&cdb16(0x88, 0, u64::MAX, 0)).out_of_range();
    client.ask(&cdb16(0x88, 0, 0, 1 << 16)).invalid_field();
}

#[test]
fn a_read_fills_the_room_there_is() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let data = pattern(2, 1);
    client.send(&cdb10(0x2a, 0, 0, 2), &data).good();
    for room in [0, 1, 200, BLOCK, BLOCK + 1, 2 * BLOCK, 10_000] {
        let reply = client.send_with(&cdb10(0x28, 0, 0, 2), &[], room);
        assert_eq!((reply.answer.len, reply.answer.full), (room.min(1024), 1024));
        assert_eq!(reply.good(), data[..room.min(1024)]);
    }
}

#[test]
fn a_write_with_too_little_data_writes_whole_blocks_or_nothing() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let code = AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT;
    let write = client.nexus.parse([0; 8], &cdb10(0x2a, 0, 0, 2)).unwrap();
    for len in [200, BLOCK + 200] {
        let reply = client.send(&cdb10(0x2a, 0, 0, 2), &vec![7; len]);
        assert_eq!(reply.answer.full, 2 * BLOCK as u64, "what residuals are counted from");
        assert_eq!(write.accepts(len as u64), Err(reply.answer));
        reply.illegal(code);
    }
    assert_eq!(bench.disk.content(0, 2), [0; 2 * BLOCK]);
    for len in [0, BLOCK] {
        assert_eq!(write.accepts(len as u64), Ok(()));
        let reply = client.send(&cdb10(0x2a, 0, 0, 2), &vec![3; len]);
        assert_eq!(reply.answer.full, 2 * BLOCK as u64);
        reply.good();
        assert_eq!(bench.disk.content(0, 2)[..len], [3; BLOCK][..len]);
    }
    assert_eq!(bench.disk.content(1, 1), [0; BLOCK]);
    assert_eq!(write.accepts(10_000), Ok(()));
    let reply = client.send(&cdb10(0x2a, 0, 0, 1), &[7; 10_000]);
    assert_eq!((reply.answer.len, reply.answer.full), (0, BLOCK as u64));
    reply.good();
    assert_eq!(bench.disk.content(0, 2), [[7; BLOCK], [0; BLOCK]].concat());
}

#[test]
fn durability_is_what_cdb_or_cache_mode_ask_for() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let block = [1; BLOCK];
    let fua = |fua| Some(Op::Write { fua, atomic: false });
    client.send(&cdb10(0x2a, 0x10, 0, 1), &block).good();
    assert_eq!(bench.disk.last_op.get(), fua(false));
    client.send(&cdb10(0x2a, 0x08, 0, 1), &block).good();
    assert_eq!(bench.disk.last_op.get(), fua(true));
    client.ask(&cdb10(0x28, 0x08, 0, 1)).good();
    assert_eq!(bench.disk.flushes.get(), 1, "what is cached goes to the medium first");
    // A bit of an address is no FUA.
    client.send(&[0x0a, 0x08, 0, 0, 1, 0], &block).out_of_range();
    client.send(&[0x0a, 0, 0, 0, 1, 0], &block).good();
    assert_eq!(bench.disk.last_op.get(), fua(false));
}

#[test]
fn failures_of_the_device_keep_their_meaning() {
    use SenseKey as Key;
    let bench = Bench::new();
    let client = bench.nexus("a");
    for (kind, key, code) in [
        (ErrorKind::Medium, Key::MEDIUM_ERROR, AdditionalSense::UNRECOVERED_READ_ERROR),
        (ErrorKind::Offline, Key::NOT_READY, AdditionalSense::LOGICAL_UNIT_COMMUNICATION_FAILURE),
        (ErrorKind::Lost, Key::HARDWARE_ERROR, AdditionalSense::INTERNAL_TARGET_FAILURE),
    ] {
        bench.disk.fails.set(Some(kind));
        read(&client, 0, 1).fails(key, code);
    }
    bench.disk.fails.set(Some(ErrorKind::Busy));
    assert_eq!(read(&client, 0, 1).answer.status, Status::BUSY);
    bench.disk.fails.set(Some(ErrorKind::NoSpace));
    let full = AdditionalSense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT;
    client.send(&cdb10(0x2a, 0, 0, 1), &[1; BLOCK]).fails(Key::DATA_PROTECT, full);
}

#[test]
fn an_answer_may_come_later_and_futures_stay_small() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    bench.disk.slow.set(true);
    let parsed = client.nexus.parse([0; 8], &cdb10(0x28, 0, 0, 1)).unwrap();
    let into = Buffer::zeroed(BLOCK);
    let data = Data { into: into.sgl(), ..Data::NONE };
    let future = client.nexus.execute(&parsed, Task::default(), data);
    assert!(size_of_val(&future) < 512, "{}", size_of_val(&future));
    let mut future = pin!(future);
    assert_eq!(poll(future.as_mut()), Poll::Pending);
    assert_eq!(bench.disk.waiting(), 1);
    bench.disk.release();
    let Poll::Ready(answer) = poll(future.as_mut()) else { panic!("not answered") };
    assert_eq!((answer.status, answer.len), (Status::GOOD, BLOCK));
}
