//! LUs on their way into a pool.

use super::*;
use crate::desired::MigrationSpec;
use crate::plan::Moved;

const POOL: u8 = 20;

fn migration(from: Option<Backing>) -> Option<MigrationSpec> {
    Some(MigrationSpec { pool: uuid(POOL), from, size: Size::gib(1), rate: Size::ZERO })
}

fn wanted(device: &DeviceSpec) -> Desired {
    let pools = [(uuid(POOL), pool(POOL, true))].into();
    let mappings = [mapping(1, 2, 1)];
    Desired { pools, ..desired(std::slice::from_ref(device), &mappings) }
}

/// What is done one after the other, with what is kept of it in between.
fn steps(desired: &Desired, actual: &mut Actual) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let ready: Vec<Step> = plan(desired, actual, NOW).ready().cloned().collect();
        // What waits for its end to be kept is planned again.
        let new: Vec<Step> =
            ready.into_iter().filter(|step| !all.contains(&step.to_string())).collect();
        if new.is_empty() {
            return all;
        }
        for step in new {
            all.push(step.to_string());
            actual.apply(&step);
        }
    }
}

#[test]
fn an_lu_enters_a_pool_under_its_mapping() {
    let was = device(1);
    let mut actual = settled(&wanted(&was));

    let coming = DeviceSpec { migration: migration(None), ..was.clone() };
    assert_eq!(
        steps(&wanted(&coming), &mut actual),
        ["make what lu1 is brought into (1GiB)"],
        "where it is served does not change before that is kept"
    );
    let there = in_pool(1, POOL);
    let over = DeviceSpec { migration: migration(Some(Backing::File)), ..there.clone() };
    let grown = DeviceSpec { size: Size::gib(2), ..over.clone() };
    assert!(grown.is_change_in_place(&was));
    let first: Vec<String> =
        plan(&wanted(&grown), &actual, NOW).steps.iter().map(|it| it.step.to_string()).collect();
    assert_eq!(first, ["serve lu1 from pool pool20 (2GiB)"], "another size comes later");
    assert_eq!(
        steps(&wanted(&over), &mut actual),
        ["serve lu1 from pool pool20 (1GiB)", "bring lu1 into its pool"]
    );
    assert_eq!(steps(&wanted(&there), &mut actual), Vec::<String>::new());
    // Its file is deleted only now.
    let left = Leftover::Moved { lu: uuid(1), pool: None };
    actual.leftovers.insert(Leftover::moved_key(uuid(1)), left);
    let kept = plan(&wanted(&over), &actual, NOW).steps;
    let is_removal = |it: &Planned| matches!(it.step, Step::RemoveMoved { .. });
    assert!(!kept.iter().any(is_removal), "it is read there still");
    assert!(!plan(&wanted(&was), &actual, NOW).steps.iter().any(is_removal));
    let gone = Step::RemoveMoved { lu: uuid(1), from: Moved::File };
    let ready: Vec<Step> = plan(&wanted(&there), &actual, NOW).ready().cloned().collect();
    assert_eq!(ready, [gone]);
}

#[test]
fn a_restart_opens_it_where_it_is_by_what_is_kept() {
    let coming = DeviceSpec { migration: migration(None), ..device(1) };
    let made: BTreeSet<Uuid> = [uuid(1), uuid(POOL)].into();
    let mut actual = Actual { made: made.clone(), ..Actual::default() };
    assert_eq!(
        steps(&wanted(&coming), &mut actual),
        [
            "open pool pool20",
            "open device lu1 (file)",
            "make what lu1 is brought into (1GiB)",
            "open vhost-user-blk mapping vm1-2 of lu1"
        ]
    );
    let over = DeviceSpec { migration: migration(Some(Backing::File)), ..in_pool(1, POOL) };
    let mut actual = Actual { made, ..Actual::default() };
    assert_eq!(
        steps(&wanted(&over), &mut actual),
        [
            "open pool pool20",
            "open device lu1 (pool pool20)",
            "bring lu1 into its pool",
            "open vhost-user-blk mapping vm1-2 of lu1"
        ]
    );
}

#[test]
fn what_was_given_up_leaves_the_pool_when_nobody_makes_it() {
    let coming = DeviceSpec { migration: migration(None), ..device(1) };
    let mut actual = settled(&wanted(&device(1)));
    let make = plan(&wanted(&coming), &actual, NOW).ready().next().cloned().unwrap();
    actual.begin(&make);
    let left = Leftover::Moved { lu: uuid(1), pool: Some(uuid(POOL)) };
    actual.leftovers.insert(Leftover::moved_key(uuid(1)), left);
    let stays = wanted(&device(1));
    assert_eq!(plan(&stays, &actual, NOW).ready().next(), None, "it is being made");
    actual.apply(&make);
    let gone = Step::RemoveMoved { lu: uuid(1), from: Moved::Pool(uuid(POOL)) };
    assert_eq!(plan(&stays, &actual, NOW).ready().next(), Some(&gone));
    actual.apply(&gone);
    assert!(plan(&stays, &actual, NOW).is_empty());
}
