//! Plans as people read them, and the promise behind them: from any state that a node can be in,
//! doing what is ready in any order leads to what is wanted, without ever pulling something away
//! from under its user.

mod migrate;

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use model::{
    AdapterId, BlockSize, Limits, PoolPv, PoolSettings, PvGroup, PvPlace, PvStanding, Secret,
    SocketOwner, Via,
};
use proptest::prelude::*;

use super::*;
use crate::desired::{Account, ChapSpec, IscsiSpec, MediumImage, MediumSpec, OriginSpec};
use model::Redirect;

const NOW: Duration = Duration::from_secs(100);

fn uuid(number: u8) -> Uuid {
    Uuid::from_u128(number.into())
}

fn device(number: u8) -> DeviceSpec {
    DeviceSpec {
        uuid: uuid(number),
        name: format!("lu{number}").parse().unwrap(),
        serial: format!("serial{number}"),
        size: Size::gib(1),
        block_size: BlockSize::B512,
        cache: Cache::Writeback,
        limits: Limits::default(),
        read_only: false,
        removable: false,
        shareable: false,
        backing: Backing::File,
        pool: None,
        snapshots: BTreeMap::new(),
        thick: false,
        outdated: false,
        origin: None,
        migration: None,
    }
}

fn mapping(client: u8, slot: u16, device: u8) -> MappingSpec {
    let client = format!("vm{client}").parse().unwrap();
    let adapter = AdapterId { client, slot: slot.try_into().unwrap() };
    MappingSpec {
        id: MappingId { adapter, lun: 0 },
        via: Via::VhostUserBlk,
        device: uuid(device),
        read_only: false,
        socket_owner: None,
        iscsi: None,
    }
}

/// The same at a LUN of the client's target.
fn at_lun(mapping: MappingSpec, lun: u16, chap: Option<ChapSpec>) -> MappingSpec {
    let MappingId { adapter, .. } = mapping.id;
    let target = format!("iqn.2026-11.org.viaduct:test:{}", adapter.client);
    let initiators = vec!["iqn.1994-05.com.redhat:abc".parse().unwrap()];
    let iscsi = Some(IscsiSpec { target, initiators, chap, lacks_secret: false, redirect: None });
    MappingSpec { id: MappingId { adapter, lun }, via: Via::Iscsi, iscsi, ..mapping }
}

fn chap() -> ChapSpec {
    let secret = Secret::from_input(b"correct horse battery").unwrap();
    ChapSpec { initiator: Account { name: "vm1".to_owned(), secret }, target: None }
}

fn desired(devices: &[DeviceSpec], mappings: &[MappingSpec]) -> Desired {
    Desired {
        revision: 7,
        devices: devices.iter().map(|d| (d.uuid, d.clone())).collect(),
        mappings: mappings.iter().map(|m| (m.id.clone(), m.clone())).collect(),
        ..Desired::default()
    }
}

fn drive(number: u8, medium: u8) -> DriveSpec {
    let image = (medium > 1).then(|| MediumImage { uuid: uuid(medium), size: Size::gib(1) });
    let name = format!("disc{medium}").parse().unwrap();
    DriveSpec {
        uuid: uuid(number),
        name: format!("dvd{number}").parse().unwrap(),
        serial: format!("serial{number}"),
        medium: (medium > 0).then_some(MediumSpec { name, image }),
        device: None,
    }
}

fn pool(number: u8, is_fine: bool) -> Pool {
    let size = Size::gib(1);
    Pool {
        name: format!("pool{number}").parse().unwrap(),
        uuid: uuid(number),
        slab_size: Size::mib(16),
        extent_size: Size::mib(if is_fine { 1 } else { 2 }),
        checksums: !is_fine,
        settings: PoolSettings::default(),
        pvs: vec![PoolPv {
            uuid: uuid(number + 100),
            place: PvPlace::File { size },
            group: PvGroup::default(),
            standing: PvStanding::Member,
        }],
        becomes: None,
    }
}

fn disk(number: u8, standing: PvStanding) -> PoolPv {
    let place = PvPlace::Path { path: format!("/dev/{number}") };
    PoolPv { uuid: uuid(number), place, group: PvGroup::default(), standing }
}

fn standing(kind: u8) -> Option<PvStanding> {
    match kind {
        0 => Some(PvStanding::Member),
        1 => Some(PvStanding::Joining),
        2 => Some(PvStanding::Leaving { slabs: 7 }),
        3 => Some(PvStanding::Withdrawn),
        _ => None,
    }
}

/// What the disks of a pool are when nothing is left to be done.
fn settled_pvs(pool: &Pool, of: &Pool) -> Vec<(Uuid, Option<bool>)> {
    let is_in = |pv: &PoolPv| Some((pv.uuid, pool.standing(pv.uuid)?.is_going()));
    of.pvs.iter().map(|pv| (pv.uuid, is_in(pv).map(|(_, is_going)| !is_going))).collect()
}

fn in_pool(number: u8, of: u8) -> DeviceSpec {
    let pool = format!("pool{of}").parse().unwrap();
    DeviceSpec { backing: Backing::Pool { pool }, pool: Some(uuid(of)), ..device(number) }
}

