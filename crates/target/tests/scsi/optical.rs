//! The optical drive: what a host asks when it finds one, when a medium comes and goes, and when it
//! reads.

use crate::support::{Bench, Client, SETTINGS, cdb10, cdb12};
use target::lun::{Change, MediumChange};
use target::scsi::{Kind, Settings};
use wire::scsi::{AdditionalSense, SenseKey};

const BLOCK: u32 = 2048;
/// Blocks of 2,048 bytes.
const BLOCKS: u32 = 1024;
const CHANGED: AdditionalSense = AdditionalSense::NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED;
const TRAY_OPEN: AdditionalSense = AdditionalSense::MEDIUM_NOT_PRESENT_TRAY_OPEN;
const PREVENTED: AdditionalSense = AdditionalSense::MEDIUM_REMOVAL_PREVENTED;

/// A drive with a CD.
fn drive() -> Bench {
    let settings = Settings { kind: Kind::Optical, removable: true, ..SETTINGS };
    let bench = Bench::with(u64::from(BLOCKS * 4), settings);
    bench.disk.shape(|geometry| {
        geometry.block_size = BLOCK;
        geometry.physical_block_size = BLOCK;
        geometry.ops = block::OpSet::BASE;
        geometry.read_only = true;
    });
    bench
}

/// The medium is as large as a DVD; what is behind the CD's end cannot be read.
fn dvd() -> Bench {
    let bench = drive();
    bench.disk.shape(|geometry| geometry.size = 2_000_000 * u64::from(BLOCK));
    bench
}

fn operator(bench: &Bench, change: MediumChange) {
    bench.local.apply(Change::Medium(change)).0.unwrap();
}

/// GET EVENT STATUS NOTIFICATION as Linux asks: event code and status.
fn event(client: &Client) -> [u8; 2] {
    let data = client.ask(&[0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0]).good();
    assert_eq!((data.len(), &data[..4]), (8, &[0, 6, 4, 0x56][..]));
    [data[4], data[5]]
}

fn tray(client: &Client, flags: u8) -> crate::support::Reply {
    client.ask(&[0x1b, 0, 0, 0, flags, 0])
}

#[test]
fn a_drive_says_what_it_is() {
    let client = drive().nexus("a");
    let data = client.ask(&[0x12, 0, 0, 0, 96, 0]).good();
    assert_eq!((data[0], data[1] & 0x80), (0x05, 0x80));
    assert_eq!(&data[8..32], b"VIADUCT Virtual DVD-ROM ");
    let pages = client.ask(&[0x12, 1, 0, 0, 96, 0]).good();
    assert_eq!(pages, [5, 0, 0, 5, 0, 0x80, 0x83, 0x86, 0x88], "none of block devices");
    // What Linux wants to know when it finds the drive: of which the page lies behind a header and
    // no block descriptor.
    let page = client.ask(&[0x1a, 0, 0x2a, 0, 128, 0]).good();
    assert_eq!((page.len(), page[0], page[2], page[3]), (30, 29, 0, 0));
    assert_eq!(page[4..6], [0x2a, 24]);
    assert!(page[6] & 0x08 != 0, "reads DVDs");
    assert_eq!(page[7], 0, "writes nothing");
    assert_eq!((page[10] >> 5, page[10] & 0x0b), (1, 0x09), "a tray that ejects and locks");
    assert_eq!(u16::from_be_bytes([page[12], page[13]]), 50 * 176);
    let all = client.ask(&[0x5a, 0, 0x3f, 0, 0, 0, 0, 1, 0, 0]).good();
    assert_eq!(all[..8], [0, all.len() as u8 - 2, 0, 0, 0, 0, 0, 0]);
    let (mut at, mut codes) = (8, Vec::new());
    while at < all.len() {
        codes.push(all[at]);
        at += 2 + usize::from(all[at + 1]);
    }
    assert_eq!(codes, [0x01, 0x0d, 0x0e, 0x1a, 0x1d, 0x2a]);
    client.ask(&[0x5a, 0, 0x0a, 0, 0, 0, 0, 1, 0, 0]).invalid_field();
    // Nothing of it can be changed.
    let mask = client.ask(&[0x1a, 0, 0x7f, 0, 255, 0]).good();
    assert_eq!(mask.len() + 4, all.len());
    let set = mask[4..].iter().zip(&all[8..]).filter(|(mask, value)| mask != value).count();
    assert_eq!(set, 10, "the bytes that say something");
}

