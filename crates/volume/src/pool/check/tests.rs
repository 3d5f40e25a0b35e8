//! Pools of which one bit is flipped somewhere in their metadata, after which nothing but the right
//! data or an error is read, and the check says what the matter is.
//!
//! One thing cannot be told: the last page of a journal that has rotted from one that a loss of
//! power has cut off. What it said is taken for never having been; so a flip in a journal may give
//! what the very same block held before, and the check then says that this page is not whole.

pub(in crate::pool) mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use block::Device;
use rt::Core;
use rt::sim::{Options, Random, World};

use super::super::crash::loops;
use super::super::disks::Backing;
use super::super::home::{NewDisk, Pool};
use super::super::lu::Lu;
use super::super::lu::tests::families::{BLOCKS, Content, Family, read_block};
use super::super::lu::tests::new_pool;
use super::super::owner::LayerId;
use super::super::page::PAGE_BYTES;
use super::super::survey::{Survey, survey};
use super::*;
use disk::{Attached, Image, InMemory};

const DISK_BYTES: u64 = 128 << 20;
const DISKS: usize = 2;
const STEPS: u64 = 160;
/// Moments of which images are taken while LUs are used, each with a chance.
const TAKEN_EVERY: u64 = 30;
/// Flips in each world: `VIADUCT_LOOPS` says how many worlds there are.
const FLIPS: usize = 250;

/// What pages of metadata begin with.
pub(in crate::pool) const KINDS: [[u8; 4]; 6] =
    [*b"VDlb", *b"VDst", *b"VDrh", *b"VDrb", *b"VDmp", *b"VDjl"];
const MAP: usize = 4;
const JOURNAL: usize = 5;

/// What an LU reads at a moment.
#[derive(Clone)]
pub(in crate::pool) struct Expected {
    pub id: [u8; 16],
    pub base: Option<([u8; 16], LayerId)>,
    pub content: Content,
    /// What each block has ever held.
    ever: BTreeMap<u64, BTreeSet<u64>>,
    snapshots: Vec<(LayerId, Content)>,
}

/// Disks as they were at a moment.
pub(in crate::pool) struct Moment {
    pub images: Vec<Image>,
    pub expected: Vec<Expected>,
}

/// What became of reading everything.
#[derive(Debug, Default)]
pub(in crate::pool) struct Seen {
    /// Nothing of an LU, or of the pool, can be read.
    pub unopened: u64,
    /// A snapshot or a block cannot.
    pub refused: u64,
    /// A block holds what it held before.
    pub older: u64,
    /// A block holds something else.
    pub others: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    flips: u64,
    right: u64,
    refused: u64,
    older: u64,
    /// Everything was right, and the check has found the flip.
    noticed: u64,
}

pub(in crate::pool) fn disks(images: &[Image]) -> (Vec<Arc<InMemory>>, Vec<Arc<dyn Backing>>) {
    let names = ["/dev/one", "/dev/two"].into_iter();
    let disks: Vec<_> = names
        .zip(images)
        .map(|(name, image)| InMemory::new(name, DISK_BYTES, image.clone()))
        .collect();
    let backings = disks.iter().map(|disk| Arc::new(Attached(disk.clone())) as Arc<dyn Backing>);
    let backings = backings.collect();
    (disks, backings)
}

/// Uses a pool, and takes its disks now and then: under a process that is killed, and closed.
pub(in crate::pool) async fn moments(core: &Core, seed: u64) -> Vec<Moment> {
    let work = async |family: &mut Family, _: &mut Random| family.work().await;
    moments_of(core, (seed, STEPS, TAKEN_EVERY), [0, 0], work).await
}

/// The same with so many steps that are others, of which each of so many is a moment, on disks of
/// these failure groups.
pub(in crate::pool) async fn moments_of(
    core: &Core,
    (seed, steps, every): (u64, u64, u64),
    groups: [u16; 2],
    mut step: impl AsyncFnMut(&mut Family, &mut Random),
) -> Vec<Moment> {
    let (disks, backings) = disks(&vec![Image::default(); DISKS]);
    let named = backings.into_iter().zip([[8; 16], [9; 16]]).zip(groups);
    let named = named.map(|((backing, pv), group)| NewDisk { backing, pv, group }).collect();
    let pool = Pool::format(core, new_pool(), named).await.unwrap();
    let mut family = Family::begin(core, pool, seed).await;
    let (mut random, mut moments) = (Random::new(!seed), Vec::new());
    let mut ever: BTreeMap<[u8; 16], BTreeMap<u64, BTreeSet<u64>>> = BTreeMap::new();
    for _ in 0..steps {
        for member in &family.members {
            let ever = ever.entry(member.id).or_default();
            for (block, value) in &member.content {
                ever.entry(*block).or_default().insert(*value);
            }
        }
        if random.below(every) == 0 {
            moments.push(moment(&disks, &family, &ever));
        }
        step(&mut family, &mut random).await;
    }
    family.close().await;
    moments.push(moment(&disks, &family, &ever));
    moments
}

