//! Access states and port groups, interlocks, and units of other shapes.

use crate::support::{Bench, cdb10, cdb16};
use target::lun::access::{Access, AccessState, Altered, Group, Port};
use target::lun::{AccessChange, Change, PortId};
use wire::scsi::{AdditionalSense, SenseKey, Status};

fn group(id: u16, state: AccessState, ports: &[u16]) -> Group {
    let port = |id: &u16| Port { id: PortId(*id), target: 1 };
    let ports = ports.iter().map(port).collect();
    Group { id, state, preferred: id == 1, altered: Altered::Never, ports }
}

fn set(bench: &Bench, groups: Vec<Group>) {
    let access = Access { groups };
    bench.local.apply(Change::Access(AccessChange::Set(access))).0.unwrap();
}

#[test]
fn ports_that_do_not_lead_there_say_why() {
    use AccessState::{NonOptimized, Optimized, Standby, Transitioning, Unavailable};
    let bench = Bench::new();
    let client = bench.nexus("a");
    set(&bench, vec![group(1, NonOptimized, &[1, 2]), group(2, Optimized, &[3])]);
    client.ask(&[0; 6]).attention(AdditionalSense::ASYMMETRIC_ACCESS_STATE_CHANGED);
    client.ask(&cdb10(0x28, 0, 0, 1)).good();
    let report = client.ask(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]).good();
    let first = [0x81, 0x8f, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    let second = [0, 0x8f, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3];
    assert_eq!(report, [&[0, 0, 0, 28][..], &first, &second].concat());
    // The designators of a port say its group.
    let page = client.ask(&[0x12, 1, 0x83, 4, 0, 0]).good();
    assert!(page.windows(8).any(|bytes| bytes == [0x51, 0x95, 0, 4, 0, 0, 0, 1]));
    let ports = client.ask(&[0x12, 1, 0x88, 4, 0, 0]).good();
    assert_eq!(ports.windows(2).filter(|bytes| *bytes == [0x51, 0x94]).count(), 3);
    let wish = [0, 0, 0, 0, 0, 0, 0, 1];
    client.send(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], &wish).good();
    assert_eq!(bench.local.take_wishes(), [1]);
    for (state, code) in [(Standby, 0x040b), (Unavailable, 0x040c), (Transitioning, 0x040a)] {
        set(&bench, vec![group(1, state, &[1])]);
        client.ask(&[3, 0, 0, 0, 18, 0]).good();
        let code = AdditionalSense(code);
        for cdb in [&[0; 6][..], &cdb10(0x28, 0, 0, 1), &cdb10(0x2a, 0, 0, 0)] {
            client.ask(cdb).fails(SenseKey::NOT_READY, code);
        }
        client.ask(&[0x12, 0, 0, 0, 96, 0]).good();
        client.ask(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]).good();
    }
}

#[test]
fn an_interlocked_attention_stays_until_it_is_asked_for() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let mut page = client.ask(&[0x1a, 8, 0x0a, 0, 255, 0]).good()[4..].to_vec();
    page[4] |= 0x30;
    let list = [&[0; 4], &page[..]].concat();
    client.send(&[0x15, 0x10, 0, 0, list.len() as u8, 0], &list).good();
    let changed = AdditionalSense::CAPACITY_DATA_HAS_CHANGED;
    bench.local.apply(Change::Resized).0.unwrap();
    client.ask(&[0; 6]).attention(changed);
    client.ask(&[0; 6]).attention(changed);
    assert_eq!(client.ask(&[3, 0, 0, 0, 18, 0]).good()[12..14], [0x2a, 9]);
    client.ask(&[0; 6]).good();
    // A conflict leaves one behind.
    bench.nexus("b").ask(&[0x16, 0, 0, 0, 0, 0]).good();
    assert_eq!(client.ask(&[0; 6]).answer.status, Status::RESERVATION_CONFLICT);
    client.ask(&[0; 6]).attention(AdditionalSense::PREVIOUS_RESERVATION_CONFLICT_STATUS);
}

#[test]
fn blocks_may_be_longer() {
    let bench = Bench::new();
    bench.disk.shape(|geometry| geometry.block_size = 4096);
    let client = bench.nexus("a");
    let capacity = client.ask(&cdb16(0x9e, 0x10, 0, 16)).good();
    assert_eq!(capacity, [0, 0, 0, 0, 0, 0, 1, 255, 0, 0, 16, 0, 0, 0, 0xc0, 0]);
    client.send(&cdb16(0x8a, 0, 511, 1), &[6; 4096]).good();
    assert_eq!(client.ask(&cdb10(0x28, 0, 511, 1)).good(), [6; 4096]);
    client.ask(&cdb10(0x28, 0, 511, 2)).out_of_range();
    assert_eq!(bench.disk.content(511 * 8, 8), [6; 4096]);
    let limits = client.ask(&[0x12, 1, 0xb0, 0, 64, 0]).good();
    assert_eq!(limits[5..12], [16, 0, 1, 0, 0, 16, 0]);
}

#[test]
fn a_company_id_makes_a_registered_name() {
    let client = Bench::of_company([0xa1, 0xb2, 0xc3]).nexus("a");
    let page = client.ask(&[0x12, 1, 0x83, 4, 0, 0]).good();
    let name = [&[0x6a, 0x1b, 0x2c, 0x30 | b'3' & 15][..], b"456789abcdef"].concat();
    assert_eq!(page[4..8], [1, 3, 0, 16]);
    assert_eq!(page[8..24], name);
}