#[test]
fn what_writes_is_not_there_and_the_rest_is_reported_once() {
    let client = drive().nexus("a");
    let unknown = AdditionalSense::INVALID_COMMAND_OPERATION_CODE;
    for cdb in [
        &cdb10(0x2a, 0, 0, 1)[..],
        &cdb12(0xaa, 0, 0, 1),
        &cdb10(0x42, 0, 0, 24),
        &[0x08, 0, 0, 0, 1, 0],
        &[0x04, 0, 0, 0, 0, 0],
        &cdb10(0x35, 0, 0, 0),
    ] {
        client.send(cdb, &[0; 2048]).illegal(unknown);
    }
    Bench::new().nexus("a").ask(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0]).illegal(unknown);
    let data = client.ask(&[0xa3, 0x0c, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0]).good();
    let mut codes: Vec<u8> =
        data[4..].chunks(8).filter(|row| row[5] & 1 == 0).map(|row| row[0]).collect();
    for code in [0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x43, 0x46, 0x4a, 0x51, 0x52, 0xa8, 0xad, 0xbe] {
        assert!(codes.contains(&code), "{code:#x}");
    }
    codes.sort_unstable();
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:x?}");
    let one = client.ask(&[0xa3, 0x0c, 1, 0x1e, 0, 0, 0, 0, 0, 64, 0, 0]).good();
    assert_eq!(one[..10], [0, 3, 0, 6, 0x1e, 0, 0, 0, 3, 4], "its own row, with PERSISTENT");
}

#[test]
fn a_host_sees_a_medium_come_and_go() {
    let bench = drive();
    let (host, other) = (bench.nexus("a"), bench.nexus("b"));
    host.ask(&[0; 6]).good();
    assert_eq!(event(&host), [0, 2]);
    tray(&host, 2).good();
    tray(&host, 2).good();
    for client in [&host, &other] {
        client.ask(&[0; 6]).fails(SenseKey::NOT_READY, TRAY_OPEN);
        client.ask(&cdb10(0x28, 0, 0, 1)).fails(SenseKey::NOT_READY, TRAY_OPEN);
        client.ask(&[0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0]).fails(SenseKey::NOT_READY, TRAY_OPEN);
        client.ask(&[0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0]).fails(SenseKey::NOT_READY, TRAY_OPEN);
        assert_eq!(event(client), [3, 1], "removed");
        assert_eq!(event(client), [0, 1], "told once");
        assert_eq!(client.ask(&[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]).good()[1], 0x10);
        assert_eq!(client.ask(&[3, 0, 0, 0, 18, 0]).good()[2], 2);
        assert_eq!(client.ask(&[0x1a, 0, 0x2a, 0, 128, 0]).good().len(), 30);
    }
    operator(&bench, MediumChange::Exchanged { present: true });
    for client in [&host, &other] {
        // What is told on request neither waits for the attention nor takes it away.
        assert_eq!(event(client), [2, 2], "a new medium");
        assert_eq!(client.ask(&[0x46, 0, 0, 0, 0, 0, 0, 0, 8, 0]).good()[7], 8);
        client.ask(&[0; 6]).attention(CHANGED);
        client.ask(&[0; 6]).good();
    }
    operator(&bench, MediumChange::Exchanged { present: true });
    assert_eq!([event(&host), event(&host)], [[2, 2], [0, 2]], "no removal before the new one");
    host.ask(&[0; 6]).attention(CHANGED);
    operator(&bench, MediumChange::Exchanged { present: false });
    host.ask(&[0; 6]).fails(SenseKey::NOT_READY, AdditionalSense::MEDIUM_NOT_PRESENT);
    assert_eq!(event(&host), [3, 0]);
    // An empty tray goes in and out.
    tray(&host, 2).good();
    tray(&host, 3).good();
    assert_eq!(event(&host), [0, 0]);
}