fn moment(
    disks: &[Arc<InMemory>],
    family: &Family,
    ever: &BTreeMap<[u8; 16], BTreeMap<u64, BTreeSet<u64>>>,
) -> Moment {
    let images = disks.iter().map(|disk| disk.take()).collect();
    let expected = family.members.iter().map(|member| Expected {
        id: member.id,
        base: member.base,
        content: member.content.clone(),
        ever: ever.get(&member.id).cloned().unwrap_or_default(),
        snapshots: member.snapshots.clone(),
    });
    Moment { images, expected: expected.collect() }
}

/// Pages of each kind: on which disk, which block.
pub(in crate::pool) fn metadata(images: &[Image]) -> [Vec<(usize, u64)>; KINDS.len()] {
    let mut found: [Vec<(usize, u64)>; KINDS.len()] = Default::default();
    for (disk, image) in images.iter().enumerate() {
        for (number, block) in image.blocks() {
            if let Some(kind) = KINDS.iter().position(|kind| block.starts_with(kind)) {
                found[kind].push((disk, number));
            }
        }
    }
    found.iter_mut().for_each(|pages| pages.sort_unstable());
    found
}

/// Opens what these disks are and reads all of it.
pub(in crate::pool) async fn look(
    core: &Core,
    disks: Vec<Arc<dyn Backing>>,
    expected: &[Expected],
) -> Seen {
    let mut seen = Seen::default();
    let Ok(pool) = Pool::open(core, disks).await else {
        return Seen { unopened: 1, ..seen };
    };
    let mut lus: Vec<([u8; 16], Arc<Lu>)> = Vec::new();
    for member in expected {
        let Some(lu) = open(core, &pool, &lus, member).await else {
            seen.unopened += 1;
            continue;
        };
        let others = read(&lu.device(core), &member.content, &member.ever, &mut seen).await;
        seen.others.extend(others.into_iter().map(|it| format!("an LU: {it}")));
        for (layer, content) in &member.snapshots {
            match lu.view(*layer).await {
                Ok(view) => {
                    let others = read(&view.device(core), content, &member.ever, &mut seen).await;
                    seen.others.extend(others.into_iter().map(|it| format!("a snapshot: {it}")));
                }
                Err(_) => seen.refused += 1,
            }
        }
        lus.push((member.id, lu));
    }
    for (_, lu) in lus.iter().rev() {
        lu.close().await;
    }
    seen
}

async fn open(
    core: &Core,
    pool: &Rc<Pool>,
    lus: &[([u8; 16], Arc<Lu>)],
    member: &Expected,
) -> Option<Arc<Lu>> {
    let mut seat = pool.seat(member.id).ok()?;
    if let Some((lu, layer)) = member.base {
        let (_, parent) = lus.iter().find(|(id, _)| *id == lu)?;
        seat = seat.on(parent.view(layer).await.ok()?);
    }
    Lu::open(core, seat).await.ok()
}

async fn read(
    device: &Rc<dyn Device>,
    content: &Content,
    ever: &BTreeMap<u64, BTreeSet<u64>>,
    seen: &mut Seen,
) -> Vec<String> {
    let mut others = Vec::new();
    for block in BLOCKS {
        match read_block(device, block).await {
            Ok(value) if value == content[&block] => {}
            Ok(value) => {
                let is_older = ever.get(&block).is_some_and(|ever| ever.contains(&value));
                if !is_older {
                    others.push(format!("block {block} holds {value} for {}", content[&block]));
                }
                seen.older += 1;
            }
            Err(_) => seen.refused += 1,
        }
    }
    others
}

/// What the disks say of the pool, unless they say nothing.
async fn surveyed(core: &Core, disks: Vec<Arc<dyn Backing>>) -> Option<Survey> {
    survey(Pool::find(core, disks).await.ok()?).await.ok()
}

/// Whether everything is said that these are.
fn says_all(survey: Option<&Survey>, expected: &[Expected]) -> bool {
    let Some(survey) = survey else { return false };
    expected.iter().all(|member| {
        let said =
            survey.lus.iter().find(|lu| lu.id == member.id).and_then(|lu| lu.said.as_ref().ok());
        let Some(said) = said else { return false };
        let base = said.about.base.map(|base| (base.lu, base.layer));
        let is_there = |layer: &LayerId| {
            said.frozen.iter().any(|(id, frozen)| id == layer && !frozen.is_going)
        };
        base == member.base && member.snapshots.iter().all(|(layer, _)| is_there(layer))
    })
}

