//! The embedded store against the suite, and against death: killed at any write, with power lost at
//! any write, it opens with the last committed state.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::backing::MemoryBacking;
use crate::conformance::{CASES, Fixture};
use crate::range_all;

struct Embedding {
    kv: Embedded,
    now_ms: Arc<AtomicU64>,
}

impl Fixture for Embedding {
    fn kv(&self) -> &dyn Kv {
        &self.kv
    }

    fn pass(&self, time: Duration) {
        self.now_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

fn frozen() -> Clock {
    Arc::new(|| Duration::ZERO)
}

fn create() -> (MemoryBacking, Embedded) {
    let disk = MemoryBacking::new();
    let kv = Embedded::create(disk.clone(), frozen()).unwrap();
    (disk, kv)
}

fn open(backing: &MemoryBacking) -> Result<Embedded, Error> {
    Embedded::open(backing.clone(), frozen())
}

#[test]
fn the_conformance_suite() {
    for (name, case) in CASES {
        println!("{name}");
        let now_ms = Arc::new(AtomicU64::new(0));
        let ticking = Arc::clone(&now_ms);
        let clock: Clock = Arc::new(move || Duration::from_millis(ticking.load(Ordering::SeqCst)));
        let kv = Embedded::create(MemoryBacking::new(), clock).unwrap();
        case(&Embedding { kv, now_ms });
    }
}

#[test]
fn state_revision_and_leases_survive_a_restart() {
    let (disk, kv) = create();
    let lease = kv.lease_grant(Duration::from_secs(5)).unwrap();
    let (key, value) = ("leased".to_owned(), b"1".to_vec());
    let operations = vec![Operation::Put { key, value, lease: Some(lease) }];
    kv.transact(&Transaction { compare: Vec::new(), operations }).unwrap();
    kv.transact(&Transaction::new().put("a", "1")).unwrap();
    drop(kv);

    let now_ms = Arc::new(AtomicU64::new(1_000_000));
    let ticking = Arc::clone(&now_ms);
    let clock: Clock = Arc::new(move || Duration::from_millis(ticking.load(Ordering::SeqCst)));
    let kv = Embedded::open(disk, clock).unwrap();
    assert_eq!(kv.revision().unwrap(), 2);
    now_ms.fetch_add(4_999, Ordering::SeqCst);
    assert!(kv.get("leased").unwrap().is_some(), "the lease begins anew with the store");
    now_ms.fetch_add(1, Ordering::SeqCst);
    assert!(kv.get("leased").unwrap().is_none());
    assert!(kv.get("a").unwrap().is_some());
}

#[test]
fn it_lives_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kv.redb");
    let options = rt::OpenOptions { create_new: true, ..rt::OpenOptions::write() };
    let file = rt::FileHandle::open(&path, options).unwrap();
    let kv = Embedded::create(file, frozen()).unwrap();
    kv.transact(&Transaction::new().put("a", "1")).unwrap();
    drop(kv);
    let file = rt::FileHandle::open(&path, rt::OpenOptions::write()).unwrap();
    let kv = Embedded::open(file, frozen()).unwrap();
    assert_eq!(kv.get("a").unwrap().unwrap().value, b"1");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let (disk, kv) = create();
    kv.transact(&Transaction::new().put("a", "1")).unwrap();
    let write = begin(&kv.shared.database).unwrap();
    write.open_table(META).unwrap().insert("format", 2).unwrap();
    write.commit().unwrap();
    drop(kv);
    let Err(error) = open(&disk) else { panic!("a newer format was opened") };
    assert_eq!(
        error.to_string(),
        "the store was written in format 2, and this program knows formats up to 1; start the \
         release that wrote it, or a later one"
    );
}

#[test]
fn what_is_no_store_is_refused() {
    let disk = MemoryBacking::new();
    disk.write_at(0, &[0x5a; 8192]).unwrap();
    assert!(matches!(open(&disk), Err(Error::Damaged(_))));
    assert!(matches!(open(&MemoryBacking::new()), Err(Error::Damaged(_))));
}

#[test]
fn death_while_it_is_made_leaves_nothing_that_opens_half_made() {
    let (disk, kv) = create();
    drop(kv);
    for step in 0..disk.steps() {
        let disk = MemoryBacking::new();
        disk.die_at(step);
        if Embedded::create(disk.clone(), frozen()).is_ok() {
            continue;
        }
        for left in [disk.after_kill(), disk.after_power_loss(step)] {
            if let Ok(kv) = open(&left) {
                kv.transact(&Transaction::new().put("a", "1")).unwrap();
            }
            let again = Embedded::create(left, frozen()).unwrap();
            assert_eq!(again.revision().unwrap(), 0);
        }
    }
}

#[test]
fn a_store_that_failed_takes_no_more_and_says_so() {
    let (disk, kv) = create();
    kv.transact(&Transaction::new().put("a", "1")).unwrap();
    disk.die_at(disk.steps());
    assert!(matches!(kv.transact(&Transaction::new().put("a", "2")), Err(Error::Io(_))));
    assert!(matches!(kv.transact(&Transaction::new().put("a", "3")), Err(Error::Stopped)));
}

#[test]
fn history_is_bounded_and_its_end_is_told() {
    let (_disk, kv) = create();
    let mut early = kv.watch("", 1, Arc::new(|| {})).unwrap();
    // The first revisions are forgotten without writing ten thousand of them.
    let write = begin(&kv.shared.database).unwrap();
    write.open_table(META).unwrap().insert("revision", HISTORY_REVISIONS_MAX).unwrap();
    write.commit().unwrap();
    kv.transact(&Transaction::new().put("a", "1")).unwrap();
    kv.transact(&Transaction::new().put("a", "2")).unwrap();
    assert!(matches!(early.poll(), Err(Error::Compacted { oldest: 3 })));
    assert!(matches!(kv.watch("", 2, Arc::new(|| {})), Err(Error::Compacted { .. })));
    assert_eq!(kv.watch("", 3, Arc::new(|| {})).unwrap().poll().unwrap().len(), 2);
}

#[test]
fn a_long_history_is_told_in_pieces_without_a_gap() {
    let (_disk, kv) = create();
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    for _ in 0..20 {
        let txn = (0..100).fold(Transaction::new(), |txn, i| txn.put(format!("k{i}"), "v"));
        kv.transact(&txn).unwrap();
    }
    let notify: Notify = Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let mut watch = kv.watch("", 1, notify).unwrap();
    let mut seen = Vec::new();
    loop {
        let changes = watch.poll().unwrap();
        if changes.is_empty() {
            break;
        }
        seen.extend(changes.into_iter().map(|change| change.revision));
    }
    assert_eq!(seen.len(), 2000);
    assert!(seen.is_sorted());
    assert!(calls.load(Ordering::SeqCst) >= 1, "a cut answer asks to be called again");
}

/// The state after each of a row of transactions, which put, change and delete.
fn workload() -> Vec<(Transaction, BTreeMap<String, Vec<u8>>)> {
    let mut state = BTreeMap::new();
    let mut rows = Vec::new();
    for step in 0u32..12 {
        let mut txn = Transaction::new();
        let value = vec![step as u8; 200 + 700 * (step as usize % 3)];
        for part in 0..3 {
            let key = format!("/k/{}", (step + part) % 5);
            txn = txn.put(key.clone(), value.clone());
            state.insert(key, value.clone());
        }
        let gone = format!("/k/{}", (step + 3) % 5);
        txn = txn.delete(gone.clone());
        state.remove(&gone);
        rows.push((txn, state.clone()));
    }
    rows
}

/// Runs the workload until the disk dies; the number of transactions that were answered.
fn run_until_death(disk: &MemoryBacking) -> usize {
    let Ok(kv) = open(disk) else { return 0 };
    let mut answered = 0;
    for (txn, _) in workload() {
        match kv.transact(&txn) {
            Ok(Outcome::Committed { .. }) => answered += 1,
            Ok(Outcome::Refused { .. }) => panic!("nothing was compared"),
            Err(_) => break,
        }
    }
    answered
}

fn check_survivor(disk: &MemoryBacking, answered: usize) {
    let kv = open(disk).unwrap_or_else(|error| panic!("after {answered} commits: {error}"));
    let revision = kv.revision().unwrap() as usize;
    // The one in flight may have become durable without an answer.
    assert!((answered..=answered + 1).contains(&revision), "{answered} answered, {revision} kept");
    let found: BTreeMap<_, _> =
        range_all(&kv, "/k/").unwrap().into_iter().map(|e| (e.key, e.value)).collect();
    let expected = workload().into_iter().nth(revision.wrapping_sub(1)).map(|(_, state)| state);
    assert_eq!(found, expected.unwrap_or_default());
    kv.transact(&Transaction::new().put("/after", "1")).unwrap();
}

/// The disk of a store that was just made, and the steps that the workload takes on it.
fn newborn() -> (MemoryBacking, u64) {
    let (disk, kv) = create();
    drop(kv);
    let disk = disk.after_kill();
    let whole = disk.after_kill();
    assert_eq!(run_until_death(&whole), workload().len());
    (disk, whole.steps())
}

#[test]
fn killed_at_any_write_it_opens_with_the_last_committed_state() {
    let (newborn, steps) = newborn();
    assert!(steps > 50);
    for step in 0..steps {
        let disk = newborn.after_kill();
        disk.die_at(step);
        let answered = run_until_death(&disk);
        check_survivor(&disk.after_kill(), answered);
    }
}

#[test]
fn power_lost_at_any_write_it_opens_with_the_last_committed_state() {
    let (newborn, steps) = newborn();
    for step in 0..steps {
        let disk = newborn.after_kill();
        disk.die_at(step);
        let answered = run_until_death(&disk);
        for seed in 0..4 {
            check_survivor(&disk.after_power_loss(step * 1000 + seed), answered);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_behaves_like_a_map(
        steps in prop::collection::vec((0u8..6, prop::option::of(0u8..4), any::<bool>()), 1..40)
    ) {
        let (disk, mut kv) = create();
        let mut map: BTreeMap<String, (Vec<u8>, Revision)> = BTreeMap::new();
        let mut revision = 0;
        for (key, put, restart) in steps {
            let key = format!("k{key}");
            let base = map.get(&key).map(|(_, revision)| *revision);
            let txn = match base {
                Some(base) => Transaction::new().unchanged(&key, base),
                None => Transaction::new().absent(&key),
            };
            match put {
                Some(value) => {
                    kv.transact(&txn.put(&key, vec![value])).unwrap();
                    revision += 1;
                    map.insert(key, (vec![value], revision));
                }
                None => {
                    kv.transact(&txn.delete(&key)).unwrap();
                    revision += u64::from(map.remove(&key).is_some());
                }
            }
            if restart {
                drop(kv);
                kv = open(&disk).unwrap();
            }
            prop_assert_eq!(kv.revision().unwrap(), revision);
        }
        let found: BTreeMap<_, _> = range_all(&kv, "").unwrap().into_iter()
            .map(|entry| (entry.key, (entry.value, entry.mod_revision))).collect();
        prop_assert_eq!(found, map);
    }
}
