//! Plans as people read them, and the promise behind them: from any state that a node can be in,
//! doing what is ready in any order leads to what is wanted, without ever pulling something away
//! from under its user.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use model::{BlockSize, SocketOwner, Via};
use proptest::prelude::*;

use super::*;

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
        read_only: false,
        removable: false,
        shareable: false,
        backing: Backing::File,
    }
}

fn adapter(client: u8, slot: u16, device: u8) -> AdapterSpec {
    AdapterSpec {
        id: AdapterId {
            client: format!("vm{client}").parse().unwrap(),
            slot: slot.try_into().unwrap(),
        },
        via: Via::VhostUserBlk,
        device: uuid(device),
        read_only: false,
        socket_owner: None,
    }
}

fn desired(devices: &[DeviceSpec], adapters: &[AdapterSpec]) -> Desired {
    Desired {
        revision: 7,
        devices: devices.iter().map(|d| (d.uuid, d.clone())).collect(),
        adapters: adapters.iter().map(|a| (a.id.clone(), a.clone())).collect(),
    }
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
fn from_nothing() {
    let wanted = desired(&[device(1)], &[adapter(1, 2, 1)]);
    prints(
        &plan(&wanted, &Actual::default(), NOW),
        expect![[r#"
            revision 7: 3 steps
              make the file of lu1 (1GiB)
              open device lu1 (file) (waits for device 00000000-0000-0000-0000-000000000001)
              open vhost-user-blk adapter vm1-2 on lu1 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
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
fn a_change_of_size_and_cache_closes_nothing() {
    let before = desired(&[device(1)], &[adapter(1, 2, 1)]);
    let actual = settled(&before);
    let larger = DeviceSpec { size: Size::gib(2), cache: Cache::Writethrough, ..device(1) };
    let after = desired(&[larger], &[adapter(1, 2, 1)]);
    prints(
        &plan(&after, &actual, NOW),
        expect![[r#"
            revision 7: 2 steps
              resize device lu1 from 1GiB to 2GiB
              set the cache of device lu1 to writethrough (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn a_change_of_anything_else_closes_and_opens() {
    let actual = settled(&desired(&[device(1)], &[adapter(1, 2, 1)]));
    let after = desired(&[DeviceSpec { read_only: true, ..device(1) }], &[adapter(1, 2, 1)]);
    prints(
        &plan(&after, &actual, NOW),
        expect![[r#"
            revision 7: 4 steps
              close adapter vm1-2
              close device lu1 (waits for adapter vm1-2)
              open device lu1 (file) (waits for device 00000000-0000-0000-0000-000000000001)
              open vhost-user-blk adapter vm1-2 on lu1 (waits for adapter vm1-2)"#]],
    );
}

#[test]
fn removal_deletes_only_files_of_removed_lus() {
    let mut actual = settled(&desired(&[device(1), device(2)], &[adapter(1, 2, 1)]));
    actual.leftovers.insert(uuid(1));
    // LU 2 vanished from the configuration without having been removed: its file stays.
    prints(
        &plan(&desired(&[], &[]), &actual, NOW),
        expect![[r#"
            revision 7: 4 steps
              close adapter vm1-2
              close device lu1 (waits for adapter vm1-2)
              close device lu2
              delete the file of removed LU 00000000-0000-0000-0000-000000000001 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn what_failed_waits_and_what_is_under_way_is_not_begun_twice() {
    let wanted = desired(&[device(1), device(2), device(3)], &[adapter(1, 2, 1)]);
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
              open vhost-user-blk adapter vm1-2 on lu1 (waits for device 00000000-0000-0000-0000-000000000001)"#]],
    );
}

#[test]
fn a_device_outlives_an_adapter_that_is_being_opened() {
    let before = desired(&[device(1)], &[adapter(1, 2, 1)]);
    let mut actual = settled(&desired(&[device(1)], &[]));
    let step = plan(&before, &actual, NOW).ready().next().cloned().unwrap();
    actual.begin(&step);
    prints(
        &plan(&desired(&[], &[]), &actual, NOW),
        expect![[r#"
            revision 7: 1 steps
              close device lu1 (waits for adapter vm1-2)"#]],
    );
    actual.apply(&step);
    settle(&desired(&[], &[]), &mut actual);
}

/// A few devices and adapters in all their variations.
fn any_desired() -> impl Strategy<Value = Desired> {
    let devices =
        prop::collection::btree_map(0u8..5, (1u64..3, any::<bool>(), any::<bool>(), 0u8..3), 0..5);
    let adapters = prop::collection::btree_map(
        (0u8..3, 2u16..4),
        (0u8..5, any::<bool>(), any::<bool>()),
        0..5,
    );
    (devices, adapters).prop_map(|(devices, adapters)| {
        let devices: BTreeMap<u8, DeviceSpec> = devices
            .into_iter()
            .map(|(number, (gib, writethrough, read_only, backing))| {
                let spec = DeviceSpec {
                    size: Size::gib(gib),
                    cache: if writethrough { Cache::Writethrough } else { Cache::Writeback },
                    read_only,
                    backing: match backing {
                        0 => Backing::File,
                        1 => Backing::Memory,
                        _ => Backing::Adopted { path: format!("/dev/{number}") },
                    },
                    ..device(number)
                };
                (number, spec)
            })
            .collect();
        let adapters: Vec<AdapterSpec> = adapters
            .into_iter()
            .filter(|(_, (number, ..))| devices.contains_key(number))
            .map(|((client, slot), (number, read_only, owned))| AdapterSpec {
                read_only,
                socket_owner: owned.then(|| "qemu:kvm".parse::<SocketOwner>().unwrap()),
                ..adapter(client, slot, number)
            })
            .collect();
        desired(&devices.into_values().collect::<Vec<_>>(), &adapters)
    })
}

/// What must hold whenever a step begins, whatever went before.
fn check_step(actual: &Actual, step: &Step) {
    assert!(!actual.busy.contains_key(&step.part()), "{step}: two steps on one part");
    let opening = actual.busy.values().filter_map(|step| match step {
        Step::OpenAdapter { adapter, .. } => Some(adapter.device),
        _ => None,
    });
    let mut used: Vec<Uuid> = actual.adapters.values().map(|a| a.device).collect();
    used.extend(opening);
    match step {
        Step::CloseDevice { uuid, .. } => assert!(!used.contains(uuid), "{step}: in use"),
        Step::RemoveBacking { uuid } => {
            assert!(actual.leftovers.contains(uuid), "{step}: never removed");
            assert!(!actual.devices.contains_key(uuid), "{step}: open");
        }
        Step::CreateBacking { device } => {
            assert!(!actual.made.contains(&device.uuid), "{step}: made before");
        }
        Step::OpenDevice { device } => {
            assert!(!actual.devices.contains_key(&device.uuid), "{step}: open twice");
            let is_there = device.backing != Backing::File || actual.made.contains(&device.uuid);
            assert!(is_there, "{step}: no file");
        }
        Step::OpenAdapter { adapter, .. } => {
            assert!(!actual.adapters.contains_key(&adapter.id), "{step}: open twice");
            assert!(actual.devices.contains_key(&adapter.device), "{step}: no device");
            let device = Part::Device(adapter.device);
            assert!(!actual.busy.contains_key(&device), "{step}: its device is not at rest");
        }
        Step::CloseAdapter { .. } | Step::Resize { .. } | Step::SetCache { .. } => {}
    }
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
        Turn::Want(next) => {
            for (uuid, device) in &wanted.devices {
                // An LU that is removed leaves its file; its UUID never comes back.
                if !next.devices.contains_key(uuid) && device.backing == Backing::File {
                    actual.leftovers.insert(*uuid);
                }
            }
            *wanted = next;
            wanted.devices.retain(|uuid, _| !actual.leftovers.contains(uuid));
            let devices = wanted.devices.clone();
            wanted.adapters.retain(|_, adapter| devices.contains_key(&adapter.device));
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
        prop_assert_eq!(&actual.devices, &wanted.devices);
        prop_assert_eq!(&actual.adapters, &wanted.adapters);
        prop_assert!(actual.leftovers.is_empty() && actual.failed.is_empty());
    }

    #[test]
    fn a_plan_depends_on_nothing_else(first in any_desired(), second in any_desired()) {
        let actual = settled(&first);
        prop_assert_eq!(plan(&second, &actual, NOW), plan(&second, &actual, NOW));
    }
}
