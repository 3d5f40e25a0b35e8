//! LUs that are to be as a backup has them: whatever was done since to them and to others, no block
//! of another LU is read in them, what reads zero is told, and they are used as before.

use std::sync::Mutex;

use super::super::super::backup::{Part, Reader, Taking, Writer};
use super::super::super::check::tests::disk::{Attached, InMemory};
use super::super::super::home::NewPool;
use super::super::super::inspect::uuid;
use super::super::super::label::{End, Label};
use super::super::super::lu::tests::{about, new_pool_with_sums};
use super::super::super::lu::{NewLu, read_root};
use super::super::super::root::{About, Base, Source};
use super::super::Outcome;
use super::herd::{
    EXTENT_BLOCKS, EXTENTS, Herd, LU_BYTES, LUS, One, PAGE, Read, Word, Words, blocks, fold,
    read_at, word,
};
use super::*;

/// Both heads of an LU's root, wherever they lie.
fn lose_heads(images: &mut [Image], id: [u8; 16]) {
    for (disk, at) in &metadata(images)[HEAD] {
        if Page::of_bytes(&images[*disk].block(*at)).says().0.owner == id {
            images[*disk].put(*at, ROTTEN);
        }
    }
}

fn wanted(names: &[&str]) -> Wanted {
    Wanted { as_of: names.iter().map(|name| (*name).to_owned()).collect(), ..Wanted::default() }
}

/// The same disks with these LUs as the backup has them, and what became of each.
async fn restored_as_of(
    core: &Core,
    images: &[Image],
    (backup, names): (&Backup, &[&str]),
) -> (Vec<Image>, Vec<AsOf>) {
    let (held, backings) = disks(images);
    let asked = (backup, wanted(names));
    let plan = Plan::make(core, backings.clone(), asked, |_| ()).await.unwrap();
    let is_untouched = held.iter().zip(images).all(|(disk, image)| disk.is_as(image));
    assert!(is_untouched, "it was written before all was known");
    plan.write(&backings).await.unwrap();
    let report = check(core, backings, |_| ()).await;
    let findings = (&report.findings, &plan.report.findings);
    assert_eq!(findings.0, findings.1, "{:?}", plan.as_of);
    (held.iter().map(|disk| disk.take()).collect(), plan.as_of)
}

fn lost(as_of: &AsOf) -> &[Lost] {
    match &as_of.outcome {
        Outcome::Taken { lost, .. } => lost,
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, Default)]
struct Tally {
    same: u64,
    later: u64,
    pages: u64,
    failed: u64,
    lost: u64,
}

impl Tally {
    /// What a block reads of an LU, which held this at the time of the backup.
    fn count(&mut self, (block, then): (u64, Word), read: Read, one: &One, lost: &[Lost]) {
        let is_lost = lost.iter().any(|it| (it.from..it.to).contains(&(block * PAGE)));
        match read {
            Read::Word(0) if then != 0 => {
                assert!(is_lost, "block {block} of LU {} reads zero", one.number);
                self.lost += 1;
            }
            Read::Word(word) if word == then => self.same += 1,
            Read::Word(word) => {
                assert!(one.ever.contains(&word), "LU {}: {word:x}", one.number);
                self.later += 1;
            }
            Read::Page => self.pages += 1,
            Read::Failed => self.failed += 1,
        }
    }
}

/// The first LU loses its root, and goes back to the backup but for what is not its own any more.
async fn comes_back_in_part(
    herd: &Herd,
    mut images: Vec<Image>,
    (backup, then): (&Backup, &Words),
) {
    lose_heads(&mut images, herd.all[0].id);
    let (images, done) = restored_as_of(&herd.core, &images, (backup, &["lu0"])).await;
    let mut tally = Tally::default();
    look_and_use(herd, &images, (0, then, lost(&done[0])), &mut tally).await;
    assert!(tally.lost > 0 && tally.same > 0 && tally.later == 0, "{tally:?}");
}

/// Opens the pool, reads everything, and uses the LU that was restored until it is removed.
async fn look_and_use(
    herd: &Herd,
    images: &[Image],
    (victim, then, lost): (usize, &Words, &[Lost]),
    tally: &mut Tally,
) {
    let core = &herd.core;
    let (held, backings) = disks(images);
    let pool = Pool::open(core, backings).await.unwrap();
    for (at, one) in herd.all.iter().enumerate() {
        let lu = Lu::open(core, pool.seat(one.id).unwrap()).await.unwrap();
        let device = lu.device(core);
        for block in blocks() {
            let read = read_at(&device, block).await;
            if at == victim {
                let then = then.get(&block).copied().unwrap_or(0);
                tally.count((block, then), read, one, lost);
            } else {
                let now = one.now.get(&block).copied().unwrap_or(0);
                assert_eq!(read, Read::Word(now), "block {block} of another LU");
            }
        }
        if at == victim {
            use_it(core, &lu).await;
        }
        lu.close().await;
    }
    let all = pool.slabs().0;
    for one in &herd.all {
        pool.revoke(one.id).await.unwrap();
    }
    assert_eq!(pool.slabs(), (all, all));
    pool.close().await.unwrap();
    let backings = held.iter().map(|it| Arc::new(Attached(it.clone())) as Arc<dyn Backing>);
    let report = check(core, backings.collect(), |_| ()).await;
    assert!(!report.is_damaged(), "{report:?}");
}

