//! The command window, immediate commands, aborted commands, and how much may wait.

use crate::support::{
    FIRST_CMD_SN, FIRST_STAT_SN, Host, Received, config, nop, plain, read, write,
};
use proto::iscsi::{CONTROLS_MAX, Config, Event, IMMEDIATE_MAX};
use wire::iscsi::{
    DataOut, NopIn, NopOut, R2t, Reject, RejectReason, ScsiCommand, TaskManagementRequest,
    TaskManagementResponse, TaskResponse,
};

/// ExpCmdSN and MaxCmdSN, counted from the first command.
fn window(answer: &Received) -> (u32, u32) {
    let pdu: &NopIn = wire::iscsi::Header::view(&answer.header);
    let count = |sn: u32| sn.wrapping_sub(FIRST_CMD_SN);
    (count(pdu.exp_cmd_sn.get()), count(pdu.max_cmd_sn.get()))
}

fn ping(tag: u32, index: u32) -> Vec<u8> {
    plain(&NopOut { opcode: 0x40, ..nop(tag, index) }, &[])
}

/// RFC 7143, 4.2.2.1: what is outside of the window is not there.
#[test]
fn the_window_shrinks_and_grows_and_is_kept() {
    let mut host = Host::logged_in(config(), &[]);
    for index in 0..8 {
        assert!(host.send(&plain(&read(index, index, 512), &[])).is_empty());
        assert_eq!(window(&host.send(&ping(99, index + 1))[0]), (index + 1, 7));
    }
    assert_eq!(host.events.len(), 8);
    for index in [8, 9, 7, 0, 1 << 31] {
        let outside = plain(&write(50, index, 512), &[1; 512]);
        assert!(host.send(&outside).is_empty(), "{index}");
    }
    assert_eq!(host.events.len(), 8);
    let tasks: Vec<_> = host.target.tasks().collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let answers = host.respond_read(task, &[0; 512]);
        assert_eq!(window(&answers[0]), (8, 8 + index as u32));
    }
    host.events.clear();
    host.send(&plain(&read(1, 8, 512), &[]));
    host.command();
}

#[test]
fn immediate_commands_go_beside_the_window_within_a_limit() {
    let mut host = Host::logged_in(Config { window: 1, ..config() }, &[]);
    host.send(&plain(&read(0, 0, 512), &[]));
    let immediate = |tag| ScsiCommand { opcode: 0x41, ..read(tag, 1, 512) };
    for tag in 1..=u32::from(IMMEDIATE_MAX) {
        assert!(host.send(&plain(&immediate(tag), &[])).is_empty());
    }
    let tasks: Vec<_> = host.target.tasks().collect();
    assert_eq!(tasks.len(), 1 + usize::from(IMMEDIATE_MAX));
    assert!(host.target.command(tasks[1]).unwrap().is_immediate);
    let management = TaskManagementRequest {
        opcode: 0x42,
        function: 0x82,
        initiator_task_tag: 70.into(),
        ..TaskManagementRequest::default()
    };
    for bytes in [plain(&immediate(60), &[]), plain(&management, &[])] {
        let answers = host.send(&bytes);
        let reject: &Reject = answers[0].view();
        assert_eq!(RejectReason(reject.reason), RejectReason::IMMEDIATE_COMMAND_REJECT);
        assert_eq!(window(&answers[0]), (1, 0));
    }
    let answers = host.respond_read(tasks[1], &[0; 512]);
    assert_eq!(window(&answers[0]), (1, 0));
    assert!(host.send(&plain(&immediate(60), &[])).is_empty());
    let answers = host.respond_read(tasks[0], &[0; 512]);
    assert_eq!(window(&answers[0]), (1, 1));
}

/// An initiator that was told of a closed window would wait for ever.
#[test]
fn a_window_that_opens_silently_is_told() {
    let mut host = Host::logged_in(Config { window: 1, ..config() }, &[]);
    host.send(&plain(&read(0, 0, 512), &[]));
    let task = host.command();
    assert_eq!(window(&host.send(&ping(9, 1))[0]), (1, 0));
    host.target.abort(task);
    let told = host.receive();
    let pdu: &NopIn = told[0].view();
    let tags = (pdu.initiator_task_tag.get(), pdu.target_transfer_tag.get());
    assert_eq!((tags, window(&told[0])), ((u32::MAX, u32::MAX), (1, 1)));
}

