//! Pools in the desired state: what is kept of them, and of what is removed.

use model::pv::{PvState, PvView};
use model::{Leftover, PoolCreate, PoolName, PvAt};

use super::super::pools::{Found, no_pool, pool_create, pool_remove};
use super::*;

const GIB: u64 = 1 << 30;
const POOLED: Uuid = Uuid::from_u128(0x200 << 100);

pub(super) fn found(path: &str) -> Found {
    let probe = Probe {
        path: path.to_owned(),
        kind: Kind::BlockDevice,
        size: GIB,
        head: Vec::new(),
        holder: None,
        is_read_only: false,
    };
    let view = PvView { path: path.to_owned(), state: PvState::Free, ..PvView::default() };
    Found { probe, view }
}

pub(super) fn fast() -> PoolName {
    "fast".parse().unwrap()
}

pub(super) fn request() -> PoolCreate {
    let pvs = vec![PvAt::path("/dev/sdb"), PvAt::path("/dev/sdc")];
    PoolCreate {
        name: fast(),
        pvs,
        size: None,
        slab_size: None,
        extent_size: None,
        checksums: false,
        force: false,
    }
}

/// What is furnished, with pool fast and LU p in it.
fn with_pool() -> (Config, Vec<Mark>) {
    let mut numbers = 0x100..;
    let uuid = || Uuid::from_u128(numbers.next().unwrap());
    let disks = [found("/dev/sdb"), found("/dev/sdc")];
    let (config, marks) = pool_create(&furnished(), &request(), &disks, uuid).unwrap();
    let request = LuCreate { pool: Some(fast()), ..create("p") };
    (lu_create(&config, &request, POOLED).unwrap(), marks)
}

pub(super) fn pool_of(config: &Config) -> model::Pool {
    config.pool(&fast()).unwrap().clone()
}

#[test]
fn pools_are_kept_and_so_is_what_is_left_of_them() {
    let (disk, kv) = store();
    let mut state = load(&kv);
    let (config, marks) = with_pool();
    let pool = pool_of(&config);
    state.commit(config, &marks).unwrap();
    let again = load(&reopen(&disk));
    assert_eq!(again.config(), state.config());
    assert_eq!(again.making(), &[pool.uuid].into());
    state.mark(Mark::Made(pool.uuid)).unwrap();
    assert!(load(&reopen(&disk)).making().is_empty());

    let (next, marks) = lu_remove(state.config(), &lu("p")).unwrap();
    assert_eq!(marks, [Mark::Leftover(POOLED, Leftover::Lu { pool: pool.uuid })]);
    state.commit(next, &marks).unwrap();
    let (next, marks) = pool_remove(state.config(), &fast()).unwrap();
    let before = state.config().clone();
    state.commit(next, &marks).unwrap();
    let again = load(&reopen(&disk));
    assert_eq!(again.leftovers(), state.leftovers());
    assert_eq!(again.leftovers()[&pool.uuid], Leftover::Pool { pool: pool.clone() });
    // It does not come back before it is gone.
    let error = state.commit(before, &[]).unwrap_err();
    assert_eq!(error.message, "pool 'fast' is still being removed");
    state.mark(Mark::Gone(pool.uuid)).unwrap();
    assert!(!load(&reopen(&disk)).leftovers().contains_key(&pool.uuid));
}

#[test]
fn an_import_that_is_cut_short_leaves_what_it_had_in_its_pool() {
    let (disk, kv) = store();
    let (uuid, left) = (Uuid::from_u128(1), Leftover::Lu { pool: Uuid::from_u128(2) });
    load(&kv).mark(Mark::Importing(uuid, left.clone())).unwrap();
    let again = load(&reopen(&disk));
    assert_eq!(again.leftovers(), &[(uuid, left)].into());
}

#[test]
fn what_an_older_program_wrote_is_opened_and_written_anew() {
    let (disk, kv) = store();
    load(&kv).commit(furnished(), &[]).unwrap();
    let mut head: Head = decode(&kv.get(HEAD).unwrap().unwrap()).unwrap();
    head.version = 1;
    kv.transact(&Transaction::new().put(HEAD, encode(&head).unwrap())).unwrap();
    let kv = reopen(&disk);
    let mut state = load(&kv);
    assert_eq!(state.config().lus, furnished().lus);
    let (config, marks) = with_pool();
    state.commit(config, &marks).unwrap();
    let head: Head = decode(&kv.get(HEAD).unwrap().unwrap()).unwrap();
    assert_eq!(head.version, CONFIG_VERSION);
}