/// Whether a layer is there that nobody reads by itself: it is about to go, or its name is.
fn has_unread(survey: Option<&Survey>, expected: &[Expected]) -> bool {
    let is_read = |layer: &LayerId| {
        expected.iter().any(|member| member.snapshots.iter().any(|(read, _)| read == layer))
    };
    let lus = survey.iter().flat_map(|survey| &survey.lus);
    let said = lus.filter_map(|lu| lu.said.as_ref().ok());
    said.flat_map(|said| &said.frozen).any(|(layer, _)| !is_read(layer))
}

/// Flips one bit, and looks what becomes of it.
async fn flip(
    core: &Core,
    moment: &Moment,
    (kind, disk, block, bit): (usize, usize, u64, usize),
    tally: &mut Tally,
) {
    let mut images = moment.images.clone();
    images[disk].flip(block, bit);
    let (held, backings) = disks(&images);
    let report = check(core, backings.clone(), |_| ()).await;
    let survey = surveyed(core, backings.clone()).await;
    let says_all = says_all(survey.as_ref(), &moment.expected);
    let is_untouched = (0..DISKS).all(|at| held[at].is_as(&images[at]));
    assert!(is_untouched, "the check has written");
    let seen = look(core, backings, &moment.expected).await;
    let what = format!("{:?}, bit {bit} of block {block} of disk {disk}", KINDS[kind]);
    assert!(seen.others.is_empty(), "{what}: {:?}, {report:?}", seen.others);
    let is_older = seen.older > 0 && kind != JOURNAL;
    assert!(!is_older, "{what}: {} blocks are older", seen.older);
    assert!(seen.unopened == 0 || report.is_damaged(), "{what}: {report:?}");
    assert!(seen.unopened == 0 || !says_all, "{what}: all is said of what is not opened");
    let is_wrong = seen.unopened + seen.refused + seen.older > 0;
    assert!(!is_wrong || !report.findings.is_empty(), "{what}: not found");
    // What such a layer has, and those above it too, is missed by who lets it go.
    let may_be_unread = kind == MAP && has_unread(survey.as_ref(), &moment.expected);
    let is_false = !is_wrong && !may_be_unread && report.is_damaged();
    assert!(!is_false, "{what}: everything reads well: {report:?}");
    tally.flips += 1;
    tally.right += u64::from(!is_wrong);
    tally.refused += u64::from(seen.unopened + seen.refused > 0);
    tally.older += u64::from(seen.older > 0);
    tally.noticed += u64::from(!is_wrong && !report.findings.is_empty());
}

async fn world(core: Core, seed: u64, mut tallies: [Tally; KINDS.len()]) -> [Tally; KINDS.len()] {
    let moments = moments(&core, seed).await;
    let mut random = Random::new(seed ^ 0xf11b);
    let pages: Vec<_> = moments.iter().map(|moment| metadata(&moment.images)).collect();
    for moment in &moments {
        let (_, backings) = disks(&moment.images);
        let report = check(&core, backings.clone(), |_| ()).await;
        assert!(!report.is_damaged(), "{report:?}");
        assert_eq!(report.counts.lus, moment.expected.len() as u64);
        let survey = surveyed(&core, backings.clone()).await;
        assert!(says_all(survey.as_ref(), &moment.expected), "{survey:?}");
        assert_eq!(survey.map(|it| it.lus.len()), Some(moment.expected.len()));
        let seen = look(&core, backings, &moment.expected).await;
        assert_eq!((seen.unopened, seen.refused, seen.older), (0, 0, 0));
    }
    for _ in 0..FLIPS {
        let at = random.below(moments.len() as u64) as usize;
        // Maps have no pages before the first checkpoint.
        let there = (0..KINDS.len()).filter(|kind| !pages[at][*kind].is_empty());
        let kind = *random.pick(&there.collect::<Vec<_>>());
        let (disk, block) = *random.pick(&pages[at][kind]);
        let bit = random.below(PAGE_BYTES as u64 * 8) as usize;
        flip(&core, &moments[at], (kind, disk, block, bit), &mut tallies[kind]).await;
    }
    tallies
}

#[test]
fn a_flipped_bit_gives_an_error_or_is_repaired() {
    let mut tallies = [Tally::default(); KINDS.len()];
    for seed in 0..loops() {
        let world_of = World::new(seed, Options::default());
        let host = world_of.host("host");
        let done = world_of.block_on(&host.core(), |core| world(core, seed, tallies));
        tallies = done.expect("it ends");
    }
    for (kind, tally) in KINDS.iter().zip(tallies) {
        println!("{} {tally:?}", String::from_utf8_lossy(kind));
    }
    assert!(tallies.iter().all(|tally| tally.flips > 0));
}
