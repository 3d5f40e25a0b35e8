//! What is neither command nor login: pings, texts, discovery, logout.

use crate::support::{
    FIRST_CMD_SN, FIRST_STAT_SN, Host, INITIATOR, Known, NAMES, TARGET, config, login, nop, plain,
    read, text, text_request,
};
use proto::iscsi::{Ended, Event};
use wire::iscsi::{
    LogoutReason, LogoutReply, LogoutRequest, NopIn, NopOut, Reject, RejectReason, TextRequest,
    TextResponse,
};

#[test]
fn a_ping_is_echoed_and_ours_is_answered() {
    let mut host = Host::logged_in(config(), &[]);
    let answers = host.send(&plain(&nop(5, 0), b"hello"));
    let pong: &NopIn = answers[0].view();
    assert_eq!((pong.initiator_task_tag.get(), pong.target_transfer_tag.get()), (5, u32::MAX),);
    assert_eq!(answers[0].data, b"hello");
    assert_eq!(pong.exp_cmd_sn.get(), FIRST_CMD_SN.wrapping_add(1));
    assert!(host.target.ping() && !host.target.ping());
    let asked = host.receive();
    let ping: &NopIn = asked[0].view();
    // 11.19: a StatSN is told, none is taken.
    assert_eq!(ping.stat_sn.get(), FIRST_STAT_SN.wrapping_add(2));
    let transfer = ping.target_transfer_tag;
    let answer = NopOut { opcode: 0x40, target_transfer_tag: transfer, ..nop(u32::MAX, 1) };
    assert!(host.send(&plain(&answer, &[])).is_empty());
    assert_eq!(host.events, [Event::Pong]);
    assert!(host.target.ping());
    assert_eq!(host.receive()[0].view::<NopIn>().stat_sn.get(), FIRST_STAT_SN.wrapping_add(2));
}

fn discovery(keys: &[(&str, &str)]) -> Host {
    let mut host = Host::new(config(), Known::default());
    let names = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
    host.send(&plain(&login(1, Some(3)), &text(&[&names[..], keys].concat())));
    assert_eq!(std::mem::take(&mut host.events), [Event::LoggedIn]);
    host
}