#[test]
fn a_flood_of_pings_is_not_read_before_its_answers_are_sent() {
    let mut host = Host::logged_in(config(), &[("MaxRecvDataSegmentLength", "262144")]);
    let flood = ping(7, 0).repeat(3 * CONTROLS_MAX);
    host.arrive(&flood);
    assert_eq!(std::mem::take(&mut host.events), [Event::Blocked]);
    let mut answers = 0;
    for _ in 0..3 {
        let some = host.receive();
        assert_eq!(some.len(), CONTROLS_MAX);
        answers += some.len();
        host.read();
    }
    assert_eq!((answers, host.receive().len()), (3 * CONTROLS_MAX, 0));
    let long = plain(&NopOut { opcode: 0x40, ..nop(7, 0) }, &[5; 70_000]).repeat(3);
    host.arrive(&long);
    assert_eq!(host.receive().len(), 1, "one is more than may wait");
}

/// Data of an aborted write comes all the same: it is thrown away, and its place is used again when
/// it has ended, or when the initiator has seen that the write was aborted.
#[test]
fn aborted_writes_drain() {
    for gives_up in [false, true] {
        let mut host = Host::logged_in(Config { window: 1, ..config() }, &[]);
        let asked = host.send(&plain(&write(3, 0, 9000), &[1; 100]));
        let Event::Command { task, .. } = host.events[0] else { panic!() };
        host.events.clear();
        let data = DataOut {
            flags: 0x80,
            initiator_task_tag: 3.into(),
            target_transfer_tag: asked[0].view::<R2t>().target_transfer_tag,
            buffer_offset: 100.into(),
            exp_stat_sn: FIRST_STAT_SN.wrapping_add(1).into(),
            ..DataOut::default()
        };
        let management = TaskManagementRequest {
            opcode: 0x42,
            function: 0x80 | 1,
            initiator_task_tag: 70.into(),
            referenced_task_tag: 3.into(),
            cmd_sn: FIRST_CMD_SN.wrapping_add(1).into(),
            exp_stat_sn: FIRST_STAT_SN.wrapping_add(1).into(),
            ..TaskManagementRequest::default()
        };
        assert!(host.send(&plain(&management, &[])).is_empty());
        let [Event::Manage(id)] = host.events[..] else { panic!("{:?}", host.events) };
        assert_eq!(host.target.management(id).unwrap().task, Some(task));
        host.target.abort(task);
        host.target.manage(id, TaskResponse::FUNCTION_COMPLETE);
        let answers = host.receive();
        assert_eq!(answers[0].view::<TaskManagementResponse>().response, 0);
        assert_eq!(window(&answers[0]), (1, 0), "the data is still to come");
        let told = if gives_up {
            let exp_stat_sn = FIRST_STAT_SN.wrapping_add(2).into();
            host.send(&plain(&NopOut { opcode: 0x40, exp_stat_sn, ..nop(8, 1) }, &[]))
        } else {
            host.send(&plain(&data, &[2; 8900]))
        };
        assert_eq!(window(told.last().unwrap()), (1, 1));
        assert_eq!(host.data[&task].len(), 100, "nothing was kept of the rest");
        host.events.clear();
        assert!(host.send(&plain(&read(3, 1, 512), &[])).is_empty());
        host.command();
    }
}

#[test]
fn a_write_that_is_aborted_while_its_data_comes_in_is_drained() {
    let mut host = Host::logged_in(config(), &[]);
    let bytes = plain(&write(3, 0, 4000), &[1; 4000]);
    host.arrive(&bytes[..1000]);
    let task = host.command();
    assert_eq!(host.target.data_out().map(|it| it.offset), Some(952));
    host.target.abort(task);
    assert_eq!(host.target.data_out(), None);
    host.arrive(&bytes[1000..]);
    assert_eq!(host.data[&task].len(), 952);
    assert_eq!(window(&host.send(&ping(1, 1))[0]), (1, 8));
    assert!(host.events.is_empty());
}

/// A target that wants less than the initiator has.
#[test]
fn what_the_command_does_not_want_is_not_asked_for() {
    for (accepts, immediate, kept, asked) in
        [(0, 0, 0, 0), (0, 100, 0, 0), (50, 100, 50, 0), (1000, 100, 100, 900)]
    {
        let mut host = Host::logged_in(config(), &[]);
        host.accepts = accepts;
        let r2ts = host.send(&plain(&write(3, 0, 4000), &vec![1; immediate]));
        let wanted =
            r2ts.first().map_or(0, |it| it.view::<R2t>().desired_data_transfer_length.get());
        assert_eq!(wanted, asked);
        let Event::Command { task, .. } = host.events[0] else { panic!() };
        assert_eq!(host.data[&task].len(), kept);
        assert_eq!(host.events.len(), if asked == 0 { 2 } else { 1 });
    }
}
