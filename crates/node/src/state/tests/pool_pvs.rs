//! Disks of pools in the desired state: what is refused, and what becomes of those that are not.

use cluster::Step;
use model::pv::PvState;
use model::{
    Leftover, Pool, PoolBecomes, PoolName, PoolPv, PoolSplit, PvAdd, PvAt, PvGroup, PvStanding,
    Size,
};

use super::super::pool_pvs::{Load, Wish, add, ended, remove, was_to_end};
use super::super::pool_split::{self, Others};
use super::super::pools::{Found, pool_create, pool_remove};
use super::pools::{fast, found, pool_of, request};
use super::*;

const SLABS: u64 = 63;

/// What is furnished, with pool fast on sdb and sdc.
fn with_pool() -> Config {
    let mut numbers = 0x100..;
    let uuid = || Uuid::from_u128(numbers.next().unwrap());
    pool_create(&furnished(), &request(), &[found("/dev/sdb"), found("/dev/sdc")], uuid).unwrap().0
}

fn adding(config: &Config, paths: &[&str]) -> Result<(Config, Vec<Mark>), ApiError> {
    replacing(config, paths, None, None)
}

fn replacing(
    config: &Config,
    paths: &[&str],
    replaces: Option<&str>,
    load: Option<Load>,
) -> Result<(Config, Vec<Mark>), ApiError> {
    let pvs = paths.iter().map(|path| path.parse().unwrap()).collect();
    let request = PvAdd { pvs, replaces: replaces.map(str::to_owned), ..PvAdd::default() };
    let path = |at: &PvAt| found(&at.path);
    let found: Vec<Found> = request.pvs.iter().map(path).collect();
    let mut numbers = 0x500..;
    let uuid = || Uuid::from_u128(numbers.next().unwrap());
    add(config, &fast(), &request, (&found, load), uuid)
}

fn leaving(config: &Config, which: &str, load: Option<Load>) -> Result<Config, ApiError> {
    remove(config, &fast(), which, Wish::Leave(load))
}

fn load(used: u64, free: u64) -> Option<Load> {
    Some(Load { used, used_by_others: 0, free })
}

fn standings(config: &Config) -> Vec<(String, PvStanding)> {
    pool_of(config).pvs.iter().map(|pv| (pv.to_string(), pv.standing)).collect()
}

fn step(config: &Config, path: &str, of: fn(Uuid, PoolName, PoolPv) -> Step) -> Step {
    let Pool { uuid, name, .. } = pool_of(config);
    of(uuid, name, pool_of(config).find_pv(path).unwrap().clone())
}

fn joined(config: &Config, path: &str) -> Step {
    step(config, path, |pool, name, pv| Step::JoinPv { pool, name, pv, is_new: true })
}

fn left(config: &Config, path: &str) -> Step {
    step(config, path, |pool, name, pv| Step::LeavePv { pool, name, pv })
}

