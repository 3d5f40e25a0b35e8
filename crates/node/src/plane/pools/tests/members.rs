//! Disks that come and go while an LU is used: in good order, cut short, without room, and when
//! somebody thinks better of it.

use super::*;

const STRIDE: u64 = 64 << 10;

fn pv(bench: &Bench, number: u128, name: &str, standing: PvStanding) -> PoolPv {
    let path = bench.path(name).to_str().unwrap().to_owned();
    let (place, group) = (PvPlace::Path { path }, PvGroup::default());
    PoolPv { uuid: Uuid::from_u128(number), place, group, standing }
}

const LEAVING: PvStanding = PvStanding::Leaving { slabs: 0 };

impl Bench {
    /// The same with disks that are soon full.
    fn small() -> Self {
        let bench = Bench::new();
        ["a", "b"].iter().for_each(|name| bench.disk(name, 26));
        bench
    }

    fn disk(&self, name: &str, mib: u64) {
        std::fs::File::create(self.path(name)).unwrap().set_len(mib << 20).unwrap();
    }

    fn join(&self, pv: &PoolPv, is_new: bool) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.join_pv(POOL, pv, is_new, done))
    }

    fn leave(&self, pv: &PoolPv) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.leave_pv(POOL, pv, done))
    }

    fn forget(&self, pv: &PoolPv) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.forget_pv(POOL, pv, done))
    }

    /// Writes blocks of the LU, each with something of its own.
    fn write(&self, blocks: std::ops::Range<u64>) {
        for block in blocks {
            self.block(block * STRIDE, Some(block as u8)).unwrap();
        }
    }

    fn verify(&self, blocks: std::ops::Range<u64>) {
        for block in blocks {
            assert_eq!(self.block(block * STRIDE, None), Ok(block as u8), "block {block}");
        }
    }

    fn fill(&self) -> u64 {
        let mut block = 0;
        while self.block(block * STRIDE, Some(block as u8)).is_ok() {
            block += 1;
        }
        block
    }

    fn status_of(&self, pv: &PoolPv) -> Option<PvUse> {
        let status = self.ask(|plane, done| plane.snapshot(done)).unwrap().pools[&POOL].clone();
        status.disks.get(&pv.uuid).copied()
    }

    fn waits(&self) -> BTreeMap<Uuid, crate::engine::Trouble> {
        self.ask(|plane, done| plane.snapshot(done)).unwrap().pools[&POOL].waits.clone()
    }

    fn labels(&self, name: &str) -> bool {
        let bytes = std::fs::read(self.path(name)).unwrap();
        let last = bytes.len() - 4096;
        [&bytes[..4096], &bytes[last..]].iter().any(|page| page.iter().any(|byte| *byte != 0))
    }
}

/// Pool and LU, both open.
fn opened(bench: &Bench, pool: &Pool, disk: &DeviceSpec) {
    bench.open(pool).unwrap();
    bench.create(disk).unwrap();
    bench.open_lu(disk).unwrap();
}

#[test]
fn a_disk_takes_the_place_of_another() {
    let mut bench = Bench::new();
    let (mut pool, disk) = (bench.pool(), lu(1024));
    bench.make(&pool, true).unwrap();
    opened(&bench, &pool, &disk);
    bench.write(0..600);
    bench.disk("c", 200);
    let new = pv(&bench, 3, "c", PvStanding::Joining);
    // It was not asked for here.
    let error = bench.join(&new, false).unwrap_err();
    assert!(error.message.contains("was not added here"), "{error}");
    assert!(!bench.labels("c"));
    bench.join(&new, true).unwrap();
    bench.join(&new, true).unwrap();
    assert_eq!(bench.status().0, 192 + 196);

    let old = PoolPv { standing: LEAVING, ..pool.pvs[0].clone() };
    assert!(bench.forget(&old).unwrap_err().message.contains("still"), "it has not left");
    bench.leave(&old).unwrap();
    bench.leave(&old).unwrap();
    assert_eq!(bench.status_of(&old), None);
    assert!(bench.labels("a"));
    bench.forget(&old).unwrap();
    bench.forget(&old).unwrap();
    assert!(!bench.labels("a"));
    bench.verify(0..600);

    // What is left of it is a pool, and the disk is anybody's.
    bench.restart();
    pool.pvs = vec![pool.pvs[1].clone(), PoolPv { standing: PvStanding::Member, ..new }];
    bench.open(&pool).unwrap();
    bench.open_lu(&disk).unwrap();
    bench.verify(0..600);
    let mut other = own_pool(Uuid::from_u128(0x40), "slow");
    other.pvs = vec![pv(&bench, 9, "a", PvStanding::Member)];
    assert_eq!(bench.make(&other, true), Ok(Made::New));
    bench.forget(&old).unwrap();
    assert!(bench.labels("a"), "the label of another pool stays");
}

