//! Pools that are taken over: what is refused, what they become, and what a document adds to them.

use model::pool::{GroupRemains, RemainsState};
use model::{Leftover, PoolForce, PoolImport, PoolPv, PoolRemains, PvGroup, PvPlace, SnapshotRef};
use volume::pool::home::{CopyHere, GroupAbout};

use super::super::pool_force::remains;
use super::super::pool_import::{Takeover, choose, import, opened};
use super::pools::{fast, found, pool_of};
use super::*;
use crate::engine::{SeenAbout, SeenDisk, SeenLayer, SeenLu, SeenNow, SeenPool};
use crate::records::{ForceWish, Record};

const POOL: Uuid = Uuid::from_u128(0xf0);
const WEB: Uuid = Uuid::from_u128(0xa1 << 96);
const COPY: Uuid = Uuid::from_u128(0xa2 << 96);
const HALF: Uuid = Uuid::from_u128(0xa3 << 96);
const MONDAY: Uuid = Uuid::from_u128(0xb1);
const UNNAMED: Uuid = Uuid::from_u128(0xb2 << 96);

fn disk(path: &str, number: u128, group: u16) -> SeenDisk {
    SeenDisk { path: path.to_owned(), uuid: Uuid::from_u128(number), group, size: Size::gib(1) }
}

fn layer(uuid: Uuid, name: &str) -> SeenLayer {
    SeenLayer { uuid, name: name.to_owned(), size: Size::mib(64) }
}

fn lu_seen(uuid: Uuid, name: &str, base: Option<(Uuid, Uuid)>, layers: Vec<SeenLayer>) -> SeenLu {
    let (name, size) = (name.to_owned(), Size::mib(64));
    let about = SeenAbout { name, size, block_size: 4096, thick: true, base, layers };
    SeenLu { uuid, outdated: false, about: Ok(about) }
}

/// Pool fast on sdb and sdc with LU web, its snapshot, and a clone of that.
fn seen() -> SeenPool {
    let layers = vec![layer(MONDAY, "monday"), layer(UNNAMED, "")];
    SeenPool {
        uuid: POOL,
        name: "fast".to_owned(),
        slab_size: Size::mib(4),
        extent_size: Size(64 << 10),
        checksums: true,
        disks: vec![disk("/dev/sdb", 0xf1, 0), disk("/dev/sdc", 0xf2, 0)],
        wanted: 2,
        missing: Vec::new(),
        lus: vec![
            lu_seen(WEB, "web", None, layers),
            lu_seen(COPY, "copy", Some((WEB, MONDAY)), Vec::new()),
        ],
        unfinished: vec![HALF],
        record: b"known".to_vec(),
        groups: Vec::new(),
        problem: None,
    }
}

/// A pool on these disks with one LU.
pub(super) fn seen_alone(uuid: Uuid, pvs: &[PoolPv], name: &str) -> SeenPool {
    let own = |pv: &PoolPv| disk(&pv.to_string(), pv.uuid.as_u128(), pv.group.number);
    SeenPool {
        uuid,
        name: "new".to_owned(),
        disks: pvs.iter().map(own).collect(),
        lus: vec![lu_seen(WEB, name, None, Vec::new())],
        unfinished: Vec::new(),
        ..seen()
    }
}

fn asking(pool: &str) -> PoolImport {
    serde_json::from_value(serde_json::json!({ "pool": pool })).unwrap()
}

fn taking(
    config: &Config,
    request: PoolImport,
    seen: SeenPool,
) -> Result<(Config, Vec<Mark>), ApiError> {
    let found = seen.disks.iter().map(|disk| found(&disk.path)).collect();
    let (own, now) = ("/var/pools".into(), jiff::Timestamp::UNIX_EPOCH);
    let mut numbers = 0x700..;
    let uuid = || Uuid::from_u128(numbers.next().unwrap());
    import(config, &Takeover { request, seen, found, own, now }, uuid)
}

