//! The medium: its capacity, its change of size, its tray, its locks.

use crate::support::{BLOCK, Bench, cdb10, cdb16};
use target::lun::Change;
use wire::scsi::{AdditionalSense, SenseKey};

#[test]
fn capacity_says_size_shape_and_that_space_comes_back() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    assert_eq!(client.ask(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]).good(), [0, 0, 15, 255, 0, 0, 2, 0]);
    let long = |room| client.ask(&cdb16(0x9e, 0x10, 0, room));
    let data = long(32).good();
    assert_eq!(data[..16], [0, 0, 0, 0, 0, 0, 15, 255, 0, 0, 2, 0, 0, 3, 0xc0, 0]);
    for room in 0..16 {
        assert_eq!(long(room).good(), data[..room as usize]);
    }
    bench.disk.shape(|geometry| geometry.ops = block::OpSet::BASE);
    assert_eq!(long(16).good()[14], 0);
    bench.disk.shape(|geometry| geometry.size *= 2);
    let _ = bench.local.apply(Change::Resized);
    client.ask(&[0; 6]).attention(AdditionalSense::CAPACITY_DATA_HAS_CHANGED);
    assert_eq!(long(16).good()[6..8], [31, 255]);
}

#[test]
fn a_client_opens_and_closes_the_tray() {
    let bench = Bench::removable();
    let (client, other) = (bench.nexus("a"), bench.nexus("b"));
    let tray = |flags: u8| client.ask(&[0x1b, 0, 0, 0, flags, 0]);
    tray(2).good();
    let missing = AdditionalSense::MEDIUM_NOT_PRESENT_TRAY_OPEN;
    for cdb in [
        &[0; 6][..],
        &cdb10(0x28, 0, 0, 1),
        &cdb10(0x2a, 0, 0, 1),
        &cdb10(0x35, 6, 1, 1),
        &cdb16(0x91, 6, 1, 1),
        &cdb10(0x25, 0, 0, 0),
        &cdb16(0x9e, 0x10, 0, 15),
        &cdb16(0x9e, 0x12, 0, 24),
        &cdb10(0x2f, 2, 0, 1),
        &cdb10(0x34, 2, 0, 1),
        &cdb10(0x41, 0, 0, 1),
        &cdb10(0x42, 0, 0, 24),
    ] {
        client.send(cdb, &[0; BLOCK]).fails(SenseKey::NOT_READY, missing);
    }
    assert_eq!(client.ask(&[3, 0, 0, 0, 18, 0]).good()[2], 2);
    tray(3).good();
    client.ask(&[0; 6]).good();
    let changed = AdditionalSense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
    other.ask(&[0; 6]).attention(changed);
    // Neither stopping nor a power condition takes the medium away.
    for byte in (0..16).map(|condition| condition << 4).chain([1, 4]) {
        tray(byte).good();
        client.ask(&[0; 6]).good();
    }
    Bench::new().nexus("a").ask(&[0x1b, 0, 0, 0, 2, 0]).invalid_field();
}

#[test]
fn a_locked_tray_does_not_move() {
    let bench = Bench::removable();
    let (client, other) = (bench.nexus("a"), bench.nexus("b"));
    let prevented = AdditionalSense::MEDIUM_REMOVAL_PREVENTED;
    client.ask(&[0x1e, 0, 0, 0, 1, 0]).good();
    for flags in [2, 3] {
        other.ask(&[0x1b, 0, 0, 0, flags, 0]).illegal(prevented);
    }
    client.ask(&[0; 6]).good();
    other.ask(&[0x1e, 0, 0, 0, 0, 0]).good();
    client.ask(&[0x1b, 0, 0, 0, 2, 0]).illegal(prevented);
    client.ask(&[0x1e, 0, 0, 0, 0, 0]).good();
    client.ask(&[0x1b, 0, 0, 0, 2, 0]).good();
    client.ask(&[0x1e, 0, 0, 0, 1, 0]).good();
    client.ask(&[0x1b, 0, 0, 0, 3, 0]).illegal(prevented);
    client.ask(&[0x1e, 0, 0, 0, 2, 0]).invalid_field();
    // A nexus that is gone locks nothing.
    client.world.block_on(client.nexus.lose(true));
    client.ask(&[0; 6]).attention(AdditionalSense::I_T_NEXUS_LOSS_OCCURRED);
    client.ask(&[0x1b, 0, 0, 0, 3, 0]).good();
    client.ask(&[0; 6]).good();
}
