//! A failure group that leaves a pool in use, over crashes at any moment: the others have
//! everything, and nobody takes what has left for the pool.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;

use rt::sim::Random;

use super::super::super::crash::{is_one_seed, seeds};
use super::super::super::home::{Found, Noted, Registry, Terms, read_label};
use super::deaths::{another, kill};
use super::groups::{catch_up, find, holds, visit, with_disks, write};
use super::members::{BYTES, LU_BYTES, PATHS, Shared, load, read_all};
use super::*;

/// The disks of each group.
pub(super) const GROUPS: [[usize; 2]; 2] = [[0, 1], [2, 3]];

#[test]
fn a_group_leaves_and_the_other_one_goes_on() {
    for leaves in [0, 1] {
        with_disks(leaves, move |core, _| async move {
            let (group, leaves) = (leaves as u16, leaves as usize);
            visit(&core, &[0, 1], async |pool, lu| {
                write(&core, lu, 2).await;
                pool.split(group, 1).await.unwrap();
                lu.quiet().await.unwrap();
                assert_eq!((pool.groups(), pool.disks_used().len()), (vec![1 - group], 1));
                assert_eq!((pool.stale_groups(LU), pool.lacks(LU, 0).0), (vec![], 0));
                holds(&core, lu, 2).await;
                write(&core, lu, 3).await;
                // Once more, and of one that it does not have.
                for other in [group, 7] {
                    pool.split(other, 0).await.unwrap();
                }
                let last = pool.split(1 - group, 1).await;
                assert!(matches!(last, Err(PoolError::LastGroup(it)) if it == 1 - group));
                // It can grow without the other one.
                let new = NewLu { id: [4; 16], layer: [5; 16], about: about(LU_BYTES, 512) };
                let other = Lu::open(&core, pool.create_lu(new).await.unwrap()).await.unwrap();
                write(&core, &other, 4).await;
                other.close().await;
            })
            .await;
            let left = find(&core, &[leaves]).await;
            assert!(matches!(left, Err(PoolError::Missing { wanted: 1, found: 0 })));
            // Nobody misses it, and nobody takes it back.
            for disks in [vec![1 - leaves], vec![0, 1]] {
                let found = find(&core, &disks).await.unwrap();
                assert_eq!((found.absent(), found.labels().count()), (0, 1));
            }
            visit(&core, &[1 - leaves], async |_, lu| holds(&core, lu, 3).await).await;
        });
    }
}

#[test]
fn a_group_stays_without_which_something_would_be_lost() {
    with_disks(3, |core, _| async move {
        visit(&core, &[1], async |_, lu| write(&core, lu, 2).await).await;
        visit(&core, &[0, 1], async |pool, lu| {
            let refused = pool.split(1, 1).await;
            assert!(matches!(refused, Err(PoolError::GroupLacks(0))), "{refused:?}");
            lu.mend(1).await.unwrap();
            assert!(matches!(pool.split(1, 1).await, Err(PoolError::GroupLacks(0))));
            catch_up(pool, lu).await;
            pool.split(1, 1).await.unwrap();
            holds(&core, lu, 2).await;
        })
        .await;
        visit(&core, &[0], async |_, lu| holds(&core, lu, 2).await).await;
    });
}

/// One that is dead or away is what one wants to be rid of.
#[test]
fn a_group_leaves_that_cannot_be_written() {
    for is_away in [false, true] {
        with_disks(5, move |core, disks| async move {
            let here: &[usize] = if is_away { &[0] } else { &[0, 1] };
            visit(&core, here, async |pool, lu| {
                if !is_away {
                    kill(&disks[1]);
                    write(&core, lu, 1).await;
                    another(&core, pool, 4).await.close().await;
                    assert_eq!(pool.lost().len(), 1);
                }
                pool.split(1, 1).await.unwrap();
                assert_eq!((pool.groups(), pool.absent(), pool.lost()), (vec![0], 0, vec![]));
                write(&core, lu, 2).await;
                // Nobody is waited for any more: blocks are written without a word to anybody.
                let slabs = pool.granted(LU).unwrap().slabs;
                assert!(slabs.iter().all(|slab| pool.shared.places.sole(*slab).is_some()));
            })
            .await;
            disks[1].heal();
            // It does not know, and everybody else does.
            let both = find(&core, &[0, 1]).await.map(|found| found.absent());
            assert!(matches!(both, Err(PoolError::Replaced { .. })), "{both:?}");
            visit(&core, &[0], async |_, lu| holds(&core, lu, 2).await).await;
        });
    }
}

