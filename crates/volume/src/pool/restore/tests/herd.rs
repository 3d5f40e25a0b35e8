//! LUs that write, discard and give slabs back, so that others get them, and what each holds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use super::super::super::check::tests::KINDS;
use super::super::super::check::tests::disk::{Attached, InMemory};
use super::super::super::home::{NewDisk, NewPool};
use super::super::super::lu::tests::about;
use super::super::super::lu::{Folded, NewLu};
use super::super::super::owner::LayerId;
use super::super::super::root::About;
use super::*;

pub(super) const PAGE: u64 = PAGE_BYTES as u64;
pub(super) const LU_BYTES: u64 = 64 << 20;
/// So many extents of each LU are used, and of each extent these blocks.
pub(super) const EXTENTS: u64 = 384;
pub(super) const EXTENT_BLOCKS: u64 = 16;
pub(super) const LUS: u8 = 3;

/// What a block holds: all of it is one word, which says whose it is.
pub(super) type Word = u64;
pub(super) type Words = BTreeMap<u64, Word>;

pub(super) fn word(lu: u8, count: u64) -> Word {
    (u64::from(lu) + 1) << 56 | count
}

pub(super) struct One {
    pub id: [u8; 16],
    pub number: u8,
    pub lu: Arc<Lu>,
    pub now: Words,
    pub ever: BTreeSet<Word>,
    pub snapshots: Vec<LayerId>,
}

/// LUs that write, discard and give slabs back, so that others get them.
pub(super) struct Herd {
    pub core: Core,
    pub held: Vec<Arc<InMemory>>,
    pub pool: Rc<Pool>,
    pub random: Random,
    pub all: Vec<One>,
    pub count: u64,
}

/// What a block of an LU reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Word(Word),
    /// A page of metadata.
    Page,
    Failed,
}

pub(super) async fn read_at(device: &Rc<dyn Device>, block: u64) -> Read {
    let buffer = Buffer::from_bytes(&[0xee; PAGE_BYTES]);
    if device.io(&Request::read(block * PAGE, buffer.sgl())).await.is_err() {
        return Read::Failed;
    }
    let bytes = buffer.to_vec();
    if KINDS.iter().any(|kind| bytes.starts_with(kind)) {
        return Read::Page;
    }
    let (words, _) = bytes.as_chunks::<8>();
    assert!(words.iter().all(|it| *it == words[0]), "block {block} is not whole");
    Read::Word(u64::from_le_bytes(words[0]))
}

pub(super) fn blocks() -> impl Iterator<Item = u64> {
    (0..EXTENTS).flat_map(|extent| [0, 1].map(|block| extent * EXTENT_BLOCKS + block))
}

impl Herd {
    pub async fn begin(core: &Core, seed: u64, new: NewPool, groups: [u16; 2]) -> Self {
        let (held, backings) = disks(&[Image::default(), Image::default()]);
        let named = backings.into_iter().zip([[8; 16], [9; 16]]).zip(groups);
        let named = named.map(|((backing, pv), group)| NewDisk { backing, pv, group }).collect();
        let pool = Pool::format(core, new, named).await.unwrap();
        let (core, random) = (core.clone(), Random::new(seed));
        let mut herd = Self { core, held, pool, random, all: Vec::new(), count: 0 };
        for number in 0..LUS {
            let (id, layer) = ([number + 1; 16], herd.layer());
            let about = About { name: format!("lu{number}"), ..about(LU_BYTES, 512) };
            let seat = herd.pool.create_lu(NewLu { id, layer, about }).await.unwrap();
            let lu = Lu::open(&herd.core, seat).await.unwrap();
            let (now, ever, snapshots) = (Words::new(), BTreeSet::new(), Vec::new());
            herd.all.push(One { id, number, lu, now, ever, snapshots });
        }
        herd
    }

    fn layer(&mut self) -> LayerId {
        let word = self.random.draw().to_le_bytes();
        std::array::from_fn(|at| word[at % 8] ^ at as u8)
    }

