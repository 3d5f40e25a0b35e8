//! Every PDU in every phase of a target: what comes of it.

use crate::support::{
    FIRST_CMD_SN, Host, INITIATOR, Known, NAMES, config, login, plain, read, text,
};
use expect_test::expect_file;
use proto::iscsi::{AsyncMessage, Ended, Event};
use std::fmt::Write;
use wire::iscsi::{Header, LogoutRequest, NopOut, Opcode, Reject, RejectReason};
use zerocopy::{FromBytes, IntoBytes};

type Phase = (&'static str, fn() -> Host);

const PHASES: [Phase; 6] = [
    ("connected", || Host::new(config(), Known::default())),
    ("security", || {
        let mut host = Host::new(config(), Known::default());
        host.send(&plain(&login(0, None), &text(&NAMES)));
        host
    }),
    ("normal", || Host::logged_in(config(), &[])),
    ("discovery", || {
        let mut host = Host::new(config(), Known::default());
        let names = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")];
        host.send(&plain(&login(1, Some(3)), &text(&names)));
        host
    }),
    ("logging out", || {
        let mut host = Host::logged_in(config(), &[]);
        host.send(&plain(&read(1, 0, 512), &[]));
        let logout = LogoutRequest {
            reason: 0x80,
            initiator_task_tag: 70.into(),
            cmd_sn: FIRST_CMD_SN.wrapping_add(1).into(),
            ..LogoutRequest::default()
        };
        host.send(&plain(&logout, &[]));
        host
    }),
    ("dropped", || {
        let mut host = Host::logged_in(config(), &[]);
        host.target.tell(AsyncMessage::Drop { wait_s: 0 });
        host.receive();
        host
    }),
];

/// A PDU of this opcode whose fields are as right as they can be for all of them.
fn pdu(opcode: Opcode, phase: &str) -> Vec<u8> {
    if opcode == Opcode::LOGIN_REQUEST {
        let names = if phase == "connected" { text(&NAMES) } else { Vec::new() };
        return plain(&login(0, Some(1)), &names);
    }
    let index = if phase == "logging out" { 2 } else { 0 };
    let bytes = NopOut {
        opcode: opcode.0,
        flags: 0x81,
        initiator_task_tag: 5.into(),
        target_transfer_tag: u32::MAX.into(),
        cmd_sn: FIRST_CMD_SN.wrapping_add(index).into(),
        ..NopOut::default()
    };
    let mut header = Header::read_from_bytes(bytes.as_bytes()).unwrap();
    // Close the session, abort a task set: reasons and functions that there are.
    header.flags = match opcode {
        Opcode::LOGOUT_REQUEST => 0x80,
        Opcode::TASK_MANAGEMENT_REQUEST => 0x82,
        Opcode::TEXT_REQUEST => 0x80,
        _ => 0x81,
    };
    header.as_bytes().to_vec()
}

fn outcome(host: &mut Host, bytes: &[u8]) -> String {
    host.events.clear();
    let answers = host.send(bytes);
    let mut said = String::new();
    for answer in answers {
        match answer.header.opcode() {
            Opcode::REJECT => {
                let reason = RejectReason(answer.header.view::<Reject>().reason);
                write!(said, "REJECT {reason}; ").unwrap();
            }
            opcode => write!(said, "{opcode}; ").unwrap(),
        }
    }
    for event in &host.events {
        match event {
            Event::Command { .. } => said.push_str("Command; "),
            Event::Manage(_) => said.push_str("Manage; "),
            event => write!(said, "{event:?}; ").unwrap(),
        }
    }
    match host.target.ended() {
        Some(Ended::Refused { status, .. }) => write!(said, "refused with {status}").unwrap(),
        Some(Ended::Violation(_)) => said.push_str("violation"),
        _ => {}
    }
    if said.is_empty() { "ignored".into() } else { said.trim_end_matches("; ").into() }
}

#[test]
fn every_pdu_in_every_phase() {
    let mut table = String::new();
    let of_target = [Opcode::NOP_IN, Opcode::SCSI_RESPONSE, Opcode(0x1f)];
    let of_initiator = Opcode::ALL.iter().copied().filter(|opcode| opcode.0 < 0x20);
    let opcodes: Vec<Opcode> = of_initiator.chain(of_target).collect();
    for (phase, host) in PHASES {
        writeln!(table, "{phase}").unwrap();
        for opcode in &opcodes {
            let outcome = outcome(&mut host(), &pdu(*opcode, phase));
            writeln!(table, "  {:<24} {outcome}", opcode.to_string()).unwrap();
        }
    }
    expect_file!["states.txt"].assert_eq(&table);
}