#[test]
fn a_disk_joins_and_another_leaves() {
    let (config, marks) = adding(&with_pool(), &["/dev/sdd"]).unwrap();
    let new = pool_of(&config).find_pv("/dev/sdd").unwrap().clone();
    assert_eq!(marks, [Mark::Making(new.uuid)]);
    assert_eq!(new.standing, PvStanding::Joining);
    let (config, marks, event) = ended(&config, &joined(&config, "/dev/sdd")).unwrap();
    assert_eq!(marks, [Mark::Made(new.uuid)]);
    assert_eq!(event.1, "disk /dev/sdd is in pool 'fast'");
    assert!(ended(&config, &joined(&config, "/dev/sdd")).is_none());

    let config = leaving(&config, "/dev/sdb", load(SLABS, 2 * SLABS)).unwrap();
    let old = pool_of(&config).find_pv("/dev/sdb").unwrap().clone();
    assert_eq!(old.standing, PvStanding::Leaving { slabs: SLABS });
    let out = left(&config, "/dev/sdb");
    assert!(!was_to_end(&config, &out));
    let (next, marks, event) = ended(&config, &out).unwrap();
    let pool = pool_of(&config).uuid;
    assert_eq!(marks, [Mark::Leftover(old.uuid, Leftover::Pv { pool, pv: old.clone() })]);
    assert_eq!((pool_of(&next).pvs.len(), event.0), (2, "pool-disk-left"));

    // It stays, in time and too late.
    let stays = remove(&config, &fast(), &old.uuid.to_string(), Wish::Stay).unwrap();
    assert!(was_to_end(&stays, &out));
    let (late, marks, _) = ended(&stays, &out).unwrap();
    assert_eq!(marks, [Mark::Making(old.uuid)]);
    assert_eq!(pool_of(&late).find_pv("/dev/sdb").unwrap().standing, PvStanding::Joining);
    let (added, marks) = adding(&config, &["/dev/sdb"]).unwrap();
    assert!(marks.is_empty() && standings(&added) == standings(&stays));
}