#[test]
fn a_locked_tray_stays_in_and_the_host_hears_of_the_button() {
    let bench = drive();
    let (host, other) = (bench.nexus("a"), bench.nexus("b"));
    let is_locked = || host.ask(&[0x1a, 0, 0x2a, 0, 128, 0]).good()[10] & 2 != 0;
    assert!(!is_locked());
    host.ask(&[0x1e, 0, 0, 0, 1, 0]).good();
    assert!(is_locked());
    for client in [&host, &other] {
        tray(client, 2).illegal(PREVENTED);
    }
    operator(&bench, MediumChange::Button);
    assert_eq!([event(&host), event(&other)], [[1, 2]; 2]);
    host.ask(&cdb10(0x28, 0, 0, 1)).good();
    // As udev does: unlock, eject.
    host.ask(&[0x1e, 0, 0, 0, 0, 0]).good();
    tray(&host, 2).good();
    // A lock that comes while the tray is out does not keep it out.
    other.ask(&[0x1e, 0, 0, 0, 1, 0]).good();
    tray(&host, 3).good();
    host.ask(&[0; 6]).good();
    other.ask(&[0; 6]).attention(CHANGED);
    other.ask(&[0x1e, 0, 0, 0, 0, 0]).good();
    // A persistent lock takes only the button.
    host.ask(&[0x1e, 0, 0, 0, 3, 0]).good();
    assert_eq!(event(&host), [2, 2]);
    operator(&bench, MediumChange::Button);
    assert_eq!(event(&host), [1, 2]);
    tray(&host, 2).good();
    tray(&host, 3).good();
    host.ask(&[0x1e, 0, 0, 0, 2, 0]).good();
    operator(&bench, MediumChange::Button);
    host.ask(&[0; 6]).fails(SenseKey::NOT_READY, TRAY_OPEN);
}

#[test]
fn events_are_polled_by_class() {
    let bench = drive();
    let client = bench.nexus("a");
    let ask = |polled, classes, len| client.ask(&[0x4a, polled, 0, 0, classes, 0, 0, 0, len, 0]);
    ask(0, 0x10, 8).invalid_field();
    assert_eq!(ask(1, 0x28, 8).good(), [0, 2, 0x80, 0x56], "classes that there are not");
    assert_eq!(ask(1, 0x5e, 8).good(), [0, 6, 1, 0x56, 0, 0, 0, 0], "nothing in the first");
    assert_eq!(ask(1, 0x04, 8).good(), [0, 6, 2, 0x56, 0, 1, 0, 0], "power is on");
    assert_eq!(ask(1, 0x40, 8).good(), [0, 6, 6, 0x56, 0, 0, 0, 0], "not busy");
    operator(&bench, MediumChange::Button);
    assert_eq!(ask(1, 0x10, 4).good(), [0, 6, 4, 0x56], "no room, nothing lost");
    assert_eq!(ask(1, 0x5e, 8).good(), [0, 6, 4, 0x56, 3, 1, 0, 0], "the first that happened");
}