    pub async fn steps(&mut self, count: u64) {
        for _ in 0..count {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        let at = self.random.below(self.all.len() as u64) as usize;
        let (from, count) = (self.random.below(EXTENTS), 1 + self.random.below(60));
        let to = (from + count).min(EXTENTS);
        match self.random.below(20) {
            0..9 => self.write(at, from..to).await,
            9..14 => self.discard(at, from..(to + 60).min(EXTENTS)).await,
            14 => self.discard(at, 0..EXTENTS).await,
            15 if self.all[at].snapshots.len() < 2 => {
                let top = self.layer();
                let layer = self.all[at].lu.snapshot(top).await.unwrap();
                self.all[at].snapshots.push(layer);
            }
            15 | 16 if !self.all[at].snapshots.is_empty() => {
                let layer = self.all[at].snapshots.remove(0);
                fold(&self.all[at].lu, layer).await;
            }
            _ => renew_root(&self.all[at].lu).await,
        }
    }

    pub async fn write(&mut self, at: usize, extents: Range<u64>) {
        let one = &mut self.all[at];
        let device = one.lu.device(&self.core);
        for extent in extents {
            self.count += 1;
            let (block, word) = (extent * EXTENT_BLOCKS, word(one.number, self.count));
            let buffer = Buffer::from_bytes(&word.to_le_bytes().repeat(1024));
            device.io(&Request::write(block * PAGE, buffer.sgl())).await.unwrap();
            one.now.extend([(block, word), (block + 1, word)]);
            one.ever.insert(word);
        }
    }

    pub async fn discard(&mut self, at: usize, extents: Range<u64>) {
        let one = &mut self.all[at];
        let bytes = EXTENT_BLOCKS * PAGE;
        let (from, len) = (extents.start * bytes, (extents.end - extents.start) * bytes);
        let request = Request::plain(Op::Discard, from, len);
        one.lu.device(&self.core).io(&request).await.unwrap();
        let (from, to) = (extents.start * EXTENT_BLOCKS, extents.end * EXTENT_BLOCKS);
        one.now.retain(|block, _| !(from..to).contains(block));
    }

    pub fn images(&self) -> Vec<Image> {
        self.held.iter().map(|disk| disk.take()).collect()
    }

    /// A backup that has everything, and what each LU holds then.
    pub async fn back_up(&self) -> (Vec<u8>, Vec<Words>) {
        for one in &self.all {
            one.lu.device(&self.core).io(&Request::flush()).await.unwrap();
            renew_root(&one.lu).await;
        }
        let bytes = backed_up(&self.core, &self.images()).await;
        (bytes, self.all.iter().map(|one| one.now.clone()).collect())
    }

    /// Most of what there is gets another owner, who finds what was there before.
    pub async fn change_hands(&mut self) {
        for at in 0..self.all.len() {
            for layer in std::mem::take(&mut self.all[at].snapshots) {
                fold(&self.all[at].lu, layer).await;
            }
            let from = self.random.below(3) * EXTENTS / 3;
            self.discard(at, from..EXTENTS).await;
        }
        for _ in 0..3 {
            for one in &self.all {
                one.lu.device(&self.core).io(&Request::flush()).await.unwrap();
                renew_root(&one.lu).await;
            }
            self.core.sleep(Duration::from_secs(2)).await;
        }
        if self.random.coin() {
            self.reopen().await;
        }
        for _ in 0..LUS {
            let (at, from) = (self.random.below(LUS.into()), self.random.below(EXTENTS));
            self.write(at as usize, from..EXTENTS).await;
        }
    }

    /// Numbers of slabs that are free are given again from then on.
    pub async fn reopen(&mut self) {
        self.close().await;
        let disks = self.held.iter().map(|it| Arc::new(Attached(it.clone())) as Arc<dyn Backing>);
        self.pool = Pool::open(&self.core, disks.collect()).await.unwrap();
        for one in &mut self.all {
            one.lu = Lu::open(&self.core, self.pool.seat(one.id).unwrap()).await.unwrap();
        }
    }

    pub async fn close(&self) {
        for one in &self.all {
            one.lu.close().await;
        }
        self.pool.close().await.unwrap();
    }
}

pub(super) async fn fold(lu: &Lu, layer: LayerId) {
    while let Ok(Folded::Left(_)) = lu.fold(layer, 100).await {}
}