fn taken() -> (Config, Vec<Mark>) {
    taking(&furnished(), asking("fast"), seen()).unwrap()
}

#[test]
fn a_pool_comes_with_its_disks_lus_snapshots_and_clones() {
    let (config, marks) = taken();
    validate::config(&config).unwrap();
    let pool = pool_of(&config);
    assert_eq!((pool.uuid, pool.slab_size, pool.extent_size), (POOL, Size::mib(4), Size(64 << 10)));
    assert!(pool.checksums);
    assert_eq!(pool.paths().collect::<Vec<_>>(), ["/dev/sdb", "/dev/sdc"]);
    assert!(pool.pvs.iter().all(|pv| pv.group == PvGroup::default()));
    let web = config.lu(&lu("web")).unwrap();
    assert_eq!(
        (web.uuid, web.size, web.thick, web.block_size.bytes()),
        (WEB, Size::mib(64), true, 4096)
    );
    assert_eq!(web.backing, Backing::Pool { pool: fast() });
    // What has no name is what the LU was before it went back.
    assert_eq!(web.snapshots.iter().map(|it| it.uuid).collect::<Vec<_>>(), [MONDAY]);
    let origin: SnapshotRef = "web@monday".parse().unwrap();
    assert_eq!(config.lu(&lu("copy")).unwrap().origin, Some(origin));
    let expected = [
        Mark::Record(Record::Pool(POOL), Some(b"known".to_vec())),
        Mark::Record(Record::Copies(POOL), None),
        Mark::Record(Record::Force(POOL), None),
        Mark::Made(POOL),
        Mark::Record(Record::Lu(WEB), None),
        Mark::Made(WEB),
        Mark::Record(Record::Lu(COPY), None),
        Mark::Made(COPY),
        Mark::Leftover(HALF, Leftover::Lu { pool: POOL }),
    ];
    assert_eq!(marks, expected);
}

#[test]
fn all_of_it_is_kept_in_one_change() {
    let (disk, kv) = store();
    let mut state = load(&kv);
    state.commit(furnished(), &[]).unwrap();
    let before = kv.get(HEAD).unwrap().unwrap().mod_revision;
    let stale = crate::records::key(Record::Copies(POOL));
    kv.transact(&Transaction::new().put(&stale, "old")).unwrap();
    let (config, marks) = taken();
    state.commit(config, &marks).unwrap();
    let kv = reopen(&disk);
    let again = load(&kv);
    assert_eq!(again.config(), state.config());
    assert_eq!(again.made(), &[POOL, WEB, COPY].into());
    assert_eq!(again.leftovers(), &[(HALF, Leftover::Lu { pool: POOL })].into());
    let kept = kv.get(&crate::records::key(Record::Pool(POOL))).unwrap().unwrap();
    assert_eq!(kept.value, b"known");
    assert!(kv.get(&stale).unwrap().is_none());
    // One for the stale record, one for all the rest.
    assert_eq!(kv.get(HEAD).unwrap().unwrap().mod_revision, before + 2);
}

#[test]
fn a_layer_that_a_clone_stands_on_has_a_name_and_of_two_the_newer_keeps_it() {
    let (config, older) = (furnished(), Uuid::from_u128(0xb3));
    let mut pool = seen();
    let layers = vec![layer(older, "monday"), layer(MONDAY, "monday"), layer(UNNAMED, "")];
    let based = |uuid, name, on| lu_seen(uuid, name, Some((WEB, on)), Vec::new());
    pool.lus = vec![lu_seen(WEB, "web", None, layers), based(COPY, "copy", UNNAMED)];
    let (config, _) = taking(&config, asking("fast"), pool).unwrap();
    validate::config(&config).unwrap();
    let web = config.lu(&lu("web")).unwrap();
    let names: Vec<_> = web.snapshots.iter().map(|it| (it.name.as_str(), it.uuid)).collect();
    let expected = [("layer-00000000", older), ("monday", MONDAY), ("layer-000000b2", UNNAMED)];
    assert_eq!(names, expected);
    let origin: SnapshotRef = "web@layer-000000b2".parse().unwrap();
    assert_eq!(config.lu(&lu("copy")).unwrap().origin, Some(origin));
}

