//! A failure group that becomes a pool of its own, over crashes at any moment: it holds what was
//! answered at one instant, and from then on neither pool knows what is written to the other.

use std::sync::Mutex;

use rt::sim::Random;

use super::super::super::check::{self, Of};
use super::super::super::home::{SplitOff, read_label};
use super::super::super::survey::survey;
use super::groups::{find, holds, visit, with_disks, write};
use super::members::{BYTES, LU_BYTES, PATHS, Shared, load, read_all, write_one};
use super::splits::{GROUPS, Kept, are_cut_everywhere, backings, make_groups};
use super::*;

const NEW: [u8; 16] = [0x61; 16];

/// What an LU of the pool is called in the new one.
fn seen(lu: [u8; 16]) -> [u8; 16] {
    lu.map(|byte| byte ^ 1 ^ 0x61)
}

fn new(group: u16, disks: usize) -> SplitOff {
    SplitOff { group, disks, id: NEW, name: "new".to_owned() }
}

/// Lets the group go while nothing is written, as it is at the instant that `then` is told of.
async fn split_off(
    pool: &Pool,
    lus: &[Arc<Lu>],
    new: &SplitOff,
    then: impl FnOnce(),
) -> Result<(), PoolError> {
    pool.announce_split(new).await?;
    let still = still(lus).await.unwrap();
    then();
    let open: Vec<[u8; 16]> = lus.iter().map(|lu| lu.id()).collect();
    pool.split_off(new, &open).await?;
    for lu in lus {
        lu.quiet().await.unwrap();
    }
    drop(still);
    Ok(())
}

/// Opens the pool that these disks are, with its only LU, and closes it.
async fn enter(core: &Core, disks: &[usize], then: impl AsyncFnOnce(&Rc<Pool>, &Arc<Lu>)) {
    let pool = find(core, disks).await.unwrap().open(0).await.unwrap();
    let (id, _) = pool.lus().pop_first().unwrap();
    let lu = Lu::open(core, pool.seat(id).unwrap()).await.unwrap();
    then(&pool, &lu).await;
    lu.close().await;
    drop(lu);
    pool.close().await.unwrap();
}

#[test]
fn a_group_becomes_a_pool_and_neither_hears_of_the_other() {
    for leaves in [0, 1] {
        with_disks(leaves, move |core, _| async move {
            let (group, leaves) = (leaves as u16, leaves as usize);
            visit(&core, &[0, 1], async |pool, lu| {
                write(&core, lu, 2).await;
                let frozen = lu.snapshot([0x33; 16]).await.unwrap();
                lu.name_layer(frozen, "then".to_owned()).await.unwrap();
                split_off(pool, std::slice::from_ref(lu), &new(group, 1), || ()).await.unwrap();
                assert_eq!((pool.groups(), pool.disks_used().len()), (vec![1 - group], 1));
                write(&core, lu, 3).await;
                // Once more, it does nothing.
                pool.split_off(&new(group, 1), &[LU]).await.unwrap();
                let again = pool.split_off(&new(1 - group, 1), &[LU]).await;
                assert!(matches!(again, Err(PoolError::LastGroup(_))), "{again:?}");
            })
            .await;
            // Found with the others it has left them; alone it is a pool.
            let both = find(&core, &[0, 1]).await.unwrap();
            assert_eq!((both.id(), both.absent(), both.labels().count()), (POOL, 0, 1));
            drop(both);
            let found = find(&core, &[leaves]).await.unwrap();
            assert_eq!((found.id(), found.name(), found.absent()), (NEW, "new", 0));
            let said = survey(found).await.unwrap();
            assert_eq!((said.lus.len(), said.lus[0].id), (1, seen(LU)));
            let frozen = &said.lus[0].said.as_ref().unwrap().frozen;
            assert_eq!(frozen.iter().map(|(_, it)| &it.name).collect::<Vec<_>>(), ["then"]);
            for (value, other) in [(4, 5), (6, 7)] {
                enter(&core, &[leaves], async |pool, lu| {
                    assert_eq!((pool.id(), lu.id()), (NEW, seen(LU)));
                    holds(&core, lu, if value == 4 { 2 } else { 4 }).await;
                    write(&core, lu, value).await;
                })
                .await;
                enter(&core, &[1 - leaves], async |pool, lu| {
                    assert_eq!((pool.id(), lu.id()), (POOL, LU));
                    holds(&core, lu, if other == 5 { 3 } else { 5 }).await;
                    write(&core, lu, other).await;
                })
                .await;
            }
            for disk in [0, 1] {
                let path = Path::new(PATHS[disk]);
                let report =
                    check::check(&core, vec![backing(&core, path, true).await], |_| ()).await;
                assert!(report.findings.is_empty(), "{:?}", report.findings);
                assert_eq!(report.counts.lus, 1);
            }
        });
    }
}

