//! What compares: VERIFY, WRITE AND VERIFY, COMPARE AND WRITE.

use crate::support::{BLOCK, Bench, Reply, cdb10, cdb12, cdb16};
use block::Op;
use wire::scsi::{AdditionalSense, SenseKey};

#[track_caller]
fn differs_at(reply: Reply, at: u64) {
    let sense = reply.answer.sense.unwrap();
    assert_eq!(sense.key, SenseKey::MISCOMPARE);
    assert_eq!(sense.code, AdditionalSense::MISCOMPARE_DURING_VERIFY_OPERATION);
    assert_eq!(sense.information, Some(at));
}

/// VERIFY in its three lengths.
fn verifies(flags: u8, lba: u32, count: u16) -> [Vec<u8>; 3] {
    [
        cdb10(0x2f, flags, lba, count).to_vec(),
        cdb12(0xaf, flags, lba, count.into()).to_vec(),
        cdb16(0x8f, flags, lba.into(), count.into()).to_vec(),
    ]
}

#[test]
fn verify_compares_when_it_is_to() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let data: Vec<u8> = (0..600 * BLOCK).map(|at| (at / 100) as u8).collect();
    client.send(&cdb10(0x2a, 0, 0, 600), &data).good();
    for cdb in verifies(0x12, 0, 600) {
        client.send(&cdb, &data).good();
        // The second look of two.
        let mut other = data.clone();
        other[300_000] ^= 1;
        differs_at(client.send(&cdb, &other), 300_000);
    }
    for cdb in verifies(0, 0, 600) {
        client.send(&cdb, &data[..9]).good();
    }
    for cdb in verifies(2, 4096, 0) {
        client.ask(&cdb).good();
    }
    for cdb in verifies(2, 4097, 0).into_iter().chain(verifies(0, 4095, 2)) {
        client.send(&cdb, &[0; 2 * BLOCK]).out_of_range();
    }
    for cdb in verifies(4, 0, 1).into_iter().chain(verifies(0x20, 0, 1)) {
        client.send(&cdb, &[0; BLOCK]).invalid_field();
    }
}

#[test]
fn one_block_is_compared_with_each() {
    let client = Bench::new().nexus("a");
    client.send(&cdb10(0x2a, 0, 8, 2), &[5; 2 * BLOCK]).good();
    for cdb in verifies(6, 8, 2) {
        client.send(&cdb, &[5; BLOCK]).good();
    }
    for cdb in verifies(6, 8, 3) {
        differs_at(client.send(&cdb, &[5; BLOCK]), 0);
    }
}

#[test]
fn write_and_verify_does_both() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    for (cdb, seed) in [
        (cdb10(0x2e, 0x12, 3, 2).to_vec(), 1),
        (cdb12(0xae, 2, 3, 2).to_vec(), 2),
        (cdb16(0x8e, 0, 3, 2).to_vec(), 3),
    ] {
        client.send(&cdb, &[seed; 2 * BLOCK]).good();
        assert_eq!(bench.disk.content(3, 2), [seed; 2 * BLOCK]);
        assert_eq!(bench.disk.last_op.get(), Some(Op::Read));
    }
    client.ask(&cdb10(0x2e, 2, 0, 0)).good();
    client.ask(&cdb10(0x2e, 2, 4097, 0)).out_of_range();
    client.send(&cdb10(0x2e, 6, 0, 1), &[0; BLOCK]).invalid_field();
}

#[test]
fn compare_and_write_is_one_request() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let caw = |lba: u64, count: u8, flags: u8| {
        let mut cdb = cdb16(0x89, flags, lba, 0);
        cdb[13] = count;
        cdb
    };
    let data = [[0; BLOCK], [1; BLOCK]].concat();
    client.send(&caw(7, 1, 0x18), &data).good();
    assert_eq!(bench.disk.last_op.get(), Some(Op::CompareAndWrite { fua: true }));
    assert_eq!(bench.disk.content(7, 1), [1; BLOCK]);
    let mut expected = [1; BLOCK];
    expected[77] = 9;
    differs_at(client.send(&caw(7, 1, 0), &[expected, [2; BLOCK]].concat()), 77);
    assert_eq!(bench.disk.content(7, 1), [1; BLOCK]);
    client.ask(&caw(0, 0, 0)).good();
    client.send(&caw(4096, 1, 0), &data).out_of_range();
    client.send(&caw(0, 129, 0), &[0; 258 * BLOCK]).invalid_field();
    // Neither too little nor too much data is what was meant.
    for len in [BLOCK, 4 * BLOCK] {
        let code = AdditionalSense::INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT;
        client.send(&caw(0, 1, 0), &vec![0; len]).illegal(code);
    }
}

#[test]
fn or_write_is_one_request() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    client.send(&cdb16(0x8a, 0, 5, 2), &[0x0f; 2 * BLOCK]).good();
    client.send(&cdb16(0x8b, 0x18, 5, 2), &[0xa0; 2 * BLOCK]).good();
    assert_eq!(bench.disk.last_op.get(), Some(Op::OrWrite { fua: true }));
    assert_eq!(bench.disk.content(5, 2), [0xaf; 2 * BLOCK]);
    client.ask(&cdb16(0x8b, 0, 0, 0)).good();
    client.ask(&cdb16(0x8b, 0, 4097, 0)).out_of_range();
    client.send(&cdb16(0x8b, 0, 4095, 2), &[0; 2 * BLOCK]).out_of_range();
    client.send(&cdb16(0x8b, 0x20, 0, 1), &[0; BLOCK]).invalid_field();
    client.send(&cdb16(0x8b, 0, 0, 129), &[0; 129 * BLOCK]).invalid_field();
}

#[test]
fn what_the_device_cannot_do_in_one_step_there_is_not() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    bench.disk.shape(|geometry| geometry.ops = block::OpSet::BASE);
    for opcode in [0x89, 0x8b] {
        let unknown = AdditionalSense::INVALID_COMMAND_OPERATION_CODE;
        client.send(&cdb16(opcode, 0, 0, 1), &[0; BLOCK]).illegal(unknown);
        let report = [0xa3, 0x0c, 1, opcode, 0, 0, 0, 0, 0, 64, 0, 0];
        assert_eq!(client.ask(&report).good(), [0, 1, 0, 0]);
    }
}
