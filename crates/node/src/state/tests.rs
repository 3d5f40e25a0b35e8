//! Changes of the desired state: what they refuse and how they say it, that they are durable, that
//! no writer overwrites another, and that a crash between any two writes leaves a whole
//! configuration.

mod iscsi;
mod pool_import;
mod pool_pvs;
mod pools;

use std::time::Duration;

use expect_test::{Expect, expect};
use kv::Embedded;
use kv::backing::MemoryBacking;
use model::config::ConfigRestore;
use model::{Backing, ClientName, LuAdopt, LuCreate, LuName, LuResize, MapRequest, Size, Via};
use proptest::prelude::*;

use super::ops::*;
use super::*;
use crate::probe::{Holder, Kind, Probe};

fn store() -> (MemoryBacking, Arc<dyn Kv>) {
    let disk = MemoryBacking::new();
    let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
    (disk.clone(), Arc::new(Embedded::create(disk, clock).unwrap()))
}

fn reopen(disk: &MemoryBacking) -> Arc<dyn Kv> {
    let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
    Arc::new(Embedded::open(disk.after_kill(), clock).unwrap())
}

fn load(kv: &Arc<dyn Kv>) -> State {
    State::load(Arc::clone(kv), Uuid::nil()).unwrap()
}

fn lu(name: &str) -> LuName {
    name.parse().unwrap()
}

fn client(name: &str) -> ClientName {
    name.parse().unwrap()
}

fn create(name: &str) -> LuCreate {
    serde_json::from_value(serde_json::json!({"name": name, "size": "1GiB"})).unwrap()
}

fn map_request(name: &str, to: &str, slot: Option<u16>) -> MapRequest {
    let slot = slot.map(|slot| slot.try_into().unwrap());
    let (lu, client, via) = (lu(name), client(to), Via::VhostUserBlk);
    MapRequest { lu, client, via, slot, lun: None, read_only: false }
}

/// LUs a, b and s (shareable), clients vm1 and vm2; a is mapped to vm1 at slot 2.
fn furnished() -> Config {
    let mut config = Config::default();
    for (number, name) in ["a", "b", "s"].into_iter().enumerate() {
        let request = LuCreate { shareable: name == "s", ..create(name) };
        config = lu_create(&config, &request, Uuid::from_u128((number as u128) << 100)).unwrap();
    }
    for name in ["vm1", "vm2"] {
        let client = serde_json::from_value(serde_json::json!({"name": name})).unwrap();
        config = client_create(&config, &client).unwrap();
    }
    map(&config, &map_request("a", "vm1", None)).unwrap().0
}

fn probe() -> Probe {
    Probe {
        path: "/images/old.img".to_owned(),
        kind: Kind::File,
        size: 1 << 30,
        head: vec![0; 512],
        holder: None,
        is_read_only: false,
    }
}

fn adopt_request() -> LuAdopt {
    serde_json::from_value(serde_json::json!({"path": "/images/old.img"})).unwrap()
}

fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>, expected: Expect) {
    let error = result.unwrap_err();
    expected.assert_eq(&format!("{:?}: {error}", error.kind));
}

