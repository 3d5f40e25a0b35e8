//! Commands of the full feature phase: reads, writes, and what goes with them.

use crate::support::{FIRST_STAT_SN, Host, config, plain, read, write};
use wire::iscsi::{DataIn, DataOut, R2t, ScsiResponse};

#[test]
fn a_read_is_answered_with_data_and_status_in_one_pdu() {
    let mut host = Host::logged_in(config(), &[]);
    assert!(host.send(&plain(&read(9, 0, 4096), &[])).is_empty());
    let task = host.command();
    let command = host.target.command(task).unwrap();
    assert_eq!((command.expected, command.tag, command.cdb), (4096, 9, &[0x28; 16][..]));
    let data: Vec<u8> = (0..4096_u32).map(|it| it as u8).collect();
    let answers = host.respond_read(task, &data);
    let pdu: &DataIn = answers[0].view();
    assert_eq!(answers.len(), 1);
    assert_eq!((pdu.flags, pdu.status), (0x80 | 0x01, 0));
    assert_eq!(pdu.stat_sn.get(), FIRST_STAT_SN.wrapping_add(1));
    assert_eq!(answers[0].data, data);
}

#[test]
fn a_write_takes_immediate_data_and_asks_for_the_rest() {
    let keys = [("InitialR2T", "Yes"), ("MaxBurstLength", "4096")];
    let mut host = Host::logged_in(config(), &keys);
    let data: Vec<u8> = (0..6000_u32).map(|it| (it * 7) as u8).collect();
    let asked = host.send(&plain(&write(3, 0, 6000), &data[..1001]));
    let requests: Vec<(u32, u32, u32)> = asked
        .iter()
        .map(|it| it.view::<R2t>())
        .map(|it| (it.r2t_sn.get(), it.buffer_offset.get(), it.desired_data_transfer_length.get()))
        .collect();
    // MaxOutstandingR2T is 1 unless it is negotiated.
    assert_eq!(requests, [(0, 1001, 4096)]);
    let mut sent = DataOut {
        flags: 0x80,
        lun: [0, 1, 0, 0, 0, 0, 0, 0],
        initiator_task_tag: 3.into(),
        target_transfer_tag: asked[0].view::<R2t>().target_transfer_tag,
        buffer_offset: 1001.into(),
        ..DataOut::default()
    };
    let asked = host.send(&plain(&sent, &data[1001..5097]));
    let second: &R2t = asked[0].view();
    assert_eq!((second.r2t_sn.get(), second.desired_data_transfer_length.get()), (1, 903));
    sent.target_transfer_tag = second.target_transfer_tag;
    sent.buffer_offset = 5097.into();
    assert!(host.send(&plain(&sent, &data[5097..])).is_empty());
    let (task, fault) = host.written();
    assert_eq!((fault, &host.data[&task]), (None, &data));
    let answer = proto::iscsi::Answer { status: 0, moved: 6000, wanted: 6000, sense: &[] };
    host.target.respond(task, &answer);
    let answers = host.receive();
    let response: &ScsiResponse = answers[0].view();
    assert_eq!((response.flags, response.status, response.response), (0x80, 0, 0));
    assert_eq!(response.exp_data_sn.get(), 2);
}