/// What is kept of the pool beside its disks.
#[derive(Clone)]
pub(super) struct Kept {
    stage: Arc<Mutex<Stage>>,
    /// What labels may say at most.
    epoch: Arc<AtomicU64>,
    ages: Arc<Mutex<BTreeMap<[u8; 16], u32>>>,
    /// The group that leaves.
    leaves: usize,
}

impl Kept {
    /// The LU's current copies have this age, as far as is known.
    pub(super) fn of_age(age: u32) -> Self {
        let (stage, ages) = (Arc::new(Mutex::new(Stage::Whole)), [(LU, age)].into());
        Self { stage, epoch: Arc::default(), ages: Arc::new(Mutex::new(ages)), leaves: 0 }
    }

    pub(super) fn age_of_lu(&self) -> u32 {
        self.age(LU)
    }

    fn stage(&self) -> Stage {
        *self.stage.lock().unwrap()
    }

    /// The epoch of labels that are about to say that the pool is forced.
    pub(super) fn forced_epoch(&self, found: &Found) -> u64 {
        let epoch = found.forced_epoch(self.epoch.load(Ordering::SeqCst));
        self.epoch.store(epoch, Ordering::SeqCst);
        epoch
    }

    /// Opens what was found.
    pub(super) async fn open(&self, found: Found) -> Rc<Pool> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        self.epoch.store(epoch.max(found.epoch()) + 1, Ordering::SeqCst);
        let registry: Option<Rc<dyn Registry>> = Some(Rc::new(self.clone()));
        found.open_on(Terms { epoch, may_lack: true, registry }).await.unwrap()
    }
}

impl Registry for Kept {
    fn age(&self, lu: [u8; 16]) -> u32 {
        self.ages.lock().unwrap().get(&lu).copied().unwrap_or(0)
    }