#[test]
fn features_follow_the_medium() {
    let (bench, dvd) = (drive(), dvd());
    let (cd, dvd) = (bench.nexus("a"), dvd.nexus("a"));
    let ask = |client: &Client, requested: u8, feature: u16, len: u8| {
        let [high, low] = feature.to_be_bytes();
        client.ask(&[0x46, requested, high, low, 0, 0, 0, 0, len, 0])
    };
    let features = |client: &Client, requested, from| {
        let data = ask(client, requested, from, 255).good();
        let len = u32::from_be_bytes(*data.first_chunk().unwrap());
        assert_eq!(len as usize + 4, data.len());
        let (mut at, mut all) = (8, Vec::new());
        while at < data.len() {
            let code = u16::from_be_bytes([data[at], data[at + 1]]);
            all.push((code, data[at + 2] & 1 == 1));
            at += 4 + usize::from(data[at + 3]);
        }
        all
    };
    assert_eq!(ask(&cd, 0, 0, 8).good()[4..], [0, 0, 0, 0x08]);
    assert_eq!(ask(&dvd, 0, 0, 8).good()[4..], [0, 0, 0, 0x10]);
    let with = |cd, dvd| {
        [(0, true), (1, true), (2, true), (3, true), (0x10, cd || dvd)]
            .into_iter()
            .chain([(0x1e, cd), (0x1f, dvd), (0x100, true), (0x105, true)])
            .collect::<Vec<_>>()
    };
    assert_eq!(features(&cd, 0, 0), with(true, false));
    assert_eq!(features(&dvd, 0, 0), with(false, true));
    let current = |all: Vec<(u16, bool)>| all.into_iter().filter(|it| it.1).collect::<Vec<_>>();
    assert_eq!(features(&dvd, 1, 0), current(with(false, true)));
    assert_eq!(features(&cd, 0, 0x20), [(0x100, true), (0x105, true)], "as Linux asks for RWRT");
    assert_eq!(features(&cd, 2, 0x1e), [(0x1e, true)]);
    assert_eq!(features(&cd, 2, 0x20), []);
    ask(&cd, 3, 0, 255).invalid_field();
    let profiles = ask(&cd, 2, 0, 255).good();
    assert_eq!(profiles[8..], [0, 0, 3, 8, 0, 0x10, 0, 0, 0, 8, 1, 0]);
    let readable = ask(&dvd, 2, 0x10, 255).good();
    assert_eq!(readable[8..], [0, 0x10, 1, 8, 0, 0, 8, 0, 0, 16, 1, 0]);
    operator(&bench, MediumChange::Exchanged { present: false });
    assert_eq!(features(&cd, 0, 0), with(false, false));
    assert_eq!(ask(&cd, 0, 0, 8).good()[6..], [0, 0]);
}

#[test]
fn the_contents_are_one_data_track() {
    let client = drive().nexus("a");
    let toc = |flags: u8, format: u8, track: u8, control: u8| {
        client.ask(&[0x43, flags, format, 0, 0, 0, track, 1, 0, control])
    };
    let end = BLOCKS.to_be_bytes();
    let lead_out = [0, 0x14, 0xaa, 0, end[0], end[1], end[2], end[3]];
    let both = [&[0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0][..], &lead_out].concat();
    assert_eq!(toc(0, 0, 0, 0).good(), both);
    assert_eq!(toc(0, 0, 1, 0).good(), both);
    assert_eq!(toc(0, 0, 0xaa, 0).good(), [&[0, 10, 1, 1][..], &lead_out].concat());
    toc(0, 0, 2, 0).invalid_field();
    // 1,024 blocks and two seconds.
    let times = toc(2, 0, 0, 0).good();
    assert_eq!((&times[8..12], &times[16..]), (&[0, 0, 2, 0][..], &[0, 0, 15, 49][..]));
    let session = [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0];
    assert_eq!(toc(0, 1, 0, 0).good(), session);
    assert_eq!(toc(0, 0, 0, 0x40).good(), session, "where Linux has the format");
    let full = toc(2, 2, 1, 0).good();
    assert_eq!((full.len(), &full[..4]), (48, &[0, 46, 1, 1][..]));
    let points: Vec<_> = full[4..].chunks(11).map(|it| (it[3], [it[8], it[9], it[10]])).collect();
    assert_eq!(points, [(0xa0, [1, 0, 0]), (0xa1, [1, 0, 0]), (0xa2, [0, 15, 49]), (1, [0, 2, 0])]);
    for format in 3..16 {
        toc(0, format, 0, 0).invalid_field();
    }
}

