//! Pools of which metadata is lost, with backups of then and of before: whatever comes back is
//! right, and what does not come back is refused.

mod as_of;
mod herd;

use std::collections::BTreeMap;

use block::{Asked, Device, ErrorKind, Geometry, Op, Watch};
use rt::sim::{Options, Random, World};

use super::super::backup::tests::{backed_up, file, read};
use super::super::check::tests::disk::Image;
use super::super::check::tests::{Moment, disks, look as seen_by, metadata, moments, moments_of};
use super::super::crash::loops;
use super::super::home::Terms;
use super::super::lineage::Lineage;
use super::super::lu::Lu;
use super::super::lu::tests::families::{BLOCKS, Family, renew_root};
use super::super::lu::tests::new_pool;
use super::super::page::PAGE_BYTES;
use super::super::shape::TABLE_START;
use super::super::slabs::{self, Grant, Slab, TableHeader};
use super::*;

type Block = [u8; PAGE_BYTES];

const ROTTEN: Block = [0xaa; PAGE_BYTES];
const LABEL: usize = 0;
const TABLE: usize = 1;
const HEAD: usize = 2;
const BODY: usize = 3;
const MAP: usize = 4;

/// Restores what it can of these disks, and gives them as they are then.
async fn restored(core: &Core, images: &[Image], backup: &Backup) -> (Vec<Image>, Outcome) {
    let (held, backings) = disks(images);
    let asked = (backup, Wanted::default());
    let plan = Plan::make(core, backings.clone(), asked, |_| ()).await.unwrap();
    let is_untouched = held.iter().zip(images).all(|(disk, image)| disk.is_as(image));
    assert!(is_untouched, "it was written before all was known");
    plan.write(&backings).await.unwrap();
    let report = check(core, backings, |_| ()).await;
    assert_eq!(report.is_damaged(), !plan.is_good(), "{report:?}, {:?}", plan.report);
    let outcome = Outcome {
        restored: plan.restored.clone(),
        refused: plan.refused.clone(),
        is_good: plan.is_good(),
    };
    (held.iter().map(|disk| disk.take()).collect(), outcome)
}

#[derive(Debug)]
struct Outcome {
    restored: Vec<Told>,
    refused: Vec<Told>,
    is_good: bool,
}

fn in_world<T: 'static, F: Future<Output = T> + 'static>(
    seed: u64,
    work: impl FnOnce(Core) -> F + 'static,
) -> T {
    let world = World::new(seed, Options::default());
    let host = world.host("host");
    world.block_on(&host.core(), work).expect("it ends")
}

/// All that is to be read is right.
async fn is_right(core: &Core, images: &[Image], moment: &Moment) -> bool {
    let (_, backings) = disks(images);
    let seen = seen_by(core, backings, &moment.expected).await;
    assert!(seen.others.is_empty(), "{:?}", seen.others);
    assert_eq!(seen.older, 0);
    seen.unopened + seen.refused == 0
}

/// Both labels of a disk, and both places of each page of its slab table.
fn ends(image: &Image) -> Vec<u64> {
    let is_label = |block: &Block| block.starts_with(b"VDlb");
    image.blocks().filter(|(_, block)| is_label(block)).map(|(number, _)| number).collect()
}

fn tables(image: &Image) -> Vec<u64> {
    let is_table = |block: &Block| block.starts_with(b"VDst");
    image.blocks().filter(|(_, block)| is_table(block)).map(|(number, _)| number).collect()
}

/// Pages of maps, bodies and tables of which both places are lost, and labels, one after the other.
#[test]
fn what_is_lost_right_behind_a_backup_comes_back() {
    let count = in_world(3, |core| async move {
        let moments = moments(&core, 3).await;
        let mut count = 0;
        for moment in &moments {
            let bytes = backed_up(&core, &moment.images).await;
            let backup = read(&core, &bytes).await;
            let mut lost: Vec<Vec<(usize, u64)>> = Vec::new();
            for (disk, image) in moment.images.iter().enumerate() {
                lost.push(ends(image).into_iter().map(|at| (disk, at)).collect());
                lost.push(tables(image).into_iter().map(|at| (disk, at)).collect());
                // What a tool leaves that was let loose on a disk.
                let front = 0..TABLE_START / PAGE_BYTES as u64 + 2;
                lost.push(front.map(|at| (disk, at)).collect());
            }
            let pages = metadata(&moment.images);
            lost.push(pages[MAP].clone());
            lost.push(pages[BODY].clone());
            lost.extend(pages[MAP].iter().step_by(3).map(|page| vec![*page]));
            for (case, lost) in lost.into_iter().enumerate() {
                let mut images = moment.images.clone();
                let block = if case % 2 == 0 { [0; PAGE_BYTES] } else { ROTTEN };
                lost.iter().for_each(|(disk, at)| images[*disk].put(*at, block));
                let (images, outcome) = restored(&core, &images, &backup).await;
                assert!(outcome.is_good, "{outcome:?}");
                assert!(is_right(&core, &images, moment).await, "{outcome:?}");
                count += outcome.restored.len();
            }
        }
        count
    });
    assert!(count > 20, "{count}");
}