#[test]
fn names_that_are_taken_are_named_and_others_can_be_chosen() {
    let (config, _) = taken();
    let mut other = seen();
    other.uuid = Uuid::from_u128(0xe0);
    other.disks = vec![disk("/dev/sdd", 0xe1, 0)];
    other.lus[0].uuid = Uuid::from_u128(0xc1 << 96);
    other.lus.truncate(1);
    refused(
        taking(&config, asking("fast"), other.clone()),
        expect![[r#"
            Conflict: there is another pool 'fast' on this node
              next: viaduct pool import 00000000-0000-0000-0000-0000000000e0 --as NAME"#]],
    );
    let mut request = PoolImport { name: Some("slow".parse().unwrap()), ..asking("fast") };
    refused(
        taking(&config, request.clone(), other.clone()),
        expect![[r#"
            Conflict: names of LUs of pool 'fast' are taken here: web
              next: viaduct pool import 00000000-0000-0000-0000-0000000000e0 --prefix fast-"#]],
    );
    request.prefix = Some("old-".to_owned());
    let (next, _) = taking(&config, request, other.clone()).unwrap();
    validate::config(&next).unwrap();
    assert_eq!(next.lu(&lu("old-web")).unwrap().backing.pool().unwrap().as_str(), "slow");
    refused(
        taking(&config, asking("fast"), seen()),
        expect![[r#"
            Conflict: pool 'fast' is pool 'fast' of this node already
              next: viaduct pool show fast"#]],
    );
    let twice = vec![seen(), SeenPool { uuid: Uuid::from_u128(0xe0), ..seen() }];
    let error = choose(twice.clone(), "fast").unwrap_err();
    assert!(error.message.contains("2 pools 'fast'"), "{error}");
    assert_eq!(choose(twice, &POOL.to_string()).unwrap().uuid, POOL);
    let error = choose(vec![seen()], "none").unwrap_err();
    assert!(error.message.contains("no pool 'none'"), "{error}");
}

#[test]
fn what_cannot_be_opened_is_left_out_only_when_that_is_asked_for() {
    let mut pool = seen();
    pool.lus[0].about = Err("its root cannot be read".to_owned());
    refused(
        taking(&furnished(), asking("fast"), pool.clone()),
        expect![[r#"
            Conflict: pool 'fast' has an LU that cannot be opened, 000000a1-0000-0000-0000-000000000000: its root cannot be read
              next: viaduct pool check with all of its disks says more; --without 000000a1-0000-0000-0000-000000000000 leaves it where it is"#]],
    );
    let without = |lus: &[&str]| PoolImport {
        without: lus.iter().map(|lu| (*lu).to_owned()).collect(),
        ..asking("fast")
    };
    let web = WEB.to_string();
    refused(
        taking(&furnished(), without(&[&web]), pool.clone()),
        expect![[r#"
            Conflict: LU 'copy' of pool 'fast' is a clone of LU 000000a1-0000-0000-0000-000000000000, which is left out
              next: leave it out too: --without 000000a2-0000-0000-0000-000000000000"#]],
    );
    let (config, marks) = taking(&furnished(), without(&[&web, "copy"]), pool.clone()).unwrap();
    assert_eq!(config.lus_in(&fast()).count(), 0);
    assert!(!marks.contains(&Mark::Made(WEB)), "{marks:?}");
    refused(
        taking(&furnished(), without(&["none"]), pool),
        expect![[r#"
            NotFound: pool 'fast' has no LU none to be left out
              next: viaduct pool import -o json lists its LUs"#]],
    );
    let mut held = seen();
    held.problem = Some(ApiError::conflict("a disk is a copy"));
    refused(taking(&furnished(), asking("fast"), held), expect!["Conflict: a disk is a copy"]);
}

/// Of the pool only its second disk is here, which lacks something: of web it has an outdated copy.
fn left() -> SeenPool {
    let mut pool = half();
    pool.disks = vec![disk("/dev/sdc", 0xf2, 1)];
    pool.missing = vec![Some(0)];
    pool.lus[0].outdated = true;
    let lus = [(WEB, CopyHere::Stale), (COPY, CopyHere::Whole)];
    let lus = lus.into_iter().map(|(lu, copy)| (lu.into_bytes(), copy)).collect();
    pool.groups = vec![GroupAbout { group: 1, lus }];
    pool.problem = Some(ApiError::conflict("it lacks something"));
    pool
}

fn forcing(group: Option<&str>) -> PoolImport {
    let group = group.map(str::to_owned);
    PoolImport { force: Some(PoolForce { group }), ..asking("fast") }
}

#[test]
fn a_pool_that_lacks_something_is_taken_with_the_wish_to_force_it() {
    refused(taking(&furnished(), asking("fast"), left()), expect!["Conflict: it lacks something"]);
    refused(
        taking(&furnished(), forcing(None), seen()),
        expect![[r#"
            Conflict: pool 'fast' lacks nothing that other disks have
              next: import it without --force"#]],
    );
    let broken = SeenPool { groups: Vec::new(), ..left() };
    refused(taking(&furnished(), forcing(None), broken), expect!["Conflict: it lacks something"]);
    refused(
        taking(&furnished(), forcing(Some("left")), left()),
        expect![[r#"
            NotFound: pool 'fast' has no failure group left
              next: here with all its disks is group1"#]],
    );
    refused(
        taking(&furnished(), forcing(Some("group0")), left()),
        expect![[r#"
            NotFound: not all disks of group group0 of pool 'fast' are here
              next: here with all its disks is group1"#]],
    );
    for group in [None, Some("group1"), Some("1")] {
        let (config, marks) = taking(&furnished(), forcing(group), left()).unwrap();
        validate::config(&config).unwrap();
        let wish = ForceWish::new(1).encode().unwrap();
        // With the first part of a change that is too large for one transaction.
        assert_eq!(marks[2], Mark::Record(Record::Force(POOL), Some(wish)));
        let is_outdated = |name: &str| config.lu(&lu(name)).unwrap().outdated;
        assert!(is_outdated("web") && !is_outdated("copy"));
    }
}

#[test]
fn what_is_here_of_a_pool_is_told_with_that_first_which_it_would_be_forced_with() {
    let mut pool = left();
    pool.disks.push(disk("/dev/sdd", 0xf3, 2));
    let lus = [(WEB.into_bytes(), CopyHere::Lacks(3)), (HALF.into_bytes(), CopyHere::Whole)];
    pool.groups.push(GroupAbout { group: 2, lus: lus.into() });
    let told = |request: &PoolImport| {
        let PoolRemains { missing, groups, .. } = remains(request, &pool).unwrap();
        assert_eq!(missing, ["a disk of group group0"]);
        let has = |group: &GroupRemains| {
            let lus = group.lus.iter().map(|it| (it.lu.clone(), it.state, it.lacking));
            (group.group.clone(), lus.collect::<Vec<_>>())
        };
        groups.iter().map(has).collect::<Vec<_>>()
    };
    let half = HALF.to_string();
    let has = |states: [(RemainsState, Option<Size>); 3]| {
        let names = [half.clone(), "copy".to_owned(), "web".to_owned()];
        names.into_iter().zip(states).map(|(lu, (is, size))| (lu, is, size)).collect::<Vec<_>>()
    };
    use RemainsState::{Lacking, Stale, Unknown, Whole};
    let one = ("group1".to_owned(), has([(Unknown, None), (Whole, None), (Stale, None)]));
    let lacks = (Lacking, Some(Size::mib(12)));
    let two = ("group2".to_owned(), has([(Whole, None), (Unknown, None), lacks]));
    assert_eq!(told(&forcing(None)), [one.clone(), two.clone()]);
    assert_eq!(told(&forcing(Some("group2"))), [two, one]);
}

#[test]
fn an_lu_of_which_too_little_is_here_is_left_where_it_is_by_force_only() {
    let mut pool = left();
    pool.lus[1].outdated = true;
    pool.lus[1].about = Err("its root is not here".to_owned());
    let (config, marks) = taking(&furnished(), forcing(None), pool.clone()).unwrap();
    assert_eq!(config.lus_in(&fast()).map(|lu| lu.uuid).collect::<Vec<_>>(), [WEB]);
    assert!(!marks.contains(&Mark::Made(COPY)), "{marks:?}");
    // A part of one that is all there is damage, as ever.
    pool.lus[1].outdated = false;
    let error = taking(&furnished(), forcing(None), pool.clone()).unwrap_err();
    assert!(error.message.contains("has an LU that cannot be opened"), "{error}");
    let unforced = SeenPool { groups: Vec::new(), problem: None, ..pool };
    let mut unforced = SeenPool { missing: Vec::new(), ..unforced };
    unforced.lus[1].outdated = true;
    let error = taking(&furnished(), asking("fast"), unforced).unwrap_err();
    assert!(error.message.contains("has an LU that cannot be opened"), "{error}");
    let mut pool = left();
    if let Ok(about) = &mut pool.lus[0].about {
        about.layers.clear();
    }
    refused(
        taking(&furnished(), forcing(None), pool),
        expect![[r#"
            Conflict: LU 'copy' of pool 'fast' is a clone of LU 000000a1-0000-0000-0000-000000000000, of which what is here does not have that snapshot
              next: leave it out too: --without 000000a2-0000-0000-0000-000000000000"#]],
    );
}

#[test]
fn what_an_lu_is_is_known_when_it_is_open() {
    let (config, _) = taking(&furnished(), forcing(None), left()).unwrap();
    let device = cluster::DeviceSpec::of(&config, config.lu(&lu("web")).unwrap());
    assert!(device.outdated);
    let step = cluster::Step::OpenDevice { device };
    // What has no name is a snapshot only where a clone stands on it.
    let named = Uuid::from_u128(0xb7);
    let layers = vec![layer(MONDAY, ""), layer(named, "tuesday"), layer(UNNAMED, "")];
    let later = jiff::Timestamp::from_second(9).unwrap();
    let now = SeenNow { size: Size::gib(3), layers };
    let (next, marks, (kind, _)) = opened(&config, &step, (now, later)).unwrap();
    validate::config(&next).unwrap();
    let web = next.lu(&lu("web")).unwrap();
    assert_eq!((web.size, web.outdated, marks.len(), kind), (Size::gib(3), false, 0, "lu-found"));
    let snapshots: Vec<_> =
        web.snapshots.iter().map(|it| (it.name.as_str(), it.uuid, it.taken)).collect();
    let known = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(snapshots, [("monday", MONDAY, known), ("tuesday", named, later)]);
    let other = cluster::Step::ClosePool { uuid: POOL, name: fast() };
    assert!(
        opened(&config, &other, (SeenNow { size: Size::gib(3), layers: vec![] }, later)).is_none()
    );
}

#[test]
fn an_empty_pool_of_the_node_itself_gives_way() {
    let mut here = Config::default();
    let mut pool = seen();
    pool.name = "default".to_owned();
    here.pools.push(pool_of(&taken().0));
    here.pools[0].name = "default".parse().unwrap();
    here.pools[0].uuid = Uuid::from_u128(0x33);
    let of_disks = taking(&here, asking("default"), pool.clone()).unwrap_err();
    assert!(of_disks.message.contains("another pool 'default'"), "{of_disks}");
    here.pools[0].pvs.truncate(1);
    here.pools[0].pvs[0].uuid = Uuid::from_u128(0x34);
    here.pools[0].pvs[0].place = PvPlace::File { size: Size::gib(1) };
    let gone = here.pools[0].clone();
    let (next, marks) = taking(&here, asking("default"), pool).unwrap();
    assert_eq!(next.pools.iter().map(|pool| pool.uuid).collect::<Vec<_>>(), [POOL]);
    assert!(marks.contains(&Mark::Leftover(gone.uuid, Leftover::Pool { pool: gone.clone() })));
}

/// The same with the two disks in two groups, of which the second one is not here.
fn half() -> SeenPool {
    let mut pool = seen();
    pool.disks.truncate(1);
    SeenPool { missing: vec![None], ..pool }
}

#[test]
fn groups_have_the_names_that_are_given_and_what_is_missing_has_a_place() {
    let mut request = asking("fast");
    request.pvs = vec!["/dev/sdb@left".parse().unwrap()];
    let (config, _) = taking(&furnished(), request.clone(), half()).unwrap();
    validate::config(&config).unwrap();
    let pool = pool_of(&config);
    let of = |at: usize| (pool.pvs[at].group.to_string(), pool.pvs[at].place.clone());
    assert_eq!(of(0), ("group left".to_owned(), PvPlace::Path { path: "/dev/sdb".to_owned() }));
    assert_eq!(of(1), ("group group1".to_owned(), PvPlace::Missing));
    assert!(pool.has_copies());
    let mut whole = seen();
    whole.disks[1].group = 1;
    request.pvs = vec!["/dev/sdb@left".parse().unwrap(), "/dev/sdc@left".parse().unwrap()];
    let error = taking(&furnished(), request.clone(), whole).unwrap_err();
    assert!(error.message.contains("different failure groups"), "{error}");
    request.pvs[1] = "/dev/sdc@right".parse().unwrap();
    let error = taking(&furnished(), request, seen()).unwrap_err();
    assert!(error.message.contains("one failure group with disks of left"), "{error}");
}

#[test]
fn a_document_says_what_disks_do_not() {
    let mut whole = seen();
    whole.disks[1].group = 1;
    let mut request = asking("fast");
    request.pvs = vec!["/dev/sdb@left".parse().unwrap(), "/dev/sdc@right".parse().unwrap()];
    let (mut saved, _) = taking(&furnished(), request, whole).unwrap();
    saved.pools[0].settings.warn_percent = 50;
    saved.pools[0].pvs[0].place = PvPlace::Path { path: "/dev/sdx".to_owned() };
    saved.lus.iter_mut().filter(|lu| lu.uuid == WEB).for_each(|lu| lu.serial = "mine".to_owned());
    let mut here = taking(&furnished(), asking("fast"), half()).unwrap().0;
    here.pools[0].pvs[0].place = PvPlace::Path { path: "/dev/sdb".to_owned() };
    let (next, ..) = restore(&here, &restoring(&saved, false)).unwrap();
    validate::config(&next).unwrap();
    let pool = pool_of(&next);
    assert_eq!(pool.settings.warn_percent, 50);
    // Where what is here is, is known here; what was missing is where it was.
    let disks: Vec<_> =
        pool.pvs.iter().map(|pv| (pv.uuid, pv.to_string(), pv.group.to_string())).collect();
    let expected = [(0xf1, "/dev/sdb", "group left"), (0xf2, "/dev/sdc", "group right")];
    let expected =
        expected.map(|(uuid, path, group)| (Uuid::from_u128(uuid), path.into(), group.into()));
    assert_eq!(disks, expected);
    assert_eq!(next.lu(&lu("web")).unwrap().serial, "mine");
    // Another pool of that UUID is none.
    saved.pools[0].slab_size = Size::mib(8);
    let error = restore(&here, &restoring(&saved, false)).unwrap_err();
    assert!(error.message.contains("pool 'fast' otherwise than it is"), "{error}");
}
