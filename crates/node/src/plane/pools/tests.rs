//! Pools of real files on real cores: made, opened, closed, cut short and mixed up.

mod forced;
mod members;
mod rates;
mod scrub;
mod sight;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use block::{Buffer, Device, Request};
use cluster::DeviceSpec;
use model::{
    Backing, BlockSize, Cache, GroupName, Limits, LuName, PoolName, PoolPv, PoolSettings, PvGroup,
    PvPlace, PvStanding, Severity, Size,
};
use rt::Spin;
use volume::pool::home::GroupBehind;

use super::super::Plane;
use super::*;
use crate::engine::{Done, Engine, Report};
use crate::records::{Record, Records};

const POOL: Uuid = Uuid::from_u128(0x10);
const LU: Uuid = Uuid::from_u128(0x20);

/// Records in memory.
#[derive(Default)]
struct Paper(Mutex<BTreeMap<Record, Vec<u8>>>);

impl Records for Paper {
    fn read(&self, of: Record) -> Result<Option<Vec<u8>>, ApiError> {
        Ok(self.0.lock().unwrap().get(&of).cloned())
    }

    fn write(&self, of: Record, value: Vec<u8>) -> Result<(), ApiError> {
        self.0.lock().unwrap().insert(of, value);
        Ok(())
    }
}

/// A node's directory, what is in its `kv`, and disks beside it.
struct Bench {
    directory: tempfile::TempDir,
    paper: Arc<Paper>,
    told: Arc<Mutex<Vec<(Severity, String)>>>,
    plane: Plane,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let disk = std::fs::File::create(directory.path().join(name)).unwrap();
            disk.set_len(100 << 20).unwrap();
        }
        let (paper, told) = (Arc::default(), Arc::default());
        let plane = start(directory.path(), &paper, &told);
        Self { directory, paper, told, plane }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The node ends in good order, and another comes.
    fn restart(&mut self) {
        self.ask(|plane, done| plane.stop(done)).unwrap();
        self.plane = start(self.directory.path(), &self.paper, &self.told);
    }

    fn ask<T: Send + 'static>(&self, begin: impl FnOnce(&Plane, Done<T>)) -> Result<T, ApiError> {
        let (sender, answers) = mpsc::channel();
        begin(&self.plane, Done::new(move |answer| sender.send(answer).unwrap()));
        answers.recv().unwrap()
    }

    fn pool(&self) -> Pool {
        let pv = |number: u128, name: &str| PoolPv {
            uuid: Uuid::from_u128(number),
            place: PvPlace::Path { path: self.path(name).to_str().unwrap().to_owned() },
            group: PvGroup::default(),
            standing: PvStanding::Member,
        };
        Pool { pvs: vec![pv(1, "a"), pv(2, "b")], ..own_pool(POOL, "fast") }
    }

    /// The pool with a failure group on each disk.
    fn in_groups(&self) -> Pool {
        let mut pool = self.pool();
        for (number, pv) in (0..).zip(&mut pool.pvs) {
            let name: GroupName = ["left", "right"][usize::from(number)].parse().unwrap();
            pv.group = PvGroup { number, name: Some(name) };
        }
        pool
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn make(&self, pool: &Pool, is_new: bool) -> Result<Made, ApiError> {
        self.ask(|plane, done| plane.make_pool(pool, is_new, done))
    }

    fn open(&self, pool: &Pool) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.open_pool(pool, done)).map(drop)
    }

    fn close(&self, pool: &Pool) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.close_pool(pool.uuid, done))
    }

    fn remove(&self, pool: &Pool) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.remove_pool(pool, done))
    }

    fn create(&self, lu: &DeviceSpec) -> Result<Made, ApiError> {
        self.ask(|plane, done| plane.create_backing(lu, done))
    }

    fn open_lu(&self, lu: &DeviceSpec) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.open_device(lu, done)).map(drop)
    }

    fn close_lu(&self, lu: &DeviceSpec) -> Result<(), ApiError> {
        self.ask(|plane, done| plane.close_device(lu.uuid, done))
    }

    /// One block of the LU, read or written on each core.
    fn block(&self, at: u64, write: Option<u8>) -> Result<u8, String> {
        let lu = self.plane.lu(LU).unwrap();
        let mut seen = Vec::new();
        for core in &self.plane.0.cores {
            let store = lu.store.clone();
            let done = core.call(move |core| async move {
                let device = store.device(&core);
                let buffer = Buffer::zeroed(4096);
                buffer.write(0, &[write.unwrap_or(0); 4096]);
                let request = match write {
                    Some(_) => Request::write(at, buffer.sgl()),
                    None => Request::read(at, buffer.sgl()),
                };
                let done = (&*device as &dyn Device).io(&request).await;
                done.map(|_| buffer.to_vec()[0]).map_err(|error| error.to_string())
            });
            seen.push(done.wait().unwrap()?);
        }
        assert!(seen.iter().all(|byte| *byte == seen[0]), "cores differ: {seen:?}");
        Ok(seen[0])
    }

    fn behind(&self) -> Vec<GroupBehind> {
        self.ask(|plane, done| plane.snapshot(done)).unwrap().pools[&POOL].behind.clone()
    }

    fn told(&self) -> Vec<(Severity, String)> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn status(&self) -> (u64, u64) {
        let status = self.ask(|plane, done| plane.snapshot(done)).unwrap().pools[&POOL].clone();
        let sum =
            |of: fn(&PvUse) -> Size| status.disks.values().map(|disk| of(disk).bytes() >> 20).sum();
        (sum(|disk| disk.size), sum(|disk| disk.free))
    }
}