/// The newest head of each LU's root, which only the one before is left of.
#[test]
fn a_root_comes_back_if_no_later_one_was_written() {
    in_world(4, |core| async move {
        let moments = moments(&core, 4).await;
        let moment = moments.last().unwrap();
        let bytes = backed_up(&core, &moment.images).await;
        let backup = read(&core, &bytes).await;
        let heads = metadata(&moment.images)[HEAD].clone();
        let turn = |(disk, at): &(usize, u64)| {
            let page = Page::of_bytes(&moment.images[*disk].block(*at));
            (page.says().0.owner, page.says().0.turn)
        };
        for head in &heads {
            let (owner, newest) = turn(head);
            let of_lu = heads.iter().filter(|other| turn(other).0 == owner);
            let is_newest = of_lu.clone().all(|other| turn(other).1 <= newest);
            let mut images = moment.images.clone();
            images[head.0].put(head.1, ROTTEN);
            let (images, outcome) = restored(&core, &images, &backup).await;
            // Where the other one was never written, nothing says that it was not.
            let comes_back = newest > 1 || !is_newest;
            assert_eq!(outcome.is_good, comes_back, "{outcome:?}");
            assert_eq!(is_right(&core, &images, moment).await, comes_back);
            assert!(is_newest || outcome.restored.is_empty(), "{outcome:?}");
            // Neither of them: nobody knows which was the last.
            let mut images = moment.images.clone();
            of_lu.for_each(|(disk, at)| images[*disk].put(*at, ROTTEN));
            let (images, outcome) = restored(&core, &images, &backup).await;
            assert!(!outcome.is_good && outcome.restored.is_empty());
            assert!(outcome.refused.iter().any(|told| told.what.contains("its root")));
            assert!(!is_right(&core, &images, moment).await);
        }
    });
}

#[derive(Debug, Default)]
struct Tally {
    right: u64,
    refused: u64,
    restored: usize,
}

async fn world(core: Core, seed: u64) -> Tally {
    const TRIES: usize = 100;
    let moments = moments(&core, seed).await;
    let (mut random, mut tally) = (Random::new(seed ^ 0xbac), Tally::default());
    let mut backups = Vec::new();
    for moment in &moments {
        backups.push(read(&core, &backed_up(&core, &moment.images).await).await);
    }
    for _ in 0..TRIES {
        let at = random.below(moments.len() as u64) as usize;
        let then = random.below(at as u64 + 1) as usize;
        let moment = &moments[at];
        let (mut images, pages) = (moment.images.clone(), metadata(&moment.images));
        let mut lose = |(disk, at): (usize, u64)| images[disk].put(at, ROTTEN);
        for _ in 0..1 + random.below(3) {
            let kind = random.below(5) as usize;
            match kind {
                LABEL | TABLE => {
                    let disk = random.below(2) as usize;
                    pages[kind].iter().filter(|page| page.0 == disk).for_each(|it| lose(*it));
                }
                _ if pages[kind].is_empty() => {}
                // Sometimes the place beside it, too: of a page of a map the other one.
                _ => {
                    let (disk, at) = *random.pick(&pages[kind]);
                    lose((disk, at));
                    if random.below(4) == 0 && pages[kind].contains(&(disk, at ^ 1)) {
                        lose((disk, at ^ 1));
                    }
                }
            }
        }
        let (images, outcome) = restored(&core, &images, &backups[then]).await;
        tally.restored += outcome.restored.len();
        let is_table = |told: &Told| told.what.contains("of its slab table");
        assert!(outcome.is_good || !outcome.restored.iter().any(is_table), "{outcome:?}");
        match is_right(&core, &images, moment).await {
            true => tally.right += 1,
            false => {
                assert!(!outcome.is_good, "{outcome:?}");
                tally.refused += 1;
            }
        }
    }
    tally
}