    fn note(&self, all: Vec<([u8; 16], Option<u32>)>) -> Noted<'_> {
        let mut ages = self.ages.lock().unwrap();
        for (lu, age) in all {
            match age {
                Some(age) => drop(ages.insert(lu, age)),
                None => drop(ages.remove(&lu)),
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn epochs(&self, all: RangeInclusive<u64>) -> Noted<'_> {
        self.epoch.store(*all.end(), Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Whole,
    Splitting,
    Split,
}

pub(super) async fn backings(
    core: &Core,
    disks: impl IntoIterator<Item = usize>,
) -> Vec<Arc<dyn Backing>> {
    let mut all = Vec::new();
    for disk in disks {
        all.push(backing(core, Path::new(PATHS[disk]), true).await);
    }
    all
}

/// A pool of all disks, with an LU.
pub(super) async fn make_groups(core: Core) {
    let mut new = Vec::new();
    for (disk, backing) in backings(&core, 0..4).await.into_iter().enumerate() {
        new.push(NewDisk { backing, pv: [disk as u8 + 7; 16], group: disk as u16 / 2 });
    }
    let pool = Pool::format(&core, new_pool(), new).await.unwrap();
    let new = NewLu { id: LU, layer: BASE, about: about(LU_BYTES, 512) };
    pool.create_lu(new).await.map(drop).unwrap();
}

/// Goes on where a process that was killed has left it.
async fn live(core: Core, kept: Kept, records: Shared, seed: u64) {
    let named = match kept.stage() {
        Stage::Split => GROUPS[1 - kept.leaves].to_vec(),
        _ => GROUPS.concat(),
    };
    let found = Pool::find(&core, backings(&core, named).await).await.unwrap();
    let pool = kept.open(found).await;
    let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
    let device = lu.device(&core);
    // What the last process did not come to answer may be in one copy only until then.
    device.io(&Request::flush()).await.unwrap();
    read_all(&device, &records).await;
    let mut random = Random::new(seed << 2 | 2);
    for part in 0..2 {
        let own = Random::new(seed << 2 | part);
        core.spawn(load(device.clone(), records.clone(), own, part));
    }
    core.sleep(Duration::from_micros(random.below(20_000))).await;
    if kept.stage() != Stage::Split {
        *kept.stage.lock().unwrap() = Stage::Splitting;
        loop {
            match pool.split(kept.leaves as u16, 2).await {
                // Of what was granted when it died one group may know nothing.
                Err(PoolError::GroupLacks(_)) => drop(lu.mend(1).await),
                split => break split.unwrap(),
            }
            core.sleep(Duration::from_millis(1)).await;
        }
        lu.quiet().await.unwrap();
        *kept.stage.lock().unwrap() = Stage::Split;
    }
    core.sleep(Duration::from_secs(3600)).await;
}

/// How many disks of the group say that they have left.
async fn how_many_left(core: Core, kept: Kept) -> usize {
    let mut left = 0;
    for disk in backings(&core, GROUPS[kept.leaves]).await {
        left += usize::from(read_label(&core, &disk).await.unwrap().0.has_left());
    }
    assert!(left == 2 || kept.stage() != Stage::Split);
    left
}

/// As long as the group can be used alone it has everything, and later it cannot.
async fn is_used_alone(core: Core, kept: Kept, records: Shared) {
    let all = backings(&core, GROUPS[kept.leaves]).await;
    let Ok(alone) = Pool::find(&core, all).await else { return };
    assert_ne!(kept.stage(), Stage::Split);
    let pool = kept.open(alone).await;
    match pool.seat(LU) {
        // It is known that it has missed something.
        Err(LuError::Pool(PoolError::NoCopy(_))) => {}
        seat => {
            let lu = Lu::open(&core, seat.unwrap()).await.unwrap();
            read_all(&lu.device(&core), &records).await;
            lu.close().await;
        }
    }
    pool.close().await.unwrap();
}

/// Over how many crashes the group has left, by how many of its disks had said so; and how much was
/// written.
fn world(seed: u64) -> ([u32; 3], u64) {
    let mut random = Random::new(seed ^ 0x51_1755);
    let world = World::new(seed, Options::swarm(seed));
    let (host, records, mut cuts) = (world.host("host"), Shared::default(), [0; 3]);
    let leaves = (seed % 2) as usize;
    let kept = Kept { leaves, ..Kept::of_age(0) };
    let all = attached(&world, &host, PATHS, BYTES);
    world.block_on(&host.core(), make_groups).expect("it ends");
    let mut after = 0;
    for round in 0..500 {
        let (known, shared) = (kept.clone(), records.clone());
        host.core().remote().send(move |core| {
            core.spawn(live(core.clone(), known, shared, seed << 16 | round));
        });
        let most = 60_000 + 20_000 * round;
        if kept.stage() == Stage::Whole && random.coin() {
            // Not long behind its begin, where most of its steps are.
            let looks = (0..most / 100).take_while(|_| kept.stage() == Stage::Whole);
            looks.for_each(|_| world.run_for(Duration::from_micros(100)));
            world.run_for(Duration::from_micros(random.below(20_000)));
        } else {
            world.run_for(Duration::from_micros(random.below(most)));
        }
        crash(&world, &host, &all, random.coin());
        let now = kept.stage();
        let known = kept.clone();
        let left = world.block_on(&host.core(), move |core| how_many_left(core, known));
        cuts[left.expect("it ends")] += u32::from(now == Stage::Splitting);
        // Not always: the others are outdated then, and everything has to be brought there.
        if now == Stage::Split || round < 10 && random.below(4) == 0 {
            let (known, shared) = (kept.clone(), records.clone());
            let used = world.block_on(&host.core(), |core| is_used_alone(core, known, shared));
            used.expect("it ends");
        }
        after += u32::from(now == Stage::Split);
        if after == 3 {
            break;
        }
    }
    assert_eq!(after, 3, "it goes on");
    (cuts, records.lock().unwrap().writes)
}

/// Worlds of so many seeds have been cut short at each step, and have written.
pub(super) fn are_cut_everywhere(world: impl Fn(u64) -> ([u32; 3], u64)) {
    let (mut cuts, mut writes) = ([0; 3], 0);
    for seed in seeds(24, &[]) {
        let (cut, written) = world(seed);
        (0..3).for_each(|done| cuts[done] += cut[done]);
        writes += written;
    }
    println!("cut short when so many of its disks had left: {cuts:?}; {writes} writes");
    let is_all = cuts.iter().all(|count| *count > 0) && writes > 1000;
    assert!(is_one_seed() || is_all, "{cuts:?}, {writes}");
}

#[test]
fn a_group_leaves_under_a_load_over_crashes() {
    are_cut_everywhere(world);
}
