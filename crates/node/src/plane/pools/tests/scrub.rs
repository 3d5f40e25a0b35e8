//! Scrubs of pools of real files: what has rotted beside the node's back is found, over restarts.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use model::scrub::{Scrub, ScrubOutcome, ScrubState};

use super::*;
use crate::engine::ScrubWish;

const STRIDE: u64 = 64 << 10;
const BLOCKS: u64 = 200;

/// A pool of two groups with checksums.
fn safe(bench: &Bench) -> Pool {
    let mut pool = Pool { checksums: true, ..bench.pool() };
    for (number, pv) in (0..).zip(&mut pool.pvs) {
        pv.group = PvGroup { number, name: None };
    }
    pool
}

impl Bench {
    fn wish(&self, wish: ScrubWish) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.scrub_pool(POOL, wish, done))
    }

    fn scrub(&self) -> Option<Scrub> {
        self.ask(|plane, done| plane.snapshot(done)).unwrap().pools[&POOL].scrub.clone()
    }

    /// The first one, when it is over, and that is kept and told.
    fn scrubbed(&self) -> Scrub {
        let begin = Instant::now();
        loop {
            match self.scrub() {
                Some(scrub) if !scrub.is_running() && self.events("is done: ") > 0 => return scrub,
                scrub => assert!(begin.elapsed() < Duration::from_secs(60), "{scrub:?}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A bit of each page of a disk rots that looks like that.
    fn spoil(&self, disk: &str, is_it: impl Fn(&[u8]) -> bool) -> u64 {
        let file = std::fs::File::options().read(true).write(true).open(self.path(disk)).unwrap();
        let (mut count, mut page) = (0, [0; 4096]);
        for at in (0..file.metadata().unwrap().len()).step_by(4096) {
            file.read_exact_at(&mut page, at).unwrap();
            if is_it(&page) {
                page[99] ^= 1;
                file.write_all_at(&page, at).unwrap();
                count += 1;
            }
        }
        count
    }

    fn events(&self, kind: &str) -> usize {
        self.told.lock().unwrap().iter().filter(|(_, message)| message.contains(kind)).count()
    }
}

fn opened(bench: &Bench, pool: &Pool) -> DeviceSpec {
    let disk = lu(1024);
    bench.make(pool, true).unwrap();
    bench.open(pool).unwrap();
    bench.create(&disk).unwrap();
    bench.open_lu(&disk).unwrap();
    for block in 0..BLOCKS {
        bench.block(block * STRIDE, Some(block as u8 | 1)).unwrap();
    }
    disk
}

#[test]
fn rot_is_mended_and_told_and_that_stays_known() {
    let mut bench = Bench::new();
    let pool = safe(&bench);
    let disk = opened(&bench, &pool);
    assert_eq!(bench.scrub(), None);
    let both = bench.spoil("b", |page| page == [77; 4096]);
    assert!(both > 0 && bench.spoil("a", |page| page == [99; 4096]) > 0);
    assert!(bench.spoil("b", |page| page == [99; 4096]) > 0);
    bench.wish(ScrubWish::Begin).unwrap();
    let scrub = bench.scrubbed();
    assert_eq!((scrub.state, scrub.percent), (ScrubState::Done, 100));
    // Blocks 76 and 77 hold the same, as do 98 and 99.
    assert_eq!((scrub.mended, scrub.lost, scrub.differing), (2, 2, 0), "{scrub:?}");
    assert_eq!((scrub.metadata_mended, scrub.metadata_damaged), (0, 0), "{scrub:?}");
    let lost = scrub.found.iter().find(|it| it.outcome == ScrubOutcome::Lost).unwrap();
    assert_eq!(lost.offset, Some(98 * STRIDE));
    assert_eq!((lost.disks.len(), lost.snapshot), (2, None));
    assert!(scrub.read > Size(2 * BLOCKS * 4096) && scrub.left_out.is_empty(), "{scrub:?}");
    assert_eq!((bench.events("is being scrubbed"), bench.events("is done: 2 blocks")), (1, 1));
    bench.restart();
    bench.open(&pool).unwrap();
    bench.open_lu(&disk).unwrap();
    assert_eq!(bench.scrub(), Some(scrub));
    assert_eq!(bench.block(76 * STRIDE, None), Ok(77));
    assert!(bench.block(98 * STRIDE, None).is_err());
}

#[test]
fn one_that_was_under_way_goes_on_and_one_that_is_cancelled_ends() {
    let mut bench = Bench::new();
    let mut pool = safe(&bench);
    // So that it takes a while.
    pool.settings.scrub_rate = Size::mib(1);
    let disk = opened(&bench, &pool);
    bench.wish(ScrubWish::Begin).unwrap();
    let error = bench.wish(ScrubWish::Begin).unwrap_err();
    assert!(error.message.contains("is being scrubbed"), "{error}");
    bench.restart();
    bench.open(&pool).unwrap();
    assert!(bench.scrub().unwrap().is_running());
    // It waits for what is being opened.
    bench.open_lu(&disk).unwrap();
    let fast = PoolSettings { scrub_rate: Size::ZERO, ..pool.settings };
    bench.ask(|plane, done| plane.set_pool(POOL, fast, done)).unwrap();
    let scrub = bench.scrubbed();
    assert_eq!((scrub.state, scrub.is_bad()), (ScrubState::Done, false), "{scrub:?}");
    bench.ask(|plane, done| plane.set_pool(POOL, pool.settings, done)).unwrap();
    bench.wish(ScrubWish::Begin).unwrap();
    bench.wish(ScrubWish::Cancel).unwrap();
    let scrub = bench.scrub().unwrap();
    assert_eq!(scrub.state, ScrubState::Cancelled);
    bench.restart();
    bench.open(&pool).unwrap();
    assert_eq!(bench.scrub(), Some(scrub));
}

#[test]
fn an_open_pool_is_checked_by_its_node() {
    let bench = Bench::new();
    let pool = safe(&bench);
    let disk = opened(&bench, &pool);
    let check = || bench.ask(|plane, done| plane.check_pool(POOL, done)).unwrap();
    let checked = check();
    assert!(checked.findings.is_empty() && checked.is_open && !checked.damaged, "{checked:?}");
    let counts = checked.counts;
    assert_eq!((counts.disks, counts.lus, counts.layers), (2, 1, 1));
    assert!(counts.map_pages > 0 && counts.journal_records > 0 && counts.slabs_granted > 0);
    for magic in [b"VDlb", b"VDst", b"VDjl"] {
        assert!(bench.spoil("a", |page| page.starts_with(magic)) > 0);
        let checked = check();
        assert!(!checked.findings.is_empty() && !checked.damaged, "{checked:?}");
        assert!(check().findings.is_empty());
    }
    // Also when the LU is not open.
    bench.close_lu(&disk).unwrap();
    let checked = check();
    assert_eq!((checked.counts.lus, checked.damaged), (1, false), "{checked:?}");
}
