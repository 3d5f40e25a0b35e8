//! LUs with their snapshots and clones, and clones of clones: whatever is done to one of them, each
//! of the others reads what it did.

use std::collections::BTreeMap;

use block::Buffer;
use rt::sim::Random;

use super::super::super::check::check;
use super::super::super::memory::{DEFAULT_BYTES, Memory};
use super::*;

const LU_BYTES: u64 = 64 << 20;
/// Blocks that are used: of one extent, of the next, of another page of the map.
pub(in crate::pool) const BLOCKS: [u64; 12] =
    [0, 1, 2, 3, 16, 17, 30, 31, 5_400, 5_401, 5_402, 12_000];
const LUS_MAX: usize = 5;
const SNAPSHOTS_MAX: usize = 4;
const PATH: &str = "/dev/disk";
/// For two pages of maps.
const MEMORY_BYTES: usize = 17 << 10;

pub(in crate::pool) type Content = BTreeMap<u64, u64>;

pub(in crate::pool) struct Member {
    pub id: [u8; 16],
    pub lu: Arc<Lu>,
    device: Rc<dyn Device>,
    pub content: Content,
    pub snapshots: Vec<(LayerId, Content)>,
    /// Whose snapshot it is a clone of.
    pub base: Option<([u8; 16], LayerId)>,
}

pub(in crate::pool) struct Family {
    core: Core,
    pub pool: Rc<Pool>,
    random: Random,
    pub members: Vec<Member>,
    names: u64,
    folded: usize,
    busy: usize,
}

fn fresh() -> Content {
    BLOCKS.iter().map(|block| (*block, 0)).collect()
}

/// A block says where it is and what was written.
pub(super) fn block_of(block: u64, value: u64) -> Buffer {
    let word = if value == 0 { 0 } else { value << 32 | block };
    Buffer::from_bytes(&word.to_le_bytes().repeat(BLOCK_BYTES as usize / 8))
}

async fn read(device: &Rc<dyn Device>) -> Content {
    let mut content = Content::new();
    for block in BLOCKS {
        content.insert(block, read_block(device, block).await.unwrap());
    }
    content
}

/// What was written there.
pub(in crate::pool) async fn read_block(device: &Rc<dyn Device>, block: u64) -> Result<u64, Error> {
    let buffer = Buffer::from_bytes(&[0xee; BLOCK_BYTES as usize]);
    device.io(&Request::read(block * BLOCK_BYTES, buffer.sgl())).await?;
    let bytes = buffer.to_vec();
    let word = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes.chunks(8).all(|it| it == word.to_le_bytes()), "block {block} is not whole");
    assert!(word == 0 || word & 0xffff_ffff == block, "block {block} holds {word:x}");
    Ok(word >> 32)
}

/// Lets a root be written.
pub(in crate::pool) async fn renew_root(lu: &Lu) {
    lu.ask(|service| service.clone().describe(service.about())).await.unwrap();
}

impl Family {
    /// With one LU in it.
    pub async fn begin(core: &Core, pool: Rc<Pool>, seed: u64) -> Self {
        let (core, random, members) = (core.clone(), Random::new(seed), Vec::new());
        let mut family = Self { core, pool, random, members, names: 1, folded: 0, busy: 0 };
        family.make(None).await;
        family
    }

    fn name(&mut self) -> [u8; 16] {
        self.names += 1;
        let mut name = [9; 16];
        name[..8].copy_from_slice(&self.names.to_le_bytes());
        name
    }

    fn any(&mut self) -> usize {
        self.random.below(self.members.len() as u64) as usize
    }

    /// Makes an LU, of a snapshot or of nothing.
    async fn make(&mut self, of: Option<([u8; 16], LayerId, Content)>) {
        let (id, layer) = (self.name(), self.name());
        let base = of.as_ref().map(|(lu, layer, _)| Base { lu: *lu, layer: *layer });
        let about = About { base, ..about(LU_BYTES, 512) };
        let seat = self.pool.create_lu(NewLu { id, layer, about }).await.unwrap();
        let base = of.as_ref().map(|(lu, layer, _)| (*lu, *layer));
        let content = of.map_or_else(fresh, |(_, _, content)| content);
        self.open(seat, (id, base), (content, Vec::new())).await;
    }