/// It takes writes, which are read, with snapshots and without.
async fn use_it(core: &Core, lu: &Arc<Lu>) {
    let device = lu.device(core);
    let write = async |value: u64| {
        for block in blocks().step_by(2) {
            let buffer = Buffer::from_bytes(&(value + block).to_le_bytes().repeat(1024));
            device.io(&Request::write(block * PAGE, buffer.sgl())).await.unwrap();
        }
        device.io(&Request::flush()).await.unwrap();
    };
    let read = async |device: &Rc<dyn Device>, value: u64| {
        for block in blocks().step_by(2) {
            let words = [read_at(device, block).await, read_at(device, block + 1).await];
            assert_eq!(words, [Read::Word(value + block); 2]);
        }
    };
    write(1 << 40).await;
    let layer = lu.snapshot([0x5a; 16]).await.unwrap();
    write(2 << 40).await;
    renew_root(lu).await;
    read(&device, 2 << 40).await;
    let view = lu.view(layer).await.unwrap();
    read(&view.device(core), 1 << 40).await;
    drop(view);
    for about in lu.layers().await.unwrap() {
        if about.frozen.is_some() {
            fold(lu, about.id).await;
        }
    }
    read(&device, 2 << 40).await;
    let all = Request::plain(Op::Discard, 0, LU_BYTES);
    device.io(&all).await.unwrap();
    read_zero(&device).await;
}

async fn read_zero(device: &Rc<dyn Device>) {
    for block in blocks() {
        assert_eq!(read_at(device, block).await, Read::Word(0));
    }
}

/// A herd that is backed up, goes on, and loses heads of an LU.
async fn herd_world(core: Core, seed: u64, (new, groups): (NewPool, [u16; 2])) -> Tally {
    const STEPS: u64 = 60;
    let mut tally = Tally::default();
    let mut herd = Herd::begin(&core, seed, new, groups).await;
    herd.steps(STEPS).await;
    for at in 0..herd.all.len() {
        let from = herd.random.below(EXTENTS);
        herd.write(at, from..EXTENTS).await;
    }
    let (bytes, then) = herd.back_up().await;
    let backup = read(&core, &bytes).await;
    if herd.random.below(4) > 0 {
        herd.change_hands().await;
    }
    let more = herd.random.below(STEPS);
    herd.steps(more).await;
    // Under a process that is killed, and closed.
    let mut images = vec![herd.images()];
    herd.close().await;
    images.push(herd.images());
    for mut images in images {
        let victim = herd.random.below(LUS.into()) as usize;
        lose_heads(&mut images, herd.all[victim].id);
        let name = format!("lu{victim}");
        let asked = (&backup, &[&name[..]][..]);
        let (images, done) = restored_as_of(&core, &images, asked).await;
        let lost = lost(&done[0]);
        look_and_use(&herd, &images, (victim, &then[victim], lost), &mut tally).await;
    }
    tally
}

fn all_of(seeds: std::ops::Range<u64>, new: fn() -> NewPool, groups: [u16; 2]) -> Tally {
    let mut all = Tally::default();
    for seed in seeds {
        let Tally { same, later, pages, failed, lost } =
            in_world(seed, move |core| herd_world(core, seed, (new(), groups)));
        all.same += same;
        all.later += later;
        all.pages += pages;
        all.failed += failed;
        all.lost += lost;
    }
    println!("{all:?}");
    assert!(all.same > 0 && all.later > 0, "{all:?}");
    all
}

#[test]
fn no_block_of_another_lu_is_read_in_one_that_is_restored() {
    let all = all_of(0..3 * loops(), new_pool, [0, 0]);
    assert!(all.lost > 0 && all.failed == 0, "{all:?}");
}

#[test]
fn checksums_know_what_was_not_written_there_as_data() {
    let all = all_of(20..20 + 2 * loops(), new_pool_with_sums, [0, 0]);
    assert_eq!(all.pages, 0);
}

#[test]
fn copies_of_an_lu_that_is_restored_are_the_same() {
    all_of(40..40 + 2 * loops(), new_pool, [0, 1]);
    all_of(60..60 + loops(), new_pool_with_sums, [0, 1]);
}

/// Of each layer, the last one first.
async fn extents(lu: &Lu) -> Vec<u64> {
    let layers = lu.extents_of_layers().await.unwrap();
    layers.into_iter().map(|(_, extents)| extents).collect()
}

/// The last one that a page of its root tells of.
fn last_turn(images: &[Image], id: [u8; 16]) -> u64 {
    let pages = metadata(images);
    let says = |(disk, at): &(usize, u64)| Page::of_bytes(&images[*disk].block(*at)).says().0;
    let all = pages[HEAD].iter().chain(&pages[BODY]).map(says);
    all.filter(|header| header.owner == id).map(|header| header.turn).max().unwrap()
}

