//! Clients that come over iSCSI: their one adapter, its LUNs, their names and their secrets.

use model::limits::LUNS_PER_ADAPTER_MAX;
use model::{Chap, ChapSecrets, Client, ClientChange, Secret};

use super::*;

const IQN: &str = "iqn.1994-05.com.redhat:abc";

fn host(name: &str, iqns: &[&str]) -> Client {
    serde_json::from_value(serde_json::json!({"name": name, "iqns": iqns})).unwrap()
}

fn iscsi(name: &str, to: &str) -> MapRequest {
    MapRequest { via: Via::Iscsi, ..map_request(name, to, None) }
}

/// The LUs a, b and s, and a client host1 with a name.
fn with_host() -> Config {
    client_create(&furnished(), &host("host1", &[IQN])).unwrap()
}

/// The client proves itself, or need not.
pub fn with_chap(config: &Config, name: &ClientName, proves: bool) -> Result<Config, ApiError> {
    let chap = Chap { name: name.to_string(), mutual_name: None };
    let mut next = client_chap(config, name, proves.then_some(&chap))?;
    if proves {
        next.secrets.insert(name.clone(), secrets("correct horse battery", None));
    }
    Ok(next)
}

fn place(mapping: &Mapping) -> (u16, u16) {
    (mapping.slot.number(), mapping.lun)
}

