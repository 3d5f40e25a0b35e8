//! What fuzz targets and property tests run: bytes taken as a script, with the promises checked
//! after every step. The machine of the socket has its own, in `proto`.

use block::{Geometry, Op, OpSet};
use target::virtio_blk::{Command, Disk, Id, RANGE_BYTES_MAX, Rules, Settings};
use wire::virtio::blk::{
    Config, DiscardWriteZeroes, ID_BYTES, RequestHeader, SECTOR_BYTES, Status, feature,
};
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
    fn the_corpus_of_requests_is_survived() {
        let scripts = corpus("virtio_blk");
        assert!(scripts.len() >= 9);
        scripts.iter().for_each(|script| super::virtio_blk(script));
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
        fn no_request_is_too_odd(script in vec(any::<u8>(), 0..300)) {
            super::virtio_blk(&script);
        }
    }
}
