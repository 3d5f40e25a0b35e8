//! What the unit says of its commands, and small commands that only talk.

use crate::support::Bench;
use wire::scsi::AdditionalSense;

fn report(options: u8, opcode: u8, action: u8) -> [u8; 12] {
    [0xa3, 0x0c, options, opcode, 0, action, 0, 0, 0xff, 0xff, 0, 0]
}

#[test]
fn the_table_is_told_as_a_list_and_one_by_one() {
    let client = Bench::new().nexus("a");
    let plain = client.ask(&report(0, 0, 0)).good();
    let timed = client.ask(&report(0x80, 0, 0)).good();
    let len = |data: &[u8]| u32::from_be_bytes(*data.first_chunk().unwrap()) as usize;
    assert_eq!((len(&plain) + 4, len(&timed) + 4), (plain.len(), timed.len()));
    let count = (plain.len() - 4) / 8;
    assert_eq!((timed.len() - 4) / 20, count);
    for (plain, timed) in plain[4..].chunks(8).zip(timed[4..].chunks(20)) {
        let (opcode, action, servactv) = (plain[0], plain[3], plain[5] == 1);
        assert_eq!((timed[5] & 2, &timed[8..10]), (2, &[0, 0x0a][..]));
        assert!(servactv || action == 0);
        let by_opcode = client.ask(&report(1, opcode, action));
        let by_action = client.ask(&report(2, opcode, action));
        let (found, refused) =
            if servactv { (by_action, by_opcode) } else { (by_opcode, by_action) };
        refused.invalid_field();
        let found = found.good();
        assert_eq!(found, client.ask(&report(3, opcode, action)).good());
        assert_eq!((found[1], found[2]), (3, 0));
        assert_eq!(found.len(), 4 + usize::from(found[3]));
        assert_eq!(found[4], opcode);
        if servactv {
            assert_eq!(found[5] & 0x1f, action);
        }
        assert_eq!(plain[7], found[3]);
        assert_eq!(client.ask(&report(0x83, opcode, action)).good().len(), found.len() + 12);
    }
    assert_eq!(client.ask(&report(1, 0xff, 0)).good(), [0, 1, 0, 0]);
    assert_eq!(client.ask(&report(3, 0x28, 1)).good(), [0, 1, 0, 0]);
    client.ask(&report(4, 0, 0)).invalid_field();
    let read = client.ask(&report(1, 0x28, 0)).good();
    assert_eq!(read[4..], [0x28, 0x18, 255, 255, 255, 255, 0x3f, 255, 255, 4]);
}

#[test]
fn task_management_functions_are_told() {
    let client = Bench::new().nexus("a");
    let ask = |options| client.ask(&[0xa3, 0x0d, options, 0, 0, 0, 0, 0, 0, 64, 0, 0]).good();
    assert_eq!(ask(0), [0xfc, 7, 0, 0]);
    assert_eq!((ask(0x80).len(), ask(0x80)[3]), (16, 12));
}

#[test]
fn the_echo_buffer_is_each_nexus_own() {
    let bench = Bench::new();
    let (client, other) = (bench.nexus("a"), bench.nexus("b"));
    let echo = [0x3c, 0x0a, 0, 0, 0, 0, 0, 0x10, 0, 0];
    client.ask(&echo).illegal(AdditionalSense::COMMAND_SEQUENCE_ERROR);
    client.send(&[0x3b, 0x0a, 0, 0, 0, 0, 0, 0, 4, 0], b"ping").good();
    other.send(&[0x3b, 0x0a, 0, 0, 0, 0, 0, 0, 4, 0], b"pong").good();
    assert_eq!(client.ask(&echo).good(), b"ping");
    assert_eq!(client.ask(&[0x3c, 0x0b, 0, 0, 0, 0, 0, 0, 4, 0]).good(), [0, 0, 0x10, 0]);
    assert_eq!(client.ask(&[0x3c, 3, 0, 0, 0, 0, 0, 0, 4, 0]).good(), [0; 4]);
    client.send(&[0x3b, 0x0a, 0, 0, 0, 0, 0, 0x10, 1, 0], &[0; 4097]).invalid_field();
    client.send(&[0x3b, 2, 0, 0, 0, 0, 0, 0, 4, 0], b"ping").invalid_field();
    client.ask(&[0x3c, 2, 0, 0, 0, 0, 0, 0, 4, 0]).invalid_field();
}

#[test]
fn a_self_test_asks_the_device() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    client.ask(&[0x1d, 4, 0, 0, 0, 0]).good();
    bench.disk.health.set(block::Health::Failed);
    let failed = AdditionalSense::LOGICAL_UNIT_FAILED_SELF_TEST;
    client.ask(&[0x1d, 4, 0, 0, 0, 0]).fails(wire::scsi::SenseKey::HARDWARE_ERROR, failed);
    client.ask(&[0x1d, 0x20, 0, 0, 0, 0]).invalid_field();
    client.send(&[0x1d, 0x10, 0, 0, 4, 0], &[0; 4]).good();
    client.send(&[0x1d, 0x10, 0, 0, 4, 0], &[1, 0, 0, 0]).invalid_parameter();
    assert_eq!(client.ask(&[0x1c, 1, 0, 0, 64, 0]).good(), [0, 0, 0, 1, 0]);
    client.ask(&[0x1c, 1, 1, 0, 64, 0]).invalid_field();
}

#[test]
fn a_unit_without_groups_has_one() {
    let client = Bench::new().nexus("a");
    let report = |format: u8| client.ask(&[0xa3, format | 0x0a, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    let group = [0, 0x8f, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
    assert_eq!(report(0).good(), [&[0, 0, 0, 12][..], &group].concat());
    assert_eq!(report(0x20).good(), [&[0, 0, 0, 16, 0x20, 60, 0, 0][..], &group].concat());
    report(0x40).invalid_field();
    let set =
        |list: &[u8]| client.send(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0, 0], list);
    set(&[]).good();
    set(&[0, 0, 0, 0, 0, 0, 0, 1]).good();
    set(&[0, 0, 0, 0, 0, 0, 0, 2]).invalid_parameter();
    set(&[0, 0, 0, 0, 0x0f, 0, 0, 1]).invalid_parameter();
    set(&[0, 0, 0, 0, 0, 0]).illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
}