    async fn open(
        &mut self,
        seat: Seat,
        (id, base): ([u8; 16], Option<([u8; 16], LayerId)>),
        (content, snapshots): (Content, Vec<(LayerId, Content)>),
    ) {
        let seat = match base {
            Some((lu, layer)) => {
                let parent = self.members.iter().find(|member| member.id == lu).unwrap();
                seat.on(parent.lu.view(layer).await.unwrap())
            }
            None => seat,
        };
        let lu = Lu::open(&self.core, seat).await.unwrap();
        let device = lu.device(&self.core);
        self.members.push(Member { id, lu, device, content, snapshots, base });
    }

    pub async fn write(&mut self) {
        let (value, at, block) = (self.names, self.any(), *self.random.pick(&BLOCKS));
        self.names += 1;
        let member = &mut self.members[at];
        let buffer = block_of(block, value);
        let request = Request::write(block * BLOCK_BYTES, buffer.sgl());
        member.device.io(&request).await.unwrap();
        member.content.insert(block, value);
    }

    pub async fn discard(&mut self) {
        let (at, block) = (self.any(), *self.random.pick(&BLOCKS));
        let count = 1 + self.random.below(20);
        let member = &mut self.members[at];
        let request = Request::plain(Op::Discard, block * BLOCK_BYTES, count * BLOCK_BYTES);
        member.device.io(&request).await.unwrap();
        member.content.range_mut(block..block + count).for_each(|(_, value)| *value = 0);
    }

    async fn flush(&mut self) {
        let at = self.any();
        self.members[at].device.io(&Request::flush()).await.unwrap();
    }

    pub async fn snapshot(&mut self) {
        let (at, top) = (self.any(), self.name());
        let member = &mut self.members[at];
        if member.snapshots.len() < SNAPSHOTS_MAX {
            let layer = member.lu.snapshot(top).await.unwrap();
            member.snapshots.push((layer, member.content.clone()));
        }
    }

    /// Which snapshot, of which member.
    fn any_snapshot(&mut self) -> Option<(usize, usize)> {
        let at = self.any();
        let count = self.members[at].snapshots.len() as u64;
        (count > 0).then(|| (at, self.random.below(count) as usize))
    }

    async fn clone_one(&mut self) {
        let Some((at, which)) = self.any_snapshot() else { return };
        if self.members.len() < LUS_MAX {
            let Member { id, snapshots, .. } = &self.members[at];
            let (layer, content) = snapshots[which].clone();
            self.make(Some((*id, layer, content))).await;
        }
    }

    async fn roll_back(&mut self) {
        let (Some((at, which)), top) = (self.any_snapshot(), self.name()) else { return };
        let member = &mut self.members[at];
        let (layer, content) = member.snapshots[which].clone();
        member.lu.roll_back(layer, top).await.unwrap();
        member.content = content;
    }