#[test]
fn disc_track_and_structure_are_those_of_a_finished_disc() {
    let (cd, dvd) = (drive().nexus("a"), dvd().nexus("a"));
    let disc = cd.ask(&[0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0]).good();
    assert_eq!(disc[..8], [0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
    assert_eq!(disc[16..24], [0xff; 8]);
    cd.ask(&[0x51, 1, 0, 0, 0, 0, 0, 0, 34, 0]).invalid_field();
    let track = |kind: u8, address: u32| cd.ask(&cdb10(0x52, kind, address, 36));
    for (kind, address) in [(0, 0), (0, BLOCKS - 1), (1, 1), (2, 1)] {
        let track = track(kind, address).good();
        assert_eq!(track[..8], [0, 34, 1, 1, 0, 4, 1, 0]);
        assert_eq!((&track[8..12], &track[24..28]), (&[0; 4][..], &BLOCKS.to_be_bytes()[..]));
    }
    track(0, BLOCKS).out_of_range();
    for (kind, address) in [(1, 0), (1, 2), (1, 0xff), (2, 0), (3, 0)] {
        track(kind, address).invalid_field();
    }
    let structure =
        |client: &Client, format: u8| client.ask(&[0xad, 0, 0, 0, 0, 0, 0, format, 16, 0, 0, 0]);
    let code = AdditionalSense::CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT;
    structure(&cd, 0).illegal(code);
    let physical = structure(&dvd, 0).good();
    assert_eq!((physical.len(), &physical[..4]), (2052, &[8, 2, 0, 0][..]));
    let last = (0x03_0000 + 2_000_000_u32 - 1).to_be_bytes();
    assert_eq!(physical[4..12], [0x01, 0x0f, 0x01, 0, 0, 3, 0, 0]);
    assert_eq!(physical[12..16], last);
    assert_eq!(structure(&dvd, 1).good(), [0, 6, 0, 0, 0, 0, 0, 0]);
    let list = [0, 10, 0, 0, 0, 0x40, 8, 4, 1, 0x40, 0, 8];
    assert_eq!(structure(&dvd, 0xff).good(), list);
    structure(&dvd, 4).invalid_field();
}

#[test]
fn blocks_are_read_in_every_way() {
    let bench = drive();
    let client = bench.nexus("a");
    bench.disk.fill_with_numbers();
    let content = |lba: u32, blocks: u32| bench.disk.content(lba as usize * 4, blocks as usize * 4);
    let capacity = client.ask(&cdb10(0x25, 0, 0, 0)).good();
    assert_eq!(capacity, [0, 0, 3, 0xff, 0, 0, 8, 0]);
    let read_cd = |lba: u32, blocks: u8, kind: u8, what: u8| {
        let [a, b, c, d] = lba.to_be_bytes();
        client.ask(&[0xbe, kind << 2, a, b, c, d, 0, 0, blocks, what, 0, 0])
    };
    for (lba, blocks) in [(0, 1), (16, 4), (BLOCKS - 1, 1)] {
        let wanted = content(lba, blocks);
        assert_eq!(client.ask(&cdb10(0x28, 0, lba, blocks as u16)).good(), wanted);
        assert_eq!(client.ask(&cdb12(0xa8, 0, lba, blocks)).good(), wanted);
        assert_eq!(read_cd(lba, blocks as u8, 0, 0x10).good(), wanted);
        assert_eq!(read_cd(lba, blocks as u8, 2, 0x10).good(), wanted);
        assert_eq!(read_cd(lba, blocks as u8, 0, 0).good(), []);
        client.ask(&cdb10(0x2b, 0, lba, 0)).good();
    }
    assert_eq!(bench.disk.flushes.get(), 0);
    client.ask(&cdb10(0x28, 0, BLOCKS, 1)).out_of_range();
    read_cd(BLOCKS - 1, 2, 0, 0x10).out_of_range();
    client.ask(&cdb10(0x2b, 0, BLOCKS, 0)).out_of_range();
    // Raw sectors, and sectors of other modes, are not in an image.
    for (kind, what) in [(0, 0xf8), (0, 0x58), (1, 0x10), (3, 0x10), (4, 0x10), (1, 0)] {
        read_cd(0, 1, kind, what).illegal(AdditionalSense::ILLEGAL_MODE_FOR_THIS_TRACK);
    }
    // From 0:2:16 up to 0:2:18.
    let by_time = |from: [u8; 3], to: [u8; 3]| {
        let ([a, b, c], [d, e, f]) = (from, to);
        client.ask(&[0xb9, 0, 0, a, b, c, d, e, f, 0x10, 0, 0])
    };
    assert_eq!(by_time([0, 2, 16], [0, 2, 18]).good(), content(16, 2));
    for (from, to) in [([0, 1, 0], [0, 2, 1]), ([0, 2, 2], [0, 2, 1]), ([0, 2, 75], [1, 0, 0])] {
        by_time(from, to).invalid_field();
    }
    by_time([0, 2, 0], [99, 59, 74]).invalid_field();
    client.ask(&[0xbb, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]).good();
}