/// What it gets to be is a pool like all others: with clones, new LUs, another group, and a group
/// of it that leaves in its turn.
#[test]
fn a_pool_that_was_split_off_is_one_like_others() {
    with_disks(9, |core, _| async move {
        let clone = [0x44; 16];
        visit(&core, &[0, 1], async |pool, lu| {
            let frozen = lu.snapshot([0x33; 16]).await.unwrap();
            let base = Some(Base { lu: LU, layer: frozen });
            let about = About { base, ..about(LU_BYTES, 512) };
            let seat = pool.create_lu(NewLu { id: clone, layer: [0x45; 16], about }).await.unwrap();
            let own = Lu::open(&core, seat.on(lu.view(frozen).await.unwrap())).await.unwrap();
            write(&core, lu, 2).await;
            let lus = [lu.clone(), own.clone()];
            split_off(pool, &lus, &new(1, 1), || ()).await.unwrap();
            own.close().await;
        })
        .await;
        let last = SplitOff { id: [0x71; 16], name: "last".to_owned(), ..new(0, 1) };
        let pool = find(&core, &[1]).await.unwrap().open(0).await.unwrap();
        let lu = Lu::open(&core, pool.seat(seen(LU)).unwrap()).await.unwrap();
        let base = pool.describe_lu(seen(clone)).await.unwrap().base.unwrap();
        assert_eq!(base.lu, seen(LU));
        let seat = pool.seat(seen(clone)).unwrap().on(lu.view(base.layer).await.unwrap());
        let own = Lu::open(&core, seat).await.unwrap();
        holds(&core, &own, 1).await;
        holds(&core, &lu, 2).await;
        let another = NewLu { id: [0x55; 16], layer: [0x56; 16], about: about(LU_BYTES, 512) };
        let another = Lu::open(&core, pool.create_lu(another).await.unwrap()).await.unwrap();
        write(&core, &another, 8).await;
        // Another group, which then leaves.
        let disk = backing(&core, Path::new(PATHS[2]), true).await;
        let disk = NewDisk { backing: disk, pv: [0x66; 16], group: 0 };
        let disk = pool.prepare(disk).await.unwrap();
        pool.admit(disk).await.unwrap();
        let lus = [lu, own, another];
        for lu in &lus {
            while lu.mend(7).await.unwrap().lacking > 0 {}
        }
        pool.settle_groups().await.unwrap();
        split_off(&pool, &lus, &last, || ()).await.unwrap();
        write(&core, &lus[2], 9).await;
        for lu in lus {
            lu.close().await;
        }
        pool.close().await.unwrap();
        let pool = find(&core, &[2]).await.unwrap().open(0).await.unwrap();
        assert_eq!((pool.id(), pool.name()), ([0x71; 16], "last"));
        let lu = |lu: [u8; 16]| lu.map(|byte| byte ^ 0x61 ^ 0x71);
        let ids: Vec<[u8; 16]> = pool.lus().into_keys().collect();
        let mut wanted = [lu(seen(LU)), lu(seen(clone)), lu([0x55; 16])];
        wanted.sort_unstable();
        assert_eq!(ids, wanted);
        let another = Lu::open(&core, pool.seat(lu([0x55; 16])).unwrap()).await.unwrap();
        holds(&core, &another, 8).await;
        another.close().await;
        drop(another);
        pool.close().await.unwrap();
        let all = backings(&core, [2]).await;
        let report = check::check(&core, all, |_| ()).await;
        let findings: Vec<_> = report.findings.iter().filter(|it| it.of != Of::Pool).collect();
        assert!(!report.is_damaged() && findings.is_empty(), "{findings:?}");
    });
}