/// Backups of any time before: nothing of them is taken that is not so any more.
#[test]
fn an_old_backup_never_brings_wrong_data() {
    let mut all = Tally::default();
    for seed in 10..10 + 3 * loops() {
        let Tally { right, refused, restored } = in_world(seed, move |core| world(core, seed));
        all.right += right;
        all.refused += refused;
        all.restored += restored;
    }
    println!("{all:?}");
    assert!(all.right > 0 && all.refused > 0 && all.restored > 0);
}

/// An LU whose map is written anew all the time, with a snapshot now and then.
async fn busy(family: &mut Family, random: &mut Random) {
    match random.below(60) {
        0..20 => family.write().await,
        20..26 => family.discard().await,
        26..30 => family.snapshot().await,
        30..34 => family.delete().await,
        _ => renew_root(&family.members[0].lu).await,
    }
}

/// Each page of a map and each head, with each backup of before.
async fn one_by_one(core: Core, seed: u64) -> BTreeMap<&'static str, u64> {
    const WHYS: [&str; 9] = [
        "whose head is there",
        "nothing was written to maps",
        "its layer was frozen then",
        "its other place was not written",
        "its other place does not say",
        "it was written since",
        "the backup does not have it",
        "the other one is of the turn before",
        "nothing says that no later one",
    ];
    let moments = moments_of(&core, (seed, 150, 12), [0, 0], busy).await;
    let (mut backups, mut whys) = (Vec::new(), BTreeMap::new());
    for moment in &moments {
        backups.push(read(&core, &backed_up(&core, &moment.images).await).await);
        let pages = metadata(&moment.images);
        let turn = |(disk, at): &(usize, u64)| {
            Page::of_bytes(&moment.images[*disk].block(*at)).says().0.turn
        };
        let last = pages[HEAD].iter().map(turn).max();
        // The root, and what would do in its stead.
        let heads = pages[HEAD].iter().filter(|page| Some(turn(page)) == last);
        let bodies = pages[BODY].iter().filter(|page| Some(turn(page)) != last);
        let root = heads.chain(bodies).copied().collect();
        let maps = pages[MAP].iter().step_by(2).map(|page| vec![*page]);
        for lost in maps.chain([root]) {
            let mut images = moment.images.clone();
            lost.iter().for_each(|(disk, at)| images[*disk].put(*at, ROTTEN));
            for backup in backups.iter().rev().take(4) {
                let (images, outcome) = restored(&core, &images, backup).await;
                let is_right = is_right(&core, &images, moment).await;
                assert_eq!(is_right, outcome.is_good, "{outcome:?}");
                for told in outcome.restored.iter().chain(&outcome.refused) {
                    let why = WHYS.iter().find(|why| told.what.contains(**why));
                    *whys.entry(*why.expect("another reason")).or_default() += 1;
                }
            }
        }
    }
    whys
}

#[test]
fn a_page_comes_back_only_if_it_was_not_written_since() {
    let mut all = BTreeMap::new();
    for seed in 20..20 + 2 * loops() {
        for (why, count) in in_world(seed, move |core| one_by_one(core, seed)) {
            *all.entry(why).or_insert(0) += count;
        }
    }
    println!("{all:#?}");
    assert!(all.len() >= 8, "{all:?}");
}

/// A disk that cannot read some of its pages.
struct Failing {
    below: Arc<dyn Backing>,
    at: Arc<Vec<u64>>,
}

struct FailingDevice {
    below: Rc<dyn Device>,
    at: Arc<Vec<u64>>,
}

impl Backing for Failing {
    fn device(&self, core: &Core) -> Rc<dyn Device> {
        Rc::new(FailingDevice { below: self.below.device(core), at: self.at.clone() })
    }

    fn name(&self) -> &str {
        self.below.name()
    }
}

impl Device for FailingDevice {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<block::Outcome> {
        match request.op == Op::Read && self.at.contains(&request.offset) {
            true => asked.now(Err(Error::new(ErrorKind::Medium))),
            false => self.below.begin(request, asked),
        }
    }

    fn watch(&self) -> &Watch {
        self.below.watch()
    }
}

