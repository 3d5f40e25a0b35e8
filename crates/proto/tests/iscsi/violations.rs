//! What an initiator must not do, and what it is told.

use crate::support::{
    Digests, FIRST_CMD_SN, Host, Known, NAMES, Received, config, encode, login, nop, plain, read,
    text, text_request, write,
};
use proto::iscsi::{
    ALGORITHMS, Account, Answer, Authentication, Chap, DataFault, DigestPolicy, Ended, Event,
    LOGIN_REQUESTS_MAX, Secret, Violation, Wishes,
};
use wire::iscsi::{
    DataOut, LoginRequest, LoginResponse, LoginStatus, LogoutRequest, NopIn, Opcode, R2t, Reject,
    RejectReason, ScsiCommand, ScsiResponse, Snack, TaskManagementRequest, TaskManagementResponse,
    TextRequest,
};

#[track_caller]
fn rejected(answers: &[Received], reason: RejectReason, bad: &[u8]) {
    let [answer] = answers else { panic!("{answers:?}") };
    assert_eq!(RejectReason(answer.view::<Reject>().reason), reason);
    assert_eq!(answer.data, bad[..48]);
}

#[track_caller]
fn ends(host: &Host, violation: Violation) {
    assert_eq!(host.target.ended(), Some(&Ended::Violation(violation)));
    assert_eq!(host.events.last(), Some(&Event::Ended));
}

/// RFC 7143, 11.17.1: PDUs that are refused while the session goes on.
#[test]
fn what_is_refused_is_sent_back() {
    let ours = nop(4, 1);
    let unknown = wire::iscsi::NopOut { opcode: 0x1e, ..ours };
    let of_target = NopIn { initiator_task_tag: 4.into(), ..NopIn::default() };
    let snack = Snack { flags: 0x80, initiator_task_tag: 4.into(), ..Snack::default() };
    let both = ScsiCommand { flags: 0xe1, ..read(4, 1, 512) };
    let untagged = ScsiCommand { initiator_task_tag: u32::MAX.into(), ..read(4, 1, 512) };
    let attribute = ScsiCommand { flags: 0xc5, ..read(4, 1, 512) };
    let same_tag = read(1, 1, 512);
    let stray = DataOut {
        flags: 0x80,
        initiator_task_tag: 4.into(),
        target_transfer_tag: 0x10000.into(),
        ..DataOut::default()
    };
    let unsolicited = DataOut { target_transfer_tag: u32::MAX.into(), ..stray };
    let logout = LogoutRequest {
        reason: 0x83,
        cmd_sn: ours.cmd_sn,
        initiator_task_tag: 4.into(),
        ..LogoutRequest::default()
    };
    let text = TextRequest { target_transfer_tag: 9.into(), ..text_request(4, 1) };
    let both_flags = TextRequest { flags: 0xc0, ..text_request(4, 1) };
    for (bytes, reason, counts) in [
        (plain(&unknown, &[]), RejectReason::COMMAND_NOT_SUPPORTED, false),
        (plain(&of_target, &[]), RejectReason::COMMAND_NOT_SUPPORTED, false),
        (plain(&snack, &[]), RejectReason::SNACK_REJECT, false),
        (plain(&both, &[]), RejectReason::COMMAND_NOT_SUPPORTED, true),
        (plain(&untagged, &[]), RejectReason::INVALID_PDU_FIELD, true),
        (plain(&attribute, &[]), RejectReason::INVALID_PDU_FIELD, true),
        (plain(&read(4, 1, 512), &[1, 2, 3]), RejectReason::INVALID_PDU_FIELD, true),
        (plain(&same_tag, &[]), RejectReason::TASK_IN_PROGRESS, true),
        (plain(&stray, &[1; 9]), RejectReason::INVALID_PDU_FIELD, false),
        (plain(&unsolicited, &[1; 9]), RejectReason::INVALID_PDU_FIELD, false),
        (plain(&logout, &[]), RejectReason::INVALID_PDU_FIELD, true),
        (plain(&text, &[]), RejectReason::INVALID_PDU_FIELD, true),
        (plain(&both_flags, &[]), RejectReason::PROTOCOL_ERROR, true),
        (plain(&text_request(4, 1), b"no pair"), RejectReason::PROTOCOL_ERROR, true),
        (encode(&ours, &[0; 4], &[], Digests::default()), RejectReason::INVALID_PDU_FIELD, false),
        (
            encode(&read(4, 1, 0), &[0, 5, 2, 0, 0, 0, 0, 9], &[], Digests::default()),
            RejectReason::INVALID_PDU_FIELD,
            true,
        ),
        (
            encode(&read(4, 1, 0), &[0, 200, 1, 0, 0, 0, 0, 9], &[], Digests::default()),
            RejectReason::INVALID_PDU_FIELD,
            true,
        ),
    ] {
        let mut host = Host::logged_in(config(), &[]);
        host.send(&plain(&read(1, 0, 512), &[]));
        let first = host.command();
        let answers = host.send(&bytes);
        rejected(&answers, reason, &bytes);
        let pdu: &Reject = answers[0].view();
        let next = FIRST_CMD_SN.wrapping_add(1 + u32::from(counts));
        assert_eq!(pdu.exp_cmd_sn.get(), next, "{reason}");
        // The window of 8, of which one place is taken.
        assert_eq!(pdu.max_cmd_sn.get(), next.wrapping_add(6), "{reason}");
        // It goes on, with the next number.
        let answers = host.send(&plain(&nop(5, 1 + u32::from(counts)), &[]));
        assert_eq!(answers[0].view::<NopIn>().initiator_task_tag.get(), 5);
        assert_eq!(host.respond_read(first, &[7; 512]).len(), 1);
        assert!(host.target.ended().is_none() && host.events.is_empty());
    }
}

