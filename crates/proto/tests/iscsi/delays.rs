//! An owner that does not answer at once: admission, and memory for data.

use crate::support::{FIRST_CMD_SN, Known, NAMES, config, login, plain, read, text, write};
use proto::iscsi::{
    Admission, DataOut, Ended, Event, Head, Progress, Refusal, Segment, Target, Violation,
};
use std::rc::Rc;
use wire::iscsi::{DataOut as DataOutPdu, LoginResponse, LoginStatus, ScsiCommand};
use zerocopy::FromBytes;

fn connected() -> Target {
    Target::new(config(), Rc::new(Known::default()), [9; 33])
}

fn request(keys: &[(&str, &str)]) -> Vec<u8> {
    plain(&login(1, Some(3)), &text(&[&NAMES[..], keys].concat()))
}

fn logged_in() -> Target {
    let mut target = connected();
    assert_eq!(target.handle_input(&request(&[("InitialR2T", "No")])).event, Event::Admit);
    target.admit(&Admission::Granted { tsih: 1 });
    assert_eq!(target.handle_input(&[]).event, Event::LoggedIn);
    assert!(target.next_pdu(&mut Head::new()).is_some());
    target
}

#[test]
fn nothing_is_read_while_admission_is_pending() {
    let mut target = connected();
    assert!(target.admission().is_none());
    target.handle_input(&request(&[]));
    let early = plain(&read(1, 0, 512), &[]);
    for _ in 0..3 {
        let waits = Progress { consumed: 0, event: Event::Admit };
        assert_eq!(target.handle_input(&early), waits);
        assert!(target.next_pdu(&mut Head::new()).is_none());
    }
    assert_eq!(target.initiator(), Some(NAMES[0].1));
    target.admit(&Admission::Granted { tsih: 1 });
    assert_eq!(target.handle_input(&early), Progress { consumed: 0, event: Event::LoggedIn });
    assert!(matches!(target.handle_input(&early).event, Event::Command { .. }));
}

#[test]
fn admission_may_be_refused() {
    let moved = Refusal::Moved { address: "192.0.2.7:3260".into(), permanently: true };
    for (refusal, status, said) in [
        (
            Refusal::Status(LoginStatus::SERVICE_UNAVAILABLE),
            LoginStatus::SERVICE_UNAVAILABLE,
            &b""[..],
        ),
        (moved, LoginStatus::TARGET_MOVED_PERMANENTLY, b"TargetAddress=192.0.2.7:3260\0\0\0\0"),
    ] {
        let mut target = connected();
        target.handle_input(&request(&[]));
        target.admit(&Admission::Refused(refusal));
        let mut head = Head::new();
        assert_eq!(target.next_pdu(&mut head), Some(Segment::Bytes(said)));
        let response = LoginResponse::read_from_bytes(head.as_bytes()).unwrap();
        assert_eq!((response.status.get(), response.flags), (status.0, 1 << 2));
        assert_eq!(target.handle_input(&[]).event, Event::Ended);
        let cause = Violation::Owner(status);
        assert_eq!(target.ended(), Some(&Ended::Refused { status, cause }));
        assert!(target.session().is_none());
    }
}

/// Memory that is not there yet: no data of that command is taken, and nothing behind it.
#[test]
fn data_waits_until_it_is_accepted() {
    let mut target = logged_in();
    let command = ScsiCommand { flags: 0x21, ..write(3, 0, 200) };
    let unsolicited = DataOutPdu {
        flags: 0x80,
        initiator_task_tag: 3.into(),
        target_transfer_tag: u32::MAX.into(),
        buffer_offset: 100.into(),
        ..DataOutPdu::default()
    };
    let line = [plain(&command, &[1; 100]), plain(&unsolicited, &[2; 100])].concat();
    let first = target.handle_input(&line);
    let Event::Command { task, receives: true } = first.event else { panic!("{first:?}") };
    assert_eq!(first.consumed, 48);
    let blocked = Progress { consumed: 0, event: Event::Blocked };
    assert_eq!(target.handle_input(&line[48..]), blocked);
    assert!(!target.accept(task, 200));
    let data = |offset| Event::DataOut(DataOut { task, offset, length: 100 });
    assert_eq!(target.handle_input(&line[48..]), Progress { consumed: 0, event: data(0) });
    target.handle_placed(100, target.incoming_digest());
    assert_eq!(target.handle_input(&line[148..]), Progress { consumed: 48, event: data(100) });
    target.handle_placed(100, target.incoming_digest());
    let end = target.handle_input(&[]);
    assert_eq!(end.event, Event::DataEnd { task, fault: None });

    // Without immediate data it is the first Data-Out that waits; a command behind the header of
    // another one does not.
    let mut target = logged_in();
    let next = ScsiCommand { cmd_sn: FIRST_CMD_SN.wrapping_add(1).into(), ..read(4, 1, 512) };
    let whole = DataOutPdu { buffer_offset: 0.into(), ..unsolicited };
    let line = [plain(&command, &[]), plain(&next, &[]), plain(&whole, &[2; 200])].concat();
    let Event::Command { task, .. } = target.handle_input(&line).event else { panic!() };
    let second = target.handle_input(&line[48..]);
    assert!(matches!(second.event, Event::Command { receives: false, .. }));
    assert_eq!(target.handle_input(&line[96..]), blocked);
    // An owner that gives up instead lets the data pass by.
    target.abort(task);
    let passed = target.handle_input(&line[96..]);
    assert_eq!((passed.consumed, passed.event), (248, Event::Idle { needed: 48 }));
}