#[test]
fn a_full_pool_goes_on_when_a_disk_joins() {
    let bench = Bench::small();
    let (pool, disk) = (bench.pool(), lu(1024));
    bench.make(&pool, true).unwrap();
    opened(&bench, &pool, &disk);
    let blocks = bench.fill();
    assert!(bench.block(blocks * STRIDE, Some(1)).is_err());
    bench.told();
    bench.disk("c", 30);
    bench.join(&pv(&bench, 3, "c", PvStanding::Joining), true).unwrap();
    assert_eq!(bench.told(), [(Severity::Info, "pool 'fast' has 24MiB free again".to_owned())]);
    bench.write(blocks..blocks + 100);
    bench.verify(0..blocks + 100);
}

#[test]
fn a_disk_without_room_for_what_is_on_it_waits_for_some_or_stays() {
    let bench = Bench::small();
    let (pool, disk) = (bench.pool(), lu(1024));
    bench.make(&pool, true).unwrap();
    opened(&bench, &pool, &disk);
    let blocks = bench.fill();
    let leaving = PoolPv { standing: LEAVING, ..pool.pvs[0].clone() };
    let begin = |bench: &Bench| {
        let (sender, answers) = mpsc::channel();
        let done = Done::new(move |answer| sender.send(answer).unwrap());
        bench.plane.leave_pv(POOL, &leaving, done);
        until("it waits", || !bench.waits().is_empty());
        answers
    };
    let answers = begin(&bench);
    let waits = &bench.waits()[&leaving.uuid];
    assert!(waits.message.contains("still holds 20MiB of LUs: the other disks are full"));
    assert!(waits.next.as_ref().unwrap().contains("--cancel"));
    assert!(bench.told().iter().any(|(_, message)| *message == waits.message));
    assert!(answers.try_recv().is_err());
    bench.ask(|plane, done| plane.keep_pv(POOL, &leaving, done)).unwrap();
    let error = answers.recv().unwrap().unwrap_err();
    assert!(error.message.contains("stays in pool 'fast'"), "{error}");
    assert!(bench.waits().is_empty());

    let answers = begin(&bench);
    bench.disk("c", 40);
    bench.join(&pv(&bench, 3, "c", PvStanding::Joining), true).unwrap();
    answers.recv().unwrap().unwrap();
    bench.verify(0..blocks);
}

#[test]
fn disks_that_were_cut_short_on_their_way_go_on() {
    let mut bench = Bench::new();
    let (mut pool, disk) = (bench.pool(), lu(1024));
    bench.make(&pool, true).unwrap();
    opened(&bench, &pool, &disk);
    bench.write(0..300);
    bench.disk("c", 100);
    let new = pv(&bench, 3, "c", PvStanding::Joining);
    pool.pvs.push(new.clone());
    let reopen = |bench: &mut Bench, pool: &Pool| {
        bench.restart();
        bench.open(pool).unwrap();
        bench.open_lu(&disk).unwrap();
        bench.verify(0..300);
    };
    // It was named, and nothing else.
    reopen(&mut bench, &pool);
    assert_eq!(bench.status_of(&new), None);
    bench.join(&new, true).unwrap();
    assert!(bench.status_of(&new).is_some());
    // It had joined, and nobody had written that down.
    reopen(&mut bench, &pool);
    assert!(bench.status_of(&new).is_some());
    bench.join(&new, false).unwrap();
    pool.pvs[2].standing = PvStanding::Member;
    bench.write(0..300);

    // It was leaving, with all or nothing on it, and had left, and nobody had written that down.
    pool.pvs[0].standing = LEAVING;
    reopen(&mut bench, &pool);
    assert_eq!(bench.status_of(&pool.pvs[0]).unwrap().free, Size::ZERO);
    bench.leave(&pool.pvs[0]).unwrap();
    reopen(&mut bench, &pool);
    assert_eq!(bench.status_of(&pool.pvs[0]), None);
    bench.leave(&pool.pvs[0]).unwrap();
    // It was to stay, and that came too late.
    pool.pvs[0].standing = PvStanding::Member;
    reopen(&mut bench, &pool);
    assert_eq!(bench.status_of(&pool.pvs[0]).unwrap().used, Size::ZERO);
    bench.write(0..300);
    reopen(&mut bench, &pool);
}

#[test]
fn a_disk_that_was_prepared_before_the_last_opening_is_not_taken_for_one_of_the_pool() {
    let mut bench = Bench::new();
    let (mut pool, disk) = (bench.pool(), lu(1024));
    bench.make(&pool, true).unwrap();
    opened(&bench, &pool, &disk);
    bench.write(0..100);
    bench.disk("c", 100);
    bench.disk("d", 100);
    let [stale, new] = [(3, "c"), (4, "d")];
    let [stale, new] =
        [stale, new].map(|(number, name)| pv(&bench, number, name, PvStanding::Joining));
    bench.join(&stale, true).unwrap();
    let label = std::fs::read(bench.path("c")).unwrap();
    bench.leave(&stale).unwrap();
    bench.forget(&stale).unwrap();
    pool.pvs.push(stale.clone());
    bench.restart();
    bench.open(&pool).unwrap();
    bench.open_lu(&disk).unwrap();
    bench.join(&new, true).unwrap();
    pool.pvs.push(new.clone());
    bench.restart();
    // As if it had come back with a label of long ago.
    std::fs::write(bench.path("c"), label).unwrap();
    bench.open(&pool).unwrap();
    assert!(bench.status_of(&new).is_some());
    assert_eq!(bench.status_of(&stale), None);
    bench.open_lu(&disk).unwrap();
    bench.verify(0..100);
}