/// A node that takes a backup has nothing left in journals that it needs.
#[test]
fn a_backup_of_a_pool_in_use_has_all_that_was_written_before() {
    in_world(17, |core| async move {
        let mut herd = Herd::begin(&core, 17, new_pool(), [0, 0]).await;
        herd.steps(20).await;
        herd.write(1, 0..100).await;
        let (mut taking, mut bytes) = (Taking::new(7), Vec::new());
        let open = |id| herd.all.iter().find(|one| one.id == id).map(|one| one.lu.clone());
        while let Some(some) = taking.step(&herd.pool, open).await.unwrap() {
            bytes.extend(some);
        }
        let backup = read(&core, &bytes).await;
        let (id, used) = (herd.all[1].id, extents(&herd.all[1].lu).await);
        for _ in 0..3 {
            renew_root(&herd.all[1].lu).await;
        }
        let mut images = herd.images();
        herd.close().await;
        let before = last_turn(&images, id);
        lose_heads(&mut images, id);
        let (images, done) = restored_as_of(&core, &images, (&backup, &["lu1"])).await;
        assert!(last_turn(&images, id) > before);
        let (_, backings) = disks(&images);
        let pool = Pool::open(&core, backings).await.unwrap();
        let lu = Lu::open(&core, pool.seat(id).unwrap()).await.unwrap();
        assert_eq!(extents(&lu).await, used);
        lu.close().await;
        let mut tally = Tally::default();
        look_and_use(&herd, &images, (1, &herd.all[1].now, lost(&done[0])), &mut tally).await;
        assert!(tally.same == blocks().count() as u64, "{tally:?}");
    });
}

/// Nothing was done since: all of it is as it was, snapshots and clones too.
#[test]
fn right_behind_a_backup_everything_is_as_it_was() {
    in_world(9, |core| async move {
        let moments = moments(&core, 9).await;
        let mut taken = 0;
        for moment in &moments {
            let backup = read(&core, &backed_up(&core, &moment.images).await).await;
            let all: Vec<String> = moment.expected.iter().map(|it| uuid(it.id)).collect();
            let all: Vec<&str> = all.iter().map(|id| &id[..]).collect();
            let mut images = moment.images.clone();
            moment.expected.iter().for_each(|it| lose_heads(&mut images, it.id));
            let (images, done) = restored_as_of(&core, &images, (&backup, &all)).await;
            assert!(done.iter().all(|it| lost(it).is_empty()), "{done:?}");
            taken += done.len();
            // What came behind the last roots is in journals that do not count any more.
            let (_, backings) = disks(&images);
            let seen = seen_by(&core, backings, &moment.expected).await;
            assert_eq!((seen.unopened, seen.others.len()), (0, 0), "{:?}", seen.others);
        }
        let last = moments.last().unwrap();
        assert!(taken > last.expected.len() && last.expected.len() > 1);
    });
}

/// Power is lost after so many writes to all disks together: of those that no flush was behind some
/// are not there.
struct Fuse {
    left: u64,
    unsure: Vec<(Arc<InMemory>, u64, Block)>,
}

#[derive(Clone)]
struct Fused {
    disk: Arc<InMemory>,
    fuse: Arc<Mutex<Fuse>>,
}

struct FusedDevice {
    below: Rc<dyn Device>,
    of: Fused,
}

impl Backing for Fused {
    fn device(&self, core: &Core) -> Rc<dyn Device> {
        let below = Attached(self.disk.clone()).device(core);
        Rc::new(FusedDevice { below, of: self.clone() })
    }

    fn name(&self) -> &str {
        &self.disk.name
    }
}

impl Device for FusedDevice {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn begin(&self, request: &Request<'_>, asked: Asked<'_>) -> Option<block::Outcome> {
        let Fused { disk, fuse } = &self.of;
        let mut fuse = fuse.lock().unwrap();
        let at = request.offset / PAGE;
        match request.op {
            Op::Read => {}
            Op::Flush => fuse.unsure.retain(|(other, ..)| !Arc::ptr_eq(other, disk)),
            _ if fuse.left == 0 => return asked.now(Err(ErrorKind::Offline.into())),
            _ => {
                fuse.left -= 1;
                let before = disk.image.lock().unwrap().block(at);
                fuse.unsure.push((disk.clone(), at, before));
            }
        }
        self.below.begin(request, asked)
    }

    fn watch(&self) -> &Watch {
        self.below.watch()
    }
}

/// The plan, cut short after so many writes. Gives the disks, and whether all was written.
async fn cut_short(
    core: &Core,
    images: &[Image],
    asked: (&Backup, &[&str]),
    (left, random): (u64, &mut Random),
) -> (Vec<Image>, bool) {
    let (held, backings) = disks(images);
    let wanted = (asked.0, wanted(asked.1));
    let plan = Plan::make(core, backings, wanted, |_| ()).await.unwrap();
    let fuse = Arc::new(Mutex::new(Fuse { left, unsure: Vec::new() }));
    let fused = |disk: &Arc<InMemory>| {
        Arc::new(Fused { disk: disk.clone(), fuse: fuse.clone() }) as Arc<dyn Backing>
    };
    let is_whole = plan.write(&held.iter().map(fused).collect::<Vec<_>>()).await.is_ok();
    let unsure = std::mem::take(&mut fuse.lock().unwrap().unsure);
    for (disk, at, before) in unsure.into_iter().rev() {
        if random.coin() {
            disk.image.lock().unwrap().put(at, before);
        }
    }
    (held.iter().map(|disk| disk.take()).collect(), is_whole)
}

