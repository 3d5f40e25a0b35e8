//! INQUIRY, vital product data, REPORT LUNS, and LUNs without a unit.

use crate::support::{Bench, Client};
use target::lun::attention::Attention;
use wire::scsi::{AdditionalSense, LogicalUnitNumber};

fn inquiry(client: &Client, evpd: u8, page: u8, room: u16) -> crate::support::Reply {
    let [high, low] = room.to_be_bytes();
    client.ask(&[0x12, evpd, page, high, low, 0])
}

#[test]
fn standard_inquiry_claims_what_is_there() {
    let client = Bench::removable().nexus("a");
    let data = inquiry(&client, 0, 0, 260).good();
    assert_eq!(data.len(), 96);
    assert_eq!(data[..8], [0, 0x80, 6, 0x32, 91, 0x38, 0x10, 2]);
    assert_eq!(&data[8..16], b"VIADUCT ");
    assert_eq!(&data[16..32], b"Virtual Disk    ");
    let claims: Vec<u16> =
        data[58..74].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    assert_eq!(claims, [0x00a0, 0x0460, 0x0960, 0x04c0, 0x0600, 0, 0, 0]);
    for room in 5..=255 {
        assert_eq!(inquiry(&client, 0, 0, room).good(), data[..data.len().min(room.into())]);
    }
    inquiry(&client, 0, 1, 256).invalid_field();
}

#[test]
fn every_supported_page_can_be_read_and_says_its_length() {
    let client = Bench::new().nexus("a");
    let pages = inquiry(&client, 1, 0, 255).good();
    assert_eq!(pages[4..], [0, 0x80, 0x83, 0x86, 0x88, 0x8f, 0xb0, 0xb1, 0xb2]);
    for page in &pages[4..] {
        let data = inquiry(&client, 1, *page, 1024).good();
        assert_eq!(data[1], *page);
        assert_eq!(data.len(), 4 + usize::from(u16::from_be_bytes([data[2], data[3]])));
    }
    inquiry(&client, 1, 0xb3, 255).invalid_field();
}

#[test]
fn a_unit_is_named_by_its_uuid_and_a_port_by_its_number() {
    let client = Bench::new().nexus("a");
    assert_eq!(&inquiry(&client, 1, 0x80, 255).good()[4..], b"web-1");
    let data = inquiry(&client, 1, 0x83, 255).good();
    let mut designators = Vec::new();
    let mut at = 4;
    while at < data.len() {
        let end = at + 4 + usize::from(data[at + 3]);
        designators.push((data[at], data[at + 1], data[at + 4..end].to_vec()));
        at = end;
    }
    let name = b"iqn.2026-11.org.viaduct:c:web,t,0x0001\0\0".to_vec();
    let device = b"iqn.2026-11.org.viaduct:c:web\0\0\0".to_vec();
    assert_eq!(
        designators,
        [
            (1, 0x03, b"\x309abcdef".to_vec()),
            (2, 0x01, b"VIADUCT web-1".to_vec()),
            (1, 0x0a, b"\x10\x000123456789abcdef".to_vec()),
            (0x51, 0x94, vec![0, 0, 0, 1]),
            (0x53, 0x98, name),
            (0x53, 0xa8, device),
        ]
    );
}

#[test]
fn block_limits_are_those_of_the_device() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let data = inquiry(&client, 1, 0xb0, 255).good();
    assert_eq!(data.len(), 64);
    assert_eq!(data[5], 128, "64 KiB to compare");
    assert_eq!(data[6..8], [0, 8]);
    assert_eq!(data[8..12], 32_768_u32.to_be_bytes());
    assert_eq!(data[12..16], 128_u32.to_be_bytes());
    assert_eq!(data[20..24], (1_u32 << 20).to_be_bytes());
    assert_eq!(data[28..36], [0, 0, 0, 8, 0x80, 0, 0, 0]);
    assert_eq!(inquiry(&client, 1, 0xb2, 255).good()[4..8], [11, 0xe4, 2, 0]);
    bench.disk.shape(|geometry| geometry.ops = block::OpSet::BASE);
    let data = inquiry(&client, 1, 0xb0, 255).good();
    assert_eq!((data[5], &data[20..36]), (0, &[0; 16][..]));
    assert_eq!(inquiry(&client, 1, 0xb2, 255).good()[4..8], [0; 4]);
}