#[test]
fn what_cannot_be_a_pool_stays() {
    with_disks(3, |core, _| async move {
        visit(&core, &[1], async |_, lu| write(&core, lu, 2).await).await;
        visit(&core, &[0, 1], async |pool, lu| {
            for (group, lacks) in [(0, 0), (1, 0)] {
                let refused = pool.announce_split(&new(group, 1)).await;
                let is_it = matches!(refused, Err(PoolError::GroupLacks(it)) if it == lacks);
                assert!(is_it, "{refused:?}");
            }
            while lu.mend(7).await.unwrap().lacking > 0 {}
            pool.settle_groups().await.unwrap();
            // Somebody opens an LU meanwhile, of which nobody knows whether it is still.
            let refused = split_off(pool, &[], &new(1, 1), || ()).await;
            assert!(matches!(refused, Err(PoolError::Opening(LU))), "{refused:?}");
            write(&core, lu, 3).await;
        })
        .await;
        // It was announced and nothing came of it.
        for disks in [&[0_usize, 1][..], &[1]] {
            visit(&core, disks, async |_, lu| holds(&core, lu, 3).await).await;
        }
        visit(&core, &[1], async |pool, _| {
            let refused = pool.announce_split(&new(0, 1)).await;
            assert!(matches!(refused, Err(PoolError::Missing { .. })), "{refused:?}");
        })
        .await;
    });
}

/// What is known beside the disks.
#[derive(Clone)]
struct Known {
    kept: Kept,
    records: Shared,
    /// What is in the new pool: as it was at the instant, and since.
    other: Arc<Mutex<Option<Shared>>>,
    has_split: Arc<AtomicBool>,
    leaves: usize,
}

impl Known {
    fn has_split(&self) -> bool {
        self.has_split.load(Ordering::SeqCst)
    }

    fn split(&self) -> SplitOff {
        new(self.leaves as u16, 2)
    }

    /// The new pool, if it is there, begins with this.
    fn note_instant(&self) {
        let parted = self.records.lock().unwrap().parted();
        *self.other.lock().unwrap() = Some(Arc::new(Mutex::new(parted)));
    }
}

/// Goes on where a process that was killed has left it.
async fn live(core: Core, known: Known, seed: u64) {
    let named = match known.has_split() {
        true => GROUPS[1 - known.leaves].to_vec(),
        false => GROUPS.concat(),
    };
    let found = Pool::find(&core, backings(&core, named).await).await.unwrap();
    let pool = known.kept.open(found).await;
    assert_eq!(pool.id(), POOL);
    let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
    let device = lu.device(&core);
    // What the last process did not come to answer may be in one copy only until then.
    device.io(&Request::flush()).await.unwrap();
    read_all(&device, &known.records).await;
    let mut random = Random::new(seed << 2 | 2);
    for part in 0..2 {
        let own = Random::new(seed << 2 | part);
        core.spawn(load(device.clone(), known.records.clone(), own, part));
    }
    core.sleep(Duration::from_micros(random.below(20_000))).await;
    if !known.has_split() {
        let is_here = pool.groups().contains(&(known.leaves as u16));
        let then = || {
            if is_here {
                known.note_instant()
            }
        };
        loop {
            match split_off(&pool, std::slice::from_ref(&lu), &known.split(), then).await {
                // Of what was granted when it died one group may know nothing.
                Err(PoolError::GroupLacks(_)) => drop(lu.mend(1).await),
                split => break split.unwrap(),
            }
            core.sleep(Duration::from_millis(1)).await;
        }
        known.has_split.store(true, Ordering::SeqCst);
    }
    core.sleep(Duration::from_secs(3600)).await;
}

