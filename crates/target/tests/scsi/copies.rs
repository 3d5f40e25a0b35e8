//! Third-party copies: EXTENDED COPY(LID1), tokens, and what is told of them.

use crate::support::{BLOCK, Bench, Client, Reply, cdb10, cdb16};
use block::OpSet;
use wire::scsi::{AdditionalSense, SenseKey};

const DISCARD: u8 = 0x10;

/// A CSCD descriptor of a unit, by the first of its designators.
fn cscd(client: &Client, lun: u8) -> Vec<u8> {
    let lun = [0, lun, 0, 0, 0, 0, 0, 0];
    let page = client.send_to(lun, &[0x12, 1, 0x83, 0, 255, 0], &[], 255).good();
    let mut cscd = vec![0xe4, 0, 0, 0];
    cscd.extend(&page[4..8 + usize::from(page[7])]);
    cscd.resize(28, 0);
    cscd.extend([0, 0, 2, 0]);
    cscd
}

fn block_to_block(sides: [u16; 2], blocks: u16, from: u64, to: u64) -> Vec<u8> {
    let mut segment = vec![2, 0, 0, 0x18];
    segment.extend(sides.iter().flat_map(|side| side.to_be_bytes()));
    segment.extend([0; 2]);
    segment.extend(blocks.to_be_bytes());
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment
}

fn offset_to_offset(bytes: u32, from: u64, to: u64, offset: u16) -> Vec<u8> {
    let mut segment = vec![0x0a, 0, 0, 0x1c, 0, 0, 0, 0];
    segment.extend(bytes.to_be_bytes());
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend(offset.to_be_bytes());
    segment.extend([0; 2]);
    segment
}

fn list(id: u8, usage: u8, cscds: &[u8], segments: &[u8]) -> Vec<u8> {
    let mut list = vec![id, usage];
    list.extend((cscds.len() as u16).to_be_bytes());
    list.extend([0; 4]);
    list.extend((segments.len() as u32).to_be_bytes());
    list.extend([0; 4]);
    list.extend(cscds);
    list.extend(segments);
    list
}

fn copy(client: &Client, list: &[u8]) -> Reply {
    client.send(&cdb16(0x83, 0, 0, list.len() as u32), list)
}

fn status(client: &Client, id: u8) -> Reply {
    client.ask(&cdb16(0x84, 0, u64::from(id) << 56, 64))
}

fn fill(client: &Client, lba: u32, count: u16, seed: u8) -> Vec<u8> {
    let data: Vec<u8> = (0..usize::from(count) * BLOCK).map(|at| (at / 100) as u8 ^ seed).collect();
    client.send(&cdb10(0x2a, 0, lba, count), &data).good();
    data
}

/// A client with a second LU at number 1.
fn two() -> (Bench, Bench, Client) {
    let (bench, second) = (Bench::new(), Bench::named(*b"fedcba9876543210"));
    let client = bench.nexus("a");
    let unit = second.nexus("a").nexus.unmap(0).unwrap();
    client.nexus.map(1, unit).unwrap();
    client.ask(&cdb10(0xa0, 0, 0, 0).iter().copied().chain([0; 2]).collect::<Vec<_>>()).good();
    (bench, second, client)
}

#[test]
fn segments_are_copied_within_and_between_units() {
    let (bench, second, client) = two();
    let cscds = [cscd(&client, 0), cscd(&client, 1)].concat();
    let data = fill(&client, 0, 2500, 1);
    let segments = [block_to_block([0, 1], 2500, 0, 100), block_to_block([0, 0], 9, 3, 4000)];
    copy(&client, &list(1, 0, &cscds, &segments.concat())).good();
    assert_eq!(second.disk.content(100, 2500), data);
    assert_eq!(bench.disk.content(4000, 9), data[3 * BLOCK..12 * BLOCK]);
    let bytes = (2509 * BLOCK as u32).to_be_bytes();
    assert_eq!(status(&client, 1).good(), [&[0, 0, 0, 8, 1, 0, 2, 0][..], &bytes].concat());
    // With the device's own copy.
    bench.disk.shape(|geometry| geometry.ops = geometry.ops | OpSet::COPY);
    let segment = offset_to_offset(4 * BLOCK as u32, 0, 3000, 0);
    copy(&client, &list(2, DISCARD, &cscds, &segment)).good();
    assert_eq!(bench.disk.content(3000, 4), data[..4 * BLOCK]);
    assert!(matches!(bench.disk.last_op.get(), Some(block::Op::Copy { .. })));
    status(&client, 2).invalid_field();
}