#[test]
fn luns_are_reported_and_their_change_is_told_once() {
    let bench = Bench::new();
    let client = bench.nexus("a");
    let other = bench.nexus("b");
    let unit = other.nexus.unmap(0).unwrap();
    client.nexus.map(300, unit).unwrap();
    // What one unit has told, another does not.
    let again = bench.nexus("c").nexus.unmap(0).unwrap();
    client.nexus.map(7, again).unwrap();
    assert!(client.nexus.map(7, client.nexus.unit_at([0; 8]).unwrap()).is_err());
    let tur = client.send_to(LogicalUnitNumber::new(300).0, &[0; 6], &[], 0);
    tur.attention(AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED);
    client.ask(&[0; 6]).good();
    client.nexus.unmap(7).unwrap();
    client.ask(&[0; 6]).attention(AdditionalSense::REPORTED_LUNS_DATA_HAS_CHANGED);
    let report = |select: u8| client.ask(&[0xa0, 0, select, 0, 0, 0, 0, 0, 0, 255, 0, 0]).good();
    let luns = report(0);
    assert_eq!(luns[..8], [0, 0, 0, 16, 0, 0, 0, 0]);
    assert_eq!(luns[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0x41, 44, 0, 0, 0, 0, 0, 0]);
    assert_eq!(report(1)[3..10], [8, 0, 0, 0, 0, 0xc1, 1]);
    assert_eq!(report(2)[3], 24);
    client.ask(&[0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 255, 0, 0]).invalid_field();
    // Whoever has been told by the list is not told again.
    client
        .nexus
        .unit_at([0; 8])
        .unwrap()
        .member()
        .attentions()
        .raise(Attention::ReportedLunsChanged);
    report(0);
    client.ask(&[0; 6]).good();
}

#[test]
fn where_there_is_no_unit_only_questions_are_answered() {
    let client = Bench::new().nexus("a");
    let lun = LogicalUnitNumber::new(9).0;
    let data = client.send_to(lun, &[0x12, 0, 0, 0, 96, 0], &[], 96).good();
    assert_eq!(data[0], 0x7f);
    let unsupported = AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED;
    client.send_to(lun, &[0; 6], &[], 0).illegal(unsupported);
    let sense = client.send_to(lun, &[3, 0, 0, 0, 18, 0], &[], 18).good();
    assert_eq!((sense[2], sense[12]), (5, 0x25));
    let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0];
    assert_eq!(client.send_to(lun, &luns, &[], 16).good()[3], 8);
    let well_known = LogicalUnitNumber::REPORT_LUNS.0;
    assert_eq!(client.send_to(well_known, &[0x12, 0, 0, 0, 96, 0], &[], 96).good()[0], 0x1e);
    client.send_to(well_known, &[0; 6], &[], 0).good();
    client.send_to(well_known, &[0x28; 10], &[], 0).illegal(unsupported);
}

#[test]
fn what_is_not_in_the_table_is_refused_by_name() {
    let client = Bench::new().nexus("a");
    client.ask(&[0xff; 16]).illegal(AdditionalSense::INVALID_COMMAND_OPERATION_CODE);
    client.ask(&[]).good();
    client.ask(&[0x9e, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).invalid_field();
    let stray = client.ask(&[0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0]).answer.sense.unwrap();
    assert_eq!(stray, target::scsi::Sense::field_bit(1, 5));
}

#[test]
fn no_cdb_makes_a_transport_find_room_for_more_than_there_is() {
    let client = Bench::new().nexus("a");
    let luns = [0xa0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0];
    let parsed = client.nexus.parse([0; 8], &luns).unwrap();
    assert_eq!(parsed.data_in_len(), 512 * 1024);
    let set = [0xa4, 0x0a, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0];
    client.ask(&set).illegal(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);
}