/// How many disks of the group say that they are the new pool's.
async fn how_many(core: Core, known: Known) -> usize {
    let mut count = 0;
    for disk in backings(&core, GROUPS[known.leaves]).await {
        count += usize::from(read_label(&core, &disk).await.unwrap().0.pool == NEW);
    }
    assert!(count == 2 || !known.has_split());
    count
}

/// The group is the new pool, with what there was at the instant; or it is the old one's, and can
/// be used alone if it has everything.
async fn use_alone(core: Core, known: Known, (count, is_wanted): (usize, bool)) {
    let disks = backings(&core, GROUPS[known.leaves]).await;
    let found = Pool::find(&core, disks).await;
    if count == 0 {
        let Ok(found) = found else { return };
        assert_eq!(found.id(), POOL);
        if is_wanted {
            let pool = known.kept.open(found).await;
            if let Ok(seat) = pool.seat(LU) {
                let lu = Lu::open(&core, seat).await.unwrap();
                read_all(&lu.device(&core), &known.records).await;
                lu.close().await;
            }
            pool.close().await.unwrap();
        }
        return;
    }
    let found = found.unwrap();
    assert_eq!((found.id(), found.name(), found.absent()), (NEW, "new", 0));
    let records = known.other.lock().unwrap().clone().unwrap();
    let pool = found.open(0).await.unwrap();
    let lu = Lu::open(&core, pool.seat(seen(LU)).unwrap()).await.unwrap();
    let device = lu.device(&core);
    read_all(&device, &records).await;
    for block in 0..8 {
        write_one(&device, &records, block).await.unwrap();
    }
    read_all(&device, &records).await;
    lu.close().await;
    drop((device, lu));
    pool.close().await.unwrap();
}

/// Over how many crashes it was to become a pool, by how many of its disks were that; and how much
/// was written.
fn world(seed: u64) -> ([u32; 3], u64) {
    let mut random = Random::new(seed ^ 0x0ff_1755);
    let world = World::new(seed, Options::swarm(seed));
    let (host, mut cuts) = (world.host("host"), [0; 3]);
    let (kept, records, leaves) = (Kept::of_age(0), Shared::default(), (seed % 2) as usize);
    let (other, has_split) = (Arc::default(), Arc::default());
    let known = Known { kept, records, other, has_split, leaves };
    let all = attached(&world, &host, PATHS, BYTES);
    world.block_on(&host.core(), make_groups).expect("it ends");
    let mut after = 0;
    for round in 0..500 {
        let own = known.clone();
        host.core().remote().send(move |core| {
            core.spawn(live(core.clone(), own, seed << 16 | round));
        });
        world.run_for(Duration::from_micros(random.below(60_000 + 20_000 * round)));
        crash(&world, &host, &all, random.coin());
        let own = known.clone();
        let count = world.block_on(&host.core(), move |core| how_many(core, own));
        let count = count.expect("it ends");
        cuts[count] += u32::from(!known.has_split());
        // Not always: who goes on after that knows it from the others, or from this.
        let is_wanted = round < 10 && random.below(4) == 0;
        if known.has_split() || random.coin() {
            let own = known.clone();
            let used =
                world.block_on(&host.core(), move |core| use_alone(core, own, (count, is_wanted)));
            used.expect("it ends");
        }
        after += u32::from(known.has_split());
        if after == 3 {
            break;
        }
    }
    assert_eq!(after, 3, "it goes on");
    let writes = known.records.lock().unwrap().writes;
    (cuts, writes)
}

#[test]
fn a_group_becomes_a_pool_under_a_load_over_crashes() {
    are_cut_everywhere(world);
}