#[test]
fn lists_that_contradict_themselves_copy_nothing() {
    let client = Bench::new().nexus("a");
    let cscd = cscd(&client, 0);
    let segment = block_to_block([0, 0], 8, 0, 100);
    let whole = list(1, 0, &cscd, &segment);
    let length = AdditionalSense::PARAMETER_LIST_LENGTH_ERROR;
    copy(&client, &[]).good();
    for len in [15, 16 + 31, whole.len() - 1] {
        copy(&client, &whole[..len]).illegal(length);
    }
    copy(&client, &list(1, 0, &cscd.repeat(17), &segment))
        .illegal(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS);
    copy(&client, &list(1, 0, &cscd, &segment.repeat(65)))
        .illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS);
    copy(&client, &list(1, 0, &cscd.repeat(17), &segment.repeat(73))).illegal(length);
    let mut other = cscd.clone();
    other[0] = 0xe0;
    copy(&client, &list(1, 0, &other, &segment))
        .illegal(AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE);
    let mut other = segment.clone();
    other[0] = 3;
    copy(&client, &list(1, 0, &cscd, &other))
        .illegal(AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE);
    let mut inline = whole.clone();
    inline[15] = 1;
    copy(&client, &inline).illegal(AdditionalSense::INLINE_DATA_LENGTH_EXCEEDED);
    let part = offset_to_offset(BLOCK as u32, 0, 9, 7);
    copy(&client, &list(1, 0, &cscd, &part)).illegal(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT);
    let odd = offset_to_offset(100, 0, 9, 0);
    copy(&client, &list(1, 0, &cscd, &odd)).illegal(AdditionalSense::UNEXPECTED_INEXACT_SEGMENT);
    copy(&client, &list(1, 0, &cscd, &offset_to_offset((32 << 20) + 512, 0, 9, 0)))
        .invalid_parameter();
}

#[test]
fn what_a_side_cannot_do_aborts_the_copy() {
    let (bench, second, client) = two();
    let cscds = [cscd(&client, 0), cscd(&client, 1)].concat();
    let not_reachable = AdditionalSense::COPY_TARGET_DEVICE_NOT_REACHABLE;
    let run = |segment: Vec<u8>| copy(&client, &list(1, 0, &cscds, &segment));
    run(block_to_block([0, 2], 8, 0, 9)).fails(SenseKey::COPY_ABORTED, not_reachable);
    let beyond = AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION;
    run(block_to_block([0, 0], 2, 0, 4095)).fails(SenseKey::COPY_ABORTED, beyond);
    run(block_to_block([0, 0], 2, u64::MAX, 0)).fails(SenseKey::COPY_ABORTED, beyond);
    assert_eq!(status(&client, 1).good()[4..8], [2, 0, 0, 0]);
    second.nexus("b").ask(&[0x16, 0, 0, 0, 0, 0]).good();
    run(block_to_block([0, 1], 8, 0, 9)).fails(SenseKey::COPY_ABORTED, not_reachable);
    second.disk.shape(|geometry| geometry.read_only = true);
    run(block_to_block([0, 1], 8, 0, 9)).fails(SenseKey::COPY_ABORTED, not_reachable);
    let verify = vec![7, 0, 0, 8, 0, 1, 0, 0, 1, 0, 0, 0];
    run(verify.clone()).fails(SenseKey::COPY_ABORTED, not_reachable);
    run([&verify[..5], &[0], &verify[6..]].concat()).good();
    // A unit that is not seen does not exist.
    client.nexus.unmap(1);
    client.ask(&[0; 6]).attention(AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED);
    run(block_to_block([1, 0], 8, 0, 9)).fails(SenseKey::COPY_ABORTED, not_reachable);
    assert_eq!(bench.disk.content(9, 8), [0; 8 * BLOCK]);
}

#[test]
fn limits_are_told_in_page_and_parameters() {
    let client = Bench::new().nexus("a");
    let data = client.ask(&cdb16(0x84, 3, 0, 1024)).good();
    assert_eq!(data.len(), 48);
    assert_eq!(data[..5], [0, 0, 0, 44, 1]);
    assert_eq!(data[8..20], [0, 16, 0, 64, 0, 0, 0x0a, 0, 2, 0, 0, 0]);
    assert_eq!(data[43..], [4, 2, 7, 0x0a, 0xe4]);
    let page = client.ask(&[0x12, 1, 0x8f, 4, 0, 0]).good();
    let mut kinds = Vec::new();
    let mut at = 4;
    while at < page.len() {
        kinds.push(u16::from_be_bytes([page[at], page[at + 1]]));
        at += 4 + usize::from(u16::from_be_bytes([page[at + 2], page[at + 3]]));
    }
    assert_eq!(kinds, [0, 1, 4, 8, 0x0c, 0x0108, 0x8001]);
    assert_eq!(at, page.len());
    let commands = [10, 0x83, 3, 0, 0x10, 0x11, 0x84, 3, 0, 3, 7];
    assert!(page.windows(commands.len()).any(|bytes| bytes == commands));
}

