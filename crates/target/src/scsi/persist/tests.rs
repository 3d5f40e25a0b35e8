//! Parameter data, byte by byte, and parameter lists that are not what they should be.

use proptest::prelude::*;

use super::*;
use crate::lun::access::Access;
use wire::scsi::{AdditionalSense, SenseKey};

const ISID: [u8; 6] = [0x00, 0x02, 0x3d, 0, 0, 1];

fn nexus(name: &str, port: u16) -> NexusId {
    NexusId::new(transport_id::iscsi(name, ISID).unwrap(), PortId(port))
}

fn registered(kind: Option<Kind>) -> Reservations {
    let mut reservations = Reservations::new();
    let mut apply = |at: &NexusId, action| reservations.apply(at, action, &Access::default());
    let (a, b) = (nexus("iqn.a", 1), nexus("iqn.b", 2));
    let through_power_loss = true;
    for (at, new_key) in [(&a, 0x11), (&b, 0x2222)] {
        let action = Action::RegisterAnyway { new_key, all_ports: false, through_power_loss };
        apply(at, action).unwrap();
    }
    if let Some(kind) = kind {
        apply(&a, Action::Reserve { key: 0x11, kind }).unwrap();
    }
    reservations
}

fn cdb(service: Service, scope_type: u8) -> cdb::PersistentReserveOut {
    cdb::PersistentReserveOut {
        service_action: service.0,
        scope_type,
        ..cdb::PersistentReserveOut::default()
    }
}

fn list(key: u64, new_key: u64, flags: u8) -> Vec<u8> {
    let list = ReserveOut {
        key: key.into(),
        service_action_key: new_key.into(),
        flags,
        ..ReserveOut::default()
    };
    list.as_bytes().to_vec()
}

#[test]
fn keys_come_in_the_order_of_their_nexuses() {
    let bytes = keys(&registered(None));
    assert_eq!(
        bytes,
        [0, 0, 0, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0x22, 0x22]
    );
    assert_eq!(keys(&Reservations::new()), [0; 8]);
}

