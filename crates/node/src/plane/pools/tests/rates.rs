//! How fast slabs go to other disks, and to copies that have missed something.

use std::time::Instant;

use volume::pool::home::GroupBehind;

use super::*;

const STRIDE: u64 = 64 << 10;
const BLOCKS: u64 = 400;

impl Bench {
    fn set(&self, to: PoolSettings) {
        self.ask(|plane, done| plane.set_pool(POOL, to, done)).unwrap();
    }

    fn write_all(&self, value: u8) {
        for block in 0..BLOCKS {
            self.block(block * STRIDE, Some(value)).unwrap();
        }
    }
}

#[test]
fn slabs_move_at_the_rate_that_is_set_until_it_is_another_one() {
    let bench = Bench::new();
    let (mut pool, disk) = (bench.pool(), lu(1024));
    pool.settings.move_rate = Size::mib(1);
    bench.make(&pool, true).unwrap();
    bench.open(&pool).unwrap();
    bench.create(&disk).unwrap();
    bench.open_lu(&disk).unwrap();
    bench.write_all(3);
    let used = |bench: &Bench| {
        let status = bench.ask(|plane, done| plane.snapshot(done)).unwrap().pools[&POOL].clone();
        status.disks[&pool.pvs[0].uuid].used.bytes()
    };
    let (sender, left) = mpsc::channel();
    let done = Done::new(move |answer| sender.send(answer).unwrap());
    let (begin, all) = (Instant::now(), used(&bench));
    assert!(all >= 3 * pool.slab_size.bytes(), "{all}");
    bench.plane.leave_pv(POOL, &pool.pvs[0], done);
    let slab = pool.slab_size.bytes();
    until("slabs move", || all - used(&bench) >= 2 * slab);
    // The second one waits for the first one's time to be over.
    let least = Duration::from_secs_f64(slab as f64 / f64::from(1 << 20) * 0.9);
    assert!(begin.elapsed() >= least, "{:?} for {slab} bytes", begin.elapsed());
    bench.set(PoolSettings::default());
    left.recv().unwrap().unwrap();
    assert_eq!(bench.block(0, None), Ok(3));
}

#[test]
fn copies_catch_up_at_a_rate_and_it_is_told_how_far_they_are() {
    let mut bench = Bench::new();
    let (mut pool, disk) = (bench.pool(), lu(1024));
    for (number, pv) in (0..).zip(&mut pool.pvs) {
        pv.group = PvGroup { number, name: None };
    }
    bench.make(&pool, true).unwrap();
    bench.open(&pool).unwrap();
    bench.create(&disk).unwrap();
    bench.open_lu(&disk).unwrap();
    bench.write_all(3);
    assert_eq!(bench.behind(), []);
    std::fs::rename(bench.path("b"), bench.path("away")).unwrap();
    bench.restart();
    bench.open(&pool).unwrap();
    bench.open_lu(&disk).unwrap();
    bench.write_all(4);
    std::fs::rename(bench.path("away"), bench.path("b")).unwrap();
    bench.restart();
    pool.settings.catch_up_rate = Size::mib(1);
    bench.open(&pool).unwrap();
    bench.open_lu(&disk).unwrap();
    let behind = bench.behind();
    let [GroupBehind { group: 1, slabs, lacking }] = behind[..] else { panic!("{behind:?}") };
    assert!(lacking > 0 && lacking <= slabs && slabs >= 3, "{behind:?}");
    std::thread::sleep(Duration::from_millis(100));
    assert!(bench.behind()[0].lacking + 2 >= slabs, "{:?}", bench.behind());
    bench.set(PoolSettings::default());
    until("it catches up", || bench.behind().is_empty());
    assert_eq!(bench.block(0, None), Ok(4));
}