/// RFC 7143, 7: what cannot be mended at error recovery level 0 ends the session.
#[test]
fn what_cannot_be_mended_ends_the_session() {
    let mut host = Host::logged_in(config(), &[]);
    let gap = plain(&read(1, 2, 512), &[]);
    rejected(&host.send(&gap), RejectReason::PROTOCOL_ERROR, &gap);
    let expected = FIRST_CMD_SN;
    ends(&host, Violation::CommandLost { cmd_sn: FIRST_CMD_SN.wrapping_add(2), expected });

    let mut host = Host::logged_in(config(), &[]);
    let again = plain(&login(1, Some(3)), &[]);
    rejected(&host.send(&again), RejectReason::PROTOCOL_ERROR, &again);
    ends(&host, Violation::Opcode { opcode: Opcode::LOGIN_REQUEST });

    let mut host = Host::logged_in(config(), &[]);
    let long = plain(&nop(1, 0), &vec![0; 262_145]);
    rejected(&host.send(&long), RejectReason::PROTOCOL_ERROR, &long);
    ends(&host, Violation::DataLength { bytes: 262_145, max: 262_144 });

    let mut host = Host::logged_in(config(), &[]);
    let long = encode(&read(1, 0, 0), &[0; 276], &[], Digests::default());
    rejected(&host.send(&long), RejectReason::PROTOCOL_ERROR, &long);
    ends(&host, Violation::AhsLength { bytes: 276, max: 272 });
}

const CRC: [(&str, &str); 2] = [("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")];

#[test]
fn damaged_pdus_are_found() {
    let mut host = Host::logged_in(config(), &CRC);
    let digests = host.digests;
    assert_eq!(digests, Digests { header: true, data: true });
    // A header that is damaged is not even answered.
    for at in [0, 17, 47, 48, 51] {
        let mut host = Host::logged_in(config(), &CRC);
        let mut bytes = encode(&read(1, 0, 512), &[], &[], digests);
        bytes[at] ^= 4;
        assert!(host.send(&bytes).is_empty());
        ends(&host, Violation::HeaderDigest);
    }
    // Data of a request.
    let good = encode(&nop(1, 0), &[], b"hello", digests);
    let mut bad = good.clone();
    bad[53] ^= 1;
    assert_eq!(host.send(&good)[0].data, b"hello");
    let bad = [encode(&nop(1, 1), &[], b"hello", digests)[..52].to_vec(), bad[52..].to_vec()];
    let bad = bad.concat();
    rejected(&host.send(&bad), RejectReason::DATA_DIGEST_ERROR, &bad);
    ends(&host, Violation::DataDigest { opcode: Opcode::NOP_OUT });
}