#[test]
fn pages_that_a_disk_cannot_read_are_written_again() {
    in_world(7, |core| async move {
        let moments = moments(&core, 7).await;
        let moment = moments.last().unwrap();
        let backup = read(&core, &backed_up(&core, &moment.images).await).await;
        let pages = metadata(&moment.images);
        let lost = &[&pages[MAP][..], &pages[BODY][..]].concat();
        let mut images = moment.images.clone();
        lost.iter().for_each(|(disk, at)| images[*disk].put(*at, ROTTEN));
        let (held, backings) = disks(&images);
        let failing = (0..).zip(&backings).map(|(disk, below)| {
            let own = lost.iter().filter(|page| page.0 == disk);
            let at = Arc::new(own.map(|page| page.1 * PAGE_BYTES as u64).collect());
            Arc::new(Failing { below: below.clone(), at }) as Arc<dyn Backing>
        });
        let failing: Vec<_> = failing.collect();
        let plan = Plan::make(&core, failing.clone(), (&backup, Wanted::default()), |_| ()).await;
        let plan = plan.unwrap();
        assert!(plan.is_good() && !plan.restored.is_empty(), "{:?}", plan.report);
        plan.write(&failing).await.unwrap();
        let images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        assert!(is_right(&core, &images, moment).await);
    });
}

/// An LU is removed after the backup, and another one has its slabs.
#[test]
fn slabs_that_are_another_lus_now_are_not_given_back() {
    in_world(5, |core| async move {
        let mut moments = moments(&core, 5).await;
        let moment = moments.pop().unwrap();
        let backup = read(&core, &backed_up(&core, &moment.images).await).await;
        let gone = moment.expected.last().unwrap().id;
        let (held, backings) = disks(&moment.images);
        let pool = Pool::open(&core, backings).await.unwrap();
        let slabs = pool.granted(gone).unwrap().slabs.len() as u64;
        pool.revoke(gone).await.unwrap();
        pool.grant([77; 16], slabs, true).await.unwrap();
        pool.close().await.unwrap();
        let images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        for disk in 0..images.len() {
            let mut images = images.clone();
            tables(&images[disk]).into_iter().for_each(|at| images[disk].put(at, ROTTEN));
            let (_, outcome) = restored(&core, &images, &backup).await;
            assert!(!outcome.is_good && outcome.restored.is_empty(), "{outcome:?}");
            let is_named = |told: &Told| told.what.contains("was opened");
            assert!(outcome.refused.iter().any(is_named), "{outcome:?}");
        }
    });
}

/// Uses the pool without its second disk, and gives what that leaves.
async fn used_without(core: &Core, moment: &mut Moment) {
    const VALUE: u64 = 9_000_000;
    let (held, mut backings) = disks(&moment.images);
    backings.truncate(1);
    let terms = Terms { may_lack: true, ..Terms::default() };
    let found = Pool::find(core, backings).await.unwrap();
    let pool = found.open_on(terms).await.unwrap();
    let first = &mut moment.expected[0];
    let lu = Lu::open(core, pool.seat(first.id).unwrap()).await.unwrap();
    for block in BLOCKS {
        let buffer = Buffer::from_bytes(&(VALUE << 32 | block).to_le_bytes().repeat(512));
        let request = Request::write(block * PAGE_BYTES as u64, buffer.sgl());
        lu.device(core).io(&request).await.unwrap();
        first.content.insert(block, VALUE);
    }
    lu.close().await;
    moment.images = held.iter().map(|disk| disk.take()).collect();
}

/// Two failure groups: one of them was missing when the pool was used.
#[test]
fn a_disk_that_has_missed_something_is_not_taken_for_a_current_one() {
    in_world(8, |core| async move {
        let work = async |family: &mut Family, _: &mut Random| family.work().await;
        let mut moment = moments_of(&core, (8, 60, 1000), [0, 1], work).await.pop().unwrap();
        let backup = read(&core, &backed_up(&core, &moment.images).await).await;
        used_without(&core, &mut moment).await;
        let bare = |disk: usize| {
            let mut images = moment.images.clone();
            ends(&images[disk]).into_iter().for_each(|at| images[disk].put(at, ROTTEN));
            images
        };
        let (images, outcome) = restored(&core, &bare(1), &backup).await;
        assert!(outcome.restored[0].what.contains("of opening 1 of"), "{outcome:?}");
        assert!(is_right(&core, &images, &moment).await, "{outcome:?}");
        let (_, outcome) = restored(&core, &bare(0), &backup).await;
        assert!(outcome.restored.is_empty() && !outcome.is_good, "{outcome:?}");
        let is_later = |told: &Told| told.what.contains("was used later");
        assert!(outcome.refused.iter().any(is_later), "{outcome:?}");
    });
}

