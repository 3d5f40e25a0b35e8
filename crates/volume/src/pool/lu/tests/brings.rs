//! LUs that are brought into a pool from a disk that has something, while they are used.

use std::cell::Cell as Flag;

use block::extent::{self, ExtentState};
use rt::sim::{Fault, Harm, On};

use super::*;

const PATH: &str = "/dev/disk";
const SOURCE: &str = "/dev/old";
const BLOCK: u64 = BLOCK_BYTES;
const EXTENT: u64 = 64 << 10;
/// Not of whole blocks, nor extents.
const SIZE: u64 = 20 * EXTENT + 5 * BLOCK + 512;
const TAIL: u64 = SIZE / BLOCK;

/// A sector of the source, as it is at first.
fn old(sector: u64) -> Vec<u8> {
    let is_there = !(64..72).contains(&(sector / 8)) && sector / 8 / 16 != 7;
    vec![if is_there { 1 + (sector % 251) as u8 } else { 0 }; 512]
}

async fn read(device: &Rc<dyn Device>, at: u64, len: u64) -> Result<Vec<u8>, ErrorKind> {
    let into = Buffer::from_bytes(&vec![0xee; len as usize]);
    let done = device.io(&Request::read(at, into.sgl())).await;
    done.map(|_| into.to_vec()).map_err(|error| error.kind())
}

async fn write(device: &Rc<dyn Device>, at: u64, bytes: &[u8]) -> Result<(), ErrorKind> {
    let data = Buffer::from_bytes(bytes);
    let done = device.io(&Request::write(at, data.sgl())).await;
    done.map(drop).map_err(|error| error.kind())
}

async fn zero(device: &Rc<dyn Device>, op: Op, (at, len): (u64, u64)) {
    device.io(&Request::plain(op, at, len)).await.unwrap();
}

/// What the LU has to have.
struct Content(Vec<u8>);

impl Content {
    fn of_source() -> Self {
        Self((0..SIZE / 512).flat_map(old).collect())
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    async fn check(&self, device: &Rc<dyn Device>) {
        let read = read(device, 0, SIZE).await.unwrap();
        let differs = (0..SIZE as usize).find(|at| read[*at] != self.0[*at]);
        assert_eq!(differs, None);
    }
}

async fn make_source(core: &Core) -> Source {
    let device = backing(core, Path::new(SOURCE), true).await.device(core);
    write(&device, 0, &Content::of_source().0).await.unwrap();
    Source { size: SIZE, name: SOURCE.to_owned() }
}

/// A pool with an LU that has brought nothing.
async fn new_lu(core: &Core) -> (Rc<Pool>, Arc<Lu>) {
    new_lu_of(core, SIZE).await
}

async fn new_lu_of(core: &Core, size: u64) -> (Rc<Pool>, Arc<Lu>) {
    let disks = vec![(backing(core, Path::new(PATH), true).await, [9; 16])];
    let pool = Pool::format(core, new_pool(), disks).await.unwrap();
    let source = Some(make_source(core).await);
    let about = About { source, ..about(size, 512) };
    let seat = pool.create_lu(NewLu { id: LU, layer: BASE, about }).await.unwrap();
    let lu = Lu::open(core, over(core, seat).await).await.unwrap();
    (pool, lu)
}

async fn over(core: &Core, seat: Seat) -> Seat {
    seat.over(backing(core, Path::new(SOURCE), true).await)
}

fn in_world<F: Future<Output = ()> + 'static>(
    bytes: u64,
    f: impl FnOnce(Core, Disk) -> F + Send + 'static,
) {
    let world = World::new(21, Options::default());
    let (host, disk) = (world.host("host"), world.disk(bytes));
    disk.attach(&host, PATH);
    let source = world.disk(SIZE);
    source.attach(&host, SOURCE);
    let core = host.core();
    world.block_on(&core, |core| f(core, source)).expect("it ends");
}

/// Brings all of it.
async fn bring(lu: &Arc<Lu>) {
    let (mut before, end) = (0, SIZE);
    while let Brought::Part { done, of } = lu.bring(3).await.0.unwrap() {
        assert!(of == end && done > before && done <= of);
        before = done;
    }
    assert_eq!(lu.brought().await.unwrap(), Brought::Done);
}