/// The same with drives.
fn with_drives(desired: Desired, drives: &[DriveSpec]) -> Desired {
    Desired { drives: drives.iter().map(|drive| (drive.uuid, drive.clone())).collect(), ..desired }
}

/// What a node runs that has reached its desired state.
fn settled(desired: &Desired) -> Actual {
    let mut actual = Actual::default();
    settle(desired, &mut actual);
    actual
}

fn settle(desired: &Desired, actual: &mut Actual) {
    for _ in 0..1000 {
        let steps: Vec<Step> = plan(desired, actual, NOW).ready().cloned().collect();
        steps.iter().for_each(|step| actual.apply(step));
    }
    assert_eq!(plan(desired, actual, NOW).steps, []);
}

fn prints(plan: &Plan, expected: Expect) {
    expected.assert_eq(&plan.to_string());
}

#[test]
fn a_disk_leaves_when_the_one_that_replaces_it_is_there() {
    let mut pool = pool(20, true);
    pool.pvs[0].standing = PvStanding::Leaving { slabs: 7 };
    let new = disk(50, PvStanding::Joining);
    let open = Pool { pvs: vec![disk(120, PvStanding::Member)], ..pool.clone() };
    pool.pvs.push(new.clone());
    let wanted =
        Desired { pools: [(uuid(20), pool.clone())].into(), ..desired(&[in_pool(1, 20)], &[]) };
    let mut actual = Actual { pools: [(uuid(20), open)].into(), ..Actual::default() };
    actual.made.extend([uuid(20), uuid(1)]);
    let steps = |wanted: &Desired, actual: &Actual| plan(wanted, actual, NOW);
    prints(
        &steps(&wanted, &actual),
        expect![[r#"
        revision 7: 3 steps
          take disk 00000000-0000-0000-0000-000000000078.img out of pool pool20 (waits for disk 00000000-0000-0000-0000-000000000032)
          add disk /dev/50 to pool pool20
          open device lu1 (pool pool20)"#]],
    );
    let join = steps(&wanted, &actual).ready().next().cloned().unwrap();
    actual.begin(&join);
    actual.apply(&join);
    let leave = steps(&wanted, &actual).ready().next().cloned().unwrap();
    prints(
        &steps(&wanted, &actual),
        expect![[r#"
        revision 7: 2 steps
          take disk 00000000-0000-0000-0000-000000000078.img out of pool pool20
          open device lu1 (pool pool20)"#]],
    );
    actual.begin(&leave);
    // It is to stay: that is told at once, and the step ends.
    let mut stays = wanted.clone();
    stays.pools.get_mut(&uuid(20)).unwrap().pvs[0].standing = PvStanding::Member;
    prints(
        &steps(&stays, &actual),
        expect![[r#"
        revision 7: 2 steps
          keep disk 00000000-0000-0000-0000-000000000078.img in pool pool20
          open device lu1 (pool pool20)"#]],
    );
    actual.apply(&leave);
    assert!(steps(&wanted, &actual).steps.iter().all(|it| it.step.part() == Part::Device(uuid(1))));
    let left = Leftover::Pv { pool: uuid(20), pv: pool.pvs[0].clone() };
    actual.leftovers.insert(uuid(120), left);
    prints(
        &steps(&Desired::default(), &Actual { leftovers: actual.leftovers, ..Actual::default() }),
        expect![[r#"
            revision 0: 1 steps
              take the label off disk 00000000-0000-0000-0000-000000000078.img"#]],
    );
}

#[test]
fn a_failure_group_leaves_as_a_whole() {
    let right = PvGroup { number: 1, name: Some("right".parse().unwrap()) };
    let half = |number| PoolPv { group: right.clone(), ..disk(number, PvStanding::Splitting) };
    let mut pool = pool(20, true);
    pool.pvs.extend([half(50), half(51)]);
    let wanted = Desired { pools: [(uuid(20), pool.clone())].into(), ..Desired::default() };
    let mut actual = Actual::default();
    actual.made.insert(uuid(20));
    let open = plan(&wanted, &actual, NOW).ready().next().cloned().unwrap();
    actual.begin(&open);
    assert_eq!(plan(&wanted, &actual, NOW).ready().count(), 0);
    actual.apply(&open);
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
            revision 0: 1 steps
              split group right off pool pool20"#]],
    );
    let split = plan(&wanted, &actual, NOW).ready().next().cloned().unwrap();
    assert!(!split.is_long() && split.part() == Part::Pool(uuid(20)));
    actual.begin(&split);
    actual.apply(&split);
    assert_eq!(plan(&wanted, &actual, NOW).steps, []);
    let left = Leftover::Pv { pool: uuid(20), pv: half(50) };
    actual.leftovers.insert(uuid(50), left);
    let without = Desired { pools: [(uuid(20), self::pool(20, true))].into(), ..wanted };
    prints(
        &plan(&without, &actual, NOW),
        expect![[r#"
            revision 0: 1 steps
              take the label off disk /dev/50"#]],
    );
}

#[test]
fn from_nothing() {
    let wanted = desired(&[device(1)], &[mapping(1, 2, 1)]);
    prints(
        &plan(&wanted, &Actual::default(), NOW),
        expect![[r#"
            revision 7: 3 steps
              make the file of lu1 (1GiB)
              open device lu1 (file) (waits for device 00000000-0000-0000-0000-000000000001)
              open vhost-user-blk mapping vm1-2 of lu1 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn after_a_restart_no_file_is_made_again() {
    let wanted = desired(&[device(1)], &[]);
    let actual = Actual { made: [uuid(1)].into(), ..Actual::default() };
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
            revision 7: 1 steps
              open device lu1 (file)"#]],
    );
}

#[test]
fn a_clone_comes_after_its_origin_and_goes_before_it() {
    let pools: BTreeMap<Uuid, Pool> = [(uuid(20), pool(20, true))].into();
    let origin = DeviceSpec { snapshots: [(uuid(9), "a".to_owned())].into(), ..in_pool(2, 20) };
    let of = Some(OriginSpec { device: uuid(2), snapshot: uuid(9) });
    let clone = DeviceSpec { origin: of, ..in_pool(1, 20) };
    let wanted = Desired { pools, ..desired(&[clone, origin.clone()], &[]) };
    let mut actual = settled(&wanted);
    let other = Desired { devices: BTreeMap::new(), ..wanted.clone() };
    prints(
        &plan(&other, &actual, NOW),
        expect![[r#"
            revision 7: 2 steps
              close device lu1
              close device lu2 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
    actual.devices.clear();
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
            revision 7: 2 steps
              open device lu1 (pool pool20) (waits for device 00000000-0000-0000-0000-000000000002)
              open device lu2 (pool pool20)"#]],
    );
    // What has to be opened in another way takes its clones along; a snapshot closes nothing.
    let mut actual = settled(&wanted);
    let mut changed = wanted.clone();
    changed.devices.insert(uuid(2), DeviceSpec { read_only: true, ..origin.clone() });
    let steps = plan(&changed, &actual, NOW).steps;
    let closes = steps.iter().filter(|it| matches!(it.step, Step::CloseDevice { .. })).count();
    assert_eq!((steps.len(), closes), (4, 2));
    settle(&changed, &mut actual);
    changed
        .devices
        .insert(uuid(2), DeviceSpec { read_only: true, snapshots: BTreeMap::new(), ..origin });
    prints(
        &plan(&changed, &actual, NOW),
        expect![[r#"
            revision 7: 1 steps
              keep 0 snapshots of device lu2"#]],
    );
}

#[test]
fn lus_of_a_pool_come_after_it_and_go_before_it() {
    let pools: BTreeMap<Uuid, Pool> = [(uuid(20), pool(20, true))].into();
    let new_pools = [uuid(20)].into();
    let wanted = Desired { pools: pools.clone(), new_pools, ..desired(&[in_pool(1, 20)], &[]) };
    prints(
        &plan(&wanted, &Actual::default(), NOW),
        expect![[r#"
            revision 7: 4 steps
              make pool pool20
              open pool pool20 (waits for pool 00000000-0000-0000-0000-000000000014)
              make lu1 in its pool (1GiB) (waits for pool 00000000-0000-0000-0000-000000000014)
              open device lu1 (pool pool20) (waits for pool 00000000-0000-0000-0000-000000000014)"#]],
    );
    let mut actual = settled(&wanted);
    actual.leftovers.insert(uuid(1), Leftover::Lu { pool: uuid(20) });
    prints(
        &plan(&Desired { pools, ..desired(&[], &[]) }, &actual, NOW),
        expect![[r#"
            revision 7: 2 steps
              close device lu1
              give the slabs of removed 00000000-0000-0000-0000-000000000001 back (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
    actual.leftovers.insert(uuid(20), Leftover::Pool { pool: pool(20, true) });
    prints(
        &plan(&desired(&[], &[]), &actual, NOW),
        expect![[r#"
            revision 7: 4 steps
              close device lu1
              delete the file of removed 00000000-0000-0000-0000-000000000001 (waits for device 00000000-0000-0000-0000-000000000001)
              close pool pool20 (waits for device 00000000-0000-0000-0000-000000000001)
              take the disks out of pool pool20 (waits for pool 00000000-0000-0000-0000-000000000014)"#]],
    );
    settle(&desired(&[], &[]), &mut actual);
    assert!(actual.made.is_empty() && actual.leftovers.is_empty());
}

#[test]
fn nothing_in_a_pool_begins_while_that_cannot_be_opened() {
    let pools = [(uuid(20), pool(20, true))].into();
    let wanted = Desired { pools, ..desired(&[in_pool(1, 20), device(2)], &[]) };
    let mut actual = Actual { made: [uuid(20), uuid(1), uuid(2)].into(), ..Actual::default() };
    actual.failed.insert(Part::Pool(uuid(20)), NOW + Duration::from_secs(9));
    actual.leftovers.insert(uuid(3), Leftover::Lu { pool: uuid(20) });
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
        revision 7: 4 steps
          give the slabs of removed 00000000-0000-0000-0000-000000000003 back (waits for pool 00000000-0000-0000-0000-000000000014)
          open pool pool20 (tried again at 109.0 s)
          open device lu1 (pool pool20) (waits for pool 00000000-0000-0000-0000-000000000014)
          open device lu2 (file)"#]],
    );
}

#[test]
fn a_change_of_size_cache_and_limits_closes_nothing() {
    let before = desired(&[device(1)], &[mapping(1, 2, 1)]);
    let actual = settled(&before);
    let (size, cache) = (Size::gib(2), Cache::Writethrough);
    let limits = Limits { iops: Some(100), ..Limits::default() };
    let larger = DeviceSpec { size, cache, limits, ..device(1) };
    let after = desired(&[larger], &[mapping(1, 2, 1)]);
    prints(
        &plan(&after, &actual, NOW),
        expect![[r#"
            revision 7: 3 steps
              resize device lu1 from 1GiB to 2GiB
              set the cache of device lu1 to writethrough (waits for device 00000000-0000-0000-0000-000000000001)
              set the limits of device lu1 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn a_change_of_settings_leaves_a_pool_open() {
    let pools = |settings| {
        let pool = Pool { settings, ..pool(20, true) };
        Desired { pools: [(uuid(20), pool)].into(), ..desired(&[in_pool(1, 20)], &[]) }
    };
    let mut actual = settled(&pools(PoolSettings::default()));
    let settings = PoolSettings { warn_percent: 50, ..PoolSettings::default() };
    let wanted = pools(settings);
    let planned = plan(&wanted, &actual, NOW);
    prints(
        &planned,
        expect![[r#"
        revision 7: 1 steps
          change the settings of pool pool20"#]],
    );
    actual.apply(&planned.steps[0].step);
    assert_eq!(actual.pools[&uuid(20)].settings, settings);
    assert!(plan(&wanted, &actual, NOW).is_empty());
}

#[test]
fn a_change_of_anything_else_closes_and_opens() {
    let actual = settled(&desired(&[device(1)], &[mapping(1, 2, 1)]));
    let after = desired(&[DeviceSpec { read_only: true, ..device(1) }], &[mapping(1, 2, 1)]);
    prints(
        &plan(&after, &actual, NOW),
        expect![[r#"
            revision 7: 4 steps
              close mapping vm1-2
              close device lu1 (waits for mapping vm1-2)
              open device lu1 (file) (waits for device 00000000-0000-0000-0000-000000000001)
              open vhost-user-blk mapping vm1-2 of lu1 (waits for mapping vm1-2)"#]],
    );
}

#[test]
fn removal_deletes_only_files_of_removed_lus() {
    let mut actual = settled(&desired(&[device(1), device(2)], &[mapping(1, 2, 1)]));
    actual.leftovers.insert(uuid(1), Leftover::File);
    // LU 2 vanished from the configuration without having been removed: its file stays.
    prints(
        &plan(&desired(&[], &[]), &actual, NOW),
        expect![[r#"
            revision 7: 4 steps
              close mapping vm1-2
              close device lu1 (waits for mapping vm1-2)
              close device lu2
              delete the file of removed 00000000-0000-0000-0000-000000000001 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn what_failed_waits_and_what_is_under_way_is_not_begun_twice() {
    let wanted = desired(&[device(1), device(2), device(3)], &[mapping(1, 2, 1)]);
    let mut actual = Actual { made: [uuid(1), uuid(2), uuid(3)].into(), ..Actual::default() };
    actual.fail(&Step::OpenDevice { device: device(1) }, NOW + Duration::from_secs(5));
    actual.begin(&Step::OpenDevice { device: device(2) });
    actual.fail(&Step::OpenDevice { device: device(3) }, NOW);
    let plan = plan(&wanted, &actual, NOW);
    assert_eq!(plan.retry_at(), Some(NOW + Duration::from_secs(5)));
    prints(
        &plan,
        expect![[r#"
            revision 7: 4 steps
              open device lu1 (file) (tried again at 105.0 s)
              open device lu2 (file) (a step on device 00000000-0000-0000-0000-000000000002 is under way)
              open device lu3 (file)
              open vhost-user-blk mapping vm1-2 of lu1 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn a_device_outlives_a_mapping_that_is_being_opened() {
    let before = desired(&[device(1)], &[mapping(1, 2, 1)]);
    let mut actual = settled(&desired(&[device(1)], &[]));
    let step = plan(&before, &actual, NOW).ready().next().cloned().unwrap();
    actual.begin(&step);
    prints(
        &plan(&desired(&[], &[]), &actual, NOW),
        expect![[r#"
            revision 7: 1 steps
              close device lu1 (waits for mapping vm1-2)"#]],
    );
    actual.apply(&step);
    settle(&desired(&[], &[]), &mut actual);
}

#[test]
fn the_luns_of_a_target_open_and_close_by_themselves() {
    let devices = [device(1), device(2)];
    let luns = |count: usize| {
        let all = [at_lun(mapping(1, 2, 1), 0, None), at_lun(mapping(1, 2, 2), 3, None)];
        desired(&devices, &all[..count])
    };
    prints(
        &plan(&luns(2), &settled(&luns(1)), NOW),
        expect![[r#"
            revision 7: 1 steps
              open iscsi mapping vm1-2.3 of lu2"#]],
    );
    prints(
        &plan(&luns(1), &settled(&luns(2)), NOW),
        expect![[r#"
            revision 7: 1 steps
              close mapping vm1-2.3"#]],
    );
}

#[test]
fn a_target_that_changes_closes_all_its_luns_before_one_opens() {
    let devices = [device(1), device(2)];
    let with = |chap: Option<ChapSpec>| {
        let second = at_lun(mapping(1, 2, 2), 1, chap.clone());
        desired(&devices, &[at_lun(mapping(1, 2, 1), 0, chap), second])
    };
    let mut actual = settled(&with(None));
    let wanted = with(Some(chap()));
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
            revision 7: 4 steps
              close mapping vm1-2
              close mapping vm1-2.1
              open iscsi mapping vm1-2 of lu1 (waits for mapping vm1-2)
              open iscsi mapping vm1-2.1 of lu2 (waits for mapping vm1-2.1)"#]],
    );
    actual.apply(&plan(&wanted, &actual, NOW).steps[0].step.clone());
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
            revision 7: 3 steps
              close mapping vm1-2.1
              open iscsi mapping vm1-2 of lu1 (waits for mapping vm1-2.1)
              open iscsi mapping vm1-2.1 of lu2 (waits for mapping vm1-2.1)"#]],
    );
    settle(&wanted, &mut actual);
}

#[test]
fn a_target_stays_open_when_logins_are_sent_elsewhere() {
    let devices = [device(1), device(2)];
    let with = |to: Option<&str>| {
        let mut luns = [at_lun(mapping(1, 2, 1), 0, None), at_lun(mapping(1, 2, 2), 1, None)];
        for iscsi in luns.iter_mut().filter_map(|lun| lun.iscsi.as_mut()) {
            let to = to.map(|to| to.parse().unwrap());
            iscsi.redirect = to.map(|to| Redirect { to, permanently: false, now: false });
        }
        desired(&devices, &luns)
    };
    let wanted = with(Some("192.0.2.7"));
    let mut actual = settled(&with(None));
    prints(
        &plan(&wanted, &actual, NOW),
        expect![[r#"
            revision 7: 2 steps
              open iscsi mapping vm1-2 of lu1
              open iscsi mapping vm1-2.1 of lu2"#]],
    );
    settle(&wanted, &mut actual);
    settle(&with(None), &mut actual);
}

#[test]
fn media_are_exchanged_under_the_clients() {
    let at = at_lun(mapping(1, 2, 10), 0, None);
    let empty = with_drives(desired(&[], std::slice::from_ref(&at)), &[drive(10, 0)]);
    prints(
        &plan(&empty, &Actual::default(), NOW),
        expect![[r#"
            revision 7: 2 steps
              open drive dvd10
              open iscsi mapping vm1-2 of dvd10 (waits for device 00000000-0000-0000-0000-00000000000a)"#]],
    );
    let mut actual = settled(&empty);
    let loaded = with_drives(desired(&[], &[at]), &[drive(10, 2)]);
    prints(
        &plan(&loaded, &actual, NOW),
        expect![[r#"
            revision 7: 1 steps
              load disc2 into drive dvd10"#]],
    );
    settle(&loaded, &mut actual);
    prints(
        &plan(&empty, &actual, NOW),
        expect![[r#"
            revision 7: 1 steps
              take the medium out of drive dvd10"#]],
    );
    prints(
        &plan(&desired(&[], &[]), &actual, NOW),
        expect![[r#"
            revision 7: 2 steps
              close mapping vm1-2
              close device dvd10 (waits for mapping vm1-2)"#]],
    );
}

#[test]
fn secrets_are_in_no_print_of_a_plan() {
    let wanted = desired(&[device(1)], &[at_lun(mapping(1, 2, 1), 0, Some(chap()))]);
    let plan = plan(&wanted, &Actual::default(), NOW);
    assert!(!format!("{plan} {plan:?} {wanted:?}").contains("horse"));
}

/// A few devices and mappings in all their variations.
fn any_desired() -> impl Strategy<Value = Desired> {
    let devices =
        prop::collection::btree_map(0u8..5, (1u64..3, any::<bool>(), any::<bool>(), 0u8..6), 0..5);
    // Those that are there; one is of two sorts.
    let disks = [0u8..5, 0u8..5];
    let pools = prop::collection::btree_map(20u8..23, (any::<bool>(), disks), 0..4);
    let mappings = prop::collection::btree_map(
        (0u8..3, 2u16..4, 0u16..3),
        (prop_oneof![0u8..5, 10u8..13], any::<bool>(), any::<bool>()),
        0..8,
    );
    let drives = prop::collection::btree_map(10u8..13, 0u8..4, 0..3);
    // What an adapter is: a disk, a SCSI host, or a target with or without CHAP.
    let adapters = prop::collection::vec(0u8..4, 6);
    let all = (pools, devices, drives, mappings, adapters);
    all.prop_map(|(pools, devices, drives, mappings, adapters)| {
        let devices: BTreeMap<u8, DeviceSpec> = devices
            .into_iter()
            .map(|(number, (gib, writethrough, read_only, backing))| {
                let spec = DeviceSpec {
                    size: Size::gib(gib),
                    cache: if writethrough { Cache::Writethrough } else { Cache::Writeback },
                    limits: Limits { iops: (gib > 1).then_some(100), ..Limits::default() },
                    read_only,
                    pool: (backing > 2).then(|| uuid(17 + backing)),
                    backing: match backing {
                        3.. => Backing::Pool { pool: format!("p{backing}").parse().unwrap() },
                        0 => Backing::File,
                        1 => Backing::Memory,
                        _ => Backing::Adopted { path: format!("/dev/{number}") },
                    },
                    ..device(number)
                };
                (number, spec)
            })
            .filter(|(_, it)| it.pool.is_none_or(|pool| pools.keys().any(|of| uuid(*of) == pool)))
            .collect();
        let pools = pools.into_iter().map(|(number, (is_fine, standings))| {
            let mut pool = pool(number, is_fine);
            for (at, kind) in (1..).zip(standings) {
                pool.pvs.extend(standing(kind).map(|it| disk(number + 100 + 10 * at, it)));
            }
            pool
        });
        let pools = pools.map(|pool| (pool.uuid, pool)).collect();
        let mappings: Vec<MappingSpec> = mappings
            .into_iter()
            .filter(|(_, (number, ..))| devices.contains_key(number) || drives.contains_key(number))
            .filter_map(|((client, slot, lun), (number, read_only, owned))| {
                let mapping = MappingSpec { read_only, ..mapping(client, slot, number) };
                let owner = owned.then(|| "qemu:kvm".parse::<SocketOwner>().unwrap());
                match adapters[usize::from(client) * 2 + usize::from(slot - 2)] {
                    0 if lun == 0 => Some(MappingSpec { socket_owner: owner, ..mapping }),
                    0 => None,
                    1 => Some(at_lun(mapping, lun, None)),
                    2 => Some(at_host(mapping, lun)),
                    _ => Some(at_lun(mapping, lun, Some(chap()))),
                }
            })
            .collect();
        let drives: Vec<DriveSpec> =
            drives.into_iter().map(|(number, medium)| drive(number, medium)).collect();
        let wanted = desired(&with_clones(devices), &mappings);
        with_drives(Desired { pools, ..wanted }, &drives)
    })
}

/// Those of one pool that are written through are clones of the one before them.
fn with_clones(devices: BTreeMap<u8, DeviceSpec>) -> Vec<DeviceSpec> {
    let mut all: Vec<DeviceSpec> = Vec::new();
    for device in devices.into_values() {
        let is_clone = device.pool.is_some() && device.cache == Cache::Writethrough;
        let of = all.iter_mut().rev().find(|other| is_clone && other.pool == device.pool);
        let origin = of.map(|of| {
            of.snapshots.insert(uuid(77), "a".to_owned());
            OriginSpec { device: of.uuid, snapshot: uuid(77) }
        });
        all.push(DeviceSpec { origin, ..device });
    }
    all
}

/// What must hold whenever a step begins, whatever went before.
fn check_step(actual: &Actual, step: &Step) {
    assert!(!actual.busy.contains_key(&step.part()), "{step}: two steps on one part");
    let used: Vec<Uuid> = open_or_opening(actual).map(|mapping| mapping.device).collect();
    match step {
        Step::CloseDevice { uuid, .. } => {
            assert!(!used.contains(uuid), "{step}: in use");
            assert_eq!(clones(actual, *uuid).next(), None, "{step}: a clone stands on it");
        }
        Step::RemoveBacking { uuid, pool } => {
            assert!(actual.leftovers.contains_key(uuid), "{step}: never removed");
            check_pool(actual, step, *pool);
            assert!(!actual.devices.contains_key(uuid), "{step}: open");
        }
        Step::CreateBacking { device } => {
            assert!(!actual.made.contains(&device.uuid), "{step}: made before");
            check_pool(actual, step, device.pool);
        }
        Step::OpenDevice { device } => {
            assert!(!actual.devices.contains_key(&device.uuid), "{step}: open twice");
            let is_ours = matches!(device.backing, Backing::File | Backing::Pool { .. });
            assert!(!is_ours || actual.made.contains(&device.uuid), "{step}: no file");
            check_pool(actual, step, device.pool);
            check_origin(actual, step, device);
        }
        Step::OpenMapping { mapping, .. } => {
            assert!(!actual.mappings.contains_key(&mapping.id), "{step}: open twice");
            assert!(actual.is_open(mapping.device), "{step}: no device");
            let device = Part::Device(mapping.device);
            assert!(!actual.busy.contains_key(&device), "{step}: its device is not at rest");
            let others = open_or_opening(actual)
                .filter(|other| other.id.adapter == mapping.id.adapter && !other.is_alike(mapping));
            assert_eq!(others.count(), 0, "{step}: its adapter is something else");
        }
        Step::OpenDrive { drive } => {
            assert!(!actual.drives.contains_key(&drive.uuid), "{step}: open twice");
        }
        Step::Exchange { drive } => {
            assert!(actual.drives.contains_key(&drive.uuid), "{step}: not open");
        }
        Step::Listen { id, socket_owner } => {
            assert!(!actual.listening.contains(id), "{step}: listens twice");
            let shown: Vec<_> = open_or_opening(actual).filter(|it| it.id.adapter == *id).collect();
            assert!(!shown.is_empty(), "{step}: nothing is there");
            let is_its = |it: &&MappingSpec| {
                it.via == Via::VhostUserScsi && it.socket_owner == *socket_owner
            };
            assert!(shown.iter().all(is_its), "{step}: its adapter is something else");
        }
        Step::ClosePool { uuid, .. } => {
            assert_eq!(users_of_pool(actual, *uuid).next(), None, "{step}: in use");
        }
        Step::CloseMapping { .. }
        | Step::Resize { .. }
        | Step::SetCache { .. }
        | Step::SetLimits { .. }
        | Step::SetSnapshots { .. } => {}
        _ => check_step_on_pool(actual, step),
    }
}

fn check_step_on_pool(actual: &Actual, step: &Step) {
    match step {
        Step::MakePool { pool, .. } => {
            assert!(!actual.made.contains(&pool.uuid), "{step}: made before");
            assert!(!actual.pools.contains_key(&pool.uuid), "{step}: open");
        }
        Step::ForgetPv { pv, .. } => {
            assert!(actual.leftovers.contains_key(&pv.uuid), "{step}: it has not left");
        }
        Step::JoinPv { pool, .. }
        | Step::LeavePv { pool, .. }
        | Step::KeepPv { pool, .. }
        | Step::SplitGroup { pool, .. } => {
            check_pool(actual, step, Some(*pool));
        }
        Step::OpenPool { pool } => {
            assert!(actual.made.contains(&pool.uuid), "{step}: never made");
            assert!(!actual.pools.contains_key(&pool.uuid), "{step}: open twice");
        }
        Step::RemovePool { pool } => {
            assert!(actual.leftovers.contains_key(&pool.uuid), "{step}: never removed");
            assert!(!actual.pools.contains_key(&pool.uuid), "{step}: open");
        }
        _ => panic!("{step}: not of a pool"),
    }
}

/// A pool that is worked in is open and stays so.
fn check_pool(actual: &Actual, step: &Step, pool: Option<Uuid>) {
    let Some(pool) = pool else { return };
    assert!(actual.pools.contains_key(&pool), "{step}: its pool is not open");
    assert!(!actual.busy.contains_key(&Part::Pool(pool)), "{step}: its pool is not at rest");
}

/// What a clone stands on is open and stays so.
fn check_origin(actual: &Actual, step: &Step, device: &DeviceSpec) {
    let Some(OriginSpec { device: origin, .. }) = device.origin else { return };
    assert!(actual.devices.contains_key(&origin), "{step}: its origin is not open");
    let is_busy = actual.busy.contains_key(&Part::Device(origin));
    assert!(!is_busy, "{step}: its origin is not at rest");
}

/// What goes on while a plan is carried out.
#[derive(Debug, Clone)]
enum Turn {
    /// Begin the nth of the ready steps.
    Begin(usize),
    /// The nth of the steps under way is done.
    Done(usize),
    /// The nth of the steps under way failed.
    Failed(usize),
    /// Something else is wanted from now on.
    Want(Desired),
}

fn any_turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => any::<prop::sample::Index>().prop_map(|n| Turn::Begin(n.index(1 << 16))),
        3 => any::<prop::sample::Index>().prop_map(|n| Turn::Done(n.index(1 << 16))),
        1 => any::<prop::sample::Index>().prop_map(|n| Turn::Failed(n.index(1 << 16))),
        1 => any_desired().prop_map(Turn::Want),
    ]
}

fn pick<T: Clone>(items: &[T], index: usize) -> Option<T> {
    if items.is_empty() { None } else { items.get(index % items.len()).cloned() }
}

fn take(actual: &mut Actual, wanted: &mut Desired, turn: Turn) {
    let under_way: Vec<Step> = actual.busy.values().cloned().collect();
    match turn {
        Turn::Begin(index) => {
            let ready: Vec<Step> = plan(wanted, actual, NOW).ready().cloned().collect();
            if let Some(step) = pick(&ready, index) {
                check_step(actual, &step);
                actual.begin(&step);
            }
        }
        Turn::Done(index) => {
            if let Some(step) = pick(&under_way, index) {
                actual.apply(&step);
            }
        }
        Turn::Failed(index) => {
            if let Some(step) = pick(&under_way, index) {
                actual.fail(&step, NOW);
            }
        }
        Turn::Want(mut next) => {
            // No LU is wanted whose origin is not: in the order of their numbers.
            for uuid in next.devices.keys().copied().collect::<Vec<_>>() {
                let of = next.devices[&uuid].origin.map_or(uuid, |origin| origin.device);
                if !next.devices.contains_key(&of) || actual.leftovers.contains_key(&of) {
                    next.devices.remove(&uuid);
                }
            }
            for (uuid, device) in &wanted.devices {
                // An LU that is removed leaves its file; its UUID never comes back.
                let leftover = match (&device.backing, device.pool) {
                    (Backing::File, _) => Leftover::File,
                    (_, Some(pool)) => Leftover::Lu { pool },
                    _ => continue,
                };
                if !next.devices.contains_key(uuid) {
                    actual.leftovers.insert(*uuid, leftover);
                }
            }
            for (uuid, pool) in &wanted.pools {
                if !next.pools.contains_key(uuid) {
                    actual.leftovers.insert(*uuid, Leftover::Pool { pool: pool.clone() });
                }
            }
            *wanted = next;
            wanted.pools.retain(|uuid, _| !actual.leftovers.contains_key(uuid));
            let Desired { devices, pools, .. } = wanted;
            let is_in_one = |pool: Option<Uuid>| pool.is_none_or(|it| pools.contains_key(&it));
            devices.retain(|uuid, it| !actual.leftovers.contains_key(uuid) && is_in_one(it.pool));
            let Desired { devices, drives, mappings, .. } = wanted;
            let is_there = |uuid: &Uuid| devices.contains_key(uuid) || drives.contains_key(uuid);
            mappings.retain(|_, mapping| is_there(&mapping.device));
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_on_the_way_the_end_is_what_is_wanted(
        first in any_desired(),
        turns in prop::collection::vec(any_turn(), 0..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 200)
    ) {
        let (mut actual, mut wanted) = (Actual::default(), first);
        for turn in turns {
            take(&mut actual, &mut wanted, turn);
        }
        let mut order = order.into_iter();
        loop {
            let ready: Vec<Step> = plan(&wanted, &actual, NOW).ready().cloned().collect();
            let under_way: Vec<Step> = actual.busy.values().cloned().collect();
            if ready.is_empty() && under_way.is_empty() {
                break;
            }
            let index = order.next().expect("it ends within 200 turns").index(1 << 16);
            match pick(&ready, index) {
                Some(step) => { check_step(&actual, &step); actual.begin(&step); }
                None => actual.apply(&pick(&under_way, index).unwrap()),
            }
        }
        let last = plan(&wanted, &actual, NOW);
        prop_assert_eq!(last.to_string(), "revision 7: 0 steps");
        actual.prune(&last);
        prop_assert_eq!(actual.pools.len(), wanted.pools.len());
        for (uuid, wanted) in &wanted.pools {
            let open = &actual.pools[uuid];
            prop_assert_eq!(open.extent_size, wanted.extent_size);
            // One that had left when it was to stay is asked to join again by whoever plans next.
            let came_too_late = |pv: &PoolPv| {
                let is = open.standing(pv.uuid);
                let has_left = is.is_none_or(|is| is == PvStanding::Withdrawn);
                has_left && pv.standing == PvStanding::Member
            };
            let mut wanted = wanted.clone();
            wanted.pvs.retain(|pv| !came_too_late(pv));
            prop_assert_eq!(settled_pvs(open, &wanted), settled_pvs(&wanted, &wanted));
        }
        prop_assert_eq!(&actual.devices, &wanted.devices);
        prop_assert_eq!(&actual.drives, &wanted.drives);
        prop_assert_eq!(&actual.mappings, &wanted.mappings);
        prop_assert!(actual.leftovers.is_empty() && actual.failed.is_empty());
    }

    #[test]
    fn a_plan_depends_on_nothing_else(first in any_desired(), second in any_desired()) {
        let actual = settled(&first);
        prop_assert_eq!(plan(&second, &actual, NOW), plan(&second, &actual, NOW));
    }
}

/// The same at a LUN of the guest's SCSI host.
fn at_host(mapping: MappingSpec, lun: u16) -> MappingSpec {
    let MappingId { adapter, .. } = mapping.id;
    MappingSpec { id: MappingId { adapter, lun }, via: Via::VhostUserScsi, ..mapping }
}

#[test]
fn a_scsi_host_listens_when_its_luns_are_there_as_far_as_they_can_be() {
    let devices = [device(1), device(2)];
    let mappings = [at_host(mapping(1, 2, 1), 0), at_host(mapping(1, 2, 2), 1)];
    let wanted = desired(&devices, &mappings);
    let listens = |actual: &Actual| {
        let plan = plan(&wanted, actual, NOW);
        let step = plan.steps.iter().find(|it| matches!(it.step, Step::Listen { .. }));
        step.map(|it| it.wait.clone())
    };
    let open = |actual: &mut Actual, index: usize| {
        let (device, mapping) = (&devices[index], &mappings[index]);
        actual.devices.insert(device.uuid, device.clone());
        actual.mappings.insert(mapping.id.clone(), mapping.clone());
    };
    let waits_for =
        |index: usize| Some(Some(Wait::Earlier(Part::Mapping(mappings[index].id.clone()))));
    let mut actual = Actual { made: [uuid(1), uuid(2)].into(), ..Actual::default() };
    assert_eq!(listens(&actual), waits_for(0));
    open(&mut actual, 0);
    assert_eq!(listens(&actual), waits_for(1));
    // One that cannot be had does not keep the guest from the others.
    let mut without = actual.clone();
    without.failed.insert(Part::Device(uuid(2)), NOW + Duration::from_secs(9));
    assert_eq!(listens(&without), Some(None));
    without.mappings.clear();
    without.failed.insert(Part::Device(uuid(1)), NOW + Duration::from_secs(9));
    assert_eq!(listens(&without), waits_for(0), "of nothing there is nothing to show");
    open(&mut actual, 1);
    assert_eq!(listens(&actual), Some(None));
    let id = mappings[0].id.adapter.clone();
    actual.apply(&Step::Listen { id: id.clone(), socket_owner: None });
    assert_eq!(listens(&actual), None);
    // LUNs come and go; with the last one the door closes.
    for (mapping, is_left) in mappings.iter().zip([true, false]) {
        let id = mapping.id.clone();
        actual.apply(&Step::CloseMapping { id, device: mapping.device });
        assert_eq!(!actual.listening.is_empty(), is_left);
    }
}
