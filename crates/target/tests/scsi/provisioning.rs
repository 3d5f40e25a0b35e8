//! Thin provisioning and what fills ranges: UNMAP, WRITE SAME, GET LBA STATUS, LOG SENSE.

use crate::support::{BLOCK, Bench, Client, Reply, cdb10, cdb16};
use block::{Op, OpSet};
use wire::scsi::AdditionalSense;

fn unmap(client: &Client, ranges: &[(u64, u32)]) -> Reply {
    let len = ranges.len() * 16;
    let mut list = ((len + 6) as u16).to_be_bytes().to_vec();
    list.extend((len as u16).to_be_bytes());
    list.extend([0; 4]);
    for (lba, count) in ranges {
        list.extend(lba.to_be_bytes());
        list.extend(count.to_be_bytes());
        list.extend([0; 4]);
    }
    client.send(&cdb10(0x42, 0, 0, list.len() as u16), &list)
}

/// Address, number and state of each descriptor.
fn status(client: &Client, lba: u64, room: u32) -> Vec<(u64, u32, u8)> {
    let data = client.ask(&cdb16(0x9e, 0x12, lba, room)).good();
    let len = u32::from_be_bytes(*data.first_chunk().unwrap()) as usize;
    assert_eq!(len + 4, data.len());
    let descriptor = |bytes: &[u8]| {
        let lba = u64::from_be_bytes(*bytes.first_chunk().unwrap());
        (lba, u32::from_be_bytes(*bytes[8..].first_chunk().unwrap()), bytes[12])
    };
    data[8..].chunks(16).map(descriptor).collect()
}

fn fill(client: &Client, lba: u32, count: u16) {
    client.send(&cdb10(0x2a, 0, lba, count), &vec![7; usize::from(count) * BLOCK]).good();
}

#[test]
fn unmapped_blocks_read_zero_and_have_no_place() {
    let client = Bench::new().nexus("a");
    fill(&client, 0, 64);
    assert_eq!(status(&client, 0, 1024), [(0, 64, 0), (64, 4032, 1)]);
    unmap(&client, &[(8, 8), (20, 12)]).good();
    assert_eq!(status(&client, 0, 24), [(0, 8, 0)]);
    assert_eq!(
        status(&client, 3, 1024),
        [(3, 5, 0), (8, 8, 1), (16, 8, 0), (24, 8, 1), (32, 32, 0), (64, 4032, 1)]
    );
    assert_eq!(client.ask(&cdb10(0x28, 0, 20, 12)).good(), vec![0; 12 * BLOCK]);
    assert_eq!(client.ask(&cdb10(0x28, 0, 19, 1)).good(), [7; BLOCK]);
    client.ask(&cdb16(0x9e, 0x12, 4096, 24)).out_of_range();
    client.ask(&cdb16(0x9e, 0x12, u64::MAX, 24)).out_of_range();
}

#[test]
fn unmap_keeps_its_limits() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    unmap(&client, &[]).good();
    unmap(&client, &[(4096, 0)]).good();
    client.send(&cdb10(0x42, 0, 0, 0), &[]).good();
    unmap(&client, &[(0, 8), (4095, 2)]).out_of_range();
    unmap(&client, &[(0, u32::MAX)]).invalid_parameter();
    unmap(&client, &vec![(0, 0); 1025]).invalid_parameter();
    unmap(&client, &vec![(0, 0); 1024]).good();
    client.send(&cdb10(0x42, 1, 0, 8), &[0; 8]).invalid_field();
    let short = client.send(&cdb10(0x42, 0, 0, 5), &[0; 5]);
    short.illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    fill(&client, 0, 8);
    unmap(&client, &[(0, 8), (4095, 2)]).out_of_range();
    assert_eq!(bench.disk.content(0, 8), [7; 8 * BLOCK], "all or nothing is looked at first");
    bench.disk.shape(|geometry| geometry.ops = OpSet::BASE);
    unmap(&client, &[(0, 8)]).illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE);
    assert_eq!(status(&client, 1, 24), [(1, 4095, 0)]);
}