/// Everything that can be done to blocks, some of which are only in the source.
async fn use_it(device: &Rc<dyn Device>, content: &mut Content, seed: u8) {
    // Parts of blocks, whole ones, and across the end of an extent.
    for (at, len) in [(512, 512), (3 * BLOCK + 512, 9 * BLOCK), (EXTENT - 512, 1024)] {
        let bytes: Vec<u8> = (0..len).map(|at| seed ^ at as u8).collect();
        write(device, at, &bytes).await.unwrap();
        content.put(at, &bytes);
    }
    // The last block is a part of one.
    write(device, SIZE - 512, &[seed; 512]).await.unwrap();
    content.put(SIZE - 512, &[seed; 512]);
    let zeroes = Op::WriteZeroes { unmap: true, fua: false };
    for (op, at, len) in [
        (Op::Discard, 5 * EXTENT + 512, 2 * EXTENT),
        (zeroes, 9 * EXTENT, 1536),
        (Op::Discard, 30 * BLOCK, BLOCK),
    ] {
        zero(device, op, (at, len)).await;
        content.put(at, &vec![0; len as usize]);
    }
    let at = 12 * EXTENT + 512 * u64::from(seed % 8);
    let before = read(device, at, 512).await.unwrap();
    let mut both = before.clone();
    both.extend([seed; 512]);
    let data = Buffer::from_bytes(&both);
    let op = Op::CompareAndWrite { fua: true };
    device.io(&Request { op, offset: at, len: 512, data: data.sgl() }).await.unwrap();
    content.put(at, &[seed; 512]);
}

#[test]
fn what_was_there_is_read_until_it_is_written() {
    in_world(DISK_BYTES, |core, _| async move {
        let (pool, lu) = new_lu(&core).await;
        let (device, mut content) = (lu.device(&core), Content::of_source());
        content.check(&device).await;
        use_it(&device, &mut content, 7).await;
        content.check(&device).await;
        assert_eq!(lu.brought().await.unwrap(), Brought::Part { done: 0, of: SIZE });
        assert!(matches!(lu.resize(BLOCK).await, Err(Unresized::Failed(_))), "it may not shrink");
        lu.bring(4).await.0.unwrap();
        use_it(&device, &mut content, 9).await;
        content.check(&device).await;

        // Closed and opened: only over what it is brought from.
        lu.close().await;
        drop((lu, device));
        let alone = Lu::open(&core, pool.seat(LU).unwrap()).await.err().unwrap();
        assert!(matches!(&alone, LuError::Source(source) if source.name == SOURCE), "{alone}");
        let lu = Lu::open(&core, over(&core, pool.seat(LU).unwrap()).await).await.unwrap();
        let device = lu.device(&core);
        content.check(&device).await;
        bring(&lu).await;
        content.check(&device).await;
        use_it(&device, &mut content, 11).await;
        content.check(&device).await;
        lu.resize(SIZE.next_multiple_of(BLOCK) + EXTENT).await.unwrap();
        let behind = read(&device, SIZE, EXTENT).await.unwrap();
        assert!(behind.iter().all(|byte| *byte == 0));
        lu.close().await;
        assert_eq!(pool.describe_lu(LU).await.unwrap().source, None);
        let lu = Lu::open(&core, pool.seat(LU).unwrap()).await.unwrap();
        content.check(&lu.device(&core)).await;
    });
}

#[test]
fn what_reads_zero_there_takes_no_space() {
    in_world(DISK_BYTES, |core, _| async move {
        let (_pool, lu) = new_lu(&core).await;
        let device = lu.device(&core);
        let states = || async {
            let into = Buffer::zeroed(64 * 16);
            let request = Request { data: into.sgl(), ..Request::plain(Op::Status, 0, SIZE) };
            let count = device.io(&request).await.unwrap();
            let found = extent::load(&into.sgl(), count as usize).unwrap();
            found.into_iter().map(|it| (it.len, it.state)).collect::<Vec<_>>()
        };
        assert_eq!(states().await, [(SIZE, ExtentState::Data)]);
        bring(&lu).await;
        let hole = (EXTENT, ExtentState::Hole);
        let rest = (SIZE - 8 * EXTENT, ExtentState::Data);
        assert_eq!(states().await, [(7 * EXTENT, ExtentState::Data), hole, rest]);
    });
}

