//! The login phase of a target, PDU by PDU.

use crate::support::{FIRST_CMD_SN, FIRST_STAT_SN, Host, Known, NAMES, config, login, plain, text};
use proto::iscsi::Event;
use wire::iscsi::LoginResponse;

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