fn ranges(ranges: &[(u64, u32)]) -> Vec<u8> {
    let range = |(lba, count): &(u64, u32)| {
        [&lba.to_be_bytes()[..], &count.to_be_bytes(), &[0; 4]].concat()
    };
    ranges.iter().flat_map(range).collect()
}

fn populate(client: &Client, id: u32, of: &[(u64, u32)]) -> Reply {
    let ranges = ranges(of);
    let mut list = vec![0; 14];
    list.extend((ranges.len() as u16).to_be_bytes());
    list.extend(ranges);
    client.send(&token_cdb(0x10, id, &list), &list)
}

fn write_using(client: &Client, token: &[u8], offset: u64, to: &[(u64, u32)]) -> Reply {
    let ranges = ranges(to);
    let mut list = vec![0; 8];
    list.extend(offset.to_be_bytes());
    list.extend(token);
    list.extend([0; 6]);
    list.extend((ranges.len() as u16).to_be_bytes());
    list.extend(ranges);
    client.send(&token_cdb(0x11, 9, &list), &list)
}

fn token_cdb(action: u8, id: u32, list: &[u8]) -> [u8; 16] {
    cdb16(0x83, action, u64::from(id), list.len() as u32)
}

/// RECEIVE ROD TOKEN INFORMATION.
fn information(client: &Client, id: u32) -> Reply {
    client.ask(&cdb16(0x84, 7, u64::from(id) << 32, 1024))
}

#[test]
fn a_token_stands_for_its_ranges() {
    let (bench, second, client) = two();
    let data = fill(&client, 10, 20, 3);
    populate(&client, 0x0102_0304, &[(10, 4), (20, 6)]).good();
    information(&client, 1).invalid_field();
    let told = information(&client, 0x0102_0304).good();
    assert_eq!(told.len(), 32 + 4 + 2 + 512);
    assert_eq!(told[..6], [0, 0, 2, 0x22, 0x10, 1]);
    assert_eq!((told[15], &told[16..26]), (0xf1, &[0, 0, 0, 0, 0, 0, 0, 10, 0, 2][..]));
    assert_eq!(told[32..36], [0, 0, 2, 2]);
    let token = &told[38..];
    assert_eq!(token[..8], [0, 1, 0, 0, 0, 0, 1, 0xf8]);
    write_using(&client, token, 3, &[(100, 2), (200, 5)]).good();
    let source = [&data[..4 * BLOCK], &data[10 * BLOCK..16 * BLOCK]].concat();
    assert_eq!(bench.disk.content(100, 2), source[3 * BLOCK..5 * BLOCK]);
    assert_eq!(bench.disk.content(200, 5), source[5 * BLOCK..]);
    assert_eq!(information(&client, 9).good()[4..6], [0x11, 1]);
    write_using(&client, token, 4, &[(100, 7)]).invalid_parameter();
    // The other unit, by the same token, as long as it sees the source.
    let other = second.nexus("b");
    let unknown = AdditionalSense::INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN;
    write_using(&other, token, 0, &[(0, 1)]).illegal(unknown);
    let source_unit = bench.nexus("b").nexus.unmap(0).unwrap();
    other.nexus.map(7, source_unit).unwrap();
    other.ask(&[0; 6]).attention(AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED);
    write_using(&other, token, 0, &[(0, 10)]).good();
    assert_eq!(second.disk.content(0, 10), source);
}

#[test]
fn tokens_have_limits_and_zeroes() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    populate(&client, 1, &[]).invalid_parameter();
    populate(&client, 1, &[(0, 1); 17]).illegal(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS);
    populate(&client, 1, &[(0, 1); 16]).good();
    populate(&client, 1, &[(4095, 2)]).out_of_range();
    let short = client.send(&token_cdb(0x10, 1, &[0; 9]), &[0; 9]);
    short.illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
    fill(&client, 0, 16, 1);
    let mut zero = vec![0xff, 0xff, 0, 1, 0, 0, 1, 0xf8];
    zero.resize(512, 0);
    write_using(&client, &zero, 0, &[(8, 8)]).good();
    assert_eq!(bench.disk.content(8, 8), [0; 8 * BLOCK]);
    let unsupported = AdditionalSense::INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE;
    write_using(&client, &[0x77; 512], 0, &[(8, 8)]).illegal(unsupported);
    let mut corrupt = vec![0, 1, 0, 0, 0, 0, 1, 0xf8];
    corrupt.resize(512, 0xff);
    let code = AdditionalSense::INVALID_TOKEN_OPERATION_TOKEN_CORRUPT;
    write_using(&client, &corrupt, 0, &[(8, 8)]).illegal(code);
}