/// What an LU reads; none: it cannot be opened.
async fn content(core: &Core, images: &[Image], id: [u8; 16]) -> Option<Vec<Read>> {
    let (_, backings) = disks(images);
    let pool = Pool::open(core, backings).await.unwrap();
    let lu = Lu::open(core, pool.seat(id).unwrap()).await.ok()?;
    let device = lu.device(core);
    let mut all = Vec::new();
    for block in blocks() {
        all.push(read_at(&device, block).await);
    }
    lu.close().await;
    Some(all)
}

async fn crash_world(core: Core, seed: u64, (groups, kind): ([u16; 2], usize)) -> u64 {
    let mut herd = Herd::begin(&core, seed, new_pool(), groups).await;
    herd.steps(30).await;
    let (bytes, _) = herd.back_up().await;
    let backup = read(&core, &bytes).await;
    herd.change_hands().await;
    herd.close().await;
    let (mut lost, victim) = (herd.images(), herd.all[0].id);
    // One that could be opened, if it were not for a page of its map, too.
    match kind {
        HEAD => lose_heads(&mut lost, victim),
        _ => {
            let pages = metadata(&lost)[kind].clone();
            pages.iter().for_each(|(disk, at)| lost[*disk].put(*at, ROTTEN));
        }
    }
    let asked = (&backup, &["lu0"][..]);
    let (whole, _) = restored_as_of(&core, &lost, asked).await;
    let wanted = content(&core, &whole, victim).await.expect("it was restored");
    let first = content(&core, &lost, victim).await;
    // Both heads, at each of their places.
    let blanks = if groups[0] == groups[1] { 2 } else { 4 };
    for left in 0.. {
        let cut = cut_short(&core, &lost, asked, (left, &mut herd.random)).await;
        let (images, is_whole) = cut;
        let before = content(&core, &images, victim).await;
        let is_untouched = before == first && left <= blanks;
        assert!(before.is_none() || is_untouched || before.as_ref() == Some(&wanted));
        let (images, done) = restored_as_of(&core, &images, asked).await;
        let is_there = match &done[0].outcome {
            Outcome::Taken { .. } => true,
            other => *other == Outcome::Refused("it is not damaged".to_owned()),
        };
        assert!(is_there, "after {left} writes: {done:?}");
        let now = content(&core, &images, victim).await;
        assert_eq!(now.as_ref(), Some(&wanted), "after {left} writes");
        if is_whole {
            return left;
        }
    }
    unreachable!("it ends")
}

#[test]
fn what_is_cut_short_is_done_when_it_is_asked_for_again() {
    for seed in 0..loops() {
        for what in [([0, 0], HEAD), ([0, 0], MAP), ([0, 1], MAP)] {
            let count = in_world(seed, move |core| crash_world(core, seed, what));
            println!("{count} writes");
            assert!(count > 5, "{count}");
        }
    }
}

