//! What fuzz targets and property tests run: bytes taken as a script, with the promises checked
//! after every step. The machine of the socket has its own, in `proto`.

use block::{Geometry, Op, OpSet};
use target::scsi::{Answer, Sense};
use target::virtio_blk::{Command, Disk, Id, RANGE_BYTES_MAX, Rules, Settings};
use target::virtio_scsi::{self, Control, Events, Happening, Host, Moved};
use wire::scsi::AdditionalSense;
use wire::virtio;
use wire::virtio::blk::{
    Config, DiscardWriteZeroes, ID_BYTES, RequestHeader, SECTOR_BYTES, Status, feature,
};
use wire::virtio::scsi::{Response, ResponseHeader};
use zerocopy::{FromBytes, IntoBytes};

pub use super::ring::fuzz::{Outcome, ring};

fn take<'a>(script: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (first, rest) = script.split_at_checked(count)?;
    *script = rest;
    Some(first)
}

/// A disk of some shape, and a driver that writes any configuration and any request.
pub fn virtio_blk(mut script: &[u8]) {
    let script = &mut script;
    let Some(&[shape, accepted]) = take(script, 2) else { return };
    let mut disk = disk(shape);
    let bits = [feature::FLUSH, feature::CONFIG_WCE, feature::MQ, feature::DISCARD];
    let accepted = bits.iter().enumerate().filter(|(bit, _)| accepted & 1 << bit != 0);
    disk.set_features(accepted.map(|(_, feature)| feature).sum());
    while let Some(&[step]) = take(script, 1) {
        if step & 1 == 0 {
            let Some(&[offset, count]) = take(script, 2) else { return };
            let Some(bytes) = take(script, usize::from(count) % 8) else { return };
            configure(&mut disk, u32::from(offset) % 72, bytes);
        } else {
            let Some(bytes) = take(script, size_of::<RequestHeader>()) else { return };
            let header = RequestHeader::read_from_bytes(bytes).expect("as long as a header is");
            let Some(lens) = take(script, 4) else { return };
            let Some(segment) = take(script, size_of::<DiscardWriteZeroes>()) else { return };
            let lens = [len(&lens[..2]), len(&lens[2..])];
            let segment = DiscardWriteZeroes::read_from_bytes(segment).expect("as long as it is");
            request(&disk, &header, lens, &segment);
        }
    }
}

/// Small numbers as they are; large ones are more than any ring holds.
fn len(bytes: &[u8]) -> u64 {
    let len = u64::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    if len < 0xc000 { len } else { len << 40 }
}

/// A SCSI host, and a driver that writes any configuration, any address and any control request.
pub fn virtio_scsi(mut script: &[u8]) {
    let script = &mut script;
    let settings = virtio_scsi::Settings { queue_count: 4, seg_max: 126, tasks_max: 128 };
    let mut host = Host::new(settings);
    let mut events = Events::default();
    while let Some(&[step, count]) = take(script, 2) {
        let Some(bytes) = take(script, usize::from(count) % 32) else { return };
        match step % 4 {
            0 => configure_host(&mut host, u32::from(step >> 2), bytes),
            1 => {
                if let Some((kind, control)) = virtio_scsi::parse(bytes) {
                    assert!(bytes.len() >= 4 && Control::response_bytes(kind) <= 5);
                    assert!(!matches!(control, Control::Manage(it) if it.aborts && !it.everywhere));
                }
            }
            2 => answer_host(&host, bytes),
            _ => {
                events.post(u16::from(step), Happening::Unplugged);
                let event = events.take().expect("just posted");
                assert_eq!(event.lun, virtio_scsi::address_of(u16::from(step)));
            }
        }
    }
}

/// Whatever is written, only the two sizes change, and only to what can be had.
fn configure_host(host: &mut Host, offset: u32, bytes: &[u8]) {
    let before = host.config();
    let written = host.write_config(offset, bytes);
    let after = host.config();
    assert!(written.is_ok() || before == after);
    let (cdb_size, sense_size) = (before.cdb_size, before.sense_size);
    assert_eq!(virtio::scsi::Config { cdb_size, sense_size, ..after }, before);
    let sizes = [after.cdb_size.get(), after.sense_size.get()];
    assert!(sizes.iter().all(|size| (1..=virtio_scsi::SIZE_MAX).contains(size)));
}

/// Whatever is asked and answered, the response fits, and its residual is no more than there was.
fn answer_host(host: &Host, bytes: &[u8]) {
    let mut all = [0; 16];
    all[..bytes.len().min(16)].copy_from_slice(&bytes[..bytes.len().min(16)]);
    let [address, rest] = [&all[..8], &all[8..]].map(|it| <[u8; 8]>::try_from(it).expect("of 8"));
    if let Some(lun) = virtio_scsi::lun_of(address) {
        assert!(lun == address || address[2..4] == lun[..2]);
    }
    let sense = Sense::illegal(AdditionalSense(u16::from_le_bytes([rest[0], rest[1]])));
    let into = usize::from(rest[2]);
    let answers = [Answer::data(into.min(usize::from(rest[3])), u64::MAX), Answer::check(sense)];
    let room = Moved { out: usize::from(rest[4]), into };
    for answer in answers {
        let mut buffer = [0; virtio_scsi::RESPONSE_BYTES];
        let sizes = host.sizes();
        let response = virtio_scsi::respond(&answer, room, Response::RESET, sizes, &mut buffer);
        assert!(response.len() <= sizes.response());
        let header = ResponseHeader::read_from_prefix(response).expect("with a header").0;
        assert!(header.residual.get() as usize <= room.out + room.into);
    }
}

