//! LUs that are thick, in pools that others have filled: whatever is done to them, every write
//! inside them finds its space; what would need more than there is, is refused before.

use rt::sim::Random;

use super::super::super::crash::seeds;
use super::*;

const PATH: &str = "/dev/disk";
const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;
const OTHER: [u8; 16] = [7; 16];

fn thick(size: u64) -> NewLu {
    NewLu { id: LU, layer: BASE, about: About { thick: true, ..about(size, 512) } }
}

async fn write(device: &Rc<dyn Device>, at: u64, len: u64) -> Result<(), ErrorKind> {
    let data = Buffer::from_bytes(&vec![(at / BLOCK_BYTES) as u8; len as usize]);
    let done = device.io(&Request::write(at, data.sgl())).await;
    done.map(drop).map_err(|error| error.kind())
}

/// Every block of it, scattered.
async fn fill(device: &Rc<dyn Device>, size: u64) {
    let blocks = size / BLOCK_BYTES;
    for number in 0..blocks {
        // Odd, and so each once.
        let block = number * 1_913 % blocks;
        assert_eq!(write(device, block * BLOCK_BYTES, BLOCK_BYTES).await, Ok(()), "{block}");
    }
    device.io(&Request::flush()).await.unwrap();
}

/// Somebody who takes what the pool has.
struct Hog {
    lu: Arc<Lu>,
    device: Rc<dyn Device>,
    at: u64,
}

impl Hog {
    async fn new(core: &Core, pool: &Rc<Pool>) -> Self {
        let new = NewLu { id: OTHER, layer: BASE, about: about(1 << 30, 512) };
        let lu = Lu::open(core, pool.create_lu(new).await.unwrap()).await.unwrap();
        let device = lu.device(core);
        Self { lu, device, at: 0 }
    }

    async fn eat(&mut self) {
        self.lu.may_grow(0).await.unwrap();
        while self.at < self.lu.size() && write(&self.device, self.at, 64 << 10).await.is_ok() {
            self.at += 64 << 10;
        }
    }
}

async fn new_pool_on(core: &Core) -> Rc<Pool> {
    let disks = vec![(backing(core, Path::new(PATH), true).await, [9; 16])];
    Pool::format(core, new_pool(), disks).await.unwrap()
}

/// What a layer is not wanted for any more goes.
async fn let_go(lu: &Arc<Lu>, layer: LayerId) {
    while lu.fold(layer, 16).await.unwrap() != Folded::Gone {}
}

#[test]
fn a_thick_lu_of_a_full_pool_is_written_everywhere() {
    let world = World::new(21, Options::default());
    let (host, disk) = (world.host("host"), world.disk(128 * MIB));
    disk.attach(&host, PATH);
    let done = world.block_on(&host.core(), |core| async move {
        let pool = new_pool_on(&core).await;
        let all = pool.slabs();
        let refused = pool.create_lu(thick(200 * MIB)).await.map(drop).unwrap_err();
        let LuError::Short(short) = refused else { panic!("{refused}") };
        assert!(short.wanted > 200 * MIB && short.free == all.1 * (4 << 20), "{short}");
        assert_eq!((pool.slabs(), pool.granted(LU)), (all, None), "nothing is left of it");

        let lu = Lu::open(&core, pool.create_lu(thick(SIZE)).await.unwrap()).await.unwrap();
        let device = lu.device(&core);
        fill(&device, SIZE).await;
        let layer = lu.snapshot([4; 16]).await.unwrap();
        let mut hog = Hog::new(&core, &pool).await;
        hog.eat().await;
        assert_eq!(pool.slabs().1, 0);
        fill(&device, SIZE).await;
        let refused = lu.snapshot([5; 16]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace);
        assert!(refused.to_string().contains("are missing"), "{refused}");
        let refused = lu.roll_back(layer, [5; 16]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NoSpace);
        let refused = lu.resize(2 * SIZE).await.unwrap_err();
        assert!(refused.to_string().contains("are missing"), "{refused}");
        fill(&device, SIZE).await;

        // What the snapshot had goes back, and no more.
        let_go(&lu, layer).await;
        device.io(&Request::flush()).await.unwrap();
        lu.close().await;
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        assert!(lu.about().await.unwrap().thick);
        let device = lu.device(&core);
        device.io(&Request::flush()).await.unwrap();
        core.sleep(Duration::from_secs(1)).await;
        let back = pool.slabs().1 * (4 << 20);
        assert!((SIZE - (8 << 20)..SIZE + (8 << 20)).contains(&back), "{back} came back");
        hog.eat().await;
        assert_eq!(device.io(&Request::plain(Op::Discard, 0, SIZE)).await, Ok(0));
        fill(&device, SIZE).await;
        hog.lu.close().await;
        pool.revoke(OTHER).await.unwrap();
        lu.resize(2 * SIZE).await.unwrap();
        fill(&device, 2 * SIZE).await;
    });
    done.expect("it ends");
}