/// The slab table of a disk, with this turn more and other slabs.
fn change_table(image: &mut Image, turns: i64, change: impl Fn(Slab) -> Slab) {
    let lineage = Lineage::new(new_pool().id, new_pool().id);
    for at in tables(image) {
        let page = Page::of_bytes(&image.block(at));
        let number = page.says().0.number;
        let (header, all) = slabs::decode(&page, &lineage, number).unwrap();
        let (turn, epoch) = (header.turn.saturating_add_signed(turns), header.epoch);
        let header = TableHeader { pool: lineage, page: number, turn, epoch };
        let all: Vec<Slab> = all.into_iter().map(&change).collect();
        image.put(at, *slabs::encode(header, &all).bytes());
    }
}

/// A disk without labels whose table is older than the backup, by its turn or by a generation, and
/// one that is named alone.
#[test]
fn labels_come_back_only_to_what_is_not_older_with_all_disks() {
    in_world(7, |core| async move {
        let moments = moments(&core, 7).await;
        let moment = moments.last().unwrap();
        let backup = read(&core, &backed_up(&core, &moment.images).await).await;
        let mut images = moment.images.clone();
        ends(&images[1]).into_iter().for_each(|at| images[1].put(at, ROTTEN));
        let (_, outcome) = restored(&core, &images, &backup).await;
        assert!(outcome.is_good && !outcome.restored.is_empty(), "{outcome:?}");
        let (_, outcome) = restored(&core, &images[1..], &backup).await;
        assert!(outcome.restored.is_empty() && !outcome.is_good, "{outcome:?}");
        assert!(outcome.refused[0].what.contains("were named"), "{outcome:?}");
        for (turns, older, why) in [(-1, 0, "than the backup"), (1, 1, "older, or another one")] {
            let mut images = images.clone();
            change_table(&mut images[1], turns, |slab| match slab {
                Slab::Granted(it) => {
                    Slab::Granted(Grant { generation: it.generation - older, ..it })
                }
                other => other,
            });
            let (_, outcome) = restored(&core, &images, &backup).await;
            assert!(outcome.restored.is_empty() && !outcome.is_good, "{outcome:?}");
            assert!(outcome.refused[0].what.contains(why), "{outcome:?}");
        }
    });
}

/// What was asked for is of another pool, or is no disk of one.
#[test]
fn disks_that_the_backup_is_not_of_are_left_alone() {
    in_world(6, |core| async move {
        let moments = moments(&core, 6).await;
        let moment = moments.last().unwrap();
        let bytes = backed_up(&core, &moment.images).await;
        let backup = read(&core, &bytes).await;
        // A disk that never was one of the pool, in the stead of one without a label.
        let mut images = moment.images.clone();
        images[1] = Image::default();
        let (after, outcome) = restored(&core, &images, &backup).await;
        assert!(!outcome.is_good && outcome.restored.is_empty(), "{outcome:?}");
        assert!(outcome.refused[0].what.contains("nothing on it tells of this pool"));
        assert_eq!(after[1].blocks().count(), 0);
        // The other disk in its stead.
        let mut images = moment.images.clone();
        images[1] = images[0].clone();
        ends(&images[1]).into_iter().for_each(|at| images[1].put(at, ROTTEN));
        let (_, outcome) = restored(&core, &images, &backup).await;
        assert!(!outcome.is_good && outcome.restored.is_empty(), "{outcome:?}");
        // A disk as it was before the backup.
        let mut images = moment.images.clone();
        images[1] = moments[0].images[1].clone();
        ends(&images[1]).into_iter().for_each(|at| images[1].put(at, ROTTEN));
        let (_, outcome) = restored(&core, &images, &backup).await;
        assert!(!outcome.is_good && outcome.restored.is_empty(), "{outcome:?}");
        let is_old = |told: &Told| told.what.contains("older");
        assert!(outcome.refused.iter().any(is_old), "{outcome:?}");
        // Another pool.
        let mut strange = read(&core, &bytes).await;
        strange.id = [99; 16];
        let (_, backings) = disks(&moment.images);
        let asked = (&strange, Wanted::default());
        let refused = Plan::make(&core, backings, asked, |_| ()).await;
        assert!(matches!(refused, Err(Refused::OtherPool { .. })));
        // A file that is not whole.
        let cut = Backup::read(&core, &file(&bytes[..bytes.len() - PAGE_BYTES])).await;
        assert!(matches!(cut, Err(Unread::Unfit { .. })));
    });
}