fn disk(shape: u8) -> Disk {
    let ops = [OpSet::BASE, OpSet::DISCARD, OpSet::WRITE_ZEROES];
    let ops = ops[usize::from(shape) % 3] | ops[usize::from(shape >> 2) % 3];
    let block_size = 512 << (shape >> 4 & 3);
    let geometry = Geometry { ops, ..Geometry::plain(1 << 20, block_size) };
    let settings = Settings {
        queue_count: 4,
        seg_max: 254,
        size_max: 1 << 22,
        read_only: shape & 0x40 != 0,
        writeback: shape & 0x80 == 0,
        id: Id([7; ID_BYTES]),
    };
    Disk::new(settings, geometry)
}

/// Whatever is written, only the cache mode changes, and only to one that exists.
fn configure(disk: &mut Disk, offset: u32, bytes: &[u8]) {
    let (before, mode) = (disk.config(), disk.chosen_writeback());
    let written = disk.write_config(offset, bytes);
    let mut after = disk.config();
    assert!(after.writeback <= 1);
    if written.is_err() {
        assert_eq!(disk.chosen_writeback(), mode);
    }
    after.writeback = before.writeback;
    assert_eq!(after.as_bytes(), before.as_bytes());
    let end = offset as usize + bytes.len();
    assert!(written.is_err() || end <= size_of::<Config>(), "past the end");
}

/// Whatever is asked, what comes out is whole sectors, and a write only where it is allowed.
fn request(disk: &Disk, header: &RequestHeader, lens: [u64; 2], segment: &DiscardWriteZeroes) {
    let [readable, writable] = lens;
    let rules: Rules = disk.rules();
    let mut command = rules.command(header, readable, writable);
    if let Ok(Command::Range(kind)) = command {
        assert_eq!((readable, writable), (size_of::<DiscardWriteZeroes>() as u64, 0));
        command = rules.range(kind, segment);
        assert!(!matches!(command, Ok(Command::Range(_) | Command::GetId)));
    }
    match command {
        Ok(Command::Disk { op, offset, len }) => {
            assert!(offset % SECTOR_BYTES == 0 && len % SECTOR_BYTES == 0);
            assert!(!(op.is_write() && disk.is_read_only()));
            let fua = !disk.is_writeback();
            match op {
                Op::Read => assert_eq!((len, readable), (writable, 0)),
                Op::Write { fua: through, atomic } => {
                    assert_eq!((len, writable, through, atomic), (readable, 0, fua, false));
                }
                Op::Flush => assert_eq!((offset, len), (0, 0)),
                Op::Discard => assert!(len <= RANGE_BYTES_MAX),
                Op::WriteZeroes { fua: through, .. } => {
                    assert!(len <= RANGE_BYTES_MAX && through == fua);
                }
                other => panic!("{other:?} is nothing that this device has"),
            }
        }
        Ok(Command::GetId) => {}
        Ok(Command::Range(_)) => unreachable!("resolved above"),
        Err(status) => assert_ne!(status, Status::OK),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, any, proptest};

    /// Seeds and findings of the fuzz target of this name.
    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let files = std::fs::read_dir(corpora.join(target)).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn the_corpus_breaks_rings_in_every_way_and_nothing_else() {
        let (mut taken, mut faults) = (0, BTreeSet::new());
        for script in corpus("ring") {
            let outcome = super::ring(&script);
            taken += outcome.taken;
            let fault = outcome.fault.map(|fault| format!("{fault:?}"));
            faults.extend(fault.and_then(|fault| Some(fault.split_once(' ')?.0.to_owned())));
        }
        assert!(taken > 20, "{taken} requests were whole");
        // All that there are in so little memory and without the rules of a device.
        let all = ["Address", "AvailIndex", "Head", "Indirect", "Loop", "Next", "Order"];
        assert_eq!(Vec::from_iter(faults), all);
    }

    #[test]
    fn the_corpora_of_requests_are_survived() {
        let scripts = corpus("virtio_blk");
        assert!(scripts.len() >= 9);
        scripts.iter().for_each(|script| super::virtio_blk(script));
        let scripts = corpus("virtio_scsi");
        assert!(scripts.len() >= 4);
        scripts.iter().for_each(|script| super::virtio_scsi(script));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 4000,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_ring_is_too_broken(script in vec(any::<u8>(), 0..600)) {
            super::ring(&script);
        }

        #[test]
        fn no_host_is_asked_too_oddly(script in vec(any::<u8>(), 0..300)) {
            super::virtio_scsi(&script);
        }

        #[test]
        fn no_request_is_too_odd(script in vec(any::<u8>(), 0..300)) {
            super::virtio_blk(&script);
        }
    }
}