#[test]
fn snapshots_and_clones_read_what_was_there() {
    in_world(DISK_BYTES, |core, _| async move {
        let (pool, lu) = new_lu(&core).await;
        let (device, mut content) = (lu.device(&core), Content::of_source());
        lu.bring(2).await.0.unwrap();
        let first = lu.snapshot([4; 16]).await.unwrap();
        let then = Content(content.0.clone());
        use_it(&device, &mut content, 21).await;
        let view = lu.view(first).await.unwrap();
        let clone = NewLu {
            id: [6; 16],
            layer: BASE,
            about: About { base: Some(view.is()), ..about(SIZE.next_multiple_of(BLOCK), 512) },
        };
        let seat = pool.create_lu(clone).await.unwrap().on(view.clone());
        let clone = Lu::open(&core, seat).await.unwrap();
        let (cloned, mut of_clone) = (clone.device(&core), Content(then.0.clone()));
        use_it(&cloned, &mut of_clone, 33).await;
        let second = lu.snapshot([5; 16]).await.unwrap();
        let middle = Content(content.0.clone());
        use_it(&device, &mut content, 45).await;
        for is_whole in [false, true] {
            content.check(&device).await;
            of_clone.check(&cloned).await;
            then.check(&view.device(&core)).await;
            middle.check(&lu.view(second).await.unwrap().device(&core)).await;
            if !is_whole {
                bring(&lu).await;
            }
        }
        // Back to what was there at first, and the snapshots go.
        lu.roll_back(first, [7; 16]).await.unwrap();
        then.check(&device).await;
        drop(view);
        clone.close().await;
        drop((clone, cloned));
        while lu.fold([4; 16], 5).await.unwrap() != Folded::Gone {}
        then.check(&device).await;
    });
}

#[test]
fn the_layer_that_it_is_brought_into_goes_later() {
    in_world(DISK_BYTES, |core, _| async move {
        let (_pool, lu) = new_lu(&core).await;
        let (device, mut content) = (lu.device(&core), Content::of_source());
        let first = lu.snapshot([4; 16]).await.unwrap();
        use_it(&device, &mut content, 3).await;
        let second = lu.snapshot([5; 16]).await.unwrap();
        use_it(&device, &mut content, 5).await;
        lu.bring(3).await.0.unwrap();
        let early = lu.fold(first, 5).await.map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::Busy));
        while lu.fold(second, 2).await.unwrap() != Folded::Gone {}
        content.check(&device).await;
        bring(&lu).await;
        while lu.fold(first, 5).await.unwrap() != Folded::Gone {}
        content.check(&device).await;
    });
}

#[test]
fn what_cannot_be_read_there_fails_alone_until_it_is_written() {
    in_world(DISK_BYTES, |core, disk| async move {
        let (_pool, lu) = new_lu(&core).await;
        let (device, mut content) = (lu.device(&core), Content::of_source());
        let bad = 3 * EXTENT + 2 * BLOCK;
        let harm = Harm::Errno(5);
        disk.fault(Fault { range: bad..bad + BLOCK, ..Fault::always(On::Read, harm) });
        let refused = Flag::new(0);
        for _ in 0..20 {
            match lu.bring(3).await.0 {
                Ok(Brought::Part { .. }) => {}
                Ok(Brought::Done) => panic!("it is not"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Medium, "{error}");
                    refused.set(refused.get() + 1);
                }
            }
        }
        // Everything else is there, also of that extent.
        let done = SIZE.next_multiple_of(EXTENT) - EXTENT;
        assert_eq!(lu.brought().await.unwrap(), Brought::Part { done, of: SIZE });
        assert!(refused.get() > 3);
        assert_eq!(read(&device, bad, 512).await, Err(ErrorKind::Medium));
        assert_eq!(write(&device, bad, &[1; 512]).await, Err(ErrorKind::Medium));
        assert_eq!(read(&device, bad - BLOCK, BLOCK).await, {
            let at = (bad - BLOCK) as usize;
            Ok(content.0[at..at + BLOCK as usize].to_vec())
        });
        write(&device, bad, &[8; BLOCK as usize]).await.unwrap();
        content.put(bad, &[8; BLOCK as usize]);
        while lu.bring(3).await.0.unwrap() != Brought::Done {}
        content.check(&device).await;
        assert_eq!(TAIL * BLOCK + 512, SIZE);
    });
}

#[test]
fn a_pool_that_is_full_lets_it_wait() {
    in_world(16 << 20, |core, _| async move {
        let (_pool, lu) = new_lu_of(&core, 64 << 20).await;
        let (device, content) = (lu.device(&core), Content::of_source());
        let mut end = 30 * EXTENT;
        while write(&device, end, &[7; 4096]).await.is_ok() {
            end += EXTENT;
        }
        let refused = |done: Result<Brought, Error>| done.map_err(|error| error.kind());
        assert_eq!(refused(lu.bring(3).await.0), Err(ErrorKind::NoSpace));
        // What is there is read, and what is written has no room either.
        assert_eq!(read(&device, 0, SIZE).await.unwrap(), content.0);
        assert_eq!(write(&device, 0, &[7; 4096]).await, Err(ErrorKind::NoSpace));
        zero(&device, Op::Discard, (30 * EXTENT, end - 30 * EXTENT)).await;
        device.io(&Request::flush()).await.unwrap();
        while lu.bring(3).await.0.unwrap() != Brought::Done {}
        assert_eq!(read(&device, 0, SIZE).await.unwrap(), content.0);
    });
}