/// 7.8: a write whose data was damaged fails, and the session goes on.
#[test]
fn damaged_data_fails_its_command() {
    for damaged in 0..3 {
        let mut host = Host::logged_in(config(), &[&CRC[..], &[("InitialR2T", "No")]].concat());
        let digests = host.digests;
        let command = ScsiCommand { flags: 0x21, ..write(3, 0, 1500) };
        let mut parts = vec![encode(&command, &[], &[1; 500], digests)];
        for (sn, offset) in [(0, 500), (1, 1000)] {
            let pdu = DataOut {
                flags: if sn == 1 { 0x80 } else { 0 },
                initiator_task_tag: 3.into(),
                target_transfer_tag: u32::MAX.into(),
                data_sn: sn.into(),
                buffer_offset: offset.into(),
                ..DataOut::default()
            };
            parts.push(encode(&pdu, &[], &[2; 500], digests));
        }
        *parts[damaged].last_mut().unwrap() ^= 0x80;
        let answers: Vec<Received> = parts.iter().flat_map(|part| host.send(part)).collect();
        rejected(&answers, RejectReason::DATA_DIGEST_ERROR, &parts[damaged]);
        let (task, fault) = host.written();
        assert_eq!(fault, Some(DataFault::Lost));
        assert_eq!(DataFault::Lost.additional_sense(), 0x4705);
        let answer = Answer { status: 2, moved: 0, wanted: 1500, sense: &[0x70; 18] };
        host.target.respond(task, &answer);
        let answers = host.receive();
        assert_eq!(answers[0].view::<ScsiResponse>().status, 2);
        assert_eq!(answers[0].data, [&[0, 18][..], &[0x70; 18]].concat());
        let pong = host.send(&encode(&nop(4, 1), &[], &[], digests));
        assert_eq!(pong[0].view::<NopIn>().initiator_task_tag.get(), 4);
    }
}

/// A write of 8 KiB that was asked for in two parts.
fn asked_for() -> (Host, [DataOut; 2]) {
    let keys = [("ImmediateData", "No"), ("MaxBurstLength", "4096"), ("MaxOutstandingR2T", "2")];
    let mut host = Host::logged_in(config(), &keys);
    let asked = host.send(&plain(&write(3, 0, 8192), &[]));
    let pdus = [0, 1].map(|index| {
        let r2t: &R2t = asked[index].view();
        DataOut {
            flags: 0x80,
            initiator_task_tag: 3.into(),
            target_transfer_tag: r2t.target_transfer_tag,
            buffer_offset: r2t.buffer_offset,
            ..DataOut::default()
        }
    });
    (host, pdus)
}

/// 7.9, 11.4.7.2: PDUs out of order, outside of their sequence, too many or too few bytes.
#[test]
fn data_out_of_place_fails_its_command_when_all_of_it_is_over() {
    let (_, [first, second]) = asked_for();
    let not_final = DataOut { flags: 0, ..first };
    let later = DataOut { data_sn: 1.into(), ..first };
    let elsewhere = DataOut { buffer_offset: 512.into(), ..first };
    for (pdu, length, fault) in [
        (DataOut { data_sn: 1.into(), ..first }, 4096, DataFault::Lost),
        (DataOut { data_sn: u32::MAX.into(), ..first }, 4096, DataFault::Lost),
        (elsewhere, 4096, DataFault::Lost),
        (first, 4097, DataFault::Amount),
        (first, 4095, DataFault::Amount),
        (first, 0, DataFault::Amount),
    ] {
        let (mut host, [_, second]) = asked_for();
        assert!(host.send(&plain(&pdu, &vec![9; length])).is_empty());
        // The other sequence was asked for, too, and is still awaited.
        assert_eq!(host.events.len(), 1);
        assert!(host.send(&plain(&second, &[9; 4096])).is_empty());
        assert_eq!(host.written().1, Some(fault), "{pdu:?}");
        assert!(host.target.ended().is_none());
    }
    // Two PDUs in the wrong order, and the second sequence before the first.
    let (mut host, _) = asked_for();
    host.send(&plain(&DataOut { buffer_offset: 2048.into(), flags: 0, ..later }, &[9; 2048]));
    host.send(&plain(&DataOut { flags: 0x80, ..not_final }, &[9; 2048]));
    host.send(&plain(&second, &[9; 4096]));
    assert_eq!(host.written().1, Some(DataFault::Lost));
    let (mut host, _) = asked_for();
    let early = plain(&second, &[9; 4096]);
    rejected(&host.send(&early), RejectReason::INVALID_PDU_FIELD, &early);
}