/// Why this LU is not taken; nothing is written then.
async fn refused(core: &Core, images: &[Image], asked: (&Backup, &[&str])) -> String {
    let (held, backings) = disks(images);
    let wanted = (asked.0, wanted(asked.1));
    let plan = Plan::make(core, backings.clone(), wanted, |_| ()).await.unwrap();
    plan.write(&backings).await.unwrap();
    assert!(held.iter().zip(images).all(|(disk, image)| disk.is_as(image)));
    match &plan.as_of[0].outcome {
        Outcome::Refused(why) => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_sound_or_not_known_is_refused() {
    in_world(11, |core| async move {
        let mut herd = Herd::begin(&core, 11, new_pool(), [0, 0]).await;
        herd.steps(30).await;
        let (bytes, _) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        let before = herd.images();
        herd.reopen().await;
        herd.steps(30).await;
        herd.close().await;
        let (sound, id) = (herd.images(), herd.all[1].id);
        let asked = (&backup, &["lu1"][..]);
        assert_eq!(refused(&core, &sound, asked).await, "it is not damaged");
        let mut lost = sound.clone();
        lose_heads(&mut lost, id);
        assert_eq!(refused(&core, &lost, (&backup, &["lu0"])).await, "it is not damaged");
        let (_, backings) = disks(&lost);
        let unknown = Plan::make(&core, backings, (&backup, wanted(&["web"])), |_| ()).await;
        assert!(matches!(unknown, Err(Refused::Unknown(name)) if name == "web"));
        // Labels of before: whoever opens the LU has no higher epoch than its journal.
        let mut old = lost.clone();
        for (disk, at) in &metadata(&sound)[LABEL] {
            old[*disk].put(*at, before[*disk].block(*at));
        }
        let why = refused(&core, &old, asked).await;
        assert!(why.contains("of a later time than the labels"), "{why}");
        let mut tables = lost.clone();
        metadata(&lost)[TABLE].iter().for_each(|(disk, at)| tables[*disk].put(*at, ROTTEN));
        let why = refused(&core, &tables, asked).await;
        assert!(why.contains("slab tables are damaged"), "{why}");
        let why = refused(&core, &lost[..1], asked).await;
        assert!(why.contains("not all disks"), "{why}");
        // It was removed.
        let (held, backings) = disks(&sound);
        let pool = Pool::open(&core, backings).await.unwrap();
        pool.revoke(id).await.unwrap();
        pool.close().await.unwrap();
        let gone: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        let why = refused(&core, &gone, asked).await;
        assert!(why.contains("does not have it any more"), "{why}");
    });
}

#[test]
fn what_clones_stand_on_is_taken_only_with_them() {
    in_world(9, |core| async move {
        let moments = moments(&core, 9).await;
        let (mut unasked, mut above) = (0, 0);
        for moment in &moments {
            let backup = read(&core, &backed_up(&core, &moment.images).await).await;
            let all: Vec<String> = moment.expected.iter().map(|it| uuid(it.id)).collect();
            let Some(clone) = moment.expected.iter().find(|it| it.base.is_some()) else { continue };
            let (base, _) = clone.base.unwrap();
            let mut images = moment.images.clone();
            lose_heads(&mut images, base);
            let why = refused(&core, &images, (&backup, &[&uuid(base)])).await;
            assert!(why.contains("its clone, would read something else"), "{why}");
            unasked += 1;
            let all: Vec<&str> = all.iter().map(|id| &id[..]).collect();
            let (_, done) = restored_as_of(&core, &images, (&backup, &all)).await;
            for it in done {
                match it.outcome {
                    Outcome::Taken { .. } => assert_eq!(it.lu, base),
                    Outcome::Above => above += 1,
                    Outcome::Refused(why) => assert_eq!(why, "it is not damaged"),
                    Outcome::Proven => panic!("nothing proves it"),
                }
            }
        }
        assert!(unasked > 0 && above >= unasked);
    });
}

/// What comes back as it was last is better than what the backup has.
#[test]
fn nothing_is_taken_of_what_is_proven() {
    in_world(18, |core| async move {
        let mut herd = Herd::begin(&core, 18, new_pool(), [0, 0]).await;
        herd.write(0, 0..100).await;
        let (bytes, _) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        herd.write(0, 95..105).await;
        let (mut images, id) = (herd.images(), herd.all[0].id);
        herd.close().await;
        let maps = metadata(&images)[MAP].clone();
        maps.iter().for_each(|(disk, at)| images[*disk].put(*at, ROTTEN));
        let (images, done) = restored_as_of(&core, &images, (&backup, &["lu0"])).await;
        assert_eq!(done[0].outcome, Outcome::Proven);
        let now = content(&core, &images, id).await.unwrap();
        let word = |block| herd.all[0].now.get(&block).copied().unwrap_or(0);
        assert!(blocks().zip(now).all(|(block, read)| read == Read::Word(word(block))));
    });
}

/// Parts of a backup.
fn parts(bytes: &[u8]) -> Vec<Part> {
    let (mut reader, mut parts) = (Reader::default(), Vec::new());
    reader.push(bytes, |_, part| parts.push(part)).unwrap();
    parts
}

/// What a backup has of an LU.
fn of_lu(parts: Vec<Part>, id: [u8; 16]) -> impl Iterator<Item = Part> {
    let is_other = move |part: &Part| !matches!(part, Part::Lu { id: lu, .. } if *lu == id);
    let own = parts.into_iter().skip_while(is_other);
    let mut is_in = true;
    own.take_while(move |part| std::mem::replace(&mut is_in, !matches!(part, Part::LuEnd { .. })))
}

/// A clone of a snapshot that was taken since, which the backup has or has not: LUs are copied one
/// after the other.
#[test]
fn what_would_lose_what_a_clone_stands_on_is_refused() {
    in_world(12, |core| async move {
        let herd = Herd::begin(&core, 12, new_pool(), [0, 0]).await;
        let (before, _) = herd.back_up().await;
        let backup = read(&core, &before).await;
        let base = herd.all[0].lu.snapshot([0x77; 16]).await.unwrap();
        let base = Some(Base { lu: herd.all[0].id, layer: base });
        let about = About { name: "clone".to_owned(), base, ..about(LU_BYTES, 512) };
        let (id, layer) = ([0x66; 16], [0x67; 16]);
        drop(herd.pool.create_lu(NewLu { id, layer, about }).await.unwrap());
        let (after, _) = herd.back_up().await;
        herd.close().await;
        let mut images = herd.images();
        lose_heads(&mut images, herd.all[0].id);
        let why = refused(&core, &images, (&backup, &["lu0"])).await;
        assert!(why.contains("would read something else"), "{why}");
        let (_, backings) = disks(&images);
        let asked = (&backup, wanted(&["lu0", "clone"]));
        let unknown = Plan::make(&core, backings, asked, |_| ()).await;
        assert!(matches!(unknown, Err(Refused::Unknown(_))));
        let mut writer = Writer::default();
        let all = parts(&before).into_iter().chain(of_lu(parts(&after), id));
        all.for_each(|part| writer.put(&part));
        writer.close();
        let both = read(&core, &writer.take()).await;
        let why = refused(&core, &images, (&both, &["lu0", "clone"])).await;
        assert!(why.contains("a snapshot that was taken since"), "{why}");
    });
}

#[test]
fn a_clone_whose_snapshot_is_gone_is_refused() {
    in_world(9, |core| async move {
        let moments = moments(&core, 9).await;
        let with_clone = |it: &&Moment| it.expected.iter().any(|it| it.base.is_some());
        let moment = moments.iter().find(with_clone).unwrap();
        let clone = moment.expected.iter().find(|it| it.base.is_some()).unwrap();
        let backup = read(&core, &backed_up(&core, &moment.images).await).await;
        let (held, backings) = disks(&moment.images);
        let pool = Pool::open(&core, backings).await.unwrap();
        let others = moment.expected.iter().filter(|it| it.id != clone.id);
        for other in others {
            pool.revoke(other.id).await.unwrap();
        }
        pool.close().await.unwrap();
        let mut images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        lose_heads(&mut images, clone.id);
        let why = refused(&core, &images, (&backup, &[&uuid(clone.id)])).await;
        assert!(why.contains("stands on a snapshot") && why.contains("is gone"), "{why}");
    });
}

#[test]
fn what_was_brought_from_elsewhere_or_began_elsewhere_is_refused() {
    in_world(23, |core| async move {
        let mut herd = Herd::begin(&core, 23, new_pool(), [0, 0]).await;
        herd.write(0, 0..200).await;
        let source = Some(Source { size: 1 << 20, name: "/dev/old".to_owned() });
        let about = About { name: "new".to_owned(), source, ..about(LU_BYTES, 512) };
        let (id, layer) = ([0x66; 16], [0x67; 16]);
        drop(herd.pool.create_lu(NewLu { id, layer, about }).await.unwrap());
        let (bytes, _) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        let slabs = herd.pool.granted(herd.all[0].id).unwrap().slabs;
        herd.close().await;
        let mut images = herd.images();
        lose_heads(&mut images, id);
        let why = refused(&core, &images, (&backup, &["new"])).await;
        assert!(why.contains("brought from /dev/old"), "{why}");
        let (first, id) = (slabs[0], herd.all[0].id);
        for (number, is_first) in [(first, false), (*slabs.last().unwrap(), true)] {
            let change = |grant: Grant| Slab::Granted(Grant { is_first, ..grant });
            (0..2).for_each(|disk| change_grant(&mut images, (disk, id, number), change));
        }
        let why = refused(&core, &images, (&backup, &["lu0"])).await;
        assert!(why.contains("began elsewhere"), "{why}");
    });
}

#[test]
fn a_copy_that_has_missed_something_since_is_in_the_way() {
    in_world(8, |core| async move {
        let work = async |family: &mut Family, _: &mut Random| family.work().await;
        let mut moment = moments_of(&core, (8, 60, 1000), [0, 1], work).await.pop().unwrap();
        let backup = read(&core, &backed_up(&core, &moment.images).await).await;
        used_without(&core, &mut moment).await;
        let id = moment.expected[0].id;
        lose_heads(&mut moment.images, id);
        let why = refused(&core, &moment.images, (&backup, &[&uuid(id)])).await;
        assert!(why.contains("has missed something"), "{why}");
    });
}

/// A disk that is not here has heads that count as much, and a group may have lacked something all
/// the time.
#[test]
fn copies_that_are_not_here_or_not_whole_are_in_the_way() {
    in_world(24, |core| async move {
        let mut herd = Herd::begin(&core, 24, new_pool(), [0, 1]).await;
        herd.steps(20).await;
        let (bytes, _) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        herd.close().await;
        let mut images = herd.images();
        lose_heads(&mut images, herd.all[0].id);
        let why = refused(&core, &images[..1], (&backup, &["lu0"])).await;
        assert!(why.contains("not all disks"), "{why}");
        let mut behind = herd.images();
        for (disk, at) in metadata(&behind)[LABEL].clone() {
            let page = Page::of_bytes(&behind[disk].block(at));
            let end = if page.says().0.number == 0 { End::Front } else { End::Back };
            let label = Label::decode(&page, end).unwrap();
            let label = Label { is_behind: disk == 1, ..label };
            behind[disk].put(at, *label.encode(end).bytes());
        }
        let backup = read(&core, &backed_up(&core, &behind).await).await;
        lose_heads(&mut behind, herd.all[0].id);
        let why = refused(&core, &behind, (&backup, &["lu0"])).await;
        assert!(why.contains("or lacks something"), "{why}");
    });
}

/// Everything is looked at before anything is written.
#[test]
fn nothing_is_written_of_what_would_be_damaged_all_the_same() {
    in_world(25, |core| async move {
        let herd = Herd::begin(&core, 25, new_pool(), [0, 0]).await;
        let (bytes, _) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        herd.close().await;
        let (mut images, id) = (herd.images(), herd.all[0].id);
        lose_heads(&mut images, id);
        let (_, backings) = disks(&images);
        let asked = (&backup, wanted(&["lu0"]));
        let mut plan = Plan::make(&core, backings, asked, |_| ()).await.unwrap();
        assert!(plan.must_be_right().is_ok());
        for (other, is_right) in [(herd.all[1].id, true), (id, false)] {
            let of = Of::Lu { id: other, name: None };
            let what = "a page of its map cannot be read".to_owned();
            plan.report.findings.push(Finding { severity: Severity::Damaged, of, what });
            assert_eq!(plan.must_be_right().is_ok(), is_right);
        }
    });
}

/// The same of one LU only, while all disks are there.
#[test]
fn a_copy_that_has_everything_again_is_not_known_to_be_the_same() {
    in_world(14, |core| async move {
        let mut herd = Herd::begin(&core, 14, new_pool(), [0, 1]).await;
        herd.steps(20).await;
        let (bytes, _) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        let id = herd.all[0].id;
        let first = herd.pool.granted(id).unwrap().first.unwrap();
        let mut copies = herd.pool.shared.places.all(first);
        let home = copies.find(|copy| copy.group == 1).unwrap().home;
        herd.pool.mark_stale(first, home).await.unwrap();
        for is_mended in [false, true] {
            if is_mended {
                while herd.all[0].lu.mend(100).await.unwrap().lacking > 0 {}
                assert!(herd.pool.stale_groups(id).is_empty());
            }
            let mut images = herd.images();
            lose_heads(&mut images, id);
            let why = refused(&core, &images, (&backup, &["lu0"])).await;
            assert!(why.contains("has missed something"), "{why}");
        }
        herd.close().await;
    });
}

/// What the slab table of a disk says of a slab of an LU is something else.
fn change_grant(
    images: &mut [Image],
    (disk, id, number): (usize, [u8; 16], u32),
    change: impl Fn(Grant) -> Slab,
) {
    change_table(&mut images[disk], 0, |slab| match slab {
        Slab::Granted(grant) if (grant.lu, grant.number) == (id, number) => change(grant),
        other => other,
    });
}

/// It was given back and is its again, at the very same place.
fn again(grant: Grant) -> Slab {
    Slab::Granted(Grant { generation: grant.generation + 2, ..grant })
}

/// Others have had it, or one copy of it.
#[test]
fn a_slab_that_was_others_meanwhile_proves_nothing() {
    for (groups, on) in [([0, 0], &[0, 1][..]), ([0, 1], &[0]), ([0, 1], &[1])] {
        in_world(16, move |core| async move {
            let mut herd = Herd::begin(&core, 16, new_pool(), groups).await;
            herd.write(0, 0..200).await;
            let (bytes, then) = herd.back_up().await;
            let backup = read(&core, &bytes).await;
            let id = herd.all[0].id;
            let last = *herd.pool.granted(id).unwrap().slabs.last().unwrap();
            herd.close().await;
            let mut images = herd.images();
            on.iter().for_each(|disk| change_grant(&mut images, (*disk, id, last), again));
            comes_back_in_part(&herd, images, (&backup, &then[0])).await;
        });
    }
}

/// A map of its own lies in a slab that is another LU's now.
#[test]
fn parts_of_an_lu_get_another_place_where_theirs_is_gone() {
    in_world(19, |core| async move {
        let mut herd = Herd::begin(&core, 19, new_pool(), [0, 0]).await;
        herd.write(0, 0..200).await;
        let layer = herd.all[0].lu.snapshot([0x19; 16]).await.unwrap();
        herd.write(0, 0..10).await;
        renew_root(&herd.all[0].lu).await;
        // Its slabs were full when that map got its place.
        fold(&herd.all[0].lu, layer).await;
        herd.discard(0, 0..100).await;
        let (bytes, then) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        let id = herd.all[0].id;
        let site = herd.pool.site(id, herd.pool.granted(id).unwrap().first.unwrap());
        let root = read_root(&herd.pool.disks().unwrap(), &site).await.unwrap();
        let places = root.layers.iter().flat_map(|layer| layer.chunks.values());
        let mut gone = places.map(|chunk| chunk.place.slab).filter(|slab| *slab != site.first_slab);
        let gone = gone.next().expect("its first slab is full");
        herd.close().await;
        let mut images = herd.images();
        let free = |grant: Grant| Slab::Free { generation: grant.generation };
        (0..2).for_each(|disk| change_grant(&mut images, (disk, id, gone), free));
        comes_back_in_part(&herd, images, (&backup, &then[0])).await;
    });
}

/// What it reads with one of two failure groups only.
async fn content_without(
    core: &Core,
    images: &[Image],
    (other, id): (usize, [u8; 16]),
) -> Vec<Read> {
    let (_, mut backings) = disks(images);
    backings.remove(other);
    let pool = Pool::find(core, backings).await.unwrap();
    let terms = Terms { may_lack: true, ..Terms::default() };
    let pool = pool.open_on(terms).await.unwrap();
    let lu = Lu::open(core, pool.seat(id).unwrap()).await.unwrap();
    let device = lu.device(core);
    let mut all = Vec::new();
    for block in blocks() {
        all.push(read_at(&device, block).await);
    }
    lu.close().await;
    all
}

/// A block was being overwritten, and one copy has it.
#[test]
fn what_differs_in_copies_is_made_the_same() {
    in_world(21, |core| async move {
        let mut herd = Herd::begin(&core, 21, new_pool(), [0, 1]).await;
        herd.write(0, 0..100).await;
        let (bytes, then) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        herd.close().await;
        let (mut images, id) = (herd.images(), herd.all[0].id);
        let (word, later) = (then[0][&(7 * EXTENT_BLOCKS)], word(0, 9_999));
        let of = |word: Word| -> Block { std::array::from_fn(|at| word.to_le_bytes()[at % 8]) };
        let is_it = |(_, block): &(u64, &Block)| **block == of(word);
        let (at, _) = images[1].blocks().find(is_it).unwrap();
        images[1].put(at, of(later));
        lose_heads(&mut images, id);
        let (images, _) = restored_as_of(&core, &images, (&backup, &["lu0"])).await;
        let (held, backings) = disks(&images);
        let pool = Pool::open(&core, backings).await.unwrap();
        let lu = Lu::open(&core, pool.seat(id).unwrap()).await.unwrap();
        let first = herd.pool.granted(id).unwrap().slabs;
        while first.iter().any(|slab| pool.shared.places.is_doubtful(*slab)) {
            core.sleep(std::time::Duration::from_millis(10)).await;
        }
        lu.close().await;
        pool.close().await.unwrap();
        let images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        let all = [0, 1].map(|other| content_without(&core, &images, (other, id)));
        let [one, other] = all;
        let (one, other) = (one.await, other.await);
        assert_eq!(one, other);
        let is_one_of = |read: &Read| [Read::Word(word), Read::Word(later)].contains(read);
        assert!(one.iter().filter(|read| is_one_of(read)).count() >= 2);
    });
}

/// Some of an LU comes back, and that is not enough: nothing of that is left of it.
#[test]
fn what_comes_back_of_an_lu_that_is_taken_does_not_count() {
    in_world(22, |core| async move {
        let mut herd = Herd::begin(&core, 22, new_pool(), [0, 0]).await;
        herd.write(0, 0..50).await;
        herd.write(1, 0..50).await;
        let (bytes, then) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        let (mut images, id) = (herd.images(), herd.all[0].id);
        let site = herd.pool.site(id, herd.pool.granted(id).unwrap().first.unwrap());
        let root = read_root(&herd.pool.disks().unwrap(), &site).await.unwrap();
        herd.close().await;
        let pages = metadata(&images);
        let of = |page: &(usize, u64)| Page::of_bytes(&images[page.0].block(page.1)).says().0.owner;
        let bodies: Vec<_> = pages[BODY].iter().filter(|it| of(it) == id).copied().collect();
        let top = root.layers[0].id;
        type Pages<'a> = Vec<&'a (usize, u64)>;
        let (own, others): (Pages, Pages) = pages[MAP].iter().partition(|it| of(it) == top);
        let stranger = images[others[0].0].block(others[0].1);
        bodies.iter().for_each(|(disk, at)| images[*disk].put(*at, ROTTEN));
        own.iter().for_each(|(disk, at)| images[*disk].put(*at, stranger));
        let (_, backings) = disks(&images);
        let plan = Plan::make(&core, backings, (&backup, Wanted::default()), |_| ()).await.unwrap();
        assert!(!plan.restored.is_empty() && !plan.is_good(), "{:?}", plan.report);
        let (held, backings) = disks(&images);
        let asked = (&backup, wanted(&["lu0"]));
        let plan = Plan::make(&core, backings.clone(), asked, |_| ()).await.unwrap();
        assert!(plan.restored.is_empty() && plan.refused.is_empty() && plan.is_good());
        plan.write(&backings).await.unwrap();
        let images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        let mut tally = Tally::default();
        look_and_use(&herd, &images, (0, &then[0], &[]), &mut tally).await;
        assert!(tally.same > 0 && tally.later == 0, "{tally:?}");
    });
}

/// A slab that was brought to another disk has only what was used then.
#[test]
fn a_slab_that_has_moved_proves_nothing() {
    in_world(15, |core| async move {
        let mut herd = Herd::begin(&core, 15, new_pool(), [0, 0]).await;
        herd.write(0, 0..200).await;
        let (bytes, then) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        let id = herd.all[0].id;
        let last = *herd.pool.granted(id).unwrap().slabs.last().unwrap();
        let home = herd.pool.shared.places.get(last).unwrap();
        herd.all[0].lu.move_slab(last, home.disk, None).await.unwrap();
        let images = herd.images();
        herd.close().await;
        comes_back_in_part(&herd, images, (&backup, &then[0])).await;
    });
}

#[test]
fn a_journal_that_a_disk_cannot_read_is_written_anew() {
    in_world(13, |core| async move {
        let mut herd = Herd::begin(&core, 13, new_pool(), [0, 0]).await;
        herd.steps(40).await;
        let (bytes, then) = herd.back_up().await;
        let backup = read(&core, &bytes).await;
        herd.close().await;
        let images = herd.images();
        let id = herd.all[0].id;
        let pages = metadata(&images);
        let own = [&pages[HEAD][..], &pages[5][..]].concat();
        let own = own
            .into_iter()
            .filter(|(disk, at)| Page::of_bytes(&images[*disk].block(*at)).says().0.owner == id);
        let own: Vec<_> = own.collect();
        let (held, backings) = disks(&images);
        let failing = (0..).zip(&backings).map(|(disk, below)| {
            let at = own.iter().filter(|page| page.0 == disk).map(|page| page.1 * PAGE);
            Arc::new(Failing { below: below.clone(), at: Arc::new(at.collect()) })
                as Arc<dyn Backing>
        });
        let failing: Vec<_> = failing.collect();
        let asked = (&backup, wanted(&["lu0"]));
        let plan = Plan::make(&core, failing.clone(), asked, |_| ()).await.unwrap();
        assert!(plan.is_good() && lost(&plan.as_of[0]).is_empty(), "{:?}", plan.as_of);
        plan.write(&failing).await.unwrap();
        let images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        let is_left = |(disk, at): &(usize, u64)| {
            let page = Page::of_bytes(&images[*disk].block(*at));
            page.says().0.kind == super::super::super::journal::KIND
        };
        assert!(own.len() > 2 && !own.iter().any(is_left));
        let mut tally = Tally::default();
        look_and_use(&herd, &images, (0, &then[0], &[]), &mut tally).await;
        assert!(tally.same > 0 && tally.later == 0, "{tally:?}");
    });
}