#[test]
fn a_pool_with_lus_stays_and_a_document_takes_none_away_unasked() {
    let (config, _) = with_pool();
    refused(
        pool_remove(&config, &fast()),
        expect![[r#"
        Conflict: pool 'fast' has LUs: p
          next: viaduct lu rm p"#]],
    );
    let bare = furnished();
    refused(
        restore(&config, &restoring(&bare, false)),
        expect![[r#"
        Conflict: the document does not have the LUs p, which are here
          next: viaduct config restore --prune removes them with their data"#]],
    );
    let mut lus = bare.clone();
    lus.pools.clone_from(&config.pools);
    refused(
        restore(&lus, &restoring(&bare, false)),
        expect![[r#"
        Conflict: the document does not have the pools fast, which are here
          next: viaduct config restore --prune removes them with their data"#]],
    );
    let (_, marks, outcome) = restore(&config, &restoring(&bare, true)).unwrap();
    let pool = pool_of(&config);
    let gone = [
        Mark::Leftover(POOLED, Leftover::Lu { pool: pool.uuid }),
        Mark::Leftover(pool.uuid, Leftover::Pool { pool: pool.clone() }),
    ];
    assert_eq!((marks, outcome.removed), (gone.to_vec(), 2));
    let mut other = config.clone();
    other.pools[0].pvs.truncate(1);
    refused(
        restore(&config, &restoring(&other, true)),
        expect![[r#"
        Conflict: the document has pool 'fast' otherwise than it is
          next: viaduct pool show fast shows what it is"#]],
    );
}

#[test]
fn disks_and_pools_that_contradict_each_other_are_refused() {
    let (config, _) = with_pool();
    let add = |config: &Config, name: &str, found: &[Found]| {
        let request = PoolCreate { name: name.parse().unwrap(), ..request() };
        let mut numbers = 0x900..;
        pool_create(config, &request, found, || Uuid::from_u128(numbers.next().unwrap()))
    };
    refused(
        add(&config, "fast", &[found("/dev/sdd")]),
        expect![[r#"
        Conflict: pool 'fast' exists already
          next: choose another name; viaduct pool show fast shows the one there is"#]],
    );
    refused(
        add(&config, "slow", &[found("/dev/sdb")]),
        expect![[r#"
        Conflict: /dev/sdb is in use: pool fast
          next: viaduct pv ls shows the disks that are free"#]],
    );
    refused(
        add(&config, "slow", &[found("/dev/sdd"), found("/dev/sdd")]),
        expect![[r#"
        Usage: /dev/sdd and /dev/sdd are one disk
          next: name each disk once"#]],
    );
    let path = |name: &str, wwid: &str| {
        let mut found = found(name);
        found.view.wwid = Some(wwid.to_owned());
        found
    };
    let paths = [path("/dev/sdd", "naa.1"), path("/dev/sde", "naa.1")];
    refused(
        add(&config, "slow", &paths),
        expect![[r#"
        Usage: /dev/sde and /dev/sdd are one disk
          next: name each disk once"#]],
    );
    let mut small = found("/dev/sdd");
    small.probe.size = 1 << 20;
    let error = add(&config, "slow", &[small]).unwrap_err();
    assert!(error.message.contains("/dev/sdd cannot be in pool 'slow': it has room for no slab"));
    let mut used = found("/dev/sdd");
    used.view.used_by.push("mounted on /".to_owned());
    refused(
        add(&config, "slow", &[used]),
        expect![[r#"
        Conflict: /dev/sdd is in use: mounted on /
          next: viaduct pv ls shows the disks that are free"#]],
    );
    let mut full = found("/dev/sdd");
    (full.view.state, full.view.holds) = (PvState::Data, vec!["LVM member".to_owned()]);
    refused(
        add(&config, "slow", &[full]),
        expect![[r#"
        Conflict: /dev/sdd holds data: LVM member
          next: choose another disk; viaduct pool create slow --pv /dev/sdd --force takes it, and what it holds is lost"#]],
    );
}

#[test]
fn documents_that_contradict_themselves_are_refused() {
    let (config, _) = with_pool();
    let mut twice = config.clone();
    twice.pools.push(model::Pool { name: "slow".parse().unwrap(), ..pool_of(&config) });
    let error = validate::config(&twice).unwrap_err();
    assert!(error.message.contains("pool 'slow' or a disk of it has UUID"), "{error}");
    let mut nowhere = config.clone();
    nowhere.pools.clear();
    refused(
        validate::config(&nowhere),
        expect!["Conflict: LU 'p' is in pool 'fast', which does not exist"],
    );
    let mut adopted = config.clone();
    adopted.lus[0].backing = Backing::Adopted { path: "/dev/sdb".to_owned() };
    refused(
        validate::config(&adopted),
        expect!["Conflict: LU 'a' is /dev/sdb, a disk of pool 'fast'"],
    );
    assert!(no_pool(&fast()).message.contains("no pool 'fast'"));
}

#[test]
fn an_empty_pool_of_the_node_itself_gives_way_to_a_document() {
    let own = |number: u128| {
        let mut numbers = number..;
        let size = Some(Size::gib(4));
        let request =
            PoolCreate { name: "default".parse().unwrap(), pvs: Vec::new(), size, ..request() };
        let uuid = || Uuid::from_u128(numbers.next().unwrap());
        pool_create(&Config::default(), &request, &[], uuid).unwrap().0
    };
    let (here, other) = (own(0x300), own(0x400));
    let pool = here.pools[0].clone();
    let gone = [Mark::Leftover(pool.uuid, Leftover::Pool { pool })];
    let saved = lu_create(&other, &create("a"), Uuid::from_u128(1)).unwrap();
    assert_eq!(saved.lus[0].backing.pool().unwrap().as_str(), "default");
    for document in [&saved, &furnished(), &Config::default()] {
        let (next, marks, _) = restore(&here, &restoring(document, false)).unwrap();
        assert_eq!((&next.pools, &marks[..]), (&document.pools, &gone[..]));
        validate::config(&next).unwrap();
    }
    // One with LUs does not, and neither does one of disks.
    let used = lu_create(&here, &create("b"), Uuid::from_u128(2)).unwrap();
    let error = restore(&used, &restoring(&saved, false)).unwrap_err();
    assert!(error.message.contains("does not have the LUs b"), "{error}");
    let mut of_disks = with_pool().0;
    of_disks.lus.clear();
    of_disks.mappings.clear();
    of_disks.pools[0].name = "default".parse().unwrap();
    let error = restore(&of_disks, &restoring(&Config::default(), false)).unwrap_err();
    assert!(error.message.contains("does not have the pools default"), "{error}");
}
