//! What may be overwritten without asking is open in the journal as well.

use rt::sim::{Latency, Random};

use super::super::service::{OPEN_MAX, Service};
use super::groups::{APART, BLOCKS, LU_BYTES, write};
use super::*;

const PATH: &str = "/dev/disk";
const MS: u64 = 1_000_000;

async fn pause(core: &Core, random: &mut Random, most: u64) {
    core.sleep(Duration::from_nanos(random.below(most))).await;
}

async fn overwrite(core: Core, lu: Arc<Lu>, mut random: Random) {
    let (device, data) = (lu.device(&core), Buffer::from_bytes(&[2; 4096]));
    for _ in 0..100 {
        let at = random.below(BLOCKS) * APART;
        device.io(&Request::write(at, data.sgl())).await.unwrap();
        pause(&core, &mut random, 2000 * MS).await;
    }
}

/// Some syncs take so long that several looks come while a region is being opened.
#[test]
fn a_region_is_open_to_all_only_where_the_journal_says_so() {
    for seed in 0..4 {
        let sync = Latency::new(MS..10 * MS).with_rare(300_000, 1000 * MS..3000 * MS);
        let world = World::new(seed, Options { sync, ..Options::swarm(seed) });
        let host = world.host("host");
        let _disks = attached(&world, &host, [PATH], DISK_BYTES);
        let done = world.block_on(&host.core(), move |core| async move {
            let (pool, lu) = new_lu(&core, (PATH, new_pool_with_sums()), LU_BYTES).await;
            write(&core, &lu, 1).await;
            let writer = core.spawn_task(overwrite(core.clone(), lu.clone(), Random::new(seed)));
            let (mut random, mut most) = (Random::new(!seed), 0);
            for _ in 0..500 {
                let (slabs, shared) = (pool.granted(LU).unwrap().slabs, pool.shared.clone());
                let look = move |service: Rc<Service>| async move {
                    service.look_at_regions();
                    let said = service.owner().regions().clone();
                    let open = slabs.iter().map(|slab| (slab, shared.places.open(*slab)));
                    let open: Vec<_> = open.filter(|(_, regions)| *regions != 0).collect();
                    for (slab, regions) in &open {
                        let said = said.get(slab).copied().unwrap_or_default();
                        assert_eq!(regions & !said, 0, "of slab {slab}");
                    }
                    open.len()
                };
                most = most.max(lu.owner.call(look).await.unwrap());
                pause(&core, &mut random, 400 * MS).await;
            }
            writer.await;
            assert!(most > 0, "nothing was open");
        });
        done.expect("it ends");
    }
}

/// More regions than are kept open unasked, all of them in use: whoever has opened them
/// asks nobody for them again.
#[test]
fn regions_in_use_stay_open_though_they_are_many() {
    const REGION: u64 = 1 << 20;
    const EXTENT: u64 = 256 << 10;
    const REGIONS: u64 = OPEN_MAX as u64 + 256;
    let world = World::new(5, Options::default());
    let host = world.host("host");
    let _disks = attached(&world, &host, [PATH], 8 << 30);
    let done = world.block_on(&host.core(), |core| async move {
        let new = NewPool { shape: Shape::default().with_sums(), ..new_pool() };
        let (pool, lu) = new_lu(&core, (PATH, new), 1 << 40).await;
        // Many at a time, so that a page of the journal says it of many.
        const AT_ONCE: u64 = 256;
        let over = async || {
            let all = (0..AT_ONCE).map(|first| {
                let device = lu.device(&core);
                core.spawn_task(async move {
                    let data = Buffer::from_bytes(&[2; 4096]);
                    let mine =
                        (first * EXTENT..REGIONS * REGION).step_by((AT_ONCE * EXTENT) as usize);
                    for at in mine {
                        device.io(&Request::write(at, data.sgl())).await.unwrap();
                    }
                })
            });
            for task in all.collect::<Vec<_>>() {
                task.await;
            }
        };
        over().await;
        lu.device(&core).io(&Request::flush()).await.unwrap();
        // One look at all of them comes when they have become too many.
        for _ in 0..2 {
            over().await;
        }
        let shared = pool.shared.clone();
        let look = move |service: Rc<Service>| async move {
            let said = service.owner().regions().clone();
            let (mut open, mut to_all) = (0, 0);
            for (slab, regions) in said {
                open += regions.count_ones();
                to_all += (shared.places.open(slab) & regions).count_ones();
            }
            (open, to_all)
        };
        let (open, to_all) = lu.owner.call(look).await.unwrap();
        assert!(open > OPEN_MAX, "only {open} regions are open");
        assert_eq!(open, to_all, "the others are asked for at the next write");
    });
    done.expect("it ends");
}