#[test]
fn write_same_fills_ranges() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    for (cdb, seed) in [(cdb10(0x41, 0, 5, 700).to_vec(), 1), (cdb16(0x93, 0, 5, 700).to_vec(), 2)]
    {
        client.send(&cdb, &[seed; BLOCK]).good();
        assert_eq!(bench.disk.content(4, 702)[BLOCK..701 * BLOCK], vec![seed; 700 * BLOCK]);
        assert_eq!(bench.disk.content(705, 1), [0; BLOCK]);
    }
    for (cdb, data, unmaps) in [
        (cdb10(0x41, 8, 8, 8).to_vec(), vec![0; BLOCK], true),
        (cdb10(0x41, 0, 8, 8).to_vec(), vec![0; BLOCK], false),
        (cdb16(0x93, 9, 8, 8).to_vec(), vec![], true),
        (cdb16(0x93, 1, 8, 8).to_vec(), vec![], false),
    ] {
        fill(&client, 0, 24);
        client.send(&cdb, &data).good();
        assert_eq!(bench.disk.content(8, 8), [0; 8 * BLOCK]);
        assert_eq!(bench.disk.last_op.get(), Some(Op::WriteZeroes { unmap: unmaps, fua: false }));
    }
    // Unmapping is a wish; data that is not zero is written.
    client.send(&cdb10(0x41, 8, 1, 7), &[9; BLOCK]).good();
    assert_eq!(bench.disk.content(1, 7), [9; 7 * BLOCK]);
}

#[test]
fn write_same_knows_the_end_and_its_limits() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    fill(&client, 4090, 6);
    client.send(&cdb10(0x41, 0, 4091, 0), &[3; BLOCK]).invalid_field();
    client.send(&cdb10(0x41, 0, 4091, 5), &[3; BLOCK]).good();
    assert_eq!(bench.disk.content(4090, 6), [&[7; BLOCK][..], &[3; 5 * BLOCK]].concat());
    client.send(&cdb10(0x41, 0, 4097, 0), &[0; BLOCK]).out_of_range();
    client.send(&cdb10(0x41, 0, 4095, 2), &[0; BLOCK]).out_of_range();
    client.send(&cdb16(0x93, 0, u64::MAX, 0), &[0; BLOCK]).out_of_range();
    client.send(&cdb10(0x41, 0x10, 0, 1), &[0; BLOCK]).invalid_field();
    let code = AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT;
    for len in [BLOCK / 2, BLOCK * 2] {
        client.send(&cdb10(0x41, 8, 0, 1), &vec![0; len]).illegal(code);
    }
    bench.disk.shape(|geometry| geometry.ops = OpSet::BASE);
    client.send(&cdb10(0x41, 8, 0, 1), &[0; BLOCK]).invalid_field();
    fill(&client, 0, 4);
    client.send(&cdb10(0x41, 0, 0, 3), &[0; BLOCK]).good();
    assert_eq!(bench.disk.content(0, 4), [&[0; 3 * BLOCK][..], &[7; BLOCK]].concat());
    bench.disk.shape(|geometry| geometry.size = 1 << 40);
    client.send(&cdb16(0x93, 1, 0, 0), &[]).invalid_field();
    client.send(&cdb16(0x93, 1, 0, 1 << 20), &[]).invalid_field();
}

#[test]
fn logs_say_what_is_used_and_how_the_device_is() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let log = |page: u8, subpage: u8, pointer: u8| {
        client.ask(&[0x4d, 0, 0x40 | page, subpage, 0, 0, pointer, 1, 0, 0])
    };
    assert_eq!(log(0, 0, 0).good(), [0, 0, 0, 3, 0, 0x0c, 0x2f]);
    let all = [0x40, 0xff, 0, 8, 0, 0, 0, 0xff, 0x0c, 0, 0x2f, 0];
    assert_eq!(log(0, 0xff, 0).good(), all);
    fill(&client, 0, 8);
    let used = [0x0c, 0, 0, 12, 0, 2, 3, 8, 0, 0, 0, 1, 1, 0, 0, 0];
    assert_eq!(log(0x0c, 0, 0).good(), used);
    assert_eq!(log(0x0c, 0, 2).good(), used);
    assert_eq!(log(0x0c, 0, 3).good(), [0x0c, 0, 0, 0]);
    assert_eq!(log(0x2f, 0, 0).good()[4..11], [0, 0, 3, 4, 0, 0, 0xff]);
    bench.disk.health.set(block::Health::Failed);
    assert_eq!(log(0x2f, 0, 0).good()[8], 0x5d);
    log(0x0d, 0, 0).invalid_field();
    log(0x0c, 1, 0).invalid_field();
    client.ask(&[0x4d, 1, 0x40, 0, 0, 0, 0, 1, 0, 0]).invalid_field();
    client.ask(&[0x4d, 0, 0, 0, 0, 0, 0, 1, 0, 0]).invalid_field();
}