#[test]
fn a_disk_is_replaced_by_what_has_room_with_it() {
    let full = load(40, 0);
    let (config, marks) = replacing(&with_pool(), &["/dev/sdd"], Some("/dev/sdb"), full).unwrap();
    let wanted = [PvStanding::Leaving { slabs: 40 }, PvStanding::Member, PvStanding::Joining];
    assert_eq!(standings(&config).iter().map(|it| it.1).collect::<Vec<_>>(), wanted);
    assert_eq!(marks.len(), 1);
    // Who does not join any more is taken out too, and is nobody's leftover of a pool that goes.
    let config = leaving(&config, "/dev/sdd", None).unwrap();
    assert_eq!(standings(&config)[2].1, PvStanding::Withdrawn);
    let (_, marks) = pool_remove(&config, &fast()).unwrap();
    let new = pool_of(&config).find_pv("/dev/sdd").unwrap().uuid;
    assert_eq!(marks[1..], [Mark::Gone(new)]);
    refused(
        replacing(&with_pool(), &["/dev/sdd"], Some("/dev/sdb"), load(70, 0)),
        expect![[r#"
        Conflict: LUs have 1120MiB on disk /dev/sdb, and the other disks of pool 'fast' have 1008MiB free: 112MiB are missing
          next: viaduct pool add-pv fast --pv DISK first, or viaduct pool replace-pv fast /dev/sdb NEW"#]],
    );
}

#[test]
fn what_cannot_join_is_refused_in_words() {
    let config = with_pool();
    let mut small = found("/dev/sdd");
    small.probe.size = 1 << 20;
    let request = PvAdd { pvs: vec![PvAt::path("/dev/sdd")], ..PvAdd::default() };
    let uuid = || Uuid::from_u128(0x500);
    let error = add(&config, &fast(), &request, (&[small], None), uuid).unwrap_err();
    assert!(error.message.contains("/dev/sdd cannot be in pool 'fast': it has room for no slab"));
    let mut data = found("/dev/sdd");
    (data.view.state, data.view.holds) = (PvState::Data, vec!["pool slow".to_owned()]);
    refused(
        add(&config, &fast(), &request, (&[data.clone()], None), uuid),
        expect![[r#"
        Conflict: /dev/sdd holds data: pool slow
          next: choose another disk; viaduct pool add-pv fast --pv /dev/sdd --force takes it, and what it holds is lost"#]],
    );
    let forced = PvAdd { force: true, ..request };
    assert!(add(&config, &fast(), &forced, (&[data], None), uuid).is_ok());
    refused(
        adding(&config, &["/dev/sdb"]),
        expect![[r#"
        Conflict: disk /dev/sdb is in pool 'fast' already
          next: viaduct pool show fast lists its disks"#]],
    );
    let (mirrored, _) = adding(&config, &["/dev/sdd@left"]).unwrap();
    let added = mirrored.pools[0].find_pv("/dev/sdd").unwrap().clone();
    assert_eq!(added.group.name.as_ref().map(ToString::to_string).as_deref(), Some("left"));
    refused(
        adding(&config, &[]),
        expect![[r#"
        Usage: say which disks pool 'fast' shall have too, or how large a file
          next: viaduct pool add-pv fast --pv DISK, or --size 100G"#]],
    );
    let sized = PvAdd { size: Some(Size::gib(1)), ..PvAdd::default() };
    let (next, _) = add(&config, &fast(), &sized, (&[], None), uuid).unwrap();
    assert_eq!(pool_of(&next).find_pv(&format!("/any/{}.img", uuid())).unwrap().uuid, uuid());
}

#[test]
fn what_cannot_leave_is_refused_in_words() {
    let config = with_pool();
    refused(
        leaving(&config, "/dev/sdx", load(0, 9)),
        expect![[r#"
        NotFound: pool 'fast' has no disk /dev/sdx
          next: it has /dev/sdb, /dev/sdc"#]],
    );
    refused(
        leaving(&config, "/dev/sdb", load(10, 7)),
        expect![[r#"
        Conflict: LUs have 160MiB on disk /dev/sdb, and the other disks of pool 'fast' have 112MiB free: 48MiB are missing
          next: viaduct pool add-pv fast --pv DISK first, or viaduct pool replace-pv fast /dev/sdb NEW"#]],
    );
    refused(
        leaving(&config, "/dev/sdb", None),
        expect![[r#"
        NotNow: pool 'fast' is not open
          next: viaduct pool show fast says why"#]],
    );
    let others = Some(Load { used: 1, used_by_others: 4, free: 4 });
    assert!(leaving(&config, "/dev/sdb", others).unwrap_err().message.contains("and the other"));
    refused(
        remove(&config, &fast(), "/dev/sdb", Wish::Stay),
        expect![[r#"
        Conflict: disk /dev/sdb is not leaving pool 'fast'
          next: viaduct pool show fast lists its disks"#]],
    );
    let config = leaving(&config, "/dev/sdb", load(1, 9)).unwrap();
    assert_eq!(leaving(&config, "/dev/sdb", None), Ok(config.clone()), "it does so already");
    refused(
        leaving(&config, "/dev/sdc", load(0, 9)),
        expect![[r#"
        Conflict: disk /dev/sdc is the last one of pool 'fast'
          next: viaduct pool replace-pv fast /dev/sdc NEW brings what is on it to another one; viaduct pool rm fast removes the pool"#]],
    );
}

/// With sdd and sde in a group of their own.
fn mirrored() -> Config {
    let (mut config, _) = adding(&with_pool(), &["/dev/sdd@right", "/dev/sde@right"]).unwrap();
    for path in ["/dev/sdd", "/dev/sde"] {
        (config, ..) = ended(&config, &joined(&config, path)).unwrap();
    }
    config
}

const NEW: Uuid = Uuid::from_u128(0x900);

fn split(
    config: &Config,
    group: &str,
    others: Option<Others>,
) -> Result<(Config, PvGroup), ApiError> {
    split_as(config, group, None, others)
}

fn split_as(
    config: &Config,
    group: &str,
    name: Option<&str>,
    others: Option<Others>,
) -> Result<(Config, PvGroup), ApiError> {
    let name = name.map(|name| name.parse().unwrap());
    let request = PoolSplit { group: group.to_owned(), name };
    pool_split::split(config, &fast(), &request, (others, || NEW))
}

#[test]
fn a_failure_group_leaves_and_its_disks_are_left_over() {
    let config = mirrored();
    let (next, right) = split(&config, "right", Some(Others::default())).unwrap();
    let standings: Vec<_> = standings(&next).into_iter().map(|(_, it)| it).collect();
    let (stays, leaves) = (PvStanding::Member, PvStanding::Splitting);
    assert_eq!(standings, [stays, stays, leaves, leaves]);
    assert_eq!(split(&next, "right", None), Ok((next.clone(), right.clone())));
    let text = serde_json::to_string(&next).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), next);
    refused(
        adding(&next, &["/dev/sdf"]),
        expect![[r#"
            NotNow: group right is just leaving pool 'fast'
              next: run the command again in a moment"#]],
    );
    assert!(leaving(&next, "/dev/sdb", load(0, 9)).is_err());

    let Pool { uuid: pool, name, pvs, .. } = pool_of(&next).clone();
    let (left, pvs) = (pvs[2..].to_vec(), pvs[2..].to_vec());
    let step = Step::SplitGroup { pool, name, group: right, pvs, becomes: None };
    let told = (None, jiff::Timestamp::UNIX_EPOCH);
    let (last, marks, event) = pool_split::ended(&next, &step, told).unwrap();
    let left = left.into_iter().map(|pv| Mark::Leftover(pv.uuid, Leftover::Pv { pool, pv }));
    assert_eq!(marks, left.collect::<Vec<_>>());
    assert_eq!((last.pools, event.0), (with_pool().pools, "pool-split"));
}

#[test]
fn a_failure_group_that_cannot_leave_is_refused_in_words() {
    let (config, all) = (mirrored(), Some(Others::default()));
    let with = |others: Others| split(&config, "right", Some(others));
    refused(
        split(&config, "left", all.clone()),
        expect![[r#"
            NotFound: pool 'fast' has no failure group left
              next: it has 0, right"#]],
    );
    refused(
        split(&config, "right", None),
        expect![[r#"
            NotNow: pool 'fast' is not open
              next: viaduct pool show fast says why"#]],
    );
    refused(
        split(&with_pool(), "0", all.clone()),
        expect![[r#"
            Conflict: the group without a name is the only failure group of pool 'fast'
              next: viaduct pool add-pv fast --pv DISK@OTHER mirrors it; viaduct pool rm fast removes the pool"#]],
    );
    refused(
        with(Others { behind: vec![0], ..Others::default() }),
        expect![[r#"
            NotNow: the group without a name of pool 'fast' does not have everything yet
              next: viaduct pool show fast tells how far it is"#]],
    );
    let missing = |path: &str| vec![pool_of(&config).find_pv(path).unwrap().uuid];
    refused(
        with(Others { missing: missing("/dev/sdc"), ..Others::default() }),
        expect![[r#"
            Conflict: disk /dev/sdc of the group without a name is missing, and group right has what is on it
              next: bring it back, or viaduct pool replace-pv fast /dev/sdc NEW"#]],
    );
    // What the group itself has does not matter.
    assert!(with(Others { missing: missing("/dev/sdd"), behind: vec![1] }).is_ok());
    let config = leaving(&config, "/dev/sdb", load(0, 9)).unwrap();
    refused(
        split(&config, "right", all),
        expect![[r#"
            NotNow: disk /dev/sdb is about to join pool 'fast' or to leave it
              next: viaduct pool show fast tells how far it is"#]],
    );
}

/// Pool fast in two groups with an LU.
fn mirrored_with_lu() -> Config {
    let mut config = mirrored();
    config.lus[0].backing = Backing::Pool { pool: fast() };
    config
}

#[test]
fn a_failure_group_becomes_a_pool_with_all_lus() {
    let config = mirrored_with_lu();
    let all = || Some(Others::default());
    let (next, right) = split_as(&config, "right", Some("new"), all()).unwrap();
    let becomes = PoolBecomes { uuid: NEW, name: "new".parse().unwrap() };
    assert_eq!(pool_of(&next).becomes, Some(becomes.clone()));
    let text = serde_json::to_string(&next).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), next);
    // It does so already, and cannot do something else.
    assert_eq!(split_as(&next, "right", Some("new"), None).unwrap().0, next);
    for other in [None, Some("other")] {
        refused(
            split_as(&next, "right", other, all()),
            expect![[r#"
                NotNow: group right is just leaving pool 'fast'
                  next: run the command again in a moment"#]],
        );
    }

    let Pool { uuid: pool, name, pvs, .. } = pool_of(&next).clone();
    let pvs = pvs[2..].to_vec();
    let group = right.clone();
    let step =
        Step::SplitGroup { pool, name, group, pvs: pvs.clone(), becomes: Some(becomes.clone()) };
    let seen = super::pool_import::seen_alone(NEW, &pvs, "a");
    let told = (Some(seen.clone()), jiff::Timestamp::UNIX_EPOCH);
    let (last, marks, event) = pool_split::ended(&next, &step, told).unwrap();
    validate::config(&last).unwrap();
    let new = last.pool(&becomes.name).unwrap();
    assert_eq!((new.uuid, &new.becomes, new.pvs.len()), (NEW, &None, 2));
    assert!(new.pvs.iter().all(|pv| pv.standing == PvStanding::Member && pv.group.number == 1));
    assert_eq!(new.paths().collect::<Vec<_>>(), ["/dev/sdd", "/dev/sde"]);
    let left = pool_of(&last);
    assert_eq!((left.pvs.len(), &left.becomes), (2, &None));
    let own = last.lu(&lu("new-a")).unwrap();
    assert_eq!((own.uuid, last.lu(&lu("a")).unwrap().uuid), (seen.lus[0].uuid, next.lus[0].uuid));
    // Nothing of it is taken off.
    assert!(!marks.iter().any(|mark| matches!(mark, Mark::Leftover(..))), "{marks:?}");
    assert_eq!(event.1, "group right has left pool 'fast', and is pool 'new' with 1 LUs");

    // Somebody took the name meanwhile: the pool is there, and waits to be imported.
    let mut taken = next.clone();
    taken.lus[1].name = lu("new-a");
    let told = (Some(seen), jiff::Timestamp::UNIX_EPOCH);
    let (last, marks, event) = pool_split::ended(&taken, &step, told).unwrap();
    assert_eq!((last.pool(&becomes.name), marks, pool_of(&last).pvs.len()), (None, vec![], 2));
    let says = "not of this node yet: names of LUs of pool 'new' are taken here: new-a";
    let next = format!("viaduct pool import {NEW} --as NAME --prefix PREFIX");
    assert!(event.1.contains(says) && event.1.contains(&next), "{}", event.1);
}

#[test]
fn a_failure_group_that_cannot_be_a_pool_is_refused_in_words() {
    let config = mirrored_with_lu();
    let with = |config: &Config, name: &str, others: Others| {
        split_as(config, "right", Some(name), Some(others))
    };
    refused(
        with(&config, "fast", Others::default()),
        expect![[r#"
            Conflict: there is a pool 'fast' on this node
              next: choose another name: viaduct pool split fast right --as OTHER"#]],
    );
    let sdd = pool_of(&config).find_pv("/dev/sdd").unwrap().uuid;
    refused(
        with(&config, "new", Others { missing: vec![sdd], ..Others::default() }),
        expect![[r#"
            Conflict: disk /dev/sdd of group right is missing, and pool 'new' would lack it
              next: bring it back, or split the group off without --as, and its disks are free"#]],
    );
    refused(
        with(&config, "new", Others { behind: vec![1], ..Others::default() }),
        expect![[r#"
            NotNow: group right of pool 'fast' does not have everything yet
              next: viaduct pool show fast tells how far it is"#]],
    );
    let mut taken = config.clone();
    taken.lus[1].name = lu("new-a");
    refused(
        with(&taken, "new", Others::default()),
        expect![[r#"
            Conflict: LU 'a' would be 'new-a', and there is one
              next: choose another name for the pool"#]],
    );
}
