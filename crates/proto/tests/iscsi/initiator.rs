//! What a target must not do, and what our initiator makes of it.

use crate::support::{Client, Digests, Host, Known, config, decode, normal, plain, talk};
use proto::iscsi::initiator::{Event, NewCommand, NotNow, Refused, TaskId};
use proto::iscsi::{DigestPolicy, Direction, Ended, Violation, Wishes};
use wire::iscsi::{
    AsyncMessage, DataIn, LogoutReply, NopIn, NopOut, Opcode, R2t, Reject, RejectReason,
    ScsiCommand, ScsiResponse, TaskManagementResponse, TextResponse,
};
use zerocopy::IntoBytes;

const NOTHING: NewCommand<'static> =
    NewCommand { lun: [0; 8], cdb: &[0; 6], attribute: 1, direction: Direction::None, length: 0 };

/// Logged in, with a read of 1000 bytes and a write of 5000 under way. The number of the next
/// status, and the tags of the two.
fn busy() -> (Client, u32, TaskId, [u32; 2]) {
    let mut host = Host::new(config(), Known::default());
    let wishes = Wishes {
        immediate_data: false,
        initial_r2t: true,
        header_digest: DigestPolicy::Never,
        data_digest: DigestPolicy::Never,
        ..Wishes::default()
    };
    let mut client = Client::new(normal(wishes));
    let (_, heard) = talk(&mut client, &mut host);
    let last = decode(&heard, Digests::default()).pop().unwrap();
    let stat_sn = last.header.view::<NopIn>().stat_sn.get() + 1;
    let read = client.read(0, 1000);
    client.write(0, &[6; 5000]);
    let sent = decode(&client.send(), Digests::default());
    let tags = [0, 1].map(|at| sent[at].view::<ScsiCommand>().initiator_task_tag.get());
    client.events.clear();
    (client, stat_sn, read, tags)
}

#[test]
fn a_target_that_breaks_the_rules_is_left() {
    let (_, stat_sn, _, [read, write]) = busy();
    let data = DataIn { initiator_task_tag: read.into(), ..DataIn::default() };
    let r2t = R2t {
        initiator_task_tag: write.into(),
        target_transfer_tag: 4.into(),
        desired_data_transfer_length: 100.into(),
        ..R2t::default()
    };
    let response = ScsiResponse {
        initiator_task_tag: read.into(),
        stat_sn: stat_sn.into(),
        ..ScsiResponse::default()
    };
    let stray_tag = 0x8000_7777.into();
    let status = stat_sn.into();
    let lost = Violation::StatusLost { stat_sn: stat_sn + 1, expected: stat_sn };
    let opcode = Opcode::NOP_OUT;
    let range = Violation::DataRange;
    for (bytes, violation) in [
        (plain(&NopOut::default(), &[]), Violation::Opcode { opcode }),
        (plain(&DataIn { buffer_offset: 4.into(), ..data }, &[1; 100]), range.clone()),
        (plain(&DataIn { data_sn: 1.into(), ..data }, &[1; 100]), range.clone()),
        (plain(&data, &[1; 1001]), range.clone()),
        (plain(&DataIn { initiator_task_tag: write.into(), ..data }, &[1; 1]), range.clone()),
        (plain(&R2t { r2t_sn: 1.into(), ..r2t }, &[]), range.clone()),
        (plain(&R2t { buffer_offset: 4901.into(), ..r2t }, &[]), range.clone()),
        (plain(&R2t { buffer_offset: u32::MAX.into(), ..r2t }, &[]), range.clone()),
        (plain(&R2t { initiator_task_tag: read.into(), ..r2t }, &[]), range.clone()),
        (plain(&R2t { target_transfer_tag: u32::MAX.into(), ..r2t }, &[]), range.clone()),
        (plain(&R2t { desired_data_transfer_length: 0.into(), ..r2t }, &[]), range.clone()),
        (plain(&r2t, &[1]), range),
        (plain(&ScsiResponse { stat_sn: (stat_sn + 1).into(), ..response }, &[]), lost.clone()),
        (plain(&DataIn { flags: 0x81, stat_sn: (stat_sn + 1).into(), ..data }, &[1; 9]), lost),
        (plain(&response, &[0]), Violation::Field("SenseLength")),
        (plain(&response, &[0, 9, 1]), Violation::Field("SenseLength")),
        (
            plain(
                &NopIn { initiator_task_tag: stray_tag, stat_sn: status, ..NopIn::default() },
                &[],
            ),
            Violation::Tag,
        ),
        (
            plain(&TextResponse { flags: 0x80, stat_sn: status, ..TextResponse::default() }, &[]),
            Violation::Tag,
        ),
        (plain(&TextResponse { stat_sn: status, ..TextResponse::default() }, &[]), Violation::Tag),
        (plain(&LogoutReply { stat_sn: status, ..LogoutReply::default() }, &[]), Violation::Tag),
        (
            plain(
                &TaskManagementResponse { stat_sn: status, ..TaskManagementResponse::default() },
                &[],
            ),
            Violation::Tag,
        ),
        (
            plain(&Reject { stat_sn: status, ..Reject::default() }, &[1; 47]),
            Violation::Field("header of the rejected PDU"),
        ),
    ] {
        let (mut client, ..) = busy();
        client.arrive(&bytes);
        assert_eq!(client.initiator.ended(), Some(&Ended::Violation(violation)));
        assert_eq!(client.events, [Event::Ended]);
        assert_eq!(client.initiator.command(&NOTHING), Err(NotNow));
    }
}

#[test]
fn a_rejected_command_and_a_dropped_session_are_told() {
    let (mut client, stat_sn, task, [read, _]) = busy();
    let bad = ScsiCommand { initiator_task_tag: read.into(), ..ScsiCommand::default() };
    let reject = Reject {
        reason: RejectReason::IMMEDIATE_COMMAND_REJECT.0,
        stat_sn: stat_sn.into(),
        ..Reject::default()
    };
    client.arrive(&plain(&reject, bad.as_bytes()));
    let reason = RejectReason::IMMEDIATE_COMMAND_REJECT;
    let refused = Refused::Command(task);
    assert_eq!(client.events, [Event::Rejected { reason, refused }]);
    let drop = AsyncMessage {
        async_event: 2,
        parameter2: 3.into(),
        stat_sn: (stat_sn + 1).into(),
        ..AsyncMessage::default()
    };
    client.arrive(&plain(&drop, &[]));
    assert_eq!(client.initiator.ended(), Some(&Ended::Dropped));
}

/// A command that is forgotten before it is sent leaves no gap in CmdSN; what still comes for one
/// that is forgotten later is thrown away.
#[test]
fn forgotten_commands_leave_no_trace() {
    let mut host = Host::new(config(), Known::default());
    host.disk = Some(vec![3; 4096]);
    let mut client = Client::new(normal(Wishes::default()));
    talk(&mut client, &mut host);
    let first = client.read(0, 512);
    client.initiator.forget(first);
    let second = client.read(0, 512);
    talk(&mut client, &mut host);
    assert_eq!(client.done.len(), 1);
    assert_eq!(client.done[&second].1, [3; 512]);
    let third = client.read(0, 2048);
    let out = client.send();
    client.initiator.forget(third);
    host.arrive(&out);
    let fourth = client.read(0, 100);
    let back = host.transmit();
    client.arrive(&back);
    talk(&mut client, &mut host);
    assert_eq!(client.done.len(), 2);
    assert_eq!(client.done[&fourth].1, [3; 100]);
    assert!(client.initiator.ended().is_none() && host.target.ended().is_none());
    assert_eq!(client.initiator.command_count(), 0);
}