/// Appendix C, and 4.3: nothing but that and logout.
#[test]
fn discovery_shows_targets_and_nothing_else() {
    let mut host = discovery(&[]);
    let request = text(&[("SendTargets", "All")]);
    let answers = host.send(&plain(&text_request(2, 0), &request));
    let response: &TextResponse = answers[0].view();
    assert_eq!((response.flags, response.target_transfer_tag.get()), (0x80, u32::MAX));
    let expected = [
        ("TargetName", TARGET),
        ("TargetAddress", "192.0.2.1:3260,1"),
        ("TargetAddress", "[2001:db8::1]:3261,2"),
    ];
    assert_eq!(answers[0].pairs(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    for bytes in [plain(&read(7, 1, 0), &[]), plain(&nop(8, 2), &[])] {
        let answers = host.send(&bytes);
        let reject: &Reject = answers[0].view();
        assert_eq!(RejectReason(reject.reason), RejectReason::COMMAND_NOT_SUPPORTED);
        assert_eq!(answers[0].data, bytes);
    }
    assert!(host.events.is_empty());
}

#[test]
fn a_long_answer_comes_in_parts() {
    let mut host = discovery(&[("MaxRecvDataSegmentLength", "512")]);
    let mut known = Known::default();
    let record = known.targets[0].clone();
    known.targets = (0..20).map(|_| record.clone()).collect();
    let mut many = Host::new(config(), known);
    let names = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
    let keys = [&names[..], &[("MaxRecvDataSegmentLength", "512")]].concat();
    many.send(&plain(&login(1, Some(3)), &text(&keys)));
    let mut request = text_request(2, 0);
    let mut data = text(&[("SendTargets", "All")]);
    let mut whole = Vec::new();
    for part in 1.. {
        let answers = many.send(&plain(&request, &data));
        let response: &TextResponse = answers[0].view();
        whole.extend_from_slice(&answers[0].data);
        if response.flags == 0x80 {
            assert_eq!(response.target_transfer_tag.get(), u32::MAX);
            assert!(part > 3);
            break;
        }
        assert_eq!((response.flags, answers[0].data.len()), (0x40, 512));
        request = TextRequest {
            target_transfer_tag: response.target_transfer_tag,
            ..text_request(2, part)
        };
        data = Vec::new();
    }
    let one = host.send(&plain(&text_request(2, 0), &text(&[("SendTargets", "All")])));
    assert_eq!(whole, one[0].data.repeat(20));
}

#[test]
fn few_keys_may_change_later() {
    let mut host = Host::logged_in(config(), &[]);
    let keys = [
        ("MaxRecvDataSegmentLength", "1024"),
        ("MaxBurstLength", "512"),
        ("SendTargets", "All"),
        ("X-new", "1"),
        ("InitiatorAlias", "a"),
        ("HeaderDigest", "CRC32C"),
    ];
    let answers = host.send(&plain(&text_request(2, 0), &text(&keys)));
    let expected = [
        ("MaxBurstLength", "Reject"),
        ("SendTargets", "Reject"),
        ("X-new", "NotUnderstood"),
        ("HeaderDigest", "Reject"),
    ];
    assert_eq!(answers[0].pairs(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let parameters = host.target.parameters();
    assert_eq!(parameters.max_send_data_segment_length, 1024);
    assert_eq!(parameters.max_burst_length, 262_144);
    let answers = host.send(&plain(&text_request(3, 1), &text(&[("SendTargets", "")])));
    assert_eq!(answers[0].value("TargetName").as_deref(), Some(TARGET));
}

fn logout(reason: LogoutReason, cid: u16, index: u32) -> LogoutRequest {
    LogoutRequest {
        reason: 0x80 | reason.0,
        initiator_task_tag: 77.into(),
        cid: cid.into(),
        cmd_sn: FIRST_CMD_SN.wrapping_add(index).into(),
        ..LogoutRequest::default()
    }
}

#[test]
fn a_logout_waits_for_the_commands_and_is_the_last_word() {
    let mut host = Host::logged_in(config(), &[]);
    host.send(&plain(&read(1, 0, 512), &[]));
    let task = host.command();
    for (index, reason, cid, response) in
        [(1, LogoutReason::CLOSE_CONNECTION, 8, 1), (2, LogoutReason::REMOVE_FOR_RECOVERY, 7, 2)]
    {
        let answers = host.send(&plain(&logout(reason, cid, index), &[]));
        assert_eq!(answers[0].view::<LogoutReply>().response, response);
    }
    let last = logout(LogoutReason::CLOSE_CONNECTION, 7, 3);
    assert!(host.send(&plain(&last, &[])).is_empty());
    assert_eq!(host.events, [Event::Logout]);
    // What comes after a logout is not taken.
    assert!(host.send(&plain(&nop(9, 4), &[])).is_empty());
    host.target.abort(task);
    assert!(host.receive().is_empty(), "the owner is not ready yet");
    host.target.settle_logout();
    let answers = host.receive();
    assert_eq!((answers.len(), answers[0].view::<LogoutReply>().response), (1, 0));
    let ended = Ended::Logout { reason: LogoutReason::CLOSE_CONNECTION };
    assert_eq!(host.target.ended(), Some(&ended));
}

#[test]
fn names_are_those_of_the_account() {
    for (keys, status) in [
        (vec![("InitiatorName", "iqn.2026-11.org.example:other"), NAMES[2]], 0x0202),
        (vec![NAMES[0], ("TargetName", "iqn.2026-11.org.viaduct:none")], 0x0203),
        (vec![NAMES[0], ("TargetName", "no name at all")], 0x0203),
        (vec![NAMES[0], ("SessionType", "Other"), NAMES[2]], 0x0209),
        (vec![NAMES[0]], 0x0207),
        (vec![NAMES[2]], 0x0207),
        (vec![("InitiatorName", "host"), NAMES[2]], 0x0200),
        (vec![NAMES[0], ("TargetName", "iqn.2026-11.org.viaduct:moved")], 0x0101),
    ] {
        let mut host = Host::new(config(), Known::default());
        let answers = host.send(&plain(&login(1, Some(3)), &text(&keys)));
        let response: &wire::iscsi::LoginResponse = answers[0].view();
        assert_eq!(response.status.get(), status, "{keys:?}");
        assert_eq!(host.events, [Event::Ended]);
        if status == 0x0101 {
            assert_eq!(answers[0].value("TargetAddress").as_deref(), Some("[2001:db8::9]:3260"));
        }
    }
}