#[test]
fn all_luns_of_a_client_are_at_one_adapter() {
    let config = with_host();
    let (config, disk) = map(&config, &map_request("s", "host1", None)).unwrap();
    let (config, first) = map(&config, &iscsi("b", "host1")).unwrap();
    let (config, second) = map(&config, &iscsi("s", "host1")).unwrap();
    assert_eq!([&disk, &first, &second].map(place), [(2, 0), (3, 0), (3, 1)]);
    refused(
        unmap(&config, &lu("s"), &client("host1"), None),
        expect![[r#"
            Conflict: LU 's' is mapped to client 'host1' via vhost-user-blk and via iscsi
              next: viaduct unmap s --from host1 --via vhost-user-blk, or --via iscsi"#]],
    );
    let (config, gone) = unmap(&config, &lu("s"), &client("host1"), Some(Via::Iscsi)).unwrap();
    assert_eq!(gone, second);
    refused(
        unmap(&config, &lu("s"), &client("host1"), Some(Via::Iscsi)),
        expect![[r#"
            NotFound: LU 's' is not mapped to client 'host1' via iscsi
              next: viaduct mapping ls shows what is mapped"#]],
    );
    // LUN 0 is free again and is offered again, at the same adapter.
    let chosen = MapRequest { lun: Some(7), ..iscsi("s", "host1") };
    let (config, chosen) = map(&config, &chosen).unwrap();
    let (config, _) = unmap(&config, &lu("b"), &client("host1"), None).unwrap();
    let (_, again) = map(&config, &iscsi("b", "host1")).unwrap();
    assert_eq!([&chosen, &again].map(place), [(3, 7), (3, 0)]);
}

#[test]
fn a_guest_has_one_scsi_host_unless_it_asks_for_more() {
    let config = furnished();
    let scsi = |name: &str, slot: Option<u16>, lun| {
        let via = Via::VhostUserScsi;
        MapRequest { via, lun, ..map_request(name, "vm1", slot) }
    };
    let (config, first) = map(&config, &scsi("b", None, None)).unwrap();
    let (config, second) = map(&config, &scsi("s", Some(9), Some(4))).unwrap();
    let (_, third) = map(&config, &scsi("a", None, None)).unwrap();
    let (config, fourth) = map(&config, &scsi("a", Some(9), None)).unwrap();
    // Slot 2 has the disk that the client has already.
    let all = [&first, &second, &third, &fourth].map(place);
    assert_eq!(all, [(3, 0), (9, 4), (3, 1), (9, 0)]);
    let (config, _) = unmap(&config, &lu("a"), &client("vm1"), Some(Via::VhostUserScsi)).unwrap();
    refused(
        map(&config, &scsi("a", Some(9), Some(4))),
        expect![[r#"
            Conflict: LUN 4 at slot 9 of client 'vm1' is taken by LU 's'
              next: LUN 0 is the lowest free one"#]],
    );
    refused(
        map(&config, &scsi("a", Some(2), None)),
        expect![[r#"
            Conflict: slot 2 of client 'vm1' is taken
              next: slot 4 is the lowest free one"#]],
    );
}

#[test]
fn what_mapping_over_iscsi_refuses() {
    let config = client_create(&with_host(), &host("host2", &[])).unwrap();
    refused(
        map(&config, &iscsi("b", "host2")),
        expect![[r#"
            Conflict: client 'host2' has no iSCSI name, by which its initiator would be known
              next: viaduct client add-iqn host2 NAME; /etc/iscsi/initiatorname.iscsi on the client says which"#]],
    );
    let (config, _) = map(&config, &iscsi("b", "host1")).unwrap();
    refused(
        map(&config, &MapRequest { lun: Some(0), ..iscsi("s", "host1") }),
        expect![[r#"
            Conflict: LUN 0 at slot 2 of client 'host1' is taken by LU 'b'
              next: LUN 1 is the lowest free one"#]],
    );
    refused(
        map(&config, &MapRequest { lun: Some(LUNS_PER_ADAPTER_MAX), ..iscsi("s", "host1") }),
        expect!["Usage: iscsi has LUN 0 to 255, not 256"],
    );
    let elsewhere = MapRequest { slot: Some(5.try_into().unwrap()), ..iscsi("s", "host1") };
    refused(
        map(&config, &elsewhere),
        expect![[r#"
            Conflict: client 'host1' has its iSCSI adapter at slot 2, and cannot have one at slot 5 too
              next: leave out --slot, and choose among its LUNs with --lun"#]],
    );
    refused(
        map(&config, &map_request("s", "host1", Some(2))),
        expect![[r#"
            Conflict: slot 2 of client 'host1' is taken
              next: slot 3 is the lowest free one"#]],
    );
    refused(
        map(&config, &iscsi("b", "host1")),
        expect!["Conflict: LU 'b' is mapped to client 'host1' already"],
    );
}

#[test]
fn a_document_is_held_to_the_same_rules() {
    let config = with_host();
    let mapping = |slot: u16, lun: u16, via: &str| -> Mapping {
        serde_json::from_value(serde_json::json!({
            "lu": if lun == 0 && via == "iscsi" { "b" } else { "s" },
            "client": "host1", "via": via, "slot": slot, "lun": lun,
        }))
        .unwrap()
    };
    let with = |mappings: &[Mapping]| {
        let mut next = config.clone();
        next.mappings.extend_from_slice(mappings);
        validate::config(&next)
    };
    with(&[mapping(2, 0, "iscsi"), mapping(2, 1, "iscsi")]).unwrap();
    for (mappings, reason) in [
        ([mapping(2, 0, "iscsi"), mapping(3, 1, "iscsi")], "cannot have one at slot 3 too"),
        ([mapping(2, 1, "iscsi"), mapping(2, 0, "vhost-user-blk")], "has an adapter for iscsi"),
        ([mapping(2, 256, "iscsi"), mapping(2, 0, "iscsi")], "not 256"),
    ] {
        let error = with(&mappings).unwrap_err();
        assert!(error.message.contains(reason), "{error}");
    }
}

#[test]
fn a_full_target_says_so() {
    let mut config = with_host();
    for number in 0..LUNS_PER_ADAPTER_MAX {
        let name = format!("d{number}");
        config =
            lu_create(&config, &create(&name), Uuid::from_u128((1000 + u128::from(number)) << 64))
                .unwrap();
        config = map(&config, &iscsi(&name, "host1")).unwrap().0;
    }
    refused(
        map(&config, &iscsi("b", "host1")),
        expect![[r#"
            Conflict: all 256 LUNs of client 'host1' are taken
              next: viaduct client show host1; unmap an LU that is not needed"#]],
    );
}

#[test]
fn a_name_belongs_to_one_client() {
    let config = with_host();
    let capitals = IQN.to_ascii_uppercase();
    refused(
        client_create(&config, &host("host2", &[&capitals])),
        expect![[r#"
            Conflict: client 'host2' has the name iqn.1994-05.com.redhat:abc, as has client 'host1'
              next: viaduct client show host1; a name belongs to one client"#]],
    );
    let config = client_create(&config, &host("host2", &[])).unwrap();
    let change = |config: &Config, client: &str, add: &[&str], remove: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let change = ClientChange { add_iqns: names(add), remove_iqns: names(remove) };
        client_change(config, &client.parse().unwrap(), &change)
    };
    assert!(change(&config, "host2", &[IQN], &[]).unwrap_err().message.contains("as has client"));
    refused(
        change(&config, "host2", &[], &[IQN]),
        expect![[r#"
            NotFound: client 'host2' has no iSCSI name iqn.1994-05.com.redhat:abc
              next: viaduct client show host2 shows those that it has"#]],
    );
    let (config, _) = map(&config, &iscsi("b", "host1")).unwrap();
    refused(
        change(&config, "host1", &[], &[IQN]),
        expect![[r#"
            Conflict: client 'host1' has LUs mapped via iscsi and needs an iSCSI name for them
              next: viaduct client add-iqn host1 NAME first, or unmap them"#]],
    );
    let other = "iqn.2004-10.com.ubuntu:01:def";
    let config = change(&config, "host1", &[other, IQN], &[]).unwrap();
    let config = change(&config, "host1", &[], &[IQN]).unwrap();
    let iqns: Vec<&str> =
        config.client(&client("host1")).unwrap().iqns.iter().map(|iqn| iqn.as_str()).collect();
    assert_eq!(iqns, [other]);
}

fn secrets(text: &str, mutual: Option<&str>) -> ChapSecrets {
    let secret = |text: &str| Secret::from_input(text.as_bytes()).unwrap();
    ChapSecrets { secret: secret(text), mutual_secret: mutual.map(secret) }
}

/// What is kept of host1 by a state, and by another one that begins with what is on disk.
fn kept(state: &State, disk: &MemoryBacking) -> Option<ChapSecrets> {
    let again = load(&reopen(disk));
    assert_eq!(again.secrets(), state.secrets());
    assert_eq!(again.config(), state.config());
    state.secrets().get(&client("host1")).cloned()
}

#[test]
fn secrets_are_kept_beside_the_configuration_as_long_as_they_are_for_something() {
    let (disk, kv) = store();
    let mut state = load(&kv);
    let chap = Chap { name: "host1".to_owned(), mutual_name: Some("viaduct".to_owned()) };
    let given = secrets("correct horse battery", Some("staple and the rest"));
    let mut next = client_chap(&with_host(), &client("host1"), Some(&chap)).unwrap();
    next.secrets.insert(client("host1"), given.clone());
    state.commit(next, &[]).unwrap();
    assert_eq!(kept(&state, &disk), Some(given.clone()));
    assert!(state.config().secrets.is_empty());
    let shown = serde_json::to_string(state.config()).unwrap() + &format!("{:?}", state.config());
    assert!(!shown.contains("horse") && !shown.contains("staple"), "{shown}");

    // Restoring a document that was saved without secrets leaves those that are here.
    let request = ConfigRestore { config: state.config().clone(), prune: false };
    let (next, marks, _) = restore(state.config(), &request).unwrap();
    state.commit(next, &marks).unwrap();
    assert_eq!(kept(&state, &disk), Some(given.clone()));

    // One direction only: the other secret goes.
    let chap = Chap { mutual_name: None, ..chap };
    let next = client_chap(state.config(), &client("host1"), Some(&chap)).unwrap();
    state.commit(next, &[]).unwrap();
    assert_eq!(kept(&state, &disk), Some(ChapSecrets { mutual_secret: None, ..given }));
    let next = client_chap(state.config(), &client("host1"), None).unwrap();
    state.commit(next, &[]).unwrap();
    assert_eq!(kept(&state, &disk), None);
    let left = kv::range_all(kv.as_ref(), "/config/").unwrap();
    let left: Vec<_> = left.iter().filter(|entry| entry.key.contains("secret")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_secret_without_a_client_or_a_client_without_its_secret() {
    let (disk, kv) = store();
    let mut state = load(&kv);
    let chap = Chap { name: "host1".to_owned(), mutual_name: None };
    let mut next = client_chap(&with_host(), &client("host1"), Some(&chap)).unwrap();
    next = map(&next, &iscsi("b", "host1")).unwrap().0;
    next.secrets.insert(client("nobody"), secrets("correct horse battery", None));
    state.commit(next, &[]).unwrap();
    assert_eq!(kept(&state, &disk), None);
    assert!(state.secrets().is_empty());
    // It is a mapping that nobody may log in to, never one that everybody may.
    let (config, secrets, media) = (state.config(), state.secrets(), state.media());
    let new_pools = &BTreeSet::new();
    let source = cluster::Source { config, secrets, new_pools, media, cluster: "test" };
    let desired = cluster::Desired::of(source);
    let specs = desired.mappings.values().filter_map(|mapping| mapping.iscsi.as_ref());
    let specs: Vec<_> = specs.collect();
    assert_eq!(specs.len(), 1);
    assert!(specs[0].lacks_secret && specs[0].chap.is_none());
    assert_eq!(specs[0].target, "iqn.2026-11.org.viaduct:test:host1");
}
