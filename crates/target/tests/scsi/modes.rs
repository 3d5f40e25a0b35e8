//! MODE SENSE and MODE SELECT, and what the modes do.

use crate::support::{BLOCK, Bench, Client, SETTINGS, cdb10};
use block::Op;
use target::scsi::{Settings, TaskManagement};
use wire::scsi::{AdditionalSense, SenseKey};

fn sense(client: &Client, control: u8, page: u8, subpage: u8) -> Vec<u8> {
    client.ask(&[0x1a, 8, control << 6 | page, subpage, 255, 0]).good()[4..].to_vec()
}

/// MODE SELECT(6) of one page.
fn select(client: &Client, page: &[u8]) -> crate::support::Reply {
    let list = [&[0; 4], page].concat();
    client.send(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list)
}

fn set(client: &Client, page: u8, byte: usize, bit: u8, on: bool) {
    let mut values = sense(client, 0, page, 0);
    values[byte] = if on { values[byte] | bit } else { values[byte] & !bit };
    select(client, &values).good();
}

#[test]
fn all_pages_are_told_in_order_with_header_and_blocks() {
    let client = Bench::new().nexus("a");
    let data = client.ask(&[0x1a, 0, 0x3f, 0, 255, 0]).good();
    assert_eq!(usize::from(data[0]) + 1, data.len());
    assert_eq!(data[1..12], [0, 0x10, 8, 0, 0, 0x10, 0, 0, 0, 2, 0]);
    let mut pages = Vec::new();
    let mut at = 12;
    while at < data.len() {
        pages.push((data[at], data[at + 1]));
        at += 2 + usize::from(data[at + 1]);
    }
    assert_eq!(
        pages,
        [(1, 0x0a), (0x88, 0x12), (0x8a, 0x0a), (0x1c, 0x0a)],
        "PS where it can be saved"
    );
    let all = client.ask(&[0x5a, 8, 0x3f, 0xff, 0, 0, 0, 1, 0, 0]).good();
    assert_eq!(u16::from_be_bytes([all[0], all[1]]) as usize + 2, all.len());
    assert!(all.windows(4).any(|at| at == [0x4a, 1, 0, 0x1c]), "the control extension");
    let long = client.ask(&[0x5a, 0x10, 8, 0, 0, 0, 0, 0, 255, 0]).good();
    assert_eq!(long[4..8], [1, 0, 0, 16]);
    assert_eq!(long[8..24], [0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    client.ask(&[0x1a, 0, 0x02, 0, 255, 0]).invalid_field();
    client.ask(&[0x1a, 0, 0x08, 1, 255, 0]).invalid_field();
}

#[test]
fn what_may_be_changed_is_said_and_nothing_else_changes() {
    let client = Bench::new().nexus("a");
    assert_eq!(sense(&client, 1, 8, 0)[2], 4, "WCE");
    assert_eq!(sense(&client, 1, 0x0a, 0)[2..6], [4, 6, 0x38, 0x40]);
    for (page, byte) in [(8, 3), (8, 12), (0x0a, 8), (0x1c, 2), (1, 2)] {
        let mut values = sense(&client, 0, page, 0);
        values[byte] ^= 1;
        select(&client, &values).invalid_parameter();
    }
    let control = sense(&client, 0, 0x0a, 0);
    select(&client, &control[..8]).illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    select(&client, &[0x3e, 2, 0, 0]).invalid_parameter();
    let mut contradiction = control.clone();
    contradiction[4] |= 0x10;
    select(&client, &contradiction).invalid_parameter();
    client.send(&[0x15, 0x10, 0, 0, 0, 0], &[]).good();
    // A block descriptor must be what is.
    let blocks = [[0, 0, 0, 8], [0, 0, 0x10, 0], [0, 0, 2, 0]].concat();
    client.send(&[0x15, 0x10, 0, 0, 12, 0], &blocks).good();
    let blocks = [[0, 0, 0, 8], [0, 0, 0x10, 0], [0, 0, 0x10, 0]].concat();
    client.send(&[0x15, 0x10, 0, 0, 12, 0], &blocks).invalid_parameter();
    let list = [&[0, 0, 0, 0, 0, 0, 0, 0], &control[..]].concat();
    client.send(&[0x55, 0x10, 0, 0, 0, 0, 0, 0, list.len() as u8, 0], &list).good();
}

#[test]
fn a_change_is_everybodys_and_told_to_the_others() {
    let bench = Bench::new();
    let (one, other) = (bench.nexus("a"), bench.nexus("b"));
    set(&one, 0x0a, 4, 8, true);
    one.ask(&[0; 6]).good();
    other.ask(&[0; 6]).attention(AdditionalSense::MODE_PARAMETERS_CHANGED);
    for client in [&one, &other] {
        let write = client.send(&cdb10(0x2a, 0, 0, 1), &[1; BLOCK]);
        write.fails(SenseKey::DATA_PROTECT, AdditionalSense::WRITE_PROTECTED);
        client.ask(&cdb10(0x28, 0, 0, 1)).good();
        assert_eq!(client.ask(&[0x1a, 0, 0x0a, 0, 255, 0]).good()[2], 0x90);
    }
    set(&one, 0x0a, 4, 8, false);
    one.send(&cdb10(0x2a, 0, 0, 1), &[1; BLOCK]).good();
}

#[test]
fn a_mapping_or_a_device_may_be_write_protected() {
    let read_only = Bench::with(64, Settings { read_only: true, ..SETTINGS }).nexus("a");
    let sealed = Bench::new();
    sealed.disk.shape(|geometry| geometry.read_only = true);
    for client in [read_only, sealed.nexus("a")] {
        assert_eq!(client.ask(&[0x1a, 0, 0x0a, 0, 255, 0]).good()[2], 0x90);
        let write = client.send(&cdb10(0x2a, 0, 0, 1), &[1; BLOCK]);
        write.fails(SenseKey::DATA_PROTECT, AdditionalSense::WRITE_PROTECTED);
    }
}

#[test]
fn without_the_cache_every_write_is_durable() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    set(&client, 8, 2, 4, false);
    assert_eq!(bench.disk.flushes.get(), 1, "what was cached is written");
    client.send(&cdb10(0x2a, 0, 0, 1), &[1; BLOCK]).good();
    assert_eq!(bench.disk.last_op.get(), Some(Op::Write { fua: true, atomic: false }));
    assert_eq!(sense(&client, 2, 8, 0)[2], 4, "the default has it on");
}

#[test]
fn sense_data_comes_in_the_format_that_was_chosen() {
    let client = Bench::new().nexus("a");
    let encoded = || client.ask(&cdb10(0x28, 0, 4096, 1)).answer.sense.unwrap().to_vec();
    assert_eq!(encoded()[0], 0xf0);
    set(&client, 0x0a, 2, 4, true);
    assert_eq!(encoded()[..4], [0x72, 5, 0x21, 0]);
    assert_eq!(client.ask(&[0xff; 6]).answer.sense.unwrap().to_vec()[0], 0x72);
}

#[test]
fn what_is_saved_outlives_a_reset() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let mut page = sense(&client, 0, 0x0a, 0);
    page[2] |= 4;
    let list = [&[0; 4], &page[..]].concat();
    client.send(&[0x15, 0x11, 0, 0, list.len() as u8, 0], &list).good();
    set(&client, 0x0a, 4, 8, true);
    assert_eq!(sense(&client, 0, 0x0a, 0)[2..5], [0x26, 0x10, 8]);
    assert_eq!(sense(&client, 3, 0x0a, 0)[2..5], [0x26, 0x10, 0]);
    assert_eq!(sense(&client, 2, 0x0a, 0)[2..5], [0x22, 0x10, 0]);
    // Only what was sent is saved.
    set(&client, 8, 2, 4, false);
    client.send(&[0x15, 0x11, 0, 0, list.len() as u8, 0], &list).good();
    assert_eq!((sense(&client, 0, 8, 0)[2], sense(&client, 3, 8, 0)[2]), (0, 4));
    bench.world.block_on(client.nexus.manage([0; 8], TaskManagement::LogicalUnitReset));
    client.ask(&[0; 6]).attention(AdditionalSense::BUS_DEVICE_RESET_FUNCTION_OCCURRED);
    assert_eq!(sense(&client, 0, 0x0a, 0)[2..5], [0x26, 0x10, 0]);
}