#[test]
fn data_that_nobody_asked_for_fails_its_command() {
    for (keys, flags, immediate, fault) in [
        (vec![("ImmediateData", "No")], 0xa1, 100, DataFault::Unsolicited),
        (vec![("FirstBurstLength", "512")], 0xa1, 513, DataFault::Unsolicited),
        (vec![], 0xa1, 1001, DataFault::Amount),
        // F is not set, though InitialR2T is Yes.
        (vec![], 0x21, 0, DataFault::Unsolicited),
    ] {
        let mut host = Host::logged_in(config(), &keys);
        let command = ScsiCommand { flags, ..write(3, 0, 1000) };
        assert!(host.send(&plain(&command, &vec![1; immediate])).is_empty());
        if flags & 0x80 == 0 {
            let pdu = DataOut {
                flags: 0x80,
                initiator_task_tag: 3.into(),
                target_transfer_tag: u32::MAX.into(),
                ..DataOut::default()
            };
            assert!(host.send(&plain(&pdu, &[1; 1000])).is_empty());
        }
        let (task, found) = host.written();
        assert_eq!(found, Some(fault), "{keys:?}");
        assert_eq!(host.data[&task], [], "nothing of it is kept");
    }
    assert_eq!(DataFault::Unsolicited.additional_sense(), 0x0c0c);
    assert_eq!(DataFault::Amount.additional_sense(), 0x0c0d);
}

#[track_caller]
fn refused(host: &mut Host, bytes: &[u8], status: LoginStatus, cause: Violation) {
    let answers = host.send(bytes);
    let response: &LoginResponse = answers.last().unwrap().view();
    assert_eq!(LoginStatus(response.status.get()), status, "{cause}");
    assert_eq!(response.flags & 0x83, 0);
    assert_eq!(host.target.ended(), Some(&Ended::Refused { status, cause }));
    // Nothing more is said to it, whatever it says.
    assert!(host.send(bytes).is_empty());
}

#[test]
fn a_login_that_breaks_the_rules_is_refused() {
    let first = login(1, Some(3));
    let names = text(&NAMES);
    let with = |keys: &[(&str, &str)]| text(&[&NAMES[..], keys].concat());
    let required = |key| Violation::KeyRefused { key };
    for (request, data, cause) in [
        (LoginRequest { flags: 0xc0 | 1 << 2 | 3, ..first }, names.clone(), Violation::LoginStage),
        (LoginRequest { flags: 0x80 | 1 << 2, ..first }, names.clone(), Violation::LoginStage),
        (LoginRequest { flags: 0x80 | 1 << 2 | 1, ..first }, names.clone(), Violation::LoginStage),
        (LoginRequest { flags: 0x80 | 1 << 2 | 2, ..first }, names.clone(), Violation::LoginStage),
        (LoginRequest { flags: 3 << 2, ..first }, names.clone(), Violation::LoginStage),
        (LoginRequest { flags: 2 << 2, ..first }, names.clone(), Violation::LoginStage),
        (first, b"InitiatorName".to_vec(), Violation::TextUnterminated),
        (first, b"InitiatorName\0".to_vec(), Violation::TextPair),
        (
            first,
            with(&[("MaxBurstLength", "512"), ("MaxBurstLength", "512")]),
            Violation::KeyTwice { key: "MaxBurstLength" },
        ),
        (first, with(&[("TargetName", "iqn.b")]), Violation::LoginChanged("TargetName")),
        (
            first,
            with(&[("MaxRecvDataSegmentLength", "1")]),
            Violation::KeyValue { key: "MaxRecvDataSegmentLength" },
        ),
        (first, b"a=b\0".repeat(200), Violation::TextPairs { max: 128 }),
        (first, text(&[("a", &"x".repeat(3000))]), Violation::TextValue { bytes: 3000, max: 2050 }),
    ] {
        let mut host = Host::new(config(), Known::default());
        refused(&mut host, &plain(&request, &data), LoginStatus::INITIATOR_ERROR, cause);
    }
    let wishes = Wishes { header_digest: DigestPolicy::Required, ..Wishes::default() };
    let mut host = Host::new(proto::iscsi::Config { wishes, ..config() }, Known::default());
    let status = LoginStatus::INITIATOR_ERROR;
    refused(&mut host, &plain(&first, &names), status, required("HeaderDigest"));
    let mut host = Host::new(config(), Known::default());
    let newer = LoginRequest { version_min: 1, version_max: 2, ..first };
    let status = LoginStatus::UNSUPPORTED_VERSION;
    refused(&mut host, &plain(&newer, &names), status, Violation::Version { min: 1, max: 2 });
    let mut host = Host::new(config(), Known::default());
    let joins = LoginRequest { tsih: 5.into(), ..first };
    let status = LoginStatus::TOO_MANY_CONNECTIONS;
    refused(&mut host, &plain(&joins, &names), status, Violation::Owner(status));
}

