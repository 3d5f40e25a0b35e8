//! The login phase of a target, PDU by PDU.

use crate::support::{
    FIRST_CMD_SN, FIRST_STAT_SN, Host, INITIATOR, Known, NAMES, TARGET, config, login, plain, text,
};
use proto::iscsi::{Event, SessionKind};
use wire::iscsi::{LoginRequest, LoginResponse};

/// RFC 7143, 6.3: straight to the operational stage, when nothing is to be proved.
#[test]
fn an_operational_login_agrees_and_begins_the_session() {
    let mut host = Host::new(config(), Known::default());
    let keys = [
        ("HeaderDigest", "None"),
        ("InitialR2T", "No"),
        ("MaxRecvDataSegmentLength", "65536"),
        ("MaxBurstLength", "262144"),
        ("X-com.example.key", "1"),
    ];
    let request = plain(&login(1, Some(3)), &text(&[&NAMES[..], &keys].concat()));
    let answers = host.send(&request);
    let response: &LoginResponse = answers[0].view();
    assert_eq!(response.flags, 0x80 | 1 << 2 | 3);
    assert_eq!((response.status.get(), response.tsih.get()), (0, 0x77));
    assert_eq!(response.stat_sn.get(), FIRST_STAT_SN);
    assert_eq!(response.exp_cmd_sn.get(), FIRST_CMD_SN);
    assert_eq!(response.max_cmd_sn.get(), FIRST_CMD_SN.wrapping_add(7));
    let expected = [
        ("TargetPortalGroupTag", "1"),
        ("HeaderDigest", "None"),
        ("InitialR2T", "No"),
        ("MaxBurstLength", "262144"),
        ("X-com.example.key", "NotUnderstood"),
        ("MaxRecvDataSegmentLength", "262144"),
    ];
    assert_eq!(answers[0].pairs(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!(host.events, [Event::LoggedIn]);
    let parameters = host.target.parameters();
    assert_eq!(parameters.max_send_data_segment_length, 65536);
    assert_eq!(parameters.max_recv_data_segment_length, 262_144);
    assert!(!parameters.initial_r2t && parameters.immediate_data);
}

/// Security first, as most initiators do it, with the names said again in the second stage.
#[test]
fn a_login_in_two_stages() {
    let mut host = Host::new(config(), Known::default());
    let keys = [&NAMES[..], &[("AuthMethod", "CHAP,None"), ("MaxBurstLength", "512")]].concat();
    let answers = host.send(&plain(&login(0, Some(1)), &text(&keys)));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 0x81);
    assert_eq!(answers[0].value("AuthMethod").as_deref(), Some("None"));
    // An operational key does not belong here.
    assert_eq!(answers[0].value("MaxBurstLength").as_deref(), Some("Reject"));
    let keys = [&NAMES[..], &[("AuthMethod", "None"), ("DataPDUInOrder", "No")]].concat();
    let answers = host.send(&plain(&login(1, None), &text(&keys)));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 1 << 2);
    assert_eq!(answers[0].value("AuthMethod").as_deref(), Some("Reject"));
    assert_eq!(answers[0].value("DataPDUInOrder").as_deref(), Some("Yes"));
    assert!(host.events.is_empty());
    let answers = host.send(&plain(&login(1, Some(3)), &[]));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 0x87);
    assert_eq!(answers[0].data, [], "everything was said before");
    assert_eq!(host.events, [Event::LoggedIn]);
    let session = host.target.session().unwrap();
    assert_eq!((session.initiator.as_str(), session.cid, session.tsih), (INITIATOR, 7, 0x77));
    assert_eq!(session.kind, SessionKind::Normal { target: TARGET.into() });
}

/// Straight from security to the end: what was not negotiated has its default, also what we may be
/// sent, for we had no chance to say more.
#[test]
fn a_login_without_an_operational_stage_has_the_defaults() {
    let mut host = Host::new(config(), Known::default());
    let keys = [&NAMES[..], &[("AuthMethod", "None")]].concat();
    let answers = host.send(&plain(&login(0, Some(3)), &text(&keys)));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 0x83);
    let parameters = host.target.parameters();
    assert_eq!(parameters.max_recv_data_segment_length, 8192);
    assert_eq!(parameters.max_send_data_segment_length, 8192);
    assert!(parameters.initial_r2t);
}

/// 6.2: one text in several requests, cut within a key, and an answer in several responses.
#[test]
fn long_texts_go_on_in_the_next_pdu() {
    let mut host = Host::new(config(), Known::default());
    let unknown: Vec<String> = (0..110).map(|index| format!("X-{index:0>61}")).collect();
    let keys: Vec<(&str, &str)> = unknown.iter().map(|key| (key.as_str(), "v")).collect();
    let whole = text(&[&NAMES[..], &keys].concat());
    let goes_on = LoginRequest { flags: 0x40 | 1 << 2, ..login(1, None) };
    for piece in [&whole[..5000], &whole[5000..6000]] {
        let answers = host.send(&plain(&goes_on, piece));
        assert_eq!((answers[0].view::<LoginResponse>().flags, answers[0].data.len()), (1 << 2, 0));
    }
    let answers = host.send(&plain(&login(1, Some(3)), &whole[6000..]));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 0x40 | 1 << 2);
    assert_eq!(answers[0].data.len(), 8192);
    let mut said = answers[0].clone();
    assert!(host.events.is_empty());
    let answers = host.send(&plain(&login(1, Some(3)), &[]));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 0x87);
    said.data.extend_from_slice(&answers[0].data);
    let understood = |(_, value): &(String, String)| value != "NotUnderstood";
    let (own, unknown): (Vec<_>, Vec<_>) = said.pairs().into_iter().partition(understood);
    assert_eq!(unknown.len(), 110);
    assert_eq!(own.len(), 2, "{own:?}");
    assert_eq!(host.events, [Event::LoggedIn]);
}

/// 13: many keys mean nothing in a discovery session.
#[test]
fn discovery_has_no_use_for_some_keys() {
    let mut host = Host::new(config(), Known::default());
    let keys = [
        ("InitiatorName", INITIATOR),
        ("SessionType", "Discovery"),
        ("MaxBurstLength", "512"),
        ("InitialR2T", "No"),
        ("TaskReporting", "RFC3720"),
        ("DefaultTime2Wait", "3"),
        ("HeaderDigest", "None"),
    ];
    let answers = host.send(&plain(&login(1, Some(3)), &text(&keys)));
    let expected = [
        ("MaxBurstLength", "Irrelevant"),
        ("InitialR2T", "Irrelevant"),
        ("TaskReporting", "Irrelevant"),
        ("DefaultTime2Wait", "3"),
        ("HeaderDigest", "None"),
        ("MaxRecvDataSegmentLength", "262144"),
    ];
    assert_eq!(answers[0].pairs(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert!(host.target.parameters().initial_r2t, "it keeps its default");
}