    /// Lets layers go that nobody needs, while everything is read.
    pub async fn delete(&mut self) {
        let at = self.any();
        if self.random.coin()
            && let Some((at, which)) = self.any_snapshot()
        {
            let member = &self.members[at];
            let base = Some((member.id, member.snapshots[which].0));
            if !self.members.iter().any(|member| member.base == base) {
                self.members[at].snapshots.remove(which);
            }
        }
        let member = &self.members[at];
        for layer in member.lu.layers().await.unwrap() {
            let is_snapshot = member.snapshots.iter().any(|(id, _)| *id == layer.id);
            if layer.frozen.is_none() || is_snapshot {
                continue;
            }
            let lu = member.lu.clone();
            let going = self.core.spawn_task(async move {
                loop {
                    match lu.fold(layer.id, 3).await {
                        Ok(Folded::Gone) => break true,
                        Ok(Folded::Left(_)) => {}
                        Err(error) if error.kind() == ErrorKind::Busy => break false,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            self.check().await;
            let is_gone = going.await;
            *(if is_gone { &mut self.folded } else { &mut self.busy }) += 1;
        }
    }

    /// Closes every LU, those that stand on others first.
    pub async fn close(&self) {
        for Member { device, lu, .. } in self.members.iter().rev() {
            device.io(&Request::flush()).await.unwrap();
            lu.close().await;
        }
    }

    /// Everything is closed, power fails, everything is opened again.
    async fn reopen(&mut self, disk: &Disk) {
        self.close().await;
        let members = std::mem::take(&mut self.members);
        let known: Vec<_> =
            members.into_iter().map(|it| ((it.id, it.base), (it.content, it.snapshots))).collect();
        self.core.sleep(Duration::from_millis(5)).await;
        self.pool.close().await.unwrap();
        disk.lose_power();
        let disks = vec![backing(&self.core, Path::new(PATH), true).await];
        let report = check(&self.core, disks.clone(), |_| ()).await;
        assert!(!report.is_damaged(), "{report:?}");
        let memory = self.pool.memory();
        self.pool = Pool::open(&self.core, disks).await.unwrap();
        self.pool.keep_maps_in(memory);
        for (who, what) in known {
            let about = self.pool.describe_lu(who.0).await.unwrap();
            assert_eq!(about.base.map(|base| (base.lu, base.layer)), who.1);
            let seat = self.pool.seat(who.0).unwrap();
            if who.1.is_some() {
                let alone = Lu::open(&self.core, seat).await;
                assert!(matches!(alone, Err(LuError::Base(_))), "a clone without its base");
            } else {
                drop(seat);
            }
            self.open(self.pool.seat(who.0).unwrap(), who, what).await;
        }
    }

    async fn check(&self) {
        for member in &self.members {
            assert_eq!(read(&member.device).await, member.content);
            for (layer, content) in &member.snapshots {
                let view = member.lu.view(*layer).await.unwrap();
                assert_eq!(read(&view.device(&self.core)).await, *content);
            }
        }
    }

    async fn step(&mut self, disk: &Disk) {
        match self.random.below(40) {
            33 => self.reopen(disk).await,
            _ => self.work().await,
        }
    }

    /// Something that anybody may do.
    pub async fn work(&mut self) {
        match self.random.below(39) {
            0..14 => self.write().await,
            14..20 => self.discard().await,
            20..24 => self.snapshot().await,
            24 => self.clone_one().await,
            25..27 => self.roll_back().await,
            27..33 => self.delete().await,
            33..36 => self.flush().await,
            _ => self.check().await,
        }
    }
}

/// Layers that were folded, and times that one could not be.
fn folded_by(seeds: std::ops::Range<u64>, memory: usize) -> usize {
    let (mut folded, mut busy) = (0, 0);
    for seed in seeds {
        let world = World::new(seed, Options::swarm(seed));
        let (host, disk) = (world.host("host"), world.disk(DISK_BYTES));
        disk.attach(&host, PATH);
        let done = world.block_on(&host.core(), |core| async move {
            let disks = vec![(backing(&core, Path::new(PATH), true).await, [9; 16])];
            let pool = Pool::format(&core, new_pool(), disks).await.unwrap();
            pool.keep_maps_in(Arc::new(Memory::new(memory)));
            let mut family = Family::begin(&core, pool, seed).await;
            for _ in 0..400 {
                family.step(&disk).await;
            }
            family.check().await;
            (family.folded, family.busy)
        });
        let done = done.unwrap();
        folded += done.0;
        busy += done.1;
    }
    println!("{folded} layers folded, {busy} could not be");
    folded
}

#[test]
fn whatever_is_done_to_one_of_a_family_is_not_seen_by_the_others() {
    let seeds = 0..4 * super::super::super::crash::loops();
    assert!(folded_by(seeds, DEFAULT_BYTES) > 20);
}

/// Of all LUs together fewer pages of maps are in memory than a single request may need.
#[test]
fn a_family_has_enough_with_little_memory() {
    let seeds = 100..100 + 2 * super::super::super::crash::loops();
    assert!(folded_by(seeds, MEMORY_BYTES) > 10);
}