/// What is done to a thick LU.
struct Bench {
    core: Core,
    pool: Rc<Pool>,
    lu: Arc<Lu>,
    device: Rc<dyn Device>,
    random: Random,
    names: u64,
    snapshots: Vec<LayerId>,
    doomed: Vec<LayerId>,
    /// Layers that were made, and those that were refused.
    done: [u32; 2],
}

impl Bench {
    fn name(&mut self) -> LayerId {
        self.names += 1;
        let mut name = [0x40; 16];
        name[..8].copy_from_slice(&self.names.to_le_bytes());
        name
    }

    async fn step(&mut self) {
        let blocks = self.lu.size() / BLOCK_BYTES;
        let count = 1 + self.random.below(40);
        let at = self.random.below(blocks - count) * BLOCK_BYTES;
        match self.random.below(60) {
            0..40 => assert_eq!(write(&self.device, at, count * BLOCK_BYTES).await, Ok(())),
            40..48 => {
                let discard = Request::plain(Op::Discard, at, count * BLOCK_BYTES);
                assert_eq!(self.device.io(&discard).await, Ok(0));
            }
            48 => fill(&self.device, 2 * MIB).await,
            49..51 => self.branch(None).await,
            51 => {
                let back = self.snapshots.last().copied();
                self.branch(back).await;
            }
            52 if !self.snapshots.is_empty() => {
                let which = self.random.below(self.snapshots.len() as u64) as usize;
                self.doomed.push(self.snapshots.remove(which));
            }
            53 if self.random.below(4) == 0 => self.reopen().await,
            54 => drop(self.device.io(&Request::flush()).await.unwrap()),
            _ => self.fold().await,
        }
    }

    async fn branch(&mut self, back: Option<LayerId>) {
        let name = self.name();
        let made = match back {
            Some(to) => self.lu.roll_back(to, name).await,
            None => self.lu.snapshot(name).await,
        };
        self.done[usize::from(made.is_err())] += 1;
        match (made, back) {
            (Ok(left), Some(_)) => self.doomed.push(left),
            (Ok(frozen), None) => self.snapshots.push(frozen),
            (Err(error), _) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
        }
    }

    async fn fold(&mut self) {
        for layer in self.doomed.clone() {
            match self.lu.fold(layer, 8).await {
                Ok(Folded::Gone) => self.doomed.retain(|it| *it != layer),
                Ok(Folded::Left(_)) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
            }
        }
    }

    async fn reopen(&mut self) {
        self.lu.close().await;
        self.lu = Lu::open(&self.core, self.pool.seat(LU).unwrap()).await.unwrap();
        self.device = self.lu.device(&self.core);
    }
}

#[test]
fn no_write_inside_a_thick_lu_fails() {
    let mut done = [0; 2];
    for seed in seeds(2, &[]) {
        let world = World::new(seed, Options::default());
        let (host, disk) = (world.host("host"), world.disk(128 * MIB));
        disk.attach(&host, PATH);
        let some = world.block_on(&host.core(), |core| async move {
            let pool = new_pool_on(&core).await;
            let lu = Lu::open(&core, pool.create_lu(thick(SIZE)).await.unwrap()).await.unwrap();
            let mut hog = Hog::new(&core, &pool).await;
            let (device, random) = (lu.device(&core), Random::new(seed));
            let (snapshots, doomed) = (Vec::new(), Vec::new());
            let mut bench =
                Bench { core, pool, lu, device, random, names: 0, snapshots, doomed, done: [0; 2] };
            for step in 0..700 {
                if step == 300 || step > 300 && bench.random.below(8) == 0 {
                    hog.eat().await;
                }
                bench.step().await;
            }
            bench.done
        });
        done.iter_mut().zip(some.expect("it ends")).for_each(|(sum, more)| *sum += more);
    }
    println!("{done:?} layers made, refused");
    assert!(done.iter().all(|count| *count > 3), "{done:?}");
}