#[test]
fn what_lu_commands_refuse() {
    let config = furnished();
    refused(
        lu_create(&config, &create("a"), Uuid::max()),
        expect![[r#"
            Conflict: LU 'a' exists already
              next: choose another name; viaduct lu show a shows the one there is"#]],
    );
    let twin = LuCreate { serial: Some(config.lus[0].serial.clone()), ..create("c") };
    let error = lu_create(&config, &twin, Uuid::max()).unwrap_err();
    assert!(error.message.contains("a guest would take both for one disk"), "{error}");
    refused(
        lu_remove(&config, &lu("a")),
        expect![[r#"
            Conflict: LU 'a' is mapped to client 'vm1' at slot 2
              next: viaduct unmap a --from vm1"#]],
    );
    refused(
        lu_remove(&config, &lu("x")),
        expect![[r#"
            NotFound: there is no LU 'x'
              next: viaduct lu ls shows those that are there"#]],
    );
    let smaller = LuResize { size: Some(Size::mib(1)), shrink: false };
    refused(
        lu_resize(&config, &lu("a"), &smaller, None),
        expect![[r#"
            Conflict: 1MiB is less than the 1GiB that LU 'a' has; what lies behind it would be lost
              next: viaduct lu resize a --shrink, after the guest gave up that space"#]],
    );
    refused(
        lu_resize(&config, &lu("a"), &LuResize::default(), None),
        expect![[r#"
            Usage: say which size LU 'a' shall have
              next: viaduct lu resize a --size 2GiB"#]],
    );
    let odd = LuResize { size: Some(Size(Size::gib(2).bytes() + 1)), shrink: false };
    let error = lu_resize(&config, &lu("a"), &odd, None).unwrap_err();
    assert!(error.message.contains("not a multiple of its block size 512"), "{error}");
}

#[test]
fn what_adoption_refuses() {
    let config = Config::default();
    let adopt = |change: &dyn Fn(&mut Probe)| {
        let mut probe = probe();
        change(&mut probe);
        lu_adopt(&config, &adopt_request(), &probe, Uuid::max())
    };
    assert!(adopt(&|_| {}).is_ok());
    refused(
        adopt(&|probe| probe.head[..4].copy_from_slice(b"QFI\xfb")),
        expect![[r#"
            Usage: /images/old.img is a qcow2 image; only raw images and block devices can be adopted
              next: qemu-img convert -O raw /images/old.img NEW, then viaduct lu adopt NEW"#]],
    );
    refused(
        adopt(&|probe| probe.holder = Some(Holder::Node)),
        expect![[r#"
            Conflict: /images/old.img is in use: another viaduct node serves it
              next: viaduct lu rm on that node first, which keeps the data of an adopted image; if both nodes shall write it, adopt it --shareable on both"#]],
    );
    refused(
        adopt(&|probe| probe.holder = Some(Holder::Other)),
        expect![[r#"
            Conflict: /images/old.img is in use: a QEMU or another program holds its image lock
              next: stop its user, or adopt it --shareable if both shall write it"#]],
    );
    refused(
        adopt(&|probe| probe.is_read_only = true),
        expect![[r#"
            Conflict: /images/old.img cannot be written
              next: adopt it --read-only, or make it writable for the node"#]],
    );
    refused(
        adopt(&|probe| probe.size += 100),
        expect![[r#"
            Usage: the size of /images/old.img, 1073741924 bytes, is not a multiple of the block size 512
              next: truncate -s 1073742336 /images/old.img"#]],
    );
    refused(
        adopt(&|probe| probe.kind = Kind::Other),
        expect!["Usage: /images/old.img is neither a regular file nor a block device"],
    );
    refused(
        adopt(&|probe| probe.path = "/images/a b.img".to_owned()),
        expect![[r#"
            Usage: no name can be made of /images/a b.img: LU name 'a b' has ' ' in it; use only letters, digits, '.', '_' and '-'
              next: viaduct lu adopt /images/a b.img --name NAME"#]],
    );
    let once = adopt(&|_| {}).unwrap();
    let named = LuAdopt { name: Some(lu("again")), ..adopt_request() };
    // It is this node itself that holds it.
    let held = Probe { holder: Some(Holder::Node), ..probe() };
    refused(
        lu_adopt(&once, &named, &held, Uuid::nil()),
        expect!["Conflict: /images/old.img is adopted already, as LU 'old'"],
    );
}

#[test]
fn an_adopted_lu_has_the_size_of_its_image() {
    let config = lu_adopt(&Config::default(), &adopt_request(), &probe(), Uuid::max()).unwrap();
    assert_eq!((config.lus[0].name.as_str(), config.lus[0].size), ("old", Size::gib(1)));
    let larger = Probe { size: 3 << 30, ..probe() };
    let sized = LuResize { size: Some(Size::gib(3)), shrink: false };
    refused(
        lu_resize(&config, &lu("old"), &sized, Some(&larger)),
        expect![[r#"
            Usage: LU 'old' is adopted; its size is that of /images/old.img
              next: resize /images/old.img itself, then run viaduct lu resize old"#]],
    );
    let next = lu_resize(&config, &lu("old"), &LuResize::default(), Some(&larger)).unwrap();
    assert_eq!(next.lus[0].size, Size::gib(3));
    let (_, marks) = lu_remove(&next, &lu("old")).unwrap();
    assert_eq!(marks, [], "an adopted image stays");
}

#[test]
fn what_mapping_refuses() {
    let config = furnished();
    refused(
        map(&config, &map_request("a", "vm1", None)),
        expect!["Conflict: LU 'a' is mapped to client 'vm1' already"],
    );
    refused(
        map(&config, &map_request("a", "vm2", None)),
        expect![[r#"
            Conflict: LU 'a' is not shareable and is mapped to 'vm1' already
              next: viaduct unmap a --from vm1, or use an LU made --shareable"#]],
    );
    refused(
        map(&config, &map_request("b", "vm1", Some(2))),
        expect![[r#"
            Conflict: slot 2 of client 'vm1' is taken
              next: slot 3 is the lowest free one"#]],
    );
    refused(
        map(&config, &map_request("b", "vm3", None)),
        expect![[r#"
            NotFound: there is no client 'vm3'
              next: viaduct client ls shows those that are there; viaduct client create vm3"#]],
    );
    refused(
        map(&config, &MapRequest { lun: Some(1), ..map_request("b", "vm1", None) }),
        expect!["Usage: a vhost-user-blk adapter has only LUN 0, not 1"],
    );
    refused(
        unmap(&config, &lu("b"), &client("vm1"), None),
        expect![[r#"
            NotFound: LU 'b' is not mapped to client 'vm1'
              next: viaduct mapping ls shows what is mapped"#]],
    );
    refused(
        client_remove(&config, &client("vm1")),
        expect![[r#"
            Conflict: client 'vm1' has LU 'a' mapped
              next: viaduct unmap a --from vm1"#]],
    );
}

#[test]
fn a_shareable_lu_has_several_clients_and_the_lowest_slot_is_offered() {
    let config = furnished();
    let (config, first) = map(&config, &map_request("s", "vm1", None)).unwrap();
    let (config, second) = map(&config, &map_request("s", "vm2", None)).unwrap();
    assert_eq!((first.slot.number(), second.slot.number()), (3, 2));
    let (config, _) = unmap(&config, &lu("a"), &client("vm1"), None).unwrap();
    let (_, again) = map(&config, &map_request("b", "vm1", None)).unwrap();
    assert_eq!(again.slot.number(), 2);
}

#[test]
fn a_full_client_is_told_so() {
    let mut config = furnished();
    for number in 3..256u16 {
        let name = format!("l{number}");
        let uuid = Uuid::from_u128(u128::from(number) << 90);
        config = lu_create(&config, &create(&name), uuid).unwrap();
        config = map(&config, &map_request(&name, "vm1", None)).unwrap().0;
    }
    refused(
        map(&config, &map_request("b", "vm1", None)),
        expect![[r#"
            Conflict: all slots of client 'vm1' are taken
              next: viaduct client show vm1; unmap an LU that is not needed"#]],
    );
}

fn restoring(config: &Config, prune: bool) -> ConfigRestore {
    ConfigRestore { config: config.clone(), prune }
}

#[test]
fn restoring_never_takes_data_away_unasked() {
    let config = furnished();
    let mut less = config.clone();
    less.lus.retain(|lu| lu.name.as_str() != "b");
    refused(
        restore(&config, &restoring(&less, false)),
        expect![[r#"
            Conflict: the document does not have the LUs b, which are here
              next: viaduct config restore --prune removes them with their data"#]],
    );
    let (next, marks, outcome) = restore(&config, &restoring(&less, true)).unwrap();
    assert_eq!((next.lus.len(), outcome.removed), (2, 1));
    assert_eq!(marks, [Mark::Leftover(config.lus[1].uuid, Leftover::File)]);

    let mut smaller = config.clone();
    smaller.lus[0].size = Size::mib(1);
    refused(
        restore(&config, &restoring(&smaller, true)),
        expect![[r#"
            Conflict: the document gives LU 'a' 1MiB, less than the 1GiB that it has
              next: viaduct lu resize a --size 1MiB --shrink first"#]],
    );
    let mut other = config.clone();
    other.lus[0].backing = Backing::Memory;
    refused(
        restore(&config, &restoring(&other, true)),
        expect!["Conflict: the document gives LU 'a' another backing than it has"],
    );
    let mut newer = config.clone();
    newer.version = 9;
    refused(
        restore(&config, &restoring(&newer, true)),
        expect![[r#"
            Usage: the configuration document has version 9; this program knows versions 1 to 2
              next: use the release of viaduct that wrote it, or a later one"#]],
    );
    let (_, _, nothing) = restore(&config, &restoring(&config, false)).unwrap();
    assert_eq!((nothing.added, nothing.changed, nothing.removed), (0, 0, 0));
}

#[test]
fn what_is_committed_is_there_after_a_restart() {
    let (disk, kv) = store();
    let mut state = load(&kv);
    state.commit(furnished(), &[]).unwrap();
    let uuid = state.config().lus[0].uuid;
    state.mark(Mark::Made(uuid)).unwrap();
    let revision = state.config().revision;
    assert!(revision > 0);
    let again = load(&reopen(&disk));
    assert_eq!(again.config(), state.config());
    assert_eq!(again.made(), &[uuid].into());

    let (next, marks) = lu_remove(state.config(), &lu("b")).unwrap();
    state.commit(next, &marks).unwrap();
    assert!(state.config().revision > revision);
    let again = load(&reopen(&disk));
    assert_eq!(again.config(), state.config());
    assert_eq!(again.leftovers().len(), 1);
}

#[test]
fn of_two_writers_one_is_refused() {
    let (_, kv) = store();
    let (mut one, mut two) = (load(&kv), load(&kv));
    one.commit(furnished(), &[]).unwrap();
    let error = two.commit(furnished(), &[]).unwrap_err();
    assert_eq!(error.kind, model::ErrorKind::NotNow);
    assert_eq!(load(&kv).config(), one.config());
}

#[test]
fn a_contradiction_is_never_committed() {
    let (_, kv) = store();
    let mut state = load(&kv);
    let mut config = furnished();
    config.mappings[0].lu = lu("gone");
    let error = state.commit(config, &[]).unwrap_err();
    assert!(error.message.contains("'gone' does not exist"), "{error}");
    assert_eq!(load(&kv).config().lus, []);
}

#[test]
fn an_lu_whose_file_is_being_deleted_does_not_come_back() {
    let (_, kv) = store();
    let mut state = load(&kv);
    let before = furnished();
    state.commit(before.clone(), &[]).unwrap();
    let (next, marks) = lu_remove(state.config(), &lu("b")).unwrap();
    state.commit(next, &marks).unwrap();
    let (again, ..) = restore(state.config(), &restoring(&before, false)).unwrap();
    let error = state.commit(again.clone(), &[]).unwrap_err();
    assert!(error.message.contains("'b' is still being removed"), "{error}");
    state.mark(Mark::Gone(before.lus[1].uuid)).unwrap();
    state.commit(again, &[]).unwrap();
}

/// More objects than fit one transaction.
fn large() -> Config {
    let mut config = furnished();
    for number in 0..300u128 {
        let uuid = Uuid::from_u128((number + 100) << 90);
        config = lu_create(&config, &create(&format!("l{number}")), uuid).unwrap();
    }
    config
}

#[test]
fn a_large_change_is_made_as_a_whole() {
    let (disk, kv) = store();
    let mut state = load(&kv);
    state.commit(furnished(), &[]).unwrap();
    state.commit(large(), &[]).unwrap();
    assert_eq!(load(&reopen(&disk)).config(), state.config());
    let generations = range_all(kv.as_ref(), "/config/").unwrap();
    assert_eq!(generations.len(), 1 + 303 + 2 + 1, "the former generation is cleared");
    // And back, with files to delete.
    let (next, marks, _) = restore(state.config(), &restoring(&furnished(), true)).unwrap();
    assert_eq!(marks.len(), 300);
    state.commit(next, &marks).unwrap();
    let again = load(&reopen(&disk));
    assert_eq!((again.config().lus.len(), again.leftovers().len()), (3, 300));
}

#[test]
fn killed_within_a_large_change_it_is_the_old_or_the_new() {
    let (disk, kv) = store();
    load(&kv).commit(furnished(), &[]).unwrap();
    drop(kv);
    let base = disk.after_kill();
    let (old, new) = (furnished().lus.len(), large().lus.len());
    let mut seen = BTreeSet::new();
    // The steps of opening and closing the store are among them; every tenth is enough here.
    for step in (0..2000).step_by(10) {
        let disk = base.after_kill();
        disk.die_at(step);
        let clock: kv::embedded::Clock = Arc::new(|| Duration::ZERO);
        let mut is_done = false;
        if let Ok(kv) = Embedded::open(disk.clone(), clock) {
            let kv: Arc<dyn Kv> = Arc::new(kv);
            if let Ok(mut state) = State::load(Arc::clone(&kv), Uuid::nil()) {
                is_done = state.commit(large(), &[]).is_ok();
            }
        }
        let kv = reopen(&disk);
        let mut state = load(&kv);
        let found = state.config().lus.len();
        assert!(found == old || found == new, "{found} LUs after step {step}");
        assert!(!is_done || found == new, "an answered change is gone after step {step}");
        seen.insert(found);
        state.commit(large(), &[]).unwrap();
        assert_eq!(load(&kv).config().lus.len(), new);
        if disk.steps() < step {
            break;
        }
    }
    assert_eq!(seen, [old, new].into(), "the steps covered both sides of the switch");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is asked, what is kept contradicts itself nowhere and equals what is in memory.
    #[test]
    fn any_row_of_commands_leaves_a_valid_state(
        commands in
            prop::collection::vec((0u8..9, 0u8..4, 0u8..3, prop::option::of(2u16..5)), 1..30)
    ) {
        let (disk, kv) = store();
        let mut state = load(&kv);
        for (index, (what, l, c, slot)) in commands.into_iter().enumerate() {
            let (name, to) = (format!("l{l}"), format!("vm{c}"));
            let config = state.config().clone();
            let uuid = Uuid::from_u128((index as u128 + 1) << 90);
            let made = match what {
                0 => {
                    let request = LuCreate { shareable: l == 0, ..create(&name) };
                    lu_create(&config, &request, uuid).map(|next| (next, vec![]))
                }
                1 => lu_remove(&config, &lu(&name)),
                2 => {
                    let iqns = [format!("iqn.2004-10.org.example:{to}")];
                    let client = serde_json::json!({"name": to, "iqns": iqns});
                    let client = serde_json::from_value(client).unwrap();
                    client_create(&config, &client).map(|next| (next, vec![]))
                }
                3 => client_remove(&config, &client(&to)).map(|next| (next, vec![])),
                4 | 5 => {
                    map(&config, &map_request(&name, &to, slot)).map(|(next, _)| (next, vec![]))
                }
                6 => {
                    let request = map_request(&name, &to, slot);
                    let request = MapRequest { via: Via::Iscsi, ..request };
                    map(&config, &request).map(|(next, _)| (next, vec![]))
                }
                7 => iscsi::with_chap(&config, &client(&to), slot.is_some())
                    .map(|next| (next, vec![])),
                _ => unmap(&config, &lu(&name), &client(&to), None).map(|(next, _)| (next, vec![])),
            };
            if let Ok((next, marks)) = made {
                state.commit(next, &marks).unwrap();
                validate::config(state.config()).unwrap();
            }
        }
        let again = load(&reopen(&disk));
        prop_assert_eq!(again.config(), state.config());
        prop_assert_eq!(again.leftovers(), state.leftovers());
        prop_assert_eq!(again.secrets(), state.secrets());
        let chaps = state.config().clients.iter().filter(|client| client.chap.is_some());
        prop_assert!(chaps.map(|client| &client.name).eq(state.secrets().keys()));
    }
}
