//! Backups that are taken while LUs are used, against what is on the disks at the instant at which
//! each of these ends.

use std::cell::Cell;

use rt::sim::{Options, World};

use super::super::check::tests::disk::{Attached, Image, InMemory};
use super::super::check::tests::disks;
use super::super::crash::loops;
use super::super::disks::Backing;
use super::super::home::Pool;
use super::super::lu::Lu;
use super::super::lu::tests::families::{Family, renew_root};
use super::super::lu::tests::new_pool;
use super::super::map;
use super::super::page::{PAGE_BYTES, Page};
use super::super::root::HEAD;
use super::*;
use rt::Core;
use std::sync::Arc;

/// A backup as a file.
pub(in crate::pool) fn file(bytes: &[u8]) -> Arc<dyn Backing> {
    let mut image = Image::default();
    for (number, block) in (0..).zip(bytes.chunks(PAGE_BYTES)) {
        let mut whole = [0; PAGE_BYTES];
        whole[..block.len()].copy_from_slice(block);
        image.put(number, whole);
    }
    Arc::new(Attached(InMemory::new("backup", bytes.len() as u64, image)))
}

/// What a backup of these disks is.
pub(in crate::pool) async fn backed_up(core: &Core, images: &[Image]) -> Vec<u8> {
    let (_, backings) = disks(images);
    let found = Pool::find(core, backings).await.unwrap();
    let pool = found.look(&mut |flaw| panic!("{flaw:?}")).await;
    let (mut taking, mut bytes) = (Taking::of_looked(7), Vec::new());
    while let Some(some) = taking.step(&pool, |_| None).await.unwrap() {
        bytes.extend(some);
    }
    assert_eq!(taking.lacks, []);
    pool.close().await.unwrap();
    bytes
}

pub(in crate::pool) async fn read(core: &Core, bytes: &[u8]) -> Backup {
    Backup::read(core, &file(bytes)).await.unwrap()
}

/// The pages of an LU, which is used meanwhile, and the disks as they are when the last one is
/// read.
async fn copied(lu: Arc<Lu>, held: Vec<Arc<InMemory>>) -> (Vec<Page>, Vec<Image>, usize) {
    let (mut pages, mut steps, mut number) = (Vec::new(), 0, None);
    loop {
        let step = lu.back_up(number).await.unwrap();
        number = Some(step.number);
        assert_eq!(step.lacks, Vec::<String>::new());
        pages.extend(step.pages);
        steps += 1;
        if step.is_last {
            return (pages, held.iter().map(|disk| disk.take()).collect(), steps);
        }
    }
}

async fn world(core: Core, seed: u64) -> (u64, usize) {
    const ROUNDS: u64 = 25;
    let (held, backings) = disks(&[Image::default(), Image::default()]);
    let named = backings.into_iter().zip([[8; 16], [9; 16]]).collect();
    let pool = Pool::format(&core, new_pool(), named).await.unwrap();
    let mut family = Family::begin(&core, pool, seed).await;
    let (same, mut most) = (Cell::new(0), 0);
    for round in 0..ROUNDS {
        for _ in 0..12 {
            family.work().await;
        }
        let (id, lu) = {
            let member = &family.members[round as usize % family.members.len()];
            (member.id, member.lu.clone())
        };
        let copying = core.spawn_task(copied(lu.clone(), held.clone()));
        for _ in 0..6 {
            renew_root(&lu).await;
            family.work().await;
        }
        let (pages, images, steps) = copying.await;
        most = most.max(steps);
        let bytes = backed_up(&core, &images).await;
        let then = read(&core, &bytes).await;
        let on_disk = &then.lus[&id];
        let kind = |page: &&Page| page.says().0.kind;
        let head = pages.iter().rfind(|page| kind(page) == HEAD).unwrap();
        // The next root may be there by now; then nothing can be said.
        if on_disk.turn() != Some(head.says().0.turn) {
            continue;
        }
        same.set(same.get() + 1);
        for (id, _) in on_disk.maps() {
            let is_it = |page: &&Page| {
                kind(page) == map::KIND && (page.says().0.owner, page.says().0.number) == id
            };
            let copied = pages.iter().rfind(is_it).expect("the root names it");
            let found = then.map_page(on_disk, id).await.unwrap();
            assert_eq!(found.as_ref(), Some(copied));
        }
    }
    family.close().await;
    (same.get(), most)
}

#[test]
fn a_backup_of_an_lu_is_what_one_root_names() {
    let (mut same, mut most) = (0, 0);
    for seed in 0..2 * loops() {
        let world_of = World::new(seed, Options::default());
        let host = world_of.host("host");
        let done = world_of.block_on(&host.core(), move |core| world(core, seed));
        let (some, steps) = done.expect("it ends");
        same += some;
        most = most.max(steps);
    }
    println!("{same} copies compared, in {most} steps at most");
    assert!(same > 20 && most > 3);
}

#[test]
fn a_pool_that_is_open_is_backed_up_as_one_that_is_not() {
    let world = World::new(1, Options::default());
    let host = world.host("host");
    let done = world.block_on(&host.core(), |core| async move {
        let (held, backings) = disks(&[Image::default(), Image::default()]);
        let named = backings.into_iter().zip([[8; 16], [9; 16]]).collect();
        let pool = Pool::format(&core, new_pool(), named).await.unwrap();
        let mut family = Family::begin(&core, pool.clone(), 1).await;
        for _ in 0..60 {
            family.work().await;
        }
        let (mut taking, mut bytes) = (Taking::new(7), Vec::new());
        let lus: Vec<_> = family.members.iter().map(|it| (it.id, it.lu.clone())).collect();
        let open = |id| lus.iter().find(|(other, _)| *other == id).map(|(_, lu)| lu.clone());
        while let Some(some) = taking.step(&pool, open).await.unwrap() {
            bytes.extend(some);
        }
        assert_eq!(taking.lacks, []);
        let online = read(&core, &bytes).await;
        let images: Vec<Image> = held.iter().map(|disk| disk.take()).collect();
        let offline = read(&core, &backed_up(&core, &images).await).await;
        assert_eq!((online.epoch(), online.made), (offline.epoch(), 7));
        for (one, other) in online.disks.iter().zip(&offline.disks) {
            assert_eq!((&one.label, one.layout), (&other.label, other.layout));
            let slabs = |disk: &BackedDisk| disk.places().collect::<Vec<_>>();
            assert_eq!(slabs(one), slabs(other));
        }
        assert_eq!(online.lus.len(), family.members.len());
        for (id, lu) in &online.lus {
            let other = &offline.lus[id];
            assert_eq!((lu.turn(), lu.first_slab), (other.turn(), other.first_slab));
            assert!(lu.turn().is_some());
        }
        family.close().await;
    });
    done.expect("it ends");
}
