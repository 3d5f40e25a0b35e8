//! Disks of pools in the desired state: what is refused, and what becomes of those that are not.

use cluster::Step;
use model::pv::PvState;
use model::{Leftover, Pool, PoolName, PoolPv, PvAdd, PvAt, PvStanding, Size};

use super::super::pool_pvs::{Load, Wish, add, ended, remove, was_to_end};
use super::super::pool_split::{self, Others, split};
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

#[test]
fn a_failure_group_leaves_and_its_disks_are_left_over() {
    let config = mirrored();
    let (next, right) = split(&config, &fast(), "right", Some(Others::default())).unwrap();
    let standings: Vec<_> = standings(&next).into_iter().map(|(_, it)| it).collect();
    let (stays, leaves) = (PvStanding::Member, PvStanding::Splitting);
    assert_eq!(standings, [stays, stays, leaves, leaves]);
    assert_eq!(split(&next, &fast(), "right", None), Ok((next.clone(), right.clone())));
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
    let step = Step::SplitGroup { pool, name, group: right, pvs };
    let (last, marks, event) = pool_split::ended(&next, &step).unwrap();
    let left = left.into_iter().map(|pv| Mark::Leftover(pv.uuid, Leftover::Pv { pool, pv }));
    assert_eq!(marks, left.collect::<Vec<_>>());
    assert_eq!((last.pools, event.0), (with_pool().pools, "pool-split"));
}

#[test]
fn a_failure_group_that_cannot_leave_is_refused_in_words() {
    let (config, all) = (mirrored(), Some(Others::default()));
    let with = |others: Others| split(&config, &fast(), "right", Some(others));
    refused(
        split(&config, &fast(), "left", all.clone()),
        expect![[r#"
            NotFound: pool 'fast' has no failure group left
              next: it has 0, right"#]],
    );
    refused(
        split(&config, &fast(), "right", None),
        expect![[r#"
            NotNow: pool 'fast' is not open
              next: viaduct pool show fast says why"#]],
    );
    refused(
        split(&with_pool(), &fast(), "0", all.clone()),
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
        split(&config, &fast(), "right", all),
        expect![[r#"
            NotNow: disk /dev/sdb is about to join pool 'fast' or to leave it
              next: viaduct pool show fast tells how far it is"#]],
    );
}