#[test]
fn a_reservation_shows_its_holders_key_unless_all_hold_it() {
    assert_eq!(reservation(&registered(None)), [0, 0, 0, 2, 0, 0, 0, 0]);
    let one = reservation(&registered(Some(Kind::ExclusiveAccess)));
    assert_eq!(one[4..], [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 3, 0, 0]);
    let all = reservation(&registered(Some(Kind::ExclusiveAccessAllRegistrants)));
    assert_eq!(all[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
}

#[test]
fn capabilities_name_all_six_types() {
    assert_eq!(capabilities(&Reservations::new(), true), [0, 8, 0x1d, 0x90, 0xea, 0x01, 0, 0]);
    assert_eq!(capabilities(&Reservations::new(), false)[2], 0x1c, "nothing is kept");
    assert_eq!(capabilities(&registered(None), true)[3], 0x91, "through power loss");
}

#[test]
fn full_status_names_each_nexus() {
    let bytes = full_status(&registered(Some(Kind::WriteExclusiveRegistrantsOnly)));
    let id = nexus("iqn.a", 1).initiator().bytes().to_vec();
    assert_eq!(id[..4], [0x45, 0, 0, 24]);
    assert_eq!(&id[4..27], b"iqn.a,i,0x00023d000001\0");
    assert_eq!(id.len(), 28);
    assert_eq!(bytes.len(), 8 + 2 * (24 + id.len()));
    assert_eq!(bytes[8..20], [0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0]);
    assert_eq!(bytes[20..32], [1, 5, 0, 0, 0, 0, 0, 1, 0, 0, 0, 28]);
    assert_eq!(bytes[32..60], id);
    assert_eq!(bytes[60..84][12..], [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 28]);
}

#[test]
fn lists_become_actions() {
    let plain = list(1, 2, 0);
    let kind = Kind::WriteExclusiveAllRegistrants;
    let (key, new_key, also) = (1, 2, None);
    let (all_ports, through_power_loss) = (true, true);
    for (service, scope_type, bytes, expected) in [
        (
            Service::REGISTER,
            0xff,
            list(1, 2, ALL_TG_PT | APTPL),
            Action::Register { key, new_key, also, all_ports, through_power_loss },
        ),
        (
            Service::REGISTER_AND_IGNORE_EXISTING_KEY,
            0,
            list(1, 2, ALL_TG_PT | APTPL),
            Action::RegisterAnyway { new_key, all_ports, through_power_loss },
        ),
        (Service::RESERVE, 7, plain.clone(), Action::Reserve { key, kind }),
        (Service::RELEASE, 7, plain.clone(), Action::Release { key, kind }),
        (Service::CLEAR, 0xff, plain.clone(), Action::Clear { key }),
        (
            Service::PREEMPT,
            7,
            plain.clone(),
            Action::Preempt { key, victim: 2, kind: Some(kind), abort: None },
        ),
        (
            Service::PREEMPT_AND_ABORT,
            0,
            plain,
            Action::Preempt { key, victim: 2, kind: None, abort: Some(99) },
        ),
    ] {
        assert_eq!(action(&cdb(service, scope_type), &bytes, 99), Ok(expected), "{service}");
    }
}

#[test]
fn a_move_names_its_destination() {
    let id = transport_id::iscsi("iqn.to", ISID).unwrap();
    let mut bytes = RegisterAndMove {
        key: 1.into(),
        service_action_key: 2.into(),
        flags: UNREG | APTPL,
        relative_port: 7.into(),
        transport_id_length: (id.bytes().len() as u32).into(),
        ..RegisterAndMove::default()
    }
    .as_bytes()
    .to_vec();
    bytes.extend_from_slice(id.bytes());
    let to = NexusId::new(id, PortId(7));
    let expected =
        Action::Move { key: 1, new_key: 2, to, unregister: true, through_power_loss: true };
    let cdb = cdb(Service::REGISTER_AND_MOVE, 0);
    assert_eq!(action(&cdb, &bytes, 0), Ok(expected));
    assert_eq!(action(&cdb, &bytes[..bytes.len() - 4], 0), Err(Sense::parameter_length()));
    assert_eq!(action(&cdb, &bytes[..23], 0), Err(Sense::parameter_length()));
    bytes[19] = 0;
    assert_eq!(action(&cdb, &bytes, 0), Err(Sense::parameter(18)));
    bytes[24] = 0x05;
    assert_eq!(action(&cdb, &bytes, 0), Err(Sense::parameter(24)), "a name without a session");
}

#[test]
fn others_are_registered_by_name() {
    let with_ids = |ids: &[u8]| {
        let mut bytes = list(0, 5, SPEC_I_PT);
        bytes.extend((ids.len() as u32).to_be_bytes());
        bytes.extend(ids);
        bytes
    };
    let (one, two) =
        (transport_id::iscsi("iqn.one", ISID).unwrap(), transport_id::sas(0x5000_0001));
    let ids = [one.bytes(), two.bytes()].concat();
    let register = |bytes: &[u8]| action(&cdb(Service::REGISTER, 0), bytes, 0);
    let also = Some(vec![one.clone(), two]);
    let expected =
        Action::Register { key: 0, new_key: 5, also, all_ports: false, through_power_loss: false };
    assert_eq!(register(&with_ids(&ids)), Ok(expected));
    let length = Err(Sense::parameter_length());
    assert_eq!(register(&with_ids(&ids)[..60]), length);
    assert_eq!(register(&list(0, 5, SPEC_I_PT)), length, "the length is missing");
    assert_eq!(register(&with_ids(&ids)[..24]), length);
    assert_eq!(register(&[&list(0, 5, 0)[..], &[0]].concat()), length, "more than was announced");
    let half = with_ids(&ids[..ids.len() - 4]);
    assert_eq!(register(&half), Err(Sense::parameter(28 + one.bytes().len() as u16)));
    let elsewhere = action(&cdb(Service::CLEAR, 0), &with_ids(&ids), 0);
    assert_eq!(elsewhere, Err(Sense::parameter(20)));
}

#[test]
fn scope_type_and_service_are_checked() {
    let plain = list(1, 2, 0);
    for scope_type in [0, 2, 4, 9, 0x11, 0x23] {
        for service in [Service::RESERVE, Service::RELEASE] {
            let refused = action(&cdb(service, scope_type), &plain, 0);
            assert_eq!(refused, Err(Sense::field(2)), "{service} {scope_type:#x}");
        }
    }
    let lost = action(&cdb(Service::REPLACE_LOST_RESERVATION, 1), &plain, 0);
    assert_eq!(lost.unwrap_err().code, AdditionalSense::INVALID_FIELD_IN_CDB);
}

#[test]
fn a_port_has_one_name_however_it_is_written() {
    let normal = transport_id::iscsi("iqn.2026-11.org.viaduct:host", ISID).unwrap();
    let write = |text: &[u8], padding: usize| {
        let mut bytes = vec![0x45, 0, 0, 0];
        bytes.extend_from_slice(text);
        bytes.resize((bytes.len() / 4 + 1 + padding) * 4, 0);
        bytes[3] = (bytes.len() - 4) as u8;
        bytes
    };
    for (text, padding) in [
        (&b"iqn.2026-11.org.viaduct:host,i,0x00023d000001"[..], 0),
        (b"IQN.2026-11.org.Viaduct:HOST,i,0x00023D000001", 0),
        (b"iqn.2026-11.org.viaduct:host,i,0x23d000001", 3),
    ] {
        let bytes = write(text, padding);
        assert_eq!(transport_id::parse(&bytes), Some((normal.clone(), bytes.len())));
    }
    for text in [
        &b"iqn.2026-11.org.viaduct:host"[..],
        b"iqn.2026-11.org.viaduct:host,i,0x",
        b"iqn.2026-11.org.viaduct:host,i,0x0123456789abc",
        b"iqn.2026-11.org.viaduct:host,i,0x+23d000001",
        b",i,0x00023d000001abcdef",
        b"iqn.2026,t,1,i,0x00023d000001",
        b"iqn.\xff\xfe.org.viaduct:hosts,i,0x00023d000001",
    ] {
        assert_eq!(transport_id::parse(&write(text, 0)), None, "{}", text.escape_ascii());
    }
    assert!(transport_id::iscsi(&"n".repeat(223), ISID).is_some());
    assert!(transport_id::iscsi(&"n".repeat(224), ISID).is_none());
}

proptest! {
    /// Whatever a client sends, it is an action or sense data; and a name that is read is in its
    /// normal form.
    #[test]
    fn no_list_slips_through(
        service in 0_u8..32,
        scope_type: u8,
        flags: u8,
        body in prop::collection::vec(prop_oneof![Just(0), Just(0x45), any::<u8>()], 0..96),
    ) {
        let mut bytes = list(1, 2, flags);
        bytes.extend(&body);
        if bytes.len() >= 28 && flags & 0x40 != 0 {
            let rest = (bytes.len() - 28) as u32;
            bytes[24..28].copy_from_slice(&rest.to_be_bytes());
        }
        match action(&cdb(Service(service), scope_type), &bytes, 0) {
            Ok(_) => prop_assert!(service < 8),
            Err(sense) => prop_assert_eq!(sense.key, SenseKey::ILLEGAL_REQUEST),
        }
        if let Some((initiator, len)) = transport_id::parse(&body) {
            prop_assert!(len <= body.len());
            let again = transport_id::parse(initiator.bytes());
            prop_assert_eq!(again, Some((initiator.clone(), initiator.bytes().len())));
        }
    }
}