#[test]
fn a_login_stays_what_it_began_as() {
    let first = login(0, None);
    let names = text(&NAMES);
    for (request, what) in [
        (LoginRequest { isid: [0; 6], ..first }, "ISID"),
        (LoginRequest { tsih: 1.into(), ..first }, "TSIH"),
        (LoginRequest { cid: 1.into(), ..first }, "CID"),
        (LoginRequest { initiator_task_tag: 2.into(), ..first }, "initiator task tag"),
        (LoginRequest { cmd_sn: 2.into(), ..first }, "CmdSN"),
    ] {
        let mut host = Host::new(config(), Known::default());
        assert_eq!(host.send(&plain(&first, &names)).len(), 1);
        let status = LoginStatus::INITIATOR_ERROR;
        refused(&mut host, &plain(&request, &[]), status, Violation::LoginChanged(what));
    }
    let mut host = Host::new(config(), Known::default());
    host.send(&plain(&first, &names));
    let status = LoginStatus::INITIATOR_ERROR;
    refused(&mut host, &plain(&login(1, Some(3)), &[]), status, Violation::LoginStage);
    let mut host = Host::new(config(), Known::default());
    host.send(&plain(&first, &names));
    let opcode = Opcode::SCSI_COMMAND;
    let status = LoginStatus::INVALID_DURING_LOGIN;
    refused(&mut host, &plain(&read(1, 0, 512), &[]), status, Violation::Opcode { opcode });
    // Before a login nothing is answered at all.
    let mut host = Host::new(config(), Known::default());
    assert!(host.send(&plain(&read(1, 0, 512), &[])).is_empty());
    ends(&host, Violation::Opcode { opcode });
    let mut host = Host::new(config(), Known::default());
    assert!(host.send(&plain(&first, &vec![0; 8193])).is_empty());
    ends(&host, Violation::DataLength { bytes: 8193, max: 8192 });
}

#[test]
fn a_login_has_an_end() {
    let mut host = Host::new(config(), Known::default());
    host.send(&plain(&login(0, None), &text(&NAMES)));
    for _ in 1..LOGIN_REQUESTS_MAX {
        let answers = host.send(&plain(&login(0, None), &[]));
        assert_eq!(answers[0].view::<LoginResponse>().status.get(), 0);
    }
    let status = LoginStatus::INITIATOR_ERROR;
    let cause = Violation::LoginLength { max: LOGIN_REQUESTS_MAX };
    refused(&mut host, &plain(&login(0, None), &[]), status, cause);
    let mut host = Host::new(config(), Known::default());
    let goes_on = LoginRequest { flags: 0x40, ..login(0, None) };
    for _ in 0..2 {
        let answers = host.send(&plain(&goes_on, &[b'a'; 8000]));
        assert_eq!(answers[0].view::<LoginResponse>().flags, 0);
    }
    let cause = Violation::TextLength { max: 16384 };
    refused(&mut host, &plain(&goes_on, &[b'a'; 8000]), status, cause);
}

fn chap_host() -> Host {
    let account = |name: &str| Account { name: name.into(), secret: Secret::new(b"secret12345") };
    let chap = Chap {
        initiator: account("host"),
        target: Some(account("target")),
        algorithms: &ALGORITHMS,
    };
    let known = Known { authentication: Authentication::Chap(chap), ..Known::default() };
    Host::new(config(), known)
}