/// A disk that had joined this pool, in its last failure group or in a new one, and nobody had
/// written that down.
fn joined(bench: &mut Bench, mut pool: Pool) -> Pool {
    bench.make(&pool, true).unwrap();
    opened(bench, &pool, &lu(1024));
    bench.write(0..100);
    bench.disk("c", 100);
    let group = PvGroup { number: 1, name: Some("right".parse().unwrap()) };
    pool.pvs.push(PoolPv { group, ..pv(bench, 3, "c", PvStanding::Joining) });
    bench.join(&pool.pvs[2], true).unwrap();
    bench.restart();
    pool
}

fn joined_in_a_group(bench: &mut Bench) -> Pool {
    let pool = bench.in_groups();
    joined(bench, pool)
}

/// What it is when that is written down, and the other group is gone.
fn is_enough_without_the_other_group(bench: &mut Bench, mut pool: Pool) {
    bench.join(&pool.pvs[2], true).unwrap();
    pool.pvs[2].standing = PvStanding::Member;
    bench.open_lu(&lu(1024)).unwrap();
    bench.write(100..200);
    until("copies are brought up to date", || bench.behind().is_empty());
    bench.restart();
    for (name, pv) in ["a", "b"].into_iter().zip(&pool.pvs) {
        if pv.group.number != 1 {
            bench.rename(name, &format!("{name}.away"));
        }
    }
    bench.open(&pool).unwrap();
    bench.open_lu(&lu(1024)).unwrap();
    bench.verify(0..200);
}

#[test]
fn a_disk_that_had_joined_a_group_is_counted_once() {
    for is_first_of_it in [false, true] {
        let mut bench = Bench::new();
        let pool = if is_first_of_it { bench.pool() } else { bench.in_groups() };
        let pool = joined(&mut bench, pool);
        bench.open(&pool).unwrap();
        assert!(bench.status_of(&pool.pvs[2]).is_some());
        is_enough_without_the_other_group(&mut bench, pool);
    }
}

#[test]
fn a_disk_that_had_joined_a_group_and_cannot_be_used_joins_anew() {
    for is_short in [false, true] {
        let mut bench = Bench::new();
        let pool = joined_in_a_group(&mut bench);
        match is_short {
            true => bench.disk("c", 50),
            false => bench.rename("c", "lost"),
        }
        bench.open(&pool).unwrap();
        assert_eq!(bench.status_of(&pool.pvs[2]), None);
        if !is_short {
            bench.join(&pool.pvs[2], true).unwrap_err();
            bench.rename("lost", "c");
        }
        is_enough_without_the_other_group(&mut bench, pool);
    }
}

#[test]
fn a_disk_that_is_not_missed_any_more_is_another_than_one_that_is() {
    let mut bench = Bench::new();
    let mut pool = joined_in_a_group(&mut bench);
    pool.pvs[2].standing = PvStanding::Member;
    bench.open(&pool).unwrap();
    bench.open_lu(&lu(1024)).unwrap();
    bench.leave(&pool.pvs[2]).unwrap();
    // It has left, and nobody has written that down when another one is away.
    bench.restart();
    bench.rename("b", "away");
    pool.pvs[2].standing = LEAVING;
    let withdrawn = pv(&bench, 4, "d", PvStanding::Withdrawn);
    pool.pvs.push(withdrawn.clone());
    bench.open(&pool).unwrap();
    bench.leave(&pool.pvs[2]).unwrap();
    bench.leave(&withdrawn).unwrap();
    bench.told();
    bench.restart();
    bench.rename("away", "b");
    pool.pvs.truncate(2);
    bench.open(&pool).unwrap();
    bench.open_lu(&lu(1024)).unwrap();
    bench.verify(0..100);
    let told = bench.told();
    assert!(told.iter().all(|(severity, _)| *severity < Severity::Error), "{told:?}");
    assert!(bench.status_of(&pool.pvs[1]).is_some());
}

#[test]
fn a_disk_of_which_nothing_is_known_is_told_of() {
    let mut bench = Bench::new();
    let mut pool = joined_in_a_group(&mut bench);
    pool.pvs.truncate(2);
    bench.open(&pool).unwrap();
    let told = bench.told();
    let is_told = |text: &String| text.contains("one of its disks, which is not known here");
    assert!(told.iter().any(|(_, text)| is_told(text)), "{told:?}");
}