fn start(
    directory: &Path,
    paper: &Arc<Paper>,
    told: &Arc<Mutex<Vec<(Severity, String)>>>,
) -> Plane {
    let told = told.clone();
    let report = Arc::new(move |report: Report| {
        told.lock().unwrap().push((report.severity, report.message));
    });
    let place = directory.to_owned();
    let context = Context {
        node: Uuid::nil(),
        lus: place.clone(),
        pools: place.clone(),
        media: place,
        cores: Vec::new(),
        map_memory: Size::mib(1),
        iscsi: Vec::new(),
        report,
        records: paper.clone(),
        boot: String::new(),
    };
    Plane::start(context, Spin::default()).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

fn own_pool(uuid: Uuid, name: &str) -> Pool {
    let place = PvPlace::File { size: Size::mib(64) };
    Pool {
        name: name.parse().unwrap(),
        uuid,
        slab_size: Size::mib(4),
        extent_size: Size(64 << 10),
        checksums: false,
        settings: PoolSettings::default(),
        pvs: vec![PoolPv {
            uuid: Uuid::from_u128(uuid.as_u128() + 1),
            place,
            group: PvGroup::default(),
            standing: PvStanding::Member,
        }],
        becomes: None,
    }
}

fn lu(mib: u64) -> DeviceSpec {
    let (name, pool): (LuName, PoolName) = ("web1".parse().unwrap(), "fast".parse().unwrap());
    DeviceSpec {
        uuid: LU,
        name,
        serial: "serial".to_owned(),
        size: Size::mib(mib),
        block_size: BlockSize::default(),
        cache: Cache::default(),
        limits: Limits::default(),
        read_only: false,
        removable: false,
        shareable: false,
        backing: Backing::Pool { pool },
        pool: Some(POOL),
        snapshots: BTreeMap::new(),
        thick: false,
        outdated: false,
        origin: None,
        migration: None,
    }
}

#[test]
fn a_pool_and_its_lus_come_and_go() {
    let mut bench = Bench::new();
    let (pool, disk) = (bench.pool(), lu(1024));
    assert_eq!(bench.make(&pool, true), Ok(Made::New));
    assert_eq!(bench.make(&pool, true), Ok(Made::WasThere), "a step may come again");
    bench.open(&pool).unwrap();
    bench.open(&pool).unwrap();
    assert_eq!(bench.status(), (192, 192));
    assert_eq!(bench.create(&disk), Ok(Made::New));
    assert_eq!(bench.create(&disk), Ok(Made::WasThere));
    bench.open_lu(&disk).unwrap();
    assert_eq!(bench.block(5 << 20, None), Ok(0));
    bench.block(5 << 20, Some(7)).unwrap();
    assert!(bench.close(&pool).unwrap_err().message.contains("in use by LU 'web1'"));
    let snapshot = bench.ask(|plane, done| plane.snapshot(done)).unwrap();
    let allocated = snapshot.devices[&LU].allocated.unwrap();
    assert!((Size(64 << 10)..Size::mib(1)).contains(&allocated), "{allocated}");

    // Online, and by the next node when this one did not come to it.
    bench.ask(|plane, done| plane.resize(LU, Size::mib(1100), done)).unwrap();
    bench.block(1099 << 20, Some(9)).unwrap();
    bench.restart();
    bench.open(&pool).unwrap();
    bench.open_lu(&lu(1200)).unwrap();
    assert_eq!(bench.block(5 << 20, None), Ok(7));
    assert_eq!(bench.block(1099 << 20, None), Ok(9));
    assert_eq!(bench.block(1199 << 20, None), Ok(0));
    bench.close_lu(&lu(1200)).unwrap();
    bench.open_lu(&lu(1110)).unwrap();
    let error = bench.ask(|plane, done| plane.resize(LU, Size::mib(1000), done)).unwrap_err();
    assert!(error.message.contains("to 1000MiB: it is written up to 1100MiB"), "{error}");
    assert!(error.next.unwrap().contains("viaduct lu resize web1 --size 1100MiB"));
    bench.ask(|plane, done| plane.resize(LU, Size::mib(1100), done)).unwrap();
    assert!(bench.block(1100 << 20, None).is_err());
    bench.close_lu(&lu(1100)).unwrap();
    let error = bench.open_lu(&lu(1099)).unwrap_err();
    assert!(error.message.contains("to 1099MiB: it is written up to 1100MiB"), "{error}");
    assert!(!error.next.unwrap().contains("--size"));

    bench.ask(|plane, done| plane.remove_backing(LU, Some(POOL), done)).unwrap();
    bench.ask(|plane, done| plane.remove_backing(LU, Some(POOL), done)).unwrap();
    assert_eq!(bench.status(), (192, 192));
    bench.close(&pool).unwrap();
    bench.remove(&pool).unwrap();
    bench.remove(&pool).unwrap();
    let error = bench.open(&pool).unwrap_err();
    assert!(error.message.contains("has no label"), "{error}");
}

#[test]
fn a_file_of_the_node_is_made_and_deleted_with_its_pool() {
    let bench = Bench::new();
    let pool = own_pool(Uuid::from_u128(0x30), "own");
    let file = bench.path(&format!("{}.img", pool.pvs[0].uuid));
    assert!(bench.make(&pool, false).is_err(), "a pool that a document names is not made");
    assert!(!file.exists());
    assert_eq!(bench.make(&pool, true), Ok(Made::New));
    assert!(file.exists());
    bench.remove(&pool).unwrap();
    assert!(!file.exists());
}

#[test]
fn what_was_cut_short_is_done_again() {
    let mut bench = Bench::new();
    let (pool, disk) = (bench.pool(), lu(64));
    bench.make(&pool, true).unwrap();
    // The label at one disk's front was written, and nothing of the other disk.
    std::fs::write(bench.path("b"), vec![0; 100 << 20]).unwrap();
    assert_eq!(bench.make(&pool, true), Ok(Made::New));
    bench.open(&pool).unwrap();
    // An LU that has slabs and no root, as it is before that is written.
    for is_first in [false, true] {
        let open = bench.plane.0.pools.pool(POOL).unwrap();
        let granted = open.home.call(move |home| async move {
            home.grant(LU.into_bytes(), 2, is_first).await.map_err(|error| error.to_string())
        });
        assert_eq!(granted.wait().unwrap().unwrap().len(), 2);
        assert_eq!(bench.create(&disk), Ok(Made::New));
        bench.open_lu(&disk).unwrap();
        bench.block(0, Some(1)).unwrap();
        bench.close_lu(&disk).unwrap();
        bench.ask(|plane, done| plane.remove_backing(LU, Some(POOL), done)).unwrap();
        assert_eq!(bench.status(), (192, 192));
    }
    bench.restart();
    bench.open(&pool).unwrap();
}

#[test]
fn disks_and_records_that_do_not_fit_are_refused() {
    let mut bench = Bench::new();
    let pool = bench.pool();
    bench.make(&pool, true).unwrap();
    let old = ["a", "b"].map(|name| std::fs::read(bench.path(name)).unwrap());
    let known_at_first = bench.paper.read(Record::Pool(POOL)).unwrap().unwrap();
    for _ in 0..3 {
        bench.open(&pool).unwrap();
        bench.restart();
    }
    let known = bench.paper.read(Record::Pool(POOL)).unwrap().unwrap();
    let new = ["a", "b"].map(|name| std::fs::read(bench.path(name)).unwrap());
    let refused = |bench: &Bench, what: &str| {
        let before = ["a", "b"].map(|name| std::fs::read(bench.path(name)).unwrap());
        let error = bench.open(&pool).unwrap_err();
        assert!(error.message.contains(what) && error.next.is_some(), "{error}");
        assert_eq!(before, ["a", "b"].map(|name| std::fs::read(bench.path(name)).unwrap()));
    };
    let write = |bench: &Bench, disks: &[Vec<u8>; 2]| {
        std::fs::write(bench.path("a"), &disks[0]).unwrap();
        std::fs::write(bench.path("b"), &disks[1]).unwrap();
    };

    // The data directory was put back.
    bench.paper.write(Record::Pool(POOL), known_at_first).unwrap();
    refused(&bench, "is newer than what this node knows: it tells of 4 openings, and 1 are");
    bench.paper.write(Record::Pool(POOL), known.clone()).unwrap();
    bench.open(&pool).unwrap();
    bench.restart();
    let newer = ["a", "b"].map(|name| std::fs::read(bench.path(name)).unwrap());
    // The disks were put back, or one of them.
    write(&bench, &old);
    refused(&bench, "is older than what this node knows: it tells of 1 openings, and 5 are");
    write(&bench, &[newer[0].clone(), old[1].clone()]);
    refused(&bench, "b of pool 'fast' is older");
    write(&bench, &[newer[0].clone(), new[1].clone()]);
    refused(&bench, "b of pool 'fast' is older");
    // The number was kept, twice, and each time only one of the disks could be written.
    let cut_short = br#"{"version":1,"epoch":6,"opened":4}"#;
    bench.paper.write(Record::Pool(POOL), cut_short.to_vec()).unwrap();
    bench.open(&pool).unwrap();
    bench.restart();
    bench.open(&pool).unwrap();
}

#[test]
fn missing_foreign_copied_and_short_disks_are_named() {
    let mut bench = Bench::new();
    let pool = bench.pool();
    bench.make(&pool, true).unwrap();
    let disks = ["a", "b"].map(|name| std::fs::read(bench.path(name)).unwrap());
    let says = |bench: &Bench, what: &str| {
        let error = bench.open(&pool).unwrap_err();
        assert!(error.message.contains(what) && error.next.is_some(), "{what} in {error}");
    };
    std::fs::remove_file(bench.path("b")).unwrap();
    says(&bench, "/b: No such file");
    std::fs::write(bench.path("b"), &disks[0]).unwrap();
    says(&bench, "are the same disk of the pool; one of them is a copy");
    std::fs::write(bench.path("b"), vec![0; 100 << 20]).unwrap();
    says(&bench, "/b has no label");
    std::fs::write(bench.path("b"), &disks[1][..80 << 20]).unwrap();
    says(&bench, "/b had 104857600 bytes when it was last used");

    // Another pool on the same disks: neither takes the other's.
    std::fs::write(bench.path("b"), &disks[1]).unwrap();
    let other = Pool { uuid: Uuid::from_u128(0x40), name: "slow".parse().unwrap(), ..bench.pool() };
    let error = bench.open(&other).unwrap_err();
    assert!(error.message.contains("those of pool 'fast'"), "{error}");
    assert!(bench.make(&other, false).unwrap_err().message.contains("those of pool 'fast'"));
    bench.remove(&other).unwrap();
    bench.open(&pool).unwrap();
    bench.restart();

    // Who removes a pool without one of its disks leaves that alone.
    std::fs::remove_file(bench.path("b")).unwrap();
    bench.remove(&pool).unwrap();
    assert!(!bench.path("b").exists());
    let front = &std::fs::read(bench.path("a")).unwrap()[..4096];
    assert_eq!(front, [0; 4096]);
}

#[test]
fn a_full_pool_is_told_and_has_room_again() {
    let bench = Bench::new();
    let (pool, disk) = (bench.pool(), lu(1024));
    bench.make(&pool, true).unwrap();
    bench.open(&pool).unwrap();
    bench.create(&disk).unwrap();
    bench.open_lu(&disk).unwrap();
    let mut at = 0;
    let error = loop {
        match bench.block(at, Some(1)) {
            Ok(_) => at += 64 << 10,
            Err(error) => break error,
        }
    };
    assert!(error.contains("no free slab"), "{error}");
    assert!(at > 150 << 20, "{at}");
    assert_eq!(bench.status().1, 0);
    let told = bench.told().into_iter().map(|(severity, message)| {
        (severity, message.split([',', ':']).next().unwrap_or_default().to_owned())
    });
    let used = |percent| format!("pool 'fast' is used to {percent} % or more");
    let wanted = [
        (Severity::Warning, used(85)),
        (Severity::Error, used(95)),
        (Severity::Error, "pool 'fast' is full".to_owned()),
    ];
    assert_eq!(told.collect::<Vec<_>>(), wanted);
    // What is there is there, and is written again.
    assert_eq!(bench.block(0, None), Ok(1));
    bench.block(0, Some(2)).unwrap();
    bench.close_lu(&disk).unwrap();
    bench.ask(|plane, done| plane.remove_backing(LU, Some(POOL), done)).unwrap();
    assert_eq!(bench.told(), [(Severity::Info, "pool 'fast' has 192MiB free again".to_owned())]);
}

#[test]
fn other_settings_are_heeded_at_once() {
    let bench = Bench::new();
    let (pool, thick) = (bench.pool(), DeviceSpec { thick: true, ..lu(100) });
    bench.make(&pool, true).unwrap();
    bench.open(&pool).unwrap();
    bench.create(&thick).unwrap();
    let set = |warn_percent| {
        let settings = PoolSettings { warn_percent, ..pool.settings };
        bench.ask(|plane, done| plane.set_pool(POOL, settings, done)).unwrap();
        bench.told().into_iter().map(|(_, message)| message).collect::<String>()
    };
    assert_eq!(set(90), "");
    assert!(set(40).starts_with("pool 'fast' is used to 40 % or more"));
    assert_eq!(set(30), "");
    assert!(set(0).ends_with("free again"));
}

#[test]
fn a_thick_lu_that_does_not_fit_is_refused_in_words() {
    let bench = Bench::new();
    bench.make(&bench.pool(), true).unwrap();
    bench.open(&bench.pool()).unwrap();
    let thick = |mib| DeviceSpec { thick: true, ..lu(mib) };
    let error = bench.create(&thick(1024)).unwrap_err();
    assert!(error.message.contains("and the pool has 192MiB"), "{error}");
    assert_eq!(bench.status(), (192, 192), "nothing is left of it");
    assert_eq!(bench.create(&thick(100)), Ok(Made::New));
    assert_eq!(bench.status(), (192, 88));
    bench.open_lu(&thick(100)).unwrap();
    bench.block(0, Some(1)).unwrap();
    let error = bench.ask(|plane, done| plane.resize(LU, Size::mib(300), done)).unwrap_err();
    assert!(error.message.contains("are missing"), "{error}");
    let taken = bench.ask(|plane, done| plane.take_snapshots(&[LU], done));
    assert_eq!(taken.map(|layers| layers.len()), Ok(1));
}