/// 12.1.3, 9.2.1: every way around the proof.
#[test]
fn chap_cannot_be_walked_around() {
    let status = LoginStatus::AUTHENTICATION_FAILURE;
    let methods = [&NAMES[..], &[("AuthMethod", "CHAP,None")]].concat();
    let missing = Violation::AuthenticationMissing;
    // Straight to the operational stage, to the end, or without a method.
    for request in [login(1, Some(3)), login(0, Some(3)), login(0, Some(1))] {
        let mut host = chap_host();
        refused(&mut host, &plain(&request, &text(&NAMES)), status, missing.clone());
    }
    let mut host = chap_host();
    let none = [&NAMES[..], &[("AuthMethod", "None")]].concat();
    refused(&mut host, &plain(&login(0, Some(1)), &text(&none)), status, missing);
    // T before the proof is given is not followed.
    let mut host = chap_host();
    let answers = host.send(&plain(&login(0, Some(3)), &text(&methods)));
    assert_eq!(answers[0].view::<LoginResponse>().flags, 0);
    assert_eq!(answers[0].value("AuthMethod").as_deref(), Some("CHAP"));
    let none_in_common = text(&[("CHAP_A", "1,2")]);
    let cause = Violation::ChapAlgorithm;
    refused(&mut host, &plain(&login(0, None), &none_in_common), status, cause);
    let hash = "0x00000000000000000000000000000000";
    for (keys, cause) in [
        (vec![("CHAP_N", "host"), ("CHAP_R", hash)], Violation::ChapWrong),
        (vec![("CHAP_N", "host"), ("CHAP_R", "")], Violation::ChapWrong),
        (vec![("CHAP_N", "host")], Violation::ChapStep),
        (vec![("CHAP_R", hash)], Violation::ChapStep),
        (vec![("CHAP_A", "5")], Violation::ChapStep),
        (vec![("AuthMethod", "None")], Violation::ChapStep),
        (vec![("CHAP_N", "host"), ("CHAP_N", "host")], Violation::ChapStep),
    ] {
        let mut host = chap_host();
        host.send(&plain(&login(0, None), &text(&methods)));
        let answers = host.send(&plain(&login(0, None), &text(&[("CHAP_A", "5,7")])));
        assert_eq!(answers[0].value("CHAP_A").as_deref(), Some("5"));
        assert_eq!(answers[0].value("CHAP_I").as_deref(), Some("90"));
        refused(&mut host, &plain(&login(0, Some(1)), &text(&keys)), status, cause);
    }
    // The proof before the challenge.
    let mut host = chap_host();
    host.send(&plain(&login(0, None), &text(&methods)));
    let early = text(&[("CHAP_N", "host"), ("CHAP_R", hash)]);
    refused(&mut host, &plain(&login(0, None), &early), status, Violation::ChapStep);
}

#[test]
fn a_reflected_challenge_is_not_answered() {
    let mut host = chap_host();
    let methods = [&NAMES[..], &[("AuthMethod", "CHAP")]].concat();
    host.send(&plain(&login(0, None), &text(&methods)));
    let answers = host.send(&plain(&login(0, None), &text(&[("CHAP_A", "5")])));
    let challenge = answers[0].value("CHAP_C").unwrap();
    // MD5 over 5a, "secret12345" and 32 times 5a, by Python's hashlib.
    let response = "0x3caf503c258a36272b81329998d134f6";
    let keys = [
        ("CHAP_N", "host"),
        ("CHAP_R", response),
        ("CHAP_I", "90"),
        ("CHAP_C", challenge.as_str()),
    ];
    let status = LoginStatus::AUTHENTICATION_FAILURE;
    let cause = Violation::ChapReflected;
    refused(&mut host, &plain(&login(0, Some(1)), &text(&keys)), status, cause);
}

#[test]
fn task_management_that_is_not_done_here_is_answered_at_once() {
    for (function, level, response) in [
        (1, "2", 1),
        (9, "2", 1),
        (8, "2", 4),
        (9, "1", 1),
        (10, "1", 5),
        (12, "1", 5),
        (13, "2", 5),
    ] {
        let mut host = Host::logged_in(config(), &[("iSCSIProtocolLevel", level)]);
        let request = TaskManagementRequest {
            opcode: 0x42,
            function: 0x80 | function,
            initiator_task_tag: 9.into(),
            referenced_task_tag: 77.into(),
            cmd_sn: FIRST_CMD_SN.into(),
            ..TaskManagementRequest::default()
        };
        let answers = host.send(&plain(&request, &[]));
        assert_eq!(answers[0].view::<TaskManagementResponse>().response, response, "{function}");
        assert!(host.events.is_empty());
    }
}
